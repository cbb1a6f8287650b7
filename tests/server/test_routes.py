"""The other routes: batch, segments, status, metrics, models, errors, the OpenAPI document, cloning."""

import asyncio
import base64
import io
import json
import time
from pathlib import Path
from urllib.parse import unquote

import httpx
import numpy as np
import pytest

from sonant.audio.io import read_audio, write_audio
from sonant.catalogue.registry import load
from sonant.engine.engine import Engine
from sonant.request.speech import Sampling
from sonant.server.models import ModelSource, find_sources
from sonant.server.schemas import SamplingBody, SpeechBody
from sonant.server.settings import OPENAI_VOICES, ServerSettings
from tests.families.qwen3_tts.conftest import kit  # noqa: F401  (a fixture)
from tests.server.conftest import PATIENCE, toy_source
from tests.toy import ToyModel

QWEN = Path(__file__).parents[1] / "data" / "qwen3_tts" / "checkpoints" / "base_1p7b"
COSY = Path(__file__).parents[1] / "data" / "cosyvoice3" / "checkpoint"


@pytest.fixture
def server(start):
    return start(toy_source(), toy_source("other"))


def speech(server, **fields):
    data = json.dumps({"input": "hello there", **fields})
    headers = {"Content-Type": "application/json"}
    return httpx.post(f"{server.url}/v1/audio/speech", content=data, headers=headers, timeout=60)


def error(answer):
    content = answer.json()["error"]
    assert set(content) == {"message", "type", "param", "code"}
    return answer.status_code, content["code"], content["param"]


def test_every_decoding_setting_of_the_library_can_be_sent():
    from dataclasses import fields

    assert {field.name for field in fields(Sampling)} == set(SamplingBody.model_fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"input": ""}, (400, "invalid_request", "input")),
        ({"input": None}, (400, "missing_required_field", "input")),
        ({"input": 5}, (400, "invalid_request", "input")),
        ({"input": "a\ud800b"}, (400, "invalid_request", "input")),
        ({"input": "x" * 50}, (400, "input_too_long", "input")),
        ({"model": "nothing"}, (404, "model_not_found", "model")),
        ({"voice": "nobody"}, (404, "voice_error", "voice")),
        ({"voice": {"id": "nobody"}}, (404, "voice_error", "voice")),
        ({"voice": "../../etc/passwd"}, (404, "voice_error", "voice")),
        ({"response_format": "ogg"}, (400, "unsupported_response_format", "response_format")),
        ({"stream_format": "xml"}, (400, "invalid_request", "stream_format")),
        ({"stream_format": "sse", "stream": False}, (400, "invalid_request", "stream")),
        ({"speed": 5.0}, (400, "invalid_request", "speed")),
        ({"speed": 2.0, "exact": True}, (400, "unsupported", "speed")),
        ({"speed": "fast"}, (400, "invalid_request", "speed")),
        ({"seed": -2}, (400, "invalid_request", "seed")),
        ({"seed": 2**70}, (400, "invalid_request", "seed")),
        ({"instructions": "sad"}, (400, "unsupported", "instructions")),
        ({"volume": 5}, (400, "invalid_request", "volume")),
        ({"volume": 0.5, "volume_multiplier": 0.6}, (400, "invalid_request", "volume")),
        ({"top_k": 5}, (400, "unsupported", "top_k")),
        ({"temperature": -1}, (400, "invalid_request", "temperature")),
        ({"temperature": 0.5, "sampling": {"temperature": 0.6}}, (400, "invalid_request", "temperature")),
        ({"sampling": {"flow_steps": 5}}, (400, "unsupported", "flow_steps")),
        ({"sampling": {"magic": 5}}, (400, "unknown_field", "sampling.magic")),
        ({"max_new_tokens": 5}, (400, "unsupported", "max_new_tokens")),
        ({"emotion_vector": [1, 2]}, (400, "invalid_request", "emotion_vector")),
        ({"emotion_vector": {"joyous": 1}}, (400, "invalid_request", "emotion_vector")),
        ({"emotion_vector": {"happy": 1}}, (400, "unsupported", "emotion_vector")),
        ({"emotion_text": "sad", "emotion_from_text": True}, (400, "invalid_request", "emotion_from_text")),
        ({"ref_audio": "AAAA"}, (400, "unsupported", "ref_audio")),
        ({"ref_text": "hi"}, (400, "invalid_request", "ref_text")),
        ({"x_vector_only_mode": True}, (400, "invalid_request", "x_vector_only_mode")),
        ({"source_audio": "AAAA"}, (400, "unsupported", "source_audio")),
        ({"task_type": "VoiceDesign"}, (400, "unsupported", "task_type")),
        ({"language": "klingon"}, (400, "invalid_request", "language")),
        ({"language": "en", "lang_code": "de"}, (400, "invalid_request", "language")),
        ({"text_layout": "full"}, (400, "unsupported", "text_layout")),
        ({"non_streaming_mode": True, "text_layout": "progressive"}, (400, "invalid_request", "text_layout")),
        ({"options": {"x": 1}}, (400, "unsupported", "x")),
        ({"deadline": 0}, (400, "invalid_request", "deadline")),
    ],
)
def test_bad_fields_are_named(narrow, fields, expected):
    assert error(speech(narrow, **fields)) == expected


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    from sonant.server.app import create_app
    from sonant.server.models import ModelPool
    from sonant.voices.library import VoiceLibrary
    from tests.server.conftest import ThreadServer

    library = VoiceLibrary(tmp_path_factory.mktemp("voices"))
    server = ThreadServer(create_app(ModelPool([toy_source()]), library, ServerSettings(max_input=40)))
    yield server
    server.stop()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe", b"[" * 20_000, b"{}"])
def test_bodies_that_are_no_request_are_a_400(narrow, content):
    answer = httpx.post(
        f"{narrow.url}/v1/audio/speech", content=content, headers={"Content-Type": "application/json"}
    )
    assert error(answer)[0] == 400


def test_harmless_fields_and_nulls_are_taken(narrow):
    answer = speech(
        narrow, user="me", metadata={"a": 1}, speed=None, voice=None, sampling={"temperature": 0.9}
    )
    assert answer.status_code == 200


def test_unknown_routes_and_methods_are_answered_in_the_same_shape(narrow):
    assert error(httpx.get(f"{narrow.url}/v1/nothing"))[:2] == (404, "not_found")
    assert error(httpx.get(f"{narrow.url}/v1/audio/speech"))[:2] == (405, "method_not_allowed")


def test_openai_voice_names_stand_for_the_models_own_and_differ_where_possible(start):
    def build():
        model = ToyModel()
        object.__setattr__(model.spec, "voices", ("ann", "bob", "Cleo"))
        return Engine(model)

    server = start(
        ModelSource(name="toy", open=build), settings=ServerSettings(voice_aliases={"narrator": "bob"})
    )
    used = [speech(server, voice=name).headers["x-sonant-voice"] for name in OPENAI_VOICES[:4]]
    assert used == ["ann", "bob", "Cleo", "ann"]
    assert speech(server, voice="narrator").headers["x-sonant-voice"] == "bob"
    assert speech(server, voice="cleo").headers["x-sonant-voice"] == "Cleo"


def test_a_batch_gives_each_item_its_own_outcome(server):
    items = [
        {"input": "one", "seed": 1, "response_format": "wav"},
        {"input": ""},
        {"input": "two", "voice": "nobody"},
        {"input": "three", "seed": 2, "response_format": "flac"},
    ]
    answer = httpx.post(f"{server.url}/v1/audio/speech/batch", json={"items": items}, timeout=60)
    results = answer.json()["results"]
    assert [result["status"] for result in results] == [200, 400, 404, 200]
    assert results[1]["error"]["param"] == "input"
    for index, form in ((0, "wav"), (3, "flac")):
        data = base64.b64decode(results[index]["audio"])
        assert read_audio(data)[1] == 8_000
        alone = speech(server, **items[index], stream=False)
        assert alone.content == data, form
    many = {"items": [{"input": "x"}] * 33}
    assert error(httpx.post(f"{server.url}/v1/audio/speech/batch", json=many))[1] == "too_many_items"


def test_segments_are_shown_without_speaking(server):
    before = server.engine().steps
    body = {"input": "One. Two. Three", "model": "toy"}
    answer = httpx.post(f"{server.url}/v1/audio/speech/segments", json=body)
    assert [segment["text"] for segment in answer.json()["data"]] == ["One", " Two", " Three"]
    assert server.engine().steps == before


def test_what_of_a_text_will_be_spoken_is_told_rule_by_rule(server):
    before = server.engine().steps
    body = {"input": "# Pay $3.\n\nDone 你好.", "model": "toy", "normalize": "sonant"}
    answer = httpx.post(f"{server.url}/v1/audio/text", json=body)
    assert answer.status_code == 200, answer.text
    first, second = answer.json()["data"]
    assert (first["text"], second["text"]) == ("Pay three dollars.", "Done 你好.")
    assert first["changes"] == [{"rule": "amount of money", "written": "$3", "spoken": "three dollars"}]
    assert "你好" in second["not_spoken"][0]
    assert answer.json()["front_end"] == "sonant"
    typed = httpx.post(f"{server.url}/v1/audio/text", json=body | {"normalize": False})
    assert typed.json()["data"][0]["text"] == body["input"]
    wrong = httpx.post(f"{server.url}/v1/audio/text", json=body | {"normalize": "loud"})
    assert wrong.status_code == 400
    assert server.engine().steps == before


def test_what_is_not_spoken_is_named_in_a_header(server):
    answer = speech(server, input="Say 你好", stream=False)
    assert answer.headers["x-sonant-guards"].split(", ").count("unspeakable") == 1
    assert "你好" in unquote(answer.headers["x-sonant-unspoken"])
    refused = speech(server, input="你好")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")
    assert "你好" in refused.json()["error"]["message"]


def test_models_are_loaded_and_unloaded_on_demand(server):
    states = {m["id"]: m["state"] for m in httpx.get(f"{server.url}/v1/models").json()["data"]}
    assert states["toy"] == "loaded"
    assert states["other"] == "unloaded"
    assert httpx.get(f"{server.url}/v1/models/other").json()["capabilities"] is None
    assert speech(server, model="other").status_code == 200
    document = httpx.get(f"{server.url}/v1/models/other").json()["capabilities"]
    assert document["sampling"] == {"temperature": 1.0}
    assert httpx.post(f"{server.url}/v1/models/other/unload").json()["state"] == "unloaded"
    assert httpx.post(f"{server.url}/v1/models/other/load").json()["state"] == "loaded"
    assert error(httpx.get(f"{server.url}/v1/models/none"))[:2] == (404, "model_not_found")


def test_other_servers_lists_are_served_under_their_names(narrow):
    listed = httpx.get(f"{narrow.url}/v1/audio/models").json()["models"]
    assert {"id": "tts-1", "name": "tts-1"} in listed
    for path in ("/v1/audio/voices", "/v1/voices", "/audio/voices"):
        answer = httpx.get(narrow.url + path).json()
        assert answer["voices"] == answer["data"]
        assert [(voice["id"], voice["name"]) for voice in answer["voices"]] == [("ann", "ann")]


def test_a_finished_request_can_be_looked_up_without_its_text(server):
    answer = speech(server, input="a secret", seed=4)
    record = httpx.get(f"{server.url}/v1/requests/{answer.headers['x-request-id']}").json()
    assert record["outcome"] == "ok"
    assert record["seed"] == 4
    assert record["first_audio"] > 0
    assert record["rtf"] > 0
    assert "secret" not in json.dumps(record)
    status = httpx.get(f"{server.url}/v1/status").json()
    assert status["ready"] is True
    assert status["recent"][0]["id"] == record["id"]
    assert "secret" not in json.dumps(status)
    assert error(httpx.get(f"{server.url}/v1/requests/none"))[0] == 404


def test_metrics_count_what_happened(start):
    server = start(toy_source(end_bias=float("-inf")))
    assert speech(server).status_code == 200
    assert speech(server, voice="nobody").status_code == 404
    text = httpx.get(f"{server.url}/metrics").text
    for line in (
        'sonant_speech_requests_total{model="toy",outcome="ok"} 1.0',
        'sonant_speech_requests_total{model="toy",outcome="voice_error"} 1.0',
        'sonant_http_requests_total{method="POST",route="/v1/audio/speech",status="404"} 1.0',
        'sonant_first_audio_seconds_count{model="toy"} 1.0',
        'sonant_real_time_factor_count{model="toy"} 1.0',
        'sonant_guard_events_total{kind="length_ceiling",model="toy"} 1.0',
        'sonant_requests_running{model="toy"} 0.0',
        'sonant_requests_waiting{model="toy"} 0.0',
        'sonant_model_loaded{model="toy"} 1.0',
    ):
        assert line in text, text
    assert "process_resident_memory_bytes" in text


def test_what_the_engine_stopped_is_told_by_every_way_out(start):
    server = start(toy_source(end_bias=float("-inf")))
    assert speech(server, stream=False).headers["x-sonant-guards"] == "length_ceiling"
    events = speech(server, stream_format="sse").text.split("\n\n")
    done = json.loads(events[-3].removeprefix("data: "))
    assert done["type"] == "speech.audio.done"
    assert done["guards"][0]["kind"] == "length_ceiling"
    items = {"items": [{"input": "Hello.", "model": "toy"}]}
    result = httpx.post(f"{server.url}/v1/audio/speech/batch", json=items).json()["results"][0]
    assert [guard["kind"] for guard in result["guards"]] == ["length_ceiling"]
    quiet = start(toy_source(end_bias=50.0))
    assert speech(quiet, stream=False).headers["x-sonant-guards"] == "none"


def test_two_apps_count_apart(start):
    one, two = start(), start()
    assert speech(one).status_code == 200
    assert 'outcome="ok"' not in httpx.get(f"{two.url}/metrics").text


def test_ready_comes_after_the_first_word_and_tells_why_not(start, library):
    from sonant.errors import CheckpointError
    from sonant.server.app import create_app
    from sonant.server.models import ModelPool

    def broken():
        raise CheckpointError("the weights are gone")

    app = create_app(ModelPool([ModelSource(name="toy", open=broken)]), library)

    async def work():
        transport = httpx.ASGITransport(app)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
            app.router.lifespan_context(app),
        ):
            first = await client.get("/ready")
            later, until = first, time.monotonic() + PATIENCE
            while "weights are gone" not in later.text and time.monotonic() < until:
                await asyncio.sleep(0.01)
                later = await client.get("/ready")
            assert (await client.get("/health")).status_code == 200
            return first, later

    first, later = asyncio.run(work())
    assert first.status_code == later.status_code == 503
    assert "weights are gone" in later.json()["error"]["message"]


def test_the_openapi_document_knows_no_422_and_every_route(narrow):
    document = httpx.get(f"{narrow.url}/openapi.json").json()
    assert {"/v1/audio/speech", "/v1/audio/voices", "/v1/models", "/health", "/ready", "/metrics"} <= set(
        document["paths"]
    )
    for operations in document["paths"].values():
        for operation in operations.values():
            assert "422" not in operation["responses"]
    fields = document["components"]["schemas"]["SpeechBody"]["properties"]
    assert set(fields) == set(SpeechBody.model_fields)


def test_pages_come_from_this_server_alone(narrow):
    for path in ("/", "/docs", "/static/index.html", "/static/docs.html"):
        answer = httpx.get(narrow.url + path)
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    static = Path(__file__).parents[2] / "src" / "sonant" / "server" / "static"
    for path in (found for found in static.rglob("*") if found.is_file()):
        text = path.read_text(encoding="utf-8")
        for word in ("https://", "http://", "//cdn", "@import"):
            assert word not in text.replace("http://www.w3.org/2000/svg", ""), (path.name, word)


@pytest.fixture
def cloner(start):
    pytest.importorskip("sonant.families.qwen3_tts.model")
    source = ModelSource(name="tiny", open=lambda: load(QWEN, device="cpu", voices=None, slots=2))
    return start(source)


def clip():
    rng = np.random.default_rng(0)
    target = io.BytesIO()
    syllables = np.clip(np.sin(np.arange(24_000) * 6 * np.pi / 24_000), 0, 1)  # as speech does
    samples = (0.1 * syllables * rng.standard_normal(24_000)).astype(np.float32)
    write_audio(target, samples, 24_000, format="wav")
    return target.getvalue()


def test_a_cloning_model_speaks_with_a_clip_and_with_a_stored_voice(cloner):
    data = clip()
    sent = {
        "ref_audio": base64.b64encode(data).decode(),
        "ref_text": "Hi.",
        "seed": 1,
        "response_format": "wav",
    }
    settings = {"sampling": {"max_frames": 12}}
    direct = speech(cloner, **sent, **settings)
    assert direct.status_code == 200, direct.text
    form = {"name": "zoe", "consent": "yes, mine", "ref_text": "Hi."}
    files = {"audio_sample": ("a.wav", data)}
    assert httpx.post(f"{cloner.url}/v1/audio/voices", data=form, files=files, timeout=60).status_code == 201
    stored = speech(cloner, voice="zoe", seed=1, response_format="wav", **settings)
    assert stored.status_code == 200, stored.text
    assert stored.headers["x-sonant-voice"] == "zoe"
    assert stored.content == direct.content
    assert error(speech(cloner, voice="zoe", **sent))[2] == "ref_audio"
    assert error(speech(cloner, voice="alloy"))[2] == "voice"
    voices = httpx.get(f"{cloner.url}/v1/audio/voices?model=tiny").json()["voices"]
    assert [(voice["id"], voice["kind"], voice["models"]) for voice in voices] == [
        ("zoe", "stored", ["tiny"])
    ]


def test_every_kind_of_checkpoint_is_warmed_up_and_speaks(start, library, kit):  # noqa: F811
    folders = [kit / "checkpoints/custom_voice_1p7b", kit / "checkpoints/voice_design_1p7b", COSY]
    server = start(*find_sources([str(f) for f in folders], library, device="cpu", slots=1, queue_limit=4))
    wanted = {
        "custom_voice_1p7b": {"voice": "ryan", "instructions": "cheerful", "task_type": "CustomVoice"},
        "voice_design_1p7b": {"instructions": "a deep voice", "task_type": "VoiceDesign"},
        "checkpoint": {"ref_audio": base64.b64encode(clip()).decode()},
    }
    for model, fields in wanted.items():
        answer = speech(server, model=model, seed=1, max_new_tokens=8, response_format="wav", **fields)
        assert answer.status_code == 200, answer.text
        assert len(answer.content) > 10_000
    listed = httpx.get(f"{server.url}/v1/audio/voices").json()["voices"]
    assert {v["id"]: v["models"] for v in listed}["ryan"] == ["custom_voice_1p7b"]
