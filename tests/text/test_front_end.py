"""What was heard wrong is read right; wrapped lines, mark-up, SSML and emoji; the order of the layers."""

import json
from pathlib import Path

import pytest

from benchmarks.text_score import Entry, is_right, load
from sonant.errors import RequestError
from sonant.text import front_end
from sonant.text.cleaning import clean
from sonant.text.front_end import ReadingOptions, read_text, spoken_text
from sonant.text.layout import paragraphs
from sonant.text.reading import read_aloud
from sonant.text.segment import Pauses

DATA = Path(__file__).resolve().parent.parent / "data"
CASES = [
    Entry(row["id"], "cases", row["language"], row["input"], tuple(row["right"]), row["class"])
    for row in json.loads((DATA / "text_cases.json").read_text(encoding="utf-8"))
]
PROSE = [(entry.language, entry.text) for entry in load(["prose"])]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_was_heard_wrong_is_read_right(case):
    reading = spoken_text(case.text, case.language)
    assert is_right(case, reading), reading


@pytest.mark.parametrize("width", [40, 60, 72])
@pytest.mark.parametrize(
    ("language", "text"), [row for row in PROSE if len(row[1]) > 150 and row[0] != "chinese"][:12]
)
def test_wrapped_prose_is_the_prose(language, text, width):
    import textwrap

    wrapped = "\n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))
    for end in ("\n", "\r\n", "\r"):
        assert spoken_text(wrapped.replace("\n", end), language) == spoken_text(text, language)


@pytest.mark.parametrize(
    ("typed", "cleaned"),
    [
        ("\ufeffa\r\nb\rc\u2028d\u2029e", "a\nb\nc\nd\n\ne"),
        ("a\u00adb\u200bc\u2060d\x07", "abcd"),
        ("x\u3000y\tz", "x y z"),
        ("１２３％ ＡＢ", "123% AB"),
        ("ﬁn ㎏ ①", "fin kg 1 "),
        ("e\u0301", "é"),
    ],
)
def test_clean_up(typed, cleaned):
    assert clean(typed) == cleaned


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("# One\ntext", ["One.", "text"]),
        ("One\n===\ntext", ["One.", "text"]),
        ("- a b\n- c d", ["a b.\nc d"]),
        ("1. a b\n2. c d", ["1. a b.\n2. c d"]),
        ("> quoted\n> on", ["quoted on"]),
        ("**b** _i_ ~~s~~ ==m== `c`", ["b i s m c"]),
        ("[w](https://a.b/c_(d)) ![alt](x.png) [r][1]\n\n[1]: http://x", ["w alt r"]),
        ("| a | b |\n|---|---|\n| c | d |", ["a, b.\nc, d"]),
        ("snake_case_name and 2 * 3 * 4", ["snake_case_name and 2 * 3 * 4"]),
        ("<p>a<br>b</p><script>x</script>c &amp; d", ["a.\nb.", "c & d"]),
        ("a < b > c", ["a < b > c"]),
        ("[pause:1s] [dog](/dˈɔɡ/) **x**", ["[pause:1s] [dog](/dˈɔɡ/) x"]),
        ("---\nHi\n***", ["Hi"]),
        ("x\\*y\\*", ["x*y*"]),
    ],
)
def test_mark_up_is_read(typed, said):
    assert paragraphs(typed) == said


def test_code_is_said_or_left_out():
    text = "Type `ls -l`.\n\n```sh\nmake\n```\n\nEnd."
    assert paragraphs(text, code="skip") == ["Type .", "End."]
    assert paragraphs(text) == ["Type ls -l.", "make.", "End."]


def parts(text, **options):
    return list(read_text(text, ReadingOptions(**options)))


def test_ssml_gives_pauses_pace_languages_and_phonemes():
    made = parts(
        '<speak xml:lang="en">Hi <break time="500ms"/> you. <prosody rate="50%">Slow 2.</prosody>'
        '<phoneme ph="kˈæt">cat</phoneme> <say-as interpret-as="characters">ab1</say-as>'
        '<lang xml:lang="de-DE">3 Katzen</lang><audio src="x"/></speak>'
    )
    assert [(part.text, part.rate, part.language) for part in made if part.text] == [
        ("Hi", 1.0, "en"), ("you.", 1.0, "en"), ("Slow two.", 0.5, "en"),
        ("[cat](/kˈæt/) A B one", 1.0, "en"), ("drei Katzen", 1.0, "de-DE"),
    ]  # fmt: skip
    assert made[1].pause_after == 0.5
    assert made[0].changes[0].written == "audio"


@pytest.mark.parametrize(
    "text",
    [
        "<speak>a", "<speak>a & b</speak>", '<speak><break time="long"/></speak>',
        '<!DOCTYPE x><speak>a</speak>', '<speak><prosody rate="9x">a</prosody></speak>',
        "<speak>" + "<p>" * 100 + "</p>" * 100 + "</speak>",
    ],
)  # fmt: skip
def test_malformed_ssml_is_refused(text):
    if not text.startswith("<speak"):
        text = "<speak>" + text
    with pytest.raises(RequestError, match="SSML"):
        parts(text)


def test_emoji_are_left_out_or_named():
    assert parts("Well 👍🏽 done 🇩🇪 3️⃣")[0].text == "Well done three"
    assert parts("Well 👍 done", emoji="say")[0].text == "Well thumbs up done"
    assert parts("Gut 👍", emoji="say", language="de")[0].text == "Gut daumen hoch"


def test_a_named_language_wins_and_a_model_reads_only_its_own():
    assert spoken_text("100", "zh-CN") == "一百"
    assert parts("$5 你好", spoken=("english",))[0].text == "five dollars 你好"
    assert parts("价格是$5", spoken=("chinese", "english"))[0].text == "价格是五美元"


def test_marks_of_the_model_pass_untouched():
    import regex

    marks = regex.compile(r"<strong>|</strong>|<\|[^|]*\|>|\[AA1\]|xuan4")
    made = parts("<strong>5</strong> <|2|> [AA1] xuan4 **3**", marks=marks, language="english")
    assert made[0].text == "<strong>five</strong> <|2|> [AA1] xuan4 three"


def test_the_glossary_comes_first():
    assert parts("GPT-5 rocks", glossary={"GPT-5": "G P T five"})[0].text == "G P T five rocks"


def test_paragraphs_come_one_by_one_with_a_pause():
    made = read_text("One.\n\nTwo.\n\n" * 3)
    first = next(made)
    assert (first.text, first.pause_after > 0) == ("One.", True)
    assert [part.text for part in made] == ["Two.", "One.", "Two.", "One.", "Two."]


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        (
            "english",
            "The ship left on 3 May with 250 men aboard. It cost $23.50, said Dr. Holt. Nobody knew why! ",
        ),
        (
            "german",
            "Das Schiff fuhr am 3. Mai mit 250 Mann. Es kostete 23,50 €, sagte Dr. Holt. Niemand ahnte es! ",
        ),
        ("chinese", "他在3月5日花了25元。没有人知道为什么。"),
    ],
)
def test_a_paragraph_of_any_length_is_begun_before_its_end_is_read(language, sentences, monkeypatch):
    read = []

    def counted(text, *rest, **more):
        read.append(len(text))
        return read_aloud(text, *rest, **more)

    monkeypatch.setattr(front_end, "read_aloud", counted)
    options = ReadingOptions(language=language)
    made = read_text(sentences * 900, options)
    first = next(made)
    assert sum(read) < 1_200  # of at least 16,000
    rest = list(made)
    assert [part.pause_after for part in (first, *rest)] == [Pauses().sentence] * len(rest) + [0.0]
    gap = "" if language == "chinese" else " "
    assert gap.join(part.text for part in (first, *rest)) == gap.join(
        [spoken_text(sentences, language)] * 900
    )


def test_changes_name_rule_and_both_forms():
    (part,) = parts("Pay $3 now.")
    assert [(c.rule, c.written, c.spoken) for c in part.changes] == [
        ("amount of money", "$3", "three dollars")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("language", ["english", "chinese", "german"])
@pytest.mark.parametrize(
    "unit",
    [
        "1 ",
        "a1",
        "\n1",
        "€",
        "*a ",
        "[a](",
        "<b",
        "`",
        "a.",
        "1:",
        "Dr. ",
        "😀",
        "x^",
        "http://a",
        "\\",
        "|a",
    ],
)
def test_hostile_text_takes_time_in_proportion(language, unit):
    import time

    def spent(size):
        began = time.thread_time()
        sum(1 for _ in read_text((unit * size)[:size], ReadingOptions(language=language)))
        return time.thread_time() - began

    spent(1_000)
    short, long = spent(5_000), spent(100_000)
    assert long < max(60 * short, 2.0)  # measured: at most 30 times for 20 times the text
