"""Record a request with the original CosyVoice code, under Sonant's stage names.

Runs in the environment of a CosyVoice checkout; needs `tracefile.py` beside it and nothing of Sonant:

    python cosyvoice3.py CHECKOUT CHECKPOINT --text "Hello." --voice a.wav --transcript "..." -o a.safetensors

One text as it is written (no text rules), on the CPU in float32. With a transcript it is the original's
zero-shot mode, with an instruction its instruct mode, with neither its cross-lingual mode.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from typing import Any

import soundfile
import torch
from tracefile import Hooks, TraceWriter, hash_files, versions

SYSTEM_SENTENCE = "You are a helpful assistant."
END_OF_PROMPT = "<|endofprompt|>"
OFFICIAL_END_OF_PROMPT = 151646
"""The id that the original has written into its code."""


def know_marker(lm: Any, marker: int) -> None:
    """Let the original accept a tokenizer in which the end of the prompt has another id."""
    function = inspect.unwrap(type(lm).inference)
    code = function.__code__
    constants = tuple(
        marker if type(value) is int and value == OFFICIAL_END_OF_PROMPT else value
        for value in code.co_consts
    )
    function.__code__ = code.replace(co_consts=constants)


def watch_voice(hooks: Hooks, frontend: Any, code: Any) -> None:
    """The clip's features; `code` is the module of the front end."""
    hooks.result(frontend, "_extract_speech_feat", lambda found, *_: hooks.put("voice.mel", found[0]))
    hooks.result(
        code.whisper, "log_mel_spectrogram", lambda found, *_a, **_k: hooks.put("voice.logmel", found)
    )
    hooks.result(frontend, "_extract_speech_token", lambda found, *_: hooks.put("voice.tokens", found[0]))

    def centred(found: torch.Tensor) -> torch.Tensor:
        return found - found.mean(dim=0, keepdim=True)

    hooks.result(code.kaldi, "fbank", lambda found, *_a, **_k: hooks.put("voice.fbank", found, centred))
    hooks.result(frontend, "_extract_spk_embedding", lambda found, *_: hooks.put("voice.speaker", found))


def watch_language(hooks: Hooks, lm: Any, code: Any, *, steps: int | None, greedy: bool) -> None:
    """Prompt, language model and sampler; `code` is the module of the transformer's layers."""
    speak, decode, sample = lm.inference, lm.inference_wrapper, lm.sampling

    def with_prompt(**given: Any) -> Any:
        text = torch.cat((given["prompt_text"], given["text"]), dim=1)
        hooks.put("lm.text_ids", text.reshape(-1))
        hooks.put("lm.prompt_tokens", given["prompt_speech_token"].reshape(-1))
        return speak(**given)

    def with_input(lm_input: torch.Tensor, sampling: Any, least: int, most: int, *rest: Any) -> Any:
        hooks.put("lm.input", lm_input)
        return decode(lm_input, sampling, least, most if steps is None else min(most, steps), *rest)

    def with_scores(scores: torch.Tensor, *rest: Any) -> int:
        hooks.put("lm.scores", scores)  # before the sampler, which changes them in place
        return int(scores.argmax()) if greedy else sample(scores, *rest)

    lm.inference, lm.inference_wrapper, lm.sampling = with_prompt, with_input, with_scores
    hooks.decoder(lm.llm.model.model, "lm", code, "apply_rotary_pos_emb")
    hooks.output(lm.llm_decoder, "lm.logits", lambda x: x.float())
    hooks.result(
        lm, "sampling_ids", lambda found, *_a, **_k: hooks.put("lm.token", torch.tensor(found), kind="token")
    )


def watch_flow(hooks: Hooks, flow: Any, code: Any) -> None:
    """Tokens to mel; `code` is the module of the velocity network's layers."""
    decode = flow.inference

    def with_tokens(**given: Any) -> Any:
        tokens = torch.cat((given["prompt_token"], given["token"]), dim=1)
        hooks.put("flow.tokens", tokens.reshape(-1))
        mel, cache = decode(**given)
        hooks.put("flow.mel", mel)
        return mel, cache

    flow.inference = with_tokens
    hooks.output(flow.spk_embed_affine_layer, "flow.spks")
    hooks.output(flow.input_embedding, "flow.token_embedding")
    hooks.output(flow.pre_lookahead_layer.conv1, "flow.lookahead.conv1")
    hooks.output(flow.pre_lookahead_layer, "flow.lookahead")
    solver, estimator = flow.decoder, flow.decoder.estimator
    step = -1
    solve = solver.solve_euler

    def with_noise(x: torch.Tensor, **given: Any) -> Any:
        nonlocal step
        step = -1
        hooks.put("flow.noise", x, kind="draw")
        return solve(x, **given)

    solver.solve_euler = with_noise

    def enter(_module: Any, given: Any, keywords: Any) -> None:
        nonlocal step
        step += 1
        # Keywords in the release that this was written for; positions in some others, the last ones left out.
        named = dict(zip(("x", "mask", "mu", "t", "spks", "cond"), given, strict=False)) | keywords
        for name in ("x", "mu", "cond", "spks", "t"):
            hooks.put(f"flow.step.{step}.{name}", named[name])

    estimator.register_forward_pre_hook(enter, with_kwargs=True)

    def named(name: str) -> Any:
        return lambda _module, _given, result: hooks.put(f"flow.step.{step}.{name}", result)

    estimator.time_embed.time_embed.register_forward_hook(named("time.sinus"))
    estimator.time_embed.register_forward_hook(named("time.embedding"))
    estimator.input_embed.proj.register_forward_hook(named("input.projection"))
    estimator.input_embed.conv_pos_embed.register_forward_hook(named("input.position"))
    estimator.input_embed.register_forward_hook(named("input"))
    rotating: list[str] = []
    for index, block in enumerate(estimator.transformer_blocks):
        _watch_block(hooks, block, f"block.{index}", named, rotating)

    def rotated(result: torch.Tensor, *_rest: Any) -> None:
        hooks.put(f"flow.step.{step}.{rotating.pop(0)}", result)

    hooks.result(code, "apply_rotary_pos_emb", rotated)
    estimator.norm_out.register_forward_hook(named("norm_out"))
    estimator.register_forward_hook(named("v"))


def _watch_block(hooks: Hooks, block: Any, name: str, named: Any, rotating: list[str]) -> None:
    """One block of the velocity network; `rotating` gets the names of its two rotations."""
    block.attn_norm.register_forward_hook(named(f"{name}.norm"))
    block.attn.to_q.register_forward_hook(named(f"{name}.query"))
    block.attn.to_k.register_forward_hook(named(f"{name}.key"))

    def enter(_module: Any, _given: Any) -> None:
        rotating[:] = [f"{name}.query_rotated", f"{name}.key_rotated"]

    block.attn.register_forward_pre_hook(enter)
    block.attn.register_forward_hook(named(f"{name}.attention"))
    before = named(f"{name}.feed_norm")
    block.ff.register_forward_pre_hook(lambda module, given: before(module, given, given[0]))
    block.ff.register_forward_hook(named(f"{name}.feed_forward"))
    block.register_forward_hook(named(name))


def watch_vocoder(hooks: Hooks, vocoder: Any) -> None:
    """Mel to waveform."""
    speak = vocoder.inference

    def with_mel(**given: Any) -> Any:
        hooks.put("vocoder.mel", given["speech_feat"])
        return speak(**given)

    vocoder.inference = with_mel
    pitch = vocoder.f0_predictor
    for layer in range(len(pitch.condnet) // 2):
        hooks.output(pitch.condnet[2 * layer + 1], f"vocoder.f0.layer.{layer}")
    hooks.output(pitch, "vocoder.f0", lambda f0: f0.float())
    source = vocoder.m_source.l_sin_gen
    scale = int(source.upsample_scale)

    def once_a_frame(x: torch.Tensor) -> torch.Tensor:
        return x[:, ::scale]

    def noise(f0: torch.Tensor) -> torch.Tensor:
        return source.sine_waves[0, : f0.shape[1]]

    source.register_forward_pre_hook(
        lambda _module, given: hooks.put("vocoder.noise", given[0], noise, kind="draw")
    )
    hooks.result(source, "_f02sine", lambda found, *_: hooks.put("vocoder.sines", found, once_a_frame))
    source.register_forward_hook(
        lambda _module, _given, found: hooks.put("vocoder.voiced", found[1], once_a_frame)
    )
    hooks.output(source, "vocoder.harmonics")
    hooks.output(vocoder.m_source, "vocoder.source")
    hooks.result(
        vocoder, "_stft", lambda found, *_: hooks.put("vocoder.source_stft", torch.cat(found, dim=1))
    )
    hooks.output(vocoder.conv_pre, "vocoder.conv_pre")
    for stage in range(vocoder.num_upsamples):
        _watch_stage(hooks, vocoder, stage)
    hooks.output(vocoder.conv_post, "vocoder.conv_post")
    invert = vocoder._istft

    def with_parts(magnitude: torch.Tensor, phase: torch.Tensor) -> Any:
        hooks.put("vocoder.magnitude", magnitude)
        hooks.put("vocoder.phase", phase)
        return invert(magnitude, phase)

    vocoder._istft = with_parts
    hooks.result(vocoder, "decode", lambda found, *_a, **_k: hooks.put("vocoder.waveform", found))


def _watch_stage(hooks: Hooks, vocoder: Any, stage: int) -> None:
    """One stage of the vocoder; its output is the mean of the residual blocks, added in their order."""
    name = f"vocoder.stage.{stage}"
    hooks.output(vocoder.ups[stage], f"{name}.up")
    hooks.output(vocoder.source_downs[stage], f"{name}.source_down")
    hooks.output(vocoder.source_resblocks[stage], f"{name}.source")
    blocks = vocoder.resblocks[stage * vocoder.num_kernels :][: vocoder.num_kernels]
    seen: list[torch.Tensor] = []

    def collect(_module: Any, _given: Any, found: torch.Tensor) -> None:
        seen.append(found.clone())  # the original adds to the first one in place
        if len(seen) == len(blocks):
            total = seen[0]
            for other in seen[1:]:
                total = total + other
            hooks.put(f"{name}.out", total / len(blocks))
            seen.clear()

    for block in blocks:
        block.register_forward_hook(collect)


def texts(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """The target and the prompt text as the original wants them written."""
    given = arguments.instruction or arguments.transcript
    if given is None:
        marked = END_OF_PROMPT in arguments.text
        return arguments.text if marked else f"{SYSTEM_SENTENCE}{END_OF_PROMPT}{arguments.text}", None
    if END_OF_PROMPT in given:
        return arguments.text, given
    if arguments.instruction:
        return arguments.text, f"{SYSTEM_SENTENCE} {given}{END_OF_PROMPT}"
    return arguments.text, f"{SYSTEM_SENTENCE}{END_OF_PROMPT}{given}"


def main() -> None:
    """Parse, load, hook, speak, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkout", help="folder of the CosyVoice repository, with its submodules")
    parser.add_argument("checkpoint")
    parser.add_argument("--text", required=True)
    parser.add_argument("--voice", required=True, help="reference audio file")
    parser.add_argument("--transcript", help="what the audio says")
    parser.add_argument("--instruction")
    parser.add_argument("--steps", type=int, help="speech tokens at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--greedy", action="store_true", help="the best id each time, as the original cannot")
    parser.add_argument("--stages", default="*")
    parser.add_argument("--max-elements", type=int)
    parser.add_argument("-o", "--output", required=True)
    arguments = parser.parse_args()
    if arguments.instruction and arguments.transcript:
        parser.error("the original takes an instruction or a transcript; give one of them")

    sys.path[:0] = [arguments.checkout, os.path.join(arguments.checkout, "third_party", "Matcha-TTS")]
    import cosyvoice.cli.frontend as frontend_code
    from cosyvoice.cli.cosyvoice import CosyVoice3
    from cosyvoice.flow.DiT import modules as flow_code
    from transformers.models.qwen2 import modeling_qwen2 as lm_code

    original = CosyVoice3(arguments.checkpoint)
    writer = TraceWriter(stages=arguments.stages, max_elements=arguments.max_elements)
    hooks = Hooks(writer)
    samples, rate = soundfile.read(arguments.voice, dtype="float32", always_2d=True)
    writer.add("input.audio", torch.from_numpy(samples.mean(axis=1)), kind="input")
    (marker,) = original.frontend.tokenizer.encode(END_OF_PROMPT, allowed_special="all")
    know_marker(original.model.llm, marker)
    watch_voice(hooks, original.frontend, frontend_code)
    watch_language(hooks, original.model.llm, lm_code, steps=arguments.steps, greedy=arguments.greedy)
    watch_flow(hooks, original.model.flow, flow_code)
    watch_vocoder(hooks, original.model.hift)
    hooks.draws()
    torch.manual_seed(arguments.seed)
    text, prompt = texts(arguments)
    options = {"text_frontend": False}
    if prompt is None:
        pieces = original.inference_cross_lingual(text, arguments.voice, **options)
    elif arguments.instruction:
        pieces = original.inference_instruct2(text, prompt, arguments.voice, **options)
    else:
        pieces = original.inference_zero_shot(text, prompt, arguments.voice, **options)
    spoken = torch.cat([piece["tts_speech"] for piece in pieces], dim=1)
    writer.add("output.samples", spoken[0])
    writer.save(
        arguments.output,
        {
            "made_by": "CosyVoice",
            "family": "cosyvoice3",
            "model": os.path.basename(os.path.abspath(arguments.checkpoint)),
            "files": hash_files(arguments.checkpoint),
            "dtype": "float32",
            "versions": versions("transformers", "x-transformers", "torchaudio", "numpy", "onnxruntime"),
            "threads": torch.get_num_threads(),
            "seed": arguments.seed,
            "request": {
                "text": arguments.text,
                "voice": None,
                "transcript": arguments.transcript,
                "style": {"instruction": arguments.instruction} if arguments.instruction else {},
                "sampling": {"greedy": True} if arguments.greedy else {},
                "seed": arguments.seed,
                "normalize": False,
                "options": {"noise": "reference"},
                "max_steps": arguments.steps,
                "rates": {"audio": rate},
            },
        },
    )


if __name__ == "__main__":
    main()
