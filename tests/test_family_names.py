"""A family is one folder, its lines in the registry and the hub's list, its recorder and its data."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "sonant"
FAMILIES = sorted(p.parent.name for p in (SOURCE / "families").glob("*/__init__.py"))
HOMES = ("families", "parity", "bench", "catalogue/registry.py", "catalogue/hub")
"""Where families may be named: folders, recorders, stages, kits, full-size shapes, and the two lists."""
FILES = [
    path for path in sorted(SOURCE.rglob("*.py")) if not path.relative_to(SOURCE).as_posix().startswith(HOMES)
]


def documented(tree):
    """Constants that are docstrings, or help of a command line, by identity."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                yield id(child.value)


def names_in(path):
    """Family names in the code of a file: identifiers, imports, and strings that are just the name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set(documented(tree))
    for node in ast.walk(tree):
        words = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            words = [node.value]
        elif isinstance(node, ast.Name):
            words = [node.id]
        elif isinstance(node, ast.Attribute):
            words = [node.attr]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            words = [part for alias in node.names for part in alias.name.split(".")]
            words += (getattr(node, "module", "") or "").split(".")
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            words = [node.name]
        yield from (f"{word!r} in line {node.lineno}" for word in words if word in FAMILIES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_no_file_outside_its_homes_names_a_family(path):
    assert not list(names_in(path)), "what a family can do is told by its ModelSpec"


def test_the_search_finds_a_name(tmp_path):
    (tmp_path / "bad.py").write_text('if spec.family == "cosyvoice3":\n    pass\n', encoding="utf-8")
    assert list(names_in(tmp_path / "bad.py"))
