"""Two mistakes that ports have really made, found by comparing with recordings of the originals."""

import pytest

from sonant.parity.compare import compare
from sonant.parity.record import record
from sonant.parity.task import task_of
from sonant.parity.trace import read_trace
from tests.parity import cases
from tests.parity.faults_cosyvoice3 import FAULTS as COSYVOICE3
from tests.parity.faults_indextts2 import FAULTS as INDEXTTS2


@pytest.fixture
def diagnose(monkeypatch):
    """The comparison of the original's recording with ours, with one of the listed faults in it."""

    def run(family, faults, what):
        (fault,) = [fault for fault in faults if fault.what.startswith(what)]
        fault.inject(monkeypatch)
        original = read_trace(cases.DATA / "parity" / f"{family}_original.safetensors")
        return compare(original, record(cases.load(family), task_of(original), forced=original))

    return run


def test_an_offset_prompt_mel_is_named_at_the_condition(diagnose):
    found = diagnose("cosyvoice3", COSYVOICE3, "prompt mel offset by 2.5")
    assert found.first_failed == "flow.step.0.cond"
    assert found.inputs_differed is False  # the mel itself is right
    stage = next(stage for stage in found.stages if stage.key == found.first_failed)
    assert stage.distance.max_abs == pytest.approx(2.5)
    assert stage.inputs == ("voice.mel",)


def test_consecutive_code_positions_fail_at_step_1_and_are_named(diagnose):
    found = diagnose("indextts2", INDEXTTS2, "consecutive code positions")
    assert found.first_failed == "gpt.input@1"
    assert found.inputs_differed is False
    stage = next(stage for stage in found.stages if stage.key == found.first_failed)
    assert (stage.step, stage.group) == (1, "teacher_forced")
    # The prefill, which knows only position 0, is untouched.
    assert not any(stage.has_failed for stage in found.stages if stage.step == 0)
