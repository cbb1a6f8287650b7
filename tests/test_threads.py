"""Threads that wait leave the cores to others, unless the user says how they wait."""

import os
import subprocess
import sys

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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch brings another OpenMP")
def test_the_library_itself_reads_it():
    shown = told("import sonant, torch", OMP_DISPLAY_ENV="verbose")
    if "GOMP_SPINCOUNT" not in shown:
        pytest.skip("this torch brings another OpenMP")
    assert "GOMP_SPINCOUNT = '2000'" in shown
