"""Choosing codes: one row at a time, or beams that share one utterance.

Both searches are fed logits and answer which code each row takes next and which row it continues; they
know nothing of networks or caches. The order of filters and the bookkeeping are those of transformers
4.4x, which the original carries a copy of: codes are equal when the same generator is drawn from.
Tap names: search.scores, after the filters; search.token, the code, or the candidates of all beams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sonant.nn.sampling import check_finite, keep_top_k_and_p, penalise_repetition
from sonant.nn.tap import tap

NOT_YET = -1e9  # score of the beams that are copies of the first one. Source: transformers
HISTORY_FILL = 1  # what the original's history holds in place of the prefix


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How codes are chosen; top_k 0, top_p 1 and typical_mass None are off."""

    beams: int
    greedy: bool
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    length_penalty: float
    limit: int
    """Codes at most, the stop code included."""
    stop: int
    start: int
    typical_mass: float | None = None
    early_stopping: bool = False
    mask_start: bool = False
    """Never choose the start code, which the original may."""


@dataclass(frozen=True)
class Turn:
    """The next code of each row, and the row it continues."""

    codes: list[int]
    sources: list[int]


class Search(Protocol):
    """The common face of both searches."""

    history: Tensor
    """What the repetition penalty sees of each row [beams, L]."""
    result: list[int]
    """The chosen codes, the stop code included where it was reached; filled when `advance` gives None."""

    def advance(self, logits: Tensor, rng: torch.Generator) -> Turn | None:
        """What follows logits [beams, V], or None at the end."""
        ...


def make_search(settings: SearchSettings, prefix_length: int) -> Search:
    """The search for these settings; `prefix_length` rows precede the start code."""
    kind = SingleSearch if settings.beams == 1 else BeamSearch
    return kind(settings, prefix_length)


def filter_scores(scores: Tensor, history: Tensor, settings: SearchSettings) -> Tensor:
    """Scores [B, V] after the processors, in the original's order; history [B, L].

    Beams keep at least two candidates. Greedy choice runs the repetition penalty only.
    """
    s = settings
    scores = penalise_repetition(scores, history, s.repetition_penalty)
    if s.mask_start:
        scores = scores.clone()
        scores[:, s.start] = float("-inf")
    if s.greedy:
        return scores
    at_least = 2 if s.beams > 1 else 1
    if s.typical_mass is not None:
        scores = keep_typical(scores, s.typical_mass, at_least=at_least)
    if s.temperature != 1.0:
        scores = scores / s.temperature
    return keep_top_k_and_p(scores, s.top_k, s.top_p, at_least=at_least)


def keep_typical(scores: Tensor, mass: float, *, at_least: int = 1) -> Tensor:
    """Scores [B, V] with only the tokens whose surprise is nearest to the entropy, up to `mass`.

    Source: locally typical sampling, arXiv 2202.00666, as transformers does it.
    """
    logs = scores.log_softmax(dim=-1)
    entropy = -(logs * logs.exp()).nansum(dim=-1, keepdim=True)
    distance = (-logs - entropy).abs()
    ordered, order = distance.sort(dim=-1, descending=False)
    cumulative = scores.gather(-1, order).softmax(dim=-1).cumsum(dim=-1)
    last = (cumulative < mass).sum(dim=-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
    remove = ordered > ordered.gather(-1, last)
    remove[..., :at_least] = False
    return scores.masked_fill(remove.scatter(-1, order, remove), float("-inf"))


class SingleSearch:
    """One row: greedy, or one draw a step."""

    def __init__(self, settings: SearchSettings, prefix_length: int) -> None:
        self.settings = settings
        self.history = _first_history(settings, prefix_length)
        self.result: list[int] = []

    def advance(self, logits: Tensor, rng: torch.Generator) -> Turn | None:
        """What follows logits [1, V], or None at the end."""
        held = check_finite(logits.float().cpu())
        scores = tap("search.scores", filter_scores(held, self.history, self.settings))
        if self.settings.greedy:
            chosen = scores[0].argmax()
        else:
            chosen = torch.multinomial(scores.softmax(dim=-1), 1, generator=rng)[0, 0]
        code = int(tap("search.token", chosen))
        self.result.append(code)
        if code == self.settings.stop or len(self.result) >= self.settings.limit:
            return None
        self.history = torch.cat((self.history, torch.tensor([[code]])), dim=1)
        return Turn([code], [0])


@dataclass(frozen=True)
class _Hypothesis:
    score: float
    codes: list[int]
    trail: tuple[int, ...]


class BeamSearch:
    """Several rows of one utterance, the best of which is its answer.

    `total` is the sum of log-probabilities of each running row. A finished row leaves the running ones and
    becomes a hypothesis, ranked by its sum over length ** length_penalty; of those the best are kept.
    """

    def __init__(self, settings: SearchSettings, prefix_length: int) -> None:
        self.settings = settings
        self.history = _first_history(settings, prefix_length).repeat(settings.beams, 1)
        self.prompt_length = prefix_length + 1
        self.total = torch.full((settings.beams,), NOT_YET)
        self.total[0] = 0.0
        self.kept: list[_Hypothesis] = []
        self.worst = -NOT_YET
        self.trails: list[tuple[int, ...]] = [()] * settings.beams
        self.result: list[int] = []
        self.score = 0.0
        self.trail: tuple[int, ...] = ()
        """The row that each code of the answer was chosen in."""

    def advance(self, logits: Tensor, rng: torch.Generator) -> Turn | None:
        """What follows logits [beams, V], or None at the end."""
        s = self.settings
        scores = filter_scores(check_finite(logits.float().cpu()).log_softmax(dim=-1), self.history, s)
        scores = tap("search.scores", scores) + self.total[:, None]
        ranked, places = self._candidates(scores, rng)
        vocabulary = scores.shape[1]
        turn = Turn([], [])
        totals: list[float] = []
        generated = self.history.shape[1] + 1 - self.prompt_length
        for rank, (score, place) in enumerate(zip(ranked.tolist(), places.tolist(), strict=True)):
            row, code = divmod(place, vocabulary)
            if code == s.stop:
                if rank < s.beams:  # a stop below the best candidates does not count
                    self._keep(score, self._codes(row), (*self.trails[row], row), generated)
                continue
            turn.codes.append(code)
            turn.sources.append(row)
            totals.append(score)
            if len(turn.codes) == s.beams:
                break
        is_done = self._is_done(float(ranked.max()), generated)
        self.total = torch.tensor(totals)
        self.trails = [(*self.trails[row], row) for row in turn.sources]
        self.history = torch.cat((self.history[turn.sources], torch.tensor(turn.codes)[:, None]), dim=1)
        if is_done or generated >= s.limit:
            self._finish(is_done)
            return None
        return turn

    def _candidates(self, scores: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        count = 2 * self.settings.beams
        flat = scores.flatten()[None]
        if self.settings.greedy:
            places = flat.topk(count, dim=1, largest=True, sorted=True).indices
        else:
            drawn = torch.multinomial(flat.softmax(dim=-1), count, generator=rng)
            order = flat.gather(-1, drawn).sort(descending=True, dim=1).indices
            places = drawn.gather(-1, order)
        places = tap("search.token", places)
        return flat.gather(-1, places)[0], places[0]

    def _codes(self, row: int) -> list[int]:
        return [int(code) for code in self.history[row, self.prompt_length :]]

    def _keep(self, total: float, codes: list[int], trail: tuple[int, ...], generated: int) -> None:
        score = total / generated**self.settings.length_penalty
        if len(self.kept) < self.settings.beams:
            self.kept.append(_Hypothesis(score, codes, trail))
            self.worst = min(self.worst, score)
        elif score > self.worst:
            self.kept.append(_Hypothesis(score, codes, trail))
            ranking = sorted((hypothesis.score, index) for index, hypothesis in enumerate(self.kept))
            del self.kept[ranking[0][1]]
            self.worst = ranking[1][0]

    def _is_done(self, best: float, generated: int) -> bool:
        if len(self.kept) < self.settings.beams:
            return False
        return self.settings.early_stopping or self.worst >= best / generated**self.settings.length_penalty

    def _finish(self, is_done: bool) -> None:
        if not is_done:
            generated = self.history.shape[1] - self.prompt_length
            for row in range(self.settings.beams):
                self._keep(float(self.total[row]), self._codes(row), self.trails[row], generated)
        best = sorted(self.kept, key=lambda hypothesis: hypothesis.score)[-1]
        self.score, self.trail = best.score, best.trail
        # The stop code is added where there is room, whether or not the row had reached it.
        self.result = best.codes + [self.settings.stop] * (len(best.codes) < self.settings.limit)


def _first_history(settings: SearchSettings, prefix_length: int) -> Tensor:
    """What the repetition penalty sees at first [1, P + 1]: ones for the prefix, then the start code.

    Parity: code 1 and the start code are therefore penalised from the first step on.
    """
    return torch.tensor([[HISTORY_FILL] * prefix_length + [settings.start]])
