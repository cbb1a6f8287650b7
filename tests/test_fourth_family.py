"""A toy family made from the table of docs/architecture.md, in a copy of the package, and used."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.test_family_names import DATA, HOMES, LISTS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "sonant"
LISTED = re.findall(
    r"^\| `([^`]+)` \|",
    (ROOT / "docs" / "architecture.md")
    .read_text(encoding="utf-8")
    .partition("\n## A fourth family\n")[2]
    .partition("\n## ")[0],
    re.MULTILINE,
)
"""The places of the table, <name> for the family and <original> for what it is measured beside."""

FILES = {
    "families/<name>/": """
        def detect(path):
            return (path / "toy.json").is_file()

        def describe(path):
            return load(path).spec

        def load(path, **options):
            from tests.toy import ToyModel
            return ToyModel()

        def footprint(path, **options):
            from sonant.checkpoints.memory import Footprint
            return Footprint(weights=1, loading=1, working=1)
        """,
    "parity/reference/<name>.py": """
        import sys
        import torch
        from tracefile import TraceWriter

        writer = TraceWriter()
        writer.add("toy.ids", torch.arange(3))
        writer.add("toy.prompt", torch.arange(6.0).view(3, 2))
        writer.add("toy.token", torch.tensor(1), kind="token")
        request = {"text": "Hello.", "sampling": {"greedy": True}}
        writer.save(sys.argv[1], {"family": "toy", "dtype": "float32", "request": request})
        """,
    "parity/stages/<name>.toml": """
        token = "toy.token"
        beams = "toy.token"
        prompt = [["toy.ids", "[N]", "what is read"], ["toy.prompt", "[T, D]", "its vectors", "toy.ids"]]
        decode = [["toy.token", "[]", "the chosen id", "toy.prompt", "", "token"]]
        """,
    "parity/parts/<name>.py": """
        def _parts(trace, entry):
            return [("a letter", trace.length("toy.ids"))]

        LAYOUTS = {"toy.prompt": _parts}
        """,
    "parity/kits/<name>.toml": """
        [limits]
        close = 1e-6
        [rows]
        toy = [["doubled", "=", "close"]]
        """,
    "parity/kits/<name>/": """
        from sonant.parity.kits.driver import Kit

        def recognises(folder):
            return (folder / "toy.kit").is_file()

        def run(folder, report):
            kit = Kit(folder, folder, report, "toy")
            recorded = kit.files["case"]
            kit.compare("toy", "case", recorded, {"doubled": 2 * recorded["given"]})
            kit.files.check_coverage(report)
        """,
    "bench/<name>_checkpoint.py": """
        from sonant.bench.random_weights import recorded_shapes

        NAMES, RIVAL = {"toy-1b": {"size": 1}}, "toytts"

        def write(folder, *, size):
            folder.mkdir(parents=True)
            (folder / "toy.json").write_text(f"{size} {recorded_shapes('toy')}")
        """,
    "bench/rivals/run_<original>.py": "",
}

USE = """
import runpy, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner
import sonant
from sonant.bench.checkpoints import folder_for, rival_of
from sonant.bench.rivals import RIVALS
from sonant.catalogue import hub, registry
from sonant.cli.app import tree
from sonant.parity.budgets import find_budget
from sonant.parity.compare import compare
from sonant.parity.kit import run_kit
from sonant.parity.parts import part_of
from sonant.parity.stages import stage_table
from sonant.parity.trace import read_trace
from sonant.server.models import find_sources
from sonant.voices.library import VoiceLibrary

work = Path(sys.argv[1])
place = Path(sonant.__file__).parent
assert (place / "families/toy").is_dir()
cli = CliRunner()

def said(*words):
    result = cli.invoke(tree(), list(map(str, words)))
    assert result.exit_code == 0, result.output
    return result.output

folder = folder_for("toy-1b", work / "made")
assert folder == work / "made/toy-1b" and rival_of("toy-1b") == "toytts" in RIVALS
assert registry.find(folder) == ("toy", folder) and registry.describe(folder).name == "toy"
assert hub.known("toy-1b").family == "toy"
assert registry.plan(folder, memory_limit="100GB", device="cpu").precision == "full"
with sonant.load(folder, device="cpu") as engine:
    assert engine.synthesize(sonant.SpeechRequest("Hello.", seed=1)).samples.size > 100
said("say", "Hello.", "--model", folder, "--seed", 1, "-o", work / "toy.wav")
assert (work / "toy.wav").stat().st_size > 100
assert "toy" in said("inspect", folder) and "toy.token" in said("parity", "stages", "toy")
served = find_sources([str(folder)], VoiceLibrary(work / "voices"), slots=1, queue_limit=1)
assert served[0].spec.family == "toy"
assert "toytts" in said("bench", "--help") and "toy" in said("parity", "stages", "--help")

sys.path.insert(0, str(place / "parity/reference"))
sys.argv = ["toy.py", str(work / "toy.safetensors")]
runpy.run_path(str(place / "parity/reference/toy.py"))
trace = read_trace(work / "toy.safetensors")
table, found = stage_table(trace.family), compare(trace, trace)
assert found.status == "right" and any(line.startswith("beams") for line in found.unexercised)
assert part_of(trace, trace.by_key["toy.prompt"], 2, trace.family) == ("a letter", 3)
assert find_budget(table, "bfloat16", "toy.prompt").own == 0.25

kit = work / "kit"
kit.mkdir()
(kit / "toy.kit").touch()
save_file({"given": torch.ones(2), "doubled": 2 * torch.ones(2)}, kit / "case.safetensors")
lines = []
assert run_kit(kit, lines.append) and lines[-1] == "2 passed, 0 failed"
print("whole")
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package with a family more, and every file that was added or changed in it."""
    there = tmp_path_factory.mktemp("fourth") / "sonant"
    shutil.copytree(SOURCE, there, ignore=shutil.ignore_patterns("__pycache__", "assets", "static"))
    before = {path: path.read_bytes() for path in there.rglob("*") if path.is_file()}
    for place, text in FILES.items():
        path = there / place.replace("<name>", "toy").replace("<original>", "toytts")
        path = path / "__init__.py" if place.endswith("/") else path
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(text).lstrip(), encoding="utf-8")
    (there / "bench/shapes/toy.json.gz").write_bytes(gzip.compress(b'{"toy": {}}'))
    for place, old, new in (
        ("catalogue/registry.py", 'FAMILIES = ("builtin", ', 'FAMILIES = ("builtin", "toy", '),
        ("catalogue/hub.py", "\nKNOWN: tuple[KnownModel, ...] = (\n", None),
    ):
        text = (there / place).read_text(encoding="utf-8")
        assert text.count(old) == 1
        entry = 'KnownModel(name="toy-1b", repository="a/toy", family="toy", about="", licence="", files=()),'
        (there / place).write_text(text.replace(old, new or f"{old}    {entry}\n"), encoding="utf-8")
    budgets = there / "parity/budgets.json"
    table = json.loads(budgets.read_text(encoding="utf-8"))
    table["toy"] = {"bfloat16": {"toy.prompt": [0.5, 0.25]}}
    budgets.write_text(json.dumps(table), encoding="utf-8")
    changed = [p for p in there.rglob("*") if p.is_file() and before.get(p) != p.read_bytes()]
    return there, {path.relative_to(there).as_posix() for path in changed}


def test_a_family_of_exactly_the_listed_places_is_found_spoken_with_and_checked(package, tmp_path):
    there, changed = package
    places = {place.replace("<name>", "toy").replace("<original>", "toytts") for place in LISTED}
    assert changed == {place + "__init__.py" * place.endswith("/") for place in places}
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{there.parent}{os.pathsep}{ROOT}", "SONANT_MODELS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "whole", done.stderr[-2000:]


def test_the_listed_places_are_those_where_a_family_may_be_named():
    homes = {
        place.replace("<name>", "{}").replace("<original>.py", "").replace("{}.json.gz", "{}")
        for place in LISTED
    }
    assert homes == {*HOMES, *LISTS, *DATA} - {"assets/"}
