"""A whole frame as one piece of work on the device: code predictor, talker, and every choice of a token.

    token 0 and the talker's state --15 predictor steps--> tokens 1 .. 15 --talker--> the next token 0

Everything a frame reads and writes stays where it is in memory, with one row for each slot of the cache,
and the host only looks at the finished tokens, once a frame. On CUDA the work is recorded as a graph for
each size of batch and reach of the attention; elsewhere it runs as it is. The tokens are those of
`Qwen3TTS.advance`: same filters, same draws from the utterances' own generators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sonant.engine.model import Utterance
from sonant.families.qwen3_tts.config import ModelConfig
from sonant.families.qwen3_tts.decoding import MIN_TOKENS, Barred, predictor_choice, talker_choice
from sonant.families.qwen3_tts.talker import Network
from sonant.nn.cache import KVCache
from sonant.nn.replay import Replay
from sonant.nn.sampling import (
    NEGATIVE_INFINITY,
    Choice,
    RowSettings,
    choose_rows,
    filters,
    not_finite,
    penalise_told,
    shape_rows,
)
from sonant.nn.step_stack import Reach, StepStack, batch_sizes, reaches
from sonant.nn.transformer import Decoder
from sonant.request.speech import Sampling

NOT_FINITE = -1
"""In place of a token that was chosen from scores which are no numbers."""
USUAL_BEST = 64
"""top_k up to here is one kind of frame; the model's own is 50."""


@dataclass(eq=False)
class RowState:
    """Of one running utterance: what the host knows."""

    token: int
    """The next token 0."""
    frames: int = 0
    """Frames the talker has run on."""


@dataclass(frozen=True)
class FrameShape:
    """What a recording is made for."""

    rows: int
    reach: int
    talker_best: int
    talker_top_p: bool
    predictor_best: int
    predictor_top_p: bool


@dataclass(frozen=True, eq=False)
class Stacks:
    """Talker and code predictor for steps of fixed shape, made once for a loaded network."""

    talker: StepStack
    predictor: StepStack

    @classmethod
    def of(cls, network: Network) -> Stacks | None:
        """None where one of them is not `Decoder` but something narrower."""
        talker, predictor = network.talker.decoder, network.predictor.decoder
        if not isinstance(talker, Decoder) or not isinstance(predictor, Decoder):
            return None
        return cls(StepStack(talker), StepStack(predictor))


class FrameSteps:
    """The running frames of up to `slots` utterances.

    `cache` has one position more than utterances may fill: rows that rest write there.
    """

    def __init__(
        self,
        network: Network,
        stacks: Stacks,
        config: ModelConfig,
        cache: KVCache,
        *,
        slots: int,
    ) -> None:
        self._network, self._config, self._cache, self._slots = network, config, cache, slots
        weight = network.talker.codec_embedding.weight
        device, dtype = weight.device, weight.dtype
        groups = config.predictor.groups
        self._talker, self._predictor = stacks.talker, stacks.predictor
        self._talker.reach(cache.capacity)
        self._predictor.reach(groups)
        self._frame_cache = network.predictor.cache(slots, dtype, device)
        self.replay = Replay(device)
        self._rest = cache.capacity - 1
        vocabulary, others = config.talker.vocabulary, groups - 1
        self._draws = others * config.predictor.vocabulary + vocabulary

        # What a frame reads and writes, one row a slot.
        self._hidden = torch.zeros(slots, config.talker.width, dtype=dtype, device=device)
        self._token = torch.zeros(slots, dtype=torch.int64, device=device)
        self._seen = torch.zeros(slots, vocabulary, dtype=torch.bool, device=device)
        self._words = torch.zeros(slots, config.talker.width, dtype=dtype, device=device)
        self._control = torch.zeros(slots, 3, dtype=torch.int64, device=device)
        self._race = torch.ones(slots, self._draws, device=device)
        self._out = torch.zeros(slots, groups + 1, dtype=torch.int64, device=device)
        self.logits = torch.zeros(slots, vocabulary, device=device)
        """[slots, V], float32: what each row's next token 0 was chosen from."""
        self._penalty = torch.ones(slots, 1, device=device)
        self._talker_choice = RowSettings.of([Choice()] * slots, device)
        self._predictor_choice = RowSettings.of([Choice()] * slots, device)

        # Constants.
        self._barred = Barred.of(vocabulary, config.talker.codec_eos_token_id, device)
        self._places = torch.arange(cache.capacity, device=device)
        blind = torch.tensor([[0.0, NEGATIVE_INFINITY], [0.0, 0.0]], dtype=dtype)
        self._first_mask = blind[None, None].to(device)

        # On the host.
        pinned = device.type == "cuda"
        self._host_control = torch.zeros(slots, 3, dtype=torch.int64, pin_memory=pinned)
        self._host_race = torch.ones(slots, self._draws, pin_memory=pinned)
        self._has_drawn = [False] * slots
        self._samplings = [Sampling()] * slots

    # -- utterances ---------------------------------------------------------------------------

    def start(self, slot: int, hidden: Tensor, token: int, sampling: Sampling) -> RowState:
        """Take a row into use: the talker's state [D] after the prompt, and the token 0 chosen from it."""
        self._hidden[slot] = hidden
        self._token[slot] = token
        self._seen[slot] = False
        self._penalty[slot] = sampling.repetition_penalty or 1.0
        self._talker_choice.set(slot, talker_choice(sampling))
        self._predictor_choice.set(slot, predictor_choice(sampling))
        self._samplings[slot] = sampling
        self._has_drawn[slot] = False
        return RowState(token)

    def advance(self, utterances: Sequence[Utterance]) -> Tensor:
        """The next frame [B, G] of each utterance, on the CPU; their states hold the token 0 after it."""
        slots = [utterance.slots[0] for utterance in utterances]
        lengths = self._cache.lengths
        shape = self._shape(slots)
        if not self.replay.has(shape):
            self._record(shape)
        self._rest_all()
        for slot, utterance in zip(slots, utterances, strict=True):
            self._host_control[slot, 0] = lengths[slot]
            self._host_control[slot, 1] = utterance.state.frames + 1
            self._host_control[slot, 2] = 1
        self._control.copy_(self._host_control, non_blocking=True)
        for slot, words in zip(slots, self._next_words(utterances), strict=True):
            self._words[slot] = words
        self._draw(utterances)
        self._race[: shape.rows].copy_(self._host_race[: shape.rows], non_blocking=True)
        copied = None
        if self._race.device.type == "cuda":
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(torch.cuda.current_stream(self._race.device))  # which may be a second GPU's
        self.replay.run(shape, lambda: self._frame(shape))
        for slot in slots:
            lengths[slot] += 1
            self._has_drawn[slot] = False
        if copied is not None:  # the next draws, while the device works
            copied.synchronize()
            self._draw(utterances)
        out = self._out[: shape.rows].cpu()[slots]
        if NOT_FINITE in out[:, -1]:
            raise not_finite()
        for utterance, token in zip(utterances, out[:, -1].tolist(), strict=True):
            utterance.state.token = token
            utterance.state.frames += 1
        return out[:, :-1]

    def warm_up(self, sampling: Sampling) -> None:
        """Record the frames of every size of batch, as far as the cache reaches, for usual settings."""
        self._samplings = [sampling] * self._slots
        for reach in reaches(self._rest):
            for rows in batch_sizes(self._slots):
                shape = self._shape_of(range(rows), rows, reach)
                if not self.replay.has(shape):
                    self._record(shape)

    def _next_words(self, utterances: Sequence[Utterance]) -> list[Tensor]:
        words = []
        for utterance in utterances:
            inputs, frames = utterance.prompt.inputs, utterance.state.frames
            words.append(inputs.trailing[frames] if frames < len(inputs.trailing) else inputs.filler)
        return words

    def _draw(self, utterances: Sequence[Utterance]) -> None:
        """The variates of a frame from each utterance's generator, in the order in which steps draw."""
        size = self._config.predictor.vocabulary
        for utterance in utterances:
            slot = utterance.slots[0]
            if self._has_drawn[slot]:
                continue
            self._has_drawn[slot] = True
            row, sampling = self._host_race[slot], utterance.prompt.sampling
            vocabulary = self.logits.shape[1]
            if not sampling.predictor_greedy:
                for group in row[:-vocabulary].view(-1, size):
                    group.exponential_(1, generator=utterance.generator)
            if not sampling.greedy:
                row[-vocabulary:].exponential_(1, generator=utterance.generator)

    # -- shapes -------------------------------------------------------------------------------

    def _shape(self, slots: Sequence[int]) -> FrameShape:
        needed = max(self._cache.lengths[slot] for slot in slots) + 1
        return self._shape_of(
            slots,
            next(size for size in batch_sizes(self._slots) if size > max(slots)),
            next(reach for reach in reaches(self._rest) if reach >= needed),
        )

    def _shape_of(self, slots: Sequence[int], rows: int, reach: int) -> FrameShape:
        samplings = [self._samplings[slot] for slot in slots]
        talker = _filters([talker_choice(s) for s in samplings], self._config.talker.vocabulary)
        predictor = _filters([predictor_choice(s) for s in samplings], self._config.predictor.vocabulary)
        return FrameShape(rows, reach, *talker, *predictor)

    def _rest_all(self) -> None:
        self._host_control[:, 0] = self._rest
        self._host_control[:, 1:] = 0

    def _record(self, shape: FrameShape) -> None:
        """While every row rests, a frame changes nothing but the place where they write."""
        self._rest_all()
        self._control.copy_(self._host_control)
        self.replay.record(shape, lambda: self._frame(shape), self.logits)

    # -- the work itself ----------------------------------------------------------------------

    def _frame(self, shape: FrameShape) -> None:
        rows, network = shape.rows, self._network
        token, hidden, seen = self._token[:rows], self._hidden[:rows], self._seen[:rows]
        position, frames, moves = self._control[:rows].unbind(dim=1)
        moves = moves > 0
        embedded = network.talker.codec_embedding(token)
        others, total = self._others(shape, hidden, embedded)
        x = embedded + total + self._words[:rows]
        reach = Reach.of(self._cache, position, shape.reach)
        after = self._talker(x[:, None], reach)[:, 0]
        logits = _wide(network.talker.codec_head(after))
        self.logits[:rows] = logits
        told = seen.scatter(1, token[:, None], True)
        chosen = self._choose_talker(shape, logits, told, frames)
        told_chosen = torch.where(logits.isfinite().all(dim=1), chosen, NOT_FINITE)
        self._out[:rows] = torch.cat((token[:, None], others, told_chosen[:, None]), dim=1)
        hidden.copy_(torch.where(moves[:, None], after, hidden))
        token.copy_(torch.where(moves, chosen, token))
        seen.copy_(torch.where(moves[:, None], told, seen))

    def _others(self, shape: FrameShape, hidden: Tensor, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens 1 .. G-1 [B, G-1] and the sum [B, D] of their embeddings."""
        predictor, size = self._network.predictor, self._config.predictor.vocabulary
        keys = [store[: shape.rows] for store in self._frame_cache.keys]
        values = [store[: shape.rows] for store in self._frame_cache.values]
        settings = self._predictor_choice.rows(shape.rows)
        x = torch.stack((hidden, embedded), dim=1)
        positions = self._places[:2].expand(shape.rows, -1)
        tokens: list[Tensor] = []
        total: Tensor | None = None
        for group, (head, table) in enumerate(zip(predictor.lm_head, predictor.codec_embedding, strict=True)):
            reach = Reach(keys, values, positions, self._first_mask if group == 0 else None, group + 2)
            last = self._predictor(predictor.small_to_mtp_projection(x), reach)[:, -1]
            scores = shape_rows(
                _wide(head(last)), settings, best=shape.predictor_best, has_top_p=shape.predictor_top_p
            )
            race = self._race[: shape.rows, group * size : (group + 1) * size]
            token = choose_rows(scores, settings.greedy, race)
            made = table(token)
            total = made if total is None else total + made
            tokens.append(token)
            x = made[:, None]
            positions = self._places[group + 2 : group + 3].expand(shape.rows, 1)
        assert total is not None
        return torch.stack(tokens, dim=1), total

    def _choose_talker(self, shape: FrameShape, logits: Tensor, told: Tensor, frames: Tensor) -> Tensor:
        """Token 0 [B] after `frames` [B] frames, with the tokens `told` [B, V] so far made less likely."""
        settings = self._talker_choice.rows(shape.rows)
        barred = torch.where((frames < MIN_TOKENS)[:, None], self._barred.early, self._barred.later)
        scores = penalise_told(logits, told, self._penalty[: shape.rows]).masked_fill(
            barred, NEGATIVE_INFINITY
        )
        scores = shape_rows(scores, settings, best=shape.talker_best, has_top_p=shape.talker_top_p)
        return choose_rows(scores, settings.greedy, self._race[: shape.rows, -logits.shape[1] :])


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _filters(choices: Sequence[Choice], vocabulary: int) -> tuple[int, bool]:
    """What `shape_rows` is told, in four answers, so that few frames are recorded whatever callers ask for.

    Neither filter, the usual top_k with or without top_p, and everything else.
    """
    largest, has_top_p = filters(choices)
    if largest > USUAL_BEST or (has_top_p and not largest):
        return vocabulary, True
    return (USUAL_BEST if largest else 0), has_top_p
