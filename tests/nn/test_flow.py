"""The Euler solver, its schedules and guidance."""

import torch

from sonant.nn.flow import cosine_times, guided, linear_times, solve_euler


def test_schedules_start_at_zero_end_at_one_and_increase():
    for times in (linear_times(25), cosine_times(10)):
        assert times[0] == 0
        assert abs(times[-1] - 1) < 1e-6
        assert (times.diff() > 0).all()
    assert torch.allclose(linear_times(4), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))


def test_cosine_schedule_equals_its_closed_form():
    i = torch.arange(11, dtype=torch.float64)
    expected = 1 - torch.cos(i / 10 * torch.pi / 2)
    assert torch.allclose(cosine_times(10).double(), expected, atol=1e-7, rtol=0)


def test_constant_velocity_is_integrated_exactly_and_zero_velocity_changes_nothing():
    noise = torch.arange(6.0).reshape(1, 2, 3)
    moved = solve_euler(lambda x, t, step: torch.ones_like(x), noise, cosine_times(10))
    assert torch.allclose(moved, noise + 1, atol=1e-6)
    assert torch.equal(solve_euler(lambda x, t, step: torch.zeros_like(x), noise, linear_times(3)), noise)


def test_one_euler_step_is_noise_plus_velocity():
    noise = torch.full((1, 1, 1), 2.0)
    assert solve_euler(lambda x, t, step: 3 * x, noise, linear_times(1)).item() == 8


def test_velocity_sees_the_steps_in_order_with_their_times():
    seen = []

    def velocity(x, t, step):
        seen.append((step, round(float(t), 6)))
        return x

    solve_euler(velocity, torch.zeros(1, 1, 1), linear_times(4))
    assert seen == [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75)]


def test_guidance_extrapolates_away_from_the_unconditional():
    a, b = torch.tensor([3.0]), torch.tensor([1.0])
    assert guided(a, b, 0.0).item() == 3
    assert guided(a, b, 0.5).item() == 4
