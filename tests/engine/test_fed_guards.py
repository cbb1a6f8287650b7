"""The guards over text that arrives while it is spoken: nobody knows how long it takes, or when it ends."""

from dataclasses import replace

import pytest
import torch

from sonant.engine.engine import Engine
from sonant.engine.model import Ending, Prompt, Step, Utterance
from sonant.errors import GenerationError, NotFiniteError
from sonant.nn.sampling import generator
from sonant.request.speech import SpeechRequest
from tests.engine.test_faults import read
from tests.toy import ToyModel, fed

RATE, CEILING, LETTER = 10.0, 1550, 2
"""Frames a second, the most frames of a feed, and the frames that a letter takes."""


class FedToy(ToyModel):
    """Says LETTER frames for each letter, and waits for more in steps that give nothing; its end token is out
    of reach. `token(frame)` is what it says, `idle(steps)` is told of its waiting."""

    def __init__(self, token=lambda frame: frame * 7 % 31 + frame // 31 % 2, idle=None, is_mute=False):
        super().__init__(dtype=torch.float64)
        capabilities = self.spec.capabilities | {"text_stream"}
        self.spec = replace(self.spec, frame_rate=RATE, capabilities=capabilities)
        self.token, self.idle, self.is_mute = token, idle, is_mute
        self.starts = 0

    def prepare(self, request):
        sampling = request.sampling.over(self.spec.sampling)
        known = torch.tensor([[3 * n % 31] for n in range(30)])
        return [
            Prompt(
                text="", sampling=sampling, seed=request.seed, ceiling=CEILING, inputs=request.text_feed,
                positions=8, reference=known,
            )
        ]  # fmt: skip

    def start(self, prompt, slots):
        self.starts += 1
        state = {"letters": 0, "frames": 0, "idle": 0}
        return Utterance(
            prompt=prompt, slots=tuple(slots), generator=generator(prompt.seed, "tokens"), state=state
        )

    def step(self, utterances):
        return [self._step_of(utterance.prompt.inputs, utterance.state) for utterance in utterances]

    def _step_of(self, feed, state):
        text, is_over = feed.take()
        state["letters"] += len(text)
        if state["frames"] < state["letters"] * LETTER:
            state["frames"] += 1
            token = torch.tensor([[self.token(state["frames"])]])
            at_ceiling = state["frames"] == CEILING
            return Step(token, at_ceiling, at_ceiling=at_ceiling)
        state["idle"] += 1
        if not is_over and self.idle is not None:
            self.idle(state["idle"])
        return Step(torch.zeros(0, 1, dtype=torch.int64), is_over)

    def ending(self, utterance):
        return Ending(900, 1e-8)

    def decoder(self, prompt, *, streaming):
        made = super().decoder(prompt, streaming=streaming)
        if self.is_mute:
            push = made.push
            made.push = lambda tokens: push(tokens).repeat_interleave(200) * 1e-6
        return made


def speak(model, feed, *, streaming=True, pipelined=False, **settings):
    with Engine(model, pipelined=pipelined, chunk_limit=10_000) as engine:
        request = SpeechRequest("", text_feed=feed, seed=1, **settings)
        stream = engine.submit(request, streaming=streaming)
        samples = read(stream)
        return [guard.kind for guard in stream.guards], samples


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("pipelined", [False, True])
def test_a_long_feed_is_spoken_to_its_end(streaming, pipelined):
    feed = fed("word " * 140)  # 1,400 frames, when half of the most is 775
    kinds, samples = speak(FedToy(), feed, streaming=streaming, pipelined=pipelined, guards="all")
    assert kinds == []
    assert len(samples) == 1400 * 40


@pytest.mark.parametrize("streaming", [False, True])
def test_a_writer_who_is_idle_for_long_is_waited_for(streaming):
    feed = fed("Wait", close=False)

    def idle(steps):
        if steps == 2 * CEILING:
            feed.put("more")
            feed.close()

    kinds, samples = speak(FedToy(idle=idle), feed, streaming=streaming, guards="all")
    assert kinds == []
    assert len(samples) == 8 * LETTER * 40


def test_the_longest_that_is_spoken_of_a_feed_is_told_and_not_begun_again():
    model = FedToy()
    kinds, samples = speak(model, fed("word " * 200), streaming=False, guards="all")
    assert kinds == ["length_ceiling"]
    assert (len(samples), model.starts) == (CEILING * 40, 1)


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize(
    ("kind", "fault", "expected"),
    [
        ("repeated_code", {"token": lambda frame: min(frame, 9)}, 9 * 40),
        ("repeated_phrase", {"token": lambda frame: frame % 8}, 8 * 40),
        ("reference_echo", {"token": lambda frame: frame * (3 if frame < 9 else 7) % 31}, 392 * 40),
        ("near_silence", {"is_mute": True}, 400 * 8000),
    ],
)
def test_what_goes_wrong_in_a_feed_is_told_but_not_begun_again(kind, fault, expected, pipelined):
    model = FedToy(**fault)
    kinds, samples = speak(model, fed("word " * 40), streaming=False, pipelined=pipelined, guards=kind)
    assert kinds == [kind]
    assert (len(samples), model.starts) == (expected, 1)


def test_scores_that_are_no_numbers_end_a_feed_with_an_error():
    def token(frame):
        if frame == 5:
            raise NotFiniteError("the scores are no numbers")
        return frame

    model = FedToy(token=token)
    with pytest.raises(GenerationError, match="no numbers"):
        speak(model, fed("word"), guards="all")
    assert model.starts == 1
