"""Narrow weights for the autoregressive networks on a CPU: int8, int4, or bfloat16 as published.

`nn.precision` states the arithmetic in torch; `NativeLinear` and `NativeDecoder` run the same in C
(src/sonant/native: pack.c, products.c, stack.c). Both stand in for `nn.Linear` and `nn.transformer.Decoder`.

LOSSLESS loses nothing: a weight that is bfloat16 in the checkpoint stays two bytes wide in memory, and is
multiplied and summed in float32. A step is bound by how many bytes of weights it reads, so this is about
twice as fast as float32 weights, and equal to them up to the order of the sums.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.native import check_done
from sonant.nn.cache import CacheRows, KVCache
from sonant.nn.mapped import give_back, trim
from sonant.nn.precision import PlainLinear, Precision, StackPlan, plain_stack
from sonant.nn.rope import rope_table
from sonant.nn.tap import tap
from sonant.nn.transformer import Decoder

log = logging.getLogger(__name__)

TILE = 64
"""Output rows that the C kernel takes together."""
BLOCK = 64
"""Tokens of one call into C; longer prefills go in blocks of this size."""


def stored_bytes(weight: Tensor, precision: Precision) -> int:
    """Bytes of a weight [N, K] once it is stored so, nearly: codes and a two-byte scale for each group.

    `slab_bytes` is what the kernel's memory takes for a sum of these.
    """
    if precision.is_lossless:
        # Values are not read for this: a float32 weight may turn out to be no bfloat16, and then stays wide.
        return weight.numel() * (2 if weight.dtype == torch.bfloat16 else 4)
    return weight.numel() * precision.bits // 8 + 2 * weight.numel() // precision.group


def slab_bytes(stored: int) -> int:
    """Memory that weights of so many bytes take in the kernel: slabs have some room at their ends."""
    return stored + stored // 12 + (64 << 20 if stored >= 64 << 20 else stored)


class PackedStore:
    """Packed weights of one checkpoint on disk, so that they are quantised once.

    Matrices found in the file are copied from it and their float weights are never read; the others are
    packed and remembered until `save` writes the file. A file that cannot be read counts as absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, Tensor] = {}
        self._packed: list[tuple[str, _Packed]] = []
        if path.is_file():
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                self._found = load_file(path)
            except (SafetensorError, OSError, ValueError) as error:
                log.warning("%s is damaged (%s) and will be written anew", path, error)

    @classmethod
    def of(cls, checkpoint: str, precision: str) -> PackedStore:
        """The file of a checkpoint, by its fingerprint, in the user's cache folder."""
        from sonant.native import cache_folder

        return cls(cache_folder() / "weights" / f"{checkpoint}-{precision}-v4.safetensors")

    def fill(self, name: str, packed: _Packed) -> bool:
        """Copy the matrix of this name into the kernel's memory; False when it is not there."""
        parts = [self._found.get(f"{name}.{part}") for part in ("weights", "scales")]
        sizes = packed.sizes()
        if any(p is None or p.nbytes != size for p, size in zip(parts, sizes, strict=True)):
            self._packed.append((name, packed))
            return False
        for part, (address, size) in zip(parts, zip(packed.addresses(), sizes, strict=True), strict=True):
            assert part is not None
            ctypes.memmove(address, part.data_ptr(), size)
            give_back(part)
        return True

    def save(self) -> None:
        """Write the file if anything was packed, with what it held before; without room, or where
        nothing may be written, only a warning is left."""
        if not self._packed:
            self._found = {}
            return
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        tensors, self._found = self._found, {}
        for name, packed in self._packed:
            for part, address, size in zip(
                ("weights", "scales"), packed.addresses(), packed.sizes(), strict=True
            ):
                raw = (ctypes.c_uint8 * size).from_address(address)
                tensors[f"{name}.{part}"] = torch.frombuffer(raw, dtype=torch.uint8)
        part_name: str | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, part_name = tempfile.mkstemp(dir=self.path.parent, suffix=".part")
            os.close(handle)
            save_file(tensors, part_name)
            os.replace(part_name, self.path)
        except (OSError, SafetensorError) as error:
            log.warning("quantised weights were not kept in %s: %s", self.path, error)
            if part_name is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(part_name)
        self._packed = []


class _Packed:
    """One weight matrix in the kernel's own memory, freed with this object.

    `parts` are float matrices whose rows are laid one after the other, `interleave` takes TILE rows of
    each in turn; they are only read when `store` does not hold the packed matrix.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        parts: list[Tensor],
        precision: Precision,
        *,
        interleave: bool = False,
        name: str = "",
        store: PackedStore | None = None,
    ) -> None:
        self.rows, self.inputs = sum(part.shape[0] for part in parts), parts[0].shape[1]
        self.precision = precision
        self._library = library
        self.handle = library.sonant_linear_new(
            self.rows, self.inputs, precision.bits, precision.group, precision.planes
        )
        if not self.handle:
            raise MemoryError(f"no memory for a {self.rows} x {self.inputs} weight")
        if store is not None and store.fill(name, self):
            return
        wide = [part.detach().float() for part in parts]
        if interleave:
            wide = [torch.stack([w.reshape(-1, TILE, self.inputs) for w in wide], dim=1)]
        source = torch.cat([w.reshape(-1, self.inputs) for w in wide]).contiguous()
        check_done(
            library.sonant_linear_pack(self.handle, source.data_ptr()),
            f"packing {list(source.shape)} weights",
        )
        give_back(*parts)

    def addresses(self) -> tuple[int, int]:
        """Where codes and scales lie."""
        return (
            self._library.sonant_linear_weights(self.handle),
            self._library.sonant_linear_scales(self.handle),
        )

    def sizes(self) -> tuple[int, int]:
        """Bytes of codes and of scales."""
        p = self.precision
        return (
            self._library.sonant_weight_bytes(self.rows, self.inputs, p.bits),
            2 * self._library.sonant_scale_count(self.rows, self.inputs, p.bits, p.group),
        )

    def __del__(self) -> None:
        if self.handle:
            self._library.sonant_linear_free(self.handle)


class NativeLinear(nn.Module):
    """The linear layer in C: x [..., K] -> [..., N], float32 in and out."""

    def __init__(
        self,
        library: ctypes.CDLL,
        weight: Tensor,
        bias: Tensor | None,
        precision: Precision,
        *,
        name: str = "",
        store: PackedStore | None = None,
    ) -> None:
        super().__init__()
        self.library = library
        self.out_features, self.in_features = weight.shape
        surplus = -self.out_features % TILE  # rows of zeros fill the last tile
        self._packed = _Packed(
            library, [F.pad(weight, (0, 0, 0, surplus))], precision, name=name, store=store
        )
        self.handle = self._packed.handle
        give_back(weight)
        padded = None if bias is None else F.pad(bias.float(), (0, surplus))
        self.bias = None if padded is None else nn.Parameter(padded, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        packed = self._packed
        flat = x.reshape(-1, packed.inputs).float().contiguous()
        out = torch.empty(flat.shape[0], packed.rows)
        done = self.library.sonant_linear_run(
            packed.handle,
            flat.shape[0],
            flat.data_ptr(),
            None if self.bias is None else self.bias.data_ptr(),
            out.data_ptr(),
            torch.get_num_threads(),
        )
        check_done(done, f"{flat.shape[0]} tokens of {packed.inputs} values")
        return out[:, : self.out_features].reshape(*x.shape[:-1], self.out_features)


class NativeDecoder(nn.Module):
    """`nn.transformer.Decoder` with narrow weights in C; called alike, with cache rows only.

    forward: x [B, T, D], rows -> [B, T, D] float32 after the final norm. The cache stays the caller's.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        decoder: Decoder,
        name: str,
        precision: Precision | StackPlan,
        store: PackedStore | None = None,
        *,
        stored: str = "",
    ) -> None:
        super().__init__()
        config = decoder.config
        plan = precision if isinstance(precision, StackPlan) else StackPlan(rest=precision)
        assert fits(decoder, plan), "sizes were checked by quantize_decoder"
        self.config = config
        self.library = library
        self._norm_tap = f"{name}.norm"
        self._kept: list[Any] = []  # weights and norms that C points to
        self._rope = rope_table(torch.arange(0), config.head_dim, config.rope_theta)
        self._cache: weakref.ref[KVCache] | None = None
        self._storage: tuple[Any, Any] = ((), ())
        self.handle = library.sonant_stack_new(
            config.layers,
            config.width,
            config.heads,
            config.kv_heads,
            config.head_dim,
            config.intermediate,
            config.norm_eps,
            config.rope_theta,
            BLOCK,
        )
        if not self.handle:
            raise MemoryError(f"no memory for a stack of {config.layers} layers of width {config.width}")
        for index, layer in enumerate(decoder.layers):
            self._add(index, layer, plan, f"{stored or name}.layer.{index}", store)
        library.sonant_stack_norm(self.handle, self._pointer(decoder.norm.weight))

    def _add(self, index: int, layer: Any, plan: StackPlan, name: str, store: PackedStore | None) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        bias = None
        if self.config.qkv_bias:
            bias = self._pointer(
                torch.cat([attention.q_proj.bias, attention.k_proj.bias, attention.v_proj.bias])
            )
        projections = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
        matrices = [
            _Packed(
                self.library,
                parts,
                plan.of(index, is_attention=part in {"qkv", "out"}),
                interleave=part == "gate_up",
                name=f"{name}.{part}",
                store=store,
            )
            for part, parts in (
                ("qkv", projections),
                ("out", [attention.o_proj.weight]),
                ("gate_up", [mlp.gate_proj.weight, mlp.up_proj.weight]),
                ("down", [mlp.down_proj.weight]),
            )
        ]
        trim()  # the wide copies that were packed
        self._kept.extend(matrices)
        has_norm = self.config.qk_norm
        done = self.library.sonant_stack_layer(
            self.handle,
            index,
            *(matrix.handle for matrix in matrices),
            self._pointer(layer.input_layernorm.weight),
            self._pointer(layer.post_attention_layernorm.weight),
            self._pointer(attention.q_norm.weight) if has_norm else None,
            self._pointer(attention.k_norm.weight) if has_norm else None,
            bias,
        )
        check_done(done, f"layer {index}")

    def _pointer(self, tensor: Tensor) -> int:
        kept = tensor.detach().float().clone().contiguous()
        self._kept.append(kept)
        return kept.data_ptr()

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.library.sonant_stack_free(self.handle)

    def forward(
        self, x: Tensor, *, rows: CacheRows, positions: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        assert positions is None, "positions follow the cache"
        assert mask is None, "so does the mask"
        batch, length, width = x.shape
        count = batch * length
        integers = ctypes.c_int32 * count
        slots = integers(*(slot for slot in rows.slots for _ in range(length)))
        places = integers(*(start + i for start in rows.starts for i in range(length)))
        keys, values = self.storage(rows.cache)
        cos, sin = self.table(rows.cache.capacity)
        flat = x.reshape(-1, width).float().contiguous()
        hidden = torch.empty_like(flat)
        for start in range(0, count, BLOCK):
            done = self.library.sonant_stack_run(
                self.handle,
                min(BLOCK, count - start),
                flat.data_ptr() + 4 * width * start,
                ctypes.addressof(slots) + 4 * start,
                ctypes.addressof(places) + 4 * start,
                keys,
                values,
                len(rows.cache.lengths),
                rows.cache.capacity,
                cos.data_ptr(),
                sin.data_ptr(),
                len(cos),
                hidden.data_ptr() + 4 * width * start,
                torch.get_num_threads(),
            )
            check_done(done, f"{count} tokens in rows {rows.slots} that end at {rows.total}")
        rows.commit()
        return tap(self._norm_tap, hidden.view(batch, length, width))

    def table(self, capacity: int) -> tuple[Tensor, Tensor]:
        """cos and sin [at least capacity, head_dim / 2] of the positions from 0."""
        if len(self._rope[0]) < capacity:
            self._rope = rope_table(torch.arange(capacity), self.config.head_dim, self.config.rope_theta)
        return self._rope

    def storage(self, cache: KVCache) -> tuple[Any, Any]:
        """Where keys and values of each layer lie; gathered once for a cache."""
        if self._cache is None or self._cache() is not cache:
            self._storage, self._cache = cache.pointers(), weakref.ref(cache)
        return self._storage


def fits(decoder: Decoder, plan: StackPlan) -> bool:
    """True when a stack suits the kernel: sizes its tiles and groups, weights a lossless precision."""
    c = decoder.config
    if plan.is_lossless and not all(
        is_bfloat16(module.weight) for module in decoder.modules() if isinstance(module, nn.Linear)
    ):
        return False
    inner, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    return (
        not c.layer_scale
        and c.window is None
        and all(rows % TILE == 0 for rows in (inner + 2 * kv, c.width, c.intermediate))
        and all(
            inputs % precision.group == 0
            for precision in plan.precisions
            for inputs in (c.width, inner, c.intermediate)
        )
        and c.head_dim % 2 == 0
    )


def is_bfloat16(weight: Tensor) -> bool:
    """True when every value of a weight is a bfloat16 number, whatever its dtype."""
    return weight.dtype == torch.bfloat16 or bool((weight.bfloat16().to(weight.dtype) == weight).all())


def quantize_linear(
    linear: nn.Module, precision: Precision, *, name: str = "", store: PackedStore | None = None
) -> nn.Module:
    """The layer with narrow weights: in C where its sizes allow it, else in torch.

    Lossless, and not possible in C: the layer as it is.
    """
    from sonant.native import library

    assert isinstance(linear, nn.Linear)
    loaded = library()
    if precision.is_lossless and not is_bfloat16(linear.weight):
        return linear
    if loaded is None or linear.in_features % precision.group:
        return linear if precision.is_lossless else PlainLinear(linear.weight, linear.bias, precision)
    return NativeLinear(loaded, linear.weight, linear.bias, precision, name=name, store=store)


def quantize_decoder(
    decoder: nn.Module,
    name: str,
    precision: Precision | StackPlan,
    *,
    store: PackedStore | None = None,
    stored: str = "",
) -> nn.Module:
    """The stack with narrow weights: in C where its sizes allow it, else layer by layer in torch.

    The torch form changes `decoder` in place and returns it; lossless, it is `decoder` as it was. In the
    store its matrices have the name `stored`, if given.
    """
    from sonant.native import library

    assert isinstance(decoder, Decoder)
    plan = precision if isinstance(precision, StackPlan) else StackPlan(rest=precision)
    loaded = library()
    if loaded is not None and fits(decoder, plan):
        return NativeDecoder(loaded, decoder, name, plan, store, stored=stored)
    return plain_stack(decoder, plan)
