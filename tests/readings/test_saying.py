"""The one-liner: one engine a model, and speech at the loudness of what leaves."""

import numpy as np
import pytest

import sonant
from sonant.audio.loudness import measure_loudness
from sonant.engine.engine import Engine
from sonant.errors import RequestError
from sonant.readings import saying
from sonant.request.settings import LOUDNESS
from tests.toy import ToyModel


@pytest.fixture
def engine(monkeypatch):
    with Engine(ToyModel(end_bias=float("-inf"))) as engine:
        monkeypatch.setattr(saying, "_engines", {"toy": engine})
        yield engine


def test_the_one_liner_is_levelled_and_off_is_the_engines_own(engine):
    own = engine.synthesize("hello there", seed=1)
    said = sonant.say("hello there", model="toy", seed=1)
    assert measure_loudness(said.samples, said.sample_rate) == pytest.approx(LOUDNESS, abs=0.2)
    assert (said.seed, said.segments) == (own.seed, own.segments)
    for off in ("off", None):
        same = sonant.say("hello there", model="toy", seed=1, loudness=off)
        assert np.array_equal(same.samples, own.samples)
    quieter = sonant.say("hello there", model="toy", seed=1, loudness=-30)
    assert measure_loudness(quieter.samples, quieter.sample_rate) == pytest.approx(-30, abs=0.2)


def test_an_impossible_loudness_is_refused_before_anything_is_said(engine):
    for wrong in ("loud", 3, True):
        with pytest.raises(RequestError, match="off or -70 to 0"):
            sonant.say("hello there", model="toy", loudness=wrong)
