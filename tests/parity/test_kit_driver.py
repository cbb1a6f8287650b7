"""The driver of conformance kits: rows of a data file, what they allow, and what they never let pass."""

from importlib.resources import files
from pathlib import Path

import pytest
import torch

from sonant.nn.tap import tap
from sonant.parity.kit import KitReport
from sonant.parity.kits import driver

TABLE = """
[limits]
close = 1e-3
[rows]
net = [
    ["layer{n}_{part}", "net.{n}.{part}", "close"],
    ["ids", "=", "exact"],
    ["begin", "wave", "close", "head"],
    ["end", "wave", "close", "tail"],
    ["end_rows", "frames", "close", "tail rows"],
    ["flipped", "frames", "close", "turned"],
    ["big", "=", "close", "share"],
    ["part", "=", "close", "scaled"],
    ["scores", "=", "close", "finite"],
    ["answer_ids", "answer ids", "exact"],
    ["elsewhere", "", "exact"],
]
"""


@pytest.fixture
def checked(tmp_path, monkeypatch):
    """A function: recorded and found values -> the lines of the report."""
    (tmp_path / "toy.toml").write_text(TABLE, encoding="utf-8")
    monkeypatch.setattr(driver, "files", lambda package: tmp_path)

    def check(recorded, found, **options):
        lines = []
        kit = driver.Kit(tmp_path, tmp_path, KitReport(lines.append), "toy")
        check.keys = kit.compare("net", "case", recorded, found, **options)
        return [(line[:4], line[47:91].strip(), line) for line in lines]

    return check


def verdicts(lines):
    return {name: verdict for verdict, name, _ in lines}


WAVE, FRAMES = torch.arange(6.0)[None], torch.arange(12.0).reshape(1, 4, 3)
GOOD = [
    ("ids", torch.tensor([1, 2]), torch.tensor([[1, 2]])),
    ("begin", WAVE, WAVE[:, :2]),
    ("end", WAVE, WAVE[0, 4:]),
    ("end_rows", FRAMES, FRAMES[:, 1:]),
    ("flipped", FRAMES, FRAMES.mT),
    ("big", torch.tensor([1000.5]), torch.tensor([1000.0])),
    ("part", torch.tensor([1000.5]), torch.tensor([1000.0])),
    ("scores", torch.tensor([0.5, float("-inf")]), torch.tensor([0.5, -3e38])),
    ("answer_ids", [1, 2], [1, 2]),
]
NAMES = {
    "begin": "wave",
    "end": "wave",
    "end_rows": "frames",
    "flipped": "frames",
    "answer_ids": "answer ids",
}


@pytest.mark.parametrize(("key", "found", "recorded"), GOOD)
def test_what_fits_passes(checked, key, found, recorded):
    lines = checked({key: recorded}, {NAMES.get(key, key): found})
    assert {verdict for verdict, _, _ in lines} == {"PASS"}
    assert checked.keys == {key}


@pytest.mark.parametrize(
    ("key", "found", "recorded"),
    [
        ("ids", torch.tensor([1, 3]), torch.tensor([1, 2])),
        ("begin", WAVE, WAVE[:, 4:]),
        ("begin", WAVE[:, :1], WAVE[:, :2]),
        ("begin", FRAMES, FRAMES[:, 1:]),
        ("end", WAVE, WAVE[:, :2]),
        ("flipped", FRAMES, FRAMES),
        ("big", torch.tensor([1002.0]), torch.tensor([1000.0])),
        ("part", torch.tensor([0.5]), torch.tensor([0.502])),
        ("scores", torch.tensor([0.5, 0.1]), torch.tensor([0.5, -3e38])),
        ("scores", torch.tensor([float("-inf"), float("-inf")]), torch.tensor([0.5, -3e38])),
        ("answer_ids", [1, 2], [1, 3]),
    ],
)
def test_what_does_not_fit_fails(checked, key, found, recorded):
    lines = checked({key: recorded}, {NAMES.get(key, key): found})
    assert "FAIL" in {verdict for verdict, _, _ in lines}


@pytest.mark.parametrize(
    ("found", "recorded", "exact", "verdict"),
    [
        (1.0009, 0.9994, 1.0001, "PASS"),  # both within 1e-3 of what float64 gives
        (1.0009, 0.9994, 1.0006, "FAIL"),  # the recording is not
        (1.0009, 0.9994, 0.9998, "FAIL"),  # ours is not
        (1.0022, 1.0000, 1.0011, "FAIL"),  # more than two tolerances apart
    ],
)
def test_what_rounds_otherwise_is_held_to_what_float64_gives(checked, found, recorded, exact, verdict):
    def again():
        return {"wave": torch.full((1, 2), exact, dtype=torch.float64)}

    wave = torch.full((1, 2), found)
    lines = checked({"begin": torch.full((2,), recorded)}, {"wave": wave}, exact=again)
    assert verdicts(lines) == {"begin": verdict}
    assert verdicts(checked({"begin": torch.full((2,), recorded)}, {"wave": wave})) == {"begin": "FAIL"}


def test_float64_is_asked_only_at_the_edge(checked):
    lines = checked(
        {"begin": WAVE, "end": WAVE + 1}, {"wave": WAVE + 9e-4}, exact=lambda: pytest.fail("was asked")
    )
    assert verdicts(lines) == {"begin": "PASS", "end": "FAIL"}


def test_what_float64_does_not_compute_is_judged_by_its_tolerance(checked):
    lines = checked({"begin": WAVE}, {"wave": WAVE + 1.5e-3}, exact=dict)
    assert verdicts(lines) == {"begin": "FAIL"}
    assert "KeyError" not in lines[0][2]


def test_numbers_and_words_go_from_key_to_stage_in_the_order_of_computation(checked):
    with driver.watched() as seen:
        for layer in (0, 1):
            for part in ("norm", "attn"):
                tap(f"net.{layer}.{part}", torch.tensor([layer + 0.5]))
    recorded = {f"case.layer{n}_{part}": torch.tensor([n + 0.5]) for part in ("attn", "norm") for n in (1, 0)}
    lines = checked(recorded, seen, prefix="case.", title="{}, again")
    assert [name for _, name, _ in lines] == [
        f"layer{n}_{part}, again" for n in (0, 1) for part in ("norm", "attn")
    ]
    assert set(verdicts(lines).values()) == {"PASS"}


def test_a_recorded_stage_that_was_not_computed_is_a_failure(checked):
    ((verdict, name, line),) = checked({"layer7_attn": torch.zeros(1)}, {})
    assert (verdict, name) == ("FAIL", "layer7_attn")
    assert "'net.7.attn' was not computed" in line


@pytest.mark.parametrize("key", ["unheard", "elsewhere"])
def test_a_key_that_no_row_compares_is_left_to_others(checked, key):
    assert checked({key: torch.zeros(1)}, {key: torch.zeros(1)}) == []
    assert checked.keys == set()


def test_every_data_file_is_whole():
    """Each tolerance of a row is one of the file's limits, no word of a fit is unknown, and code asks for
    every group and every other table."""
    known = {"head", "tail", "rows", "turned", "share", "scaled", "finite"}
    folder = files("sonant.parity.kits")
    names = [path.name.removesuffix(".toml") for path in folder.iterdir() if path.name.endswith(".toml")]
    assert names
    for name in names:
        kit = driver.Kit(folder, folder, KitReport(print), name)
        assert all(row.fit <= known for rows in kit.rows.values() for row in rows)
        code = "".join(path.read_text("utf-8") for path in Path(driver.__file__).parent.rglob("*.py"))
        asked = {*kit.rows, *kit.data} - {"rows", "limits"}
        assert [group for group in asked if f'"{group}"' not in code] == []
