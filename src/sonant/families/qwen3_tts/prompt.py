"""Text, speaker and reference -> the talker's input vectors, position by position.

    [instruction] role, language tag, speaker, begin, then text and codec side by side

Every position is the sum of a text-side and a codec-side vector. Two layouts of the text: "full" has all
of it in the prompt, "progressive" gives the model one text token with each frame it speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sonant.errors import RequestError, VoiceError
from sonant.families.qwen3_tts.config import ModelConfig, TalkerConfig
from sonant.families.qwen3_tts.talker import Network
from sonant.nn.tap import tap
from sonant.request.speech import TextLayout
from sonant.text.tokenizer import BytePairTokenizer

ROLE = "<|im_start|>assistant\n"
AFTER_TEXT = "<|im_end|>\n<|im_start|>assistant\n"
AFTER_REFERENCE = "<|im_end|>\n"
USER = "<|im_start|>user\n"

ROLE_IDS = 3  # start marker, "assistant", newline: Source: the original's fixed slices
AFTER_TEXT_IDS = 5
AFTER_REFERENCE_IDS = 2

DEFAULT_LAYOUT: dict[str, TextLayout] = {
    "base": "progressive",
    "custom_voice": "full",
    "voice_design": "full",
}


@dataclass(frozen=True, eq=False)
class Reference:
    """What in-context cloning continues: transcript ids (wrapped) and the clip's tokens [T, G]."""

    ids: Sequence[int]
    tokens: Tensor


@dataclass(frozen=True, eq=False)
class TalkerInputs:
    """A prompt as vectors.

    `embeds` [T, D] are prefilled; `trailing` [N, D] are added to the first N generated frames, `filler`
    [D] to all later ones. `reference` [T, G] are the clip's tokens when the voice is continued in context.
    """

    embeds: Tensor
    trailing: Tensor
    filler: Tensor
    reference: Tensor | None = None
    in_chunks: bool = False
    """Decode as the original's public interface does; see `CodecDecoder.decode_in_chunks`."""


def wrapped_ids(
    tokenizer: BytePairTokenizer, before: str, text: str, after: str, *, markers: bool
) -> list[int]:
    """Ids of `text` between its chat markers.

    With `markers`, markers that the text itself spells become special tokens, as in the original; and a
    leading newline may merge with the one before. Without, the text stays text.
    """
    if markers:
        return tokenizer.encode(before + text + after)
    return [
        *tokenizer.encode(before),
        *tokenizer.encode(text, markers=False),
        *tokenizer.encode(after),
    ]


def _tapped_ids(name: str, ids: list[int]) -> list[int]:
    return tap(name, torch.tensor(ids, dtype=torch.int64)).tolist()


def text_ids(tokenizer: BytePairTokenizer, text: str, *, markers: bool = False) -> list[int]:
    """Ids of a text to speak, wrapped."""
    return _tapped_ids("prompt.text_ids", wrapped_ids(tokenizer, ROLE, text, AFTER_TEXT, markers=markers))


def reference_ids(tokenizer: BytePairTokenizer, transcript: str, *, markers: bool = False) -> list[int]:
    """Ids of a clip's transcript, wrapped."""
    ids = wrapped_ids(tokenizer, ROLE, transcript, AFTER_REFERENCE, markers=markers)
    return _tapped_ids("prompt.reference_ids", ids)


def instruction_ids(tokenizer: BytePairTokenizer, instruction: str, *, markers: bool = False) -> list[int]:
    """Ids of an instruction, wrapped; all of them enter the prompt."""
    ids = wrapped_ids(tokenizer, USER, instruction, AFTER_REFERENCE, markers=markers)
    return _tapped_ids("prompt.instruction_ids", ids)


def language_id(config: TalkerConfig, language: str | None, speaker: str | None = None) -> int | None:
    """The id of the language tag, or None for "auto".

    A speaker of a dialect brings the dialect's tag along unless another language than Chinese is named.
    """
    name = (language or "auto").lower()
    if name != "auto" and name not in config.languages:
        raise RequestError(
            f"the model does not speak {language!r}; it speaks: {', '.join(config.languages)}, or auto.",
            field="language",
        )
    dialect = config.spk_is_dialect.get((speaker or "").lower(), False)
    if dialect and isinstance(dialect, str) and name in {"auto", "chinese"}:
        return config.codec_language_id[dialect]
    return None if name == "auto" else config.codec_language_id[name]


def speaker_id(config: TalkerConfig, speaker: str) -> int:
    """The codec-table row of a preset speaker, whose name is compared in lower case."""
    known = {name.lower(): row for name, row in config.spk_id.items()}
    if speaker.lower() not in known:
        raise VoiceError(
            f"no voice {speaker!r}; the model's voices are: {', '.join(sorted(known)) or 'none'}. "
            "Name one of them."
        )
    return known[speaker.lower()]


def build_inputs(
    network: Network,
    config: ModelConfig,
    *,
    text: Sequence[int],
    layout: TextLayout,
    language: int | None,
    speaker: Tensor | int | None = None,
    instruction: Sequence[int] | None = None,
    reference: Reference | None = None,
) -> TalkerInputs:
    """The prompt's vectors.

    `text` and `instruction` are wrapped ids; `speaker` is a speaker vector [D], a row of the codec table,
    or None in voice design.
    """
    talker, ids = network.talker, config.talker
    device = talker.codec_embedding.weight.device

    def spoken(tokens: Sequence[int]) -> Tensor:
        return talker.text(torch.tensor(tokens, dtype=torch.int64, device=device))

    def codec(*tokens: int) -> Tensor:
        return talker.codec_embedding(torch.tensor(tokens, dtype=torch.int64, device=device))

    begin, end, filler = spoken(
        [config.tts_bos_token_id, config.tts_eos_token_id, config.tts_pad_token_id]
    ).unsqueeze(1)  # each [1, D]
    codec_begin, codec_pad = codec(ids.codec_bos_id), codec(ids.codec_pad_id)

    if language is None:
        tag = (ids.codec_nothink_id, ids.codec_think_bos_id, ids.codec_think_eos_id)
    else:
        tag = (ids.codec_think_id, ids.codec_think_bos_id, language, ids.codec_think_eos_id)  # type: ignore[assignment]
    # Both sides of every position: what is read, and what is heard. Before the tags nothing is heard.
    text_side = [] if instruction is None else [spoken(instruction)]
    text_side.append(spoken(text[:ROLE_IDS]))
    codec_side = [torch.zeros_like(side) for side in text_side]
    heard = [tap("prompt.part.language", codec(*tag))]
    if speaker is not None:
        row = codec(speaker) if isinstance(speaker, int) else speaker.to(filler)[None]
        heard.append(tap("prompt.part.speaker", row))
    text_side += [filler.expand(sum(map(len, heard)), -1), begin]
    codec_side += [*heard, codec_pad]

    words = text[ROLE_IDS:-AFTER_TEXT_IDS]
    trailing = filler
    if reference is not None:
        transcript = reference.ids[ROLE_IDS:-AFTER_REFERENCE_IDS]
        text_track = torch.cat((spoken([*transcript, *words]), end))
        frames = network.embed_frames(reference.tokens.to(device))
        codec_track = torch.cat((codec_begin, frames))
        length = codec_track.shape[0]
        if layout == "full":
            text_side += [text_track, filler.expand(length, -1)]
            codec_side += [codec_pad.expand(text_track.shape[0], -1), codec_track]
        else:
            if text_track.shape[0] > length:
                trailing = text_track[length:]
            missing = filler.expand(max(length - text_track.shape[0], 0), -1)
            text_side += [text_track[:length], missing]
            codec_side.append(codec_track)
    elif layout == "full":
        text_track = torch.cat((spoken(words), end))
        text_side += [text_track, filler]
        codec_side += [codec_pad.expand(text_track.shape[0], -1), codec_begin]
    else:
        # Parity: of a text without a token, the marker behind it is the first one.
        text_side.append(spoken(text[ROLE_IDS : ROLE_IDS + 1]))
        codec_side.append(codec_begin)
        trailing = torch.cat((spoken(words[1:]), end)) if len(words) > 1 else end
    both = tap("prompt.part.text", torch.cat(text_side)) + tap("prompt.part.codec", torch.cat(codec_side))
    return TalkerInputs(
        embeds=tap("prompt.embeds", both),
        trailing=tap("prompt.trailing", trailing),
        filler=tap("prompt.filler", filler[0]),
        reference=None if reference is None else reference.tokens,
    )
