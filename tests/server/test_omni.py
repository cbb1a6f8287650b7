"""vLLM-Omni's WebSocket messages on the same route, as its own tests and clients send them."""

import asyncio
import base64
import gc
import json
from types import SimpleNamespace

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from sonant.audio.io import read_audio
from sonant.server.settings import ServerSettings
from sonant.server.wire import Wire, until_one_ends
from tests.server.conftest import PATIENCE, toy_source, wait_until
from tests.server.test_live import tell, toy_server, url  # noqa: F401  (a fixture)


def until(socket, kind):
    messages, sounds = [], []
    while not messages or messages[-1]["type"] != kind:
        got = socket.recv(timeout=PATIENCE)
        if isinstance(got, bytes):
            sounds.append(got)
        else:
            messages.append(json.loads(got))
    return messages, sounds


def test_an_utterance_is_one_file_and_the_connection_stays(toy_server):  # noqa: F811
    with connect(url(toy_server)) as socket:
        tell(socket, type="session.config", voice="ann", seed=1, task_type="CustomVoice")
        for number in range(2):
            for piece in ("Hello ", "world. And", " more."):
                tell(socket, type="input.text", text=piece)
            tell(socket, type="input.done")
            messages, [sound] = until(socket, "session.done")
            place = {"utterance_index": number, "sentence_index": 0}
            start = {
                "type": "audio.start",
                **place,
                "sentence_text": "Hello world. And more.",
                "format": "wav",
            }
            done = {"type": "audio.done", **place, "total_bytes": len(sound), "error": False}
            end = {"type": "session.done", "utterance_index": number, "total_sentences": 1}
            assert messages == [start, done, end]
            assert len(read_audio(sound)[0]) > 1_000
        tell(socket, type="session.close")
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=PATIENCE)


def test_sentences_are_streamed_as_pcm(toy_server):  # noqa: F811
    with connect(url(toy_server)) as socket:
        tell(
            socket,
            type="session.config",
            response_format="pcm",
            stream_audio=True,
            split_granularity="sentence",
        )
        tell(socket, type="input.text", text="One is here. Two is")
        messages, sounds = until(socket, "audio.done")
        assert messages[0]["sentence_text"] == "One is here."
        assert (messages[0]["sample_rate"], messages[0]["channels"]) == (24_000, 1)
        assert messages[1]["total_bytes"] == sum(map(len, sounds)) > 1_000
        tell(socket, type="input.text", text=" here.")
        tell(socket, type="input.done")
        messages, _ = until(socket, "session.done")
        assert messages[-1]["total_sentences"] == 2


def test_an_error_is_a_message_and_the_connection_stays(toy_server):  # noqa: F811
    with connect(url(toy_server)) as socket:
        tell(socket, type="session.config", voice="nobody")
        tell(socket, type="input.text", text="Hello.")
        tell(socket, type="input.done")
        messages, sounds = until(socket, "session.done")
        assert [m["type"] for m in messages] == ["error", "audio.start", "audio.done", "session.done"]
        assert "nobody" in messages[0]["message"]
        assert (messages[2]["error"], messages[2]["total_bytes"], sounds) == (True, 0, [])
        for wrong in (
            {"type": "sing"},
            {"type": "input.text", "text": 5},
            {"type": "input.text", "text": "x" * 60_000},
        ):
            tell(socket, **wrong)
            assert "error" in until(socket, "error")[0][0]
        tell(socket, type="session.config", voice="ann")
        tell(socket, type="input.text", text="Hello.")
        tell(socket, type="input.done")
        assert len(until(socket, "session.done")[1][0]) > 1_000


def test_a_client_has_its_time_after_the_speech_and_not_beside_it():
    """With 300 s a client whose utterance took 290 s to speak had 10 s to answer."""

    async def talk():
        wire = Wire(SimpleNamespace(settings=ServerSettings()), FakeSocket())
        loop = asyncio.get_running_loop()
        wire.is_speaking = True
        waiting = asyncio.create_task(wire._next(0.2))
        await asyncio.sleep(0.5)  # speaks longer than a client may be silent
        began = loop.time()
        wire.is_speaking = False
        with pytest.raises(TimeoutError):
            await waiting
        return loop.time() - began

    assert asyncio.run(talk()) >= 0.19  # of the loop's own clock, and at least


def test_what_both_sides_of_a_session_end_with_is_read(caplog):
    async def fail(error):
        raise error

    async def talk():
        with pytest.raises(KeyError):
            await until_one_ends(fail(KeyError("first")), fail(ValueError("second")))

    gc.collect()  # what earlier tests left is theirs
    caplog.clear()
    asyncio.run(talk())
    gc.collect()
    assert not caplog.records


class FakeSocket:
    """A socket on which nothing is said."""

    scope = {"state": {"caller": None}}  # noqa: RUF012
    state = SimpleNamespace(request_id="ws")

    async def receive_text(self):
        await asyncio.Event().wait()


@pytest.mark.parametrize("wrong", [{"voice": 5}, {"model": "none"}, {"split_granularity": "word"}])
def test_a_first_config_that_is_refused_leaves_the_session_as_it_was(toy_server, wrong):  # noqa: F811
    """Found by a fuzzer: the utterance after it was an internal error, and the end of the session."""
    with connect(url(toy_server)) as socket:
        tell(socket, type="session.config", **wrong)
        assert until(socket, "error")[0][-1]["error"]["code"] in ("invalid_request", "model_not_found")
        tell(socket, type="input.text", text="Hello.")
        tell(socket, type="input.done")
        assert len(until(socket, "session.done")[1][0]) > 1_000


@pytest.mark.parametrize("stream_audio", [False, True])
def test_leaving_stops_the_work_though_nothing_is_being_sent(start, stream_audio):
    """An utterance that is sent whole was spoken to its end for nobody."""
    server = start(toy_source(end_bias=float("-inf"), length=8_000, chunk_limit=100_000))
    engine = server.engine()
    with connect(url(server)) as socket:
        tell(socket, type="session.config", stream_audio=stream_audio)
        tell(socket, type="input.text", text="long story")
        tell(socket, type="input.done")
        tell(socket, type="input.text", text="and what comes after it")
        wait_until(lambda: engine.load == (1, 0))
    wait_until(lambda: engine.load == (0, 0))
    assert engine.steps < 8_000
    wait_until(lambda: not server.service.sockets)
    assert server.service.metrics.records[-1].outcome == "client_gone"


def test_word_times_come_after_the_sound_in_messages(toy_server):  # noqa: F811
    with connect(url(toy_server)) as socket:
        manner = {"response_format": "pcm", "stream_audio": True, "seed": 1}
        tell(socket, type="session.config", word_timestamps=True, **manner)
        tell(socket, type="input.text", text="Hello there world.")
        tell(socket, type="input.done")
        messages, sounds = until(socket, "session.done")
        assert sounds == []
        start, *chunks, last, done, _ = messages
        assert (start["type"], start["word_timestamps"], start["sample_rate"]) == (
            "audio.start",
            True,
            24_000,
        )
        assert [chunk["chunk_id"] for chunk in (*chunks, last)] == list(range(len(chunks) + 1))
        heard = b"".join(base64.b64decode(chunk["audio_b64"]) for chunk in chunks)
        assert {chunk["timestamps"] for chunk in chunks} == {None}
        ends = [chunk["chunk_end_ms"] for chunk in chunks]
        assert [chunk["chunk_start_ms"] for chunk in chunks] == [0, *ends[:-1]]
        assert last["audio_b64"] == ""
        assert last["chunk_end_ms"] == ends[-1] == round(len(heard) / 48)
        assert [word["word"] for word in last["timestamps"]] == ["Hello", "there", "world"]
        times = [word[edge] for word in last["timestamps"] for edge in ("start_ms", "end_ms")]
        assert times == sorted(times)
        assert times[-1] <= ends[-1]
        assert (done["total_bytes"], done["error"]) == (len(heard), False)

        tell(socket, type="session.config", word_timestamps=True, response_format="wav")
        tell(socket, type="input.text", text="Hello.")
        tell(socket, type="input.done")
        messages, _ = until(socket, "session.done")
        assert [message["type"] for message in messages] == [
            "error",
            "audio.start",
            "audio.done",
            "session.done",
        ]
        assert "stream_audio true" in messages[0]["message"]
        assert messages[2]["error"] is True

        tell(socket, type="session.config", **manner)  # without it, bytes as ever
        tell(socket, type="input.text", text="Hello there world.")
        tell(socket, type="input.done")
        assert b"".join(until(socket, "session.done")[1]) == heard
