"""Checks of the CosyVoice3 kit inside and across the networks: LM, flow, vocoder, whole requests, streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sonant.engine.model import Prompt, Utterance
from sonant.families.cosyvoice3 import generate
from sonant.families.cosyvoice3.estimator import chunk_mask
from sonant.families.cosyvoice3.noise import GivenNoise
from sonant.families.cosyvoice3.sampler import Pick, greedy
from sonant.families.cosyvoice3.speaking import Speaking
from sonant.families.cosyvoice3.stream import LARGEST_HOP, ChunkSchedule, SpeechDecoder, VocoderStream
from sonant.nn.flow import cosine_times
from sonant.nn.tap import tapped
from sonant.parity.kit import KitReport, Recorded
from sonant.parity.kits.cosyvoice3.folder import Kit, Taps, watched
from sonant.parity.kits.cosyvoice3.front import inverse_cdf
from sonant.request.audio import Audio
from sonant.request.speech import Sampling, SpeechRequest, Style

HIDDEN, LOGITS, VELOCITY, MEL = 1e-4, 5e-4, 1e-4, 2e-4  # tolerances the kit states
F0_HZ, RELATIVE, WAVEFORM, WHOLE_WAVEFORM, CHUNKED = 1e-4, 1e-3, 1e-3, 2e-3, 1e-4
SPEED = 1.25  # of the run zero_shot_speed


# -- language model ---------------------------------------------------------------------------------


def language(kit: Kit, report: KitReport) -> None:
    """Prompt embedding, prefill and ten greedy steps for each mode; one run of the real sampler."""
    recorded, model = kit.tensors["llm"], kit.model.language
    for mode in [group for group in recorded.groups() if f"{group}.lm_input" in recorded]:
        x = _lm_prompt(kit, recorded, mode)
        report.close(mode, "lm_input", x, recorded[f"{mode}.lm_input"], HIDDEN)
        hidden = model(x)
        report.close(mode, "prefill_hidden", hidden, recorded[f"{mode}.prefill_hidden"], HIDDEN)
        report.close(mode, "prefill_logits", model.logits(hidden), recorded[f"{mode}.prefill_logits"], LOGITS)
        count = len(recorded[f"{mode}.greedy_tokens"])
        ids, states, scores = _steps(kit, recorded, mode, x, greedy, count)
        report.equal(mode, "greedy_tokens", torch.tensor(ids), recorded[f"{mode}.greedy_tokens"])
        report.close(mode, "step_hidden", torch.stack(states), recorded[f"{mode}.step_hidden"], HIDDEN)
        report.close(mode, "step_logits", torch.stack(scores), recorded[f"{mode}.step_logits"], LOGITS)
        tokens = model.speech_embedding(torch.tensor(ids[:-1]))[None]
        full = model(torch.cat((x, tokens), dim=1))[0, x.shape[1] - 1 :]
        report.close(mode, "cached steps equal one full pass", torch.stack(states), full, HIDDEN)
    uniforms = kit.json("llm.json")["ras_run.uniforms_f64"]
    report.close("ras_run", "uniforms", uniforms, recorded["ras_run.uniforms"], 1e-7)
    remaining = iter(uniforms)
    count = len(recorded["ras_run.tokens"])
    x = _lm_prompt(kit, recorded, "zero_shot")
    ids, _, _ = _steps(kit, recorded, "zero_shot", x, inverse_cdf(remaining), count)
    report.equal("ras_run", "tokens", torch.tensor(ids), recorded["ras_run.tokens"])
    report.equal("ras_run", "uniforms left over", len(list(remaining)), 0)


def _lm_prompt(kit: Kit, recorded: Recorded, mode: str) -> Tensor:
    text = torch.cat((recorded[f"{mode}.prompt_text"][0], recorded[f"{mode}.text"][0])).long()
    return kit.model.language.prompt(text, recorded[f"{mode}.prompt_speech_token"][0].long())


def _steps(
    kit: Kit, recorded: Recorded, mode: str, x: Tensor, pick: Pick, count: int
) -> tuple[list[int], list[Tensor], list[Tensor]]:
    """Ids, hidden states and scores of `count` cached steps."""
    model = kit.model
    model.allocate(1, x.shape[1] + count)
    assert model._cache is not None
    sampling = Sampling(greedy=pick is greedy).over(model.spec.sampling)
    prompt = Prompt(text="", sampling=sampling, seed=0, ceiling=count + 1, inputs=None)
    utterance = Utterance(prompt=prompt, slots=(0,), generator=torch.Generator())
    state = utterance.state = Speaking(
        pick=pick, minimum=generate.minimum_length(recorded[f"{mode}.text"].shape[1])
    )
    states, scores = [], []
    for step in range(count):
        taps, watching = watched()
        with watching:
            if step == 0:
                state.logits = generate.prefill(model.language, model._cache, 0, x)
            else:
                generate.next_scores(model.language, model._cache, [utterance])
        states.append(taps["lm.norm"][0, -1])
        assert state.logits is not None
        scores.append(state.logits)
        chosen = generate.choose(model.config.language, state, sampling)
        state.history.append(chosen)
    return state.history, states, scores


# -- flow -------------------------------------------------------------------------------------------


def flow(kit: Kit, report: KitReport) -> None:
    """Conditions, every solver step and the mel, with and without chunk mask and look ahead."""
    recorded, noise = kit.tensors["flow"], kit.tensors["noise"]["flow.rand_noise"][0]
    network = kit.model.flow
    prompt, tokens = recorded["prompt_token"][0].long(), recorded["token_with_lookahead"][0].long()
    mel, speaker = recorded["prompt_feat"][0], recorded["embedding"][0]
    times = cosine_times(network.config.steps)
    report.close("flow", "t_span", times, recorded["t_span"], 1e-6)
    for mask in ("full", "stream"):
        for end in ("final", "partial"):
            case = f"{mask}.{end}"
            if f"{case}.mel" not in recorded:
                continue
            target = tokens[: len(tokens) - network.config.lookahead] if end == "final" else tokens
            taps, watching = watched()
            with watching:
                inputs = network.inputs(torch.cat((prompt, target)), mel, speaker, is_final=end == "final")
                start = noise[:, : inputs.mu.shape[-1]]
                solved = network.solve(inputs, start, chunked=mask == "stream")
            _flow_case(report, recorded, case, taps, solved)
            found = solved[None, :, mel.shape[0] :]
            report.close(f"flow {case}", "mel", found, recorded[f"{case}.mel"], MEL)


def _flow_case(report: KitReport, recorded: Recorded, case: str, taps: Taps, solved: Tensor) -> None:
    title = f"flow {case}"
    steps = len([name for name in taps.found if name.endswith(".v")])
    velocities = [taps[f"flow.step.{i}.v"] for i in range(steps)]
    found: dict[str, Tensor] = {
        "spks": taps["flow.spks"],
        "token_embedding": taps["flow.token_embedding"],
        "pre_lookahead.conv1": taps["flow.lookahead.conv1"],
        "pre_lookahead": taps["flow.lookahead"],
        "x0": taps["flow.step.0.x"][:1],
        "mu": taps["flow.step.0.mu"][:1],
        "cond": taps["flow.step.0.cond"][:1],
        "t_used": torch.stack([taps[f"flow.step.{i}.t"][0] for i in range(steps)]),
        "v_step1": velocities[0],
        f"v_step{steps}": velocities[-1],
        "v_steps_cond_mean": torch.stack([v[0].mean() for v in velocities]),
        "v_steps_uncond_mean": torch.stack([v[1].mean() for v in velocities]),
    }
    for name, tensor in found.items():
        if f"{case}.{name}" in recorded:
            report.close(title, name, tensor, recorded[f"{case}.{name}"], VELOCITY)
    after = [taps[f"flow.step.{i}.x"][0] for i in range(1, steps)] + [solved]
    if f"{case}.x_steps" in recorded:
        expected = recorded[f"{case}.x_steps"]
        chosen = after if len(expected) == steps else [after[0], after[4], after[-1]]
        report.close(title, "x_steps", torch.stack(chosen), expected, MEL)


def estimator(kit: Kit, report: KitReport) -> None:
    """One call of the estimator, module by module, with full and with chunked attention."""
    recorded, network = kit.tensors["flow"], kit.model.flow.decoder.estimator
    positions = torch.arange(recorded["dit.x"].shape[-1])
    angles = network.rotary_embed.angles(positions).repeat_interleave(2, dim=-1)[None]
    report.close("dit", "rope_freqs", angles, recorded["dit.rope_freqs"], 1e-5)
    mask = chunk_mask(positions, network.config.static_chunk_size)[None]
    report.equal("dit", "stream_attn_mask", mask.to(torch.uint8), recorded["dit.stream_attn_mask"])
    names = {
        "time_sinus": "time.sinus",
        "time_embed": "time.embedding",
        "input_proj": "input.projection",
        "conv_pos": "input.position",
        "input_embed": "input",
        "norm_out": "norm_out",
        "v": "v",
    }
    parts = {"attn_norm": "norm", "q": "query", "attn": "attention", "ff": "feed_forward"}
    for case, chunked in (("dit.full", False), ("dit.stream", True)):
        taps, watching = watched()
        with watching:
            network(
                recorded["dit.x"],
                recorded["dit.mu"],
                recorded["dit.cond"],
                recorded["dit.spks"],
                recorded["dit.t"],
                positions,
                chunked=chunked,
            )
        for key in [key for key in recorded if key.startswith(f"{case}.") and key != f"{case}_attn_mask"]:
            name = key.removeprefix(f"{case}.")
            if name.startswith("block"):
                block, _, part = name.removeprefix("block").partition(".")
                tap = f"block.{block}.{parts[part]}" if part else f"block.{block}"
            else:
                tap = names[name]
            report.close(case, name, taps[tap], recorded[key], VELOCITY)


# -- vocoder ----------------------------------------------------------------------------------------


def vocoder(kit: Kit, report: KitReport) -> None:
    """Every stage of the vocoder, whole and with look ahead, then in chunks."""
    recorded, network = kit.tensors["hift"], kit.model.vocoder
    noise, mel = kit.tensors["noise"]["hift.sine_noise"][0], recorded["mel"][0]
    for case in ("final", "partial"):
        taps, watching = watched()
        with watching:
            waveform = network(mel, noise, is_final=case == "final")
        for key in [key for key in recorded if key.startswith(f"{case}.")]:
            name = key.removeprefix(f"{case}.")
            if name == "wav":
                continue
            found, expected = _stage(kit, taps, name), recorded[key]
            if name == "sine_waves":
                found = found[:, : expected.shape[1]]
            if name.startswith("f0"):
                limit = F0_HZ if name == "f0" else RELATIVE * float(expected.abs().max())
            else:
                limit = RELATIVE * float(expected.abs().max())
            report.close(f"hift {case}", name, found, expected, limit)
        report.close(f"hift {case}", "wav", waveform[None], recorded[f"{case}.wav"], WAVEFORM)
    whole = network(mel, noise)
    cuts = recorded["chunk_cuts"].tolist()
    for title, context in (("whole prefix", None), ("bounded context", network.context)):
        stream = VocoderStream(
            network, GivenNoise(kit.model.config, torch.zeros(0, 0), noise), context=context
        )
        pieces, start = [], 0
        for index, cut in enumerate(cuts):
            is_final = index == len(cuts) - 1
            pieces.append(stream.push(mel[:, start:cut], is_final=is_final))
            start = cut
            expected = recorded[f"chunk{index}.wav"]
            report.close(f"hift {title}", f"chunk{index}.wav", pieces[-1][None], expected, WAVEFORM)
        report.close(f"hift {title}", "chunks equal the whole", torch.cat(pieces), whole, CHUNKED)


def _stage(kit: Kit, taps: Taps, name: str) -> Tensor:
    """The tapped tensor under the kit's name, in the kit's shape."""
    plain = {"f0": "f0", "conv_pre": "conv_pre", "conv_post": "conv_post", "source": "source"}
    plain |= {"magnitude": "magnitude", "phase": "phase", "s_stft": "source_stft"}
    config = kit.model.config.vocoder
    if name in plain:
        found = taps[f"vocoder.{plain[name]}"]
        return found.T[None] if name == "source" else found
    rows = {"f02sine": "sines", "uv": "voiced", "sine_waves": "harmonics"}
    if name in rows:
        return taps[f"vocoder.{rows[name]}"][None]
    if name.startswith("f0.cond"):
        return taps[f"vocoder.f0.layer.{name.removeprefix('f0.cond')}"].float()
    for prefix, part in (("up", "up"), ("source_down", "source_down"), ("source_res", "source")):
        if name.removeprefix(prefix).isdigit() and name.startswith(prefix):
            return taps[f"vocoder.stage.{name.removeprefix(prefix)}.{part}"]
    if name == "stage_last_out_lrelu":
        return F.leaky_relu(taps[f"vocoder.stage.{len(config.upsample_rates) - 1}.out"])
    stage = name.removeprefix("stage").removesuffix("_out_lrelu")
    return F.leaky_relu(taps[f"vocoder.stage.{stage}.out"], config.lrelu_slope)


# -- whole requests ---------------------------------------------------------------------------------


def requests(kit: Kit, report: KitReport) -> None:
    """Clip and texts to tokens, mel and waveform through the family contract, in every mode."""
    data, recorded = kit.json("e2e.json"), kit.tensors["e2e"]
    for name, request in _requests(kit, data["texts"]):
        with report.section(name):
            if name in data:
                _request(kit, report, name, request, data[name], recorded)


def _requests(kit: Kit, texts: Any) -> Iterator[tuple[str, SpeechRequest]]:
    model = kit.model
    clip = Audio.read(kit.folder / "audio" / "prompt_24k.wav")
    told = model.encode_voice(clip, texts["prompt"])
    untold = model.encode_voice(clip, None)
    source = Audio.read(kit.folder / "audio" / "source_16k.wav")

    def request(text: str, **fields: Any) -> SpeechRequest:
        options = {"noise": "reference", "reference_stream": True}
        sampling = Sampling(greedy=True)
        return SpeechRequest(text, normalize=False, sampling=sampling, options=options, **fields)

    yield "zero_shot", request(texts["zero"], voice=told)
    yield "cross_lingual", request(texts["cross"], voice=untold)
    style = Style(instruction=texts["instruct"])
    yield "instruct2", request(texts["instruct_text"], voice=told, style=style)
    yield "vc", request("", voice=untold, source_audio=source)
    yield "zero_shot_speed", request(texts["zero"], voice=told, speed=SPEED)
    yield "stream_zero_shot", request(texts["stream"], voice=told)


def _request(
    kit: Kit, report: KitReport, name: str, request: SpeechRequest, plan: Any, recorded: Recorded
) -> None:
    (prompt,) = kit.model.prepare(request)
    tokens, raw = speak(kit, prompt)
    expected = recorded[f"{name}.speech_tokens"]
    # Recorded before or after the silence filter: they only differ where it dropped something.
    report.equal(name, "speech_tokens", raw if len(expected) == len(raw) else tokens, expected)
    stop = kit.manifest.get("greedy_stop", {}).get(name)
    if stop is not None:
        report.check(name, "stops at", stop in (len(raw), len(tokens)), f"{len(raw)} ids, recorded {stop}")
    is_stream = f"{name}.chunk0.wav" in recorded
    taps, watching = watched()
    with watching:
        decoder, pieces = _decoded(kit, prompt, tokens, is_stream=is_stream)
    calls = [
        {
            "n_tokens": call.given,
            "streaming": call.chunked,
            "finalize": call.is_final,
            "token_offset": call.offset,
            "samples": len(samples),
        }
        for call, samples in zip(decoder.calls, pieces, strict=True)
    ]
    report.equal(name, "calls", calls, plan["calls"])
    report.equal(name, "hop afterwards", decoder.hop, plan["token_hop_len_after"])
    scopes = [f"call.{index}." if is_stream else "" for index in range(len(calls))]
    mels = [taps[f"{scope}flow.mel"][None] for scope in scopes]

    def from_mels(index: int | None) -> tuple[Tensor, float] | None:
        """The waveform from the recorded mels, in the place of the computed ones, and its tolerance."""
        keys = [f"{name}.chunk{i}.flow_mel" if is_stream else f"{name}.mel" for i in range(len(calls))]
        if any(key not in recorded for key in keys):
            return None
        given = {f"{scope}flow.mel": recorded[key][0] for scope, key in zip(scopes, keys, strict=True)}
        with tapped(lambda stage, _: given.get(stage)):
            _, again = _decoded(kit, prompt, tokens, is_stream=is_stream)
        return (torch.cat(again) if index is None else again[index])[None], WAVEFORM

    if not is_stream:
        found, wanted = torch.cat(pieces)[None], recorded[f"{name}.wav"]
        report.sound(name, "wav", found, wanted, WHOLE_WAVEFORM, partial(from_mels, None))
        if f"{name}.mel" in recorded:
            report.close(name, "mel", mels[-1], recorded[f"{name}.mel"], MEL)
        return
    for index, (samples, mel) in enumerate(zip(pieces, mels, strict=True)):
        key = f"{name}.chunk{index}"
        report.close(name, f"chunk{index}.flow_mel", mel, recorded[f"{key}.flow_mel"], MEL)
        wanted = recorded[f"{key}.wav"]
        report.sound(
            name, f"chunk{index}.wav", samples[None], wanted, WHOLE_WAVEFORM, partial(from_mels, index)
        )


def _decoded(
    kit: Kit, prompt: Prompt, tokens: Tensor, *, is_stream: bool
) -> tuple[SpeechDecoder, list[Tensor]]:
    """The decoder after all tokens, and what it gave, call by call."""
    decoder = kit.model.decoder(prompt, streaming=is_stream)
    pieces: list[Tensor] = []
    for token in tokens:
        pieces += _spoken(decoder.push(token.reshape(1, 1)))
    pieces += _spoken(decoder.finish())
    return decoder, pieces


def _spoken(samples: Tensor) -> list[Tensor]:
    return [samples] if len(samples) else []


def speak(kit: Kit, prompt: Prompt) -> tuple[Tensor, Tensor]:
    """Tokens [n] of a prompt spoken alone, and every id the model gave [m], dropped silences included."""
    model = kit.model
    model.allocate(1, prompt.positions)
    utterance = model.start(prompt, [0])
    parts = []
    for _ in range(prompt.ceiling + 1):
        (step,) = model.step([utterance])
        parts.append(step.tokens[:, 0])
        if step.is_final:
            break
    tokens = torch.cat(parts)
    return tokens, tokens if utterance.state is None else torch.tensor(utterance.state.history)


def stream_plans(kit: Kit, report: KitReport) -> None:
    """Which tokens are decoded when, for fresh requests and for an instance that kept its hop."""
    model = kit.model
    for index, plan in enumerate(kit.json("e2e.json")["stream_plans"]["plans"]):
        chunk = model.config.chunk_tokens
        schedule = ChunkSchedule(
            plan["prompt_tokens"],
            hop=plan["hop_at_start"],
            largest=LARGEST_HOP * chunk,
            lookahead=model.config.flow.lookahead,
        )
        calls = [
            [call.offset, call.given, call.chunked, call.is_final]
            for call in schedule.plan(plan["target_tokens"])
        ]
        report.equal("stream_plans", f"plan {index} calls", calls, plan["calls"])
        report.equal("stream_plans", f"plan {index} hop_at_end", schedule.hop, plan["hop_at_end"])


CHECKS: tuple[Callable[[Kit, KitReport], None], ...] = (
    language,
    flow,
    estimator,
    vocoder,
    requests,
    stream_plans,
)
