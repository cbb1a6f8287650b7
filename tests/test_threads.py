"""Threads that wait leave the cores to others, unless the user says how they wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def told(code, **variables):
    """What a fresh process prints in an environment that says nothing of waiting but this."""
    mine = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = {**mine, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_waiting_is_short_where_the_user_does_not_say(variables, expected):
    code = "import os, sonant; print(os.environ.get('GOMP_SPINCOUNT'))"
    assert told(code, **variables).strip() == expected


@pytest.mark.parametrize(("variables", "expected"), [({}, None), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_a_rival_waits_as_the_user_has_it(variables, expected):
    code = "from sonant.bench.compare import _environment; print(_environment().get('GOMP_SPINCOUNT'))"
    assert told(code, **variables).split()[-1] == str(expected)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch brings another OpenMP")
def test_the_library_itself_reads_it():
    import torch

    libraries = [
        *Path(torch.__file__).parent.glob("lib/libgomp*"),
        *Path(torch.__file__).parents[1].glob("torch.libs/libgomp*"),
    ]
    if not libraries:
        pytest.skip("this torch was built with another OpenMP")
    assert "GOMP_SPINCOUNT = '2000'" in told("import sonant, torch", OMP_DISPLAY_ENV="verbose")
