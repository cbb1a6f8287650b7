"""A whole tiny checkpoint: the recorded GPT, mel half and emotion model, seeded weights for the rest."""

import gzip
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sonant.families.indextts2.loading import load_model
from sonant.families.indextts2.model import IndexTTS2
from sonant.request.audio import Audio

DATA = Path(__file__).parents[2] / "data" / "indextts2"
DATA25 = DATA.parent / "indextts25"


def recorded(name):
    """Tensors of a fixture recorded from the original."""
    return load_file(DATA / f"{name}.safetensors")


def seeded(shapes, seed):
    """Tensors of these names and shapes that make a network behave: small weights, positive variances."""
    rng = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            made[name] = torch.zeros((), dtype=torch.int64)
            continue
        tensor = torch.randn(shape, generator=rng)
        if name.endswith(("running_var", "weight_g")) or (name.endswith("weight") and len(shape) == 1):
            tensor = 1 + 0.1 * tensor.abs()
        elif len(shape) > 1:
            tensor = tensor / max(1, tensor[0].numel()) ** 0.5
        else:
            tensor = 0.1 * tensor
        made[name] = tensor
    return made


def nested(flat):
    """{"cfm.x": t} -> {"cfm": {"x": t}}, as the release's s2mel.pth."""
    parts = {}
    for name, tensor in flat.items():
        head, rest = name.split(".", 1)
        parts.setdefault(head, {})[rest] = tensor
    return parts


def build_checkpoint(folder):
    """The official layout in `folder`, with pickles where the release has them."""
    shapes = json.loads(gzip.decompress((DATA / "shapes.json.gz").read_bytes()))
    cache = folder / "hf_cache"
    for name in ("w2v-bert-2.0", "bigvgan"):
        (cache / name).mkdir(parents=True)
        shutil.copy(DATA / f"{name}.json", cache / name / "config.json")
    for name in ("config.yaml", "bpe.model"):
        shutil.copy(DATA / name, folder / name)
    shutil.copytree(DATA / "emotion_model", folder / "qwen0.6bemo4-merge")
    torch.save(recorded("gpt"), folder / "gpt.pth")
    torch.save({"net": nested(recorded("s2mel"))}, folder / "s2mel.pth")
    rng = torch.Generator().manual_seed(5)
    stats = {"mean": torch.randn(32, generator=rng), "var": 1 + torch.rand(32, generator=rng)}
    torch.save(stats, folder / "wav2vec2bert_stats.pt")
    torch.save(torch.randn(73, 192, generator=rng), folder / "feat1.pt")
    torch.save(torch.randn(73, 48, generator=rng), folder / "feat2.pt")
    for seed, (name, listed) in enumerate(sorted(shapes.items())):
        tensors = seeded({key.removeprefix("generator/"): shape for key, shape in listed.items()}, seed)
        path = folder / name
        if name.endswith(".safetensors"):
            save_file(tensors, path)
        else:
            torch.save({"generator": tensors} if "bigvgan" in name else tensors, path)
    return folder


def position_table(length, width):
    """Sines and cosines [1, T, D], as gpt.pth holds them."""
    angles = torch.arange(length).float()[:, None]
    angles = angles * torch.exp(torch.arange(0, width, 2).float() * -(math.log(10_000.0) / width))
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[None]


def recorded25(name):
    """Tensors of a fixture recorded from the original IndexTTS-2.5."""
    return load_file(DATA25 / f"{name}.safetensors")


def gpt25():
    """The tiny original's gpt.pth, without what only training reads."""
    return {"emo_conditioning_encoder.embed.pos_enc.pe": position_table(5000, 32), **recorded25("gpt")}


def build_checkpoint25(folder):
    """IndexTTS-2.5 in the official layout: its GPT and codec as recorded, the rest as in IndexTTS2's."""
    build_checkpoint(folder)
    for name in ("bpe.model", "gpt.pth", "hf_cache/semantic_codec_model.safetensors"):
        (folder / name).unlink()
    for name in ("config.yaml", "multilingual_zh_ja_yue_char_del.tiktoken"):
        shutil.copy(DATA25 / name, folder / name)
    torch.save(gpt25(), folder / "gpt.pth")
    torch.save({"model": recorded25("codec"), "epoch": 1}, folder / "codec.pth")
    return folder


@pytest.fixture(scope="session")
def checkpoint25(tmp_path_factory):
    """Folder of the tiny IndexTTS-2.5; tests that change something copy it."""
    return build_checkpoint25(tmp_path_factory.mktemp("indextts25") / "checkpoint")


@pytest.fixture(scope="session")
def loaded25(checkpoint25):
    """The tiny IndexTTS-2.5, loaded once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_model(checkpoint25, device="cpu", dtype=torch.float32)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Folder of the tiny checkpoint."""
    return build_checkpoint(tmp_path_factory.mktemp("indextts2") / "checkpoint")


@pytest.fixture(scope="session")
def loaded(checkpoint):
    """The tiny checkpoint, loaded once; tests take `model`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_model(checkpoint, device="cpu", dtype=torch.float32)
    torch.set_num_threads(threads)


@pytest.fixture
def model(loaded):
    """A fresh model around the loaded networks: own cache rows, nothing remembered."""
    return IndexTTS2(loaded.parts, loaded.spec, device="cpu")


def clip(seed, seconds=0.9, sample_rate=22_050):
    """A clip that is no silence: a gliding tone with noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    tone = 0.3 * np.sin(2 * np.pi * (140 + 60 * seed) * time * (1 + 0.1 * time))
    return Audio((tone + 0.02 * rng.standard_normal(len(time))).astype(np.float32), sample_rate)


@pytest.fixture(scope="session")
def voices(loaded):
    """Two voices of the tiny checkpoint."""
    return [loaded.encode_voice(clip(seed), None) for seed in (0, 1)]
