"""The toy model with things that go wrong where a text says so, and one whose text is prepared lazily."""

import threading

import numpy as np
import torch

from sonant.engine.model import Unspeakable, every_prompt
from sonant.errors import RequestError
from tests.toy import ToyDecoder, ToyModel

PATIENCE = 60
"""Seconds after which something counts as never; nothing takes one."""


def read(stream):
    """The samples of a stream, which must end."""
    parts = []
    while True:
        chunk = stream.get(timeout=PATIENCE)
        parts.append(chunk.samples)
        if chunk.is_final:
            return np.concatenate(parts)


class FaultyToy(ToyModel):
    """float64, so that a batch gives the very bytes of one alone. Words in a text make it fail:

    "stepfault" in its third step, "startfault" at the prefill, "decodefault" in its decoder, "nan" gives no
    numbers, "catfault" tokens that do not fit together. The step raises before or after it has moved the
    state of everybody in the batch (`moves_first`). With a `sharpness` above 1 what lies in its row of the
    cache decides what it says; else its tokens are nearly as good as drawn from all.
    """

    def __init__(self, *, moves_first=True, sharpness=1, **given):
        super().__init__(dtype=torch.float64, **given)
        self.head.weight.data *= sharpness
        self.moves_first = moves_first
        self.batches = []

    def start(self, prompt, slots):
        if "startfault" in prompt.text:
            raise RuntimeError("the toy's prefill broke")
        return super().start(prompt, slots)

    def step(self, utterances):
        self.batches.append([u.prompt.text for u in utterances])
        guilty = [u for u in utterances if "stepfault" in u.prompt.text and u.steps == 2]
        if guilty and not self.moves_first:
            raise RuntimeError("the toy's step broke")
        steps = super().step(utterances)
        if guilty:
            raise RuntimeError("the toy's step broke")
        for index, utterance in enumerate(utterances):
            if "catfault" in utterance.prompt.text and utterance.steps % 2:
                steps[index] = type(steps[index])(steps[index].tokens.repeat(1, 3), steps[index].is_final)
        return steps

    def decoder(self, prompt, *, streaming):
        return FaultyDecoder(self, prompt.text)


class FaultyDecoder(ToyDecoder):
    def __init__(self, model, text):
        super().__init__(model)
        self.text = text

    def push(self, tokens):
        if "decodefault" in self.text:
            raise ValueError("the toy's decoder broke")
        samples = super().push(tokens)
        return samples * float("nan") if "nan" in self.text else samples


class LazyToy(FaultyToy):
    """Counts what was prepared. "unreadable" sentences cannot be spoken, "explode" breaks the front end, and
    at "hold" the preparation sets `holds` and waits for `gate`."""

    def __init__(self, **given):
        super().__init__(**given)
        self.prepared = []
        self.holds, self.gate = threading.Event(), threading.Event()

    def prepare(self, request):
        return every_prompt(self.each_prompt(request))

    def each_prompt(self, request):
        for prompt in super().prepare(request):
            self.prepared.append(prompt.text)
            if "hold" in prompt.text:
                self.holds.set()
                assert self.gate.wait(60)
            if "explode" in prompt.text:
                raise ZeroDivisionError("the front end broke")
            if "unreadable" in prompt.text:
                yield Unspeakable(prompt.text, RequestError("no such letters", field="text"))
            else:
                yield prompt


class GrowingToy(FaultyToy):
    """Its rows can be lengthened while they are in use."""

    def __init__(self, **given):
        super().__init__(**given)
        self.grown = []

    def grow(self, positions):
        self.cache = self.cache.grown(positions)
        self.grown.append(positions)
        return True
