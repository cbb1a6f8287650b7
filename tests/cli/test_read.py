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


def test_what_cannot_be_written_is_told_before_anything_is_spoken(sonant, tmp_path, monkeypatch):
    (tmp_path / "b.md").write_text("Good morning.\n", encoding="utf-8")
    (tmp_path / "folder.json").mkdir()
    monkeypatch.setattr("sonant.cli.speaking.load_engine", lambda *given, **more: pytest.fail("loaded"))
    for option in (
        ["--report", "none/r.json"], ["--report", "folder.json"], ["--drift", "none/d.svg"],
        ["--subtitles", "none/s.srt"], ["-o", "none/b.m4b"],
    ):  # fmt: skip
        refused = sonant("read", "b.md", *option)
        assert (refused.code, "Traceback" in refused.err) == (2, False)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "voices") == [
        "b.md",
        "folder.json",
    ]


def test_a_line_that_was_left_out_ends_it_with_the_status_of_failed_speech(sonant, tmp_path, monkeypatch):
    from sonant.errors import GenerationError
    from sonant.readings.pieces import PieceStore

    (tmp_path / "b.md").write_text("Good morning to you.\n\nThe ferry left at ten.\n", encoding="utf-8")
    tell = PieceStore.tell

    def failing(store, text, **pace):
        if "ferry" in text:
            raise GenerationError("a planted fault")
        return tell(store, text, **pace)

    monkeypatch.setattr(PieceStore, "tell", failing)
    result = sonant("read", "b.md", "-o", "b.wav")
    assert (result.code, (tmp_path / "b.wav").exists()) == (6, True)
    assert "left out: 'The ferry left at ten.'" in result.err


SCENE = """# Tea

“Have some wine,” said the Hatter.

“I don't see any wine,” said Alice. “There is none,” said the Hatter.

“None at all,” Alice said.

[voice: narrator | sad] So they had tea, said Alice to nobody.
"""


def test_a_scene_is_read_by_a_cast_that_the_command_began(sonant, tmp_path):
    (tmp_path / "scene.md").write_text(SCENE, encoding="utf-8")
    listed = sonant("cast", "scene.md", "-o", "cast.toml")
    assert listed.code == 0, listed.err
    assert "The Hatter" in listed.text
    assert "then: sonant read scene.md --cast cast.toml" in listed.err
    made = (tmp_path / "cast.toml").read_text(encoding="utf-8")
    assert sonant("cast", "scene.md", "-o", "cast.toml").code == 2  # somebody's work may be in it
    made = made.replace("# voice", "speed = 1.25\n# voice", 1)
    (tmp_path / "cast.toml").write_text(
        made.replace('[roles."Alice"]', '[roles."Alice"]\ngain = 3.0'), "utf-8"
    )
    shown = sonant("cast", "scene.md", "--cast", "cast.toml", "--lines")
    assert "The Hatter: “Have some wine,”" in shown.text
    assert "narrator (sad): So they had tea, said Alice to nobody." in shown.text
    read = sonant(
        "read", "scene.md", "--cast", "cast.toml", "-o", "s.wav", "--report", "s.json", "--drift", "s.svg"
    )
    assert read.code == 0, read.err
    report = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert {role["name"] for role in report["roles"]} == {"narrator", "Alice", "The Hatter"}
    assert [guard["kind"] for guard in report["guards"]] == ["manner_unused"]
    assert report["drift"]["changes"] == []
    assert (tmp_path / "s.svg").read_text().startswith("<svg")
    (tmp_path / "bad.toml").write_text('[roles.Alice]\nvoice = "zed"\n', encoding="utf-8")
    refused = sonant("read", "scene.md", "--cast", "bad.toml", "-o", "t.wav")
    assert refused.code == 4
    assert "zed" in refused.err
    assert not (tmp_path / "t.wav").exists()


def test_every_dubbed_line_is_in_its_slot(sonant, tmp_path):
    cues = [(0.5, 2.0, "Good morning."), (2.0, 3.5, "The ferry leaves at seven."), (3.6, 9.0, "Run!")]
    (tmp_path / "f.srt").write_text(
        "\n\n".join(
            f"{n}\n00:00:{a:06.3f} --> 00:00:{b:06.3f}\n{text}".replace(".", ",", 2)
            for n, (a, b, text) in enumerate(cues, 1)
        ),
        encoding="utf-8",
    )
    result = sonant("read", "f.srt", "-o", "d.wav", "--subtitles", "d.srt", "--report", "d.json")
    assert result.code == 0, result.err
    lines = json.loads((tmp_path / "d.json").read_text(encoding="utf-8"))["lines"]
    assert [line["start"] for line in lines] == [0.5, 2.0, 3.6]
    assert all(line["over"] <= 0.01 for line in lines)
    assert (tmp_path / "d.srt").read_text(encoding="utf-8").count("-->") == 3


def test_what_is_for_books_is_refused_with_subtitles_and_a_full_disk_is_told(sonant, tmp_path, monkeypatch):
    (tmp_path / "f.srt").write_text("1\n00:00:00,500 --> 00:00:02,000\nGood morning.\n", encoding="utf-8")
    for option in (["--carry"], ["--drift", "d.svg"], ["--chapters", "1"], ["--everything"]):
        refused = sonant("read", "f.srt", *option)
        assert refused.code == 2
        assert option[0] in refused.err

    for option in ("--dry-run", "--list"):
        planned = sonant("read", "f.srt", option)
        assert (planned.code, "1 lines, 13 characters" in planned.text) == (0, True)
    assert not list(tmp_path.glob("f.wav*"))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sonant.books.binding.bind", full)
    result = sonant("read", "f.srt", "-o", "d.wav")
    assert (result.code, "No space left on device" in result.err) == (10, True)
    assert "Traceback" not in result.err
