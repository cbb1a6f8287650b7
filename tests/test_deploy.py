"""What `deploy/` needs is there: the wheel stage in a clean folder, equal hardening, no secrets in git."""

import fnmatch
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
IMAGES = sorted(DEPLOY.glob("Dockerfile.*"))


def is_sent(name):
    """Whether `.dockerignore` lets this path of the tree into the build; the last rule that fits decides."""
    sent = True
    for rule in (ROOT / ".dockerignore").read_text().split():
        pattern = rule.removeprefix("!").removeprefix("**/")
        parts = name.split("/")
        starts = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        candidates = [*starts, *parts] if "**/" in rule else starts
        if any(fnmatch.fnmatchcase(one, pattern) for one in candidates):
            sent = rule.startswith("!")
    return sent


def copied(dockerfile):
    """What the first stage copies from the tree into its working folder."""
    stage = dockerfile.read_text().split("\nFROM ")[1]
    lines = [shlex.split(line) for line in stage.splitlines() if line.startswith("COPY ")]
    return [source for _, *sources, _ in lines for source in sources]


def test_there_are_two_images():
    assert [path.name for path in IMAGES] == ["Dockerfile.cpu", "Dockerfile.cuda"]


@pytest.mark.parametrize("dockerfile", IMAGES, ids=lambda path: path.name)
def test_the_wheel_is_built_from_what_the_image_copies(dockerfile, tmp_path):
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; it is in sonant[dev]")
    tree = tmp_path / "src"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = copied(dockerfile)
    for name in listed.stdout.split("\n"):
        if any(name == one or name.startswith(f"{one}/") for one in wanted) and is_sent(name):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    for name in wanted:
        assert (tree / name).exists(), f"{name} is copied by {dockerfile.name} and kept out by .dockerignore"
    code = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
    environment = {**os.environ, "SONANT_BUILD_KERNELS": "0"}
    made = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tree, env=environment, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr[-2000:]
    with zipfile.ZipFile(tmp_path / made.stdout.split()[-1]) as archive:
        names = set(archive.namelist())
    tracked = [name for name in listed.stdout.split() if name.startswith("src/sonant/")]
    assert {name.removeprefix("src/") for name in tracked} <= names


def test_what_is_not_named_stays_out_of_the_build():
    for name in ("deploy/.env", ".git/config", "tests/toy.py", "out/a.wav", "src/sonant/__pycache__/a.pyc"):
        assert not is_sent(name), name


def test_both_services_are_hardened_alike():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    cpu, cuda = services["sonant"], services["sonant-cuda"]
    differing = {key for key in cpu.keys() | cuda.keys() if cpu.get(key) != cuda.get(key)}
    assert differing == {"build", "image", "command", "profiles", "deploy"}
    assert cpu["read_only"] is True
    assert cpu["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in cpu["security_opt"]
    assert {"pids_limit", "mem_limit", "ulimits", "tmpfs"} <= cpu.keys()
    assert all(port.startswith("127.0.0.1:") for port in cpu["ports"])


@pytest.mark.parametrize("name", ["deploy/.env", "deploy/keys.txt"])
def test_secrets_are_kept_out_of_git(name):
    assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False).returncode == 0


def test_the_images_and_the_unit_keep_everything_that_is_written_in_one_place():
    for dockerfile in IMAGES:
        text = dockerfile.read_text()
        for variable in ("SONANT_MODELS", "SONANT_VOICES", "SONANT_CACHE", "HF_HOME"):
            assert f"{variable}=/data/" in text
        assert "USER sonant" in text
    unit = (DEPLOY / "sonant.service").read_text()
    for line in ("DynamicUser=yes", "LimitNOFILE=", "TasksMax=", "MemoryMax=", "NoNewPrivileges=yes"):
        assert line in unit
