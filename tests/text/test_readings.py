"""The front end on the table of readings, on prose of books, and on forms beside those of the table."""

import pytest

from benchmarks.text_score import FILES, load, score
from sonant.text.front_end import spoken_text


def read(text, language):
    return spoken_text(text, None if language == "auto" else language)


@pytest.mark.parametrize("name", FILES)
def test_the_table_is_read_right(name):
    results = score(read, load([name]))
    assert [(entry.text, reading) for entry, reading, right in results if not right] == []


def test_prose_is_unchanged_but_for_its_numbers():
    """20 paragraphs of books in the public domain; the table has the words of their numbers and titles."""
    results = score(read, load(["prose"]))
    assert len(results) == 20
    assert [(entry.text, reading) for entry, reading, right in results if not right] == []


@pytest.mark.parametrize(
    ("language", "text", "spoken"),
    [
        ("japanese", "2020年、2人、100円、5〜6人", "二千二十年、二人、百円、五から六人"),
        ("japanese", "AM9:00", "午前九時"),
        ("chinese", "5km/h，10m/s", "五公里每小时，十米每秒"),
        ("chinese", "3<5，a≥b", "三小于五，a大于等于b"),
        ("chinese", "She has 3 cats.", "She has three cats."),
        ("english", "他有3个", "他有三个"),
        (None, "Bank of China 3号店", "Bank of China 三号店"),
        (None, "Heute ist der 3. Mai. Today is May 3.", "Heute ist der dritte Mai. Today is May third."),
        (
            None,
            "Dr. Weber kommt am 3. Mai. Er hat 2 Hunde.",
            "Doktor Weber kommt am dritten Mai. Er hat zwei Hunde.",
        ),
        (
            None,
            "On Jan. 5 it cost $3.50. 他有2个苹果。",
            "On January fifth it cost three dollars and fifty cents. 他有两个苹果。",
        ),
        (None, "The score was 5. No one had 6.", "The score was five. No one had six."),
    ],
)
def test_a_named_language_wins_wherever_it_has_the_writing(language, text, spoken):
    assert spoken_text(text, language) == spoken


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("a 60W bulb, the €50 note, a £1.5m deal",
         "a sixty watt bulb, the fifty euro note, a one point five million pound deal"),
        ("The 5 km we ran.", "The five kilometers we ran."),
        ("The 5 km took an hour.", "The five kilometers took an hour."),
        ("The 3 min passed.", "The three minutes passed."),
        ("The $20 was mine.", "The twenty dollars was mine."),
        ("Boeing 737 and A320", "Boeing seven thirty-seven and A three twenty"),
        ("Room 204, Room 300", "Room two oh four, Room three hundred"),
        ("100 000 or 1'000", "one hundred thousand or one thousand"),
        ("€5,50", "five euros and fifty cents"),
        ("3/4 + 1/2", "three quarters plus one half"),
        ("10 / 2 = 5", "ten divided by two equals five"),
        ("2x + 1", "two x plus one"),
        ("3.0e8", "three point zero times ten to the power of eight"),
        ("50-50", "fifty-fifty"),
        ("Psalm 23:4", "Psalm twenty-three four"),
        ("Mon-Fri 9am-5pm", "Monday to Friday nine AM to five PM"),
        ("He sat. Sun came.", "He sat. Sun came."),
        ("1h 30m", "one hour thirty minutes"),
        ("25m x 10m", "twenty-five meters by ten meters"),
        ("7 days/week", "seven days per week"),
        ("Part I is short.", "Part one is short."),
        ("When in Part I was sad.", "When in Part I was sad."),
        ("max. 5, min. 3", "maximum five, minimum three"),
        ("(020) 7946 0018", "zero two zero, seven nine four six, zero zero one eight"),
        ("yes/no", "yes or no"),
        ("1 1/2 tsp. salt", "one and a half teaspoons salt"),
        ("Boston, MA 02108", "Boston, MA zero two one zero eight"),
        ("US-101, U-235, 221B", "US one oh one, U two thirty five, two twenty one B"),
        ("the 2008-09 crisis", "the two thousand and eight to oh nine crisis"),
        ("Vols. I-III, World Wars I and II", "volumes one to three, World Wars one and two"),
        ("Pope Francis I, Louis the XIV", "Pope Francis the first, Louis the fourteenth"),
        ("See /home/user/docs.", "See slash home slash user slash docs."),
        ("55 m.p.h. is fine", "fifty-five miles per hour is fine"),
        ("98.6 degrees F", "ninety-eight point six degrees Fahrenheit"),
        ("a 12V battery, 16 GB card", "a twelve volt battery, sixteen gigabyte card"),
        ("£10k-£15k", "ten to fifteen thousand pounds"),
        ('a 1/4" nail, 7 1/2" wide', "a one quarter inch nail, seven and a half inches wide"),
        ('"He ate 1/2" she said.', '"He ate one half" she said.'),
        ("Dial *67, press #.", "Dial star sixty-seven, press hash."),
        ("x <= 5", "x is less than or equal to five"),
    ],
)  # fmt: skip
def test_english_forms(text, spoken):
    assert spoken_text(text, "english") == spoken


@pytest.mark.parametrize(
    ("language", "text", "spoken"),
    [
        ("chinese", "v2.3.1", "v二点三点一"),
        ("chinese", "第3.2节", "第三点二节"),
        ("chinese", "1998级", "一九九八级"),
        ("chinese", "3'20\"", "三分二十秒"),
        ("chinese", "II型糖尿病", "二型糖尿病"),
        ("chinese", "请打120。打120分。", "请打幺二零。打一百二十分。"),
        ("chinese", "10月1日-7日放假，结果是-7，明天-5℃", "十月一日到七日放假，结果是负七，明天零下五摄氏度"),
        ("chinese", "5A级景区，电流5A。", "五A级景区，电流五安。"),
        ("chinese", "成绩5-3，2021/22赛季", "成绩五比三，二零二一到二二赛季"),
        ("chinese", "3·15晚会，618大促", "三一五晚会，六一八大促"),
        ("chinese", "明天3pm，7:30 PM见", "明天下午三点，晚上七点三十分见"),
        ("german", "am Dienstag, dem 12. März", "am Dienstag, dem zwölften März"),
        ("german", "am Montag, den 3. Mai", "am Montag, den dritten Mai"),
        ("german", "am Montag, 3. Mai", "am Montag, dritten Mai"),
        ("japanese", "試合は2-1で終わった", "試合は二対一で終わった"),
        ("german", "St. Pauli", "Sankt Pauli"),
        ("german", "1. FC Köln", "erster FC Köln"),
        ("german", "Mo.-Fr.", "Montag bis Freitag."),
        ("german", "Elisabeth II. lebte", "Elisabeth die Zweite lebte"),
        ("german", "10 x 5 m", "zehn mal fünf Meter"),
        ("french", "XIXe siècle", "dix-neuvième siècle"),
        ("french", "Napoléon Ier", "Napoléon premier"),
        ("french", "24h/24 et 7j/7", "vingt-quatre heures sur vingt-quatre et sept jours sur sept"),
        ("french", "10 x 5 m", "dix sur cinq mètres"),
        ("spanish", "31 mujeres, 200 mujeres", "treinta y una mujeres, doscientas mujeres"),
        ("spanish", "300 problemas, 21 días", "trescientos problemas, veintiún días"),
        ("spanish", "lun.-vie.", "lunes a viernes."),
    ],
)
def test_forms_of_other_languages(language, text, spoken):
    assert spoken_text(text, language) == spoken


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("| a | b |\n|---|:-:|\n| 1 | 2 |", "a, b.\none, two"),
        ("<details><summary>Sum</summary>Text</details>", "Sum.\nText"),
        ("We know a<b and c>d here.", "We know a is less than b and c is greater than d here."),
        ('<a href="/x">Home</a> <b class=x>now</b> <i>here</i>', "Home now here"),
        ("\x1b[1;31mError\x1b[0m in 2 files", "Error in two files"),
        (
            "A line that was wrapped at some seventy characters, with one Mr.\nSmith in it.",
            "A line that was wrapped at some seventy characters, with one Mister Smith in it.",
        ),
        ("pages 10--20", "pages ten to twenty"),
    ],
)
def test_marks_and_lines(text, spoken):
    assert spoken_text(text, "english") == spoken
