"""Random values in recorded shapes, and a byte-level vocabulary that knows a few words."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Sequence
from importlib import resources

import torch
from torch import Tensor

Shapes = dict[str, dict[str, list[int]]]
"""Of each file of a checkpoint, its tensors' names and shapes."""


def recorded_shapes(family: str) -> Shapes:
    """What the original's own classes have at the released sizes."""
    found = resources.files("sonant.bench").joinpath("shapes", f"{family}.json.gz").read_bytes()
    return json.loads(gzip.decompress(found))


class Noise:
    """Random tensors cut from one block, because filling gigabytes would take longer than measuring."""

    def __init__(self) -> None:
        self._block = torch.randn((1 << 22) + 7, generator=torch.Generator().manual_seed(0))
        self._at = 0

    def tensor(self, shape: Sequence[int]) -> Tensor:
        """Values whose products with inputs near 1 stay near 1: the variance is 1 over the inputs."""
        count = math.prod(shape)
        self._at = (self._at + 7919) % (self._block.numel() // 2)
        repeats = -(-count // (self._block.numel() - self._at))
        values = self._block[self._at :].repeat(repeats)[:count] / math.sqrt(math.prod(shape[1:]))
        return values.view(*shape)


def spelled_vocabulary(words: Sequence[str], size: int) -> tuple[dict[str, int], list[str]]:
    """Vocabulary and merges of byte-level BPE in which each word is one token; filled up to `size`.

    A word that follows a space begins with one.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spelled = {byte: chr(byte) for byte in printable}
    spelled.update({byte: chr(256 + i) for i, byte in enumerate(sorted(set(range(256)) - set(printable)))})
    vocabulary = {spelled[byte]: byte for byte in range(256)}
    merges: list[str] = []
    for word in words:
        letters = "".join(spelled[byte] for byte in word.encode())
        for end in range(2, len(letters) + 1):
            if letters[:end] not in vocabulary:
                vocabulary[letters[:end]] = len(vocabulary)
                merges.append(f"{letters[: end - 1]} {letters[end - 1]}")
    while len(vocabulary) < size:
        vocabulary[f"filler{len(vocabulary)}"] = len(vocabulary)
    return vocabulary, merges
