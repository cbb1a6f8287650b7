"""Vector quantisation: codebooks stored as running sums, residual stacks, nearest-vector search."""

from __future__ import annotations

import torch
from torch import Tensor, nn

USAGE_FLOOR = 1e-5
"""Rows that training used less are divided by this. Source: EnCodec's running-average codebooks."""


class RunningCodebook(nn.Module):
    """A codebook kept as the sum of the vectors each row stood for, and how often.

    `vectors()` [V, D] = sum / max(usage, 1e-5), made on first use in the sums' dtype.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.sums = nn.Parameter(torch.zeros(size, width))
        self.usage = nn.Parameter(torch.ones(size))
        self._vectors: Tensor | None = None

    def vectors(self) -> Tensor:
        """The codebook itself, [V, D]."""
        if self._vectors is None or self._vectors.device != self.sums.device:
            self._vectors = self.sums / self.usage.clamp(min=USAGE_FLOOR)[:, None]
        return self._vectors

    def nearest(self, x: Tensor) -> Tensor:
        """Index [...] of the row nearest to each x [..., D] by Euclidean distance."""
        # Parity: cdist changes its formula at 25 rows, so near ties fall as in the original only when
        # as many rows are asked for at once.
        distance = torch.cdist(x.reshape(1, -1, x.shape[-1]), self.vectors()[None], p=2)[0]
        return distance.argmin(dim=-1).view(x.shape[:-1])


class ResidualCodebooks(nn.Module):
    """Codebooks that each describe what the earlier ones left over. Source: arXiv 2107.03312."""

    def __init__(self, count: int, size: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(RunningCodebook(size, width) for _ in range(count))

    def _codebooks(self, count: int | None = None) -> list[RunningCodebook]:
        return [layer for layer in self.layers if isinstance(layer, RunningCodebook)][:count]

    def decode(self, tokens: Tensor) -> Tensor:
        """Sum [B, T, D] of the vectors that tokens [B, T, K] name."""
        total: Tensor | None = None
        for index, layer in enumerate(self._codebooks()):
            vector = layer.vectors()[tokens[..., index]]
            total = vector if total is None else total + vector
        assert total is not None
        return total

    def encode(self, x: Tensor, count: int | None = None) -> Tensor:
        """Tokens [B, T, K] of x [B, T, D]; only the first `count` codebooks when given."""
        tokens = []
        for layer in self._codebooks(count):
            chosen = layer.nearest(x)
            x = x - layer.vectors()[chosen]
            tokens.append(chosen)
        return torch.stack(tokens, dim=-1)
