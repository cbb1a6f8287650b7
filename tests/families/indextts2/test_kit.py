"""The runner of conformance kits: on a small kit of recorded fixtures, and whole where one lies beside."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sonant.parity.kit import KitReport, run_kit
from sonant.parity.kits.driver import Taken, watched
from sonant.parity.kits.indextts2.folder import IndexKit
from sonant.parity.kits.indextts2.listen import _in_float64
from sonant.request.audio import Audio
from tests.families.indextts2.conftest import DATA

KIT = Path(__file__).parents[4] / "shared" / "indextts2"


@pytest.fixture
def small_kit(checkpoint, tmp_path):
    """The recorded parts that need no reference encoder: its weights are not the recorded ones here."""
    folder = tmp_path / "kit"
    shutil.copytree(checkpoint, folder / "checkpoint")
    (folder / "fixtures").mkdir()
    for name in ("dit", "gpt_cond", "gpt_decode", "length_regulator", "sampling"):
        shutil.copy(DATA / f"{name}.safetensors", folder / "fixtures")
    for name in ("text", "sampling"):
        shutil.copy(DATA / f"{name}.json", folder / "fixtures")
    emotion = json.loads((DATA / "emotion.json").read_text(encoding="utf-8"))
    emotion["nearest"] = {}
    (folder / "fixtures" / "emotion.json").write_text(json.dumps(emotion), encoding="utf-8")
    return folder


def run(folder):
    lines = []
    is_good = run_kit(folder, lines.append)
    return is_good, lines


def test_the_small_kit_passes(small_kit):
    is_good, lines = run(small_kit)
    assert is_good, [line for line in lines if line.startswith("FAIL")]
    assert int(lines[-1].split()[0]) > 700
    named = "\n".join(lines)
    for part in ("gpt_decode", "sampling", "dit", "classifier.0", "segments.0", "pinyin", "parser.0"):
        assert part in named


def test_what_a_clip_gives_is_the_same_in_float64_but_for_rounding(checkpoint, tmp_path):
    """What a value at the edge of its tolerance is held to is computed in float64, from the same inputs."""
    (tmp_path / "checkpoint").symlink_to(checkpoint)
    kit = IndexKit(tmp_path, KitReport(print))
    noise = np.random.default_rng(0).normal(scale=0.1, size=16_000).astype(np.float32)
    with watched() as found, torch.inference_mode():
        kit.model.parts.reference.speaker(Audio(noise, 16_000))
    exact = _in_float64(kit, found)
    names = [name for name in found if name.startswith(("w2v.hidden", "campplus", "reference.semantic"))]
    assert len(names) > 5
    for name in names:
        ours, wide = (one[0] if isinstance(one, Taken) else one for one in (found[name], exact[name]))
        assert wide.dtype == torch.float64, name
        assert 0 < float((ours - wide).abs().max()) < 1e-4 * max(1.0, float(wide.abs().max())), name


@pytest.mark.parametrize("inside", [True, False])
def test_a_kit_whose_gpt_training_has_saved_passes(small_kit, inside):
    """Wrapped, with a head, moments, averages and a loss beside; listed with the wrapper or without."""
    for name in ("text.json", "emotion.json", "sampling.json", "sampling.safetensors"):
        (small_kit / "fixtures" / name).unlink()
    tensors = torch.load(small_kit / "checkpoint" / "gpt.pth", weights_only=True)
    listed = {
        f"{'model/' if inside else ''}{key}": [str(tensor.dtype).split(".")[1], list(tensor.shape)]
        for key, tensor in tensors.items()
    }
    saved = {
        "model": {**tensors, "teacher_head.weight": torch.zeros(3, 3)},
        "ema": {key: tensor + 1 for key, tensor in tensors.items()},
        "optimizer": {
            "state": {0: {"exp_avg": torch.zeros(3)}},
            "param_groups": [{"lr": 0.1, "params": [0]}],
        },
        "best_loss": np.float64(0.5),
    }
    torch.save(saved, small_kit / "checkpoint" / "gpt.pth")
    (small_kit / "checkpoint_keys.json").write_text(json.dumps({"gpt.pth": listed}), encoding="utf-8")
    is_good, lines = run(small_kit)
    assert is_good, [line for line in lines if line.startswith("FAIL")]
    assert any(line.startswith("PASS  checkpoint") for line in lines)
    listed[f"{'model/' if inside else ''}lost.weight"] = ["float32", [1]]
    (small_kit / "checkpoint_keys.json").write_text(json.dumps({"gpt.pth": listed}), encoding="utf-8")
    assert [line.split()[1] for line in run(small_kit)[1] if line.startswith("FAIL")] == ["checkpoint"]


@pytest.mark.parametrize(
    ("file", "tensor", "part"),
    [
        ("gpt_decode", "greedy_logits", "gpt_decode"),
        ("dit", "act_final_layer", "dit"),
        ("length_regulator", "out_39", "length_regulator"),
    ],
)
def test_another_recorded_number_fails_in_its_part(small_kit, file, tensor, part):
    for other in ("text.json", "emotion.json", "sampling.json", "sampling.safetensors"):
        (small_kit / "fixtures" / other).unlink()
    path = small_kit / "fixtures" / f"{file}.safetensors"
    tensors = load_file(path)
    tensors[tensor] = tensors[tensor] + 1e-3
    save_file(tensors, path)
    is_good, lines = run(small_kit)
    assert not is_good
    failed = [line.split()[1] for line in lines if line.startswith("FAIL")]
    assert set(failed) == {part}


@pytest.mark.slow
@pytest.mark.skipif(not KIT.is_dir(), reason="the conformance kit is not beside this repository")
def test_the_whole_kit_passes():
    is_good, lines = run(KIT)
    assert is_good, [line for line in lines if line.startswith("FAIL")]
