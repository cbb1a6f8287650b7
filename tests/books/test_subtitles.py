"""Subtitles as programs and people write them: only their words are read, each at its time."""

import math

import pytest

from sonant.books.dubbing import dub, slots_of
from sonant.books.subtitles import Cue, read_subtitles
from sonant.errors import RequestError

from .test_reading import RATE, Paced

SRT = "1\n00:00:01,000 --> 00:00:02,500\nGood morning,\nAnn.\n\n2\n00:00:03,000 --> 00:00:04,000\nÜber uns.\n"
SAID = [Cue(1.0, 2.5, "Good morning, Ann."), Cue(3.0, 4.0, "Über uns.")]


def read(folder, text, *, name="a.srt", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    return read_subtitles(folder / name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_code_pages_and_line_ends(tmp_path, encoding, ends):
    assert read(tmp_path, SRT.replace("\n", ends), encoding=encoding) == SAID


@pytest.mark.parametrize(
    "text",
    [
        SRT.replace("Good", "<i>Good</i>").replace("Ann", "{\\an8}<font color='#fff'>Ann</font>"),
        SRT.replace("\n\n2\n", "\n\n\n\n2\n"),
        SRT.replace("1\n00", "00", 1).replace("\n2\n", "\n"),
        "\n\n" + SRT.replace(" --> ", "-->").replace(",", ".", 2),
        SRT.replace("02,500\n", "02,500  X1:40 X2:600 Y1:20 Y2:50\n"),
        SRT + "\n3\n00:00:05,000 --> 00:00:06,000\n\n\n4\n00:00:07,000 --> 00:00:08,000\n♪ ♪\n",
        "2\n00:00:03,000 --> 00:00:04,000\nÜber uns.\n\n" + SRT.partition("\n2\n")[0],
        SRT.replace("Über uns.", "Über&nbsp;uns."),
    ],
    ids=["tags", "blanks", "unnumbered", "points", "places", "empty", "unordered", "entities"],
)
def test_forms_of_srt(tmp_path, text):
    assert read(tmp_path, text) == SAID


@pytest.mark.parametrize("name", ["a.vtt", "a.srt"])
def test_webvtt_is_read_without_notes_styles_and_names_of_cues(tmp_path, name):
    text = (
        "WEBVTT - a title\nKind: captions\n\nSTYLE\n::cue { color: red }\n\nNOTE\nnot spoken\nat all\n\n"
        "opening scene\n00:01.000 --> 00:02.500 line:1\n"
        "<v Roger>Good<00:01.500><c> morning,</c>\nAnn.</v>\n\nNOTE nor this\n\n"
        "2 - closing\n00:00:03.000 --> 00:00:04.000\nÜber&nbsp;uns.\n"
    )
    assert read(tmp_path, text, name=name, encoding="utf-8-sig") == SAID


def test_what_begins_at_one_time_is_one_line(tmp_path):
    cue = "{}\n00:00:01,000 --> 00:00:0{},000\n{}\n\n"
    text = cue.format(1, 3, "- Where?") + cue.format(2, 4, "- There.") + cue.format(3, 2, "- There.")
    assert read(tmp_path, text) == [Cue(1.0, 4.0, "- Where? - There.")]


def test_an_answer_that_ends_as_the_question_does_is_said(tmp_path):
    cue = "00:00:01,000 --> 00:00:02,000\n{}\n\n"
    assert read(tmp_path, cue.format("She plays the piano") + cue.format("no"))[0].text.endswith("piano no")


def test_lines_that_overlap_end_where_the_next_begins():
    cues = [Cue(1.0, 5.0, "0123456789"), Cue(2.0, 4.0, "0123"), Cue(2.5, 2.5, "0123456789")]
    assert slots_of(cues) == [1.0, 0.5, math.inf]
    reading, fitted, _ = dub(cues, Paced(), RATE, can_hurry=True)
    assert [one.start for one in reading.heard] == [1.0, 2.0, 2.5]
    assert [one.end for one in reading.heard] == pytest.approx([1.95, 2.4, 3.5], abs=0.01)
    assert all(one.over == 0 for one in fitted)
    assert reading.seconds == 5.0


@pytest.mark.parametrize("text", ["", "only words\n", "1\n00:00:01,000 --> 00:00:02,000\n♪\n"])
def test_what_has_nothing_to_say_is_refused(tmp_path, text):
    with pytest.raises(RequestError, match=r"a\.srt"):
        read(tmp_path, text)
