"""Narrow weights for the autoregressive networks on a CPU: int8, int4, or bfloat16 as published.

int8 and int4 weights are quantised symmetrically by groups along the input axis, activations by the same
groups on the fly: to int8, or to 16 bits in two planes of int8, which cost a step next to nothing, because
its time goes into reading weights. `PlainLinear` states the arithmetic in torch; `NativeLinear` and
`NativeDecoder` run the same in C (src/sonant/native/stack.c). Both stand in for `nn.Linear` and
`nn.transformer.Decoder`.

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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.nn.cache import CacheRows, KVCache
from sonant.nn.mapped import give_back, trim
from sonant.nn.rope import rope_table
from sonant.nn.tap import tap
from sonant.nn.transformer import Decoder, DecoderLayer

log = logging.getLogger(__name__)

TILE = 64
"""Output rows that the C kernel takes together."""
BLOCK = 64
"""Tokens of one call into C; longer prefills go in blocks of this size."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How weights are stored: 12, 8 or 4 bits by groups of `group` inputs with a scale each; 16 is bfloat16.

    Activations that meet 12, 8 or 4 bits have `planes` times 8 bits.
    """

    bits: int
    group: int = 1
    planes: int = 1

    @property
    def is_lossless(self) -> bool:
        """True when weights keep the value they have in the checkpoint."""
        return self.bits == 16


LOSSLESS = Precision(bits=16)
INT8 = Precision(bits=8, group=64, planes=2)
INT12 = Precision(bits=12, group=64, planes=2)
INT4 = Precision(bits=4, group=32)
PRECISIONS: Mapping[str, Precision] = {"lossless": LOSSLESS, "int8": INT8, "int4": INT4}


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


def quantize_weight(weight: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    """Codes [N, K] int16 and scales [N, G] of a weight [N, K]; the last group may be shorter.

    int8: scale = largest magnitude / 127. int4: scale = the entry of largest magnitude / -8, so that
    all sixteen levels are used. Scales are bfloat16 numbers, rounded away from zero. 12 bits: the code of
    int8 times 16, plus what is left of the weight in -8 .. 7 sixteenths of that scale.
    """
    grouped = _grouped(weight.float(), precision.group)
    place = grouped.abs().argmax(dim=-1, keepdim=True)
    peak = grouped.gather(-1, place)
    scale = peak / -8 if precision.bits == 4 else peak.abs() / 127
    scale = torch.where(scale == 0, torch.full_like(scale, 1e-12), scale)
    scale = ((scale.contiguous().view(torch.int32) + 0xFFFF) & -0x10000).view(torch.float32)
    low, high = (-8, 7) if precision.bits == 4 else (-127, 127)
    codes = (grouped / scale).round().clamp(low, high)
    if precision.bits == 12:
        rest = ((grouped - codes * scale) / scale * 16).round().clamp(-8, 7)
        codes, scale = 16 * codes + rest, scale / 16
    return codes.flatten(1)[:, : weight.shape[1]].to(torch.int16), scale[..., 0]


def quantize_activation(x: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    """x [..., K] rounded to codes by groups and back to float: what the kernel multiplies with.

    Codes reach 127 in one plane of int8, 127 * 256 in two. The second tensor is the first plane alone.
    """
    grouped = _grouped(x.float(), precision.group)
    scale = grouped.abs().amax(dim=-1, keepdim=True) / (127 if precision.planes == 1 else 127 * 256)
    scale = scale.clamp_min(1e-30)
    codes = (grouped / scale).round()
    first = codes if precision.planes == 1 else ((codes + 128) / 256).floor() * 256
    whole, part = ((c * scale).flatten(-2)[..., : x.shape[-1]] for c in (codes, first))
    return whole, part


def _grouped(x: Tensor, group: int) -> Tensor:
    surplus = -x.shape[-1] % group
    padded = F.pad(x, (0, surplus))
    return padded.view(*padded.shape[:-1], -1, group)


class PlainLinear(nn.Module):
    """The quantised linear layer in plain torch, for any size; the reference for the C kernel."""

    def __init__(self, weight: Tensor, bias: Tensor | None, precision: Precision) -> None:
        super().__init__()
        codes, scales = quantize_weight(weight, precision)
        wide = scales.repeat_interleave(precision.group, dim=1)[:, : weight.shape[1]]
        self.precision = precision
        fine = (codes + 8) % 16 - 8 if precision.bits == 12 else None
        self.weight = nn.Parameter((codes if fine is None else codes - fine) * wide, requires_grad=False)
        self.fine = None if fine is None else nn.Parameter(fine * wide, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        whole, first = quantize_activation(x, self.precision)
        y = F.linear(whole, self.weight, self.bias)
        return y if self.fine is None else y + F.linear(first, self.fine)


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
    def of(cls, checkpoint: str, precision: str, form: Precision) -> PackedStore:
        """The file of a checkpoint, by its fingerprint, in the user's cache folder."""
        from sonant.native import cache_folder

        return cls(cache_folder() / "weights" / f"{checkpoint}-{precision}-g{form.group}-v3.safetensors")

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
        """Write the file if anything was packed; without room on the disk only a warning is left."""
        self._found = {}
        if not self._packed:
            return
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        for name, packed in self._packed:
            for part, address, size in zip(
                ("weights", "scales"), packed.addresses(), packed.sizes(), strict=True
            ):
                raw = (ctypes.c_uint8 * size).from_address(address)
                tensors[f"{name}.{part}"] = torch.frombuffer(raw, dtype=torch.uint8)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, part_name = tempfile.mkstemp(dir=self.path.parent, suffix=".part")
        os.close(handle)
        try:
            save_file(tensors, part_name)
            os.replace(part_name, self.path)
        except OSError as error:
            log.warning("quantised weights were not kept in %s: %s", self.path, error)
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
        library.sonant_linear_pack(self.handle, source.data_ptr())
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
        self._library = library
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
        done = self._library.sonant_linear_run(
            packed.handle,
            flat.shape[0],
            flat.data_ptr(),
            None if self.bias is None else self.bias.data_ptr(),
            out.data_ptr(),
            torch.get_num_threads(),
        )
        if not done:
            raise MemoryError(f"no memory for {flat.shape[0]} tokens of {packed.inputs} values")
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
        precision: Precision,
        store: PackedStore | None = None,
    ) -> None:
        super().__init__()
        config = decoder.config
        assert fits(decoder, precision), "sizes were checked by quantize_decoder"
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
        for index, layer in enumerate(decoder.layers):
            self._add(index, layer, precision, f"{name}.layer.{index}", store)
        library.sonant_stack_norm(self.handle, self._pointer(decoder.norm.weight))

    def _add(
        self, index: int, layer: Any, precision: Precision, name: str, store: PackedStore | None
    ) -> None:
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
                precision,
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
        self.library.sonant_stack_layer(
            self.handle,
            index,
            *(matrix.handle for matrix in matrices),
            self._pointer(layer.input_layernorm.weight),
            self._pointer(layer.post_attention_layernorm.weight),
            self._pointer(attention.q_norm.weight) if has_norm else None,
            self._pointer(attention.k_norm.weight) if has_norm else None,
            bias,
        )

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
            self.library.sonant_stack_run(
                self.handle,
                min(BLOCK, count - start),
                flat.data_ptr() + 4 * width * start,
                ctypes.addressof(slots) + 4 * start,
                ctypes.addressof(places) + 4 * start,
                keys,
                values,
                rows.cache.capacity,
                cos.data_ptr(),
                sin.data_ptr(),
                hidden.data_ptr() + 4 * width * start,
                torch.get_num_threads(),
            )
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
            pointers = ctypes.c_void_p * self.config.layers
            self._storage = (
                pointers(*(keys.data_ptr() for keys in cache.keys)),
                pointers(*(values.data_ptr() for values in cache.values)),
            )
            self._cache = weakref.ref(cache)
        return self._storage


def fits(decoder: Decoder, precision: Precision) -> bool:
    """True when a stack suits the kernel: sizes its tiles and groups, weights a lossless precision."""
    c = decoder.config
    if precision.is_lossless and not all(
        is_bfloat16(module.weight) for module in decoder.modules() if isinstance(module, nn.Linear)
    ):
        return False
    inner, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    return (
        not c.layer_scale
        and c.window is None
        and all(rows % TILE == 0 for rows in (inner + 2 * kv, c.width, c.intermediate))
        and all(inputs % precision.group == 0 for inputs in (c.width, inner, c.intermediate))
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
    decoder: nn.Module, name: str, precision: Precision, *, store: PackedStore | None = None
) -> nn.Module:
    """The stack with narrow weights: in C where its sizes allow it, else layer by layer in torch.

    The torch form changes `decoder` in place and returns it; lossless, it is `decoder` as it was.
    """
    from sonant.native import library

    assert isinstance(decoder, Decoder)
    loaded = library()
    if loaded is not None and fits(decoder, precision):
        return NativeDecoder(loaded, decoder, name, precision, store)
    if precision.is_lossless:
        return decoder
    for layer in decoder.layers:
        assert isinstance(layer, DecoderLayer)
        for owner in (layer.self_attn, layer.mlp):
            for child, module in list(owner.named_children()):
                if isinstance(module, nn.Linear):
                    setattr(owner, child, PlainLinear(module.weight, module.bias, precision))
    return decoder
