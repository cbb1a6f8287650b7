"""Damaged and odd files: an error that says what to do, or a comparison, never a traceback."""

import json
import random
from contextlib import suppress
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sonant.errors import SonantError
from sonant.parity.compare import compare
from sonant.parity.diagnosis import diagnose
from sonant.parity.matching import matched, propose, save_map
from sonant.parity.task import task_of
from sonant.parity.trace import read_names, read_trace
from tests.parity.toy_stages import TABLE, toy_trace

ROUNDS = 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "whole.safetensors"
    toy_trace().save(path)
    return path.read_bytes()


@cache
def reference():
    return toy_trace()


def survives(path):
    """Read, repeat the request, compare with the right one both ways."""
    try:
        trace = read_trace(path)
    except SonantError:
        return False
    right = reference()
    for pair in ((right, trace), (trace, right)):
        found = compare(*pair)
        assert found.headline
        json.dumps(found.data())
    with suppress(SonantError):
        task_of(trace)
    return True


def test_bytes_that_were_changed_or_cut(whole, tmp_path):
    chance = random.Random(5)
    read = 0
    for _ in range(ROUNDS):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3, 30))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            data = data[: chance.randrange(len(data))]
        (tmp_path / "x.safetensors").write_bytes(data)
        read += survives(tmp_path / "x.safetensors")
    assert 0 < read < ROUNDS


ODD = (None, True, -1, 0, 1.5, 1e308, float("nan"), "", "x", "float7", [], [1, [2]], {}, {"a": {}}, 10**30)


def changed(value, chance, depth=0):
    """JSON data with one place in it replaced by something odd, taken away or doubled."""
    if isinstance(value, dict) and value and (depth < 1 or chance.random() < 0.8):
        key = chance.choice(list(value))
        made = dict(value)
        if chance.random() < 0.1:
            del made[key]
        elif chance.random() < 0.1:
            made[chance.choice(("unknown", "top_k", "beams", ""))] = chance.choice(ODD)
        else:
            made[key] = changed(value[key], chance, depth + 1)
        return made
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        return [*value[:place], changed(value[place], chance, depth + 1), *value[place + 1 :]]
    return chance.choice(ODD)


@pytest.mark.slow
def test_records_that_say_something_odd(tmp_path):
    trace = toy_trace()
    path = tmp_path / "x.safetensors"
    trace.save(path)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["sonant_trace"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    chance = random.Random(6)
    read = 0
    for _ in range(ROUNDS):
        odd = changed(record, chance)
        save_file(tensors, path, metadata={"sonant_trace": json.dumps(odd)})
        read += survives(path)
    assert 0 < read < ROUNDS


@pytest.mark.parametrize(
    ("request_of", "words"),
    [
        ({"sampling": {"unknown": 3}}, "damaged"),
        ({"sampling": {"top_k": -5}}, "top_k is -5"),
        ({"max_steps": -4}, "has the limit -4"),
        ({"max_steps": 10**12}, "expected 1 to 1000000"),
        ({"rates": {"audio": 0}}, "has the rate 0"),
        ({"rates": {"audio": "x"}}, "has the rate 'x'"),
        ({"rates": {"audio": 24000}}, "input.audio are not in the trace"),
        ({"text": 3}, "damaged"),
        ({"seed": "x"}, "damaged"),
        ({"style": {"emotion_vector": 3}}, "damaged"),
        ({"speed": "fast"}, "damaged"),
        ({"options": [1]}, "damaged"),
    ],
)
def test_requests_that_cannot_be_repeated_say_why(request_of, words):
    from sonant.parity.trace import Trace

    trace = toy_trace()
    with pytest.raises(SonantError, match=words):
        task_of(Trace(trace.entries, {**trace.metadata, "request": {"text": "x", **request_of}}))


def test_odd_arrays(tmp_path):
    odd = {
        "talker.logits": np.zeros((0, 5)),
        "talker.norm": np.array(3.5),
        "talker.scores": np.full((4,), np.nan),
        "talker.layer.0.in": np.array([np.inf, -np.inf, 1e308]),
        "prompt.embeds": np.zeros((2, 3, 1, 1, 2, 1, 2)),
        "talker.token": np.array([1.5]),
        "x@y@2": np.ones(2),
    }
    np.savez(tmp_path / "x.npz", **odd)
    np.savez(tmp_path / "y.npz", **{key: np.ones((1, 3)) for key in odd})
    np.savez(tmp_path / "z.npz", text=np.array(["a", "b"]))
    pairs = [read_trace(tmp_path / name) for name in ("x.npz", "y.npz")]
    for first in pairs:
        for second in pairs:
            found = compare(first, second)
            json.dumps(found.data())
            for key in odd:
                diagnose(first.by_key[key], second.by_key[key], documented="[B, T, C]", trace=first)
    with pytest.raises(SonantError, match=r"z\.npz"):
        read_trace(tmp_path / "z.npz")


@pytest.mark.parametrize("form", ["npz", "pt", "npy", "json"])
def test_other_forms_that_were_cut_or_changed(tmp_path, form):
    chance = random.Random(7)
    path = tmp_path / f"x.{form}"
    if form == "npz":
        np.savez_compressed(path, **{"talker.logits": np.arange(50.0)})
    elif form == "npy":
        np.save(path, np.arange(50.0))
    elif form == "pt":
        torch.save({"talker.logits": torch.arange(50.0)}, path)
    else:
        path = tmp_path / "raw"
        path.mkdir()
        (path / "a.bin").write_bytes(bytes(24))
        text = json.dumps({"tensors": [{"name": "a", "file": "a.bin", "shape": [2, 3], "dtype": "f32"}]})
    for _ in range(30):
        if form == "json":
            odd = changed(json.loads(text), chance)
            (path / "manifest.json").write_text(json.dumps(odd) if chance.random() < 0.8 else text[:-9])
            target = path
        else:
            data = bytearray(path.read_bytes())
            for _ in range(3):
                data[chance.randrange(len(data))] = chance.randrange(256)
            target = tmp_path / f"y.{form}"
            target.write_bytes(data if chance.random() < 0.7 else data[: chance.randrange(len(data))])
        survives(target)


ODD_NAMES = (
    *(
        "#",
        "{n}",
        "{n}{n}.0",
        "0",
        "[0]",
        "x[1]",
        "a@",
        "a@-1",
        "a@99999999999999999999",
        "h.0.q[1]@2",
        "..",
        "é 1",
    ),
    *(
        "toy.layer.0.mlp[0]",
        "toy.layer.0.query@x",
        "toy.layer.9999.out",
        "b0\\q",
        "toy/layer/1/out",
        "x" * 300,
    ),
    *(
        "head0/q",
        "head1/q",
        "b0.Q0",
        "b0.Q1",
        "b1.Q0",
        "b1.Q1",
        "toy.layer.1.mlp@1@2",
        "*",
        "(",
        "?",
        "\t1\n",
    ),
)


@pytest.mark.parametrize("seed", range(8))
def test_odd_tensors_under_odd_names_are_matched_or_left(seed, tmp_path):
    chance = random.Random(seed)
    right = [e for e in reference().entries if e.kind == "stage"]
    made = {}
    for name in chance.sample(ODD_NAMES, 12):
        like = chance.choice(right).stored.float().numpy()
        odd = chance.choice(
            (
                like,
                like.reshape(-1)[: like.size // 2],
                like[..., None, None, None],
                like * np.nan,
                np.where(like > 0, np.inf, like),
                np.zeros((3, 0, 2), np.float32),
                np.float64(3.5),
                like > 0,
                (like * 1j).astype(np.complex64),
                like.astype(np.float16),
                np.full(like.shape, 1e38, np.float32),
                like.astype(np.int8),
            )
        )
        made[name] = odd
    np.savez(tmp_path / "x.npz", **made)
    trace = read_trace(tmp_path / "x.npz", family="")
    matches = propose(reference(), trace, TABLE)
    found = compare(reference(), matched(trace, matches, TABLE), table=TABLE)
    json.dumps(found.data())
    save_map(tmp_path / "map.json", matches, {})
    with suppress(SonantError):
        read_trace(tmp_path / "x.npz", names=read_names(tmp_path / "map.json"))
