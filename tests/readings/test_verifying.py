"""A segment that is heard wrong is spoken again, the best try is kept, and all of it is told."""

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from sonant.books.cast import Cast
from sonant.books.narration import Line
from sonant.books.stage import Stage
from sonant.engine.engine import Engine
from sonant.errors import DependencyError, RequestError
from sonant.readings.delivery import deliver
from sonant.readings.job import Job
from sonant.readings.pieces import Narration, PieceStore
from sonant.readings.receipt import Receipt, make_receipt
from sonant.readings.verifying import Recognisers, Verified, is_wrong
from sonant.request.audio import Audio
from sonant.request.speech import SpeechRequest, TextFeed
from sonant.text.language import detect_language
from sonant.text.scoring import score_words
from sonant.voices.recogniser import Heard, Recogniser
from tests.toy import ToyModel

TEXT = (
    "one little duck went out to swim. two hungry geese came home again. three grey swans slept by the water"
)
SENTENCES = [sentence.strip() for sentence in TEXT.split(".")]


class Listener:
    """Hears the text of each segment, but garbage for the takes in `wrong` (numbers of hearing)."""

    def __init__(self, texts, wrong=()):
        self.texts, self.wrong, self.lengths = list(texts), dict(wrong), []

    def hear(self, audio, *, language=None):
        number = len(self.lengths)
        self.lengths.append(len(audio.samples))
        return Heard(self.wrong.get(number) or self.texts[number], "en", 1.0)


@pytest.fixture
def engine():
    with Engine(ToyModel(end_bias=float("-inf"))) as made:
        yield made


def read(verified):
    chunks = [verified.get()]
    while not chunks[-1].is_final:
        chunks.append(verified.get())
    return chunks


def test_what_is_heard_right_is_the_engines_own_samples(engine):
    plain = engine.synthesize(SpeechRequest(TEXT, seed=1))
    verified = Verified(engine, SpeechRequest(TEXT, seed=1), tries=2, recogniser=Listener(SENTENCES))
    chunks = read(verified)
    assert np.array_equal(np.concatenate([chunk.samples for chunk in chunks]), plain.samples)
    assert [verdict.text.strip() for verdict in verified.verdicts] == SENTENCES
    assert all(verdict.is_right and not verdict.tries for verdict in verified.verdicts)
    assert [guard.kind for guard in verified.guards] == ["length_ceiling"] * 3
    starts = np.cumsum([0, *(len(chunk.samples) for chunk in chunks[:-1])]) / verified.sample_rate
    assert [chunk.start for chunk in chunks] == pytest.approx(list(starts))


def test_a_wrong_segment_alone_is_spoken_again_with_a_derived_seed(engine):
    garbage = {1: "la la la la la la"}
    plain = engine.synthesize(SpeechRequest(TEXT, seed=1))
    texts = [SENTENCES[0], "", SENTENCES[1], SENTENCES[2]]

    def speak():
        made = Verified(engine, SpeechRequest(TEXT, seed=1), tries=2, recogniser=Listener(texts, garbage))
        return made, np.concatenate([chunk.samples for chunk in read(made)])

    verified, samples = speak()
    first, second, third = verified.verdicts
    assert (first.tries, second.tries, third.tries) == (0, 1, 0)
    assert second.is_right
    told = [guard for guard in verified.guards if guard.kind == "misheard"]
    assert len(told) == 1
    assert "right now" in told[0].message
    assert told[0].segment == 1
    begin = (2 * len(SENTENCES[0]) + 8) * 40
    assert np.array_equal(samples[:begin], plain.samples[:begin])
    assert not np.array_equal(samples, plain.samples)
    assert np.array_equal(speak()[1], samples)
    assert verified.timings["verify_again"] > 0


def test_after_its_tries_the_best_is_kept_and_told(engine):
    wrong = {0: "x x x x x x x x", 1: SENTENCES[0] + " zu fo mi re", 2: "y y y y y y y y y y"}
    listener = Listener(["", "", "", *SENTENCES[1:]], wrong)
    verified = Verified(engine, SpeechRequest(TEXT, seed=1), tries=2, recogniser=listener)
    read(verified)
    verdict = verified.verdicts[0]
    assert (verdict.tries, verdict.is_right, verdict.longest) == (2, False, 4)
    assert any("still heard wrong" in guard.message for guard in verified.guards)


def test_silence_is_not_asked_of_the_recogniser_and_is_wrong(engine):
    class Mute(ToyModel):
        def decoder(self, prompt, *, streaming):
            made = super().decoder(prompt, streaming=streaming)
            push = made.push
            made.push = lambda tokens: push(tokens) * 0.0
            return made

    with Engine(Mute(end_bias=float("-inf"))) as mute:
        verified = Verified(mute, SpeechRequest("one two three", seed=1), tries=1, recogniser=Listener([]))
        read(verified)
    assert verified.verdicts[0].heard == ""
    assert not verified.verdicts[0].is_right


def test_a_silent_first_try_leaves_nothing_in_front_of_the_good_one(engine, monkeypatch):
    class MuteOnce(ToyModel):
        takes = 0

        def decoder(self, prompt, *, streaming):
            self.takes += 1
            made = super().decoder(prompt, streaming=streaming)
            push, loud = made.push, float(self.takes > 1)
            made.push = lambda tokens: push(tokens) * loud
            return made

    with Engine(MuteOnce(end_bias=float("-inf"))) as mute:
        verified = Verified(
            mute, SpeechRequest(SENTENCES[0], seed=1), tries=1, recogniser=Listener(SENTENCES)
        )
        (chunk,) = read(verified)
    assert verified.verdicts[0].is_right
    whole = engine.synthesize(SpeechRequest(SENTENCES[0], seed=1))
    assert 0 < len(chunk.samples) <= len(whole.samples)
    assert np.flatnonzero(chunk.samples)[0] < len(chunk.samples) / 2


@pytest.mark.parametrize(
    ("said", "heard", "wrong"),
    [
        ("one two three four five six seven eight", "one two three for five six seven ate", False),
        ("one two three four five six seven eight", "one two three", True),
        ("good morning", "", True),
        ("good morning", "good morning", False),
        ("Siobhan", "Shavon", False),
    ],
)
def test_the_longest_run_decides(said, heard, wrong):
    assert is_wrong(score_words(said, heard)) is wrong


def test_receipt_and_outcome_hold_what_was_heard(engine, tmp_path):
    job = Job(text=TEXT, verify=True, de_rumble="off")
    verified = Verified(engine, SpeechRequest(TEXT, seed=1), tries=0, recogniser=Listener(SENTENCES))
    target = tmp_path / "a.wav"
    outcome = deliver(verified, job, target=target)
    assert [verdict.is_right for verdict in outcome.verdicts] == [True] * 3
    receipt = make_receipt(job, spec=engine.spec, voice=None, outcome=outcome, recording=target)
    receipt.save(tmp_path / "r.json")
    again = Receipt.load(tmp_path / "r.json")
    assert [row["heard"] for row in again.verdicts] == SENTENCES
    assert again.job.verify
    data = json.loads((tmp_path / "r.json").read_text())
    del data["verdicts"]
    (tmp_path / "old.json").write_text(json.dumps(data))
    assert Receipt.load(tmp_path / "old.json").verdicts == ()


def test_pieces_are_listened_to_and_kept_apart_from_those_that_were_not(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(Recognisers, "of", lambda *given: Listener([SENTENCES[0]] * 9))
    plain = PieceStore(engine, Job(text="", in_pieces=True), None, tmp_path)
    job = Job(text="", in_pieces=True, verify=True)
    store = PieceStore(engine, job, None, tmp_path)
    assert store.entry(SENTENCES[0]) != plain.entry(SENTENCES[0])
    told = store.tell(SENTENCES[0])
    assert not told.is_kept
    assert len(store.verdicts) == 1
    assert store.tell(SENTENCES[0]).is_kept
    assert np.array_equal(plain.tell(SENTENCES[0]).samples, told.samples)


SHORT = ("He met Mr. de la Cruz.", "“Am I?”", "“Die!”")
"""Sentences that say nothing of their language, or seem to be in another."""


def test_a_short_sentence_is_heard_in_the_language_of_the_whole(engine, tmp_path, monkeypatch):
    loaded = []

    class English:
        def __init__(self, language):
            loaded.append(language)

        def understands(self, language):
            return language == "english"

        def hear(self, audio, *, language=None):
            return Heard("", None)

    monkeypatch.setattr(Recogniser, "of_language", English)
    text = "\n\n".join([TEXT, *SHORT])
    assert any(detect_language(sentence) not in (None, "english") for sentence in SHORT)
    job = Job(text=text, verify=True, verify_tries=0, in_pieces=True)
    reading = Narration(engine, job, None, tmp_path / "a")
    read(reading)
    assert len(reading.verdicts) >= 1 + len(SHORT)
    assert not [guard for guard in reading.guards if guard.kind == "unspeakable"]
    stage = Stage(
        replace(job, text=""), Cast(), tmp_path / "b", open_engine=lambda job: nullcontext(engine),
        voice_of=lambda job, spec: None,
    )  # fmt: skip
    lines = [Line(0, n, sentence, 0.0, number=n) for n, sentence in enumerate((*SHORT, *SENTENCES))]
    heard = stage.speak(lines)
    assert (len(heard.heard), heard.failures) == (len(lines), [])
    assert loaded == ["english"] * 2  # one for each reading


def test_a_recogniser_that_cannot_be_had_is_told_before_the_first_word(engine, tmp_path, monkeypatch):
    calls = []

    def english(language):
        calls.append(language)
        return Deaf()

    monkeypatch.setattr(Recogniser, "of_language", english)
    german = "Der Hund lief über die Straße, und niemand hat ihn gesehen."

    def new_stage():
        return Stage(
            Job(text="", verify=True, in_pieces=True), Cast(), tmp_path, voice_of=lambda job, spec: None,
            open_engine=lambda job: pytest.fail("loaded"),
        )  # fmt: skip

    stage = new_stage()
    for _ in range(3):
        with pytest.raises(RequestError, match="name its language"):
            stage.speak([Line(0, 1, german, 0.0)])
    assert calls == ["german"]  # the refusal is remembered
    monkeypatch.setattr(Recogniser, "of_language", lambda language: raised())
    with pytest.raises(DependencyError), new_stage().store(["Good morning, and welcome to the house."]):
        pass


def test_refusals(engine, monkeypatch):
    clip = Audio(np.zeros(8000, np.float32), 8000)
    for given in ({"source_audio": clip}, {"text_feed": TextFeed()}):
        with pytest.raises(RequestError, match="--verify"):
            Verified(engine, replace(SpeechRequest("", seed=1), **given), tries=1, recogniser=Listener([]))
    monkeypatch.setattr(Recogniser, "of_language", lambda language: Deaf())
    with pytest.raises(RequestError, match="chinese"):
        Recognisers().of(None, "今天天气很好，我们去公园散步。")
    assert Recognisers().of(None, "Good morning.")
    monkeypatch.setattr(Recogniser, "of_language", lambda language: raised())
    with pytest.raises(DependencyError, match="judge"):
        Verified(engine, SpeechRequest("hello", seed=1), tries=1)


class Deaf:
    def understands(self, language):
        return language == "english"


def raised():
    raise DependencyError("install sonant[judge]")
