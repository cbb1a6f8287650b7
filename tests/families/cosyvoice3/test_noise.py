"""Noise by frame: stable under any way of asking, and the original's constructor noise from its recipe."""

import hashlib
from dataclasses import replace

import pytest
import torch

from sonant.errors import GenerationError
from sonant.families.cosyvoice3.noise import GivenNoise, ReferenceNoise, SeededNoise


def digest(tensor):
    return hashlib.sha256(tensor.contiguous().numpy().tobytes())


@pytest.mark.parametrize("kind", [lambda c: SeededNoise(c, 5), ReferenceNoise])
def test_noise_does_not_depend_on_how_it_is_asked_for(shared_model, kind):
    config = shared_model.config
    whole, pieces = kind(config), kind(config)
    assert torch.equal(whole.flow(130), torch.cat((pieces.flow(30), pieces.flow(130)[:, 30:]), dim=1))
    found = whole.source(0, 120)
    assert torch.equal(found[:4800], pieces.source(0, 10))
    assert torch.equal(found[3 * 480 : 60 * 480], pieces.source(3, 60))
    assert torch.equal(found[58 * 480 :], pieces.source(58, 120))


def test_seeds_differ_and_repeat(shared_model):
    config = shared_model.config
    assert torch.equal(SeededNoise(config, 1).flow(60), SeededNoise(config, 1).flow(60))
    assert not torch.equal(SeededNoise(config, 1).flow(60), SeededNoise(config, 2).flow(60))
    assert SeededNoise(config, 1).source(0, 5).min() >= 0
    assert SeededNoise(config, 1).source(0, 5).max() < 1


def test_a_prompt_may_have_noise_of_its_own_whatever_the_seed(shared_model):
    config = shared_model.config
    one, other = (SeededNoise(config, seed, prompt=70) for seed in (1, 2))
    assert torch.equal(one.flow(120)[:, :70], other.flow(120)[:, :70])
    assert torch.equal(one.flow(120)[:, 70:], SeededNoise(config, 1).flow(120)[:, 70:])
    assert not torch.equal(one.flow(120)[:, 70:], other.flow(120)[:, 70:])
    assert torch.equal(one.flow(60), one.flow(120)[:, :60])


def test_reference_noise_at_official_sizes_has_the_recorded_hashes(shared_model):
    """First 16 hex digits of SHA-256 over the original's whole buffers, on torch's CPU generator."""
    config = shared_model.config
    config = replace(
        config,
        flow=replace(config.flow, speech_tokens=6561),
        vocoder=replace(config.vocoder, f0_channels=512),
    )
    noise = ReferenceNoise(config)
    assert digest(noise.flow(15_000)).hexdigest()[:16] == "584a26e6eaad9444"
    assert digest(noise.start_phases).hexdigest()[:16] == "7dd3ebf888575a25"
    state = hashlib.sha256()
    for start in range(0, 15_000, 500):
        state.update(noise.source(start, start + 500).contiguous().numpy().tobytes())
    assert state.hexdigest()[:16] == "2f60f92217f65e9f"


def test_global_random_state_is_untouched(shared_model):
    before = torch.get_rng_state()
    ReferenceNoise(shared_model.config).source(0, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_that_ends_too_early_is_an_error(shared_model):
    config = shared_model.config
    with pytest.raises(GenerationError, match="300 s"):
        ReferenceNoise(config).flow(15_001)
    with pytest.raises(GenerationError, match="recorded noise"):
        GivenNoise(config, torch.zeros(80, 4), torch.zeros(0, 9)).flow(5)
