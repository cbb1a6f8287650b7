"""Mistakes that ports have really made, found by comparing with recordings of the originals."""

import pytest

from sonant.parity.compare import compare
from sonant.parity.record import record
from sonant.parity.task import task_of
from sonant.parity.trace import read_trace
from tests.parity import cases
from tests.parity.faults_cosyvoice3 import FAULTS as COSYVOICE3
from tests.parity.faults_indextts2 import FAULTS as INDEXTTS2
from tests.parity.faults_qwen3_tts import FAULTS as QWEN3_TTS


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


@pytest.mark.parametrize(
    ("what", "part", "words"),
    [
        ("speaker vector twice", "speaker", "constant factor of 2"),
        ("the language's tags", "language", "permuted"),
        ("text before the clip's transcript", "text", "text plus frame of the clip"),
        ("frames of the clip without their first", "codec", "text plus frame of the clip"),
    ],
)
def test_the_wrong_summand_of_the_original_s_prompt_is_named(diagnose, what, part, words):
    found = diagnose("qwen3_tts", QWEN3_TTS, what)
    assert found.first_failed == f"prompt.part.{part}"
    assert found.inputs_differed in (False, None)
    assert any(words in line for line in found.diagnosis), found.diagnosis
