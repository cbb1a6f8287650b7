"""One place chooses the front end; what is not spoken is told by name, and refused where it is all."""

from dataclasses import replace

import numpy as np
import pytest

from sonant.engine.engine import Engine
from sonant.errors import RequestError, UnsupportedError
from sonant.readings.job import Job
from sonant.readings.pieces import Narration, split_pieces
from sonant.request.checks import check_request
from sonant.request.explained import any_model, explain
from sonant.request.speech import ChunkPolicy, SpeechRequest, TextFeed
from sonant.request.spoken import request_of, spoken_parts, stretch_of
from tests.toy import ToyModel

ENGLISH = replace(any_model(), name="anglo", languages=("english",), capabilities=frozenset({"speed"}))


def texts(text, spec=ENGLISH, **fields):
    return [part.text for part in spoken_parts(SpeechRequest(text, **fields), spec)]


def test_the_request_chooses_then_the_model():
    text = "# It costs $5"
    assert texts(text) == ["It costs five dollars"]
    assert texts(text, normalize="original") == texts(text, normalize="off") == [text]
    assert texts(text, replace(ENGLISH, normalize="original")) == [text]


def test_true_is_the_models_choice_and_false_is_off():
    assert SpeechRequest("x", normalize=True).normalize is None
    assert SpeechRequest("x", normalize=False).normalize == "off"
    with pytest.raises(RequestError, match="sonant"):
        SpeechRequest("x", normalize="loud")


def test_what_a_model_cannot_switch_off_is_refused_by_name():
    spec = replace(ENGLISH, front_ends=("sonant", "original"))
    with pytest.raises(UnsupportedError, match="sonant, original"):
        check_request(SpeechRequest("x", normalize="off"), spec)


def test_a_text_feed_is_not_read_and_says_so():
    spec = replace(ENGLISH, capabilities=frozenset({"text_stream"}))
    check_request(SpeechRequest("", text_feed=TextFeed()), spec)
    with pytest.raises(RequestError, match="feed"):
        check_request(SpeechRequest("", text_feed=TextFeed(), normalize="sonant"), spec)


def test_words_without_sound_are_told_by_name():
    (part,) = spoken_parts(SpeechRequest("Say 你好 and สวัสดี ⌘ now"), ENGLISH)
    (guard,) = part.guards
    assert guard.kind == "unspeakable"
    assert all(word in guard.message for word in ("你好", "สวัสดี", "⌘", "anglo"))


@pytest.mark.parametrize("normalize", ["sonant", "original", "off"])
def test_a_text_of_which_nothing_can_be_spoken_is_refused(normalize):
    with pytest.raises(RequestError, match="nothing in") as caught:
        texts("你好。\n\nこんにちは", normalize=normalize)
    assert caught.value.field == "text"


def test_a_paragraph_that_cannot_be_spoken_is_left_out_with_a_guard():
    parts = list(spoken_parts(SpeechRequest("One.\n\n你好\n\nTwo."), ENGLISH))
    assert [part.text for part in parts] == ["One.", "Two."]
    assert [guard.kind for part in parts for guard in part.guards] == ["unspeakable"]


def test_a_text_without_words_is_its_pauses():
    parts = list(spoken_parts(SpeechRequest("... [pause:1s] --"), ENGLISH))
    assert [(part.text, part.pause_after) for part in parts] == [("", 1.0)]


def test_what_ssml_asks_for_and_is_not_done_is_told():
    text = '<speak><emphasis>Hi</emphasis> <prosody pitch="high" rate="200%">you</prosody></speak>'
    parts = list(spoken_parts(SpeechRequest(text), ENGLISH))
    told = " ".join(guard.message for part in parts for guard in part.guards)
    assert "emphasis" in told
    assert "prosody pitch" in told
    assert [part.rate for part in parts] == [1.0, 2.0]


def test_pace_goes_to_the_model_or_to_the_stretching():
    request = SpeechRequest("x", speed=1.5)
    (part,) = spoken_parts(request, ENGLISH)
    plain = replace(ENGLISH, capabilities=frozenset())
    assert (request_of(request, part, 1, ENGLISH).speed, stretch_of(request, part, ENGLISH)) == (1.5, 1.0)
    assert (request_of(request, part, 1, plain).speed, stretch_of(request, part, plain)) == (1.0, 1.5)


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_a_model_without_a_pace_is_stretched_streamed_or_not(speed):
    with Engine(ToyModel()) as engine:
        plain = engine.synthesize(SpeechRequest("a long enough text to hear", seed=1))
        request = SpeechRequest("a long enough text to hear", seed=1, speed=speed)
        whole = engine.synthesize(request)
        streamed = []
        for policy in (ChunkPolicy(first=1, largest=1), ChunkPolicy(first=7, largest=50)):
            with engine.stream(replace(request, chunk_policy=policy)) as stream:
                streamed.append(np.concatenate([chunk.samples for chunk in stream]))
        assert whole.seconds == pytest.approx(plain.seconds / speed, rel=0.2)
        assert np.allclose(*streamed, atol=1e-6)  # the toy's own pieces differ by rounding
        assert len(streamed[0]) == len(whole.samples)
        with pytest.raises(UnsupportedError, match="exact"):
            engine.synthesize(replace(request, exact=True))


def test_explanation_names_rules_and_units():
    made = explain(SpeechRequest("Pay $3.\n\nDone."), ENGLISH, units=str.split)
    assert made["front_end"] == "sonant"
    first, second = made["data"]
    assert first["changes"] == [{"rule": "amount of money", "written": "$3", "spoken": "three dollars"}]
    assert (first["units"], second["sentences"]) == (["Pay", "three", "dollars."], ["Done."])


def test_pieces_are_parted_at_any_systems_line_ends():
    text = "Para one here.\n\nPara two here.\n\n" * 12
    assert len(split_pieces(text.replace("\n", "\r\n"), "sonant")) == len(split_pieces(text, "sonant")) == 24
    with pytest.raises(RequestError, match="SSML"):
        split_pieces("<speak>a</speak>", "sonant")


def test_old_jobs_keep_their_front_end():
    assert Job.from_data({"text": "x", "normalize": True}).get("normalize") == "original"
    assert Job.from_data({"text": "x", "normalize": False}).get("normalize") == "off"
    assert (
        Job.from_data(Job(text="x", settings={"normalize": "sonant"}).to_data()).get("normalize") == "sonant"
    )


def test_a_reading_goes_on_past_what_cannot_be_spoken(tmp_path):
    model = ToyModel()
    with Engine(model) as engine:
        job = Job(text="Intro here.\n\n你好\n\nEnd here.", in_pieces=True, settings={"seed": 1})
        reading = Narration(engine, job, None, tmp_path)
        chunks = [reading.get() for _ in reading.pieces]
        assert [len(chunk.samples) > 0 for chunk in chunks] == [True, False, True]
        assert "unspeakable" in [guard.kind for guard in reading.guards]
        again = Narration(engine, job, None, tmp_path)
        assert [len(again.get().samples) for _ in again.pieces] == [len(chunk.samples) for chunk in chunks]
        with pytest.raises(RequestError, match="nothing in"):
            Narration(engine, replace(job, text="你好"), None, tmp_path).get()
