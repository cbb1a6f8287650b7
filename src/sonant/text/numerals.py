"""Number words: of num2words where it has the language, and of a few lines here for Chinese."""

from __future__ import annotations

from functools import lru_cache

LONGEST_NUMBER = 15  # digits; longer ones are read digit by digit, as are those with a leading zero

CHINESE_DIGITS = "零一二三四五六七八九"
_CHINESE_PLACES = ("", "十", "百", "千")
_CHINESE_GROUPS = ("", "万", "亿", "万亿")


@lru_cache(maxsize=4096)
def cardinal(code: str, number: int) -> str:
    """A whole number in words."""
    from num2words import num2words

    return str(num2words(number, lang=code)).replace(",", "")


@lru_cache(maxsize=1024)
def ordinal(code: str, number: int) -> str:
    """A whole number as a place in an order."""
    from num2words import num2words

    return str(num2words(number, lang=code, to="ordinal")).replace(",", "")


@lru_cache(maxsize=1024)
def year(code: str, number: int) -> str:
    """A year: in pairs where the language reads it so."""
    from num2words import num2words

    if code not in ("en", "de"):
        return cardinal(code, number)
    if code == "en" and 2000 <= number <= 2009:
        return cardinal(code, number)
    return str(num2words(number, lang=code, to="year")).replace(",", "")


def digits_one_by_one(code: str, digits: str, gap: str = " ") -> str:
    """Each digit by itself."""
    return gap.join(cardinal(code, int(digit)) for digit in digits)


def chinese(digits: str) -> str:
    """A whole number in Chinese, up to sixteen digits; longer ones, or with leading zeros, digit by digit."""
    if len(digits) > 16 or (len(digits) > 1 and digits[0] == "0"):
        return chinese_digits(digits)
    if not int(digits):
        return "零"
    groups = []
    while digits:
        digits, group = digits[:-4], digits[-4:]
        groups.append(group)
    words = ""
    needs_zero = False
    for place in range(len(groups) - 1, -1, -1):
        group = groups[place]
        if not int(group):
            needs_zero = bool(words)
            continue
        if words and (needs_zero or group.startswith("0")):
            words += "零"
        needs_zero = False
        words += _chinese_group(group, leads=not words) + _CHINESE_GROUPS[place]
    return words.replace("万亿亿", "万亿")


def _chinese_group(group: str, leads: bool) -> str:
    words = ""
    zero = False
    for index, digit in enumerate(group.lstrip("0")):
        place = len(group.lstrip("0")) - 1 - index
        if digit == "0":
            zero = True
            continue
        if zero and words:
            words += "零"
        zero = False
        if digit == "1" and place == 1 and not words and leads:
            words += "十"
        else:
            words += CHINESE_DIGITS[int(digit)] + _CHINESE_PLACES[place]
    return words


def chinese_digits(digits: str, *, one: str = "一") -> str:
    """Each digit by itself; `one` is 幺 in telephone numbers."""
    return "".join(one if digit == "1" else CHINESE_DIGITS[int(digit)] for digit in digits)


_ROMAN = {"M": 1000, "D": 500, "C": 100, "L": 50, "X": 10, "V": 5, "I": 1}


def roman(letters: str) -> int | None:
    """The number that Roman numerals write, None where they write none in the regular way."""
    values = [_ROMAN.get(letter, 0) for letter in letters.upper()]
    if not values or 0 in values:
        return None
    total = sum(
        -value if index + 1 < len(values) and values[index + 1] > value else value
        for index, value in enumerate(values)
    )
    return total if _roman_letters(total) == letters.upper() else None


def _roman_letters(number: int) -> str:
    table = (
        (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"),
        (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
    )  # fmt: skip
    written = ""
    for value, letters in table:
        count, number = divmod(number, value)
        written += letters * count
    return written
