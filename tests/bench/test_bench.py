"""sonant bench: figures of a real run, the true shapes, and rivals in turn."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sonant.bench import qwen3_tts_checkpoint
from sonant.bench.checkpoints import folder_for, rival_of
from sonant.bench.compare import compare, merge, run_rival
from sonant.bench.worker import Workload, measure
from sonant.cli.app import tree
from sonant.cli.bench import _figure
from sonant.errors import CheckpointError, DependencyError, GenerationError, RequestError

app = tree()


@pytest.mark.parametrize(
    ("size", "kind", "tensors"),
    [
        ("0.6b", "custom_voice", 402),
        ("0.6b", "base", 478),
        ("1.7b", "base", 480),
        ("1.7b", "voice_design", 404),
    ],
)
def test_random_checkpoints_have_as_many_tensors_as_the_released_files(size, kind, tensors):
    shapes = dict(qwen3_tts_checkpoint.model_shapes(size, kind))
    assert len(shapes) == tensors
    if kind == "custom_voice":
        total = 0
        for shape in shapes.values():
            count = 1
            for extent in shape:
                count *= extent
            total += count
        assert total == 905_788_672


def test_the_codec_has_496_tensors():
    assert len(dict(qwen3_tts_checkpoint.codec_shapes())) == 496


def test_a_run_gives_every_documented_figure():
    figures = measure(Workload(model="builtin", runs=1, threads=1))
    documented = "model precision batch threads device load_s ttfa_ms rtf ms_per_frame peak_mb"
    assert set(documented.split()) <= figures.keys()
    assert figures["audio_s"] > 3
    assert 0 < figures["rtf"] < 1
    assert figures["ms_per_frame"]["whole"] > figures["ms_per_frame"]["decode"] > 0


def test_the_command_prints_one_json_object_and_the_ratio_of_a_command_line():
    rival = f"{sys.executable} -c pass"
    result = CliRunner().invoke(
        app, ["bench", "builtin", "--runs", "1", "--json", "--compare", rival, "--seconds", "1"]
    )
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout.strip().splitlines()[-1])
    assert figures["model"] == "builtin"
    assert 0 < figures["ratio"] < 1  # doing nothing is faster
    assert figures["rival"]["command_s"] > 0


def test_rounds_become_medians():
    rounds = [{"a": a, "s": {"x": x}, "n": "m"} for a, x in ((1.0, 5), (3.0, 7), (2.0, 6))]
    assert merge(rounds) == {"a": 2.0, "s": {"x": 6}, "n": "m"}


def test_a_known_name_is_written_with_the_shapes_of_its_kind(tmp_path, monkeypatch):
    """Names as people type them; without a kind it is the one with voices of its own."""
    asked = []
    monkeypatch.setenv("SONANT_MODELS", str(tmp_path))
    monkeypatch.setattr(qwen3_tts_checkpoint, "write", lambda folder, **given: asked.append((folder, given)))
    for name in ("Qwen3-TTS-1.7B-VoiceDesign", "qwen3-tts-0.6b"):
        assert folder_for(name, tmp_path) == tmp_path / name
    assert [tuple(given.values()) for _, given in asked] == [
        ("1.7b", "voice_design"),
        ("0.6b", "custom_voice"),
    ]
    assert (folder_for("nano", tmp_path) / "config.json").is_file()  # inside the package: nothing is written
    assert folder_for("builtin", tmp_path) == Path("builtin")
    assert (rival_of("indextts2.5"), rival_of("cosyvoice3-0.5b"), rival_of("nano")) == (
        "indextts",
        "cosyvoice",
        None,
    )


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("SONANT_MODELS", str(tmp_path))
    monkeypatch.delenv("SONANT_RIVAL_PYTHON", raising=False)
    with pytest.raises(CheckpointError, match=r"neither a folder.*nano.*qwen3-tts-0.6b-base.*indextts2\.5"):
        folder_for("no-such-model", tmp_path)
    workload = Workload(model="builtin", runs=1)
    with pytest.raises(DependencyError, match="--rival-python"):
        run_rival("qwen-tts", workload, tmp_path, python=None, dtype="float32")
    with pytest.raises(GenerationError, match="failed"):
        run_rival(
            f"{sys.executable} -c 'raise SystemExit(3)'", workload, tmp_path, python=None, dtype="float32"
        )
    with pytest.raises(GenerationError, match="the measurement failed"):
        compare(Workload(model=str(tmp_path)), tmp_path, None, python=None, dtype="float32", rounds=1)


@pytest.mark.parametrize("failing", ["-c 'raise SystemExit(3)'", "no-such-file.py"])
def test_a_rival_that_fails_costs_no_figure_of_ours(monkeypatch, failing):
    monkeypatch.setattr("sonant.bench.compare.run_workload", lambda workload: {"rtf": 0.5})
    command = f"{sys.executable} {failing}"
    found = compare(Workload(model="m"), Path(), command, python=None, dtype="float32", rounds=2)
    assert found["rtf"] == 0.5
    assert "failed" in found["rival_error"]
    assert not {"rival", "ratio"} & found.keys()


@pytest.mark.parametrize("printed", ["", "no figures"])
def test_an_original_that_prints_no_figures_costs_none_of_ours(monkeypatch, tmp_path, printed):
    monkeypatch.setattr("sonant.bench.compare.run_workload", lambda workload: {"rtf": 0.5})
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {printed}\n")
    python.chmod(0o755)
    workload = Workload(model="m")
    found = compare(workload, tmp_path, "indextts", python=str(python), dtype="float32", rounds=1)
    assert "printed no figures" in found["rival_error"]


@pytest.mark.parametrize(
    ("rival", "python", "error"),
    [
        ("indextts", None, DependencyError),
        ("indextts", "/no/such/python", DependencyError),
        ("'unclosed", None, RequestError),
        (" ", None, RequestError),
    ],
)
def test_a_rival_that_cannot_run_is_refused_before_ours_does(monkeypatch, rival, python, error):
    monkeypatch.setattr("sonant.bench.compare.run_workload", lambda workload: pytest.fail("measured first"))
    monkeypatch.delenv("SONANT_RIVAL_PYTHON", raising=False)
    with pytest.raises(error, match=r"rival|--compare"):
        compare(Workload(model="m"), Path(), rival, python=python, dtype="float32", rounds=1)


def test_several_rounds_tell_the_least_and_the_most_of_what_is_compared():
    rounds = [{"rtf": 0.9, "ttfa_ms": 300.0, "load_s": 2.0}, {"rtf": 0.8, "ttfa_ms": 400.0, "load_s": 3.0}]
    found = merge([*rounds, {"rtf": 1.4, "ttfa_ms": 350.0, "load_s": 2.5}])
    assert found["rtf"] == 0.9
    assert found["spread"] == {"rtf": [0.8, 1.4], "ttfa_ms": [300.0, 400.0]}
    assert "spread" not in merge(rounds[:1])
    assert _figure(found, "rtf", ".2f") == "0.90 (0.80 to 1.40)"
    assert _figure(rounds[0], "rtf", ".2f") == "0.90"
    assert _figure(found, "ratio", ".2f") == ""
