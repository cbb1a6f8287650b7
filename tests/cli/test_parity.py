"""sonant parity: record, compare, bisect, drift, report and stages, as someone new would type them."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from sonant.parity.stages import FAMILIES
from tests.parity import cases

MODEL = cases.checkpoint("qwen3_tts")
CLIP = Path(cases.DATA) / "qwen3_tts/audio/ref_a_24k_mono.wav"
ORIGINAL = Path(cases.DATA) / "parity/qwen3_tts_original.safetensors"


@pytest.fixture
def recorded(sonant, tmp_path):
    """A trace of this implementation that repeats the original's request."""
    path = tmp_path / "ours.safetensors"
    result = sonant(
        *("parity", "record", "--model", MODEL, "--like", ORIGINAL, "--forced", ORIGINAL),
        *("--device", "cpu", "-o", path),
    )
    assert result.code == 0, result.err
    assert "entries" in result.text
    return path


def damaged(path, folder, name="talker.logits"):
    """The tensors of a trace as plain safetensors, one of them changed."""
    tensors = load_file(path)
    tensors[name] = tensors[name] + 0.5
    save_file(tensors, folder / "port.safetensors")
    return folder / "port.safetensors"


def test_a_recording_equals_the_original_and_a_report_is_written(sonant, recorded, tmp_path):
    result = sonant("parity", "compare", ORIGINAL, recorded, "--html", "page.html", "--all")
    assert result.code == 0, result.err
    assert "common stages are in budget" in result.text
    assert "free decode: equal" in result.text
    assert "talker.layer.0.query" in result.text  # --all
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "sonant parity compare" in page  # the command that reproduces it
    result = sonant("parity", "report", ORIGINAL, recorded, "-o", "again.html")
    assert result.code == 0
    assert (tmp_path / "again.html").stat().st_size > 10_000


def test_a_foreign_trace_that_differs_fails_and_the_answer_is_data(sonant, recorded, tmp_path):
    port = damaged(recorded, tmp_path)
    result = sonant("parity", "compare", recorded, port, "--json")
    assert result.code == 1
    data = json.loads(result.text)
    assert data["first_failed"] == "talker.logits"
    assert data["inputs_differed"] is False
    assert {"key", "shape", "dtype", "max_abs", "mean_abs", "relative", "cosine", "allowed"} <= set(
        data["stages"][0]
    )
    text = sonant("parity", "compare", recorded, port).text
    assert text.startswith("First stage out of budget: talker.logits")
    assert "FAIL talker.logits" in text


def test_stages_and_max_elements_bound_what_is_kept(sonant, recorded, tmp_path):
    result = sonant(
        *("parity", "record", "--model", MODEL, "--text", "Hi.", "--voice", CLIP, "--steps", 1),
        *(
            "--stages",
            "talker.*,output.*",
            "--max-elements",
            20,
            "--device",
            "cpu",
            "-o",
            "small.safetensors",
        ),
    )
    assert result.code == 0, result.err
    kept = load_file(tmp_path / "small.safetensors")
    stages = {name: tensor for name, tensor in kept.items() if not name.startswith(("draw", "input"))}
    assert {name.split(".")[0] for name in stages} == {"talker", "output", "predictor"}  # its tokens
    assert max(tensor.numel() for tensor in stages.values()) == 20
    assert (tmp_path / "small.safetensors").stat().st_size < recorded.stat().st_size


def test_bisect_finds_nothing_in_a_right_network(sonant):
    result = sonant("parity", "bisect", "--model", MODEL, "-r", ORIGINAL, "--device", "cpu", "--json")
    assert result.code == 0, result.err
    data = json.loads(result.text)
    assert data["faults"] == []
    assert data["comparison"]["first_failed"] is None


def test_drift_prints_what_each_stage_loses(sonant):
    result = sonant(
        *("parity", "drift", "--model", MODEL, "--text", "Hi.", "--voice", CLIP, "--steps", 1),
        *("--precisions", "bfloat16", "--device", "cpu", "--top", 3),
    )
    assert result.code == 0, result.err
    assert "most is lost in" in result.text
    assert "piled up" in result.text


@pytest.mark.parametrize("family", FAMILIES)
def test_stages_are_printed_as_tables(sonant, family):
    text = sonant("parity", "stages", family).text
    assert "**Autoregressive decoding**" in text
    assert "| `output.samples` |" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare", "nothing.npz", "bad.npz"), "nothing.npz does not exist; expected a trace"),
        (("compare", "bad.npz", "bad.npz"), "bad.npz is not a readable .npz"),
        (("compare", "bad.safetensors", "bad.npz"), "not a readable safetensors file"),
        (("compare", "folder", "bad.npz"), "folder describes no tensors; expected .bin files"),
        (("compare", "good.npz", "good.npz", "--names", "bad.json"), "bad.json is not readable JSON"),
        (("compare", "good.npz", "good.npz", "--names", "list.json"), "list.json maps no names"),
        (("compare", "good.npz", "good.npz", "--family", "x"), "'x' has no documented stages"),
        (("compare", "good.npz", "good.npz", "--precision", "int3"), "'int3' has no budgets"),
        (("report", "good.npz", "good.npz", "-o", "no/where.html"), "which does not exist"),
        (("stages", "x"), "'x' has no documented stages"),
        (("record", "--model", MODEL, "-o", "a.safetensors"), "neither of --text and --like"),
        (("record", "--model", MODEL, "-o", "no/a.safetensors", "--text", "Hi."), "which does not exist"),
        (
            ("record", "--model", MODEL, "-o", "a.safetensors", "--text", "Hi.", "--set", "top_k"),
            "expected NAME=VALUE",
        ),
        (
            ("record", "--model", MODEL, "-o", "a.safetensors", "--text", "Hi.", "--set", "top_k=x"),
            "top_k is 'x'; expected a whole number",
        ),
        (
            ("record", "--model", MODEL, "-o", "a.safetensors", "--text", "Hi.", "--transcript", "Hi."),
            "no voice is no file that says it",
        ),
    ],
)
def test_what_cannot_be_done_says_what_to_do(sonant, tmp_path, arguments, words):
    for name in ("bad.npz", "bad.safetensors"):
        (tmp_path / name).write_text("not a trace")
    (tmp_path / "bad.json").write_text('{"a": ')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "good.npz", **{"talker.logits": np.ones((1, 3), np.float32)})
    result = sonant("parity", *arguments)
    assert result.code != 0
    assert words in result.err.replace("\n", " ")
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("family", "setting", "words"),
    [
        ("qwen3_tts", "foo=1", ("no option 'foo'", "codec_chunks")),
        ("qwen3_tts", "codec_chunks=maybe", ("codec_chunks", "true or false")),
        ("qwen3_tts", "greedy=no", ("greedy", "true or false")),
        ("qwen3_tts", "beams=2", ("no sampling setting beams", "predictor_top_k")),
        ("cosyvoice3", "foo=1", ("no option 'foo'", "reference_stream")),
        ("qwen3_tts", "text_layout=upside", ("text layout", "progressive or full")),
        ("qwen3_tts", "speed=1.5", ("does not take speed",)),
        ("qwen3_tts", "speed=fast", ("not understood",)),
        ("indextts2", "foo=1", ("no option 'foo'", "interval_silence_ms")),
        ("indextts2", "emotion_strength=0.5", ("no emotion was given",)),
    ],
)
def test_a_setting_that_the_model_lacks_is_refused(sonant, family, setting, words):
    result = sonant(
        *("parity", "record", "--model", cases.checkpoint(family), "--text", "Hi.", "--voice", CLIP),
        *("--set", setting, "--steps", 2, "--device", "cpu", "-o", "x.safetensors"),
    )
    assert result.code in {2, 4}, result.err
    assert all(word in result.err for word in words), result.err


def test_settings_of_the_whole_request_can_be_recorded(sonant):
    model = cases.checkpoint("cosyvoice3")
    common = ("parity", "record", "--model", model, "--voice", CLIP, "--steps", 4, "--device", "cpu")
    result = sonant(*common, "--text", "", "--set", f"source_audio={CLIP}", "-o", "conversion.safetensors")
    assert result.code == 0, result.err
    assert "input.source_audio" in load_file("conversion.safetensors")
    again = sonant(
        *(
            "parity",
            "record",
            "--model",
            model,
            "--like",
            "conversion.safetensors",
            "-o",
            "again.safetensors",
        ),
        *("--device", "cpu"),
    )
    assert again.code == 0, again.err
    assert sonant("parity", "compare", "conversion.safetensors", "again.safetensors").code == 0
