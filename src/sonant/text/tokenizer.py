"""Byte-level BPE from a checkpoint's `vocab.json`, `merges.txt` and `tokenizer_config.json`.

    text -> NFC -> special tokens cut out -> Qwen2's pieces -> bytes -> merges -> token ids

The work is done by the `tokenizers` library; this file only sets it up as Qwen2 does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from sonant.errors import CheckpointError

# Source: Qwen2's tokenizer. Newer transformers may replace it by Mistral's when a folder is loaded
# locally, which splits mixed-case words; the models were trained with this one.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class BytePairTokenizer:
    """Text -> ids, and back. Make one with `BytePairTokenizer.load(folder)`.

    `vocabulary` maps each piece (in byte-level spelling) to its id; `added` are the tokens outside it,
    in the order of their ids, matched before anything is split.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        added: Sequence[AddedToken] = (),
    ) -> None:
        self._tokenizer = _byte_level(vocabulary, merges)
        self._tokenizer.add_tokens(list(added))

    @staticmethod
    def load(folder: str | os.PathLike[str], *, extra: Sequence[str] = ()) -> BytePairTokenizer:
        """The tokenizer of a checkpoint folder.

        `extra` are special tokens that an original adds in code: those not yet known get the next ids,
        in order. Raises CheckpointError when a file is missing, damaged or contradicts another.
        """
        folder = Path(folder)
        vocabulary = _read_json(folder / "vocab.json")
        if not all(isinstance(value, int) for value in vocabulary.values()):
            raise CheckpointError(
                f"{folder / 'vocab.json'} does not map pieces to ids. Download the checkpoint again."
            )
        merges = _read_merges(folder / "merges.txt")
        for left, right in merges:
            unknown = [piece for piece in (left, right, left + right) if piece not in vocabulary]
            if unknown:
                raise CheckpointError(
                    f"the tokenizer files in {folder} do not fit together: merges.txt joins "
                    f"{left!r} and {right!r}, but vocab.json lacks {unknown}. Download them again."
                )
        records = _read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
        try:
            numbered = sorted((int(index), record) for index, record in records.items())
            added = [_added_token(record) for _, record in numbered]
            tokenizer = BytePairTokenizer(vocabulary, merges, added)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(
                f"{folder / 'tokenizer_config.json'} lists no usable added tokens ({error!r}). "
                "Download it again."
            ) from error
        for (index, _), token in zip(numbered, added, strict=True):
            found = tokenizer._tokenizer.token_to_id(token.content)
            if found != index:
                raise CheckpointError(
                    f"{token.content} has id {found} after {folder / 'vocab.json'}, but "
                    f"tokenizer_config.json says {index}. The files are of different checkpoints; "
                    "download it again."
                )
        tokenizer._tokenizer.add_special_tokens(list(extra))
        return tokenizer

    def __len__(self) -> int:
        """Ids in all, added tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, *, markers: bool = True) -> list[int]:
        """Token ids of `text`.

        With `markers`, text that spells an added token ("<|im_end|>") becomes that token, as the
        originals do; without, it is ordinary text, whatever a user typed.
        """
        if markers:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        normal = self._tokenizer.normalizer.normalize_str(text)
        pieces = self._tokenizer.pre_tokenizer.pre_tokenize_str(normal)
        model = self._tokenizer.model
        return [token.id for piece, _ in pieces for token in model.tokenize(piece)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, added tokens spelled out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def id(self, token: str) -> int:
        """Id of one added token or vocabulary piece. Raises CheckpointError when there is none."""
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(
                f"the tokenizer has no token {token!r}. Its files are not those of this model; "
                "download the checkpoint again."
            )
        return int(found)


def _byte_level(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=dict(vocabulary), merges=list(merges), fuse_unk=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _added_token(record: Mapping[str, Any]) -> AddedToken:
    return AddedToken(
        record["content"],
        single_word=record.get("single_word", False),
        lstrip=record.get("lstrip", False),
        rstrip=record.get("rstrip", False),
        normalized=record.get("normalized", False),
        special=record.get("special", True),
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.name} is missing in {path.parent}: the tokenizer needs vocab.json, merges.txt and "
            "tokenizer_config.json. Download the checkpoint again, for example with: sonant pull NAME"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not readable text ({error}). Download it again.") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(_read_text(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}). Download it again.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}; expected a JSON object.")
    return data


def _read_merges(path: Path) -> list[tuple[str, str]]:
    merges = []
    # Only "\n" ends a line: pieces may hold characters that str.splitlines would cut at.
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        line = line.rstrip("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2:
            raise CheckpointError(
                f"{path}, line {number}, is no merge of two pieces: {line!r}. Download it again."
            )
        merges.append((parts[0], parts[1]))
    return merges
