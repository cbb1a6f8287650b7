"""sonant parity: record, compare, bisect, drift, report and stages, as someone new would type them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from sonant.parity.stages import FAMILIES
from sonant.parity.trace import Trace, read_trace
from sonant.request.audio import Audio
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


def test_bisect_finds_the_stages_of_a_port_s_own_names(sonant, recorded, tmp_path):
    tensors, made = load_file(recorded), {}
    last = max(name for name in tensors if re.fullmatch(r"talker\.layer\.\d\.out", name))
    for name, tensor in tensors.items():
        found = re.fullmatch(r"talker\.layer\.(\d+)\.(in|query|key|attention|mlp|out)(?:@(\d+))?", name)
        if found:
            layer, leaf, step = found.groups()
            made[f"p{step or 0}/b{layer}_{leaf[:1]}"] = tensor.numpy() * (1.02 if name == last else 1)
    np.savez("port.npz", **made)
    common = ("parity", "bisect", "--model", MODEL, "-r", "port.npz", "--like", recorded, "--device", "cpu")
    result = sonant(*common)
    assert result.code == 1, result.err
    assert result.text.startswith("Wrong by themselves: talker.layer.{layer}.out.")
    assert "a constant factor of 1.02" in result.text
    assert "map: p0.b0_a -> talker.layer.0.attention (certain" in result.text
    result = sonant(*common, "--no-match")
    assert (result.code, result.text.startswith("Nothing was judged")) == (1, True)


def test_drift_prints_what_each_stage_loses(sonant):
    result = sonant(
        *("parity", "drift", "--model", MODEL, "--text", "Hi.", "--voice", CLIP, "--steps", 1),
        *("--precisions", "bfloat16", "--device", "cpu", "--top", 3),
    )
    assert result.code == 0, result.err
    assert "most is lost in" in result.text
    assert "piled up" in result.text


def test_greedy_sets_what_the_model_has(sonant, tmp_path):
    """It set Qwen3-TTS's two switches for every family, and drift and --greedy refused the other two."""
    path = tmp_path / "greedy.safetensors"
    result = sonant(
        *("parity", "record", "--model", cases.checkpoint("cosyvoice3"), "--text", "Hi.", "--voice", CLIP),
        *("--greedy", "--steps", 1, "--stages", "output.*", "--device", "cpu", "-o", path),
    )
    assert result.code == 0, result.err
    assert "output.samples" in load_file(path)


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
        (
            ("compare", "good.npz", "good.npz", "--names", "twice.json"),
            "'{n}/{n}' with placeholders that",
        ),
        (("compare", "good.npz", "good.npz", "--family", "x"), "'x' has no documented stages"),
        (("compare", "good.npz", "good.npz", "--precision", "int3"), "'int3' has no budgets"),
        (("report", "good.npz", "good.npz", "-o", "no/where.html"), "which does not exist"),
        (("stages", "x"), "'x' has no documented stages"),
        (("record", "--model", MODEL, "-o", "a.safetensors"), "neither of --text and --like"),
        (("record", "--model", MODEL, "-o", "no/a.safetensors", "--text", "Hi."), "which does not exist"),
        (
            ("record", "--model", MODEL, "-o", "a.safetensors", "--like", "x", "--seed", 5),
            "--seed given without",
        ),
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
    (tmp_path / "twice.json").write_text('{"{n}/{n}": "talker.logits"}')
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
        ("qwen3_tts", "greedy=maybe", ("greedy", "true or false")),
        ("qwen3_tts", "beams=2", ("no sampling setting beams", "predictor_top_k")),
        ("cosyvoice3", "foo=1", ("no option 'foo'", "reference_stream")),
        ("qwen3_tts", "text_layout=upside", ("text layout", "progressive or full")),
        ("qwen3_tts", "speed=1.5", ("does not take speed",)),
        ("qwen3_tts", "speed=fast", ("fast", "number")),
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


@pytest.mark.slow
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


def test_what_was_set_is_set_when_a_trace_is_repeated(sonant, tmp_path):
    """Which front end reads the text is another text: it was repeated as the original's."""
    (tmp_path / "words.txt").write_text("cake = pie", encoding="utf-8")
    common = ("parity", "record", "--model", MODEL, "--device", "cpu")
    asked = (*common, "--text", "Cake costs $5.", "--voice", CLIP, "--steps", 2)
    said = ("--set", "normalize=sonant", "--set", "glossary=words.txt")
    assert sonant(*asked, *said, "-o", "a.safetensors").code == 0
    assert sonant(*asked, "-o", "usual.safetensors").code == 0
    assert sonant(*common, "--like", "a.safetensors", "-o", "b.safetensors").code == 0
    words = [load_file(f"{name}.safetensors")["prompt.text_ids"] for name in ("a", "b", "usual")]
    assert np.array_equal(words[0], words[1])
    assert not np.array_equal(words[0], words[2])
    told = sonant("parity", "compare", "a.safetensors", "usual.safetensors").text
    assert "the two requests differ in normalize: 'sonant' and None" in told
    assert "the two requests differ in glossary: {'cake': 'pie'} and None" in told


def test_a_file_of_a_port_is_bisected_with_the_request_of_a_trace_or_of_flags(sonant, recorded, tmp_path):
    tensors = load_file(recorded)
    few = {name: tensors[name] for name in sorted(tensors) if name.startswith("talker.layer.0.")}
    few["talker.layer.0.query"] = few["talker.layer.0.query"] * 1.5
    save_file(few, tmp_path / "few.safetensors")
    common = ("parity", "bisect", "--model", MODEL, "-r", "few.safetensors", "--device", "cpu")
    result = sonant(*common)
    assert result.code == 2
    assert "--like" in result.err
    assert "--text" in result.err
    result = sonant(*common, "--like", recorded)
    assert result.code == 1, result.err
    assert result.text.startswith("Wrong by themselves: talker.layer.{layer}.query. What the file holds of")
    assert "a constant factor of 1.5" in result.text
    Audio(tensors["input.audio"].numpy(), 24_000).write("clip.wav")
    flags = ("--voice", "clip.wav", "--transcript", "Hi you.", "--language", "english", "--steps", 2)
    result = sonant(*common, "--text", "Hello you.", *flags)
    assert result.text.startswith("Wrong by themselves: talker.layer.{layer}.query.")
    result = sonant(*common, "--text", "Something else.", *flags[:2])
    assert result.code == 1
    assert "is it of another text, voice, transcript or limit? Give its own." in result.text


def test_names_are_proposed_kept_and_used_again(sonant, recorded, tmp_path):
    tensors = load_file(recorded)
    port = {
        f"blk{layer + 1}/{theirs}": tensors[f"talker.layer.{layer}.{ours}"].numpy()
        for layer in (0, 1)
        for theirs, ours in (("q", "query"), ("ffn", "mlp"))
    }
    port["blk2/ffn"] = port["blk2/ffn"] * 2
    np.savez(tmp_path / "port.npz", **port)
    result = sonant("parity", "compare", recorded, "port.npz", "--save-map", "map.json")
    assert result.code == 1
    assert result.text.startswith("First stage out of budget: talker.layer.1.mlp")
    assert "map: blk1.q -> talker.layer.0.query (certain: the same values" in result.text
    names = json.loads((tmp_path / "map.json").read_text())
    assert names["blk{n0}.q"] == "talker.layer.{n0-1}.query@0"
    again = sonant("parity", "compare", recorded, "port.npz", "--names", "map.json")
    assert again.text.startswith("First stage out of budget: talker.layer.1.mlp")
    assert "map:" not in again.text
    result = sonant("parity", "compare", recorded, "port.npz", "--no-match")
    assert result.code == 1
    assert result.text.startswith("Nothing was compared")


def test_several_tries_are_ranked(sonant, recorded, tmp_path):
    first = damaged(recorded, tmp_path).rename(tmp_path / "a.safetensors")
    second = damaged(recorded, tmp_path, "codec.wav").rename(tmp_path / "b.safetensors")
    result = sonant("parity", "compare", recorded, "--against", first, second, recorded)
    assert result.code == 1
    rows = [line.split()[0].rsplit("/")[-1] for line in result.text.splitlines()[1:4]]
    assert rows == ["ours.safetensors", "b.safetensors", "a.safetensors"]
    assert "mended: talker.logits" in result.text
    data = json.loads(sonant("parity", "compare", recorded, first, second, "--json").text)
    assert [found["first_failed"] for found in data.values()] == ["talker.logits", "codec.wav"]
    result = sonant("parity", "compare", recorded, first, second, "--watch")
    assert result.code == 2
    assert "2 files to judge" in result.err


def odd(path, folder):
    """A trace with one stage a little off, in budget."""
    trace = read_trace(path)
    entries = tuple(
        replace(e, stored=e.stored * (1 + 1e-6), hash="") if e.key == "talker.logits" else e
        for e in trace.entries
    )
    Trace(entries, trace.metadata).save(folder / "odd.safetensors")


def test_what_is_only_suspicious_has_a_code_of_its_own(sonant, recorded, tmp_path):
    odd(recorded, tmp_path)
    result = sonant("parity", "compare", recorded, "odd.safetensors")
    assert result.code == 3
    assert result.text.startswith("First suspicious stage: talker.logits")
    assert "a constant factor of 1 +" in result.text
    damaged(recorded, tmp_path)
    result = sonant("parity", "compare", recorded, "port.safetensors", "odd.safetensors")
    assert result.code == 1  # the worst of several, not the largest number


def test_a_report_leaves_as_a_comparison_does(sonant, recorded, tmp_path):
    port = damaged(recorded, tmp_path)
    result = sonant("parity", "report", recorded, port, "-o", "wrong.html")
    assert result.code == sonant("parity", "compare", recorded, port).code == 1
    assert result.text.startswith("wrong.html: First stage out of budget: talker.logits")
    assert (tmp_path / "wrong.html").stat().st_size > 10_000  # written all the same
    odd(recorded, tmp_path)
    assert sonant("parity", "report", recorded, "odd.safetensors", "-o", "odd.html").code == 3
    np.savez(tmp_path / "other.npz", nothing_known=np.ones((2, 3), np.float32))
    result = sonant("parity", "report", recorded, "other.npz", "-o", "none.html")
    assert (result.code, "Nothing was compared" in result.text) == (1, True)


def test_patterns_of_stages_that_match_nothing_are_told(sonant):
    result = sonant(
        *("parity", "record", "--model", MODEL, "--text", "Hi.", "--voice", CLIP, "--steps", 1),
        *("--stages", "talker.norm,talkr.*", "--device", "cpu", "-o", "x.safetensors"),
    )
    assert result.code == 0
    assert "no stage fits talkr.*" in result.err
