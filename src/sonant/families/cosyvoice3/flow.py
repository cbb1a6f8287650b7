"""Speech tokens to mel by conditional flow matching.

    prompt and target tokens [n] at 25 Hz, prompt mel [T, 80], speaker [192] -> target mel [80, T] at 50 Hz

Tap names, in order: flow.spks, flow.token_embedding, flow.lookahead.conv1, flow.lookahead, then for each
solver step i flow.step.{i}.x, .mu, .cond, .spks, .t, those of the estimator, .v; and flow.mel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.families.cosyvoice3.config import FlowConfig
from sonant.families.cosyvoice3.estimator import Estimator
from sonant.families.cosyvoice3.past import FlowPast
from sonant.nn.conv import CausalConv1d
from sonant.nn.flow import cosine_times, guided, linear_times, solve_euler
from sonant.nn.tap import tap, tap_scope


class LookaheadBlock(nn.Module):
    """x += conv3(leaky(conv4(x))): the first convolution sees `lookahead` tokens ahead, the second 2 back.

    forward: x [1, n, D], is_final -> [1, n, D], or [1, n - lookahead, D] when more tokens are to come.
    """

    def __init__(self, width: int, inner: int, lookahead: int) -> None:
        super().__init__()
        self.lookahead = lookahead
        self.conv1 = nn.Conv1d(width, inner, lookahead + 1)
        self.conv2 = CausalConv1d(inner, width, 3)

    def forward(self, x: Tensor, *, is_final: bool) -> Tensor:
        ahead = x.transpose(1, 2)
        if is_final:
            ahead = F.pad(ahead, (0, self.lookahead))
        h = F.leaky_relu(tap("flow.lookahead.conv1", self.conv1(ahead)))
        h, _ = self.conv2(h)
        return h.transpose(1, 2) + x[:, : h.shape[-1]]


class _Decoder(nn.Module):
    """Holds the estimator under the checkpoint's name."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.estimator = Estimator(config.transformer)


@dataclass(frozen=True, eq=False)
class FlowInputs:
    """What the solver needs besides noise: mu, cond [1, M, T], speaker [1, M], positions [T]."""

    mu: Tensor
    cond: Tensor
    speaker: Tensor
    positions: Tensor

    def part(self, keep: Tensor) -> FlowInputs:
        """Only the frames `keep` [n]."""
        return FlowInputs(self.mu[..., keep], self.cond[..., keep], self.speaker, self.positions[keep])


class Flow(nn.Module):
    """Token embedding, look-ahead block and estimator, with the solver around them."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.input_embedding = nn.Embedding(config.speech_tokens, config.mel_bins)
        self.spk_embed_affine_layer = nn.Linear(config.speaker_dim, config.mel_bins)
        self.pre_lookahead_layer = LookaheadBlock(
            config.mel_bins, config.lookahead_channels, config.lookahead
        )
        self.decoder = _Decoder(config)

    def inputs(self, tokens: Tensor, prompt_mel: Tensor, speaker: Tensor, *, is_final: bool) -> FlowInputs:
        """Conditions for tokens [n] (prompt and target), prompt_mel [T, M] and speaker [D].

        Without `is_final` the last `lookahead` tokens only serve as a look ahead.
        """
        weight = self.spk_embed_affine_layer.weight
        speaker = F.normalize(speaker.to(weight)[None], dim=1)
        spks = tap("flow.spks", self.spk_embed_affine_layer(speaker))
        embedded = tap("flow.token_embedding", self.input_embedding(tokens.clamp(min=0))[None])
        h = tap("flow.lookahead", self.pre_lookahead_layer(embedded, is_final=is_final))
        mu = h.repeat_interleave(self.config.frames_per_token, dim=1).transpose(1, 2).contiguous()
        cond = torch.zeros_like(mu)
        known = min(prompt_mel.shape[0], cond.shape[-1])
        cond[0, :, :known] = prompt_mel[:known].to(mu).T
        positions = torch.arange(mu.shape[-1], device=mu.device)
        return FlowInputs(mu, cond, spks, positions)

    def solve(
        self,
        inputs: FlowInputs,
        noise: Tensor,
        *,
        chunked: bool,
        steps: int | None = None,
        guidance: float | None = None,
        past: FlowPast | None = None,
    ) -> Tensor:
        """Mel [M, T] from noise [M, T]: one batch of two, with and without the conditions, for each step.

        With `past`, of frames that follow those solved with it before, under the streaming mask.
        """
        assert chunked or past is None
        if past is not None:
            past.begin(inputs.positions)
        guidance = self.config.guidance if guidance is None else guidance
        schedule = cosine_times if self.config.cosine_times else linear_times
        # Both stay in float32: x and the times are what rounding would spoil first.
        kind = torch.float64 if inputs.mu.dtype == torch.float64 else torch.float32
        times = schedule(steps or self.config.steps).to(device=inputs.mu.device, dtype=kind)
        mu = torch.cat((inputs.mu, torch.zeros_like(inputs.mu)))
        cond = torch.cat((inputs.cond, torch.zeros_like(inputs.cond)))
        spks = torch.cat((inputs.speaker, torch.zeros_like(inputs.speaker)))

        def velocity(x: Tensor, time: Tensor, step: int) -> Tensor:
            with tap_scope(f"flow.step.{step}."):
                both = self.decoder.estimator(
                    tap("x", x.expand(2, -1, -1)).to(mu.dtype),
                    tap("mu", mu),
                    tap("cond", cond),
                    tap("spks", spks),
                    tap("t", time.expand(2)),
                    inputs.positions,
                    chunked=chunked,
                    past=None if past is None else past.step(step),
                ).to(x.dtype)
            return guided(both[:1], both[1:], guidance)

        return solve_euler(velocity, noise[None].to(device=mu.device, dtype=kind), times)[0]

    def forward(
        self,
        prompt_tokens: Tensor,
        tokens: Tensor,
        prompt_mel: Tensor,
        speaker: Tensor,
        noise: Tensor,
        *,
        chunked: bool = False,
        is_final: bool = True,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Tensor:
        """Target mel [M, T]; noise [M, >= frames of prompt and target], read from its first frame."""
        together = torch.cat((prompt_tokens, tokens))
        inputs = self.inputs(together, prompt_mel, speaker, is_final=is_final)
        noise = noise[:, : inputs.mu.shape[-1]]
        mel = self.solve(inputs, noise, chunked=chunked, steps=steps, guidance=guidance)
        return tap("flow.mel", mel[:, prompt_mel.shape[0] :])
