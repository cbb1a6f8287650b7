"""The conformance kit, where it lies beside the repository."""

from pathlib import Path

import pytest

from sonant.parity.kit import run_kit
from sonant.parity.kits import cosyvoice3

KIT = Path(__file__).parents[4] / "shared" / "cosyvoice3"


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
