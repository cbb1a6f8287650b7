"""Requests and voices -> what the language model and the flow get: one layout for each mode.

zero-shot       system sentence, transcript | target | prompt speech        voice with transcript
cross-lingual   nothing                     | system sentence, target |     voice without transcript
instruct        system sentence, instruction | target |                     style.instruction
conversion      no language model: the source's speech tokens go to the flow
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sonant.checkpoints.files import read_pickle, read_tensors
from sonant.errors import CheckpointError, RequestError
from sonant.families.cosyvoice3.stream import DecodeOptions, FlowVoice
from sonant.families.cosyvoice3.text import END_OF_PROMPT, SYSTEM_SENTENCE
from sonant.request.speech import TextFeed

PRESETS_NAME = "spk2info"


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """One segment for this family: token ids for the language model, the voice for the flow.

    `source` holds the tokens of a voice conversion, which takes no text at all.
    """

    prompt_text: Tensor
    text: Tensor
    prompt_speech: Tensor
    reference: FlowVoice
    options: DecodeOptions
    noise: str
    source: Tensor | None = None
    feed: TextFeed | None = None
    """Text that arrives while it is spoken; `text` is then empty, and `prompt_text` ends the known part."""


@dataclass(frozen=True)
class Layout:
    """Text before the target, the target, and whether the prompt's speech tokens go in as well."""

    prompt_text: str
    text: str
    has_prompt_speech: bool


def layout(text: str, *, transcript: str | None, instruction: str | None) -> Layout:
    """Where the texts go. Whoever already wrote <|endofprompt|> does not get a second one."""
    if END_OF_PROMPT in text and (instruction or transcript):
        head, _, tail = text.partition(END_OF_PROMPT)
        if instruction:
            raise RequestError(
                f"the text has {END_OF_PROMPT} in it and an instruction was given besides. "
                "Give the instruction in one place.",
                field="instruction",
            )
        return Layout(f"{head}{END_OF_PROMPT}{_after_end(transcript or '')}", tail, True)
    if instruction:
        return Layout(instruction_prompt(instruction), text, False)
    if transcript:
        return Layout(transcript_prompt(transcript), text, True)
    if END_OF_PROMPT in text:
        return Layout("", text, False)
    return Layout("", f"{SYSTEM_SENTENCE}{END_OF_PROMPT}{text}", False)


def transcript_prompt(transcript: str) -> str:
    """What stands before the target in zero-shot mode."""
    if END_OF_PROMPT in transcript:
        return transcript
    return f"{SYSTEM_SENTENCE}{END_OF_PROMPT}{transcript}"


def instruction_prompt(instruction: str) -> str:
    """What stands before the target in instruct mode."""
    if END_OF_PROMPT in instruction:
        return instruction
    if instruction.startswith(SYSTEM_SENTENCE):
        return f"{instruction}{END_OF_PROMPT}"
    return f"{SYSTEM_SENTENCE} {instruction}{END_OF_PROMPT}"


def _after_end(transcript: str) -> str:
    return transcript.partition(END_OF_PROMPT)[2] if END_OF_PROMPT in transcript else transcript


def trimmed(tokens: Tensor, mel: Tensor, ratio: int) -> tuple[Tensor, Tensor]:
    """Tokens [k] and mel [k * ratio, M] cut to the same length in time, from the start."""
    count = min(mel.shape[0] // ratio, tokens.shape[0])
    return tokens[:count], mel[: count * ratio]


def read_presets(folder: Path, *, bins: int, speaker_dim: int) -> dict[str, dict[str, Tensor]]:
    """Stored speakers of `spk2info.pt` by name, each as the tensors of a voice; none without the file.

    Raises CheckpointError when an entry is not what the original stores.
    """
    if (folder / f"{PRESETS_NAME}.safetensors").is_file():
        return _unflattened(read_tensors(folder / f"{PRESETS_NAME}.safetensors"))
    path = folder / f"{PRESETS_NAME}.pt"
    if not path.is_file():
        return {}
    data = read_pickle(path)
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{path} holds a {type(data).__name__}; expected speakers by name.")
    return {str(name): _preset(record, f"{path}: {name}", bins, speaker_dim) for name, record in data.items()}


def _preset(record: Any, where: str, bins: int, speaker_dim: int) -> dict[str, Tensor]:
    def row(*keys: str) -> Tensor | None:
        for key in keys:
            if isinstance(record, Mapping) and isinstance(record.get(key), Tensor):
                return record[key]
        return None

    speaker = row("flow_embedding", "llm_embedding", "embedding")
    tokens, mel = row("flow_prompt_speech_token"), row("prompt_speech_feat")
    text = row("prompt_text")
    if speaker is None or speaker.numel() != speaker_dim or (tokens is None) != (mel is None):
        raise CheckpointError(
            f"{where} is no stored speaker; expected flow_embedding [1, {speaker_dim}], "
            "flow_prompt_speech_token and prompt_speech_feat. Store the speaker again."
        )
    tensors = {
        "speaker": speaker.reshape(-1).float(),
        "tokens": torch.zeros(0, dtype=torch.int32) if tokens is None else tokens.reshape(-1).int(),
        "mel": torch.zeros(0, bins) if mel is None else mel.reshape(-1, bins).float(),
    }
    if text is not None and text.numel():
        tensors["prompt_text"] = text.reshape(-1).int()
    return tensors


def flattened(presets: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Presets as one table of tensors for a safetensors file."""
    return {f"{name}\n{key}": tensor for name, row in presets.items() for key, tensor in row.items()}


def _unflattened(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    presets: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, part = key.rpartition("\n")
        presets.setdefault(name, {})[part] = tensor
    return presets
