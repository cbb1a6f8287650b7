"""IndexTTS-2.5's vocabulary: byte-level BPE in tiktoken's form, its special tokens and languages.

A file has one `base64 rank` line for each token; the special tokens follow the last rank in a fixed order.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from pathlib import Path

from sonant.errors import CheckpointError

# Source: the original's split pattern, GPT-2's: contractions only in small letters.
PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

# Source: whisper's languages, then those that IndexTTS-2.5 adds. A code's place is its row of the language
# embedding; only the first 99 have a token.
_LANGUAGES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr "
    "bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn "
    "yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su "
    "yue minnan wuyu dialect zh/en en/zh common"
)
LANGUAGES = tuple(_LANGUAGES.split())
LANGUAGES_WITH_TOKEN = 99
COMMON = "common"
"""Row of every code that the table lacks."""

TIME_MARKS = 1501
"""Special tokens at the end: 0.00 to 30.00 s in steps of 0.02."""
_EVENTS = (
    "ASR",
    "AED",
    "SER",
    "Speech",
    "/Speech",
    "BGM",
    "/BGM",
    "Laughter",
    "/Laughter",
    "Applause",
    "/Applause",
)
_EMOTIONS = ("HAPPY", "SAD", "ANGRY", "NEUTRAL")
_TASKS = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
_VOCAL = [*(f"TTS/{name}" for name in ("B", "O", "Q", "A", "CO", "CL", "H"))]
_VOCAL += [f"TTS/SP{number:02d}" for number in range(1, 14)]
SPECIAL_TOKENS = tuple(
    f"<|{name}|>"
    for name in (
        "endoftext",
        "startoftranscript",
        *LANGUAGES[:LANGUAGES_WITH_TOKEN],
        *_EVENTS,
        *_EMOTIONS,
        *_TASKS,
        *(f"SPECIAL_TOKEN_{number}" for number in range(1, 31)),
        *_VOCAL,
        *(f"{number * 0.02:.2f}" for number in range(TIME_MARKS)),
    )
)
"""In the order of their ids, which begin after the last rank. Source: the original's tokenizer."""


_MARK = re.compile(r"<\|(?=([^|]{1,20})\|>)")


def language_row(code: str) -> int:
    """Row of the language embedding for a code such as `zh`; a language's name is no code."""
    known = code.lower()
    return LANGUAGES.index(known if known in LANGUAGES else COMMON)


class Vocabulary:
    """Text <-> ids. Special tokens inside a text are taken as such; whole words win over merges."""

    def __init__(self, path: Path) -> None:
        from tiktoken import Encoding

        ranks = _read_ranks(path)
        self.size = len(ranks) + len(SPECIAL_TOKENS)
        """Ids in all."""
        self._special = {token: len(ranks) + n for n, token in enumerate(SPECIAL_TOKENS)}
        try:
            self._encoding = Encoding(
                name=path.stem,
                explicit_n_vocab=self.size,
                pat_str=PATTERN,
                mergeable_ranks=ranks,
                special_tokens=self._special,
            )
        except (AssertionError, ValueError) as error:
            raise CheckpointError(
                f"{path} is no usable vocabulary ({error or 'ids that do not count up'}). Download it again."
            ) from error

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        # Not the library's own `allowed_special`: it would hand over all 1673 of them at every call.
        ids: list[int] = []
        start = 0
        for found in _MARK.finditer(text):
            special = self._special.get(f"<|{found[1]}|>")
            if special is not None:
                ids += self._encoding.encode_ordinary(text[start : found.start()])
                ids.append(special)
                start = found.end(1) + 2
        return ids + self._encoding.encode_ordinary(text[start:])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids without time marks; bytes that are no character become the replacement character."""
        return self._encoding.decode([value for value in ids if value < self.size - TIME_MARKS])


def _read_ranks(path: Path) -> dict[bytes, int]:
    """Token -> rank, 0, 1, 2, ... Raises CheckpointError."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.name} is missing in {path.parent}. Download the checkpoint again."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no vocabulary ({error}). Download it again.") from error
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            # Parity: the released file holds the token `=`, which a lenient reader takes for no bytes at all.
            ranks[base64.b64decode(token)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise CheckpointError(
                f"line {number} of {path} is {line[:60]!r}; expected a token in base64 and its rank. "
                "Download the file again."
            ) from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise CheckpointError(
            f"the {len(ranks)} ranks of {path} do not count 0, 1, 2, ...; some lines are missing or stand "
            "twice. Download the file again."
        )
    if any(bytes((value,)) not in ranks for value in range(256)):
        raise CheckpointError(
            f"{path} lacks some of the 256 single bytes; expected a byte-level vocabulary. Download it again."
        )
    return ranks
