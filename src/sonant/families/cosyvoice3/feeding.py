"""Text that arrives while it is spoken: five text tokens, fifteen speech tokens, five text tokens, ...

    [start] prefix | 5 text, 15 speech | ... | 5 text, 15 speech, (fill) | ... | rest [task] speech ...

The model asks for more text by the fill id, which is never fed back. Source: the original's
`inference_bistream`, and the layout it trains on. Four differences, where the original fails: without
prompt speech it starts with five text tokens (there with none); prompt speech that the text does not reach
follows the task id (there it is dropped); after the last text it does not feed its last speech token a
second time; an id that ends speech counts as a wish for text while more may come (there it is an error).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sonant.engine.model import Step, Utterance
from sonant.families.cosyvoice3 import generate
from sonant.families.cosyvoice3.config import LanguageConfig
from sonant.families.cosyvoice3.lm import LanguageModel
from sonant.families.cosyvoice3.speaking import Feeding, Stage, TokenState
from sonant.nn.cache import KVCache
from sonant.request.speech import TextFeed
from sonant.text.tokenizer import BytePairTokenizer

MAX_FED_SECONDS = 80.0
"""Longest speech of one feed, which bounds its rows of the cache."""


def begin(
    model: LanguageModel,
    feed: TextFeed,
    tokenizer: BytePairTokenizer,
    *,
    prefix: Tensor,
    prompt_text: Tensor,
    prompt_speech: Tensor,
    room: int,
) -> Feeding:
    """The state before the first text: prefix ends in <|endofprompt|>, the transcript comes after it."""
    text_ratio, speech_ratio = model.config.mix_ratio
    assert text_ratio > 0
    start = model.speech_embedding.weight[model.config.start][None]
    ready = [start, model.text_embedding(prefix)]
    speech = prompt_speech.tolist()
    return Feeding(
        feed=feed,
        tokenizer=tokenizer,
        ready=ready,
        text=prompt_text.tolist(),
        prompt_speech=speech,
        room=room,
        stage=Stage.PROMPT if speech else Stage.WAITING,
        next_fill=(len(speech) // speech_ratio + 1) * speech_ratio - len(speech),
    )


def provide(model: LanguageModel, cache: KVCache, utterance: Utterance) -> bool:
    """Feed the text there is; False when nothing can be chosen, for want of text or because it is over."""
    state: TokenState = utterance.state
    feeding = state.feeding
    assert feeding is not None
    feeding.take()
    if feeding.fed:
        _gather(model, feeding)
    elif feeding.is_closed:
        feeding.stage = Stage.LAST  # nothing was ever said
        return False
    if feeding.stage in (Stage.PROMPT, Stage.WAITING):
        return False
    state.minimum = 0 if feeding.stage is Stage.LAST else 1 << 30
    if feeding.ready:
        x = torch.cat(feeding.ready)[None]
        feeding.ready = []
        feeding.room -= x.shape[1]
        if feeding.room < 1:
            feeding.stage, feeding.is_overfull = Stage.LAST, True
            return False
        hidden = model(x, cache.rows([utterance.slots[0]], x.shape[1]))
        state.logits = model.logits(hidden[:, -1])[0]
    return True


def _gather(model: LanguageModel, feeding: Feeding) -> None:
    """Move what can be fed into `ready`, and the stage on."""
    device = model.text_embedding.weight.device
    text_ratio, speech_ratio = model.config.mix_ratio

    def text(count: int) -> None:
        ids = torch.tensor(feeding.text[:count], device=device, dtype=torch.long)
        feeding.text = feeding.text[count:]
        feeding.ready.append(model.text_embedding(ids))

    while feeding.stage is Stage.PROMPT and len(feeding.text) >= text_ratio:
        text(text_ratio)
        ids = torch.tensor(feeding.prompt_speech[:speech_ratio], device=device, dtype=torch.long)
        feeding.prompt_speech = feeding.prompt_speech[speech_ratio:]
        feeding.ready.append(model.speech_embedding(ids))
        if not feeding.prompt_speech:
            feeding.stage = Stage.SPEAKING
    if feeding.stage is Stage.WAITING and len(feeding.text) >= text_ratio:
        text(text_ratio)
        feeding.stage = Stage.SPEAKING
    if feeding.is_closed and feeding.stage in (Stage.PROMPT, Stage.WAITING):
        text(len(feeding.text))
        ids = torch.tensor([model.config.task, *feeding.prompt_speech], device=device)
        feeding.ready.append(model.speech_embedding(ids))
        feeding.stage = Stage.LAST


def advance(config: LanguageConfig, utterance: Utterance) -> Step:
    """Choose the next id: a token, a wish for text, or the end."""
    state: TokenState = utterance.state
    feeding = state.feeding
    assert feeding is not None
    is_last = feeding.stage is Stage.LAST
    if state.logits is None:  # nothing came, or more than there is room for
        return generate.spoken([], is_final=is_last, at_ceiling=feeding.is_overfull)
    if not is_last and len(state.history) == feeding.next_fill:
        state.logits = None
        chosen = config.fill
    else:
        chosen = generate.choose(config, state, utterance.prompt.sampling)
    if chosen >= config.speech_tokens:
        if is_last:
            return generate.spoken([], is_final=True)
        state.history.append(config.fill)
        feeding.next_fill = len(state.history) + config.mix_ratio[1]
        feeding.stage = Stage.WAITING
        return generate.spoken([])
    state.history.append(chosen)
    feeding.room -= 1
    kept = [chosen] if state.silence.keeps(chosen) else []
    spoken = sum(token < config.speech_tokens for token in state.history)
    is_full = spoken >= utterance.prompt.ceiling or feeding.room < 1
    return generate.spoken(kept, is_final=is_full, at_ceiling=is_full)
