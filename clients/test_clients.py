"""Real client packages through a real server process with the built-in voice and an API key.

Runs in the clients' own environment: SONANT_PYTHON is the Python that has Sonant, CLIENTS_NODE the folder
with node_modules. `make test-clients` sets both.
"""

import asyncio
import base64
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

HERE = Path(__file__).parent
KEY = "sk-clients"
TEXT = "The quick brown fox jumps over the lazy dog."
SECONDS = (1.5, 6.0)
"""What saying TEXT takes."""


class Server:
    """`sonant serve` as users start it."""

    def __init__(self, folder):
        command = [os.environ.get("SONANT_PYTHON", "python3"), "-m", "sonant", "serve", "--model", "builtin"]
        command += ["--port", "0", "--voices", str(folder), "--wyoming", "--wyoming-port", "0"]
        environment = {**os.environ, "SONANT_API_KEYS": KEY}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        self.wyoming = self.process.stdout.readline().split("//")[1].strip()
        self.url = self.process.stdout.readline().split()[-1]
        self.base = f"{self.url}/v1"
        self.headers = {"Authorization": f"Bearer {KEY}"}
        for _ in range(600):
            try:
                if httpx.get(f"{self.url}/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError("the server did not become ready")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("voices"))
    yield made
    made.process.terminate()
    made.process.wait(30)


def is_speech(samples, rate):
    """Loud for as long as the sentence takes."""
    seconds = len(samples) / rate
    assert SECONDS[0] < seconds < SECONDS[1], seconds
    assert np.abs(samples).max() > 0.05
    return True


def read(data):
    return soundfile.read(io.BytesIO(data), dtype="float32")


def pcm(data):
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768


def test_openai_python(server):
    import openai

    client = openai.OpenAI(base_url=server.base, api_key=KEY, max_retries=0)
    arguments = {"model": "gpt-4o-mini-tts", "voice": "nova", "input": TEXT}
    assert is_speech(*read(client.audio.speech.create(response_format="mp3", **arguments).content))
    with client.audio.speech.with_streaming_response.create(response_format="pcm", **arguments) as answer:
        assert is_speech(pcm(b"".join(answer.iter_bytes())), 24_000)
    assert "builtin" in [model.id for model in client.models.list()]
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=server.base, api_key="wrong", max_retries=0).models.list()


def node(server, name, out):
    folder = os.environ.get("CLIENTS_NODE")
    if shutil.which("node") is None or folder is None:
        pytest.skip("no Node here")
    shutil.copy(HERE / "node_clients.mjs", Path(folder) / "node_clients.mjs")
    made = subprocess.run(
        ["node", "node_clients.mjs", name, server.base, KEY, str(out)],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)


def test_openai_node(server, tmp_path):
    told = node(server, "openai", tmp_path / "a.wav")
    assert "builtin" in told["models"]
    assert is_speech(*soundfile.read(tmp_path / "a.wav", dtype="float32"))


def test_vercel_ai_sdk(server, tmp_path):
    told = node(server, "vercel", tmp_path / "a.wav")
    assert told["warnings"] == []
    assert is_speech(*soundfile.read(tmp_path / "a.wav", dtype="float32"))


def test_litellm(server, tmp_path):
    litellm = pytest.importorskip("litellm")
    answer = litellm.speech(
        model="openai/tts-1",
        voice="alloy",
        input=TEXT,
        api_base=server.base,
        api_key=KEY,
        response_format="wav",
    )
    answer.stream_to_file(tmp_path / "a.wav")
    assert is_speech(*soundfile.read(tmp_path / "a.wav", dtype="float32"))


def test_litellm_with_a_prefix_that_is_passed_on(server):
    body = {"model": "openai/tts-1", "voice": "alloy", "input": TEXT, "response_format": "wav"}
    answer = httpx.post(f"{server.base}/audio/speech", json=body, headers=server.headers, timeout=60)
    assert is_speech(*read(answer.content))


@pytest.mark.parametrize("model", ["tts-1", "gpt-4o-mini-tts"])
def test_livekit(server, model):
    """Bytes for tts-1, server-sent events for newer models."""
    agents = pytest.importorskip("livekit.agents")
    from livekit.plugins import openai

    async def speak():
        async with agents.utils.http_context.open():
            tts = openai.TTS(base_url=server.base, api_key=KEY, model=model, voice="ash")
            stream = tts.synthesize(TEXT)
            frames = [event.frame async for event in stream]
            await stream.aclose()
            await tts.aclose()
        return frames

    frames = asyncio.run(speak())
    samples = np.concatenate([np.frombuffer(frame.data, np.int16) for frame in frames]) / 32768
    assert is_speech(samples, frames[0].sample_rate)


def test_pipecat(server):
    pytest.importorskip("pipecat")
    from pipecat.frames.frames import ErrorFrame, TTSAudioRawFrame
    from pipecat.services.openai.tts import OpenAITTSService

    async def speak():
        tts = OpenAITTSService(base_url=server.base, api_key=KEY, sample_rate=24_000)
        tts._sample_rate = 24_000  # set by a pipeline's start
        return [frame async for frame in tts.run_tts(TEXT, "context")]

    frames = asyncio.run(speak())
    assert not [frame for frame in frames if isinstance(frame, ErrorFrame)]
    sound = b"".join(frame.audio for frame in frames if isinstance(frame, TTSAudioRawFrame))
    assert is_speech(pcm(sound), 24_000)


def test_openai_agents_voice(server):
    """The voice model of OpenAI's Agents SDK, which streams pcm and sends instructions of its own."""
    voice = pytest.importorskip("agents.voice")
    import openai

    async def speak():
        client = openai.AsyncOpenAI(base_url=server.base, api_key=KEY, max_retries=0)
        model = voice.OpenAIVoiceModelProvider(openai_client=client).get_tts_model(None)
        settings = voice.TTSModelSettings(voice="ash")
        return model.model_name, b"".join([piece async for piece in model.run(TEXT, settings)])

    name, sound = asyncio.run(speak())
    assert name == "gpt-4o-mini-tts"
    assert is_speech(pcm(sound), 24_000)


def test_home_assistants_wyoming(server):
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.client import AsyncTcpClient
    from wyoming.info import Describe, Info
    from wyoming.tts import (
        Synthesize,
        SynthesizeChunk,
        SynthesizeStart,
        SynthesizeStop,
        SynthesizeStopped,
        SynthesizeVoice,
    )

    async def speak():
        host, port = server.wyoming.split(":")
        async with AsyncTcpClient(host, int(port)) as client:
            await client.write_event(Describe().event())
            info = Info.from_event(await client.read_event())
            voice = SynthesizeVoice(name=info.tts[0].voices[0].name)
            await client.write_event(Synthesize(text=TEXT, voice=voice).event())
            start = AudioStart.from_event(await client.read_event())
            sound = b""
            while not AudioStop.is_type((event := await client.read_event()).type):
                sound += AudioChunk.from_event(event).audio
            await client.write_event(SynthesizeStart(voice=voice).event())
            for piece in (TEXT[:10], TEXT[10:], " And more."):
                await client.write_event(SynthesizeChunk(text=piece).event())
            await client.write_event(Synthesize(text=TEXT, voice=voice).event())
            await client.write_event(SynthesizeStop().event())
            streamed = b""
            while not SynthesizeStopped.is_type((event := await client.read_event()).type):
                streamed += AudioChunk.from_event(event).audio if AudioChunk.is_type(event.type) else b""
        return info, start.rate, sound, streamed

    info, rate, sound, streamed = asyncio.run(speak())
    assert info.tts[0].supports_synthesize_streaming
    assert info.tts[0].voices[0].languages == ["en"]
    assert is_speech(pcm(sound), rate)
    assert len(streamed) > len(sound)


def test_elevenlabs(server):
    eleven = pytest.importorskip("elevenlabs")
    client = eleven.ElevenLabs(base_url=server.url, api_key=KEY)
    whole = b"".join(
        client.text_to_speech.convert(
            "heart",
            text=TEXT,
            model_id="eleven_multilingual_v2",
            output_format="mp3_44100_128",
            voice_settings=eleven.VoiceSettings(speed=1.1, stability=0.5),
        )
    )
    samples, rate = read(whole)
    assert rate == 44_100
    assert is_speech(samples, rate)
    assert is_speech(
        pcm(b"".join(client.text_to_speech.stream("heart", text=TEXT, output_format="pcm_16000"))), 16_000
    )


def test_curl_into_ffmpeg(server, tmp_path):
    if not shutil.which("curl") or not shutil.which("ffmpeg"):
        pytest.skip("no curl or no ffmpeg here")
    for form in ("mp3", "opus", "aac", "flac", "wav"):
        body = json.dumps({"input": TEXT, "response_format": form})
        pipe = (
            f"curl -fsSN '{server.base}/audio/speech' -H 'Authorization: Bearer {KEY}' "
            f"-H 'Content-Type: application/json' -d '{body}' | "
            f"ffmpeg -loglevel error -y -i pipe:0 '{tmp_path}/{form}.wav'"
        )
        made = subprocess.run(
            ["bash", "-o", "pipefail", "-c", pipe], capture_output=True, text=True, check=False
        )
        assert (made.returncode, made.stderr) == (0, ""), (form, made.stderr)
        assert is_speech(*soundfile.read(tmp_path / f"{form}.wav", dtype="float32"))


BODIES = json.loads((HERE / "bodies.json").read_text())
"""Requests as these programs send them, without the text."""


@pytest.mark.parametrize("name", BODIES)
def test_bodies_of(server, name):
    body = {**BODIES[name], "input": TEXT}
    if body.get("model") == "kokoro":
        body["model"] = "tts-1"  # the name is the operator's to give: --alias kokoro=builtin
    answer = httpx.post(f"{server.base}/audio/speech", json=body, headers=server.headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert is_speech(*read(answer.content))


def test_vllm_omnis_websocket(server):
    from websockets.sync.client import connect

    address = server.base.replace("http", "ws") + "/audio/speech/stream"
    with connect(address, additional_headers=server.headers) as socket:
        socket.send(
            json.dumps(
                {"type": "session.config", "voice": "heart", "stream_audio": True, "response_format": "pcm"}
            )
        )
        for word in TEXT.split():
            socket.send(json.dumps({"type": "input.text", "text": f"{word} "}))
        socket.send(json.dumps({"type": "input.done"}))
        sound, kinds = b"", []
        while "session.done" not in kinds:
            message = socket.recv(timeout=60)
            if isinstance(message, bytes):
                sound += message
            else:
                kinds.append(json.loads(message)["type"])
    assert kinds == ["audio.start", "audio.done", "session.done"]
    assert is_speech(pcm(sound), 24_000)


def test_vllm_omnis_word_timestamps(server):
    from websockets.sync.client import connect

    address = server.base.replace("http", "ws") + "/audio/speech/stream"
    config = {
        "type": "session.config",
        "word_timestamps": True,
        "stream_audio": True,
        "response_format": "pcm",
    }
    with connect(address, additional_headers=server.headers) as socket:
        socket.send(json.dumps(config))
        socket.send(json.dumps({"type": "input.text", "text": TEXT}))
        socket.send(json.dumps({"type": "input.done"}))
        messages = []
        while not messages or messages[-1]["type"] != "session.done":
            messages.append(json.loads(socket.recv(timeout=60)))
    chunks = [message for message in messages if message["type"] == "audio.chunk"]
    assert is_speech(pcm(b"".join(base64.b64decode(chunk["audio_b64"]) for chunk in chunks)), 24_000)
    assert [word["word"] for word in chunks[-1]["timestamps"]] == TEXT.rstrip(".").split()


def test_a_dialogue_as_kokoro_fastapi_takes_it(server):
    """Through OpenAI's client, as its page says, and as a list of turns."""
    import openai

    client = openai.OpenAI(base_url=server.base, api_key=KEY, max_retries=0)
    one = TEXT.split(" over ")
    tagged = f"[voice:them] {one[0]}. [voice:heart] Over {one[1]}"
    extra = {"allow_voice_tags": True, "voice_aliases": {"them": "heart"}}
    arguments = {"model": "tts-1", "voice": "heart", "response_format": "wav"}
    assert is_speech(*read(client.audio.speech.create(input=tagged, extra_body=extra, **arguments).content))
    turns = [{"voice": "heart", "text": one[0]}, {"voice_id": "heart", "text": f"Over {one[1]}"}]
    body = {"turns": turns, "response_format": "wav"}
    answer = httpx.post(f"{server.url}/dev/dialogue", json=body, headers=server.headers, timeout=60)
    assert is_speech(*read(answer.content))


def test_versions_are_those_of_the_table():
    wanted = dict(
        line.split("==") for line in (HERE / "requirements.txt").read_text().split() if "==" in line
    )
    for name, version in wanted.items():
        assert importlib.metadata.version(name.split("[")[0]) == version
