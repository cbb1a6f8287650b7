"""The runner of conformance kits: on a small kit of recorded fixtures, and whole where one lies beside."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sonant.families.cosyvoice3.config import QWEN_FOLDER, read_config
from sonant.families.cosyvoice3.noise import ReferenceNoise
from sonant.parity.kit import KitReport, run_kit
from sonant.parity.kits import cosyvoice3
from sonant.parity.kits.cosyvoice3 import front, networks
from sonant.parity.kits.cosyvoice3.folder import CosyKit
from tests.families.cosyvoice3.conftest import DATA

KIT = Path(__file__).parents[4] / "shared" / "cosyvoice3"
FRAMES, START = 600, 729


@pytest.fixture
def small_kit(checkpoint, expected, rows, tmp_path):
    """The recorded tensors of the tests in a kit's layout."""
    (tmp_path / "model").symlink_to(checkpoint)
    (tmp_path / "audio").mkdir()
    for name in ("prompt_24k.wav", "source_16k.wav"):
        shutil.copy(DATA / name, tmp_path / "audio")
    files = {}
    for key, tensor in expected.items():
        name, _, rest = key.partition(".")
        files.setdefault(name, {})[rest] = tensor
    noise = ReferenceNoise(read_config(checkpoint))
    frames = files["hift"]["mel"].shape[-1]
    files["noise"] = {
        "flow.rand_noise": noise.flow(FRAMES)[None],
        "hift.sine_noise": noise.source(0, frames)[None],
    }
    files["flow"]["t_span"] = 1 - torch.cos(torch.linspace(0, 1, 11) * torch.pi / 2)
    files["hift"] |= {"chunk_cuts": torch.tensor([frames]), "chunk0.wav": files["hift"]["final.wav"]}
    files["llm"]["ras_run.uniforms"] = torch.tensor(rows["uniforms"])
    scores = torch.randn(START + 3, generator=torch.Generator().manual_seed(1))
    masked = scores.index_fill(0, torch.tensor(START), -1e30)
    files["sampling"] |= {"ignore_eos.in": scores, "ignore_eos.out": masked}
    for name, tensors in files.items():
        save_file(
            {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()},
            tmp_path / f"{name}.safetensors",
        )
    spoken = {
        name: {"calls": [one_call(files["e2e"], name)], "token_hop_len_after": 25}
        for name in ("zero_shot", "vc")
    }
    data = {
        "manifest": {"family": "cosyvoice3"},
        "sampling": rows["sampling"],
        "llm": {"ras_run.uniforms_f64": rows["uniforms"]},
        "e2e": {"texts": rows["texts"], "stream_plans": {"plans": rows["plans"]}, **spoken},
    }
    for name, value in data.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return tmp_path


def one_call(tensors, name):
    """The decoder is asked once for everything that was said."""
    return {
        "n_tokens": len(tensors[f"{name}.speech_tokens"]),
        "streaming": False,
        "finalize": True,
        "token_offset": 0,
        "samples": tensors[f"{name}.wav"].shape[-1],
    }


CHECKS = (
    front.sampling,
    networks.language,
    networks.flow,
    networks.vocoder,
    networks.requests,
    networks.stream_plans,
)


def run(folder, checks):
    lines = []
    report = KitReport(lines.append)
    with torch.inference_mode():
        kit = CosyKit(folder, report)
        for check in checks:
            with report.section(check.__name__):
                check(kit)
    return report, [line for line in lines if line.startswith("FAIL")]


def test_the_small_kit_passes(small_kit):
    assert cosyvoice3.recognises(small_kit)
    report, failed = run(small_kit, CHECKS)
    assert failed == []
    assert report.passed > 150


@pytest.mark.parametrize(
    ("file", "tensor", "check", "words"),
    [
        ("flow", "full.final.v_step10", networks.flow, "flow full.final"),
        ("hift", "final.conv_pre", networks.vocoder, "conv_pre"),
        ("llm", "ras_run.tokens", networks.language, "ras_run"),
    ],
)
def test_another_recorded_number_fails_in_its_part(small_kit, file, tensor, check, words):
    path = small_kit / f"{file}.safetensors"
    tensors = load_file(path)
    tensors[tensor] = tensors[tensor] + 1
    save_file(tensors, path)
    _, failed = run(small_kit, [check])
    assert len(failed) == 1
    assert words in failed[0]


def test_weights_are_read_beside_the_loader_and_never_compared_with_nothing(
    small_kit, checkpoint, monkeypatch
):
    (small_kit / "model").unlink()
    shutil.copytree(checkpoint, small_kit / "model")
    save_file({"decoy": torch.ones(1)}, small_kit / "model" / QWEN_FOLDER / "model.safetensors")
    report, failed = run(small_kit, [front.weights])
    assert report.passed > 20
    assert not any("none of its names" in line for line in failed)
    path = small_kit / "model" / "llm.pt"
    wrapped = {"model": torch.load(path, weights_only=True)}
    path.unlink()
    torch.save(wrapped, path)
    again, failed = run(small_kit, [front.weights])
    assert again.passed == report.passed, "both see through what training programs wrap"
    assert not any("none of its names" in line for line in failed)
    monkeypatch.setattr(front, "_most_tensors", lambda saved: {"another.name": torch.ones(1)})
    _, failed = run(small_kit, [front.weights])
    assert any("none of its names is the network's" in line for line in failed)


@pytest.mark.slow
@pytest.mark.skipif(not KIT.is_dir(), reason=f"no conformance kit at {KIT}")
def test_the_whole_kit_passes():
    lines = []
    assert run_kit(KIT, lines.append), [line for line in lines if line.startswith("FAIL")]


def test_other_folders_are_not_taken_for_a_kit(tmp_path, checkpoint):
    assert not cosyvoice3.recognises(tmp_path)
    assert not cosyvoice3.recognises(checkpoint)
    (tmp_path / "model").mkdir()
    (tmp_path / "manifest.json").write_text("no json")
    assert not cosyvoice3.recognises(tmp_path)
