"""Record a request with the original `qwen-tts` package, under Sonant's stage names.

Runs in the original's own environment; needs `tracefile.py` beside it and nothing of Sonant:

    python qwen3_tts.py CHECKPOINT --text "Hello." --voice clip.wav --transcript "..." -o trace.safetensors

One utterance, eager attention, float32 unless --dtype says otherwise. The codec's [B, C, T] is turned into
Sonant's [B, T, C].
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import soundfile
import torch
import transformers.utils.import_utils  # noqa: F401  before the stand-ins: it decides now what is installed
from torch.overrides import TorchFunctionMode
from tracefile import Hooks, TraceWriter, hash_files, stand_in, versions

# The package imports them for its other codec, which no checkpoint of this family uses.
stand_in("torchaudio.compliance.kaldi", "sox", "onnxruntime")

from qwen_tts import Qwen3TTSModel  # noqa: E402
from qwen_tts.core.models import modeling_qwen3_tts as talker_code  # noqa: E402
from qwen_tts.core.tokenizer_12hz import modeling_qwen3_tts_tokenizer_v2 as codec_code  # noqa: E402


def time_first(x: torch.Tensor) -> torch.Tensor:
    """[B, C, T] -> [B, T, C]."""
    return x.transpose(1, 2)


def last(x: torch.Tensor) -> torch.Tensor:
    """[B, T, V] -> [B, V] of the last position, float32."""
    return x[:, -1].float()


class Sums(TorchFunctionMode):
    """The prompt's positions as they are added up: the original does that in the middle of a function."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = False
        self.texts: set[bytes] = set()
        """Rows that the text projection gave."""
        self.first: torch.Tensor | None = None
        """The codec side of the first sum: language, speaker where there is one, pad; [N, D]."""
        self.sides: dict[bytes, tuple[torch.Tensor, torch.Tensor]] = {}
        """Text side and codec side of a position, by what they add up to."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        is_sum = func in (torch.add, torch.Tensor.add, torch.Tensor.__add__) and len(args) == 2
        if self.is_open and is_sum and all(isinstance(x, torch.Tensor) and x.ndim == 3 for x in args):
            sides = [x.expand_as(result)[0] for x in args]
            text, codec = sides if self.is_text(sides[0]) else sides[::-1]
            if self.is_text(text):
                self.first = codec if self.first is None else self.first
                for added, said, heard in zip(result[0], text, codec, strict=True):
                    self.sides.setdefault(row_bytes(added), (said, heard))
        return result

    def is_text(self, rows: torch.Tensor) -> bool:
        """Do all of these rows come from the text projection?"""
        return all(row_bytes(row) in self.texts for row in rows)

    def parts(self, embeds: torch.Tensor, *, has_speaker: bool) -> dict[str, torch.Tensor]:
        """The summands of embeds [T, D] under their documented names."""
        sides = [self.sides.get(row_bytes(row), (row, torch.zeros_like(row))) for row in embeds]
        assert self.first is not None, "no position of the prompt was added up"
        tags = len(self.first) - 1 - has_speaker
        return {
            "language": self.first[:tags],
            **({"speaker": self.first[tags : tags + 1]} if has_speaker else {}),
            "text": torch.stack([text for text, _ in sides]),
            "codec": torch.stack([codec for _, codec in sides]),
        }


def row_bytes(row: torch.Tensor) -> bytes:
    """A row by its bits."""
    return row.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def watch_talker(hooks: Hooks, model: Any, *, has_speaker: bool) -> None:
    """Prompt, talker and code predictor."""
    talker, predictor = model.talker, model.talker.code_predictor
    sums = Sums()

    def text_seen(_module: Any, _args: Any, rows: torch.Tensor) -> None:
        if sums.is_open:
            sums.texts.update(row_bytes(row) for row in rows.reshape(-1, rows.shape[-1]))

    talker.text_projection.register_forward_hook(text_seen)
    generate = model.generate

    def with_ids(*args: Any, **kwargs: Any) -> Any:
        for key, name in (("ref_ids", "reference"), ("input_ids", "text"), ("instruct_ids", "instruction")):
            given = kwargs.get(key)
            if given is not None and given[0] is not None:
                hooks.put(f"prompt.{name}_ids", given[0], lambda ids: ids.reshape(-1))
        sums.is_open = True
        with sums:
            return generate(*args, **kwargs)

    model.generate = with_ids
    speak = talker.generate

    def with_prompt(*args: Any, **kwargs: Any) -> Any:
        sums.is_open = False
        for name, rows in sums.parts(kwargs["inputs_embeds"][0], has_speaker=has_speaker).items():
            hooks.put(f"prompt.part.{name}", rows)
        hooks.put("prompt.embeds", kwargs["inputs_embeds"][0])
        hooks.put("prompt.trailing", kwargs["trailing_text_hidden"][0])
        hooks.put("prompt.filler", kwargs["tts_pad_embed"].reshape(-1))
        return speak(*args, **kwargs)

    talker.generate = with_prompt
    hooks.input(
        talker.model, "talker.frame", lambda x: x if x.shape[1] == 1 else None, keyword="inputs_embeds"
    )
    hooks.decoder(talker.model, "talker", talker_code, "apply_multimodal_rotary_pos_emb")
    hooks.output(talker.codec_head, "talker.logits", last)
    hooks.choices(talker, "talker")

    hooks.input(
        predictor,
        "predictor.inputs",
        lambda x: x if x is not None and x.shape[1] == 2 else None,
        keyword="inputs_embeds",
    )
    hooks.decoder(predictor.model, "predictor", talker_code, "apply_rotary_pos_emb")
    for head in predictor.lm_head:
        hooks.output(head, "predictor.logits", last)
    hooks.choices(predictor, "predictor", when_greedy=False)


def watch_speaker(hooks: Hooks, encoder: Any) -> None:
    """The speaker encoder."""
    hooks.input(encoder, "speaker.mel")
    for index, block in enumerate(encoder.blocks):
        hooks.output(block, f"speaker.block.{index}")
    hooks.output(encoder.mfa, "speaker.mfa")
    hooks.output(encoder.asp, "speaker.statistics")
    hooks.output(encoder, "speaker.vector")


def watch_codec_encoder(hooks: Hooks, tokenizer: Any, *, is_used: bool) -> None:
    """The codec encoder. The original runs it even where its tokens are not used; then it is left out."""
    if not is_used:
        return
    encoder = tokenizer.model.encoder
    hooks.output(encoder.encoder, "codec_encoder.seanet.out")
    for index, layer in enumerate(encoder.encoder_transformer.layers):
        hooks.output(layer, f"codec_encoder.layer.{index}.out")
    hooks.output(encoder.encoder_transformer, "codec_encoder.transformer.out", time_first)
    hooks.output(encoder.downsample, "codec_encoder.downsample.out")
    hooks.result(
        tokenizer,
        "encode",
        lambda result, *_args, **_kwargs: hooks.put("codec_encoder.tokens", result.audio_codes[0][None]),
    )


def watch_codec_decoder(hooks: Hooks, decoder: Any) -> None:
    """The codec decoder, module by module."""
    hooks.input(decoder, "codec.tokens", time_first)
    quantizer = decoder.quantizer
    for part, name in ((quantizer.rvq_first, "semantic"), (quantizer.rvq_rest, "acoustic")):
        hooks.result(
            part,
            "decode",
            lambda result, *_args, name=name, **_kwargs: hooks.put(
                f"codec.quantizer.{name}", result, time_first
            ),
        )
    hooks.result(
        quantizer, "decode", lambda result, *_a, **_k: hooks.put("codec.quantizer.out", result, time_first)
    )
    hooks.output(decoder.pre_conv, "codec.pre_conv.out", time_first)
    hooks.decoder(decoder.pre_transformer, "codec.pre_transformer", codec_code, "apply_rotary_pos_emb")
    hooks.output(decoder.pre_transformer, "codec.pre_transformer.out")
    for index, (up, block) in enumerate(decoder.upsample):
        hooks.output(up, f"codec.upsample.{index}.up", time_first)
        hooks.output(block, f"codec.upsample.{index}.out", time_first)
    final = len(decoder.decoder) - 1
    for index, layer in enumerate(decoder.decoder):
        if hasattr(layer, "block"):
            hooks.output(layer.block[1], f"codec.decoder.{index}.up", time_first)
            for unit in range(3):
                hooks.output(layer.block[2 + unit], f"codec.decoder.{index}.unit.{unit}", time_first)
        if index < final:
            hooks.output(layer, f"codec.decoder.{index}.out", time_first)
    hooks.output(decoder.decoder[final], "codec.wav_unclamped", lambda x: x[:, 0])
    hooks.output(decoder, "codec.wav", lambda x: x[:, 0])


def sampling_of(
    arguments: argparse.Namespace, defaults: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Generation arguments of the original, and the same under Sonant's names."""
    original: dict[str, Any] = {}
    ours: dict[str, Any] = {}
    if arguments.greedy:
        original |= {"do_sample": False, "subtalker_dosample": False}
        ours |= {"greedy": True, "predictor_greedy": True}
    names = {
        "top_k": "top_k",
        "top_p": "top_p",
        "temperature": "temperature",
        "repetition_penalty": "repetition_penalty",
        "subtalker_top_k": "predictor_top_k",
        "subtalker_top_p": "predictor_top_p",
        "subtalker_temperature": "predictor_temperature",
    }
    for theirs, name in names.items():
        value = defaults.get(theirs)
        if value is not None:
            ours[name] = value
    return original, ours


def main() -> None:
    """Parse, load, hook, speak, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--text", required=True)
    parser.add_argument("--voice", help="reference audio file (Base) or preset speaker (CustomVoice)")
    parser.add_argument(
        "--transcript", help="what the audio says; without it only the speaker vector is used"
    )
    parser.add_argument("--language")
    parser.add_argument("--instruction")
    parser.add_argument("--layout", choices=("full", "progressive"))
    parser.add_argument("--steps", type=int, default=8, help="frames at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--stages", default="*")
    parser.add_argument("--max-elements", type=int)
    parser.add_argument("-o", "--output", required=True)
    arguments = parser.parse_args()

    wrapper = Qwen3TTSModel.from_pretrained(
        arguments.checkpoint, dtype=getattr(torch, arguments.dtype), attn_implementation="eager"
    )
    model = wrapper.model
    writer = TraceWriter(stages=arguments.stages, max_elements=arguments.max_elements)
    hooks = Hooks(writer)
    kind = model.tts_model_type
    rates: dict[str, int] = {}
    call: dict[str, Any] = {"text": arguments.text, "language": arguments.language}
    if kind == "base" and arguments.voice is None:
        parser.error("this checkpoint speaks with the voice of a clip; give one with --voice")
    if kind == "base":
        samples, rate = soundfile.read(arguments.voice, dtype="float32", always_2d=True)
        samples = samples.mean(axis=1)
        writer.add("input.audio", torch.from_numpy(samples), kind="input")
        rates["audio"] = rate
        call |= {
            "ref_audio": (samples, rate),
            "ref_text": arguments.transcript,
            "x_vector_only_mode": arguments.transcript is None,
        }
        watch_speaker(hooks, model.speaker_encoder)
    elif kind == "custom_voice":
        call |= {"speaker": arguments.voice, "instruct": arguments.instruction}
    else:
        call |= {"instruct": arguments.instruction}
    layout = arguments.layout or ("progressive" if kind == "base" else "full")
    watch_codec_encoder(hooks, model.speech_tokenizer, is_used=arguments.transcript is not None)
    watch_talker(hooks, model, has_speaker=kind != "voice_design" and arguments.voice is not None)
    watch_codec_decoder(hooks, model.speech_tokenizer.model.decoder)
    hooks.draws()
    original, ours = sampling_of(arguments, wrapper._merge_generate_kwargs())
    torch.manual_seed(arguments.seed)
    speak = {
        "base": "generate_voice_clone",
        "custom_voice": "generate_custom_voice",
        "voice_design": "generate_voice_design",
    }[kind]
    waves, _ = getattr(wrapper, speak)(
        **call,
        non_streaming_mode=layout == "full",
        # The original chooses one token more than it makes frames.
        max_new_tokens=arguments.steps + 1,
        **original,
    )
    writer.add("output.samples", torch.from_numpy(waves[0]))
    found = versions("qwen-tts", "transformers", "numpy", "librosa")
    writer.save(
        arguments.output,
        {
            "made_by": f"qwen-tts {found.get('qwen-tts', '')}".strip(),
            "family": "qwen3_tts",
            "model": os.path.basename(os.path.abspath(arguments.checkpoint)),
            "files": hash_files(arguments.checkpoint),
            "dtype": arguments.dtype,
            "versions": found,
            "threads": torch.get_num_threads(),
            "seed": arguments.seed,
            "request": {
                "text": arguments.text,
                "voice": None if kind == "base" else arguments.voice,
                "transcript": arguments.transcript,
                "language": arguments.language,
                "style": {"instruction": arguments.instruction} if arguments.instruction else {},
                "sampling": ours,
                "seed": arguments.seed,
                "text_layout": layout,
                "options": {"codec_chunks": True},
                "max_steps": arguments.steps,
                "rates": rates,
            },
        },
    )


if __name__ == "__main__":
    main()
