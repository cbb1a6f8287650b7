"""Rotations of adjacent pairs: however the channels lie, the same numbers."""

import torch

from sonant.nn.rope import rope_table, rotate_interleaved


def test_pairs_that_lie_like_complex_numbers_are_rotated_as_others_are():
    rng = torch.Generator().manual_seed(0)
    fused = torch.randn(2, 7, 3 * 24, generator=rng)
    cos, sin = rope_table(torch.arange(7), 8, 10_000.0)
    for part in fused.chunk(3, dim=-1):
        x = part.view(2, 7, 3, 8).transpose(1, 2)
        spread = torch.stack((x, x), dim=-1)[..., 0]  # channels two apart: the way of every device
        assert spread.stride(-1) == 2
        found = rotate_interleaved(x, cos, sin)
        assert found.shape == x.shape
        assert (found - rotate_interleaved(spread, cos, sin)).abs().max() <= 1e-6
        exact = torch.stack(
            (
                x.double()[..., 0::2] * cos.double() - x.double()[..., 1::2] * sin.double(),
                x.double()[..., 1::2] * cos.double() + x.double()[..., 0::2] * sin.double(),
            ),
            dim=-1,
        ).flatten(-2)
        assert (found - exact).abs().max() <= 1e-6
    odd = torch.randn(1, 15, generator=rng)[:, 1:9].expand(7, 8)
    assert rotate_interleaved(odd, cos, sin).shape == (7, 8)
