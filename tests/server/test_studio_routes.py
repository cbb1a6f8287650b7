"""The routes that the studio brings: the table of settings, packing anew, and what is said of a clip."""

import base64
import io

import httpx
import numpy as np
import pytest

from sonant.audio.encode import FORMATS
from sonant.audio.io import read_audio, write_audio
from sonant.request.settings import BY_NAME, SETTINGS
from sonant.server.schemas import SpeechBody
from sonant.server.settings import ServerSettings
from tests.server.test_uploads import clip, problem


def test_the_settings_are_those_of_the_table(start):
    listed = httpx.get(f"{start().url}/v1/settings").json()["data"]
    rows = {row["name"]: row for row in listed}
    for row in SETTINGS:
        assert (row.name in rows) == (row.field is not None or row.home == "sampling"), row.name
    assert rows["speed"]["least"] == BY_NAME["speed"].least
    assert rows["normalize"]["choices"] == list(BY_NAME["normalize"].choices)
    assert {row["field"] for row in listed} - {None} <= set(SpeechBody.model_fields)


def pack(server, data, form):
    files = {"audio": ("speech.wav", data)}
    return httpx.post(
        f"{server.url}/v1/audio/encode", files=files, data={"response_format": form}, timeout=60
    )


def tone(seconds=1.5, rate=24_000):
    samples = (0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)
    target = io.BytesIO()
    write_audio(target, samples, rate, format="wav")
    return target.getvalue()


@pytest.mark.parametrize("form", ["mp3", "opus", "aac", "flac", "wav"])
def test_a_sound_is_packed_in_another_format_and_stays_the_same_sound(start, form):
    answer = pack(start(), tone(), form)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == FORMATS[form].media_type
    samples, rate = read_audio(answer.content)
    assert len(samples) / rate == pytest.approx(1.5, abs=0.12)
    middle = samples[rate // 2 : rate]
    assert np.argmax(np.abs(np.fft.rfft(middle))) * 2 == pytest.approx(440, abs=4)


def test_what_is_no_sound_or_too_long_is_refused(start):
    server = start(settings=ServerSettings(max_body=100_000))
    assert problem(pack(server, b"no sound at all", "mp3"))[2] == "audio"
    assert problem(pack(server, tone(), "mp4"))[:2] == (400, "unsupported_response_format")
    assert problem(pack(server, tone(seconds=3), "mp3"))[0] == 413


def test_an_hour_in_a_small_file_is_no_more_than_a_body_of_wav(start):
    server = start(settings=ServerSettings(max_body=200_000))
    target = io.BytesIO()
    write_audio(target, np.zeros(150_000, np.float32), 24_000, format="flac")
    assert len(target.getvalue()) < 20_000
    status, _, param = problem(pack(server, target.getvalue(), "mp3"))
    assert (status, param) == (400, "audio")


def check(server, data, **form):
    files = {"audio_sample": ("a.wav", data)}
    return httpx.post(f"{server.url}/v1/audio/voices/check", data=form, files=files, timeout=120)


def test_a_clip_is_examined_and_nothing_is_kept(start, library):
    found = check(start(), clip(seconds=2.0)).json()
    assert found["is_hopeless"] is False
    assert found["measurement"]["seconds"] == pytest.approx(2.0)
    assert "length" in [remark["about"] for remark in found["advice"]]
    assert {"is_problem", "about", "message"} == set(found["advice"][0])
    assert found["heard"] is None
    assert "mended" not in found
    assert library.names() == []


def test_silence_is_hopeless(start):
    target = io.BytesIO()
    write_audio(target, np.zeros(48_000, np.float32), 24_000, format="wav")
    found = check(start(), target.getvalue()).json()
    assert found["is_hopeless"] is True
    assert found["is_good"] is False


def test_a_faint_clip_is_mended_and_said_to_be(start):
    found = check(start(), clip(seconds=6.0, level=0.01), mend="true").json()
    assert any(remark["about"] == "level" for remark in found["advice"])
    mended = found["mended"]
    assert any("LUFS" in line for line in mended["done"])
    assert not any(remark["about"] == "level" for remark in mended["advice"])
    samples, _ = read_audio(base64.b64decode(mended["audio"]))
    assert np.abs(samples).max() > 0.1


def test_the_state_tells_rights_and_limits(start):
    told = httpx.get(f"{start().url}/v1/status").json()
    assert told["key"] == {"is_asked": False, "rights": ["admin", "speak", "voices"]}
    assert told["memory_limit"] is None
    assert isinstance(told["can_transcribe"], bool)
