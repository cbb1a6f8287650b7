"""Stored voices mixed by weight, where the model says which of their tensors may be."""

from dataclasses import replace

import pytest
import torch

from sonant.errors import VoiceError
from sonant.request.voice import Voice
from sonant.voices.casting import Casting
from sonant.voices.finding import MOST_PARTS, find_voice, find_voice_or_file, has_voice
from sonant.voices.library import VoiceLibrary
from tests.voices.test_casting import SPEC, Cloner, clip

MIXES = replace(
    SPEC, voices=(), default_voice=None, capabilities=frozenset({"clone", "voice_mixing"}), mixed=("first",)
)


@pytest.fixture
def library(tmp_path):
    kept = VoiceLibrary(tmp_path / "voices")
    for seed, name in enumerate(("ann", "bea", "cleo")):
        kept.add(Voice(name=name, clip=clip(seed), transcript="Words.", language="english"))
    return kept


def first(library, name):
    return library.get(name).clip.samples[0]


def test_a_mixture_is_the_sum_by_weight(library):
    model = Cloner(MIXES)
    casting = Casting(model, library)
    made = casting.find("Ann:3+bea")
    wanted = 0.75 * first(library, "ann") + 0.25 * first(library, "bea")
    assert made.tensors["first"] == pytest.approx(torch.tensor([wanted]))
    assert (made.name, made.clip, made.transcript) == ("ann:0.75+bea:0.25", None, None)
    assert {transcript for _, transcript in model.encoded} == {None}
    casting.find("bea:0.1+ann:0.9")
    assert len(model.encoded) == 2  # remembered
    assert casting.find("cleo:2").tensors["first"] == pytest.approx(torch.tensor([first(library, "cleo")]))


def test_a_mixture_has_an_identity_before_it_is_made(library):
    digests = {
        find_voice(name, spec=MIXES, shelf=library).digest() for name in ("ann+bea", "ann:2+bea", "ann+cleo")
    }
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ann+nobody", "nobody.*ann, bea, cleo"),
        ("ann:-1+bea", "weights above 0"),
        ("ann:x", "weights above 0"),
        ("ann:1e308+bea:1e308", "too large"),
        ("ann+", "no voice with a weight"),
        ("+".join(["ann"] * (MOST_PARTS + 1)), "at most 8"),
    ],
)
def test_a_wrong_mixture_is_refused(library, name, told):
    with pytest.raises(VoiceError, match=told):
        Casting(Cloner(MIXES), library).find(name)


def test_a_model_that_mixes_nothing_says_so(library):
    plain = replace(MIXES, capabilities=frozenset({"clone"}), mixed=())
    with pytest.raises(VoiceError, match="no voice"):
        find_voice("ann+bea", spec=plain, shelf=library)
    assert not has_voice("ann+bea", plain, library)
    assert has_voice("ann+bea", MIXES, library)
    mixture = find_voice("ann+bea", spec=MIXES, shelf=library)
    with pytest.raises(VoiceError, match="cannot mix the voice 'ann'"):
        Casting(Cloner(plain), library).find(mixture)


def test_a_file_whose_name_has_a_plus_is_a_file(library, tmp_path):
    path = tmp_path / "a+b.wav"
    clip(7).write(path)
    assert find_voice_or_file(str(path), spec=MIXES, shelf=library).name == "a+b"
    assert find_voice_or_file("ann+bea", spec=MIXES, shelf=library).parts
