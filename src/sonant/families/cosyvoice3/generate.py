"""One speech token for each utterance and step: the state of an utterance, and how the next id is chosen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sonant.engine.model import Step, Utterance
from sonant.families.cosyvoice3.config import MIN_TOKEN_RATIO, LanguageConfig
from sonant.families.cosyvoice3.lm import LanguageModel
from sonant.families.cosyvoice3.sampler import (
    Pick,
    greedy,
    mask_before_minimum,
    race,
    repetition_aware,
)
from sonant.families.cosyvoice3.speaking import TokenState
from sonant.nn.cache import KVCache
from sonant.nn.row_steps import RowSteps
from sonant.nn.sampling import check_finite
from sonant.nn.tap import is_tapped, tap
from sonant.request.speech import Sampling


def picker(sampling: Sampling, generator: torch.Generator) -> Pick:
    """How this utterance draws."""
    return greedy if sampling.greedy else race(generator)


def minimum_length(text_tokens: int) -> int:
    """Speech tokens below which the original masks an id."""
    return MIN_TOKEN_RATIO * text_tokens


def prefill(model: LanguageModel, cache: KVCache, slot: int, x: Tensor) -> Tensor:
    """Scores [V] after the embeddings x [1, L, D], which fill the freed row `slot`."""
    cache.free(slot)
    hidden = model(x, cache.rows([slot], x.shape[1]))
    return model.logits(hidden[:, -1])[0]


def next_scores(
    model: LanguageModel,
    cache: KVCache,
    utterances: Sequence[Utterance],
    steps: RowSteps | None = None,
) -> None:
    """Bring `logits` of every utterance up to its last id, those that lack them in one pass.

    `steps` does so in one piece of work; while a trace wants to see inside, it is left alone.
    """
    behind = [u for u in utterances if u.state.logits is None]
    if not behind:
        return
    last = [u.state.history[-1] for u in behind]
    slots = [u.slots[0] for u in behind]
    if steps is not None and not is_tapped():
        made = steps(last, [0] * len(last), slots)
    else:
        weight = model.speech_embedding.weight
        x = model.speech_embedding(torch.tensor(last, device=weight.device))[:, None]  # [B, 1, D]
        made = model.logits(model(x, cache.rows(slots, 1))[:, -1])
    for utterance, scores in zip(behind, made, strict=True):
        utterance.state.logits = scores


def choose(config: LanguageConfig, state: TokenState, sampling: Sampling) -> int:
    """The next id of one utterance, which uses up its scores. Raises NotFiniteError."""
    assert state.logits is not None
    # Sampling is done on the CPU, so that a seed gives the same on every device.
    state.seen = check_finite(state.logits.cpu())
    scores = state.seen.log_softmax(dim=-1)
    state.logits = None
    if len(state.history) < state.minimum:
        scores = mask_before_minimum(scores, config.speech_tokens)
    scores = tap("lm.scores", scores)
    if sampling.greedy:
        return state.pick(scores)
    assert sampling.top_p is not None
    assert sampling.top_k is not None
    return repetition_aware(
        scores,
        state.history,
        state.pick,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        window=config.sampler.win_size,
        share=config.sampler.tau_r,
    )


def advance(config: LanguageConfig, utterance: Utterance) -> Step:
    """Choose the next id and tell what became of it: a token, a silence that is dropped, or the end."""
    state: TokenState = utterance.state
    chosen = int(tap("lm.token", torch.tensor(choose(config, state, utterance.prompt.sampling))))
    if chosen >= config.speech_tokens:
        return spoken([], is_final=True)
    state.history.append(chosen)
    at_ceiling = len(state.history) >= utterance.prompt.ceiling
    kept = [chosen] if state.silence.keeps(chosen) else []
    return spoken(kept, is_final=at_ceiling, at_ceiling=at_ceiling)


def spoken(ids: Sequence[int], *, is_final: bool = False, at_ceiling: bool = False) -> Step:
    """A step that gave these ids."""
    return Step(torch.tensor(ids, dtype=torch.long).reshape(-1, 1), is_final, at_ceiling)
