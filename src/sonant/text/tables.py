"""A language's words for units, money, signs, months and abbreviations, from `tables/*.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files

import regex

Forms = tuple[str, ...]
"""One form, or one and many, or the three Russian ones (1, 2-4, 5 and more)."""


@dataclass(frozen=True)
class Noun:
    """A thing that is counted: its forms, and its gender where the language's numbers agree with it."""

    forms: Forms
    gender: str = "m"


@dataclass(frozen=True, kw_only=True)
class Table:
    """How one language reads what is not written as words. Source: `tables/LANGUAGE.toml`."""

    code: str
    """Of num2words."""
    decimal: str
    """What stands before the fraction: "." or ","."""
    point: str
    minus: str
    to: str
    """Between the ends of a range."""
    per: str
    square: str
    cubic: str
    power: str
    times: str
    and_a_half: str
    over: str
    day_first: bool
    clock: str
    full_hour: str
    hour_gender: str = "m"
    date: str
    day_month: str
    money: str
    months: list[str]
    days: Mapping[str, str] = field(default_factory=dict)
    """Shortened names of days in full."""
    decades: list[str] = field(default_factory=list)
    month_short: Mapping[str, int] = field(default_factory=dict)
    ordinal_marks: str = ""
    year_before: str = ""
    """Words after which four digits are a year, separated by bars."""
    address: Mapping[str, str] = field(default_factory=dict)
    magnitudes: Mapping[str, str] = field(default_factory=dict)
    currencies: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    signs: Mapping[str, str] = field(default_factory=dict)
    abbreviations: Mapping[str, str] = field(default_factory=dict)
    before_number: Mapping[str, str] = field(default_factory=dict)
    denominators: Mapping[str, str] = field(default_factory=dict)
    agreement: Mapping[str, list[list[str]]] = field(default_factory=dict)
    """By gender: what the end of a number word becomes before a noun."""
    fraction_as_number: bool = False
    """3,14 as "three point fourteen" against "three point one four"."""
    letters: Mapping[str, str] = field(default_factory=dict)

    def noun(self, entry: str) -> Noun:
        """A counted thing as the tables write it: "one/many", with "f:" or "n:" before other genders."""
        gender, _, forms = entry.rpartition(":")
        return Noun(tuple(form.strip() for form in forms.split("/")), gender.strip() or "m")

    def money_nouns(self, sign: str) -> tuple[Noun, Noun | None]:
        """The unit of a currency, and its hundredth where it has one."""
        unit, _, part = self.currencies[sign].partition(";")
        return self.noun(unit), self.noun(part) if part.strip() else None


@lru_cache(maxsize=16)
def table(language: str) -> Table:
    """The table of a language by its name, such as "german"."""
    text = files("sonant.text").joinpath("tables", f"{language}.toml").read_text(encoding="utf-8")
    return Table(**tomllib.loads(text))


def alternatives(words: Iterable[str]) -> str:
    """A pattern for any of the words, the longest first."""
    return "|".join(regex.escape(word, special_only=True) for word in sorted(words, key=len, reverse=True))
