"""Checks of the GPT: prefix, prefill, every cached step, the latent pass, and the searches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sonant.families.indextts2 import gpt as gpt_module
from sonant.families.indextts2.search import SearchSettings, keep_typical, make_search
from sonant.families.indextts2.vocabulary import language_row
from sonant.nn.cache import KVCache
from sonant.nn.sampling import keep_top_k, keep_top_p, penalise_repetition
from sonant.parity.kits.driver import watched
from sonant.parity.kits.indextts2.folder import IndexKit

NEVER = -3e38  # how the kit stores minus infinity


def new_cache(kit: IndexKit, rows: int, positions: int) -> KVCache:
    """A cache of the kit's own size."""
    kit.model.allocate(rows, positions)
    return kit.model.cache


@dataclass(frozen=True, eq=False)
class Recital:
    """The recorded utterance that `gpt_decode` and `sampling` share."""

    latents: Tensor
    emotion: Tensor
    ids: list[int]
    language: int | None
    prefix: Tensor
    pads: int
    """Rows that the original pads on the left; they are masked there and do not exist here."""


def recital(kit: IndexKit) -> Recital:
    """Built from the recorded speaker latents, emotion vector and ids."""
    tensors = kit.tensors("gpt_decode")
    held, key = tensors, "spk_latent"
    if key not in tensors:
        held, key = kit.tensors("gpt_cond"), "spk_latents"
    ids = [int(value) for value in tensors["text_ids"][0]]
    language = int(tensors["lang_id"]) if "lang_id" in tensors else None
    latents, vector = held[key][0], tensors["emovec"][0]
    prefix, pads = _prefix(kit, latents, vector, ids, language)
    return Recital(latents, vector, ids, language, prefix, pads)


@torch.inference_mode()
def _prefix(
    kit: IndexKit, latents: Tensor, vector: Tensor, ids: list[int], language: int | None
) -> tuple[Tensor, int]:
    """The rows [T, D] before the codes, and how many the original has before them."""
    gpt = kit.model.parts.gpt
    rows = gpt.prefix(latents, vector, ids, language)
    return rows, gpt.prefix_length(latents, ids) - rows.shape[0]


def _padded(rows: Tensor, pads: int) -> Tensor:
    return torch.nn.functional.pad(rows, (0, 0, pads, 0))[None]


def _mask(rows: Tensor, pads: int) -> Tensor:
    """The original's mask of a prefix, the start code behind it."""
    mask = torch.ones(1, pads + len(rows) + 1, dtype=torch.long)
    mask[:, :pads] = 0
    return mask


def check_prefix(kit: IndexKit) -> None:
    """Conditioning rows, text rows, the history of the repetition penalty, and the padded case."""
    tensors, report = kit.tensors("gpt_decode"), kit.report
    if not tensors:
        return
    case, gpt, said = "gpt_decode", kit.model.parts.gpt, recital(kit)
    found: dict[str, Any] = {}
    with torch.inference_mode():
        found["conds_latent"] = gpt.conditions(said.latents, said.emotion)[None]
        followers = reversed(gpt.speaker.followers())
        found |= {f"speed_emb_{index}": row[None] for index, row in enumerate(followers)}
    settings = _settings(kit, beams=1, greedy=True, limit=1, settings={})
    found["prefix_ids"] = make_search(settings, gpt.prefix_length(said.latents, said.ids)).history
    found["prefix_embeds"] = _padded(said.prefix, said.pads)
    found["attention_mask"] = _mask(said.prefix, said.pads)
    if "pad_text_ids" in tensors:
        ids = [int(value) for value in tensors["pad_text_ids"][0]]
        rows, pads = _prefix(kit, said.latents, said.emotion, ids, said.language)
        found |= {"pad_prefix_embeds": _padded(rows, pads), "pad_attention_mask": _mask(rows, pads)}
    if gpt.languages is not None:  # IndexTTS-2.5: what is dropped of the ids, and each language's row
        report.equal(case, "kept_ids", gpt.spoken_ids(said.ids), [int(n) for n in tensors["kept_ids"][0]])
        report.equal(case, "padding", said.pads, int(tensors["padding"]))
        found["lang_row"] = gpt.languages.weight[said.language][None]
        with torch.inference_mode():
            found["spk_latent"] = gpt.speaker(torch.zeros(0), tensors["style"])[None]
        for key in tensors:
            if code := re.fullmatch(r"prefix_embeds_([a-z]+)", key):
                row = language_row(code[1])
                found[key] = _padded(*_prefix(kit, said.latents, said.emotion, said.ids, row))
    kit.compare("prefix", case, tensors, found)


def check_decode(kit: IndexKit) -> None:
    """Prefill and every cached step: teacher-forced, free, and against the pass without a cache."""
    tensors, report, limit = kit.tensors("gpt_decode"), kit.report, kit.limits["logits"]
    if not tensors:
        return
    gpt, said = kit.model.parts.gpt, recital(kit)
    tokens = [int(value) for value in tensors["greedy_tokens"][0]]
    cache = new_cache(kit, 1, said.prefix.shape[0] + len(tokens) + 1)
    forced: list[Tensor] = []
    for step in range(len(tokens)):
        case = f"gpt_decode step {step}"
        with watched() as seen:
            forced.append(_logits(kit, cache, said, tokens[step - 1] if step else None, step))
        position = gpt_module.cached_code_position(step)
        report.equal(case, "mel position used", position, int(tensors["mel_position_used"][step]))
        prefix, pads = f"step{step}_", 0 if step else said.pads
        kit.compare("step", case, tensors, seen, prefix=prefix, title=f"{prefix}{{}}", cut=pads)
        report.close(case, "logits", forced[-1][0], tensors["greedy_logits"][step], limit)
        report.equal(case, "cache length", cache.lengths[0] + said.pads, int(tensors["cache_lengths"][step]))
        if step == 0 and "prefill_logits_all" in tensors:
            with torch.inference_mode():
                logits = gpt.code_head(seen["gpt.final_norm"][0])
            expected = tensors["prefill_logits_all"][:, said.pads :]
            report.close("gpt_decode", "prefill_logits_all", logits, expected, limit)
    for key, storage in (("past_k_last_layer0", cache.keys), ("past_v_last_layer0", cache.values)):
        if key in tensors:
            found = storage[0][:1, :, : cache.lengths[0]]
            report.close("gpt_decode", key, found, tensors[key][:, :, said.pads :], limit)
    _check_free(kit, said, tokens, torch.cat(forced))
    if "latent" in tensors:
        with torch.inference_mode():
            latent = gpt.latents(said.latents, said.emotion, said.ids, tensors["latent_codes"][0])
        report.close("gpt_decode", "latent", latent, tensors["latent"], kit.limits["spoken"])


@torch.inference_mode()
def _logits(kit: IndexKit, cache: KVCache, said: Recital, code: int | None, step: int) -> Tensor:
    """Logits [1, V] after the prefix, or after a code at its step."""
    gpt = kit.model.parts.gpt
    if code is None:
        return gpt.prefill(said.prefix, cache.rows([0], said.prefix.shape[0] + 1))
    return gpt.step(torch.tensor([code]), [step], cache.rows([0], 1))


def _check_free(kit: IndexKit, said: Recital, tokens: list[int], forced: Tensor) -> None:
    """Free decoding chooses the recorded codes; both equal the uncached pass at every step."""
    stop, limit = kit.model.parts.config.gpt.stop_mel_token, kit.limits["logits"]
    cache = new_cache(kit, 1, said.prefix.shape[0] + len(tokens) + 1)
    free: list[Tensor] = []
    chosen: list[int] = []
    for step in range(len(tokens)):
        free.append(_logits(kit, cache, said, chosen[-1] if chosen else None, step))
        allowed = free[-1][0].clone()
        allowed[stop] = float("-inf")  # the recording left the stop code out
        chosen.append(int(allowed.argmax()))
    with torch.inference_mode():
        full = kit.model.parts.gpt.full_logits(said.prefix, tokens[:-1])
    kit.report.equal("gpt_decode free", "greedy_tokens", chosen, tokens)
    for step in range(len(tokens)):
        case = f"gpt_decode step {step}"
        kit.report.close(case, "teacher-forced = uncached", forced[step], full[step], limit)
        kit.report.close(case, "free = uncached", free[step][0], full[step], limit)


# -- searches ---------------------------------------------------------------------------------------


def _settings(
    kit: IndexKit, *, beams: int, greedy: bool, limit: int, settings: dict[str, Any]
) -> SearchSettings:
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


def _search(kit: IndexKit, said: Recital, settings: SearchSettings, seed: int) -> _Searched:
    """One utterance decoded as the model does it, with everything the kit records."""
    gpt = kit.model.parts.gpt
    length = gpt.prefix_length(said.latents, said.ids)
    search = make_search(settings, length)
    slots = list(range(settings.beams))
    cache = new_cache(kit, settings.beams, said.prefix.shape[0] + settings.limit + 2)
    rng = torch.Generator().manual_seed(seed)
    seen: list[Tensor] = []
    with watched() as taps:
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


def check_sampling(kit: IndexKit) -> None:
    """Greedy, beams and seeded sampling: codes exactly, logits and scores of every step."""
    tensors, data, report = kit.tensors("sampling"), kit.json("sampling"), kit.report
    if not tensors or data is None:
        return
    said = recital(kit)
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
            _check_search(kit, case, key.removesuffix("_codes"), tensors, made)
    _check_extra(kit, tensors, said)
    _check_filters(kit, tensors, data)


def _check_search(
    kit: IndexKit, case: str, stem: str, tensors: Mapping[str, Tensor], made: _Searched
) -> None:
    report, limit = kit.report, kit.limits["logits"]
    if f"{stem}_logits" in tensors:
        expected = tensors[f"{stem}_logits"]
        report.equal(case, "steps", len(made.logits), len(expected))
        report.close(case, "logits of every step", made.logits, expected, limit)
        scores = made.scores.clamp(min=NEVER)
        recorded_scores = tensors[f"{stem}_scores"]
        removed, kept = scores <= -1e38, recorded_scores > -1e38
        report.equal(case, "removed scores", removed, ~kept)
        # a penalty of 10 makes a log-probability ten times larger, and its rounding with it
        report.close(case, "scores of every step", scores[kept], recorded_scores[kept], limit)
    if f"{stem}_sequence_score" in tensors:
        found = torch.tensor([made.search.score])
        report.close(case, "sequence_score", found, tensors[f"{stem}_sequence_score"], limit)
    if f"{stem}_beam_indices" in tensors:
        rows = [int(row) for row in tensors[f"{stem}_beam_indices"][0] if row >= 0]
        report.equal(case, "beam_indices", list(made.search.trail), rows)


EXTRA_LIMIT = 40  # codes at most in the further searches


def _check_extra(kit: IndexKit, tensors: Mapping[str, Tensor], said: Recital) -> None:
    for key in tensors:
        if not key.startswith("extra_"):
            continue
        expected = tensors[key]
        case = f"sampling {key.removesuffix('_codes')}"
        with kit.report.section(case):
            given = dict(kit.data["searches"][key])
            beams = given.pop("beams")
            codes = [int(code) for code in expected[0]]
            limit = max(EXTRA_LIMIT, len(codes))
            settings = _settings(kit, beams=beams, greedy=True, limit=limit, settings=given)
            made = _search(kit, said, settings, 0)
            kit.report.equal(case, "codes", made.codes, codes)


def _check_filters(kit: IndexKit, tensors: Mapping[str, Tensor], data: Any) -> None:
    """Each filter on the recorded logits, one after the other."""
    given = data["settings"]
    for key in tensors:
        if not (match := re.fullmatch(r"proc_b(\d+)_logits", key)):
            continue
        beams, stem = int(match[1]), f"proc_b{match[1]}"
        case, at_least = f"sampling processors b{beams}", 2 if beams > 1 else 1
        scores = tensors[key].log_softmax(dim=-1) if beams > 1 else tensors[key]
        names = sorted(name for name in tensors if re.match(rf"{stem}_\d+_", name))
        applied = [name.split("_", 3)[3] for name in names]
        kit.report.equal(case, "order", applied, data.get("processors", {}).get(f"sample_b{beams}", applied))
        found = {}
        for name in names:
            if "RepetitionPenalty" in name:
                rows = zip(scores, tensors[f"{stem}_history"], strict=True)
                penalty = given["repetition_penalty"]
                scores = torch.stack([penalise_repetition(row, seen, penalty) for row, seen in rows])
            elif "Temperature" in name:
                scores = scores / given["temperature"]
            elif "TopK" in name:
                scores = keep_top_k(scores, given["top_k"], at_least=at_least)
            elif "TopP" in name:
                scores = keep_top_p(scores, given["top_p"], at_least=at_least)
            found[name] = scores
        kit.compare("filters", case, tensors, found, is_partial=True)
    found = {}
    for name in tensors:
        if match := re.fullmatch(r"typical_mass([\d.]+)_keep(\d+)", name):
            found[name] = keep_typical(tensors["typical_logits"], float(match[1]), at_least=int(match[2]))
    kit.compare("filters", "sampling typical", tensors, found, is_partial=True)
