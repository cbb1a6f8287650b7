"""A family is one folder, its lines in the registry and the hub's list, its recorder and its data."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "sonant"
FAMILIES = sorted(p.parent.name for p in (SOURCE / "families").glob("*/__init__.py"))
BRANDS = sorted({re.match("[a-z]+", family)[0] for family in FAMILIES})
"""What every spelling of a name has in common without marks and digits: qwen, cosyvoice, indextts, ..."""
LISTS = ("catalogue/registry.py", "catalogue/hub.py")
"""The two lists; every family has its lines in them."""
HOMES = (
    "families/{}/",
    "parity/reference/{}.py",
    "parity/stages/{}.toml",
    "parity/parts/{}.py",
    "parity/kits/{}.toml",
    "parity/kits/{}/",
    "bench/{}_checkpoint.py",
    "bench/shapes/{}",
    "bench/rivals/run_",
)
"""Where one family may be named: its folder, its recorder, its data, and the runners of the originals."""
DATA = ("parity/budgets.json", "assets/")
"""Measured figures of every family, written by `sonant parity drift`, and the checkpoint in the package."""
SAID = {
    "request/settings.py": ("(Qwen3-TTS)", "(CosyVoice3)", "as IndexTTS-2.5 calls it"),
    "server/schemas.py": ("Kokoro-FastAPI's",),
    "text/tokenizer.py": ("QWEN2_PATTERN",),
    "families/builtin/spec.py": ("distilled from Kokoro-82M",),
}
"""What is no list of families: whose option a setting is, told to people; another server's name; the
language model whose pattern the tokenizers of two families share; and a licence."""


def is_home(name):
    return name in LISTS or name.startswith(
        (*DATA, *(home.format(family) for home in HOMES for family in FAMILIES))
    )


FILES = [path for path in sorted(SOURCE.rglob("*.py")) if not is_home(path.relative_to(SOURCE).as_posix())]
OTHERS = [
    path
    for path in sorted(SOURCE.rglob("*"))
    if path.suffix in {".toml", ".json", ".yaml", ".txt", ".html", ".js"}
    and not is_home(path.relative_to(SOURCE).as_posix())
]


def brands_in(text):
    """Families that a text names in any spelling: `QWEN_KINDS`, "Qwen3-TTS", "cosy voice 3", `_indextts`."""
    plain = re.sub(r"[\W\d_]", "", text).lower()
    return [brand for brand in BRANDS if brand in plain]


def documented(tree):
    """Constants that are docstrings, by identity."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                yield id(child.value)


def names_in(path, said=()):
    """Family names in the code of a file: identifiers, imports and strings, but for what is `said`."""
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
        elif isinstance(node, ast.arg):
            words = [node.arg]
        elif isinstance(node, ast.keyword):
            words = [node.arg or ""]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            words = [word for alias in node.names for word in (alias.name, alias.asname or "")]
            words.append(getattr(node, "module", "") or "")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            words = [node.name]
        for word in words:
            for phrase in said:
                word = word.replace(phrase, "")
            if brands_in(word):
                yield f"{word!r} in line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_no_file_outside_its_homes_names_a_family(path):
    found = list(names_in(path, SAID.get(path.relative_to(SOURCE).as_posix(), ())))
    assert not found, "what a family can do is told by its ModelSpec, what belongs to it lies in its homes"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_s_own_files_name_no_other(family):
    """By its whole name: one is built around Qwen's language model, and what is built in is a common word."""
    others = [re.sub(r"[\d_]", "", other) for other in FAMILIES if other not in {family, "builtin"}]
    homes = tuple(home.format(family) for home in HOMES if "{}" in home)
    own = {p: p.relative_to(SOURCE).as_posix() for p in sorted(SOURCE.rglob("*.py"))}
    for path in (path for path, name in own.items() if name.startswith(homes)):
        found = [re.sub(r"[\W\d_]", "", name).lower() for name in names_in(path, SAID.get(own[path], ()))]
        assert not [name for name in found if any(other in name for other in others)], own[path]


def test_no_data_outside_its_homes_has_a_family_s_name():
    """An example of a command in the studio's words is no list; the name that the registry knows would be."""
    assert len(OTHERS) > 10
    for path in OTHERS:
        text = path.read_text(encoding="utf-8")
        assert not [name for name in FAMILIES if re.search(rf"\b{name}\b", text)], path


@pytest.mark.parametrize(
    "line",
    [
        'RUNNERS = ("qwen3_tts", "cosyvoice3", "indextts2")',
        'assert table.family != "cosyvoice3"',
        'QWEN_KINDS = {"base": "base"}',
        'assert parts[:2] == ["qwen3", "tts"]',
        "from sonant.bench import cosyvoice3_checkpoint",
        "import sonant.families.kokoro as voice",
        'assert model.lower() in ("indextts2", "indextts2.5")',
        'RIVALS = ("qwen-tts",)',
        'RIVALS = ("cosyvoice", "indextts")',
        'option(help="Qwen3-TTS, Cosy Voice 3 or Index TTS.")',
        'CONFIGS = ("config.json", "cosyvoice3.yaml")',
        "def _indextts(trace): ...",
        "async def load(kokoro=None): ...",
        "load(kokoro=None)",
        "assert family == registry.BUILTIN",
        "is_builtin = True",
    ],
)
def test_the_search_finds_a_name_in_every_spelling(line, tmp_path):
    (tmp_path / "bad.py").write_text(f'"""Docstrings may say Qwen3-TTS."""\n{line}\n', encoding="utf-8")
    assert list(names_in(tmp_path / "bad.py"))


def test_the_search_sees_every_file_that_once_had_a_list():
    seen = {path.relative_to(SOURCE).as_posix() for path in FILES}
    once = "parity/kit parity/stages/__init__ parity/coverage parity/parts/__init__ bench/checkpoints"
    once += " bench/compare bench/rivals/__init__ cli/bench cli/parity catalogue/inspection"
    assert {f"{name}.py" for name in once.split()} <= seen


def test_every_home_is_lived_in():
    names = [path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*") if path.is_file()]
    for home in (*HOMES, *DATA, *LISTS):
        patterns = tuple(home.format(family) for family in FAMILIES)
        assert any(name.startswith(patterns) for name in names), home
