"""A Kokoro folder in the layout of the ONNX export: a graph of seven nodes, style vectors of one number each.

The waveform is a ramp for each phoneme, as loud as its id times the mean of the style, divided by the speed:
every input is heard.
"""

import json
import math
from functools import cache

import numpy as np
import pytest
import torch

from sonant.families.kokoro.front_end import phonemizer
from sonant.families.kokoro.model import STYLES, WIDTH, KokoroModel
from tests.tiny_onnx import FLOAT, INT64, graph, node, tensor, value

RAMP = 600
VOICES = {"af_bella": 1.0, "af_heart": 2.0, "af_sky": 3.0, "bm_fable": 4.0, "ff_siwis": 5.0, "zf_xiaoni": 6.0}
LETTERS = ';:,.!?—…"() ʣʤʧAIOWYᵊabcdefhijklmnopqrstuvwxyzɑɐɒæɔɕçðəɚɛɜɡɪŋɹɾʃʊʌʒʔˈˌːθ'


def write_graph(path, *, ids="input_ids", names=("style", "speed")):
    nodes = [
        node("Cast", [ids], ["f"], to=FLOAT),
        node("ReduceMean", [names[0]], ["m"], keepdims=0),
        node("Mul", ["f", "m"], ["loud"]),
        node("Div", ["loud", names[1]], ["paced"]),
        node("Unsqueeze", ["paced", "last"], ["columns"]),
        node("Mul", ["columns", "ramp"], ["rows"]),
        node("Reshape", ["rows", "flat"], ["waveform"]),
    ]
    constants = [
        tensor("last", [2], [1], INT64),
        tensor("flat", [1, -1], [2], INT64),
        tensor("ramp", [index / RAMP / 5_000 for index in range(RAMP)], [RAMP]),
    ]
    inputs = [value(ids, INT64, [1, "n"]), value(names[0], FLOAT, [1, WIDTH]), value(names[1], FLOAT, [1])]
    path.write_bytes(graph(nodes, constants, inputs, [value("waveform", FLOAT, [1, "s"])]))


def write_folder(folder, voices=VOICES, **options):
    (folder / "onnx").mkdir(parents=True)
    (folder / "voices").mkdir()
    write_graph(folder / "onnx" / "model_quantized.onnx", **options)
    table = {"$": 0, **{letter: index + 1 for index, letter in enumerate(LETTERS)}}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": table}}), encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "style_text_to_speech_2"}', encoding="utf-8")
    for name, level in voices.items():
        rows = level + np.arange(STYLES, dtype=np.float32)[:, None] / 1000
        np.tile(rows, (1, WIDTH)).astype("<f4").tofile(folder / "voices" / f"{name}.bin")
    return folder


once = cache(phonemizer)
"""English takes a second to load, so the tests share it; a refusal is not kept."""


@pytest.fixture(autouse=True)
def shared_front_ends(monkeypatch):
    monkeypatch.setattr("sonant.families.kokoro.model.phonemizer", once)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "kokoro")


@pytest.fixture
def model(folder):
    return KokoroModel(folder, device=torch.device("cpu"))


def loudness(samples):
    """What the tiny graph's waveform says of its style and speed."""
    return math.sqrt(float((np.asarray(samples, np.float64) ** 2).mean()))
