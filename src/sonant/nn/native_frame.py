"""All tokens of one frame after its first, in one call into C: stack, heads, choice and embeddings.

A step of a code predictor is small, and there are fifteen in a frame; the time between the steps would
count for more than a tenth of the frame. The arithmetic is that of `NativeDecoder` and `NativeLinear`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sonant.native import check_done
from sonant.nn.cache import KVCache
from sonant.nn.quantized import BLOCK, NativeDecoder, NativeLinear
from sonant.nn.sampling import Choice


class NativeFrame:
    """The steps of a code predictor whose parts are all in C.

    project leads from the talker's width to the predictor's (None where they are equal); heads and tables
    are those of the tokens in order. From token `late_from` on the stack is `late`, if there is one.
    """

    def __init__(
        self,
        decoder: NativeDecoder,
        project: NativeLinear | None,
        heads: Sequence[NativeLinear],
        tables: Sequence[nn.Embedding],
        late: NativeDecoder | None = None,
        late_from: int = 0,
    ) -> None:
        self._decoder, self._project = decoder, project
        self._late, self._late_from = late, late_from
        self._heads, self._tables = list(heads), list(tables)
        self._handles = (ctypes.c_void_p * len(heads))(*(head.handle for head in heads))

    @classmethod
    def of(
        cls,
        decoder: nn.Module,
        project: nn.Module,
        heads: Sequence[nn.Module],
        tables: Sequence[nn.Embedding],
        late: nn.Module | None = None,
        late_from: int = 0,
    ) -> NativeFrame | None:
        """The frame of these parts, or None when one of them is not in C or an output has a bias."""
        if not isinstance(decoder, NativeDecoder) or not isinstance(project, (nn.Identity, NativeLinear)):
            return None
        if not isinstance(late, NativeDecoder | None):
            return None
        linear = [head for head in heads if isinstance(head, NativeLinear) and head.bias is None]
        if len(linear) < len(heads):
            return None
        projection = project if isinstance(project, NativeLinear) else None
        return cls(decoder, projection, linear, tables, late, late_from)

    def takes(self, choices: Sequence[Choice]) -> bool:
        """True when a batch is small enough, every table is float32, and no row draws with a top_p."""
        return (
            2 * len(choices) <= BLOCK
            and all(table.weight.dtype == torch.float32 for table in self._tables)
            and not any(choice.top_p < 1.0 and not choice.is_greedy for choice in choices)
        )

    def __call__(
        self,
        hidden: Tensor,
        first: Tensor,
        cache: KVCache,
        choices: Sequence[Choice],
        generators: Sequence[torch.Generator],
    ) -> tuple[Tensor, Tensor]:
        """Tokens [B, G] and the sum [B, D] of their embeddings.

        hidden [B, D] and first [B, D] are the frame's two first positions; the rows 0 .. B-1 of `cache` are
        used anew. A row that is not greedy draws once for each token from its generator, as `sampling.draw`
        does.
        """
        batch, source = hidden.shape
        groups, vocabulary = len(self._heads), self._heads[0].out_features
        race = torch.empty(groups, batch, vocabulary)
        for row, (choice, generator) in enumerate(zip(choices, generators, strict=True)):
            if not choice.is_greedy:
                for group in range(groups):
                    race[group, row].exponential_(1, generator=generator)
        integers, floats = ctypes.c_int32 * batch, ctypes.c_float * batch
        tables = (ctypes.c_void_p * groups)(*(table.weight.data_ptr() for table in self._tables))
        keys, values = self._decoder.storage(cache)
        cos, sin = self._decoder.table(cache.capacity)
        hidden, first = hidden.float().contiguous(), first.float().contiguous()
        tokens = torch.empty(batch, groups, dtype=torch.int64)
        total = torch.empty(batch, source)
        project, bias = self._project, None if self._project is None else self._project.bias
        done = self._decoder.library.sonant_frame_run(
            self._decoder.handle,
            None if self._late is None else self._late.handle,
            self._late_from,
            batch,
            groups,
            source,
            vocabulary,
            hidden.data_ptr(),
            first.data_ptr(),
            None if project is None else project.handle,
            None if bias is None else bias.data_ptr(),
            self._handles,
            tables,
            keys,
            values,
            len(cache.lengths),
            cache.capacity,
            cos.data_ptr(),
            sin.data_ptr(),
            len(cos),
            integers(*(choice.is_greedy for choice in choices)),
            integers(*(choice.top_k for choice in choices)),
            floats(*(choice.temperature for choice in choices)),
            race.data_ptr(),
            tokens.data_ptr(),
            total.data_ptr(),
            torch.get_num_threads(),
        )
        check_done(done, f"a frame of {batch} rows and {groups} tokens")
        return tokens, total
