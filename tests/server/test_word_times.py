"""Word times over HTTP and WebSocket, captions, and how they compare with a recogniser's."""

import base64
import difflib
import io
import json
import re
import statistics

import httpx
import pytest
import soundfile
import soxr
from websockets.sync.client import connect

from sonant.server.captions import TimedWord, captions
from tests.server.conftest import KEY
from tests.server.test_live import hear, tell, url

SENTENCES = """She sells sea shells by the sea shore, and they are lovely.
Yesterday we walked along the river until the sun went down.
The weather is cold, but the sky is clear.
Three small birds sat quietly on the garden wall.
After dinner, they played cards until midnight.
The museum opens at nine and closes at five."""


def post(server, path, **body):
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx.post(
        server.url + path, json={"input": SENTENCES, "seed": 1, **body}, headers=headers, timeout=60
    )


def plain(word):
    return re.sub(r"\W", "", word.lower())


def test_word_times_agree_with_a_recognisers(served, recogniser):
    answer = post(served, "/v1/audio/captioned_speech", response_format="wav").json()
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(answer["audio"])), dtype="float32")
    heard, _ = recogniser.transcribe(
        soxr.resample(samples, rate, 16_000), language="en", beam_size=1, word_timestamps=True
    )
    theirs = [(plain(word.word), word.start, word.end) for part in heard for word in part.words]
    ours = [(plain(w["word"]), w["start_time"], w["end_time"]) for w in answer["timestamps"]]
    assert [word for word, _, _ in ours] == [plain(word) for word in SENTENCES.split()]
    matches = difflib.SequenceMatcher(None, [w[0] for w in ours], [w[0] for w in theirs], autojunk=False)
    errors = [
        abs(ours[match.a + index][edge] - theirs[match.b + index][edge])
        for match in matches.get_matching_blocks()
        for index in range(match.size)
        for edge in (1, 2)
    ]
    assert len(errors) > len(ours)
    assert statistics.median(errors) < 0.12  # 0.065 s over 30 sentences


def test_events_bring_the_same_words_as_the_document(served):
    document = post(served, "/v1/audio/speech", timestamps="word", stream=False, response_format="pcm").json()
    assert (document["format"], document["sample_rate"]) == ("pcm", 24_000)
    text = post(
        served, "/v1/audio/speech", timestamps="word", stream_format="sse", response_format="pcm"
    ).text
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    words = [word for event in events if event["type"] == "speech.audio.words" for word in event["words"]]
    assert words == document["words"]
    assert events[-1]["type"] == "speech.audio.done"
    lasts = len(base64.b64decode(document["audio"])) / 48_000
    assert all(0 <= word["start"] <= word["end"] <= lasts for word in words)
    refused = post(served, "/v1/audio/speech", timestamps="word")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "timestamps")


def test_a_session_tells_its_words_after_each_segment(served):
    with connect(url(served), additional_headers={"X-Api-Key": KEY}) as socket:
        tell(socket, type="start", timestamps="word", seed=1)
        tell(socket, type="text", text="Hello there. How are you?")
        tell(socket, type="done")
        messages, sound = hear(socket)
    told = [message for message in messages if message["type"] == "words"]
    assert [[word["word"] for word in one["words"]] for one in told] == [
        ["Hello", "there"],
        ["How", "are", "you"],
    ]
    assert told[0]["words"][-1]["end"] < told[1]["words"][0]["start"] < len(sound) / 48_000


@pytest.mark.parametrize("form", ["vtt", "srt"])
def test_captions_come_with_the_sound(served, form):
    answer = post(served, "/dev/captioned_speech", caption_format=form, response_format="mp3").json()
    assert answer["audio_format"] == "audio/mpeg"
    lines = answer["captions"].splitlines()
    assert "She sells sea shells by the sea shore, and they are lovely." in lines
    assert lines[0] == ("WEBVTT" if form == "vtt" else "1")


def test_captions_are_well_formed():
    words = [
        TimedWord("One", 0.0, 0.5, "One --> "),
        TimedWord("two", 3599.9996, 3600.25, "two. "),
        TimedWord("3", 3601, 3602, "3"),
    ]
    assert captions(words[1:], "srt") == (
        "1\n01:00:00,000 --> 01:00:00,250\ntwo.\n\n2\n01:00:01,000 --> 01:00:02,000\n3\n"
    )
    assert captions(words[:1], "vtt") == "WEBVTT\n\n00:00:00.000 --> 00:00:00.500\nOne →\n"
    assert captions([], "vtt") == "WEBVTT\n"
