"""Searches against recorded codes, and each filter against recorded scores."""

import json
import re

import pytest
import torch

from sonant.families.indextts2.search import (
    BeamSearch,
    SearchSettings,
    SingleSearch,
    filter_scores,
    keep_typical,
    make_search,
)
from sonant.nn.sampling import keep_top_k, keep_top_p, penalise_repetition
from tests.families.indextts2.conftest import DATA, recorded

CODES = recorded("sampling")
NOTES = json.loads((DATA / "sampling.json").read_text(encoding="utf-8"))
GPT = recorded("gpt_decode")
EXTRA = {
    "extra_b1_norep": (1, {"repetition_penalty": 1.0}),
    "extra_b4_es": (4, {"repetition_penalty": 2.0, "early_stopping": True}),
    "extra_lp1_b3": (3, {"repetition_penalty": 1.3, "length_penalty": 1.0}),
}


def settings(beams, *, greedy=True, limit=40, stop=65, start=64, **given):
    return SearchSettings(
        **{
            "beams": beams,
            "greedy": greedy,
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "repetition_penalty": 1.0,
            "length_penalty": 0.0,
            "limit": limit,
            "stop": stop,
            "start": start,
            **given,
        }
    )


def search(model, chosen, seed=0):
    """Codes of the recorded utterance under these settings."""
    gpt = model.parts.gpt
    latents, ids = recorded("gpt_cond")["spk_latents"][0], GPT["text_ids"][0].tolist()
    rng = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        prefix = gpt.prefix(latents, GPT["emovec"][0], ids)
        found = make_search(chosen, gpt.prefix_length(latents, ids))
        model.allocate(chosen.beams, prefix.shape[0] + chosen.limit + 1)
        slots = list(range(chosen.beams))
        logits = gpt.prefill(prefix, model.cache.rows([0], prefix.shape[0] + 1))
        model.cache.reorder(slots, [0] * chosen.beams)
        logits, step = logits.expand(chosen.beams, -1), 0
        while (turn := found.advance(logits, rng)) is not None:
            step += 1
            model.cache.reorder(slots, turn.sources)
            rows = model.cache.rows(slots, 1)
            logits = gpt.step(torch.tensor(turn.codes), [step] * chosen.beams, rows)
    return found


RECORDED = [key for key in CODES if re.match(r"(greedy|sample|truncated)_b\d_codes", key)]


@pytest.mark.parametrize("key", RECORDED)
def test_recorded_codes(model, key):
    kind, beams = key.split("_")[0], int(key.split("_")[1][1:])
    expected = CODES[key][0].tolist()
    limit = len(expected) if kind == "truncated" else NOTES["max_generate_length"]
    chosen = settings(beams, greedy=kind != "sample", limit=limit, **NOTES["settings"])
    found = search(model, chosen, NOTES["seed"])
    assert found.result == expected
    trail = CODES.get(key.replace("codes", "beam_indices"))
    if trail is not None:
        assert list(found.trail) == [row for row in trail[0].tolist() if row >= 0]
        score = CODES[key.replace("codes", "sequence_score")].item()
        assert found.score == pytest.approx(score, abs=2e-4)


@pytest.mark.parametrize("key", EXTRA)
def test_recorded_codes_of_further_settings(model, key):
    beams, given = EXTRA[key]
    assert search(model, settings(beams, **given)).result == CODES[f"{key}_codes"][0].tolist()


@pytest.mark.parametrize("beams", [1, 3])
def test_recorded_scores_of_each_filter(beams):
    at_least = 2 if beams > 1 else 1
    scores, history = CODES[f"proc_b{beams}_logits"], CODES[f"proc_b{beams}_history"]
    given = NOTES["settings"]
    if beams > 1:
        scores = scores.log_softmax(dim=-1)
    steps = {
        "0_RepetitionPenaltyLogitsProcessor": lambda s: torch.stack(
            [penalise_repetition(r, h, given["repetition_penalty"]) for r, h in zip(s, history, strict=True)]
        ),
        "1_TemperatureLogitsWarper": lambda s: s / given["temperature"],
        "2_TopKLogitsWarper": lambda s: keep_top_k(s, given["top_k"], at_least=at_least),
        "3_TopPLogitsWarper": lambda s: keep_top_p(s, given["top_p"], at_least=at_least),
    }
    start = scores
    for name, apply in steps.items():
        scores = apply(scores)
        expected = CODES[f"proc_b{beams}_{name}"]
        assert torch.equal(torch.isneginf(scores), expected < -1e38), name
        kept = expected > -1e38
        assert torch.allclose(scores[kept], expected[kept], atol=2e-5, rtol=0), name
    together = filter_scores(start, history, settings(beams, greedy=False, **given))
    assert torch.equal(together, scores)


@pytest.mark.parametrize(("mass", "keep"), [("0.9", 1), ("0.5", 2)])
def test_recorded_typical_filter(mass, keep):
    expected = CODES[f"typical_mass{mass}_keep{keep}"]
    found = keep_typical(CODES["typical_logits"], float(mass), at_least=keep)
    assert torch.equal(torch.isneginf(found), expected < -1e38)
    assert torch.equal(found[expected > -1e38], expected[expected > -1e38])


def test_the_start_code_can_be_masked():
    logits = torch.zeros(1, 6)
    logits[0, 4] = 9.0
    rng = torch.Generator()
    plain = SingleSearch(settings(1, stop=5, start=4, limit=1), 3)
    assert plain.advance(logits, rng) is None
    assert plain.result == [4]
    masked = SingleSearch(settings(1, stop=5, start=4, limit=1, mask_start=True), 3)
    masked.advance(logits, rng)
    assert masked.result != [4]


def test_code_one_and_the_start_code_are_penalised_from_the_first_step():
    found = SingleSearch(settings(1, repetition_penalty=10.0, stop=5, start=4), 3)
    scores = filter_scores(torch.ones(1, 6), found.history, found.settings)
    assert scores[0].tolist() == pytest.approx([1, 0.1, 1, 1, 0.1, 1])


def test_a_stop_ranked_below_the_beams_ends_nothing():
    found = BeamSearch(settings(2, stop=3, start=4, limit=9), 1)
    turn = found.advance(torch.tensor([[3.0, 2.0, 1.0, 0.0, -9.0]] * 2), torch.Generator())
    assert turn.codes == [0, 1]
    assert turn.sources == [0, 0]
    assert not found.kept
