"""sonant voice: keeping, showing and checking voices; speaking with clips and designed voices."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sonant.request.audio import Audio
from sonant.request.voice import Voice
from sonant.voices.library import VoiceLibrary

WORDS = "The old mill by the river turns slowly in the evening light."


@pytest.fixture
def cloner(toy):
    """The toy with a clone capability that remembers what it was given."""
    toy.spec = replace(toy.spec, capabilities=toy.spec.capabilities | {"clone", "instruction"})
    toy.given = []

    def encode_voice(audio, transcript):
        toy.given.append((audio.seconds, transcript))
        return Voice(family="toy", fingerprint="toy", tensors={"mean": torch.tensor(audio.samples[:4])})

    toy.encode_voice = encode_voice
    return toy


def speechlike(seconds, *, level=0.3, rate=24_000):
    """Bursts of a buzzing tone: syllables as far as a meter can tell."""
    time = np.arange(int(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 3 * time), 0, 1) ** 0.5
    breath = 0.02 * np.random.default_rng(0).standard_normal(
        len(time)
    )  # a voice reaches higher than its tone
    samples = level * (buzz / np.abs(buzz).max() + breath) * syllables
    return Audio(np.pad(samples, (1_000, rate // 5)).astype(np.float32), rate)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.wav"
    speechlike(6).write(path)
    return path


def test_a_voice_is_added_listed_shown_and_removed(sonant, clip, tmp_path):
    result = sonant("voice", "add", "ann", clip, "--transcript", WORDS, "--language", "en")
    assert result.code == 0, result.err
    assert result.text.strip() == str(tmp_path / "voices" / "ann.voice.safetensors")
    (record,) = json.loads(sonant("voice", "list", "--json").text)
    assert record["name"] == "ann"
    assert record["transcript"] == WORDS
    assert record["origin"]["file"] == "clip.wav"
    assert "ann" in sonant("voice", "list").text
    assert json.loads(sonant("voice", "show", "ann").text)["language"] == "en"
    assert sonant("voice", "rm", "ann").text == "removed ann\n"
    assert "no voices yet" in sonant("voice", "list").err


def test_a_name_that_is_taken_needs_force(sonant, clip):
    sonant("voice", "add", "ann", clip)
    assert sonant("voice", "add", "ann", clip).code == 5
    assert sonant("voice", "add", "ann", clip, "--force").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("add", "../x", "clip.wav"), 5, "no voice name"),
        (("add", "a" * 300, "clip.wav"), 5, "no voice name"),
        (("add", "x", "nowhere.wav"), 2, "nowhere.wav"),
        (("add", "x", "a" * 300 + ".wav"), 2, "aaa.wav"),
        (("add", "x", "nowhere.safetensors"), 5, "cannot read"),
        (("show", "nobody"), 5, "no voice named"),
        (("rm", "nobody"), 5, "no voice named"),
        (("check", "nowhere.wav"), 2, "nowhere.wav"),
    ],
)
def test_wrong_voice_commands_are_told(sonant, clip, arguments, code, words):
    result = sonant("voice", *arguments)
    assert result.code == code
    assert words in result.err


def test_a_clip_before_its_name_is_told(sonant, clip, tmp_path):
    (tmp_path / "my clip.wav").write_bytes(Path(clip).read_bytes())
    result = sonant("voice", "add", "my clip.wav", "ann")
    assert result.code == 2
    assert "the name comes first: sonant voice add ann 'my clip.wav'" in result.err
    (tmp_path / "clip.wav").write_bytes(Path(clip).read_bytes())
    assert "sonant voice add ann clip.wav" in sonant("voice", "add", "clip.wav", "ann").err


def test_a_file_that_is_called_like_the_voice_turns_nothing_round(sonant, tmp_path):
    (tmp_path / "ann").write_text("notes about her")
    result = sonant("voice", "add", "ann", "misspelt.wav")
    assert result.code == 2
    assert "misspelt.wav" in result.err
    assert "comes first" not in result.err


def test_rm_removes_all_or_none(sonant, clip):
    sonant("voice", "add", "ann", clip)
    assert sonant("voice", "rm", "ann", "nobody").code == 5
    assert VoiceLibrary().names() == ["ann"]


def test_a_voice_added_for_a_model_is_encoded_once(sonant, cloner, clip):
    sonant("voice", "add", "bea", clip, "--model", "toy", "--transcript", WORDS)
    assert len(cloner.given) == 1
    assert VoiceLibrary().get("bea").tensors["mean"].shape == (4,)
    assert sonant("say", "hello", "--voice", "bea").code == 0
    assert len(cloner.given) == 1


def test_a_voice_file_can_be_added_under_another_name(sonant, cloner, clip, tmp_path):
    sonant("voice", "add", "ann", clip, "--model", "toy")
    stored = tmp_path / "voices" / "ann.voice.safetensors"
    assert sonant("voice", "add", "bea", stored, "--transcript", "new words").code == 0
    bea = VoiceLibrary().get("bea")
    assert (bea.transcript, bea.name, dict(bea.tensors)) == ("new words", "bea", {})


@pytest.mark.parametrize("reference", ["clip.wav", "bea", "voices/bea.voice.safetensors"])
def test_say_takes_a_clip_a_name_or_a_voice_file(sonant, cloner, clip, reference):
    sonant("voice", "add", "bea", clip)
    result = sonant("say", "hello", "--voice", reference, "--transcript", WORDS)
    assert result.code == 0, result.err
    assert [words for _, words in cloner.given] == [WORDS]


def test_say_tells_what_voices_there_are(sonant, cloner, clip):
    sonant("voice", "add", "bea", clip)
    result = sonant("say", "hello", "--voice", "nobody")
    assert result.code == 5
    assert "ann" in result.err
    assert "bea" in result.err
    assert sonant("say", "hello", "--voice", "ann", "--transcript", "x").code == 2


def test_a_designed_voice_is_kept_with_its_clip_and_words(sonant, cloner):
    result = sonant("voice", "design", "deep", "--model", "toy", "--instruction", "low", "--text", "one. two")
    assert result.code == 0, result.err
    voice = VoiceLibrary().get("deep")
    assert voice.transcript == "one. two"
    assert voice.clip is not None
    assert voice.origin["instruction"] == "low"


def test_say_designs_and_clones_in_one_step(sonant, cloner):
    arguments = ("say", "hello", "--design-model", "toy", "--instruction", "low", "--design-text", "a" * 60)
    result = sonant(*arguments, "--seed", 2, "--receipt")
    assert result.code == 0, result.err
    ((seconds, words),) = cloner.given
    assert words == "a" * 60
    assert seconds > 0
    assert sonant("replay", "speech.wav.receipt.json").code == 0
    assert sonant(*arguments, "--voice", "ann").code == 2


def check(audio, **options):
    from sonant.voices.doctor import examine

    return examine(audio, **options)


def test_a_good_clip_is_called_good(sonant, clip):
    result = sonant("voice", "check", clip, "--transcript", WORDS)
    assert result.code == 0
    assert "a good reference" in result.text


@pytest.mark.parametrize(
    ("audio", "options", "words"),
    [
        (speechlike(1.5), {}, "at least 3 s"),
        (speechlike(60), {}, "Cut it to one clear passage"),
        (speechlike(6, level=0.01), {}, "quiet"),
        (Audio(np.clip(speechlike(6).samples * 9, -1, 1), 24_000), {}, "clipped"),
        (Audio(np.zeros(100_000, np.float32), 24_000), {}, "silent"),
        (Audio(speechlike(6).samples + np.float32(0.05), 24_000), {}, "DC offset"),
        (speechlike(6), {"transcript": "Yes."}, "fewer words"),
        (speechlike(6), {"transcript": WORDS * 9}, "more words"),
        (speechlike(6), {"transcript": "..."}, "no words"),
    ],
)
def test_what_is_wrong_with_a_clip_is_said(audio, options, words):
    checkup = check(audio, **options)
    assert not checkup.is_good
    assert words in " ".join(remark.message for remark in checkup.advice)


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (speechlike(6, rate=8_000), "sound dull"),
        (Audio(speechlike(6).samples[: 24_000 * 5 + 3_000], 24_000), "cut off"),
        (Audio(np.pad(speechlike(6).samples, (0, 48_000)), 24_000), "ends with 2."),
    ],
)
def test_smaller_flaws_are_notes(audio, words):
    checkup = check(audio)
    assert checkup.is_good
    assert words in " ".join(remark.message for remark in checkup.advice)


def test_a_bad_clip_ends_check_with_one_and_json_says_why(sonant, tmp_path):
    speechlike(1.5).write(tmp_path / "short.wav")
    result = sonant("voice", "check", "short.wav", "--json")
    assert result.code == 1
    data = json.loads(result.text)
    assert data["is_good"] is False
    assert data["advice"][0]["is_problem"]


def test_a_flawed_clip_is_added_with_a_warning(sonant, tmp_path):
    speechlike(1.5).write(tmp_path / "short.wav")
    result = sonant("voice", "add", "ann", "short.wav")
    assert result.code == 0
    assert "warning: It lasts" in result.err
