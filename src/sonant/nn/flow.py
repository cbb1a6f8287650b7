"""Conditional flow matching: time schedules, classifier-free guidance and the explicit Euler solver.

Source: flow matching, arXiv 2210.02747; guidance, arXiv 2207.12598. CosyVoice3 takes 10 cosine steps,
IndexTTS2 25 linear ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor, int], Tensor]
"""velocity(x [B, M, T], t [], step) -> dx/dt [B, M, T]; step counts from 0."""


def linear_times(steps: int) -> Tensor:
    """Even times 0..1, [steps + 1], float32."""
    return torch.linspace(0, 1, steps + 1)


def cosine_times(steps: int) -> Tensor:
    """Times 1 - cos(i / steps * pi / 2), [steps + 1], float32: short steps first, where noise is."""
    # Parity: this order of the factors is the originals'; another one moves the last bit.
    return 1 - torch.cos(linear_times(steps) * 0.5 * torch.pi)


def guided(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """(1 + guidance) * conditional - guidance * unconditional; guidance 0 is the conditional alone."""
    return (1.0 + guidance) * conditional - guidance * unconditional


def solve_euler(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Data at `times[-1]`, by explicit Euler from `noise` at `times[0]`.

    noise [B, M, T]; times [steps + 1], increasing in 0..1, on the device of the noise; returns [B, M, T].
    Entries that must stay as they are (a prompt) have zero velocity.
    """
    x = noise
    t, dt = times[0], times[1] - times[0]
    for step in range(len(times) - 1):
        x = x + dt * velocity(x, t, step)
        # Parity: time is accumulated and the next step measured from it, as the originals do, so the
        # last step ends on the schedule whatever was rounded on the way.
        t = t + dt
        if step + 2 < len(times):
            dt = times[step + 2] - t
    return x
