"""The direction of imports, read from the source files."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "sonant"
FAMILIES = sorted(p.name for p in (SOURCE / "families").iterdir() if p.is_dir() and p.name != "__pycache__")
FOUNDATION = {"native", "errors", "config", "speech", "voice", "model", "checkpoint", "sampling", "memory"}


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


def files(folder):
    return sorted((SOURCE / folder).rglob("*.py"))


def test_blocks_import_nothing_of_sonant_but_errors_and_each_other():
    for folder in ("nn", "audio", "text"):
        for path in files(folder):
            for name in imported(path):
                assert name.split(".")[0] in {"errors", folder, "native"}, f"{path.name} imports {name}"


def test_families_import_foundation_and_blocks_but_never_each_other():
    for family in FAMILIES:
        for path in files(f"families/{family}"):
            for name in imported(path):
                head = name.split(".")[0]
                own = name.startswith(f"families.{family}")
                assert own or head in FOUNDATION | {"nn", "audio", "text"}, (
                    f"{family}: {path.name} imports {name}"
                )


def test_engine_knows_no_family():
    for name in ("engine", "stream", "casting", "model"):
        path = SOURCE / f"{name}.py"
        assert not [n for n in imported(path) if n.startswith(("families", "registry"))]


def test_only_registry_and_parity_name_families():
    for path in SOURCE.rglob("*.py"):
        inside = path.relative_to(SOURCE).parts
        if inside[0] in {"families", "parity"} or inside[0] == "registry.py":
            continue
        assert not [n for n in imported(path) if n.startswith("families")], path


def test_nothing_imports_parity_but_its_command():
    for path in SOURCE.rglob("*.py"):
        inside = path.relative_to(SOURCE).parts
        if inside[0] in {"parity", "cli"}:
            continue
        assert not [n for n in imported(path) if n.startswith("parity")], path
