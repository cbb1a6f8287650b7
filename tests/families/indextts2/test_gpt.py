"""The GPT against the recording of the original: prefix, every cached step, latent pass, positions."""

import shutil

import pytest
import torch

from sonant.families.indextts2 import gpt as gpt_module
from sonant.nn.cache import KVCache
from sonant.parity.kit import KitReport
from sonant.parity.kits.indextts2 import listen, speak
from sonant.parity.kits.indextts2.folder import IndexKit
from tests.families.indextts2.conftest import DATA, recorded

GPT = recorded("gpt_decode")
TOKENS = GPT["greedy_tokens"][0].tolist()


@pytest.fixture(scope="module")
def gpt(loaded):
    return loaded.parts.gpt


@pytest.fixture(scope="module")
def latents():
    return recorded("gpt_cond")["spk_latents"][0]


@pytest.fixture(scope="module")
def prefix(gpt, latents):
    with torch.inference_mode():
        return gpt.prefix(latents, GPT["emovec"][0], GPT["text_ids"][0].tolist())


def cache_for(gpt, rows, positions):
    c = gpt.config
    return KVCache(
        layers=c.layers,
        slots=rows,
        heads=c.heads,
        head_dim=c.model_dim // c.heads,
        capacity=positions,
        dtype=gpt.dtype,
    )


def decode(gpt, prefix, tokens, *, free):
    """Logits [n, V] and cache lengths of cached decoding, fed with `tokens` or with its own choices."""
    cache = cache_for(gpt, 1, prefix.shape[0] + len(tokens) + 1)
    logits, lengths = [], []
    with torch.inference_mode():
        for step in range(len(tokens)):
            if step == 0:
                logits.append(gpt.prefill(prefix, cache.rows([0], prefix.shape[0] + 1))[0])
            else:
                last = logits[-1].clone()
                last[gpt.config.stop_mel_token] = float("-inf")
                code = int(last.argmax()) if free else tokens[step - 1]
                logits.append(gpt.step(torch.tensor([code]), [step], cache.rows([0], 1))[0])
            lengths.append(cache.lengths[0])
    return torch.stack(logits), lengths


def test_prefix_is_the_recorded_one(gpt, prefix, latents):
    assert torch.allclose(prefix[None], GPT["prefix_embeds"], atol=5e-5, rtol=0)
    with torch.inference_mode():
        rows = gpt.conditions(latents, GPT["emovec"][0])
    assert torch.allclose(rows[None], GPT["conds_latent"], atol=5e-5, rtol=0)


def test_marks_inside_the_text_become_padding_on_the_left(gpt, latents):
    ids = GPT["pad_text_ids"][0].tolist()
    with torch.inference_mode():
        prefix = gpt.prefix(latents, GPT["emovec"][0], ids)
    pads = gpt.prefix_length(latents, ids) - prefix.shape[0]
    assert pads == 2
    assert torch.allclose(prefix, GPT["pad_prefix_embeds"][0, pads:], atol=5e-5, rtol=0)
    assert not GPT["pad_prefix_embeds"][0, :pads].any()


@pytest.mark.parametrize("free", [False, True], ids=["teacher-forced", "free"])
def test_cached_steps_equal_the_recording_and_the_uncached_pass(gpt, prefix, free):
    logits, lengths = decode(gpt, prefix, TOKENS, free=free)
    assert len(TOKENS) >= 8
    with torch.inference_mode():
        full = gpt.full_logits(prefix, TOKENS[:-1])
    for step in range(len(TOKENS)):
        assert torch.allclose(logits[step], GPT["greedy_logits"][step], atol=2e-4, rtol=0), step
        assert torch.allclose(logits[step], full[step], atol=2e-4, rtol=0), step
    assert lengths == GPT["cache_lengths"].tolist()
    stop = gpt.config.stop_mel_token
    logits[:, stop] = float("-inf")
    assert logits.argmax(dim=-1).tolist() == TOKENS


def test_positions_skip_the_second_row_while_decoding():
    used = [gpt_module.cached_code_position(index) for index in range(len(TOKENS))]
    assert used == GPT["mel_position_used"].tolist()
    assert used[:3] == [0, 2, 3]


def test_latent_pass_counts_every_position(gpt, latents):
    codes = GPT["latent_codes"][0]
    with torch.inference_mode():
        found = gpt.latents(latents, GPT["emovec"][0], GPT["text_ids"][0].tolist(), codes)
    assert torch.allclose(found, GPT["latent"], atol=5e-5, rtol=0)


def test_rows_of_different_age_step_together(gpt, prefix):
    alone, _ = decode(gpt, prefix, TOKENS, free=False)
    cache = cache_for(gpt, 2, prefix.shape[0] + 8)
    with torch.inference_mode():
        gpt.prefill(prefix, cache.rows([0], prefix.shape[0] + 1))
        gpt.step(torch.tensor(TOKENS[:1]), [1], cache.rows([0], 1))
        gpt.prefill(prefix, cache.rows([1], prefix.shape[0] + 1))
        both = gpt.step(torch.tensor([TOKENS[1], TOKENS[0]]), [2, 1], cache.rows([0, 1], 1))
    assert torch.allclose(both[0], alone[2], atol=2e-5, rtol=0)
    assert torch.allclose(both[1], alone[1], atol=2e-5, rtol=0)


@pytest.fixture(scope="module")
def small_kit(checkpoint, tmp_path_factory):
    """A kit folder with the recorded GPT only."""
    folder = tmp_path_factory.mktemp("kit")
    (folder / "fixtures").mkdir()
    (folder / "checkpoint").symlink_to(checkpoint)
    for name in ("gpt_decode", "gpt_cond"):
        shutil.copy(DATA / f"{name}.safetensors", folder / "fixtures")
    return IndexKit(folder, KitReport(print))


def failures(kit, *checks):
    lines = []
    kit.report = KitReport(lines.append)
    for check in checks:
        check(kit)
    assert kit.report.passed > 20
    return [line for line in lines if line.startswith("FAIL")]


def test_the_parity_report_passes(small_kit):
    assert not failures(small_kit, listen.check_conditioning, speak.check_prefix, speak.check_decode)


def test_consecutive_positions_are_caught_and_named_at_step_one(small_kit, monkeypatch):
    monkeypatch.setattr(gpt_module, "cached_code_position", lambda index: index)
    failed = failures(small_kit, speak.check_decode)
    assert "gpt_decode step 1 " in failed[0]
    assert "mel position used" in failed[0]
    logits = [line for line in failed if " logits " in line]
    assert "gpt_decode step 1 " in logits[0]
    assert not any("step 0 " in line for line in failed)
    assert not any("cache length" in line for line in failed)  # the lengths still agree: the old trap


def test_a_missing_second_norm_is_caught_at_step_zero(small_kit, monkeypatch):
    norm = small_kit.model.parts.gpt.final_norm
    monkeypatch.setattr(norm, "forward", lambda x: x)
    failed = failures(small_kit, speak.check_decode)
    assert "gpt_decode step 0 " in failed[0]
    assert "final_norm" in failed[0]
