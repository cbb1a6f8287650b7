"""What the pages promise: links lead somewhere, and the Python examples run as printed."""

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
TINY = ROOT / "tests" / "data" / "cosyvoice3"
LINK = re.compile(r"\]\(([^)#\s]+)(?:#([^)\s]+))?\)")
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, anchor in LINK.findall(text):
        if "://" in target:
            continue
        found = (page.parent / target).resolve()
        assert found.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(found), f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("name", ["README.md", "docs/architecture.md", "docs/cosyvoice3.md"])
def test_python_examples_run(name, tmp_path, monkeypatch):
    shutil.copyfile(TINY / "prompt_24k.wav", tmp_path / "ann.wav")
    monkeypatch.chdir(tmp_path)
    heard = []
    names = {"play": heard.append, "words_of_a_language_model": lambda: iter(["Good ", "morning."])}
    blocks = BLOCK.findall((ROOT / name).read_text(encoding="utf-8"))
    examples = [block for block in blocks if "engine." in block and "class " not in block]
    assert examples
    exec("import sonant", names)
    for example in examples:
        exec(re.sub(r'"checkpoints/[^"]+"', repr(str(TINY / "checkpoint")), example), names)
    assert (tmp_path / "hello.wav").stat().st_size > 44
    names["engine"].close()
