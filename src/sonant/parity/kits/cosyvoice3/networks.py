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
from sonant.families.cosyvoice3.speaking import TokenState
from sonant.families.cosyvoice3.stream import LARGEST_HOP, ChunkSchedule, SpeechDecoder, VocoderStream
from sonant.nn.flow import cosine_times
from sonant.nn.tap import tapped
from sonant.parity.kit import Recorded
from sonant.parity.kits.cosyvoice3.folder import CosyKit
from sonant.parity.kits.cosyvoice3.front import inverse_cdf
from sonant.parity.kits.driver import watched
from sonant.request.audio import Audio
from sonant.request.speech import Sampling, SpeechRequest, Style

SPEED = 1.25  # of the run zero_shot_speed


# -- language model ---------------------------------------------------------------------------------


def language(kit: CosyKit) -> None:
    """Prompt embedding, prefill and ten greedy steps for each mode; one run of the real sampler."""
    recorded, model, report = kit.files["llm"], kit.model.language, kit.report
    for mode in [group for group in recorded.groups() if f"{group}.lm_input" in recorded]:
        x = _lm_prompt(kit, recorded, mode)
        hidden = model(x)
        count = len(recorded[f"{mode}.greedy_tokens"])
        ids, states, scores = _steps(kit, recorded, mode, x, greedy, count)
        found = {"lm_input": x, "prefill_hidden": hidden, "prefill_logits": model.logits(hidden)}
        found |= {"greedy_tokens": torch.tensor(ids), "step_hidden": states, "step_logits": scores}
        kit.compare("language", mode, recorded, found, prefix=f"{mode}.")
        tokens = model.speech_embedding(torch.tensor(ids[:-1]))[None]
        full = model(torch.cat((x, tokens), dim=1))[0, x.shape[1] - 1 :]
        report.close(mode, "cached steps equal one full pass", states, full, kit.limits["hidden"])
    uniforms = kit.json("llm")["ras_run.uniforms_f64"]
    report.close("ras_run", "uniforms", uniforms, recorded["ras_run.uniforms"], kit.limits["drawn"])
    remaining = iter(uniforms)
    count = len(recorded["ras_run.tokens"])
    x = _lm_prompt(kit, recorded, "zero_shot")
    ids, _, _ = _steps(kit, recorded, "zero_shot", x, inverse_cdf(remaining), count)
    report.equal("ras_run", "tokens", torch.tensor(ids), recorded["ras_run.tokens"])
    report.equal("ras_run", "uniforms left over", len(list(remaining)), 0)


def _lm_prompt(kit: CosyKit, recorded: Recorded, mode: str) -> Tensor:
    text = torch.cat((recorded[f"{mode}.prompt_text"][0], recorded[f"{mode}.text"][0])).long()
    return kit.model.language.prompt(text, recorded[f"{mode}.prompt_speech_token"][0].long())


def _steps(
    kit: CosyKit, recorded: Recorded, mode: str, x: Tensor, pick: Pick, count: int
) -> tuple[list[int], Tensor, Tensor]:
    """Ids, hidden states [n, D] and scores [n, V] of `count` cached steps."""
    model = kit.model
    model.allocate(1, x.shape[1] + count)
    assert model._cache is not None
    sampling = Sampling(greedy=pick is greedy).over(model.spec.sampling)
    prompt = Prompt(text="", sampling=sampling, seed=0, ceiling=count + 1, inputs=None)
    utterance = Utterance(prompt=prompt, slots=(0,), generator=torch.Generator())
    minimum = generate.minimum_length(recorded[f"{mode}.text"].shape[1])
    state = utterance.state = TokenState(pick=pick, minimum=minimum)
    states, scores = [], []
    for step in range(count):
        with watched() as seen:
            if step == 0:
                state.logits = generate.prefill(model.language, model._cache, 0, x)
            else:
                generate.next_scores(model.language, model._cache, [utterance])
        states.append(seen["lm.norm"][0][0, -1])
        assert state.logits is not None
        scores.append(state.logits)
        state.history.append(generate.choose(model.config.language, state, sampling))
    return state.history, torch.stack(states), torch.stack(scores)


# -- flow -------------------------------------------------------------------------------------------


def flow(kit: CosyKit) -> None:
    """Conditions, every solver step and the mel, with and without chunk mask and look ahead."""
    recorded, noise = kit.files["flow"], kit.files["noise"]["flow.rand_noise"][0]
    network = kit.model.flow
    prompt, tokens = recorded["prompt_token"][0].long(), recorded["token_with_lookahead"][0].long()
    mel, speaker = recorded["prompt_feat"][0], recorded["embedding"][0]
    times = cosine_times(network.config.steps)
    kit.report.close("flow", "t_span", times, recorded["t_span"], kit.limits["times"])
    for case in ("full.final", "full.partial", "stream.final", "stream.partial"):
        if f"{case}.mel" not in recorded:
            continue
        mask, end = case.split(".")
        target = tokens[: len(tokens) - network.config.lookahead] if end == "final" else tokens
        with watched() as seen:
            inputs = network.inputs(torch.cat((prompt, target)), mel, speaker, is_final=end == "final")
            solved = network.solve(inputs, noise[:, : inputs.mu.shape[-1]], chunked=mask == "stream")
        steps = sum(name.endswith(".v") for name in seen)
        velocities = [seen[f"flow.step.{i}.v"][0] for i in range(steps)]
        after = [seen[f"flow.step.{i}.x"][0][0] for i in range(1, steps)] + [solved]
        found: dict[str, Any] = dict(seen)
        for key, name in (("x0", "x"), ("mu", "mu"), ("cond", "cond")):
            found[key] = seen[f"flow.step.0.{name}"][0][:1]
        found["t_used"] = torch.stack([seen[f"flow.step.{i}.t"][0][0] for i in range(steps)])
        found |= {f"v_step{i}": velocity for i, velocity in enumerate(velocities, 1)}
        found["v_steps_cond_mean"] = torch.stack([v[0].mean() for v in velocities])
        found["v_steps_uncond_mean"] = torch.stack([v[1].mean() for v in velocities])
        if (key := f"{case}.x_steps") in recorded:  # all of them, or the first, the fifth and the last
            found["x_steps"] = torch.stack(
                after if len(recorded[key]) == steps else [after[0], after[4], after[-1]]
            )
        found["mel"] = solved[:, mel.shape[0] :]
        kit.compare("flow", f"flow {case}", recorded, found, prefix=f"{case}.")


def estimator(kit: CosyKit) -> None:
    """One call of the estimator, module by module, with full and with chunked attention."""
    recorded, network = kit.files["flow"], kit.model.flow.decoder.estimator
    positions = torch.arange(recorded["dit.x"].shape[-1])
    angles = network.rotary_embed.angles(positions).repeat_interleave(2, dim=-1)[None]
    kit.report.close("dit", "rope_freqs", angles, recorded["dit.rope_freqs"], kit.limits["rotary"])
    mask = chunk_mask(positions, network.config.static_chunk_size)[None]
    kit.report.equal("dit", "stream_attn_mask", mask.to(torch.uint8), recorded["dit.stream_attn_mask"])
    for case, chunked in (("dit.full", False), ("dit.stream", True)):
        given = [recorded[f"dit.{name}"] for name in ("x", "mu", "cond", "spks", "t")]
        with watched() as seen:
            network(*given, positions, chunked=chunked)
        kit.compare("estimator", case, recorded, seen, prefix=f"{case}.")


# -- vocoder ----------------------------------------------------------------------------------------


def vocoder(kit: CosyKit) -> None:
    """Every stage of the vocoder, whole and with look ahead, then in chunks."""
    recorded, network, limit = kit.files["hift"], kit.model.vocoder, kit.limits["waveform"]
    noise, mel = kit.files["noise"]["hift.sine_noise"][0], recorded["mel"][0]
    config = kit.model.config.vocoder
    last = len(config.upsample_rates) - 1
    for case in ("final", "partial"):
        with watched() as seen:
            waveform = network(mel, noise, is_final=case == "final")
        found: dict[str, Any] = dict(seen)
        found |= {name: seen[name][0].float() for name in seen if name.startswith("vocoder.f0.layer.")}
        outs = [seen[f"vocoder.stage.{stage}.out"][0] for stage in range(last + 1)]
        found |= {f"stage{n}_out_lrelu": F.leaky_relu(out, config.lrelu_slope) for n, out in enumerate(outs)}
        found |= {"stage_last_out_lrelu": F.leaky_relu(outs[last]), "wav": waveform}
        kit.compare("vocoder", f"hift {case}", recorded, found, prefix=f"{case}.")
    whole = network(mel, noise)
    cuts = recorded["chunk_cuts"].tolist()
    for title, context in (("whole prefix", None), ("bounded context", network.context)):
        given = GivenNoise(kit.model.config, torch.zeros(0, 0), noise)
        stream = VocoderStream(network, given, context=context)
        pieces, start = [], 0
        for index, cut in enumerate(cuts):
            pieces.append(stream.push(mel[:, start:cut], is_final=index == len(cuts) - 1))
            start = cut
            expected = recorded[f"chunk{index}.wav"]
            kit.report.close(f"hift {title}", f"chunk{index}.wav", pieces[-1][None], expected, limit)
        joined = torch.cat(pieces)
        kit.report.close(f"hift {title}", "chunks equal the whole", joined, whole, kit.limits["chunked"])


# -- whole requests ---------------------------------------------------------------------------------


def requests(kit: CosyKit) -> None:
    """Clip and texts to tokens, mel and waveform through the family contract, in every mode."""
    data, recorded = kit.json("e2e"), kit.files["e2e"]
    for name, request in _requests(kit, data["texts"]):
        with kit.report.section(name):
            if name in data:
                _request(kit, name, request, data[name], recorded)


def _requests(kit: CosyKit, texts: Any) -> Iterator[tuple[str, SpeechRequest]]:
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


def _request(kit: CosyKit, name: str, request: SpeechRequest, plan: Any, recorded: Recorded) -> None:
    report, limits = kit.report, kit.limits
    (prompt,) = kit.model.prepare(request)
    tokens, raw = speak(kit, prompt)
    expected = recorded[f"{name}.speech_tokens"]
    # Recorded before or after the silence filter: they only differ where it dropped something.
    report.equal(name, "speech_tokens", raw if len(expected) == len(raw) else tokens, expected)
    stop = kit.manifest.get("greedy_stop", {}).get(name)
    if stop is not None:
        report.check(name, "stops at", stop in (len(raw), len(tokens)), f"{len(raw)} ids, recorded {stop}")
    is_stream = f"{name}.chunk0.wav" in recorded
    with watched() as seen:
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
    keys = [("wav", "mel", "flow.mel")]
    if is_stream:
        keys = [(f"chunk{i}.wav", f"chunk{i}.flow_mel", f"call.{i}.flow.mel") for i in range(len(calls))]

    def from_mels(index: int) -> tuple[Tensor, float] | None:
        """The waveform from the recorded mels, in the place of the computed ones, and its tolerance."""
        if any(f"{name}.{mel}" not in recorded for _, mel, _ in keys):
            return None
        given = {stage: recorded[f"{name}.{mel}"][0] for _, mel, stage in keys}
        with tapped(lambda stage, _: given.get(stage)):
            _, again = _decoded(kit, prompt, tokens, is_stream=is_stream)
        return (again[index] if is_stream else torch.cat(again))[None], limits["waveform"]

    for index, (wav, mel, stage) in enumerate(keys):
        if is_stream or f"{name}.{mel}" in recorded:
            report.close(name, mel, seen[stage][0][None], recorded[f"{name}.{mel}"], limits["flow_mel"])
        found = (pieces[index] if is_stream else torch.cat(pieces))[None]
        wanted, again = recorded[f"{name}.{wav}"], partial(from_mels, index)
        report.sound(name, wav, found, wanted, limits["whole_waveform"], again)


def _decoded(
    kit: CosyKit, prompt: Prompt, tokens: Tensor, *, is_stream: bool
) -> tuple[SpeechDecoder, list[Tensor]]:
    """The decoder after all tokens, and what it gave, call by call."""
    decoder = kit.model.decoder(prompt, streaming=is_stream)
    pieces = [*(decoder.push(token.reshape(1, 1)) for token in tokens), decoder.finish()]
    return decoder, [samples for samples in pieces if len(samples)]


def speak(kit: CosyKit, prompt: Prompt) -> tuple[Tensor, Tensor]:
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


def stream_plans(kit: CosyKit) -> None:
    """Which tokens are decoded when, for fresh requests and for an instance that kept its hop."""
    config, report = kit.model.config, kit.report
    largest, lookahead = LARGEST_HOP * config.chunk_tokens, config.flow.lookahead
    for index, plan in enumerate(kit.json("e2e")["stream_plans"]["plans"]):
        start = plan["hop_at_start"]
        schedule = ChunkSchedule(plan["prompt_tokens"], hop=start, largest=largest, lookahead=lookahead)
        planned = schedule.plan(plan["target_tokens"])
        calls = [[call.offset, call.given, call.chunked, call.is_final] for call in planned]
        report.equal("stream_plans", f"plan {index} calls", calls, plan["calls"])
        report.equal("stream_plans", f"plan {index} hop_at_end", schedule.hop, plan["hop_at_end"])


CHECKS: tuple[Callable[[CosyKit], None], ...] = (
    language,
    flow,
    estimator,
    vocoder,
    requests,
    stream_plans,
)
