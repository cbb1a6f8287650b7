"""The rows of a Qwen3-TTS kit case: from the arguments of the original's call to prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sonant.audio.resample import resample_soxr
from sonant.engine.model import Prompt
from sonant.families.qwen3_tts import prompt as prompts
from sonant.families.qwen3_tts.model import Qwen3TTS
from sonant.request.audio import Audio
from sonant.request.speech import Sampling, SpeechRequest


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a case's batch."""

    text: list[int]
    instruction: list[int] | None
    transcript: list[int] | None
    """Ids of the clip's transcript, wrapped; a row that clones by its vector alone may have them too."""
    reference: prompts.Reference | None
    vector: Tensor | None
    prompt: Prompt


def at_rate(audio: Audio, rate: int) -> Tensor:
    """Mono samples [S] of a clip at another rate."""
    return torch.from_numpy(resample_soxr(audio.samples, audio.sample_rate, rate))


def read_rows(
    folder: Path, inputs: Mapping[str, Any], model: Qwen3TTS, sampling: Sampling, frames: int
) -> list[Row]:
    """All rows of a case; an argument that is one value, or a list of one, holds for every row."""
    count = len(inputs["text"]) if isinstance(inputs["text"], list) else 1

    def field(name: str) -> list[Any]:
        value = inputs.get(name)
        values = value if isinstance(value, list) else [value]
        return values * count if len(values) == 1 else values

    clips = inputs.get("ref_audio")
    tokens: list[Tensor | None] = [None]
    if inputs["mode"] == "base":
        tokens = [*_encoded([Audio.read(folder / clip) for clip in _listed(clips)], model)]

    def make(
        text: str,
        language: str | None,
        speaker: str | None,
        instruction: str | None,
        clip: str | None,
        transcript: str | None,
        vector_only: bool | None,
        reference_tokens: Tensor | None,
    ) -> Row:
        ids = prompts.text_ids(model.tokenizer, text, markers=True)
        vector: Tensor | None = None
        transcript_ids = reference = None
        given: Tensor | int | None = None
        if inputs["mode"] == "base":
            assert clip is not None
            given = vector = model.speaker_vector(Audio.read(folder / clip))
            if transcript:
                transcript_ids = prompts.reference_ids(model.tokenizer, transcript, markers=True)
                assert reference_tokens is not None
                if not vector_only:
                    reference = prompts.Reference(transcript_ids, reference_tokens)
        elif inputs["mode"] == "custom_voice" and speaker:  # the original takes no name as no speaker
            given = prompts.speaker_id(model.config.talker, speaker)
        # The original drops an instruction that the model cannot follow.
        asked = (
            prompts.instruction_ids(model.tokenizer, instruction, markers=True)
            if instruction and model.config.follows_instructions
            else None
        )
        vectors = prompts.build_inputs(
            model.network,
            model.config,
            text=ids,
            layout="full" if inputs["non_streaming_mode"] else "progressive",
            language=prompts.language_id(model.config.talker, language, speaker),
            speaker=given,
            instruction=asked,
            reference=reference,
        )
        made = model.preparing.make_prompt(text, vectors, request=SpeechRequest(text), words=len(ids), seed=0)
        made = replace(made, sampling=sampling, ceiling=frames, positions=vectors.embeds.shape[0] + frames)
        return Row(ids, asked, transcript_ids, reference, vector, made)

    columns = ("text", "language", "speaker", "instruct", "ref_audio", "ref_text", "x_vector_only_mode")
    held = [*(field(name) for name in columns), tokens * count if len(tokens) == 1 else tokens]
    return [make(*values) for values in zip(*held, strict=True)]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _encoded(clips: Sequence[Audio], model: Qwen3TTS) -> list[Tensor]:
    """Tokens [T, G] of each clip, as the original encodes the clips of one call.

    Parity: clips of one sample rate go through the encoder as one batch, zeros behind the shorter ones,
    which may change their last frame; clips of different rates are encoded one by one.
    """
    if len({clip.sample_rate for clip in clips}) > 1 or len(clips) == 1:
        return [model.encode_audio(clip) for clip in clips]
    codec = model.speech_tokenizer
    samples = [at_rate(clip, codec.config.input_sample_rate) for clip in clips]
    padded = torch.nn.utils.rnn.pad_sequence(samples, batch_first=True)
    together = codec.codec.encoder(padded, codec.quantizers)
    frame = codec.config.encode_downsample_rate
    return [tokens[: -(-len(row) // frame)] for tokens, row in zip(together, samples, strict=True)]
