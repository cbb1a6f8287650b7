"""What a recording offers to a script and to a notebook."""

import io

import numpy as np
import pytest
import soundfile
import torch

from sonant import Audio, Speech
from sonant.errors import RequestError, SonantError


@pytest.fixture
def tone():
    times = np.arange(12_000, dtype=np.float32) / 24_000
    return Audio(0.5 * np.sin(2 * np.pi * 440 * times), 24_000)


def test_it_is_an_array_of_its_samples(tone):
    assert np.array_equal(np.asarray(tone), tone.samples)
    assert np.asarray(tone, dtype=np.float64).dtype == np.float64
    assert float(np.abs(tone).max()) == pytest.approx(0.5, abs=1e-3)
    copy = np.array(tone)
    copy[:] = 0
    assert tone.samples.any()


def test_save_gives_the_path_and_the_format_of_its_ending(tone, tmp_path):
    path = tone.save(tmp_path / "a.flac")
    assert soundfile.info(path).format == "FLAC"
    assert soundfile.info(tone.save(str(tmp_path / "a.wav"))).frames == 12_000


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "opus"])
def test_bytes_are_a_whole_file(tone, format):
    heard, rate = soundfile.read(io.BytesIO(tone.to_bytes(format)))
    assert len(heard) / rate == pytest.approx(0.5, abs=0.1)


def test_an_unknown_format_is_refused_by_name(tone):
    with pytest.raises(SonantError, match="nope"):
        tone.to_bytes("nope")


@pytest.mark.parametrize("count", [0, 1, 100, 12_000])
def test_a_notebook_gets_a_player_and_two_pictures(tone, count):
    page = Audio(tone.samples[:count], 24_000)._repr_html_()
    assert page.count("<audio controls") == page.count("<svg") == page.count("image/png;base64") == 1


def test_it_says_what_it_is(tone):
    assert repr(tone) == "<Audio: 0.50 s at 24000 Hz>"
    assert repr(Speech(tone.samples, 24_000, seed=7)) == "<Speech: 0.50 s at 24000 Hz, seed 7>"


def test_what_is_no_row_of_samples_is_refused():
    with pytest.raises(SonantError, match="not mono"):
        Audio(np.zeros((2, 10), dtype=np.float32), 24_000)
    with pytest.raises(SonantError, match=r"int16 are no levels.*Divide int16 by 32768"):
        Audio(np.zeros(10, dtype=np.int16), 24_000)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([[0.0], [0.0, 1.0]], "the list holds no levels"),
        (torch.zeros(3, requires_grad=True), r"the Tensor holds no levels.*give tensor\.detach"),
        (torch.zeros(3, dtype=torch.bfloat16), r"the Tensor holds no levels.*give tensor\.detach"),
        ("abc", "a str is no row of samples"),
        (None, "a NoneType is no row of samples"),
        (0.5, "a float is no row of samples"),
        ([0, 0, 1], "samples of int64 are no levels.*Give floats"),
        (np.zeros(3, dtype=np.int32), "Divide int32 by 2147483648"),
        (np.zeros(3, dtype=np.uint8), "Give floats"),
        ([0.1, None], "samples of object are no levels.*Give floats"),
        (["a", "b"], "are no levels.*Give floats"),
    ],
    ids=str,
)
def test_what_is_nearly_a_row_of_samples_is_told(given, told):
    with pytest.raises(RequestError, match=told):
        Audio(given, 24_000)


def test_a_list_of_levels_is_audio():
    assert np.array_equal(Audio([0.0, 0.5], 24_000).samples, np.float32([0, 0.5]))
