"""Memory limits: sizes in words, what fits, and estimates held against the true peak."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sonant.bench.compare import run_workload
from sonant.bench.worker import Workload
from sonant.catalogue import registry
from sonant.checkpoints.files import read_tensors, write_tensors
from sonant.checkpoints.memory import MIB, Candidate, Footprint, choose, parse_size, show
from sonant.checkpoints.modules import load_strict
from sonant.engine.engine import Engine
from sonant.errors import RequestError
from sonant.nn.mapped import give_back
from sonant.nn.precision import PlainLinear
from sonant.parity.drift import modules_of
from sonant.request.speech import SpeechRequest
from tests.parity import cases
from tests.toy import ToyModel

QWEN = Path(__file__).parents[1] / "data" / "qwen3_tts" / "checkpoints" / "base_1p7b"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("6GB", 6 * 10**9),
        ("6 gb", 6 * 10**9),
        ("6G", 6 * 10**9),
        ("4.5GiB", int(4.5 * 2**30)),
        ("800MB", 800 * 10**6),
        ("512mib", 512 * 2**20),
        ("1048576", 1 << 20),
        (1048576, 1 << 20),
    ],
)
def test_sizes_are_read_as_people_write_them(given, found):
    assert parse_size(given) == found


@pytest.mark.parametrize("given", ["", "GB", "-3GB", "0", "6 apples", "6GBB", "1e9", "nan", "٣ x"])
def test_other_sizes_are_refused_with_an_example(given):
    with pytest.raises(RequestError, match=r"expected a number with a unit, such as 6GB") as error:
        parse_size(given)
    assert error.value.field == "memory_limit"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (-1, "-1 byte"),
        (499_999, "499,999 bytes"),
        (500_001, "1 MB"),
        (999_400_000, "999 MB"),
        (999_700_000, "1.0 GB"),
        (2_340_000_000, "2.3 GB"),
        (-3_000_000_000, "-3.0 GB"),
        (-20_000_000, "-20 MB"),
    ],
)
def test_bytes_are_shown_in_the_unit_that_people_take(count, shown):
    assert show(count) == shown


def candidates():
    """Three precisions of 1000, 500 and 250 MB, with utterances of 100 MB."""
    cache = {"working": 50 * 10**6, "position": 10**6, "positions": 100}
    return [
        Candidate(
            dtype="float32",
            precision=name,
            footprint=Footprint(weights=weights * 10**6, loading=0, **cache),
        )
        for name, weights in (("lossless", 1000), ("int8", 500), ("int4", 250))
    ]


def test_the_widest_precision_that_fits_is_chosen_and_told():
    def fit(limit):
        return choose("m", candidates(), slots=2, limit=limit * 10**6, taken=10**8, hint="Do so.")

    plan = fit(2000)
    assert (plan.precision, plan.slots, plan.remarks) == ("lossless", 2, ())
    assert plan.cache_positions == 850, "what is left belongs to long texts"
    assert plan.ordinary_positions == 200
    plan = fit(900)
    assert (plan.precision, plan.slots) == ("int8", 2)
    assert "int8" in plan.remarks[0]
    assert "1.2 GB" in plan.remarks[0]
    plan = fit(800)
    assert (plan.precision, plan.slots) == ("int8", 1), "precision is worth more than company"
    assert "1 of 2 utterances" in plan.remarks[1]
    assert fit(520).precision == "int4"
    with pytest.raises(RequestError, match=r"needs about 500 MB in int4 .* limit is 499 MB\. Do so\."):
        fit(499)


def test_streams_keep_their_past_where_every_utterance_has_room_for_it():
    footprint = Footprint(
        weights=9 * 10**8, loading=0, working=0, utterance=10**8, stream=10**9, voices=10**8, position=1
    )
    candidate = Candidate(dtype="float32", precision="full", footprint=footprint)

    def fit(limit, slots):
        return choose("m", [candidate], slots=slots, limit=limit * 10**8, taken=0, hint="")

    plan = fit(21, 1)
    assert (plan.keeps_past, plan.needed, plan.cache_positions, plan.remarks) == (True, 21 * 10**8, 0, ())
    plan = fit(20, 1)
    assert (plan.keeps_past, plan.needed, plan.cache_positions) == (False, 10 * 10**8, 10 * 10**8)
    assert "no room for what streams of m keep of their past, 1.0 GB each" in plan.remarks[0]
    plan = fit(31, 2)
    assert (plan.keeps_past, plan.slots) == (False, 2), "company is worth more than the past"
    assert fit(32, 2).keeps_past


def test_what_cosyvoice3_keeps_of_a_stream_is_reckoned_with():
    folder = QWEN.parents[2] / "cosyvoice3" / "checkpoint"
    (wide, *_) = registry._candidates(folder, torch.device("cpu"), "auto", "auto")
    assert wide.footprint.stream == 10 * 3 * 2 * 2 * 64 * 2 * (500 + 400 + 200), "10 s, 8 s and one hop"
    assert wide.footprint.voices == 1 << 30
    (only,) = registry._candidates(folder, torch.device("cuda"), "float32", "auto")
    assert only.footprint.past(4) == 0, "on a device nothing is kept"


def test_a_model_loaded_without_room_is_told():
    folder = QWEN.parents[2] / "cosyvoice3" / "checkpoint"
    with registry.load(folder) as engine:
        assert engine.model.keeps_past
    with registry.load(folder, keeps_past=False) as engine:
        assert not engine.model.keeps_past


def test_without_a_limit_streams_keep_what_half_of_the_machine_holds(monkeypatch, caplog):
    folder = QWEN.parents[2] / "cosyvoice3" / "checkpoint"
    needed = 2 * 16_896_000 + (1 << 30)
    for whole, keeps in ((2 * needed, True), (2 * needed - 2, False)):
        monkeypatch.setattr("sonant.checkpoints.memory.machine_bytes", lambda whole=whole: whole)
        with registry.load(folder, slots=2) as engine:
            assert engine.model.keeps_past == keeps
        assert bool(caplog.records) != keeps
    assert "2 streams at a time would keep 1.1 GB" in caplog.text


def test_loading_may_need_more_than_speaking():
    footprint = Footprint(weights=100, loading=70, working=20, utterance=5, position=1, positions=10)
    assert footprint.needed(1) == 170
    assert footprint.needed(10) == 270


def test_a_named_precision_stays_and_auto_gives_way():
    folder = QWEN
    wide, *narrow = registry._candidates(folder, torch.device("cpu"), "auto", "auto")
    sizes = [c.footprint.weights for c in (wide, *narrow)]
    assert narrow
    assert sizes == sorted(sizes, reverse=True)
    assert {c.precision for c in narrow} <= set(registry.precisions(folder))
    (only,) = registry._candidates(folder, torch.device("cpu"), "auto", "int8")
    assert only.precision == "int8"
    (only,) = registry._candidates(folder, torch.device("cpu"), "bfloat16", "auto")
    assert (only.dtype, only.precision) == ("bfloat16", "full")
    (only,) = registry._candidates(folder, torch.device("cpu"), "float32", "auto")
    assert (only.dtype, only.precision) == ("float32", "lossless"), "float32 by name is float32 arithmetic"
    with pytest.raises(RequestError, match="a smaller model, --dtype auto, or close"):
        registry.load(folder, device="cpu", dtype="float32", memory_limit="1MB")
    with pytest.raises(RequestError, match=r"memory limit is 1 MB"):
        registry.load(folder, memory_limit="1MB")


def test_a_long_text_runs_alone_where_its_cache_would_not_fit_beside_others():
    short, long = "A" * 17 + ".", "A" * 47 + "."  # 60 and 150 positions
    model = ToyModel()
    with Engine(model, slots=4, cache_positions=250) as engine:
        engine.synthesize(SpeechRequest(short, seed=1))
        assert model.cache.keys[0].shape[::2] == (4, 62), "all of the room, in four rows"
        engine.synthesize(SpeechRequest(long, seed=1))
        assert model.cache.keys[0].shape[::2] == (1, 150)
        with pytest.raises(RequestError, match=r"needs 309 cache positions; the memory limit leaves 250"):
            engine.submit(SpeechRequest("A" * 100 + ".", seed=1))


def test_limited_and_unlimited_engines_give_the_same_samples():
    request = SpeechRequest("A" * 47 + ". Another one.", seed=1)
    with Engine(ToyModel(), slots=4, cache_positions=250) as limited, Engine(ToyModel(), slots=4) as free:
        assert np.array_equal(limited.synthesize(request).samples, free.synthesize(request).samples)


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="pages are counted on Linux only")
def test_pages_of_a_mapped_file_are_given_back_and_read_again(tmp_path):
    file = tmp_path / "weights.safetensors"
    write_tensors(file, {"w": torch.arange(4 * MIB, dtype=torch.float32), "x": torch.ones(4 * MIB)})
    tensors = read_tensors(file)
    kept = tensors["w"].clone()
    assert tensors["x"].sum() == 4 * MIB
    before = mapped_kilobytes(file)
    assert before >= 30_000
    own = torch.ones(MIB)
    give_back(tensors["w"], own, tensors["w"].view(1024, -1).t())
    assert mapped_kilobytes(file) < before - 15_000
    assert own.sum() == MIB, "memory of its own keeps its content"
    assert torch.equal(tensors["w"], kept)


def test_loading_leaves_nothing_of_what_was_cast_in_memory(tmp_path):
    if not Path("/proc/self/smaps").is_file():
        pytest.skip("pages are counted on Linux only")
    file = tmp_path / "weights.safetensors"
    write_tensors(file, {"weight": torch.randn(1024, 4096).bfloat16()})
    module = torch.nn.Linear(4096, 1024, bias=False, device="meta")
    tensors = read_tensors(file)
    load_strict(module, tensors, dtype=torch.float32)
    assert mapped_kilobytes(file) < 1000
    assert module.weight.dtype == torch.float32


def mapped_kilobytes(file):
    """Resident kilobytes of a mapped file."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split(maxsplit=1)[0]:
            inside = line.endswith(str(file))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


@pytest.mark.parametrize(
    "precision",
    ["auto", pytest.param("full", marks=pytest.mark.slow), pytest.param("int4", marks=pytest.mark.slow)],
)
def test_the_estimate_is_above_the_true_peak_and_not_by_much(precision):
    # Peaks of equal runs differ by 5 %; what an estimate has to cover is the largest.
    job = Workload(model="nano", device="cpu", precision=precision, threads=1, seconds=2.0, runs=1)
    runs = [run_workload(job) for _ in range(3)]
    peaks = [figures["peak_mb"] for figures in runs]
    assert max(peaks) <= min(figures["estimate_mb"] for figures in runs), runs
    assert max(figures["estimate_mb"] for figures in runs) <= 1.15 * max(peaks), runs


def test_a_cuda_device_is_told_the_limit(monkeypatch):
    told = []
    monkeypatch.setattr(registry, "choose_device", lambda name: torch.device(name))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=80 * 10**9)
    )
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda part, index: told.append((part, index))
    )
    registry.limit_device("cuda:1", "20GB")
    registry.limit_device("cuda:1", "100GB")
    registry.limit_device("cpu", "20GB")
    assert told == [(0.25, 1), (1.0, 1)]


def test_on_an_accelerator_auto_gives_way_to_bfloat16():
    wide, narrow = registry._candidates(QWEN, torch.device("cuda"), "auto", "auto")
    assert [(c.dtype, c.precision) for c in (wide, narrow)] == [("float32", "full"), ("bfloat16", "full")]
    assert narrow.footprint.weights < wide.footprint.weights
    assert narrow.footprint.position == wide.footprint.position / 2


@pytest.mark.parametrize("family", cases.CASES)
def test_without_kernels_what_torch_keeps_is_reckoned(family, monkeypatch):
    """12 bits are two float32 matrices there; of the small checkpoints one layer of the stack has them."""
    monkeypatch.setattr("sonant.native.library", lambda: None)
    monkeypatch.setattr("sonant.nn.narrow_products.narrow_form", lambda: None)
    folder, cpu = cases.checkpoint(family), torch.device("cpu")
    package = import_module(f"sonant.families.{registry.find(folder)[0]}")
    wide, narrow = (
        package.footprint(folder, device=cpu, dtype=torch.float32, precision=precision).weights
        for precision in ("lossless", "int8")
    )
    model = registry.load_model(folder, device="cpu", precision="int8")
    kept = [m for top in modules_of(model) for m in top.modules() if isinstance(m, PlainLinear)]
    twice = sum(m.fine.nbytes for m in kept if m.fine is not None)
    assert twice > 0
    assert narrow - wide == twice
