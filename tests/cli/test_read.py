"""sonant read: from a file to an audiobook, by the built-in voice."""

import json

import pytest

pytest.importorskip("bs4")


def test_the_command_reads_lists_resumes_and_reports(sonant, tmp_path):
    (tmp_path / "b.md").write_text(
        "# The Ferry\n\n## One\n\nGood morning.\n\n## Two\n\nIt left.\n", encoding="utf-8"
    )
    listed = sonant("read", "b.md", "--list")
    assert listed.code == 0
    assert "One" in listed.text
    assert not list(tmp_path.glob("*.m4b"))
    result = sonant("read", "b.md", "--subtitles", "b.srt", "--report", "b.json")
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    assert [chapter["title"] for chapter in report["chapters"]] == ["One", "Two"]
    assert (report["title"], report["kept_lines"], report["failures"]) == ("The Ferry", 0, [])
    again = sonant("read", "b.md", "--chapters", "1-", "-o", "b.m4b", "--report", "c.json")
    assert again.code == 0
    assert json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))["kept_lines"] == 5
    assert (tmp_path / "b.srt").read_text(encoding="utf-8").count("-->") == 5
    for wrong, words in (("9", "no chapter 9"), ("x", "is no range"), ("0", "is no range")):
        refused = sonant("read", "b.md", "--chapters", wrong)
        assert refused.code == 2
        assert words in refused.err
    assert "would have no chapters" in sonant("read", "b.md", "-o", "b.aac").err
