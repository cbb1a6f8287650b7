"""The direction of imports, read from the source files: a house with floors."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "sonant"
FAMILIES = sorted(p.name for p in (SOURCE / "families").iterdir() if p.is_dir() and p.name != "__pycache__")
FLOORS = (
    {"errors", "files", "native"},
    {"nn", "audio", "text"},
    {"request", "checkpoints"},
    {"voices"},
    {"engine"},
    {"families"},
    {"catalogue"},
    {"readings", "bench"},
    {"books", "quality"},
    {"server", "parity"},
    {"cli"},
)
"""Rooms of the package from the ground up: a room imports from floors below its own, nothing else."""
HEIGHT = {room: height for height, floor in enumerate(FLOORS) for room in floor}


def imported(path):
    """Names of `sonant` modules that a file imports anywhere, without the leading package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module.startswith("sonant."):
                yield node.module.removeprefix("sonant.")
            elif node.module == "sonant":
                yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path} uses a relative import")
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("sonant.") for a in node.names if a.name.startswith("sonant."))


def modules(path):
    """Every module that a file's imports may mean: `from sonant.cli import say` names `cli` or `cli.say`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sonant":
            inside = [f"{node.module}.{alias.name}".removeprefix("sonant.") for alias in node.names]
            yield from (
                n if (SOURCE / f"{n.replace('.', '/')}.py").exists() else n.rpartition(".")[0] for n in inside
            )


def files(folder):
    return sorted((SOURCE / folder).rglob("*.py"))


def room_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_every_room_has_a_floor():
    rooms = {p.name.removesuffix(".py") for p in SOURCE.iterdir() if p.suffix == ".py" or any(p.glob("*.py"))}
    assert rooms - {"__init__", "__main__"} == set(HEIGHT)


@pytest.mark.parametrize("room", sorted(HEIGHT))
def test_a_room_imports_only_from_floors_below(room):
    paths = files(room) or [SOURCE / f"{room}.py"]
    for path in paths:
        for name in imported(path):
            other = name.split(".")[0]
            if other in {room, "__version__"}:
                continue
            assert HEIGHT[other] < HEIGHT[room], f"{path.relative_to(SOURCE)} imports {name}"


def test_families_never_import_each_other():
    for family in FAMILIES:
        for path in files(f"families/{family}"):
            for name in imported(path):
                if name.startswith("families"):
                    assert name.startswith(f"families.{family}"), f"{path.relative_to(SOURCE)} imports {name}"


def test_families_know_the_engine_by_its_contract_alone():
    for path in files("families"):
        for name in imported(path):
            if name.startswith("engine"):
                assert name == "engine.model", f"{path.relative_to(SOURCE)} imports {name}"


def test_only_the_registry_and_parity_import_families():
    for path in SOURCE.rglob("*.py"):
        inside = path.relative_to(SOURCE).parts
        if inside[0] in {"families", "parity"} or inside == ("catalogue", "registry.py"):
            continue
        assert not [n for n in imported(path) if n.startswith("families")], path


def test_no_two_files_import_each_other():
    """No circle of imports between files, those inside functions included."""
    names = {
        p: ".".join(p.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for p in SOURCE.rglob("*.py")
    }
    known = set(names.values())
    arrows = {name: {n for n in modules(path) if n in known and n != name} for path, name in names.items()}
    done, open_ = set(), []

    def walk(name):
        if name in open_:
            raise AssertionError("a circle: " + " -> ".join([*open_[open_.index(name) :], name]))
        if name in done:
            return
        open_.append(name)
        for other in sorted(arrows.get(name, ())):
            walk(other)
        done.add(open_.pop())

    for name in sorted(arrows):
        walk(name)


def test_onnxruntime_is_loaded_in_one_place_where_it_is_told_to_report_nothing():
    for path in SOURCE.rglob("*.py"):
        if "reference" in path.parts or path.name == "graphs.py":
            continue
        text = path.read_text(encoding="utf-8")
        assert "import onnxruntime\n" not in text.replace("graphs import onnxruntime\n", ""), path
        if "from hibari" in text or "import faster_whisper" in text:
            assert "onnxruntime()" in text, path
