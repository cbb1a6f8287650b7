"""Numbers, dates, money, units and signs are read out by language; marks stay; time is bounded."""

import logging
import time

import pytest

from sonant.text.normalize import normalize

READ = [
    (
        "english",
        "$12.50 at 5:30pm, No. 5, #6",
        "twelve dollars and fifty cents at five thirty PM, number five, number six",
    ),
    ("english", "In the 1990s, $1,000,000.50.", "nineteen nineties, one million dollars and fifty cents"),
    (
        "english",
        "Dr. Smith drove 1,234 km/h.",
        "doctor Smith drove one thousand two hundred and thirty four kilometers",
    ),
    ("english", 'He said "hi" to 2 people\nand 3 more.', 'He said "hi" to two people\nand three more.'),
    ("english", "salt & 3 eggs @ home", "salt and three eggs at home"),
    ("english", "5 of 中文 items", "five of 中文 items"),
    ("chinese", "今天是2024年3月4日，温度是-5℃。", "今天是二零二四年三月四日，温度是负五摄氏度。"),
    ("chinese", "涨了3.5%", "涨了百分之三点五"),
    (
        "german",
        "Am 3. Mai um 17:30 Uhr kostet es 12,50 €.",
        "Am dritten Mai um siebzehn Uhr dreißig kostet es zwölf Euro fünfzig.",
    ),
    (
        "german",
        "1.234,56 km bei -5 °C, 3-5 kg",
        "Komma fünf sechs Kilometer bei minus fünf Grad Celsius, drei bis fünf Kilogramm",
    ),
    ("german", "am 01.02.2023, 3.14", "erster Februar zweitausenddreiundzwanzig, drei Komma eins vier"),
    (
        "french",
        "Le 1er mai, 1 234 personnes, 3,14",
        "Le premier mai, mille deux cent trente-quatre personnes, trois virgule quatorze",
    ),
    (
        "french",
        "12,50 € à 17:30, 80%",
        "douze euros cinquante à dix-sept heures trente, quatre-vingts pour cent",
    ),
    (
        "spanish",
        "El 3/5/2024, 12,50 €, 1.000 km",
        "tres de mayo de dos mil veinticuatro, doce euros con cincuenta, mil kilómetros",
    ),
    ("italian", "1 km e 25% alle 17:30", "uno chilometro e venticinque per cento alle diciassette e trenta"),
    ("portuguese", "25% de 1.000 km", "vinte e cinco por cento de mil quilômetros"),
    ("russian", "22% и 5 €, 12,50 ₽", "двадцать два процента и пять евро, двенадцать рублей пятьдесят"),
    ("japanese", "17:30に12.5%、1,234人", "十七時三十分に十二点五パーセント、千二百三十四人"),
    ("korean", "12.5%, $5", "십이 점 오 퍼센트, 오 달러"),
]


@pytest.mark.parametrize(("language", "text", "expected"), READ)
def test_is_read_aloud(language, text, expected):
    assert expected in normalize(text, language)


def test_language_is_detected_when_none_is_named():
    assert normalize("Das kostet nicht mehr als 5 €.") == "Das kostet nicht mehr als fünf Euro."
    assert normalize("价格是5元") == "价格是五元"
    assert normalize("12 34") == "12 34"  # nothing to judge by


def test_marks_pass_untouched():
    marks = "[pause:1.5s] [5 gum](/faɪv 5/) <strong>x</strong> <|5|> [breath]"
    for language in ("english", "chinese", "german"):
        assert normalize(f"{marks} 7", language).startswith(marks)


def test_glossary_comes_first():
    assert normalize("GPT-5 rocks", "english", glossary={"GPT-5": "G P T five"}) == "G P T five rocks"


def test_text_without_numbers_is_unchanged():
    text = "Nothing  to read\n\nhere, “really” — no."
    assert normalize(text, "english") == text
    assert normalize("x 5", "klingon") == "x 5"


def test_inaudible_characters_are_left_out():
    assert normalize("a\x00b\ud800c\u200bd\u202ee\n", "english") == "abcde\n"


@pytest.mark.parametrize("language", ["english", "chinese", "german", "japanese"])
def test_long_digit_runs_are_spelled_digit_by_digit(language):
    zero_words = {"english": "zero", "chinese": "零", "german": "null", "japanese": "零"}
    read = normalize("0" * 5000, language)
    assert read.count(zero_words[language]) == 5000
    assert not any(character.isdigit() and character.isascii() for character in read)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["english", "chinese", "german", "japanese", "auto"])
@pytest.mark.parametrize(
    "unit", ["1 ", "1.", "$1 ", "a1", "& ", "1/", "[", "\n1", "1,000 ", "€", "3. Mai ", "1990s "]
)
def test_a_hundred_kilobytes_are_bounded(language, unit):
    start = time.perf_counter()
    normalize((unit * 100_000)[:100_000], language)
    assert time.perf_counter() - start < 20.0  # measured: at most 5


@pytest.mark.parametrize("language", ["english", "chinese", "russian"])
def test_a_hundred_kilobytes_of_digits_take_no_time(language):
    normalize("1", language)  # loads the grammar
    start = time.perf_counter()
    normalize("7" * 100_000, language)
    assert time.perf_counter() - start < 2.0  # measured: under 0.2


def test_beyond_the_grammars_budget_a_warning_says_so(caplog, monkeypatch):
    monkeypatch.setattr("sonant.text.normalize.MOST_FOR_GRAMMAR", 10)
    with caplog.at_level(logging.WARNING):
        read = normalize("\n".join(["12 apples"] * 20), "english")
    assert "simpler rules" in caplog.text
    assert read == "\n".join(["twelve apples"] * 20)
