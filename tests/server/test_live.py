"""The WebSocket: text in while sound comes out, cancel, errors, keys."""

import contextlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from sonant.audio.io import read_audio
from sonant.catalogue.registry import load
from sonant.engine.engine import Engine
from sonant.errors import RequestError
from sonant.request.audio import Audio
from sonant.request.voice import Voice
from sonant.server.live import (
    LONGEST_FED,
    LONGEST_FED_WORD,
    LONGEST_SENTENCE,
    Heard,
    LiveSession,
    SentenceCutter,
    characters_heard,
)
from sonant.server.models import ModelSource
from sonant.server.settings import ServerSettings
from tests.server.conftest import KEY, PATIENCE, LongToy, toy_source, wait_until

QWEN = Path(__file__).parents[1] / "data" / "qwen3_tts" / "checkpoints" / "base_1p7b"
COSY = Path(__file__).parents[1] / "data" / "cosyvoice3"


def url(server):
    return server.url.replace("http", "ws") + "/v1/audio/speech/stream"


def tell(socket, **message):
    socket.send(json.dumps(message))


def hear(socket, until="speech.audio.done"):
    """Messages and sound up to a message of this type."""
    messages, sound = [], bytearray()
    while True:
        got = socket.recv(timeout=PATIENCE)
        if isinstance(got, bytes):
            sound += got
            continue
        messages.append(json.loads(got))
        if messages[-1]["type"] in (until, "error"):
            return messages, bytes(sound)


def test_sentences_come_out_as_soon_as_the_text_shows_their_end():
    cutter = SentenceCutter()
    assert cutter.push("Good morn") == []
    assert cutter.push("ing. I am") == ["Good morning. "]
    assert cutter.push(" Dr. Ann. ") == []
    assert cutter.push("Who are you?\n\nNew") == ["I am Dr. Ann. ", "Who are you?"]
    assert cutter.flush() == ["New"]
    assert cutter.flush() == []


def test_no_text_is_lost_however_it_arrives_and_nothing_is_held_forever():
    text = "One two. Three, four! " * 20 + "word " * 1000 + "End."
    for size in (1, 7, 1000):
        cutter = SentenceCutter()
        made = []
        for begin in range(0, len(text), size):
            made += cutter.push(text[begin : begin + size])
            assert cutter.pending <= LONGEST_SENTENCE + size
        assert "".join(made + cutter.flush()) == text


def test_a_flood_of_text_without_an_end_takes_linear_time():
    began = time.thread_time()
    cutter = SentenceCutter()
    for _ in range(200):
        cutter.push("1" * 1000)
    assert time.thread_time() - began < 5


def test_speech_starts_while_text_still_comes(served):
    headers = {"Authorization": f"Bearer {KEY}"}
    with connect(url(served), additional_headers=headers) as socket:
        tell(socket, type="start", voice="heart", response_format="pcm", seed=1)
        for piece in ("Good mor", "ning, every", "body. This is", " not finished"):
            tell(socket, type="text", text=piece)
        first = json.loads(socket.recv(timeout=PATIENCE))
        assert first["type"] == "started"
        assert (first["sample_rate"], first["voice"], first["model"]) == (24_000, "heart", "builtin")
        segment = json.loads(socket.recv(timeout=PATIENCE))
        assert segment == {"type": "segment", "index": 0, "text": "Good morning, everybody. "}
        early = socket.recv(timeout=PATIENCE)
        assert len(early) > 10_000
        tell(socket, type="text", text=" yet.")
        tell(socket, type="done")
        messages, sound = hear(socket)
        assert [m["text"] for m in messages if m["type"] == "segment"] == ["This is not finished yet."]
        assert messages[-1]["usage"]["input_tokens"] == len(
            "Good morning, everybody. This is not finished yet."
        )
        assert len(sound) > 10_000
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=PATIENCE)


@pytest.mark.parametrize("form", ["wav", "mp3", "opus", "flac"])
def test_the_pieces_of_a_session_are_one_file(served, form):
    with connect(url(served), additional_headers={"X-Api-Key": KEY}) as socket:
        tell(socket, type="start", response_format=form)
        tell(socket, type="text", text="One sentence. And another one.")
        tell(socket, type="done")
        _, sound = hear(socket)
    samples, rate = read_audio(sound)
    assert 1.0 < len(samples) / rate < 6.0
    assert np.abs(samples).max() > 0.05


def test_a_key_is_needed_and_a_browser_may_send_it_as_a_subprotocol(served):
    with pytest.raises(InvalidStatus) as caught, connect(url(served)):
        pass
    assert caught.value.response.status_code == 403
    with connect(url(served), subprotocols=["sonant", f"openai-insecure-api-key.{KEY}"]) as socket:
        assert socket.subprotocol == "sonant"
        tell(socket, type="done")
        messages, sound = hear(socket)
        assert messages[-1]["type"] == "speech.audio.done"
        assert sound == b""


def test_cancel_silences_at_once_and_the_session_goes_on(start):
    server = start(toy_source(end_bias=float("-inf"), length=8_000, chunk_limit=8))
    engine = server.engine()
    with connect(url(server)) as socket:
        tell(socket, type="text", text="long story. Another. And")
        while not isinstance(socket.recv(timeout=PATIENCE), bytes):
            pass
        tell(socket, type="cancel")
        hear(socket, until="cancelled")
        wait_until(lambda: engine.load == (0, 0))
        assert engine.steps < 4_000
        tell(socket, type="text", text="short")
        tell(socket, type="done")
        messages, sound = hear(socket)
        assert [m["text"] for m in messages if m["type"] == "segment"] == ["short"]
        assert len(sound) > 1_000


def test_leaving_stops_the_work(start):
    server = start(toy_source(end_bias=float("-inf"), length=8_000, chunk_limit=100_000))
    engine = server.engine()
    with connect(url(server)) as socket:
        tell(socket, type="text", text="long story. And")
        while not isinstance(socket.recv(timeout=PATIENCE), bytes):
            pass
        assert engine.load == (1, 0)
    wait_until(lambda: engine.load == (0, 0))
    assert engine.steps < 8_000


def test_a_listener_that_does_not_read_holds_up_itself_alone(start):
    server = start(toy_source(end_bias=float("-inf"), length=8_000, slots=2, chunk_limit=4))
    engine = server.engine()
    with connect(url(server), max_queue=1) as slow:
        tell(slow, type="text", text="long story. And")
        wait_until(lambda: engine.load == (1, 0))
        steps = -1
        while engine.steps != steps:  # until every buffer is full and it is paused
            steps = engine.steps
            time.sleep(0.1)
        assert steps < 7_000
        with connect(url(server)) as other:
            tell(other, type="text", text="short")
            tell(other, type="done")
            assert len(hear(other)[1]) > 1_000
        assert engine.load == (1, 0)
        tell(slow, type="cancel")  # is obeyed even now
        wait_until(lambda: engine.load == (0, 0))
        hear(slow, until="cancelled")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "invalid_request"),
        ("[1]", "invalid_request"),
        ('"x"', "invalid_request"),
        (b"\x00\x01", "invalid_request"),
        ("[" * 50_000, "invalid_request"),
        ('{"type": "sing"}', "invalid_request"),
        ('{"type": "text"}', "missing_required_field"),
        ('{"type": "text", "text": 5}', "invalid_request"),
        ('{"type": "text", "text": "x", "loud": 1}', "unknown_field"),
        ('{"type": "start", "model": "none"}', "model_not_found"),
        ('{"type": "start", "response_format": "ogg"}', "unsupported_response_format"),
        ('{"type": "text", "text": "' + "x" * 60_000 + '"}', "input_too_long"),
    ],
)
def test_bad_messages_end_the_session_with_an_error(toy_server, message, code):
    with connect(url(toy_server)) as socket:
        socket.send(message)
        messages, _ = hear(socket)
        assert messages[-1]["type"] == "error"
        assert messages[-1]["error"]["code"] == code
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=PATIENCE)


def test_a_wrong_voice_is_told_and_text_after_done_is_refused(toy_server):
    with connect(url(toy_server)) as socket:
        tell(socket, type="start", voice="nobody")
        tell(socket, type="text", text="Hello.")
        tell(socket, type="flush")
        messages, _ = hear(socket)
        assert messages[-1]["error"]["param"] == "voice"
        tell(socket, type="done")
        assert hear(socket)[0][-1]["type"] == "speech.audio.done", "the session is not ended by it"


def test_a_cancel_tells_how_much_was_heard(start):
    server = start(toy_source(end_bias=float("-inf"), length=8_000, chunk_limit=8))
    with connect(url(server)) as socket:
        tell(socket, type="text", text="This is the first one.\n\nlong story of many words that goes on.")
        tell(socket, type="flush")
        segments, got = 0, ""
        while segments < 2 or not isinstance(got, bytes):
            got = socket.recv(timeout=PATIENCE)
            segments += isinstance(got, str) and json.loads(got)["type"] == "segment"
        tell(socket, type="cancel")
        messages, _ = hear(socket, until="cancelled")
        assert messages[-1]["characters"] >= len("This is the first one.")
        tell(socket, type="text", text="Another one is here.")
        tell(socket, type="flush")
        while not isinstance(socket.recv(timeout=PATIENCE), bytes):
            pass
        tell(socket, type="cancel", played_ms=0)
        assert hear(socket, until="cancelled")[0][-1]["characters"] == 0


def test_what_was_heard_ends_with_a_word():
    first, second = Heard("Hello there. ", 1.0, True), Heard("How are you today?", 0.6)
    assert characters_heard([first, second], None) == len("Hello there. How ")
    assert characters_heard([first, second], 1.0) == len("Hello there. ")
    assert characters_heard([first, second], 0.6) == len("Hello ")
    assert characters_heard([first, second], 99.0) == len("Hello there. How are you today?")
    assert characters_heard([], None) == 0
    assert characters_heard([Heard("Hello", 0.0, False)], 0.0) == 0


class Grumpy(LongToy):
    """Says nothing with an x in it."""

    def start(self, prompt, slots):
        if "x" in prompt.text:
            raise RequestError("there is an x in it")
        return super().start(prompt, slots)


def test_an_error_concerns_one_utterance_and_not_the_session(start):
    server = start(ModelSource(name="toy", open=lambda: Engine(Grumpy(end_bias=float("-inf")))))
    with connect(url(server)) as socket:
        tell(socket, type="text", text="This one is said in full. An x. Two. ")
        tell(socket, type="done")
        got = [hear(socket), hear(socket)]
    (before, sound), (after, more) = got
    assert next(m["text"] for m in before if m["type"] == "segment") == "This one is said in full. "
    assert before[-1]["segment"] == 1
    assert before[-1]["error"]["message"] == "there is an x in it"
    assert [m["text"] for m in after if m["type"] == "segment"] == ["Two. "]
    assert min(len(sound), len(more)) > 1_000


def test_a_model_that_takes_text_word_by_word_is_fed_directly(start, library):
    clip = Audio.read(COSY / "prompt_24k.wav")
    library.add(Voice(name="zoe", clip=clip, transcript="a few words"))
    source = ModelSource(name="cosy", open=lambda: load(COSY / "checkpoint", device="cpu", slots=1))
    server = start(source)
    with connect(url(server)) as socket:
        tell(socket, type="start", voice="zoe", text_mode="model", seed=1, sampling={"max_frames": 40})
        for piece in ("The lake is ", "quiet today, and a small", " boat crosses it."):
            tell(socket, type="text", text=piece)
        tell(socket, type="done")
        messages, sound = hear(socket)
    assert [m["type"] for m in messages] == ["started", "segment", "speech.audio.done"]
    assert len(sound) > 1_000
    wait_until(lambda: server.engine("cosy").load == (0, 0))


def test_half_a_character_that_is_fed_is_its_senders_error_and_costs_a_neighbour_no_byte(start, library):
    """It once raised in the step of both, and the neighbour's plain request was answered with a 500."""
    clip = Audio.read(COSY / "prompt_24k.wav")
    library.add(Voice(name="zoe", clip=clip, transcript="a few words"))
    together, go = threading.Event(), threading.Event()

    def build():
        engine = load(COSY / "checkpoint", device="cpu", slots=2)
        step = engine.model.step

        def step_when_let(utterances):
            if len(utterances) == 2 and utterances[-1].steps > 1:
                together.set()
                assert go.wait(PATIENCE)
            return step(utterances)

        engine.model.step = step_when_let
        return engine

    server = start(ModelSource(name="cosy", open=build))
    plain = {
        "input": "The boat crosses the lake.", "voice": "zoe", "seed": 3, "response_format": "pcm",
        "sampling": {"max_frames": 40},
    }  # fmt: skip

    def post():
        return httpx.post(f"{server.url}/v1/audio/speech", json=plain, timeout=PATIENCE)

    alone = post()
    assert alone.status_code == 200
    with connect(url(server)) as socket, ThreadPoolExecutor(1) as neighbour:
        tell(socket, type="start", voice="zoe", text_mode="model", seed=1, sampling={"max_frames": 40})
        tell(socket, type="text", text="The lake is quiet today, and ")
        wait_until(lambda: server.engine("cosy").load == (1, 0))
        (feed,) = (one.stream.request.text_feed for one in server.engine("cosy")._loop._open)
        answer = neighbour.submit(post)
        assert together.wait(PATIENCE)
        tell(socket, type="text", text="half \ud800 a character")
        wait_until(lambda: feed.is_ready)  # it is there, or refused
        go.set()
        messages, _ = hear(socket)
        assert answer.result().status_code == 200
        assert answer.result().content == alone.content
        assert messages[-1]["type"] == "error"
        told = messages[-1]["error"]
        assert (told["code"], told["param"]) == ("invalid_request", "input")
        assert "half of a surrogate pair" in told["message"]
        tell(socket, type="text", text="A whole one.")  # the session goes on
        tell(socket, type="done")
        messages, sound = hear(socket)
        assert messages[-1]["type"] == "speech.audio.done"
        assert len(sound) > 1_000
    wait_until(lambda: server.engine("cosy").load == (0, 0))


def test_a_fed_utterance_that_is_interrupted_tells_what_was_heard(start, library):
    library.add(Voice(name="zoe", clip=Audio.read(COSY / "prompt_24k.wav")))
    source = ModelSource(name="qwen", open=lambda: load(QWEN, device="cpu", slots=1))
    server = start(source)
    words = ("The ", "lake ", "is ", "quiet ", "today, ", "and ", "a ", "small ", "boat ", "crosses ", "it.")
    ends = {sum(map(len, words[:count])) for count in range(len(words) + 1)}
    with connect(url(server)) as socket:
        tell(socket, type="start", voice="zoe", text_mode="model", sampling={"max_frames": 40})
        for seed in range(2):  # the session goes on after the first
            for word in words:
                tell(socket, type="text", text=word)
            while not isinstance(socket.recv(timeout=PATIENCE), bytes):
                pass
            tell(socket, type="cancel", **({"played_ms": 0} if seed else {}))
            messages, _ = hear(socket, until="cancelled")
            assert messages[-1]["characters"] in ({0} if seed else ends)
            wait_until(lambda: server.engine("qwen").load == (0, 0))


def test_text_that_is_fed_is_bounded_and_forgotten_when_it_is_cancelled(start, library):
    """Closed feeds that waited for their turn counted for nothing, and those of a cancel were kept."""
    library.add(Voice(name="zoe", clip=Audio.read(COSY / "prompt_24k.wav")))
    source = ModelSource(name="qwen", open=lambda: load(QWEN, device="cpu", slots=1))
    server = start(source, settings=ServerSettings(max_input=5_000))
    with connect(url(server)) as socket:
        tell(socket, type="start", voice="zoe", text_mode="model", sampling={"max_frames": 40})
        for _ in range(8):
            for _ in range(3):
                tell(socket, type="text", text="word " * 150 + "end.")
            tell(socket, type="cancel")
            assert hear(socket, until="cancelled")[0][-1]["type"] == "cancelled"
        with contextlib.suppress(ConnectionClosed):  # the server may be gone before the last is sent
            for _ in range(100):
                tell(socket, type="text", text="word " * 150 + "end.")
        told = []
        while not told or told[-1]["type"] != "error":
            told += hear(socket)[0]
        assert told[-1]["error"]["code"] == "input_too_long"


@pytest.mark.parametrize("size", [7, 100, 5_100])
@pytest.mark.parametrize("letter", ["word ", "字"])
def test_fed_text_without_an_end_is_several_utterances_and_no_word_is_cut(size, letter):
    text = letter * (5_100 // len(letter))
    session, utterances = LiveSession(SimpleNamespace(settings=ServerSettings()), None), []
    session._by_model = True
    for begin in range(0, len(text), size):
        session._take(text[begin : begin + size])
    session._flush()
    while not session._sentences.empty():
        utterances.append(session._fed_texts[session._sentences.get_nowait()])
    assert "".join(utterances) == text
    assert 2 <= len(utterances) <= 3
    assert max(map(len, utterances)) <= LONGEST_FED + LONGEST_FED_WORD
    if letter == "word ":
        assert all(part.split() == ["word"] * len(part.split()) for part in utterances)


def test_a_model_that_does_not_take_text_word_by_word_says_so(toy_server):
    with connect(url(toy_server)) as socket:
        tell(socket, type="start", text_mode="model")
        tell(socket, type="text", text="Hello.")
        messages, _ = hear(socket)
        assert messages[-1]["error"]["code"] == "unsupported"


@pytest.fixture(scope="module")
def toy_server(tmp_path_factory):
    from sonant.server.app import create_app
    from sonant.server.models import ModelPool
    from sonant.voices.library import VoiceLibrary
    from tests.server.conftest import ThreadServer

    library = VoiceLibrary(tmp_path_factory.mktemp("voices"))
    pool = ModelPool([toy_source(end_bias=float("-inf"))])  # it never says nothing
    server = ThreadServer(create_app(pool, library, ServerSettings(max_input=50_000)))
    yield server
    server.stop()
