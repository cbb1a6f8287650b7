"""w2v-bert-2.0's encoder, and the filter-bank features it reads.

    waveform [S] at 16 kHz -> features [T, 160] at 50 Hz -> hidden states [1, T, D] after each layer

A conformer with half-step feed-forwards, relative-key attention and causal convolutions. IndexTTS2 uses
the output of the 17th layer. Tap names: w2v.features, w2v.hidden.{i}.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.errors import RequestError
from sonant.families.indextts2.config import W2vBertConfig
from sonant.nn.conv import CausalConv1d
from sonant.nn.tap import tap

SEMANTIC_LAYER = 17  # hidden_states[17]: index 0 enters layer 0. Source: the original's get_emb
FRAME, HOP, FFT = 400, 160, 512  # 25 ms, 10 ms at 16 kHz. Source: SeamlessM4T's feature extractor
MEL_BINS, MEL_LOW, MEL_HIGH = 80, 20.0, 8000.0
PREEMPHASIS = 0.97
MEL_FLOOR = 1.192092955078125e-07
PADDING = 1.0  # what an odd last frame is paired with. Source: its preprocessor_config.json
STRIDE = 2
Values = npt.NDArray[np.float64]


def _mel(hz: Values) -> Values:
    return 1127.0 * np.log(1.0 + hz / 700.0)


@lru_cache(maxsize=1)
def _filters() -> Values:
    """Triangles [M, 257] that are straight in Kaldi's mel."""
    low, high = _mel(np.array([MEL_LOW, MEL_HIGH]))
    edges = np.linspace(float(low), float(high), MEL_BINS + 2)
    bins = _mel(16_000 / FFT * np.arange(FFT // 2 + 1, dtype=np.float64))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)).T


def seamless_features(waveform: Tensor) -> tuple[Tensor, Tensor]:
    """Features [ceil(T / 2), 160] of waveform [S] at 16 kHz, and which of them are whole [ceil(T / 2)].

    Kaldi log filter banks of the signal in int16 range, each bin brought to zero mean and unit variance
    over the clip, two neighbouring frames stacked.

    Parity: empty bands hold nothing but rounding noise, which the normalisation makes as loud as speech.
    So the roundings are the original's: float64 with a spectrum cut to complex64, float32 statistics
    summed along contiguous bins. Bit equal to the recordings, where a plain float32 version is 1e-5 off
    here and 2.5e-4 off behind the encoder, on an 8 kHz file.
    """
    if waveform.shape[0] < FRAME + HOP:
        raise RequestError(
            f"the reference audio has {waveform.shape[0] / 16000:.3f} s; expected at least 0.1 s. "
            "Give a longer clip."
        )
    scaled = waveform.cpu().float().numpy() * np.float32(2**15)
    frames = np.lib.stride_tricks.sliding_window_view(scaled, FRAME)[::HOP].astype(np.float64)  # [T, FRAME]
    frames -= frames.mean(axis=1, keepdims=True)
    frames[:, 1:] -= PREEMPHASIS * frames[:, :-1]
    frames[:, 0] *= 1 - PREEMPHASIS
    spectrum = np.fft.rfft(frames * np.power(np.hanning(FRAME), 0.85), n=FFT).astype(np.complex64)
    energy = np.abs(spectrum, dtype=np.float64) ** 2.0  # [T, 257]
    bank = np.log(np.maximum(MEL_FLOOR, _filters() @ energy.T)).astype(np.float32)  # [M, T]
    mean = bank.mean(axis=1, keepdims=True)
    deviation = np.sqrt(bank.var(axis=1, ddof=1, keepdims=True) + 1e-7)
    features = torch.from_numpy(((bank - mean) / deviation).T.copy())  # [T, M]
    whole = torch.ones(features.shape[0], dtype=torch.bool)
    if features.shape[0] % STRIDE:
        features = F.pad(features, (0, 0, 0, 1), value=PADDING)
        whole = F.pad(whole, (0, 1), value=False)
    stacked = features.reshape(features.shape[0] // STRIDE, STRIDE * MEL_BINS).to(waveform.device)
    return tap("w2v.features", stacked), whole[STRIDE - 1 :: STRIDE].to(waveform.device)


class FeedForward(nn.Module):
    """Linear, SiLU, Linear."""

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_dense(F.silu(self.intermediate_dense(x)))


class RelativeAttention(nn.Module):
    """Self-attention with a learned key for each clamped distance. Source: arXiv 1803.02155.

    forward: x [B, T, D], bias [B, 1, 1, T] (a large negative number where masked) -> [B, T, D]
    """

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads, self.head_dim = config.num_attention_heads, width // config.num_attention_heads
        self.left, self.right = config.left_max_position_embeddings, config.right_max_position_embeddings
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.distance_embedding = nn.Embedding(self.left + self.right + 1, self.head_dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, self.head_dim)
        query = self.linear_q(x).view(shape).transpose(1, 2)  # [B, H, T, head_dim]
        key = self.linear_k(x).view(shape).transpose(1, 2)
        value = self.linear_v(x).view(shape).transpose(1, 2)
        steps = torch.arange(length, device=x.device)
        distance = (steps[None] - steps[:, None]).clamp(-self.left, self.right) + self.left  # [T, T]
        # One product with all distances, then a lookup: the same numbers as a key for every pair.
        by_distance = query @ self.distance_embedding.weight.T  # [B, H, T, left + right + 1]
        relative = by_distance.gather(-1, distance.expand(batch, self.heads, length, length))
        root = math.sqrt(self.head_dim)
        scores = query @ key.transpose(-1, -2) / root + relative / root + bias
        out = scores.softmax(dim=-1) @ value
        return self.linear_out(out.transpose(1, 2).reshape(batch, length, width))


class ConvolutionModule(nn.Module):
    """Norm, pointwise with gate, causal depthwise, norm, SiLU, pointwise: x [B, T, D] -> [B, T, D]."""

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        width, kernel = config.hidden_size, config.conv_depthwise_kernel_size
        self.layer_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1, bias=False)
        self.depthwise_conv = CausalConv1d(width, width, kernel, groups=width, bias=False)
        self.depthwise_layer_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.pointwise_conv2 = nn.Conv1d(width, width, 1, bias=False)

    def forward(self, x: Tensor, whole: Tensor) -> Tensor:
        x = self.layer_norm(x).masked_fill(~whole[..., None], 0.0)
        x = F.glu(self.pointwise_conv1(x.transpose(1, 2)), dim=1)
        x, _ = self.depthwise_conv(x)
        x = F.silu(self.depthwise_layer_norm(x.transpose(1, 2)))
        return self.pointwise_conv2(x.transpose(1, 2)).transpose(1, 2)


class ConformerLayer(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, norm."""

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.ffn1_layer_norm = nn.LayerNorm(width, eps)
        self.ffn1 = FeedForward(config)
        self.self_attn_layer_norm = nn.LayerNorm(width, eps)
        self.self_attn = RelativeAttention(config)
        self.conv_module = ConvolutionModule(config)
        self.ffn2_layer_norm = nn.LayerNorm(width, eps)
        self.ffn2 = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(width, eps)

    def forward(self, x: Tensor, bias: Tensor, whole: Tensor) -> Tensor:
        x = x + 0.5 * self.ffn1(self.ffn1_layer_norm(x))
        x = x + self.self_attn(self.self_attn_layer_norm(x), bias)
        x = x + self.conv_module(x, whole)
        x = x + 0.5 * self.ffn2(self.ffn2_layer_norm(x))
        return self.final_layer_norm(x)


class FeatureProjection(nn.Module):
    """Norm and Linear: features [B, T, 160] -> [B, T, D]."""

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.feature_projection_input_dim, config.layer_norm_eps)
        self.projection = nn.Linear(config.feature_projection_input_dim, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.layer_norm(x))


class W2vBert(nn.Module):
    """The encoder up to `layers` layers.

    forward: features [B, T, 160], whole [B, T] bool -> the hidden state after the last of them [B, T, D].
    """

    def __init__(self, config: W2vBertConfig, layers: int = SEMANTIC_LAYER) -> None:
        super().__init__()
        self.feature_projection = FeatureProjection(config)
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(layers))

    def forward(self, features: Tensor, whole: Tensor) -> Tensor:
        x = self.feature_projection(features).masked_fill(~whole[..., None], 0.0)
        bias = torch.zeros_like(whole, dtype=x.dtype).masked_fill(~whole, torch.finfo(x.dtype).min)
        bias = bias[:, None, None, :]
        x = tap("w2v.hidden.0", x)
        for index, layer in enumerate(self.layers):
            x = tap(f"w2v.hidden.{index + 1}", layer(x, bias, whole))
        return x
