"""Codec decoder: tokens [B, T, K] at 12.5 Hz -> waveform [B, S] at 24 kHz, in pieces of any length.

    tokens -> codebook vectors -> causal conv -> windowed transformer -> 2 x (x2 upsampling, ConvNeXt)
        -> conv -> 4 x (Snake, transposed conv, 3 residual units) -> Snake -> conv -> clamp

Every layer is causal, so a state holds what the next piece needs: each convolution's last inputs, and the
transformer's keys and values within its window. Pieces joined equal one decode of everything.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sonant.families.qwen3_tts.config import CodecDecoderConfig
from sonant.nn.cache import Rows, WindowRows
from sonant.nn.channel_last import ConvNeXt, Pasts, TimeConv, TimeConvTranspose
from sonant.nn.native_conv import native_products
from sonant.nn.quantize import ResidualCodebooks, RunningCodebook
from sonant.nn.snake import SnakeBeta
from sonant.nn.tap import tap
from sonant.nn.transformer import Decoder, DecoderConfig

# Frames of one pass: bounds the memory of a long decode, and moves no sample beyond rounding.
BLOCK = 32

# The original decodes this many frames at a time, each chunk after this many earlier frames.
CHUNK_FRAMES = 300
CHUNK_CONTEXT = 25


@dataclass(frozen=True, eq=False)
class CodecState:
    """What the decoder remembers between two pieces. Never changed in place, so it can be kept."""

    pasts: list[Tensor]
    keys_and_values: list[tuple[Tensor, Tensor]]
    frames: int


class SplitQuantizer(nn.Module):
    """The first codebooks ("semantic") and the rest ("acoustic"), each with its own projection.

    forward: tokens [B, T, K] -> [B, T, codebook_dim].
    """

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        inner = config.codebook_dim // 2  # the width of the stored vectors
        self.split = config.semantic_quantizers
        self.semantic = ResidualCodebooks(self.split, config.codebook_size, inner)
        self.semantic_out = TimeConv(inner, config.codebook_dim, 1, bias=False)
        self.acoustic = ResidualCodebooks(config.quantizers - self.split, config.codebook_size, inner)
        self.acoustic_out = TimeConv(inner, config.codebook_dim, 1, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        semantic, _ = self.semantic_out(self.semantic.decode(tokens[..., : self.split]))
        semantic = tap("codec.quantizer.semantic", semantic)
        acoustic, _ = self.acoustic_out(self.acoustic.decode(tokens[..., self.split :]))
        acoustic = tap("codec.quantizer.acoustic", acoustic)
        return tap("codec.quantizer.out", semantic + acoustic)


class PreTransformer(nn.Module):
    """Linear, windowed decoder stack, linear."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.input_proj = nn.Linear(config.latent_dim, config.width)
        self.stack = Decoder(config.decoder, "codec.pre_transformer")
        self.output_proj = nn.Linear(config.width, config.latent_dim)

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        return tap("codec.pre_transformer.out", self.output_proj(self.stack(self.input_proj(x), rows=rows)))


class ResidualUnit(nn.Module):
    """x + conv1x1(snake(conv7(snake(x)))), the 7-tap convolution dilated."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.act1 = SnakeBeta(width, channels_last=True)
        self.conv1 = TimeConv(width, width, 7, dilation=dilation)
        self.act2 = SnakeBeta(width, channels_last=True)
        self.conv2 = TimeConv(width, width, 1)

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, past = self.conv1(x, past, before=self.act1)
        y, _ = self.conv2(y, before=self.act2, residual=x)
        return y, past


class UpBlock(nn.Module):
    """Snake, transposed convolution by `rate`, three residual units with dilations 1, 3, 9."""

    def __init__(self, inner: int, outer: int, rate: int, name: str) -> None:
        super().__init__()
        self._taps = (f"{name}.up", *(f"{name}.unit.{unit}" for unit in range(3)))
        self.block = nn.ModuleList(
            [
                SnakeBeta(inner, channels_last=True),
                TimeConvTranspose(inner, outer, 2 * rate, rate),
                *(ResidualUnit(outer, dilation) for dilation in (1, 3, 9)),
            ]
        )

    def stream(self, x: Tensor, pasts: Pasts) -> Tensor:
        """x [B, T, C] -> [B, T * rate, C / 2]."""
        before, up, *units = self.block
        x = tap(self._taps[0], pasts.run(up, x, before=before))
        for unit, name in zip(units, self._taps[1:], strict=True):
            x = tap(name, pasts.run(unit, x))
        return x


class CodecDecoder(nn.Module):
    """The whole decoder.

    forward: tokens [B, T, K], state or None -> waveform [B, T * samples_per_frame], state.
    """

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stack_config: DecoderConfig = config.decoder
        self.quantizer = SplitQuantizer(config)
        self._narrow: torch.dtype | None = None
        self.pre_conv: nn.Module = TimeConv(config.codebook_dim, config.latent_dim, 3)
        self.pre_transformer = PreTransformer(config)
        latent = config.latent_dim
        self.upsample = nn.ModuleList(
            nn.ModuleList([TimeConvTranspose(latent, latent, ratio, ratio), ConvNeXt(latent)])
            for ratio in config.upsampling_ratios
        )
        widths = [config.decoder_dim // 2**index for index in range(len(config.upsample_rates) + 1)]
        self.decoder = nn.ModuleList(
            [
                TimeConv(latent, widths[0], 7),
                *(
                    UpBlock(inner, outer, rate, f"codec.decoder.{index}")
                    for index, (inner, outer, rate) in enumerate(
                        zip(widths[:-1], widths[1:], config.upsample_rates, strict=True), 1
                    )
                ),
                SnakeBeta(widths[-1], channels_last=True),
                TimeConv(widths[-1], 1, 7),
            ]
        )

    def forward(self, tokens: Tensor, state: CodecState | None = None) -> tuple[Tensor, CodecState]:
        start = 0 if state is None else state.frames
        pasts = Pasts(None if state is None else state.pasts)
        rows = WindowRows(
            None if state is None else state.keys_and_values,
            start=start,
            new=tokens.shape[1],
            window=self.config.sliding_window,
            like=self.like,
        )
        waveform = self.through(tokens, pasts, rows)
        return waveform, CodecState(pasts.new, rows.new, start + tokens.shape[1])

    def through(self, tokens: Tensor, pasts: Pasts, rows: Rows) -> Tensor:
        """Waveform [B, T * samples_per_frame] of tokens [B, T, K]; pasts and rows take up the new state."""
        x = self.quantizer(tap("codec.tokens", tokens))
        x = tap("codec.pre_conv.out", pasts.run(self.pre_conv, x))
        x = self.pre_transformer(x, rows)
        x = x if self._narrow is None else x.to(self._narrow)
        for index, stage in enumerate(self.upsample):
            assert isinstance(stage, nn.ModuleList)
            x = tap(f"codec.upsample.{index}.up", pasts.run(stage[0], x))
            x = tap(f"codec.upsample.{index}.out", pasts.run(stage[1], x))
        last = len(self.decoder) - 1
        for index, layer in enumerate(self.decoder):
            if isinstance(layer, UpBlock):
                x = layer.stream(x, pasts)
            elif isinstance(layer, SnakeBeta):
                x = layer(x)
            else:
                x = pasts.run(layer, x)
            if index < last:
                x = tap(f"codec.decoder.{index}.out", x)
        waveform = tap("codec.wav_unclamped", x[..., 0].to(self.like.dtype))
        return tap("codec.wav", waveform.clamp(-1, 1))

    @property
    def like(self) -> Tensor:
        """A weight that tells the device, and the dtype of the waveform."""
        first = self.quantizer.semantic.layers[0]
        assert isinstance(first, RunningCodebook)
        return first.sums

    def narrow(self, dtype: torch.dtype) -> None:
        """Run the upsampling half in `dtype`; codebooks and transformer stay as they are."""
        self.upsample.to(dtype)
        self.decoder.to(dtype)
        self._narrow = dtype

    def use_native(self, library: ctypes.CDLL, *, narrow: bool) -> None:
        """Run every matrix product in C; `narrow`: those of the upsampling half on bfloat16 inputs."""
        first = nn.ModuleList([self.pre_conv])
        for part in (self.quantizer, first, self.pre_transformer):
            native_products(part, library)
        self.pre_conv = first[0]
        for part in (self.upsample, self.decoder):
            native_products(part, library, narrow=narrow)

    def blocks(self, tokens: Tensor, state: CodecState | None) -> Iterator[tuple[Tensor, CodecState]]:
        """Waveform and state after each block of tokens [B, T, K], at most BLOCK frames a block."""
        for start in range(0, tokens.shape[1], BLOCK):
            waveform, state = self(tokens[:, start : start + BLOCK], state)
            yield waveform, state

    def decode(self, tokens: Tensor) -> Tensor:
        """The waveform [S] of all tokens [T, K], as if decoded in one pass."""
        pieces = [waveform[0] for waveform, _ in self.blocks(tokens[None], None)]
        return torch.cat(pieces) if pieces else torch.zeros(0, device=tokens.device)

    def decode_in_chunks(
        self, tokens: Tensor, *, chunk: int = CHUNK_FRAMES, context: int = CHUNK_CONTEXT
    ) -> Tensor:
        """The waveform [S] of tokens [T, K] as the original's public decode makes it.

        Each chunk is decoded anew with up to `context` frames before it. Parity: beyond the first chunk
        this differs from the exact decode, since the context is shorter than the attention window.
        """
        pieces = []
        for start in range(0, tokens.shape[0], chunk):
            lead = context if start > context else start
            waveform, _ = self(tokens[None, start - lead : start + chunk])
            pieces.append(waveform[0, lead * self.config.samples_per_frame :])
        return torch.cat(pieces) if pieces else torch.zeros(0, device=tokens.device)
