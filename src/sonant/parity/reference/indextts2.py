"""Record a request with the original IndexTTS2 or IndexTTS-2.5 code, under Sonant's stage names.

Runs in the environment of an index-tts checkout; needs `tracefile.py` beside it and nothing of Sonant:

    python indextts2.py CHECKOUT CHECKPOINT --text "Hello." --voice clip.wav -o trace.safetensors

One segment, on the CPU in float32. With beams, row 0 of the prefill stands for its equal rows. The release is
told by the checkpoint's files; IndexTTS-2.5 needs --language. Rows that the original pads on the left are
left out of the recording: they are masked, and Sonant has none.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import Any

import soundfile
import torch
from tracefile import Hooks, TraceWriter, hash_files, versions

SEMANTIC_LAYER = 17
"""The last hidden state of w2v-bert that the original uses."""


def time_first(x: torch.Tensor) -> torch.Tensor:
    """[B, C, T] -> [B, T, C]."""
    return x.transpose(1, 2)


def item(index: int) -> Any:
    """A change that takes one of several outputs."""
    return lambda found: found[index]


def watch_reference(hooks: Hooks, original: Any, code: Any, *, has_emotion_clip: bool) -> None:
    """What is made of the clips; `code` is the module of the original's class."""
    load, features = original._load_and_cut_audio, original.extract_features
    heard = ""

    def loaded(*args: Any, **kwargs: Any) -> Any:
        nonlocal heard
        found = load(*args, **kwargs)
        if kwargs.get("sr") is None:
            if not heard:  # IndexTTS-2.5 reads the speaker's clip twice
                hooks.put("reference.audio_22k", found[0])
            heard = "speaker"
            return found
        heard = "emotion"
        if has_emotion_clip:
            # The speaker's clip, which would be the second one, is not listened to as an emotion then.
            for names in ("w2v.*", "reference.semantic", "reference.emotion_16k"):
                hooks.writer.skip(names)
        hooks.put("reference.emotion_16k", found[0])
        return found

    def extracted(waveform: torch.Tensor, **kwargs: Any) -> Any:
        if heard == "speaker":
            hooks.put("reference.audio_16k", waveform)
        found = features(waveform, **kwargs)
        hooks.put("w2v.features", found["input_features"])
        return found

    original._load_and_cut_audio, original.extract_features = loaded, extracted

    def hidden(_module: Any, _args: Any, _kwargs: Any, found: Any) -> None:
        for index, state in enumerate(found.hidden_states[: SEMANTIC_LAYER + 1]):
            hooks.put(f"w2v.hidden.{index}", state)

    original.semantic_model.register_forward_hook(hidden, with_kwargs=True)
    hooks.result(original, "get_emb", lambda found, *_a, **_k: hooks.put("reference.semantic", found))
    original.get_emb = remembering(original.get_emb)  # IndexTTS-2.5 asks twice for the speaker's features
    watch = watch_half_rate_codec if hasattr(original.semantic_codec, "up") else watch_codec
    watch(hooks, original.semantic_codec)
    hooks.result(original, "mel_fn", lambda found, *_: hooks.put("reference.mel", found))
    kaldi = code.torchaudio.compliance.kaldi
    hooks.result(kaldi, "fbank", lambda found, *_a, **_k: hooks.put("reference.fbank_raw", found))
    speaker = original.campplus_model
    hooks.input(speaker, "reference.fbank", item(0))
    hooks.output(speaker.head, "campplus.head")
    hooks.output(speaker.xvector.tdnn, "campplus.tdnn")
    for number in (1, 2, 3):
        for name in (f"block{number}", f"transit{number}"):
            hooks.output(getattr(speaker.xvector, name), f"campplus.{name}")
    hooks.output(speaker.xvector.stats, "campplus.stats")
    hooks.output(speaker, "campplus.out")


def remembering(ask: Any) -> Any:
    """A method that answers the same question, in the same objects, only once."""
    asked: list[Any] = [None, None]

    def answer(features: Any, *args: Any) -> Any:
        if asked[0] is not features:
            asked[:] = features, ask(features, *args)
        return asked[1]

    return answer


def watch_half_rate_codec(hooks: Hooks, codec: Any) -> None:
    """IndexTTS-2.5's codec, of which only the decoder is used."""
    hooks.output(codec.quantizer.quantizers[0].out_project, "codec.out", time_first)
    backbone, linear = codec.decoder
    hooks.output(backbone.embed, "codec.decoder.embed")
    hooks.output(backbone.norm, "codec.decoder.norm")
    for index, block in enumerate(backbone.convnext):
        name = f"codec.decoder.block.{index}"
        for part in ("dwconv", "norm", "pwconv1", "pwconv2"):
            hooks.output(getattr(block, part), f"{name}.{part}")
        hooks.output(block, f"{name}.out")
    hooks.output(backbone.final_layer_norm, "codec.decoder.final_norm")
    hooks.output(linear, "codec.decoder")
    hooks.input(codec.up, "codec.repeated")
    hooks.output(codec.up, "codec.up")
    decode = codec.decode

    def decoded(codes: torch.Tensor) -> Any:
        hooks.put("s2mel.codes", codes.reshape(-1))
        return decode(codes)

    codec.decode = decoded


def watch_codec(hooks: Hooks, codec: Any) -> None:
    """The semantic codec, which quantises the clip and embeds what was spoken."""
    quantizer = codec.quantizer.quantizers[0]
    hooks.output(codec.encoder, "codec.encoder")
    hooks.output(quantizer.in_project, "codec.in_project")
    hooks.result(quantizer, "decode_latents", lambda found, *_: hooks.put("codec.codes", found[1]))
    hooks.output(quantizer.out_project, "codec.out", time_first)
    hooks.result(codec, "quantize", lambda found, *_: hooks.put("reference.quantised", found[1]))
    hooks.result(
        codec.quantizer, "vq2emb", lambda found, *_a, **_k: hooks.put("s2mel.vq2emb", found, time_first)
    )


def watch_conditioner(hooks: Hooks, conformer: Any, perceiver: Any, name: str) -> None:
    """One of the GPT's two conditioning encoders."""
    hooks.output(conformer.embed, f"{name}.embed")
    conformer.embed.register_forward_hook(
        lambda _module, _args, found: hooks.put(f"{name}.positions", found[1])
    )
    for index, layer in enumerate(conformer.encoders):
        hooks.output(layer.self_attn, f"{name}.layer.{index}.attention")
        hooks.output(layer.conv_module, f"{name}.layer.{index}.convolution")
        hooks.output(layer, f"{name}.layer.{index}.out")
    hooks.output(conformer, f"{name}.out")
    for index, (attention, feed_forward) in enumerate(perceiver.layers):
        hooks.output(attention, f"{name}.perceiver.{index}.attention")
        hooks.output(feed_forward, f"{name}.perceiver.{index}.feed_forward")
    hooks.output(perceiver, f"{name}.latents")


def watch_emotion(hooks: Hooks, gpt: Any, *, has_emotion_clip: bool) -> None:
    """Emotion vectors. The original asks for the emotion clip's first; the speaker's is written first."""
    if hasattr(gpt, "spk_emb_proj"):
        hooks.output(gpt.spk_emb_proj, "gpt.speaker.latents", lambda x: x.reshape(1, -1, x.shape[-1]))
    else:
        watch_conditioner(hooks, gpt.conditioning_encoder, gpt.perceiver_encoder, "gpt.speaker")
    watch_conditioner(hooks, gpt.emo_conditioning_encoder, gpt.emo_perceiver_encoder, "gpt.emotion")
    hooks.output(gpt.emovec_layer, "gpt.emotion.widened")
    hooks.output(gpt.emo_layer, "gpt.emotion.vector")
    ask = gpt.get_emovec
    waiting: list[tuple[str, torch.Tensor, str]] = []

    def asked(*args: Any, **kwargs: Any) -> Any:
        if not waiting:
            hooks.held = waiting
            found = ask(*args, **kwargs)
            hooks.held = None
            return found
        found = ask(*args, **kwargs)
        if has_emotion_clip:
            hooks.writer.skip("gpt.emotion.*")
        for name, tensor, kind in waiting:
            hooks.put(name, tensor, kind=kind)
        waiting.clear()
        return found

    gpt.get_emovec = asked


def watch_gpt(hooks: Hooks, gpt: Any, scorer: Any, *, beams: int, greedy: bool) -> None:
    """Prefix, decoding and the pass for the latents; `scorer` is the class that ranks beams."""
    scope, pads = "", 0

    def one_row(x: torch.Tensor) -> torch.Tensor:
        return x[:1, 0 if scope else pads :] if x.shape[1] > 1 else x

    def output(module: Any, name: str) -> None:
        module.register_forward_hook(lambda m, a, k, found: see(name, found), with_kwargs=True)

    def see(name: str, found: Any) -> None:
        hooks.put(f"{scope}{name}", found, one_row)

    speak = gpt.inference_speech

    def with_request(speech: Any, ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal pads
        pads = int(((ids == gpt.start_text_token) | (ids == gpt.stop_text_token)).sum())
        hooks.put("emotion.vector", kwargs["emo_vec"])
        hooks.put("text.ids", ids)
        return speak(speech, ids, *args, **{**kwargs, "do_sample": not greedy})

    gpt.inference_speech = with_request
    hooks.result(
        gpt.inference_model, "store_mel_emb", lambda _none, prefix: hooks.put("gpt.prefix", prefix[0, pads:])
    )
    gpt.gpt.register_forward_pre_hook(
        lambda _module, _args, kwargs: see("gpt.input", kwargs["inputs_embeds"]), with_kwargs=True
    )
    for index, block in enumerate(gpt.gpt.h):
        name = f"gpt.h.{index}"
        output(block.ln_1, f"{name}.ln_1")
        output(block.attn.c_attn, f"{name}.c_attn")
        output(block.attn, f"{name}.attn")
        output(block.ln_2, f"{name}.ln_2")
        output(block.mlp, f"{name}.mlp")
        output(block, f"{name}.out")
    output(gpt.gpt.ln_f, "gpt.ln_f")

    def final_norm(_module: Any, _args: Any, found: torch.Tensor) -> None:
        if not scope:  # the pass for the latents norms only some of its rows; they are `latent.out`
            see("gpt.final_norm", found)

    gpt.final_norm.register_forward_hook(final_norm)
    hooks.output(gpt.mel_head, "gpt.logits", lambda x: one_row(x)[:, -1].float())
    hooks.choices(gpt.inference_model, "search", tokens=beams == 1)

    def ranked(_found: Any, _self: Any, _ids: Any, _scores: Any, tokens: Any, rows: Any, **_: Any) -> None:
        places = rows * gpt.number_mel_codes + tokens
        hooks.put("search.token", places, kind="token")

    hooks.result(scorer, "process", ranked)

    def enter(_module: Any, args: Any, _kwargs: Any) -> None:
        nonlocal scope
        hooks.put("s2mel.codes", args[3].reshape(-1))
        scope = "latent."

    def leave(_module: Any, _args: Any, _kwargs: Any, found: torch.Tensor) -> None:
        nonlocal scope
        scope = ""
        hooks.put("latent.out", found)

    gpt.register_forward_pre_hook(enter, with_kwargs=True)
    gpt.register_forward_hook(leave, with_kwargs=True)


def watch_s2mel(hooks: Hooks, models: Any, rotation_code: Any, *, steps: int | None) -> None:
    """Latents to mel; `rotation_code` is the module with the velocity network's rotation."""
    if "gpt_layer" in models:
        hooks.output(models["gpt_layer"], "s2mel.gpt_layer")
    calls = 0

    def regulated(_module: Any, args: Any, _kwargs: Any, found: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            hooks.put("reference.condition", found)
        else:
            hooks.put("s2mel.features", args[0])
            hooks.put("s2mel.condition", found)

    models["length_regulator"].register_forward_hook(regulated, with_kwargs=True)
    solver = models["cfm"]
    solve = solver.solve_euler
    step = -1

    def with_noise(x: torch.Tensor, lengths: Any, prompt: Any, mu: Any, style: Any, *rest: Any) -> Any:
        nonlocal step
        step = -1
        hooks.put("s2mel.noise", x, kind="draw")
        f0, times, *others = rest
        if steps is not None:
            times = torch.linspace(0, 1, steps + 1, device=times.device)
        found = solve(x, lengths, prompt, mu, style, f0, times, *others)
        hooks.put("s2mel.mel", found)
        return found

    solver.solve_euler = with_noise

    def enter(_module: Any, args: Any) -> None:
        nonlocal step
        step += 1
        hooks.put(f"s2mel.step.{step}.x", args[0][:1])

    estimator = solver.estimator
    estimator.register_forward_pre_hook(enter)
    watch_dit(hooks, estimator, rotation_code)
    estimator.register_forward_hook(
        lambda _module, _args, found: hooks.put(f"s2mel.step.{step}.velocity", found)
    )


def watch_dit(hooks: Hooks, dit: Any, rotation_code: Any) -> None:
    """The velocity network."""
    hooks.output(dit.t_embedder, "dit.t")
    hooks.output(dit.cond_projection, "dit.condition")
    hooks.output(dit.cond_x_merge_linear, "dit.merged")
    rotating: list[str] = []

    def entering(name: str) -> Any:
        def enter(_module: Any, _args: Any) -> None:
            rotating[:] = [f"{name}.query", f"{name}.key"]

        return enter

    for index, layer in enumerate(dit.transformer.layers):
        name = f"dit.layer.{index}"
        hooks.output(layer.skip_in_linear, f"{name}.skip")
        hooks.output(layer.attention_norm, f"{name}.attention_norm")
        hooks.output(layer.attention.wqkv, f"{name}.wqkv")
        layer.attention.register_forward_pre_hook(entering(name))
        hooks.output(layer.attention, f"{name}.attention")
        hooks.output(layer.ffn_norm, f"{name}.ffn_norm")
        hooks.output(layer.feed_forward, f"{name}.feed_forward")
        hooks.output(layer, f"{name}.out")
    hooks.result(
        rotation_code,
        "apply_rotary_emb",
        lambda found, *_: hooks.put(rotating.pop(0), found, time_first),  # [B, T, H, D] -> [B, H, T, D]
    )
    hooks.output(dit.transformer, "dit.transformer")
    hooks.output(dit.skip_linear, "dit.skip")
    hooks.output(dit.conv1, "dit.conv1")
    hooks.output(dit.t_embedder2, "dit.t2")
    hooks.output(dit.wavenet.cond_layer, "dit.wavenet.condition")
    for index in range(dit.wavenet.n_layers):
        hooks.output(dit.wavenet.in_layers[index], f"dit.wavenet.{index}.in")
        hooks.output(dit.wavenet.res_skip_layers[index], f"dit.wavenet.{index}.res_skip")
    hooks.output(dit.wavenet, "dit.wavenet")
    hooks.output(dit.res_projection, "dit.residual")
    hooks.output(dit.final_layer, "dit.final")
    hooks.output(dit.conv2, "dit.out")


def watch_vocoder(hooks: Hooks, vocoder: Any) -> None:
    """Mel to waveform."""
    hooks.output(vocoder.conv_pre, "bigvgan.conv_pre")
    count = vocoder.num_kernels
    for stage, up in enumerate(vocoder.ups):
        hooks.output(up[-1], f"bigvgan.up.{stage}")
        seen: list[torch.Tensor] = []
        for number, block in enumerate(vocoder.resblocks[stage * count :][:count]):
            name = f"bigvgan.stage.{stage}.block.{number}"
            for index, activation in enumerate(block.activations):
                watch_activation(hooks, activation, f"{name}.activation.{index}")
            hooks.output(block, name)
            block.register_forward_hook(collector(hooks, f"bigvgan.stage.{stage}", seen, count))
    watch_activation(hooks, vocoder.activation_post, "bigvgan.activation_post")
    hooks.output(vocoder.conv_post, "bigvgan.conv_post")
    hooks.output(vocoder, "bigvgan.out")
    hooks.output(vocoder, "output.samples", lambda x: x.reshape(-1))


def collector(hooks: Hooks, name: str, seen: list[torch.Tensor], count: int) -> Any:
    """A hook that records the mean of `count` blocks, added in their order."""

    def collect(_module: Any, _args: Any, found: torch.Tensor) -> None:
        seen.append(found.clone())  # the original adds to the first one in place
        if len(seen) == count:
            total = seen[0]
            for other in seen[1:]:
                total = total + other
            hooks.put(name, total / count)
            seen.clear()

    return collect


def watch_activation(hooks: Hooks, activation: Any, name: str) -> None:
    """One oversampled activation."""
    hooks.input(activation, f"{name}.in")
    hooks.output(activation.upsample, f"{name}.up")
    hooks.output(activation.act, f"{name}.snake")
    hooks.output(activation.downsample, f"{name}.out")


def read_clip(path: str) -> tuple[torch.Tensor, int]:
    """Samples [S], channels averaged, and their rate."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.mean(axis=1)), rate


def one_segment(found: list[Any], *_args: Any, **_kwargs: Any) -> None:
    """Refuse a text that the original speaks in pieces."""
    if len(found) != 1:
        raise SystemExit(f"the text has {len(found)} segments; expected one. Give a shorter text.")


def main() -> None:
    """Parse, load, hook, speak, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkout", help="folder of the index-tts repository")
    parser.add_argument("checkpoint")
    parser.add_argument("--text", required=True)
    parser.add_argument("--voice", required=True, help="reference audio file")
    parser.add_argument("--emotion-audio", help="clip whose emotion is copied")
    parser.add_argument("--emotion-vector", help="eight numbers, separated by commas")
    parser.add_argument("--emotion-strength", type=float, default=1.0)
    parser.add_argument("--language", default="en", help="code, for IndexTTS-2.5")
    parser.add_argument("--duration-factor", type=float, default=1.0, help="for IndexTTS-2.5")
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="codes at most")
    parser.add_argument("--flow-steps", type=int, help="solver steps; the original always takes 25")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--greedy", action="store_true", help="no draws, as the original cannot")
    parser.add_argument("--stages", default="*")
    parser.add_argument("--max-elements", type=int)
    parser.add_argument("-o", "--output", required=True)
    arguments = parser.parse_args()
    if arguments.emotion_strength != 1.0 and not (arguments.emotion_audio or arguments.emotion_vector):
        parser.error("--emotion-strength needs an emotion: --emotion-audio or --emotion-vector")

    sys.path.insert(0, arguments.checkout)
    is_multilingual = os.path.isfile(os.path.join(arguments.checkpoint, "codec.pth"))
    code = import_module("indextts.infer_v2_5" if is_multilingual else "indextts.infer_v2")
    from indextts.gpt.transformers_generation_utils import BeamSearchScorer
    from indextts.s2mel.modules.gpt_fast import model as rotation_code

    original = code.IndexTTS2(
        cfg_path=os.path.join(arguments.checkpoint, "config.yaml"),
        model_dir=arguments.checkpoint,
        device="cpu",
        use_qwen_emo=False,
    )
    writer = TraceWriter(stages=arguments.stages, max_elements=arguments.max_elements)
    hooks = Hooks(writer)
    rates: dict[str, int] = {}
    clips = {"audio": arguments.voice, "emotion_audio": arguments.emotion_audio}
    for name, path in clips.items():
        if path is not None:
            samples, rates[name] = read_clip(path)
            writer.add(f"input.{name}", samples, kind="input")
    has_clip = arguments.emotion_audio is not None
    watch_reference(hooks, original, code, has_emotion_clip=has_clip)
    watch_emotion(hooks, original.gpt, has_emotion_clip=has_clip)
    watch_gpt(hooks, original.gpt, BeamSearchScorer, beams=arguments.beams, greedy=arguments.greedy)
    watch_s2mel(hooks, original.s2mel.models, rotation_code, steps=arguments.flow_steps)
    watch_vocoder(hooks, original.bigvgan)
    if is_multilingual:
        hooks.result(original, "split_text_by_tokens", one_segment)
    else:
        hooks.result(original.tokenizer, "split_segments", one_segment)
    hooks.draws()
    style: dict[str, Any] = {}
    vector = None
    if has_clip:
        style["emotion_strength"] = arguments.emotion_strength
    if arguments.emotion_vector:
        vector = [float(number) for number in arguments.emotion_vector.split(",")]
        style = {"emotion_vector": vector, "emotion_strength": arguments.emotion_strength}
    options: dict[str, Any] = {"emotion_bias": False}
    language: dict[str, Any] = {}
    if is_multilingual:
        language = {"lang": arguments.language, "duration_factor": arguments.duration_factor}
        options |= {
            "language_code": arguments.language,
            "duration_factor": arguments.duration_factor,
        }
    torch.manual_seed(arguments.seed)
    with torch.inference_mode():
        original.infer(
            arguments.voice,
            arguments.text,
            None,
            **language,
            emo_audio_prompt=arguments.emotion_audio,
            emo_alpha=arguments.emotion_strength,
            emo_vector=vector,
            num_beams=arguments.beams,
            max_mel_tokens=arguments.steps,
        )
    sampling: dict[str, Any] = {"beams": arguments.beams}
    if arguments.flow_steps is not None:
        sampling["flow_steps"] = arguments.flow_steps
    if arguments.greedy:
        sampling["greedy"] = True
    writer.save(
        arguments.output,
        {
            "made_by": "index-tts",
            "family": "indextts2",
            "model": os.path.basename(os.path.abspath(arguments.checkpoint)),
            "files": hash_files(arguments.checkpoint),
            "dtype": "float32",
            "versions": versions("transformers", "torchaudio", "librosa", "numpy"),
            "threads": torch.get_num_threads(),
            "seed": arguments.seed,
            "request": {
                "text": arguments.text,
                "voice": None,
                "style": style,
                "sampling": sampling,
                "seed": arguments.seed,
                "options": options,
                "max_steps": arguments.steps,
                "rates": rates,
            },
        },
    )


if __name__ == "__main__":
    main()
