"""sonant measure draws, and asks for the judges before they are needed."""

import json

import numpy as np

from sonant.audio.io import write_audio


def test_a_page_is_written_beside_the_figures(sonant, tmp_path):
    tone = (0.1 * np.sin(np.arange(16_000) * 0.05)).astype(np.float32)
    write_audio(tmp_path / "a.wav", tone, 16_000)
    result = sonant("measure", "a.wav", "--plots", "page.html", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)[0]["seconds"] == 1.0
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count("<svg") == 2


def test_a_text_or_a_voice_without_the_judges_is_refused(sonant, tmp_path):
    for flags in (("--text", "hello"), ("--voice", "a.wav")):
        refused = sonant("measure", "a.wav", *flags)
        assert refused.code == 2
        assert "--judge" in refused.err


def test_a_file_that_is_no_recording_costs_its_own_figures_only(sonant, tmp_path):
    tone = (0.1 * np.sin(np.arange(16_000) * 0.05)).astype(np.float32)
    write_audio(tmp_path / "a.wav", tone, 16_000)
    (tmp_path / "b.wav").write_bytes(b"nothing")
    result = sonant("measure", "b.wav", "a.wav", "none.wav", "--json")
    assert [row["file"] for row in json.loads(result.out)] == ["a.wav"]
    assert result.code == 2
    assert "b.wav" in result.err
    assert "none.wav" in result.err
    assert sonant("measure", "b.wav").code == 2
