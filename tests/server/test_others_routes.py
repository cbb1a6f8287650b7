"""Routes of other services: ElevenLabs', Kokoro-FastAPI's dialogues, Home Assistant's Wyoming protocol."""

import contextlib
import json
import socket

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from sonant.audio.io import read_audio
from sonant.cli.app import tree
from sonant.cli.serve import open_socket
from sonant.errors import ConfigError
from sonant.server.settings import ServerSettings
from tests.server.conftest import toy_source, wait_until
from tests.server.test_others_words import Cloner, source, steady

cli = tree()


@pytest.fixture
def home():
    bound = open_socket("127.0.0.1", 0)
    yield bound
    bound.close()


@pytest.fixture
def server(start):
    return start(source(steady, "first"), source(Cloner, "second"))


def post(server, path, **body):
    return httpx.post(server.url + path, json=body, timeout=60)


@pytest.mark.parametrize(
    ("wanted", "media", "rate"),
    [
        ("mp3_44100_128", "audio/mpeg", 44_100),
        ("pcm_16000", "audio/pcm", 16_000),
        ("opus_48000_64", "audio/ogg", 48_000),
        ("wav_22050", "audio/wav", 22_050),
    ],
)
def test_elevenlabs_formats_have_the_rate_they_name(server, wanted, media, rate):
    body = {"text": "hello there", "model_id": "eleven_multilingual_v2", "voice_settings": {"stability": 0.5}}
    answer = post(server, f"/v1/text-to-speech/Bea?output_format={wanted}", **body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == media
    assert answer.headers["x-sample-rate"] == str(rate)
    assert answer.headers["x-sonant-model"] == "second", "the voice decides"
    assert answer.headers["x-sonant-warning"] == "ignored fields: voice_settings.stability"
    if media != "audio/pcm":
        assert read_audio(answer.content)[1] == rate


def test_elevenlabs_stream_and_errors(server):
    answer = post(server, "/v1/text-to-speech/ann/stream?output_format=pcm_24000", text="hello there", seed=3)
    assert answer.headers["transfer-encoding"] == "chunked"
    whole = post(server, "/v1/text-to-speech/ann?output_format=pcm_24000", text="hello there", seed=3)
    assert int(whole.headers["content-length"]) == len(whole.content)
    assert post(server, "/v1/text-to-speech/nobody", text="hi").json()["error"]["param"] == "voice"
    for wrong in ("ulaw_8000", "mp3_1_1", "mp3_999999", "x" * 500):
        refused = post(server, f"/v1/text-to-speech/ann?output_format={wrong}", text="hi")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "output_format")


def test_an_elevenlabs_key_opens_the_door(start):
    from sonant.server.auth import keys_of

    server = start(settings=ServerSettings(keys=keys_of(["sk-one"])))
    path = f"{server.url}/v1/text-to-speech/ann"
    assert httpx.post(path, json={"text": "hi"}).status_code == 401
    assert httpx.post(path, json={"text": "hi"}, headers={"xi-api-key": "sk-one"}).status_code == 200


def samples(answer):
    assert answer.status_code == 200, answer.text
    return np.frombuffer(answer.content, "<i2")


def test_a_dialogue_is_its_turns_one_after_another(server):
    from sonant.request.seeds import segment_seed

    turns = [{"voice": "ann", "text": "One."}, {"voice_id": "Bea", "text": "Two."}, {"text": "Three."}]
    whole = samples(post(server, "/dev/dialogue", turns=turns, voice="ann", seed=5, response_format="pcm"))
    alone = [
        samples(
            post(
                server,
                "/v1/audio/speech",
                input=turn["text"],
                voice=turn.get("voice_id") or turn.get("voice", "ann"),
                seed=segment_seed(5, number),
                response_format="pcm",
            )
        )
        for number, turn in enumerate(turns)
    ]
    # Resampled from 8 to 24 kHz in one piece, so only the joints differ.
    assert abs(len(whole) - sum(map(len, alone))) <= 3
    middle = slice(len(alone[0]) // 4, len(alone[0]) // 2)
    assert np.abs(whole[middle].astype(int) - alone[0][middle]).max() <= 2
    tags = "One. [voice:them] Two. [pause:0.0s] [voice:ann] Three."
    fields = {"allow_voice_tags": True, "voice_aliases": {"them": "Bea"}, "voice": "ann", "seed": 5}
    tagged = samples(post(server, "/v1/audio/speech", input=tags, response_format="pcm", **fields))
    assert abs(len(tagged) - len(whole)) <= len(whole) // 2


def test_voice_tags_are_text_unless_allowed_and_their_voices_are_checked(server):
    plain = post(server, "/v1/audio/speech", input="[voice:nobody] Hi.", response_format="pcm")
    assert plain.status_code == 200
    unknown = post(server, "/v1/audio/speech", input="[voice:nobody] Hi.", allow_voice_tags=True)
    assert unknown.json()["error"]["param"] == "voice"
    later = post(server, "/v1/audio/speech", input="Hi. [voice:nobody] Hi.", allow_voice_tags=True)
    assert (later.status_code, later.json()["error"]["param"]) == (404, "voice")
    empty = post(server, "/v1/audio/speech", input="[voice:ann] ", allow_voice_tags=True)
    assert empty.json()["error"]["param"] == "input"
    many = post(server, "/v1/audio/speech", input="[voice:ann] a " * 600, allow_voice_tags=True)
    assert many.status_code == 400
    item = {"input": "[voice:ann] a [voice:Bea] b", "allow_voice_tags": True}
    results = post(server, "/v1/audio/speech/batch", items=[item]).json()["results"]
    assert results[0]["error"]["param"] == "allow_voice_tags"


class Home:
    """A client of the Wyoming protocol, event by event."""

    def __init__(self, bound):
        self.socket = socket.create_connection(bound.getsockname()[:2], timeout=20)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def tell(self, kind, **data):
        body = json.dumps(data).encode()
        self.socket.sendall(json.dumps({"type": kind, "data_length": len(body)}).encode() + b"\n" + body)

    def hear(self):
        head = json.loads(self.file.readline())
        data = json.loads(self.file.read(head.get("data_length", 0)) or "{}")
        return head["type"], data, self.file.read(head.get("payload_length", 0))

    def until(self, kind):
        events = [self.hear()]
        while events[-1][0] not in (kind, "error"):
            events.append(self.hear())
        return events

    def close(self):
        self.file.close()
        self.socket.close()


def test_home_assistant_is_described_to_and_spoken_to(start, home):
    start(source(steady, "first"), source(Cloner, "second"), wyoming=home)
    with Home(home) as client:
        client.tell("describe")
        kind, info, _ = client.hear()
        assert kind == "info"
        [program] = info["tts"]
        assert [(voice["name"], voice["languages"]) for voice in program["voices"]] == [("ann", ["en"])]
        assert program["supports_synthesize_streaming"] is True
        client.tell("synthesize", text="Hello there.", voice={"name": "ann"})
        events = client.until("audio-stop")
        assert events[0][1] == {"rate": 8000, "width": 2, "channels": 1, "timestamp": 0}
        assert sum(len(payload) for _, _, payload in events) > 500
        client.tell("synthesize", text="Hi.", voice={"name": "nobody"})
        assert [client.hear()[0] for _ in range(2)] == ["error", "audio-stop"]
        client.tell("synthesize", text="Hi.", voice={"language": "en_US"})
        assert client.until("audio-stop")[-1][0] == "audio-stop"
        client.tell("ping", text="x")
        assert client.hear()[:2] == ("pong", {"text": "x"})


def test_home_assistants_streamed_text_is_spoken_once(start, home):
    start(wyoming=home)
    with Home(home) as client:
        client.tell("synthesize-start", voice={"name": "ann"})
        client.tell("synthesize-chunk", text="One is here. Two")
        first = client.until("audio-stop")
        assert first[0][0] == "audio-start"
        client.tell("synthesize-chunk", text=" is here.")
        client.tell("synthesize", text="One is here. Two is here.")  # for servers of old
        client.tell("synthesize-stop")
        rest = [kind for kind, _, _ in client.until("synthesize-stopped")]
        assert (rest.count("audio-start"), rest[-1]) == (1, "synthesize-stopped")


def test_no_blank_is_lost_between_pieces_that_end_sentences(start, home):
    """wyoming_openai 81: `Hola. `, `Todo `, `listo.` were spoken as "Todolisto."."""
    server = start(wyoming=home)
    engine, said = server.engine(), []
    submit = engine.submit
    engine.submit = lambda request, **options: (said.append(request.text), submit(request, **options))[1]
    with Home(home) as client:
        client.tell("synthesize-start")
        for piece in ("Hola. ", "Manana ", "se ", "va. ", "Todo ", "listo."):
            client.tell("synthesize-chunk", text=piece)
        client.tell("synthesize-stop")
        client.until("synthesize-stopped")
    assert "".join(said) == "Hola. Manana se va. Todo listo."
    assert len(said) == 3


@pytest.mark.parametrize(
    "junk",
    [
        b"\n",
        b"[]\n",
        b"{}\n",
        b"x" * 200_000,
        b'{"type": "describe", "data_length": 99999999}\n',
        b'{"type": "a", "payload_length": -1}\n',
        b'{"type": 5}\n',
        b"[" * 60_000 + b"\n",
        b'{"type": "synthesize", "data": [1]}\n',
        b'{"type": "synthesize", "data": 1}\n',
        b'{"type": "ping", "data_length": 1e400}\n',
    ],
)
@pytest.mark.slow
def test_what_is_none_of_the_protocol_ends_the_connection(start, home, junk):
    start(wyoming=home)
    with Home(home) as client:
        client.socket.sendall(junk)
        with contextlib.suppress(ConnectionError):
            assert client.file.read() == b""
    with Home(home) as again:
        again.tell("ping")
        assert again.hear()[0] == "pong"


def test_a_home_is_told_of_what_cannot_be_said_and_stays(start, home, caplog):
    start(wyoming=home)
    with Home(home) as client:
        client.tell("synthesize", text="Hi.", voice={"name": "a" * 300})
        client.tell("synthesize", text="\ud800 Hi.", voice={"name": "\ud800"})
        client.tell("ping")
        told = ["error", "audio-stop", "error", "audio-stop", "pong"]
        assert [client.hear()[0] for _ in told] == told
    assert not [record for record in caplog.records if record.exc_info]


def test_a_home_that_hangs_up_stops_the_work(start, home):
    server = start(toy_source(end_bias=float("-inf"), length=8_000, chunk_limit=8), wyoming=home)
    engine = server.engine()
    with Home(home) as client:
        client.tell("synthesize", text="long story")
        client.until("audio-chunk")
        assert engine.load == (1, 0)
    wait_until(lambda: engine.load == (0, 0))
    assert engine.steps < 8_000


def test_wyoming_knows_no_keys_and_is_not_opened_to_others_in_silence():
    result = CliRunner().invoke(
        cli, ["serve", "--wyoming", "--host", "0.0.0.0", "--api-key", "sk-x", "--port", "0"]
    )
    assert isinstance(result.exception, ConfigError)
    assert "no keys" in str(result.exception)
