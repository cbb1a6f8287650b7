"""Silence at the ends is cut by a rule, in pieces as in one; an offset is taken out."""

from dataclasses import replace

import numpy as np
import pytest

from sonant.audio.trimming import AFTER, BEFORE, Trimmer
from sonant.engine.engine import Engine
from sonant.request.speech import SpeechRequest
from tests.toy import ToyModel

RATE = 8000


def silence(seconds):
    return np.random.default_rng(0).normal(0, 1e-4, round(seconds * RATE)).astype(np.float32)


def tone(seconds):
    return (0.1 * np.sin(np.arange(round(seconds * RATE)) * 0.3)).astype(np.float32)


def trimmed(samples, pieces):
    trimmer = Trimmer(RATE)
    parts = [trimmer.push(part) for part in np.array_split(samples, pieces)]
    return np.concatenate([*parts, trimmer.finish()])


@pytest.mark.parametrize("pieces", [1, 3, 77, 1000])
def test_ends_are_cut_and_pauses_stay(pieces):
    samples = np.concatenate([silence(1.0), tone(0.5), silence(2.0), tone(0.5), silence(1.0)])
    found = trimmed(samples, pieces)
    start = RATE - round(BEFORE * RATE)
    assert np.array_equal(found, samples[start : start + len(found)])
    assert len(found) == round((BEFORE + 0.5 + 2.0 + 0.5 + AFTER) * RATE)


@pytest.mark.parametrize("pieces", [1, 13])
def test_what_is_short_stays_and_silence_gives_nothing(pieces):
    samples = np.concatenate([silence(0.05), tone(0.303), silence(0.1)])
    assert np.array_equal(trimmed(samples, pieces), samples)
    assert len(trimmed(silence(2.0), pieces)) == 0
    assert np.array_equal(trimmed(tone(0.004), pieces), tone(0.004))
    assert len(trimmed(tone(0.0), pieces)) == 0


class Padded(ToyModel):
    """Half a second of silence before and after each segment, all with an offset."""

    offset = 0.0

    def decoder(self, prompt, *, streaming):
        import torch

        made = super().decoder(prompt, streaming=streaming)
        push = made.push
        pads = [torch.zeros(4000)]
        made.push = lambda tokens: torch.cat((*pads, push(tokens) * 0.5)) + self.offset
        made.finish = lambda: torch.zeros(4000) + self.offset
        return made


@pytest.mark.parametrize("streaming", [False, True])
def test_the_engine_trims_each_segment_and_keeps_pauses_that_were_asked_for(streaming):
    request = SpeechRequest("[pause:1s]one. two [pause:2s] three", seed=1)
    with Engine(Padded(end_bias=float("-inf")), chunk_limit=1000) as engine:

        def speak(request):
            stream = engine.submit(request, streaming=streaming)
            return np.concatenate([chunk.samples for chunk in stream])

        plain, cut = speak(request), speak(replace(request, trim=True))
    assert len(cut) < len(plain) - 3 * 4000
    assert len(cut) > 3 * RATE
    assert not cut[:RATE].any()


def test_an_offset_is_taken_out_where_that_is_asked_for():
    model = Padded(end_bias=float("-inf"))
    model.offset = 0.2
    with Engine(model) as engine:
        plain = engine.synthesize(SpeechRequest("one two three four five six seven", seed=1))
        clean = engine.synthesize(SpeechRequest("one two three four five six seven", seed=1, remove_dc=True))
    assert len(plain.samples) == len(clean.samples)
    assert abs(plain.samples.mean()) > 0.1
    assert abs(clean.samples.mean()) < 0.02
