"""Checks of the GPT: prefix, prefill, every cached step, the latent pass, and the searches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sonant.families.indextts2 import gpt as gpt_module
from sonant.families.indextts2.search import (
    SearchSettings,
    keep_typical,
    make_search,
)
from sonant.families.indextts2.vocabulary import language_row
from sonant.nn.cache import KVCache
from sonant.nn.sampling import keep_top_k, keep_top_p, penalise_repetition
from sonant.nn.tap import tap_scope
from sonant.parity.kit import KitReport
from sonant.parity.kits.indextts2.folder import TOLERANCES, Kit, finite, recorded

T = TOLERANCES


def new_cache(kit: Kit, rows: int, positions: int) -> KVCache:
    """A cache of the kit's own size."""
    model = kit.model
    model.allocate(rows, positions)
    return model.cache


@dataclass(frozen=True, eq=False)
class Spoken:
    """The recorded utterance that `gpt_decode` and `sampling` share."""

    latents: Tensor
    emotion: Tensor
    ids: list[int]
    language: int | None
    prefix: Tensor
    pads: int
    """Rows that the original pads on the left; they are masked there and do not exist here."""


def spoken(kit: Kit) -> Spoken:
    """Built from the recorded speaker latents, emotion vector and ids."""
    tensors, gpt = kit.tensors("gpt_decode"), kit.model.parts.gpt
    latents = (tensors if "spk_latent" in tensors else kit.tensors("gpt_cond"))[_latents_key(tensors)][0]
    vector = tensors["emovec"][0]
    ids = [int(value) for value in tensors["text_ids"][0]]
    language = int(tensors["lang_id"]) if "lang_id" in tensors else None
    with torch.inference_mode():
        prefix = gpt.prefix(latents, vector, ids, language)
    pads = gpt.prefix_length(latents, ids) - prefix.shape[0]
    return Spoken(latents, vector, ids, language, prefix, pads)


def _latents_key(tensors: Mapping[str, Tensor]) -> str:
    return "spk_latent" if "spk_latent" in tensors else "spk_latents"


def _padded(rows: Tensor, pads: int) -> Tensor:
    return torch.nn.functional.pad(rows, (0, 0, pads, 0))[None]


def _mask(length: int, pads: int) -> Tensor:
    mask = torch.ones(1, length, dtype=torch.long)
    mask[:, :pads] = 0
    return mask


def check_prefix(kit: Kit, report: KitReport) -> None:
    """Conditioning rows, text rows, the history of the repetition penalty, and the padded case."""
    tensors = kit.tensors("gpt_decode")
    if not tensors:
        return
    case, gpt, said = "gpt_decode", kit.model.parts.gpt, spoken(kit)
    with torch.inference_mode():
        rows = gpt.conditions(said.latents, said.emotion)[None]
        report.close(case, "conds_latent", rows, tensors["conds_latent"], T["spk_latents"])
        followers = gpt.speaker.followers()
    for index, row in enumerate(reversed(followers)):
        if f"speed_emb_{index}" in tensors:
            report.close(case, f"speed_emb_{index}", row[None], tensors[f"speed_emb_{index}"], 0)
    padded = _padded(said.prefix, said.pads)
    report.close(case, "prefix_embeds", padded, tensors["prefix_embeds"], T["spk_latents"])
    length = gpt.prefix_length(said.latents, said.ids)
    settings = _settings(kit, beams=1, greedy=True, limit=1, settings={})
    history = make_search(settings, length).history
    report.equal(case, "prefix_ids", history, tensors["prefix_ids"])
    report.equal(case, "attention_mask", _mask(length + 1, said.pads), tensors["attention_mask"])
    if "pad_text_ids" in tensors:
        ids = [int(value) for value in tensors["pad_text_ids"][0]]
        with torch.inference_mode():
            prefix = gpt.prefix(said.latents, said.emotion, ids, said.language)
        length = gpt.prefix_length(said.latents, ids)
        pads = length - prefix.shape[0]
        padded = _padded(prefix, pads)
        report.close(case, "pad_prefix_embeds", padded, tensors["pad_prefix_embeds"], T["spk_latents"])
        report.equal(case, "pad_attention_mask", _mask(length + 1, pads), tensors["pad_attention_mask"])
    if gpt.languages is not None:
        _check_languages(kit, report, said, tensors)


def _check_languages(kit: Kit, report: KitReport, said: Spoken, tensors: Mapping[str, Tensor]) -> None:
    """IndexTTS-2.5: what is dropped of the ids, and the row of each language on the text."""
    case, gpt = "gpt_decode", kit.model.parts.gpt
    assert gpt.languages is not None
    kept = gpt.spoken_ids(said.ids)
    report.equal(case, "kept_ids", kept, [int(value) for value in tensors["kept_ids"][0]])
    report.equal(case, "padding", said.pads, int(tensors["padding"]))
    report.close(case, "lang_row", gpt.languages.weight[said.language][None], tensors["lang_row"], 0)
    with torch.inference_mode():
        latents = gpt.speaker(torch.zeros(0), tensors["style"])[None]
    report.close(case, "spk_latent", latents, tensors["spk_latent"], T["spk_latent"])
    for key in tensors:
        if found := re.match(r"prefix_embeds_([a-z]+)$", key):
            expected = tensors[key]
            with torch.inference_mode():
                rows = gpt.prefix(said.latents, said.emotion, said.ids, language_row(found[1]))
            head = _padded(rows, said.pads)[:, : expected.shape[1]]
            report.close(case, key, head, expected, T["spk_latents"])


def check_decode(kit: Kit, report: KitReport) -> None:
    """Prefill and every cached step: teacher-forced, free, and against the pass without a cache."""
    tensors = kit.tensors("gpt_decode")
    if not tensors:
        return
    gpt, said = kit.model.parts.gpt, spoken(kit)
    tokens = [int(value) for value in tensors["greedy_tokens"][0]]
    steps = len(tokens)
    cache = new_cache(kit, 1, said.prefix.shape[0] + steps + 1)
    forced: list[Tensor] = []
    with torch.inference_mode(), recorded() as seen:
        for step in range(steps):
            with tap_scope(f"step{step}."):
                if step == 0:
                    forced.append(gpt.prefill(said.prefix, cache.rows([0], said.prefix.shape[0] + 1)))
                else:
                    code = torch.tensor([tokens[step - 1]])
                    forced.append(gpt.step(code, [step], cache.rows([0], 1)))
            _check_step(report, step, tensors, seen, forced[-1], cache.lengths[0], said.pads)
    if "prefill_logits_all" in tensors:
        with torch.inference_mode():
            logits = gpt.code_head(seen["step0.gpt.final_norm"][0])
        expected = tensors["prefill_logits_all"][:, said.pads :]
        report.close("gpt_decode", "prefill_logits_all", logits, expected, T["logits"])
    for key, storage in (("past_k_last_layer0", cache.keys), ("past_v_last_layer0", cache.values)):
        if key in tensors:
            found = storage[0][:1, :, : cache.lengths[0]]
            report.close("gpt_decode", key, found, tensors[key][:, :, said.pads :], T["logits"])
    _check_free(kit, report, said, tokens, torch.cat(forced))
    if "latent" in tensors:
        with torch.inference_mode():
            codes = tensors["latent_codes"][0]
            latent = gpt.latents(said.latents, said.emotion, said.ids, codes)
        report.close("gpt_decode", "latent", latent, tensors["latent"], T["latent"])


def _check_step(
    report: KitReport,
    step: int,
    tensors: Mapping[str, Tensor],
    seen: dict[str, list[Tensor]],
    logits: Tensor,
    length: int,
    pads: int,
) -> None:
    case = f"gpt_decode step {step}"
    position = gpt_module.cached_code_position(step)
    report.equal(case, "mel position used", position, int(tensors["mel_position_used"][step]))
    for key in tensors:
        found = re.match(rf"step{step}_(?:h(\d+)_(\w+)|(ln_f|final_norm))$", key)
        if found:
            stage = f"gpt.h.{found[1]}.{found[2]}" if found[1] is not None else f"gpt.{found[3]}"
            expected = tensors[key] if step else tensors[key][:, pads:]
            report.close(case, key, seen[f"step{step}.{stage}"][0], expected, T["logits"])
    report.close(case, "logits", logits[0], tensors["greedy_logits"][step], T["logits"])
    report.equal(case, "cache length", length + pads, int(tensors["cache_lengths"][step]))


def _check_free(kit: Kit, report: KitReport, said: Spoken, tokens: list[int], forced: Tensor) -> None:
    """Free decoding chooses the recorded codes; both equal the uncached pass at every step."""
    gpt, stop = kit.model.parts.gpt, kit.model.parts.config.gpt.stop_mel_token
    cache = new_cache(kit, 1, said.prefix.shape[0] + len(tokens) + 1)
    free: list[Tensor] = []
    chosen: list[int] = []
    with torch.inference_mode():
        for step in range(len(tokens)):
            if step == 0:
                logits = gpt.prefill(said.prefix, cache.rows([0], said.prefix.shape[0] + 1))
            else:
                logits = gpt.step(torch.tensor(chosen[-1:]), [step], cache.rows([0], 1))
            free.append(logits)
            allowed = logits[0].clone()
            allowed[stop] = float("-inf")  # the recording left the stop code out
            chosen.append(int(allowed.argmax()))
        full = gpt.full_logits(said.prefix, tokens[:-1])
    report.equal("gpt_decode free", "greedy_tokens", chosen, tokens)
    for step in range(len(tokens)):
        case = f"gpt_decode step {step}"
        report.close(case, "teacher-forced = uncached", forced[step], full[step], T["logits"])
        report.close(case, "free = uncached", free[step][0], full[step], T["logits"])


# -- searches ---------------------------------------------------------------------------------------


def _settings(kit: Kit, *, beams: int, greedy: bool, limit: int, settings: dict[str, Any]) -> SearchSettings:
    gpt = kit.model.parts.config.gpt
    return SearchSettings(
        beams=beams,
        greedy=greedy,
        temperature=settings.get("temperature", 1.0),
        top_k=settings.get("top_k", 0),
        top_p=settings.get("top_p", 1.0),
        repetition_penalty=settings.get("repetition_penalty", 1.0),
        length_penalty=settings.get("length_penalty", 0.0),
        early_stopping=settings.get("early_stopping", False),
        limit=limit,
        stop=gpt.stop_mel_token,
        start=gpt.start_mel_token,
    )


@dataclass(frozen=True, eq=False)
class _Searched:
    codes: list[int]
    logits: Tensor
    scores: Tensor
    search: Any


def _search(kit: Kit, said: Spoken, settings: SearchSettings, seed: int) -> _Searched:
    """One utterance decoded as the model does it, with everything the kit records."""
    gpt = kit.model.parts.gpt
    length = gpt.prefix_length(said.latents, said.ids)
    search = make_search(settings, length)
    slots = list(range(settings.beams))
    cache = new_cache(kit, settings.beams, said.prefix.shape[0] + settings.limit + 2)
    rng = torch.Generator().manual_seed(seed)
    seen: list[Tensor] = []
    with torch.inference_mode(), recorded() as taps:
        logits = gpt.prefill(said.prefix, cache.rows([0], said.prefix.shape[0] + 1))
        cache.reorder(slots, [0] * len(slots))
        logits = logits.expand(len(slots), -1)
        for step in range(1, settings.limit + 2):
            seen.append(logits)
            turn = search.advance(logits, rng)
            if turn is None:
                break
            cache.reorder(slots, turn.sources)
            rows = cache.rows(slots, 1)
            logits = gpt.step(torch.tensor(turn.codes), [step] * len(slots), rows)
    return _Searched(search.result, torch.stack(seen), torch.stack(taps["search.scores"]), search)


def check_sampling(kit: Kit, report: KitReport) -> None:
    """Greedy, beams and seeded sampling: codes exactly, logits and scores of every step."""
    tensors, data = kit.tensors("sampling"), kit.data("sampling")
    if not tensors or data is None:
        return
    said = spoken(kit)
    for key in tensors:
        found = re.match(r"(greedy|sample|truncated)_b(\d+)_codes$", key)
        if not found:
            continue
        expected = tensors[key]
        case, kind, beams = f"sampling {key.removesuffix('_codes')}", found[1], int(found[2])
        with report.section(case):
            codes = [int(code) for code in expected[0]]
            limit = len(codes) if kind == "truncated" else int(data["max_generate_length"])
            settings = _settings(
                kit, beams=beams, greedy=kind != "sample", limit=limit, settings=data["settings"]
            )
            made = _search(kit, said, settings, int(data["seed"]))
            report.equal(case, "codes", made.codes, codes)
            _check_search(report, case, key.removesuffix("_codes"), tensors, made)
    _check_extra(kit, report, tensors, said)
    _check_processors(report, tensors, data)


def _check_search(
    report: KitReport, case: str, stem: str, tensors: Mapping[str, Tensor], made: _Searched
) -> None:
    if f"{stem}_logits" in tensors:
        expected = tensors[f"{stem}_logits"]
        report.equal(case, "steps", len(made.logits), len(expected))
        report.close(case, "logits of every step", made.logits, expected, T["logits"])
        scores = finite(made.scores)
        recorded_scores = tensors[f"{stem}_scores"]
        removed, kept = scores <= -1e38, recorded_scores > -1e38
        report.equal(case, "removed scores", removed, ~kept)
        # a penalty of 10 makes a log-probability ten times larger, and its rounding with it
        report.close(case, "scores of every step", scores[kept], recorded_scores[kept], T["logits"])
    if f"{stem}_sequence_score" in tensors:
        found = torch.tensor([made.search.score])
        report.close(case, "sequence_score", found, tensors[f"{stem}_sequence_score"], T["logits"])
    if f"{stem}_beam_indices" in tensors:
        rows = [int(row) for row in tensors[f"{stem}_beam_indices"][0] if row >= 0]
        report.equal(case, "beam_indices", list(made.search.trail), rows)


# How the kit describes its further searches; the file does not repeat the settings.
EXTRA: dict[str, tuple[int, dict[str, Any]]] = {
    "extra_b1_norep_codes": (1, {"repetition_penalty": 1.0}),
    "extra_b4_es_codes": (4, {"repetition_penalty": 2.0, "early_stopping": True}),
    "extra_lp1_b3_codes": (3, {"repetition_penalty": 1.3, "length_penalty": 1.0}),
}
EXTRA_LIMIT = 40  # codes at most in the further searches


def _check_extra(kit: Kit, report: KitReport, tensors: Mapping[str, Tensor], said: Spoken) -> None:
    for key in tensors:
        if not key.startswith("extra_"):
            continue
        expected = tensors[key]
        case = f"sampling {key.removesuffix('_codes')}"
        with report.section(case):
            beams, given = EXTRA[key]
            codes = [int(code) for code in expected[0]]
            limit = max(EXTRA_LIMIT, len(codes))
            made = _search(
                kit, said, _settings(kit, beams=beams, greedy=True, limit=limit, settings=given), 0
            )
            report.equal(case, "codes", made.codes, codes)


def _check_processors(report: KitReport, tensors: Mapping[str, Tensor], data: Any) -> None:
    """Each filter on the recorded logits, one after the other."""
    given = data["settings"]
    for key in tensors:
        found = re.match(r"proc_b(\d+)_logits$", key)
        if not found:
            continue
        beams, case = int(found[1]), f"sampling processors b{found[1]}"
        at_least = 2 if beams > 1 else 1
        history = tensors[f"proc_b{beams}_history"]
        scores = tensors[key].log_softmax(dim=-1) if beams > 1 else tensors[key]
        names = sorted(name for name in tensors if re.match(rf"proc_b{beams}_\d+_", name))
        applied = [name.split("_", 3)[3] for name in names]
        named = data.get("processors", {}).get(f"sample_b{beams}", applied)
        report.equal(case, "order", applied, named)
        for name in names:
            if "RepetitionPenalty" in name:
                rows = zip(scores, history, strict=True)
                penalty = given["repetition_penalty"]
                scores = torch.stack([penalise_repetition(row, seen, penalty) for row, seen in rows])
            elif "Temperature" in name:
                scores = scores / given["temperature"]
            elif "TopK" in name:
                scores = keep_top_k(scores, given["top_k"], at_least=at_least)
            elif "TopP" in name:
                scores = keep_top_p(scores, given["top_p"], at_least=at_least)
            expected = tensors[name]
            kept = expected > -1e38
            report.equal(case, f"{name} removed", torch.isneginf(scores), ~kept)
            report.close(case, name, scores[kept], expected[kept], T["logits"])
    for name in tensors:
        found = re.match(r"typical_mass([\d.]+)_keep(\d+)$", name)
        if found:
            expected = tensors[name]
            scores = keep_typical(tensors["typical_logits"], float(found[1]), at_least=int(found[2]))
            kept = expected > -1e38
            report.equal("sampling typical", f"{name} removed", torch.isneginf(scores), ~kept)
            report.close("sampling typical", name, scores[kept], expected[kept], 0)
