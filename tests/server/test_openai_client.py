"""The official Python client against a real server process with the built-in voice."""

import base64
import json
from dataclasses import replace

import httpx
import numpy as np
import openai
import pytest

from sonant.audio.io import read_audio
from sonant.audio.loudness import Leveller
from sonant.catalogue.registry import load
from sonant.request.settings import LOUDNESS
from sonant.request.speech import SpeechRequest
from tests.server.conftest import KEY, wait_until

TEXT = "The quick brown fox jumps over the lazy dog."
FORMATS = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def expected():
    """The same sentence from the library, without a server, levelled as what leaves is."""
    with load("builtin") as engine:
        speech = engine.synthesize(SpeechRequest(TEXT, seed=5))
    return replace(speech, samples=Leveller(LOUDNESS, speech.sample_rate).push(speech.samples))


def decode(data, form):
    if form == "pcm":
        return np.frombuffer(data, "<i2").astype(np.float32) / 32768, 24_000
    return read_audio(data)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_decodes_to_the_speech_the_library_makes(client, expected, form):
    answer = client.audio.speech.create(
        model="tts-1", voice="alloy", input=TEXT, response_format=form, extra_body={"seed": 5}
    )
    assert answer.response.headers["content-type"] == FORMATS[form]
    assert answer.response.headers["x-sonant-seed"] == "5"
    assert answer.response.headers["x-sonant-voice"] == "heart"
    samples, rate = decode(answer.content, form)
    assert int(answer.response.headers["x-sample-rate"]) == rate
    assert len(samples) / rate == pytest.approx(expected.seconds, abs=0.15)
    if form in ("wav", "flac", "pcm"):
        assert np.abs(samples - expected.samples).max() <= 1 / 32768
    loudness = np.sqrt(np.mean(samples**2)) / np.sqrt(np.mean(expected.samples**2))
    assert loudness == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("form", ["mp3", "opus"])
def test_what_is_said_is_understood(client, recogniser, tmp_path, form):
    path = tmp_path / f"speech.{form}"
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input=TEXT, response_format=form
    ) as answer:
        answer.stream_to_file(path)
    segments, _ = recogniser.transcribe(str(path), language="en", beam_size=1)
    heard = "".join(segment.text for segment in segments).lower()
    for word in ("quick", "brown", "fox", "jumps", "lazy", "dog"):
        assert word in heard, heard


def test_sound_arrives_before_the_whole_text_is_spoken(client, served):
    text = " ".join(f"This is sentence number {n}, and it is not very short." for n in range(60))
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=text, response_format="pcm"
    ) as answer:
        pieces = answer.iter_bytes(4096)
        size = len(next(pieces))
        record = f"{served.url}/v1/requests/{answer.headers['x-request-id']}"
        outcome = httpx.get(record, headers={"Authorization": f"Bearer {KEY}"}).json()["outcome"]
        size += sum(map(len, pieces))
    assert outcome == "running"
    assert size / 48_000 > 120


def test_events_carry_the_same_bytes_and_end_with_usage(client):
    arguments = {"model": "tts-1", "voice": "alloy", "input": TEXT, "extra_body": {"seed": 9}}
    plain = client.audio.speech.create(response_format="mp3", **arguments).content
    with client.audio.speech.with_streaming_response.create(
        response_format="mp3", stream_format="sse", **arguments
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    events = [json.loads(line) for line in lines[:-1]]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == plain
    assert events[-1]["type"] == "speech.audio.done"
    counts = events[-1]["usage"]
    assert counts["total_tokens"] == counts["input_tokens"] + counts["output_tokens"] > len(TEXT)


def test_five_thousand_characters_are_spoken(client):
    sentence = "It was a bright cold day in April, and the clocks were striking. "
    text = (sentence * 80)[:5000]
    answer = client.audio.speech.create(model="tts-1-hd", voice="nova", input=text, response_format="flac")
    samples, rate = read_audio(answer.content)
    assert 200 < len(samples) / rate < 600


def test_a_wrong_key_is_an_authentication_error(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="sk-wrong", max_retries=0) as wrong:
        with pytest.raises(openai.AuthenticationError) as caught:
            wrong.audio.speech.create(model="tts-1", voice="alloy", input="Hello.")
        assert caught.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            wrong.models.list()


def test_an_unknown_voice_is_named_and_not_replaced(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.audio.speech.create(model="tts-1", voice="nobody", input="Hello.")
    assert caught.value.param == "voice"
    assert "nobody" in caught.value.message
    assert "heart" in caught.value.message


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.audio.speech.create(model="gpt-9", voice="alloy", input="Hello.")
    assert caught.value.code == "model_not_found"


def test_a_knob_the_model_lacks_is_refused_by_name(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.speech.create(model="tts-1", voice="alloy", input="Hello.", instructions="whisper")
    assert (caught.value.code, caught.value.param) == ("unsupported", "instructions")
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.speech.create(
            model="tts-1", voice="alloy", input="Hello.", extra_body={"temperature": 0.7}
        )
    assert (caught.value.code, caught.value.param) == ("unsupported", "temperature")


def test_a_voice_may_be_an_object(client):
    answer = client.audio.speech.create(
        model="tts-1", voice={"id": "heart"}, input="Hello.", response_format="pcm"
    )
    assert len(answer.content) > 10_000


def test_speed_shortens_the_speech(client):
    def seconds(speed):
        answer = client.audio.speech.create(
            model="tts-1",
            voice="heart",
            input=TEXT,
            speed=speed,
            response_format="pcm",
            extra_body={"seed": 1},
        )
        return len(answer.content) / 48_000

    assert seconds(1.5) < 0.8 * seconds(1.0)


def test_models_are_listed_with_aliases_and_capabilities(client):
    names = [model.id for model in client.models.list()]
    assert names[0] == "builtin"
    assert {"tts-1", "tts-1-hd", "gpt-4o-mini-tts"} <= set(names)
    model = client.models.retrieve("tts-1").model_dump()
    assert model["alias_of"] == "builtin"
    assert model["capabilities"]["voices"] == ["heart"]
    assert model["capabilities"]["capabilities"] == ["preset_voice", "pronunciation", "seed", "speed"]


def test_cancel_in_the_middle_stops_the_work(client, served):
    text = " ".join(f"This is sentence number {n} of a rather long story." for n in range(400))
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=text, response_format="pcm"
    ) as answer:
        request_id = answer.headers["x-request-id"]
        next(answer.iter_bytes(4096))
    headers = {"Authorization": f"Bearer {KEY}"}

    def record():
        return httpx.get(f"{served.url}/v1/requests/{request_id}", headers=headers).json()

    wait_until(lambda: record()["outcome"] != "running")
    assert record()["outcome"] == "client_gone"
    assert record()["audio_seconds"] < 0.5 * len(text) / 15


def test_the_same_seed_gives_the_same_bytes(client):
    def speak(seed):
        arguments = {"model": "builtin", "voice": "heart", "input": TEXT, "response_format": "opus"}
        return client.audio.speech.create(extra_body={"seed": seed}, **arguments).content

    assert speak(3) == speak(3) != speak(4)


def test_the_finished_file_has_true_lengths_when_stream_is_false(client):
    answer = client.audio.speech.create(
        model="tts-1", voice="alloy", input=TEXT, response_format="wav", extra_body={"stream": False}
    )
    assert int(answer.response.headers["content-length"]) == len(answer.content)
    assert int.from_bytes(answer.content[40:44], "little") == len(answer.content) - 44


@pytest.mark.anyio
async def test_the_asynchronous_client_streams_too(served, anyio_backend):
    async with (
        openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0) as client,
        client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="alloy", input=TEXT, response_format="wav"
        ) as answer,
    ):
        data = b"".join([piece async for piece in answer.iter_bytes()])
    assert read_audio(data)[1] == 24_000


@pytest.fixture
def anyio_backend():
    return "asyncio"


def test_nothing_that_was_said_is_in_the_log(client, served):
    marker = "Xylophonic marmalade"
    client.audio.speech.create(model="tts-1", voice="alloy", input=f"{marker}.")
    with pytest.raises(openai.BadRequestError):
        client.audio.speech.create(model="tts-1", voice="alloy", input=marker, instructions=marker)
    with pytest.raises(openai.NotFoundError) as caught:
        client.audio.speech.create(model="tts-1", voice="marmalade", input=marker)
    wait_until(lambda: f"{caught.value.request_id} refused" in "".join(served.errors))
    log = "".join(served.errors).lower()
    assert log.count("model builtin is ready") == 1  # each line once
    assert "marmalade" not in log
    assert KEY not in log
