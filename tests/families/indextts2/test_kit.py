"""The whole conformance kit, where it lies beside the repository."""

from pathlib import Path

import pytest

from sonant.parity.kit import run_kit

KIT = Path(__file__).parents[4] / "shared" / "indextts2"


@pytest.mark.slow
@pytest.mark.skipif(not KIT.is_dir(), reason="the conformance kit is not beside this repository")
def test_the_whole_kit_passes():
    lines = []
    assert run_kit(KIT, lines.append), [line for line in lines if line.startswith("FAIL")]
