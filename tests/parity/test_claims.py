"""What compare and bisect may say: early ends, suspicion, storage, inputs, silence."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sonant.parity.bisect import bisect
from sonant.parity.compare import compare
from sonant.parity.coverage import unexercised
from sonant.parity.pieces import time_axis
from sonant.parity.record import record
from sonant.parity.stages import stage_table
from sonant.parity.task import Task
from sonant.parity.trace import Entry, Trace, read_trace
from tests.parity import cases
from tests.parity.toy_stages import TABLE, toy_task, toy_trace
from tests.toy import ToyModel

QWEN3_TTS = stage_table("qwen3_tts")


def toy(change=lambda model: None):
    model = ToyModel(end_bias=float("-inf"))
    change(model)
    return model


def short(model, steps):
    return record(model, Task(request=toy_task().request, max_steps=steps), table=TABLE)


def only(trace, keep, **metadata):
    entries = tuple(e for e in trace.entries if keep(e))
    return Trace(entries, {**trace.metadata, **metadata})


def test_a_run_that_ends_early_is_said_to_and_its_sound_is_not_blamed():
    found = compare(short(toy(), 8), short(toy(), 4), table=TABLE)
    assert found.headline == "It ended early, at step 4 of 8; all before it agrees."
    assert (found.first_failed, found.status) == ("toy.token@4", "wrong")
    assert not any(stage.has_failed for stage in found.stages if stage.key != "toy.token@4")


def test_a_run_that_goes_on_is_said_to():
    found = compare(short(toy(), 4), short(toy(), 6), table=TABLE)
    assert found.headline.startswith("It went on after step 4, where the reference ended (6 steps)")
    assert sum(stage.has_failed for stage in found.stages) == 1


def test_an_early_end_hides_no_fault_before_it():
    wrong = toy(lambda m: m.stack.layers[1].mlp.down_proj.weight.data.mul_(1.5))
    found = compare(short(toy(), 8), short(wrong, 4), table=TABLE)
    assert found.first_failed == "toy.layer.1.mlp"


def test_the_first_steps_can_be_judged_alone():
    found = compare(short(toy(), 8), short(toy(), 4), table=TABLE, steps=4)
    assert (found.first_failed, found.status) == (None, "right")


def test_bisection_says_that_the_run_ended_early_and_blames_no_stage():
    task = Task(request=toy_task().request, max_steps=4)
    found = bisect(toy(), short(toy(), 8), task=task, table=TABLE)
    assert found.faults == ()
    assert found.headline == "It ended early, at step 4 of 8; all before it agrees."
    assert found.status == "wrong"


def test_a_difference_below_the_budget_is_suspicious_between_runs_of_one_program():
    slightly = toy(lambda m: m.stack.layers[1].mlp.down_proj.weight.data.mul_(1 + 1e-6))
    found = compare(toy_trace(), toy_trace(slightly), table=TABLE)
    assert (found.first_failed, found.status) == ("toy.layer.1.mlp", "suspicious")
    assert found.first.are_inputs_equal
    assert "equal bit for bit when nothing is changed" in found.headline
    split = bisect(slightly, toy_trace(), task=toy_task(), table=TABLE)
    assert [(fault.stage, fault.is_suspicious) for fault in split.faults] == [("toy.layer.{layer}.mlp", True)]
    assert split.status == "suspicious"


def test_it_is_not_suspicious_between_two_programs():
    slightly = toy(lambda m: m.stack.layers[1].mlp.down_proj.weight.data.mul_(1 + 1e-6))
    trace = toy_trace(slightly)
    elsewhere = Trace(trace.entries, {**trace.metadata, "arithmetic": {"instructions": "another"}})
    assert compare(toy_trace(), elsewhere, table=TABLE).status == "right"


def test_most_of_a_budget_at_once_is_suspicious_whoever_computed_it():
    trace = toy_trace()
    size = float(trace.by_key["toy.layer.1.mlp"].stored.abs().max())

    def off(entry):
        is_one = entry.key == "toy.layer.1.mlp"
        return replace(entry, stored=entry.stored + 0.8 * 5e-5 * size) if is_one else entry

    other = Trace(tuple(map(off, trace.entries)), {**trace.metadata, "made_by": "a port"})
    found = compare(trace, other, table=TABLE)
    assert (found.first_failed, found.status) == ("toy.layer.1.mlp", "suspicious")
    assert "of it, far above what rounding makes" in found.headline


def test_a_coarser_type_than_the_reference_s_is_suspicious():
    trace = toy_trace()
    wide = Trace(
        tuple(
            replace(e, stored=e.stored.double(), dtype="float64") if e.key == "toy.conv" else e
            for e in trace.entries
        ),
        trace.metadata,
    )
    found = compare(wide, trace, table=TABLE)
    assert (found.first_failed, found.status) == ("toy.conv", "suspicious")
    assert "computed in float32, the reference in float64" in found.headline


def test_a_claim_names_what_was_not_compared_between_a_stage_and_its_inputs():
    wrong = toy_trace(toy(lambda m: m.head.bias.data.add_(0.5)))
    kept = only(wrong, lambda e: e.name != "toy.norm", foreign=True)
    found = compare(toy_trace(), kept, table=TABLE)
    assert found.first_failed == "toy.logits"
    assert found.first.between == ("toy.norm",)
    assert "on the way to it over toy.norm, which was not compared" in found.headline
    assert "toy.layer.1.out" in found.headline


def test_a_filter_that_changes_the_number_of_candidates_is_no_difference_of_its_inputs():
    """The draws are of another size because of the fault, not before it."""
    trace = toy_trace()

    def cut(entry):
        if entry.key == "draw.exponential@2":
            return replace(entry, stored=entry.stored[:5], shape=(5,))
        if entry.key == "toy.token@2":
            return replace(entry, stored=(entry.stored + 1) % 32)
        return entry

    other = Trace(tuple(map(cut, trace.entries)), {**trace.metadata, "made_by": "a port"})
    found = compare(trace, other, table=TABLE)
    assert (found.first_failed, found.inputs_differed) == ("toy.token@2", False)
    assert "another number of candidates" in found.headline


# -- storing and computing --------------------------------------------------------------------


def foreign(tmp_path, change, name="port.safetensors", **said):
    tensors = {e.key: e.stored for e in toy_trace().entries if e.kind != "input"}
    save_file({key: change(key, value.clone()) for key, value in tensors.items()}, tmp_path / name, **said)
    return read_trace(tmp_path / name)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_one_narrow_tensor_loosens_no_other_budget(tmp_path, stored):
    def change(key, value):
        if key == "toy.layer.0.in":
            return value.to(stored)
        return value * 1.02 if key == "toy.layer.1.mlp" else value

    found = compare(toy_trace(), foreign(tmp_path, change), table=TABLE)
    assert found.first_failed == "toy.layer.1.mlp"
    narrow = next(stage for stage in found.stages if stage.key == "toy.layer.0.in")
    assert narrow.distance.status == "ok"
    assert narrow.distance.max_abs > 0
    assert any("stored narrower than they are taken to be computed" in w for w in found.warnings)


def test_narrow_storage_is_no_excuse_for_an_offset(tmp_path):
    """float16 moves each element by a share of itself: a small element that is far off is an error."""

    def change(key, value):
        moved = value + 2e-4 * value.abs().max() if key == "toy.layer.1.mlp" else value
        return moved.half() if value.is_floating_point() else moved

    found = compare(toy_trace(), foreign(tmp_path, change), table=TABLE)
    assert found.first_failed == "toy.layer.1.mlp"


def test_narrow_arithmetic_must_be_said_and_is_suggested(tmp_path):
    def change(key, value):
        off = 1 + 4e-3 * torch.rand(value.shape, generator=torch.Generator().manual_seed(1))
        return (value * off).half() if key.startswith("toy.layer") else value

    port = foreign(tmp_path, change)
    found = compare(toy_trace(), port, table=TABLE)
    assert found.status == "wrong"
    assert any(
        "by the budgets of float16 arithmetic everything would be in budget" in w for w in found.warnings
    )
    assert compare(toy_trace(), port, table=TABLE, precision="float16").status == "right"


def test_a_file_may_say_what_it_was_computed_in(tmp_path):
    def change(key, value):
        return value * 1.004 if key == "toy.layer.1.mlp" else value

    assert compare(toy_trace(), foreign(tmp_path, change), table=TABLE).status == "wrong"
    said = foreign(tmp_path, change, metadata={"computed": '{"toy.layer.*": "float16"}'})
    assert compare(toy_trace(), said, table=TABLE).status == "right"


# -- nothing in silence -----------------------------------------------------------------------


def test_a_run_in_which_nothing_was_compared_fails(tmp_path):
    save_file({"other": torch.ones(3)}, tmp_path / "x.safetensors")
    found = compare(toy_trace(), read_trace(tmp_path / "x.safetensors"), table=TABLE)
    assert (found.status, found.judged) == ("nothing", 0)
    assert found.headline.startswith("Nothing was compared")
    only_draws = only(toy_trace(), lambda e: e.kind == "draw")
    assert compare(toy_trace(), only_draws, table=TABLE).status == "nothing"


def test_bisection_by_a_file_without_a_common_stage_fails():
    other = only(toy_trace(), lambda e: e.kind == "draw", foreign=True)
    found = bisect(toy(), other, task=toy_task(), table=TABLE)
    assert (found.status, found.judged) == ("nothing", 0)


def test_other_texts_settings_and_checkpoints_are_said():
    first, second = toy_trace(), record(toy(), toy_task(text="other"), table=TABLE)
    other = Trace(second.entries, {**second.metadata, "fingerprint": "x"})
    warnings = compare(first, other, table=TABLE).warnings
    assert any("differ in text: 'hello you' and 'other'" in w for w in warnings)
    assert any("the checkpoints of the two runs differ" in w for w in warnings)


@pytest.mark.parametrize(
    ("one", "another", "told"),
    [
        ({"sampling": {"top_k": 1}}, {"sampling": {}}, "sampling"),
        ({"sampling": {"repetition_penalty": 1.0}}, {}, "sampling"),
        ({"sampling": {"temperature": 0}}, {}, "sampling"),
        ({"language": "english"}, {}, "language"),
        ({}, {"text": "other"}, "text"),
        ({"style": {"emotion_strength": 0.0}}, {"style": {}}, "style"),
        ({"normalize": False}, {}, "normalize"),
        ({"speed": 1.0, "style": {"emotion_strength": 1.0, "emotion_random": False}}, {"style": {}}, None),
        ({"normalize": True, "language": None, "options": {}}, {}, None),
        ({"seed": 1}, {"seed": 2}, None),
    ],
)
def test_settings_of_two_requests_differ_aloud_unless_one_says_what_is_usual(one, another, told):
    trace = toy_trace()
    asked = [Trace(trace.entries, {**trace.metadata, "request": request}) for request in (one, another)]
    notes = [note for note in compare(*asked, table=TABLE).warnings if "two requests differ" in note]
    assert [note.split(" differ in ")[1].split(":")[0] for note in notes] == ([told] if told else [])


def test_a_tensor_that_was_changed_after_it_was_recorded_is_said(tmp_path):
    trace = toy_trace()
    entries = tuple(replace(e, stored=e.stored + 1) if e.key == "toy.logits" else e for e in trace.entries)
    Trace(entries, trace.metadata).save(tmp_path / "x.safetensors")
    again = read_trace(tmp_path / "x.safetensors")
    assert any("stored hashes do not fit" in note and "toy.logits" in note for note in again.notes)


def test_misspelt_names_and_rules_that_fit_nothing_are_said(tmp_path):
    save_file({"talker.logit": torch.ones(1, 3), "talker.norm": torch.ones(1, 3)}, tmp_path / "x.safetensors")
    trace = read_trace(tmp_path / "x.safetensors", names={"blk{n}": "talker.layer.{n}.out"})
    assert any("did you mean talker.logits?" in note for note in trace.notes)
    assert any("'blk{n}' of --names fits no tensor" in note for note in trace.notes)


def test_patterns_that_match_nothing_are_told():
    trace = toy_trace(stages="toy.logits,toy.layr.*")
    assert trace.metadata["unmatched_patterns"] == ["toy.layr.*"]


def test_paths_that_the_request_never_took_are_said():
    found = compare(cases.reference("qwen3_tts"), cases.reference("qwen3_tts"))
    said = " ".join(found.unexercised)
    assert all(word in said for word in ("streaming", "end token", "language", "segments"))


@pytest.mark.parametrize(
    ("said", "clip", "told"),
    [
        ({"style": {"emotion_strength": 0.7}}, "input.emotion_audio", {"language"}),
        ({"style": {"emotion_strength": 0.7}}, "input.audio", {"language", "style"}),
        ({"style": {"emotion_vector": [0.1] * 8}}, "input.audio", {"language"}),
        ({"options": {"language_code": "en"}}, "input.audio", {"style"}),
        ({"language": "english", "style": {"instruction": "Softly."}}, "input.audio", set()),
    ],
)
def test_a_clip_of_an_emotion_and_a_code_of_a_language_were_asked_for(said, clip, told):
    """As the originals' recorders write them: strength beside a clip, the code among the options."""
    heard = Entry(key=clip, kind="input", shape=(4,), dtype="float32", stored=torch.ones(4))
    trace = Trace((heard,), {"request": {"text": "Hello.", **said}})
    heads = {line.split(":")[0] for line in unexercised(trace, stage_table("indextts2"))}
    assert heads & {"language", "style"} == told


@pytest.mark.parametrize(
    ("family", "told"),
    [("qwen3_tts", {"top-p"}), ("cosyvoice3", set()), ("indextts2", {"top-p", "beams"})],
)
def test_what_is_known_of_a_family_s_sampling_is_said_in_its_table(family, told):
    """CosyVoice3's own top-p is always on; IndexTTS2 searches with beams, of which one was asked for."""
    one = torch.ones(1)
    entries = [Entry(key="draw.exponential", kind="draw", shape=(1,), dtype="float32", stored=one)]
    entries.append(Entry(key="search.token", kind="token", shape=(1,), dtype="float32", stored=one))
    trace = Trace(tuple(entries), {"request": {"text": "Hello."}})
    heads = {line.split(":")[0] for line in unexercised(trace, stage_table(family))}
    assert heads & {"top-p", "beams"} == told


def test_stages_that_a_model_need_not_compute_again_are_no_fault():
    """A model that remembers a clip does not encode it a second time."""
    trace = toy_trace()
    other = only(trace, lambda e: e.key != "toy.layer.0.mlp")
    found = compare(trace, other, table=TABLE)
    assert found.status == "right"
    assert any("were not computed, first toy.layer.0.mlp" in w for w in found.warnings)


def test_a_stage_that_was_left_out_is_named_when_what_follows_is_wrong():
    trace = toy_trace(toy(lambda m: m.stack.layers[1].mlp.down_proj.weight.data.mul_(2)))
    other = only(trace, lambda e: not e.key.startswith("toy.layer.1.mlp"))
    found = compare(toy_trace(), other, table=TABLE)
    assert found.headline == "toy.layer.1.mlp was not computed."


def test_a_draw_of_the_same_seed_must_be_the_same():
    trace = toy_trace()

    def other(entry):
        return replace(entry, stored=entry.stored * 2) if entry.key == "draw.exponential@1" else entry

    changed = Trace(tuple(map(other, trace.entries)), trace.metadata)
    found = compare(trace, changed, table=TABLE)
    assert found.first_failed == "draw.exponential@1"
    assert "The seeds are equal" in found.headline


# -- pieces -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def in_pieces():
    """The codec's tokens decoded some frames at a time with the state kept; the reference does it at once."""
    task = cases.task("qwen3_tts")
    request = replace(task.request, options={})
    return record(cases.load("qwen3_tts"), replace(task, request=request))


def test_the_same_signal_in_other_pieces_is_compared_joined(in_pieces):
    whole = cases.reference("qwen3_tts")
    for pair in ((whole, in_pieces), (in_pieces, whole)):
        found = compare(*pair)
        assert found.first_failed is None, found.headline
        assert any("compared joined" in warning for warning in found.warnings)
        assert next(s for s in found.stages if s.key == "codec.wav").shape == (1, 21120)


def test_a_fault_in_pieces_is_found(in_pieces):
    def wrong(entry):
        is_one = entry.key == "codec.upsample.0.up@2"
        return replace(entry, stored=entry.stored * 1.5) if is_one else entry

    other = Trace(tuple(map(wrong, in_pieces.entries)), {**in_pieces.metadata, "made_by": "x"})
    found = compare(cases.reference("qwen3_tts"), other)
    assert found.first_failed == "codec.upsample.0.up"
    assert any("only" in words or "2 of 22" in words for words in found.diagnosis)


def test_a_last_frame_that_was_not_decoded_is_missing_and_no_other_cut(in_pieces):
    """One run, or one of equally many steps in pieces: the frames at the end are not in another piece."""

    def short(entry):
        if not QWEN3_TTS.in_pieces(entry.name) or "codec" not in entry.name:
            return entry
        axis = time_axis(QWEN3_TTS, entry.name, entry.shape)
        size = entry.shape[axis] // 11 * 10
        stored = entry.stored.narrow(axis, 0, size)
        return replace(entry, stored=stored, shape=tuple(stored.shape))

    whole = cases.reference("qwen3_tts")
    assert whole.by_key["codec.tokens"].shape[1] == 11
    cut = Trace(tuple(map(short, whole.entries)), whole.metadata)
    for reference in (whole, in_pieces):
        found = compare(reference, cut)
        assert found.first_failed == "codec.tokens"
        assert "1 frame of 11 missing" in found.headline
        assert found.inputs_differed is False


def test_bisection_feeds_each_piece_its_part(in_pieces):
    for reference, chunks in ((in_pieces, True), (cases.reference("qwen3_tts"), False)):
        task = cases.task("qwen3_tts")
        options = {"codec_chunks": True} if chunks else {}
        task = replace(task, request=replace(task.request, options=options))
        found = bisect(cases.load("qwen3_tts"), reference, task=task)
        assert found.faults == (), found.headline
        assert not found.stopped


def test_a_port_s_own_file_of_a_few_tensors_is_bisected_with_the_request_of_another(tmp_path):
    reference = cases.reference("qwen3_tts")
    names = [e.key for e in reference.entries if e.name.startswith("talker.layer.1.")][:12]
    tensors = {key: reference.by_key[key].stored.numpy() for key in names}
    tensors["talker.layer.1.out"] = tensors["talker.layer.1.out"] + 0.1 * tensors["talker.layer.1.mlp"]
    tensors["talker.layer.1.mlp"] = tensors["talker.layer.1.mlp"] * 1.1
    np.savez(tmp_path / "port.npz", **tensors)
    found = bisect(cases.load("qwen3_tts"), read_trace(tmp_path / "port.npz"), task=cases.task("qwen3_tts"))
    assert [fault.stage for fault in found.faults] == ["talker.layer.{layer}.mlp"]
    assert "constant factor of 1.1;" in found.faults[0].diagnosis[0]
