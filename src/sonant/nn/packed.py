"""Float32 linear layers whose weights lie as oneDNN's kernels read them, for x86 processors.

The same products as `nn.Linear`, in another order of summation. torch multiplies a few rows by MKL, which
reads weights at 4 to 14 GB/s; oneDNN on reordered weights reads them as fast as the memory gives them, and
is a third faster with hundreds of rows (measured on two cores of an AMD EPYC of the Zen 4 kind). Reordering
once, at loading, is what makes the difference: torch alone would do it in every call.
"""

from __future__ import annotations

import platform
from functools import cache

import torch
from torch import Tensor, nn

from sonant.nn.mapped import give_back, works

WORTH = 1 << 18
"""Weights of fewer entries (1 MiB) stay as they are: they fit in a core's own cache."""


@cache
def is_available() -> bool:
    """True where torch has oneDNN and the operators that its own compiler calls for such layers."""
    found = platform.machine() in ("x86_64", "AMD64") and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    operators = ("_linear_pointwise", "_reorder_linear_weight")
    return bool(found) and all(hasattr(torch.ops.mkldnn, name) for name in operators)


class PackedLinear(nn.Module):
    """Stands in for a float32 `nn.Linear` on the CPU; `rows` is how many rows its inputs mostly have."""

    def __init__(self, linear: nn.Linear, *, rows: int) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        # Plain attributes: an opaque tensor is neither moved nor saved.
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), rows)
        self.bias = None if linear.bias is None else linear.bias.detach().clone()
        give_back(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")

    def plain(self) -> nn.Linear:
        """The layer it was made from."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        layer.weight = nn.Parameter(self.packed.to_dense(), requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias, requires_grad=False)
        return layer


def packed(linear: nn.Module, *, rows: int) -> nn.Module:
    """The layer in packed form, or itself where that is not worth it or not possible."""
    if type(linear) is not nn.Linear:
        return linear
    weight = linear.weight
    fits = weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.numel() >= WORTH
    return PackedLinear(linear, rows=rows) if fits and is_available() else linear


def pack(module: nn.Module, *, rows: int) -> None:
    """Replace the linear layers inside a module by packed ones, wherever `packed` would."""
    for parent in module.modules():
        for name, child in list(parent.named_children()):
            setattr(parent, name, packed(child, rows=rows))


def let_go(network: nn.Module) -> None:
    """Copy what was not packed, so that the weight file it is mapped from gives its memory back.

    Tables of embeddings stay mapped where pages can be given back one by one: only the rows that are read
    then take memory.
    """
    if not any(isinstance(part, PackedLinear) for part in network.modules()):
        return
    tables = {id(part.weight) for part in network.modules() if isinstance(part, nn.Embedding)}
    for tensor in (*network.parameters(), *network.buffers()):
        if id(tensor) in tables and works():
            give_back(tensor.data)
            continue
        mapped = tensor.data
        tensor.data = mapped.clone()
        give_back(mapped)
