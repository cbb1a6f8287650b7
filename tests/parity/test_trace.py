import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sonant.errors import RequestError
from sonant.parity.reference.tracefile import TraceWriter, sample_positions, stand_in
from sonant.parity.stages.table import Stage, StageTable, resolve
from sonant.parity.task import task_of
from sonant.parity.trace import Entry, from_writer, read_trace, stored_pair
from sonant.request.audio import Audio
from sonant.request.speech import Sampling, SpeechRequest, Style
from tests.parity.toy_stages import Task, toy_trace


def test_a_trace_reads_back_as_it_was_written(tmp_path):
    trace = toy_trace()
    trace.save(tmp_path / "a.safetensors")
    again = read_trace(tmp_path / "a.safetensors")
    assert [e.key for e in again.entries] == [e.key for e in trace.entries]
    assert all(torch.equal(a.stored, b.stored) for a, b in zip(again.entries, trace.entries, strict=True))
    assert again.metadata["request"]["text"] == "hello you"
    assert again.tokens_hash() == trace.tokens_hash()


def test_every_draw_and_token_is_in_the_trace():
    trace = toy_trace()
    kinds = [entry.kind for entry in trace.entries]
    assert kinds.count("token") == kinds.count("draw") == 12


def test_patterns_and_max_elements_bound_the_size_but_keep_tokens_and_draws():
    trace = toy_trace(stages="toy.logits,output.*", max_elements=10)
    kept = {entry.name for entry in trace.entries}
    assert kept == {"toy.logits", "toy.token", "draw.exponential", "output.samples"}
    logits = trace.by_key["toy.logits"]
    assert logits.sampled == 10
    assert logits.stored.shape == (10,)
    assert logits.shape == (1, 32)
    whole = toy_trace().by_key["toy.logits"]
    assert torch.equal(logits.stored, whole.stored.flatten()[sample_positions(32, 10)])
    assert logits.statistics == whole.statistics


def test_a_later_occurrence_of_a_stage_that_is_left_out_keeps_its_number():
    writer = TraceWriter(stages="b")
    for name in ("a", "b", "a", "b"):
        writer.add(name, torch.zeros(1))
    assert [entry["key"] for entry in writer.entries] == ["b", "b@1"]


def test_two_samplings_of_one_tensor_are_compared_where_they_meet():
    x = torch.arange(1000.0)
    entries = []
    for limit in (100, 37):
        writer = TraceWriter(max_elements=limit)
        writer.add("x", x)
        entries += from_writer(writer, {}).entries
    left, right = stored_pair(*entries)
    assert torch.equal(left, right)
    assert len(left) > 1


def test_the_request_of_a_trace_can_be_asked_again(tmp_path):
    from sonant.parity.trace import Trace

    clip = Audio(np.linspace(-1, 1, 50, dtype=np.float32), 8000)
    task = Task(
        request=SpeechRequest(
            "Hi.",
            language="english",
            style=Style(emotion_vector=(0.1,) * 8),
            sampling=Sampling(top_k=5),
            seed=3,
            options={"x": 1},
        ),
        audio=clip,
        transcript="there",
        max_steps=4,
    )
    entry = Entry(
        key="input.audio", kind="input", shape=(50,), dtype="float32", stored=torch.from_numpy(clip.samples)
    )
    Trace((entry,), {"request": task.data()}).save(tmp_path / "t.safetensors")
    again = task_of(read_trace(tmp_path / "t.safetensors"))
    assert again.request == task.request
    assert again.audio.sample_rate == 8000
    assert np.array_equal(again.audio.samples, clip.samples)
    assert (again.transcript, again.max_steps) == ("there", 4)


FOREIGN = {"talker.logits": torch.arange(6.0).reshape(1, 6), "prompt.embeds": torch.ones(2, 3)}


def test_plain_safetensors_npz_and_raw_folders_are_traces_in_documented_order(tmp_path):
    save_file(FOREIGN, tmp_path / "x.safetensors")
    np.savez(tmp_path / "x.npz", **{name: tensor.numpy() for name, tensor in FOREIGN.items()})
    beside, listed = tmp_path / "beside", tmp_path / "listed"
    for folder in (beside, listed):
        folder.mkdir()
        for name, tensor in FOREIGN.items():
            (folder / f"{name}.bin").write_bytes(tensor.numpy().tobytes())
    for name, tensor in FOREIGN.items():
        (beside / f"{name}.json").write_text(json.dumps({"shape": list(tensor.shape), "dtype": "f32"}))
    manifest = [{"name": n, "file": f"{n}.bin", "shape": list(t.shape)} for n, t in FOREIGN.items()]
    (listed / "manifest.json").write_text(json.dumps({"tensors": manifest}))
    for path in (tmp_path / "x.safetensors", tmp_path / "x.npz", beside, listed):
        trace = read_trace(path)
        assert trace.family == "qwen3_tts"
        assert [e.key for e in trace.entries] == ["prompt.embeds", "talker.logits"], path
        assert torch.equal(trace.by_key["talker.logits"].stored, FOREIGN["talker.logits"])


def test_foreign_names_are_mapped_by_patterns(tmp_path):
    save_file({"blk_3/q": torch.zeros(1), "lm_out": torch.zeros(1)}, tmp_path / "x.safetensors")
    names = {"blk_{n}/q": "talker.layer.{n}.query", "lm_out": "talker.logits@2"}
    trace = read_trace(tmp_path / "x.safetensors", names=names)
    assert {e.key for e in trace.entries} == {"talker.layer.3.query", "talker.logits@2"}


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.write_bytes(b"nothing"), "not a readable safetensors"),
        (
            lambda p: (p.mkdir(), (p / "a.json").write_text('{"shape": [2], "dtype": "f32"}')),
            "a.bin is missing",
        ),
        (lambda p: p.mkdir(), "no tensors"),
    ],
)
def test_what_is_no_trace_is_refused_with_a_reason(tmp_path, write, words):
    write(tmp_path / "x.safetensors")
    with pytest.raises(RequestError, match=words):
        read_trace(tmp_path / "x.safetensors")


def test_a_raw_file_of_the_wrong_size_is_refused(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"1234")
    (tmp_path / "a.json").write_text('{"shape": [2], "dtype": "f32"}')
    with pytest.raises(RequestError, match="4 bytes"):
        read_trace(tmp_path)


def test_stage_names_resolve_to_their_inputs():
    table = StageTable(
        "x",
        [
            Stage(name="start", shape="", what="", part="decode"),
            Stage(
                name="l.{i}", shape="", what="", part="decode", inputs=("l.{i-1}",), first=("start", "n.{k}")
            ),
        ],
    )
    assert table.inputs("l.2") == ("l.1",)
    assert table.inputs("segment.1.l.0") == ("segment.1.start", "segment.1.n.{k}")
    assert table.inputs("unknown") is None
    assert table.pattern_of("l.17") == "l.{i}"
    assert resolve("a.{i-2}", {"i": 1}) is None


@pytest.mark.parametrize(("count", "replacement"), [(1, False), (1, True), (4, False)])
def test_a_watched_multinomial_draws_what_torch_draws(count, replacement):
    from sonant.parity.record import DrawWatch

    probabilities = torch.rand(3, 50, generator=torch.Generator().manual_seed(1))
    drawn = [torch.Generator().manual_seed(5) for _ in range(2)]
    plain = torch.multinomial(probabilities, count, replacement, generator=drawn[0])
    seen = []
    with DrawWatch(lambda name, tensor: seen.append(name)):
        watched = torch.multinomial(probabilities, count, replacement, generator=drawn[1])
    assert torch.equal(plain, watched)
    assert torch.equal(drawn[0].get_state(), drawn[1].get_state())
    assert seen == ["draw.exponential"]


def test_foreign_entries_are_in_the_order_of_computation(tmp_path):
    names = [
        "flow.step.1.x",
        "flow.step.0.block.1.norm",
        "flow.step.0.norm_out",
        "flow.step.0.block.0.attention",
        "flow.step.0.block.0.norm",
        "flow.step.0.x",
        "vocoder.conv_pre",
        "lm.norm@1",
        "lm.layer.1.in",
        "lm.norm",
        "lm.layer.0.out",
        "lm.input",
        "something.else",
    ]
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "x.safetensors")
    found = [entry.key for entry in read_trace(tmp_path / "x.safetensors").entries]
    assert found == [
        "lm.input",
        "lm.layer.0.out",
        "lm.layer.1.in",
        "lm.norm",
        "lm.norm@1",
        "flow.step.0.x",
        "flow.step.0.block.0.norm",
        "flow.step.0.block.0.attention",
        "flow.step.0.block.1.norm",
        "flow.step.0.norm_out",
        "flow.step.1.x",
        "vocoder.conv_pre",
        "something.else",
    ]


def test_two_tensors_for_one_stage_are_refused(tmp_path):
    save_file({"a": torch.zeros(1), "talker.logits": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(RequestError, match=r"two tensors for talker\.logits"):
        read_trace(tmp_path / "x.safetensors", names={"a": "talker.logits"})


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ('{"format": "sonant-trace-0"}', "this version reads"),
        ('{"format": "sonant-trace-1"}', "damaged trace"),
        ('{"format": "sonant-trace-1", "entries": [{"key": "gone"}]}', "damaged trace"),
        ("[]", "damaged trace"),
        ("{", "damaged trace"),
    ],
)
def test_a_damaged_trace_is_refused(tmp_path, record, words):
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"sonant_trace": record})
    with pytest.raises(RequestError, match=words):
        read_trace(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("dtypes", "precision"),
    [
        ((torch.float32, torch.int64), "float32"),
        ((torch.float64,), "float64"),
        ((torch.float32, torch.bfloat16), "float32"),
        ((torch.int64,), "float32"),
    ],
)
def test_what_a_foreign_trace_is_stored_in_says_nothing_of_its_arithmetic(tmp_path, dtypes, precision):
    tensors = {f"x{index}": torch.zeros(1, dtype=dtype) for index, dtype in enumerate(dtypes)}
    save_file(tensors, tmp_path / "x.safetensors")
    assert read_trace(tmp_path / "x.safetensors").dtype == precision


def test_what_an_original_imports_and_never_calls_is_stood_in_for(monkeypatch):
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    made = stand_in("nowhere_to_be_found.compliance.kaldi", "json")
    assert made == ["nowhere_to_be_found.compliance.kaldi"]
    import nowhere_to_be_found.compliance.kaldi as kaldi

    assert kaldi.__spec__.name == "nowhere_to_be_found.compliance.kaldi"
    assert find_spec("nowhere_to_be_found") is not None
    assert json.loads("1") == 1
