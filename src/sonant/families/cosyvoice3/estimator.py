"""The flow's velocity network: a diffusion transformer over mel frames.

    x, mu, cond [B, 80, T] at 50 Hz, speaker [B, 80], time [B] -> velocity [B, 80, T]

Source: the original's `cosyvoice.flow.DiT`; F5-TTS, arXiv 2410.06885. Tap names, in order: time.sinus,
time.embedding, input.projection, input.position, input, block.{n}.norm, .query, .key, .query_rotated,
.key_rotated, .attention, .feed_norm, .feed_forward, block.{n}, norm_out, v.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from sonant.families.cosyvoice3.config import TransformerConfig
from sonant.families.cosyvoice3.past import BlockPast, StepPast
from sonant.nn.conv import CausalConv1d
from sonant.nn.rope import rotate_interleaved
from sonant.nn.tap import tap

NORM_EPS = 1e-6
TIME_WIDTH = 256  # channels of the sinusoidal time embedding
TIME_SCALE = 1000.0
POSITION_KERNEL, POSITION_GROUPS = 31, 16


class TimeEmbedding(nn.Module):
    """time [B] in 0..1 -> [B, D]; the sinusoids stay in float32 (half has steps of 0.5 at 1000 t)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time_mlp = nn.Sequential(nn.Linear(TIME_WIDTH, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        half = TIME_WIDTH // 2
        kind = time.dtype if time.dtype == torch.float64 else torch.float32
        step = torch.log(torch.tensor(10_000.0, dtype=torch.float64)).item() / (half - 1)
        frequency = torch.exp(torch.arange(half, device=time.device, dtype=kind) * -step)
        angle = TIME_SCALE * time.to(kind).unsqueeze(1) * frequency.unsqueeze(0)
        sinus = tap("time.sinus", torch.cat((angle.sin(), angle.cos()), dim=-1))
        kind = next(self.time_mlp.parameters()).dtype
        return tap("time.embedding", self.time_mlp(sinus.to(kind)))


class PositionConvolution(nn.Module):
    """Two causal grouped convolutions that tell a frame what came shortly before, [B, T, D] -> [B, T, D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = self._layer(width)
        self.conv2 = self._layer(width)

    @staticmethod
    def _layer(width: int) -> nn.ModuleList:
        # A list of one, for the checkpoint's name conv1.0.
        return nn.ModuleList([CausalConv1d(width, width, POSITION_KERNEL, groups=POSITION_GROUPS)])

    def forward(self, x: Tensor, before: list[Tensor | None] | None = None) -> Tensor:
        """`before` is what each convolution looks back on, replaced by what the next frames will."""
        before = [None, None] if before is None else before
        x = x.transpose(1, 2)
        for index, layer in enumerate((self.conv1, self.conv2)):
            x, following = layer[0](x, before[index])
            x, before[index] = F.mish(x), following
        # Laid out as every layer behind it reads it; the residual stream would keep the other order.
        return x.transpose(1, 2).contiguous()


class InputEmbedding(nn.Module):
    """x, cond, mu [B, T, M] and speaker [B, M], concatenated in this order -> [B, T, D]."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        inner = 2 * config.mel_dim + config.mu_dim + config.spk_dim
        self.proj = nn.Linear(inner, config.dim)
        self.conv_pos_embed = PositionConvolution(config.dim)

    def forward(
        self, x: Tensor, cond: Tensor, mu: Tensor, speaker: Tensor, past: StepPast | None = None
    ) -> Tensor:
        repeated = speaker[:, None].expand(-1, x.shape[1], -1)
        x = tap("input.projection", self.proj(torch.cat((x, cond, mu, repeated), dim=-1)))
        position = self.conv_pos_embed(x, None if past is None else past.convolved)
        return tap("input", tap("input.position", position) + x)


class Modulation(nn.Module):
    """A linear layer of the activated time embedding: [B, D] -> `parts` tensors [B, 1, D]."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)

    def forward(self, time: Tensor) -> tuple[Tensor, ...]:
        return self.linear(F.silu(time))[:, None].chunk(self.parts, dim=-1)


def modulated_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """LayerNorm without weights, times (1 + scale), plus shift."""
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS) * (1 + scale) + shift


class Attention(nn.Module):
    """Attention over frames. mask [T, N] is True where a query may look; None sees everything.

    With `past` the keys are those kept of earlier frames as well, and new ones are kept.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        inner = config.heads * config.dim_head
        self.heads = config.heads
        self.to_q = nn.Linear(config.dim, inner)
        self.to_k = nn.Linear(config.dim, inner)
        self.to_v = nn.Linear(config.dim, inner)
        self.to_out = nn.Sequential(nn.Linear(inner, config.dim))

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
        name: str,
        past: BlockPast | None = None,
    ) -> Tensor:
        query, key = tap(f"{name}.query", self.to_q(x)), tap(f"{name}.key", self.to_k(x))
        query = tap(f"{name}.query_rotated", rotate_first_head(query, cos, sin))
        key = tap(f"{name}.key_rotated", rotate_first_head(key, cos, sin))
        value = self.to_v(x)
        if past is not None:
            key, value = past.join(key, value)
        query, key, value = (rearrange(y, "b t (h d) -> b h t d", h=self.heads) for y in (query, key, value))
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.to_out(rearrange(out, "b h t d -> b t (h d)"))


def rotate_first_head(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, T, H * D] with its first D channels rotated; cos, sin [T, D / 2].

    Parity: the original rotates before it splits the heads, so only head 0 knows positions.
    """
    width = 2 * cos.shape[-1]
    return torch.cat((rotate_interleaved(x[..., :width], cos, sin), x[..., width:]), dim=-1)


class FeedForward(nn.Module):
    """Linear, GELU by tanh, Linear."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        # Names of the checkpoint: ff.0.0 and ff.2.
        self.ff = nn.Sequential(
            nn.Sequential(nn.Linear(width, inner), nn.GELU(approximate="tanh")),
            nn.Identity(),
            nn.Linear(inner, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.ff(x)


class Block(nn.Module):
    """x += gate * attention(norm(x)); x += gate * feed_forward(norm(x)), both modulated by the time."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attn_norm = Modulation(config.dim, 6)
        self.attn = Attention(config)
        self.ff = FeedForward(config.dim, int(config.dim * config.ff_mult))

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
        name: str,
        past: BlockPast | None = None,
    ) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.attn_norm(time)
        normed = tap(f"{name}.norm", modulated_norm(x, scale_a, shift_a))
        x = x + gate_a * tap(f"{name}.attention", self.attn(normed, cos, sin, mask, name, past))
        normed = tap(f"{name}.feed_norm", modulated_norm(x, scale_m, shift_m))
        branch = tap(f"{name}.feed_forward", self.ff(normed))
        return tap(name, x + gate_m * branch)


class RotaryFrequencies(nn.Module):
    """The checkpoint's own inverse frequencies [D / 2]; tables in float32 whatever the network's type."""

    inv_freq: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", torch.empty(dim // 2))

    def angles(self, positions: Tensor) -> Tensor:
        """Angles [T, D / 2] of positions [T]."""
        kind = torch.float64 if self.inv_freq.dtype == torch.float64 else torch.float32
        return positions.to(kind)[:, None] * self.inv_freq.to(kind)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = self.angles(positions)
        return angles.cos(), angles.sin()


class Estimator(nn.Module):
    """The whole transformer.

    forward: x, mu, cond [B, M, T], speaker [B, M], time [B] -> [B, M, T]. `positions` [T] are frame
    numbers counted from the first prompt frame (gaps allowed); `chunked` limits a frame to its own chunk
    of `static_chunk_size` frames and earlier ones. With `past`, a chunked run on the frames that follow it.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.time_embed = TimeEmbedding(config.dim)
        self.input_embed = InputEmbedding(config)
        self.rotary_embed = RotaryFrequencies(config.dim_head)
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm_out = Modulation(config.dim, 2)
        self.proj_out = nn.Linear(config.dim, config.mel_dim)

    def forward(
        self,
        x: Tensor,
        mu: Tensor,
        cond: Tensor,
        speaker: Tensor,
        time: Tensor,
        positions: Tensor,
        *,
        chunked: bool,
        past: StepPast | None = None,
    ) -> Tensor:
        embedded = self.time_embed(time)
        h = self.input_embed(x.transpose(1, 2), cond.transpose(1, 2), mu.transpose(1, 2), speaker, past)
        cos, sin = self.rotary_embed(positions)
        if past is not None:
            mask = past.mask
        else:
            mask = chunk_mask(positions, self.config.static_chunk_size) if chunked else None
        for index, block in enumerate(self.transformer_blocks):
            kept = None if past is None else past.block(index)
            h = block(h, embedded, cos, sin, mask, f"block.{index}", kept)
        # Parity: scale comes first here, shift first in the blocks.
        scale, shift = self.norm_out(embedded)
        h = tap("norm_out", modulated_norm(h, scale, shift))
        return tap("v", self.proj_out(h).transpose(1, 2))


def chunk_mask(positions: Tensor, chunk: int) -> Tensor:
    """[T, T], True where the frame of the row may see the frame of the column."""
    limit = (positions // chunk + 1) * chunk
    return positions[None, :] < limit[:, None]
