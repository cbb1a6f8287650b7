"""How Japanese reads numbers, dates, times, money, units and signs: in kanji, which every model reads by itself."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib.resources import files

import regex

from sonant.text.numerals import CHINESE_DIGITS, LONGEST_NUMBER, cardinal, roman
from sonant.text.rules import Match, Read, Rule, Rules
from sonant.text.tables import alternatives
from sonant.text.western import DOMAINS, SUBSCRIPT, SUPERSCRIPT

_N = r"(?:\d{1,3}(?:,\d{3})++(?![\d])(?:\.\d{1,15}+)?|\d{1,40}+(?:\.\d{1,15}+(?!\.?\d))?)"
_DASH = r"\s?[-–—~～〜−]\s?"
_MINUS = r"(?P<sign>(?<![A-Za-z\p{N}.,)\]）%℃])[-−－](?=[\d$￥¥€£]))"
_TABLE = tomllib.loads(files("sonant.text").joinpath("tables", "japanese.toml").read_text(encoding="utf-8"))
_UNITS: dict[str, str] = _TABLE["units"]
_MONEY: dict[str, str] = _TABLE["currencies"]
_SIGNS: dict[str, str] = _TABLE["signs"]
_ADDRESS: dict[str, str] = _TABLE["address"]
_FRACTIONS: dict[str, str] = _TABLE["fractions"]


def digits(written: str) -> str:
    """Each digit by itself."""
    return "".join(CHINESE_DIGITS[int(digit)] for digit in regex.findall(r"\d", written))


def say(written: str) -> str:
    """A number as it is written, in kanji."""
    whole, _, fraction = written.partition(".")
    whole = regex.sub(r"[^0-9]", "", whole) or "0"
    if len(whole) > LONGEST_NUMBER or (len(whole) > 1 and whole[0] == "0"):
        said = digits(whole)
    else:
        said = cardinal("ja", int(whole)) if int(whole) else "零"
    return f"{said}点{digits(fraction)}" if fraction else said


def _signed(hit: Match, said: str) -> str:
    return f"マイナス{said}" if hit.groupdict().get("sign") else said


def _unit(symbol: str) -> str | None:
    symbol = symbol.strip()
    if symbol in _UNITS:
        return _UNITS[symbol]
    if "/" in symbol:
        above, _, below = symbol.partition("/")
        up, down = _unit(above), _unit(below)
        per = {"時間": "毎時", "秒": "毎秒", "分": "毎分"}.get(down or "")
        return f"{per}{up}" if up and per and "メートル" in up else up and down and f"{up}毎{down}"
    power = regex.match(r"(.+?)([²³23])$", symbol)
    base = _unit(power[1]) if power else None
    return ("平方" if power[2] in "²2" else "立方") + base if power and base else None


def _with_unit(hit: Match) -> str | None:
    unit = _unit(hit["unit"])
    if unit is None:
        return None
    upper = f"から{say(hit['n2'])}" if hit["n2"] else ""
    number = say(hit["n"]) + upper + (hit["big"] or "")
    if unit.startswith("毎"):
        return _signed(hit, f"{unit[:2]}{number}{unit[2:]}")
    if unit == "華氏":
        return f"華氏{_signed(hit, number)}度"
    return _signed(hit, number + unit)


def _money(hit: Match) -> str:
    upper = f"から{say(hit['n2'])}" if hit.groupdict().get("n2") else ""
    return _signed(hit, f"{say(hit['n'])}{upper}{hit['big'] or ''}{_MONEY[hit['c']]}")


def _date(hit: Match) -> str | None:
    month, day = int(hit["m"]), int(hit["d"])
    return f"{say(hit['y'])}年{say(str(month))}月{say(str(day))}日"


def _time(hit: Match) -> str | None:
    hour, minute, second = int(hit["h"]), int(hit["m"]), hit["s"]
    said = f"{say(str(hour))}時"
    if minute or second:
        said += f"{say(str(minute))}分"
    if second:
        said += f"{say(str(int(second)))}秒"
    return said


_CLOCK = regex.compile(r"(?P<h>[01]?\d|2[0-4])[:：](?P<m>[0-5]\d)(?P<s>)")


def _times(hit: Match) -> str | None:
    said = [_time(match) for match in _CLOCK.finditer(hit[0])]
    return "から".join(part for part in said if part) if len(said) == 2 else None


def _address(hit: Match) -> str:
    written = regex.sub(r"^(?:https?|ftp)://", "", hit[0]).rstrip("/")
    pieces = regex.findall(r"[A-Za-z]+|\d+|.", written)
    return " ".join(digits(piece) if piece.isdigit() else _ADDRESS.get(piece, piece) for piece in pieces)


def _phone(hit: Match) -> str:
    plus = "プラス" if hit[0].startswith("+") else ""
    return plus + "、".join(digits(run) for run in regex.findall(r"\d+", hit[0]))


def _word_with_digits(hit: Match) -> str:
    out = ""
    for piece in regex.findall(r"[A-Za-z]+|\d+(?:\.\d+)?|[^A-Za-z\d]+", hit[0]):
        out += say(piece) if piece[0].isdigit() else piece if piece.isalpha() else ""
    return out


def _power(hit: Match) -> str | None:
    exponent = (hit["e"] or hit["e2"].translate(SUPERSCRIPT)).replace("−", "-")
    if exponent in ("+", "-"):
        return "プラス" if exponent == "+" else "マイナス"
    if exponent[-1] in "+-":
        return say(exponent[:-1]) + ("プラス" if exponent[-1] == "+" else "マイナス")
    sign = "マイナス" if exponent.startswith("-") else ""
    number = exponent.lstrip("-")
    return f"の{sign}{say(number) if number.isdigit() else number}乗"


def _sign(hit: Match) -> str | None:
    text, start, end = hit.string, hit.start(), hit.end()
    before, after = text[max(0, start - 2) : start].strip(), text[end : end + 2].strip()
    if (
        hit[0] in "<>=^#+"
        and not (before[-1:].isalnum() and after[:1].isalnum())
        and not (hit[0] in "#+" and after[:1].isalnum())
    ):
        return None
    return _SIGNS.get(hit[0])


def _roman(hit: Match) -> str | None:
    value = roman(hit["r"])
    return say(str(value)) if value else None


@lru_cache(maxsize=1)
def rules() -> Rules:
    """The rules of Japanese, in their order."""

    def rule(name: str, starts: str, pattern: str, read: Read) -> Rule:
        return Rule(name, pattern, read, starts)

    unit = alternatives(_UNITS)
    small = alternatives(set(_UNITS) - {"A", "V", "W", "N", "J", "t", "s", "h"})
    signs = alternatives([c for c in _MONEY if not c[-1].isalpha()])
    codes = alternatives([c for c in _MONEY if c[-1].isascii() and c[-1].isalpha()])
    big = r"(?P<big>[十百千]?[万億兆]|千)?"
    end = r"(?![A-Za-z\d])"
    return Rules(
        [
            rule(
                "e-mail address",
                "ld",
                r"[A-Za-z0-9._%+\-]{1,64}+@[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63}){1,4}+",
                _address,
            ),
            rule(
                "web address",
                "l",
                r"(?:https?://|ftp://|www\.)[A-Za-z0-9/._~:?#@!$&*+=%\-]{1,240}(?<![.,;:!?)\]])",
                _address,
            ),
            rule(
                "web address",
                "ld",
                rf"[A-Za-z0-9\-]{{1,63}}(?:\.[A-Za-z0-9\-]{{1,63}}){{0,4}}?\.(?:{DOMAINS})(?:/[A-Za-z0-9/._~?#=&%\-]{{0,200}}(?<![.,;:!?)])|(?![A-Za-z\d]))",
                _address,
            ),
            rule(
                "date",
                "d",
                r"(?P<y>[12]\d{3})([-/.])(?P<m>0?[1-9]|1[0-2])\2(?P<d>0?[1-9]|[12]\d|3[01])(?!\d|[-/.]\d)",
                _date,
            ),
            rule(
                "time",
                "l",
                r"(?P<half>[AaPp])\.?[Mm]\.?\s?(?P<h>[01]?\d|2[0-4])[:：](?P<m>[0-5]\d)(?P<s>)(?![:：\d.])",
                lambda hit: f"{'午前' if hit['half'] in 'Aa' else '午後'}{_time(hit)}",
            ),
            rule(
                "time", "d", rf"(?:[01]?\d|2[0-4]):[0-5]\d{_DASH}(?:[01]?\d|2[0-4]):[0-5]\d(?![:\d])", _times
            ),
            rule(
                "time",
                "d",
                r"(?P<h>[01]?\d|2[0-4])[:：](?P<m>[0-5]\d)(?:[:：](?P<s>[0-5]\d))?(?![:：\d.])",
                _time,
            ),
            rule(
                "telephone number",
                "ds",
                r"(?:\+\d{1,3}[- ]\d{1,4}|0\d{1,4})[- ]\d{1,4}[- ]\d{3,4}(?!\d)|(?<=〒)\d{3}-\d{4}",
                _phone,
            ),
            rule(
                "telephone number",
                "d",
                r"(?<!\d)(?:110|119|117|104)番",
                lambda hit: {"110番": "百十番", "119番": "百十九番"}.get(hit[0], say(hit[0][:3]) + "番"),
            ),
            rule(
                "version",
                "d",
                r"\d{1,4}(?:\.\d{1,4}){2,5}+",
                lambda hit: "点".join(say(group) for group in hit[0].split(".")),
            ),
            rule(
                "amount of money",
                "sl",
                rf"{_MINUS}?(?P<c>{signs}|(?:{codes})(?=\s?\d))\s?(?P<n>{_N})(?:{_DASH}(?P<n2>{_N}))?{big}(?:(?<=\d|[万億兆])円)?",
                _money,
            ),
            rule(
                "amount of money",
                "sd",
                rf"{_MINUS}?(?P<n>{_N})\s?{big}(?P<c>{signs}|(?:{codes}){end})",
                _money,
            ),
            rule(
                "number with a unit",
                "sd",
                rf"{_MINUS}?(?P<n>{_N})(?:[%％]?{_DASH}(?P<n2>{_N}))?\s?{big}\s?(?P<unit>(?:{small})[²³]?(?:/(?:{unit})[²³]?)?{end}|(?:km|m|cm|mm)[²³23]|(?<=\d)(?:A|V|W|N|J|s|h|t)(?:/(?:{unit}))?{end})",
                _with_unit,
            ),
            rule(
                "fraction",
                "d",
                rf"(?P<w>\d{{1,3}})?(?P<f>[{''.join(_FRACTIONS)}])",
                lambda hit: f"{say(hit['w'])}と{_FRACTIONS[hit['f']]}",
            ),
            rule("fraction", "s", rf"[{''.join(_FRACTIONS)}]", lambda hit: _FRACTIONS[hit[0]]),
            rule(
                "date",
                "d",
                r"(?<![\d/.])(?P<m>[1-9]|1[0-2])/(?P<d>[1-9]|[12]\d|3[01])(?=[(（](?:[月火水木金土日])|[にはまか]|より)(?![\d/])",
                lambda hit: f"{say(hit['m'])}月{say(hit['d'])}日",
            ),
            rule(
                "fraction",
                "d",
                r"(?<![\d/.])(?P<a>\d{1,4})/(?P<b>\d{1,4})(?![\d/])",
                lambda hit: f"{say(hit['b'])}分の{say(hit['a'])}",
            ),
            rule(
                "ratio",
                "d",
                rf"(?<![\d:])(?P<n>{_N})[:：対](?P<n2>{_N})(?![\d:])",
                lambda hit: f"{say(hit['n'])}対{say(hit['n2'])}",
            ),
            rule(
                "score",
                "d",
                r"(?<!\d)(?P<n>\d{1,2})[-–](?P<n2>\d{1,2})(?=で(?:勝|負|敗|引|終)|の(?:勝|敗|引き分け|スコア))",
                lambda hit: f"{say(hit['n'])}対{say(hit['n2'])}",
            ),
            rule(
                "scientific",
                "d",
                rf"(?P<n>{_N})\s?[×x*]\s?10(?:\^|(?=[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]))(?P<e>[-−]?\d{{1,3}}|[⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{{1,3}})",
                lambda hit: f"{say(hit['n'])}かける十の{_exponent(hit['e'])}乗",
            ),
            rule(
                "operator",
                "d",
                r"(?P<a>\d{1,9})\s?[-−]\s?(?P<b>\d{1,9})(?=\s?[=＝])",
                lambda hit: f"{say(hit['a'])}引く{say(hit['b'])}",
            ),
            rule("operator", "s", r"(?<=\d)\s?[+＋]\s?(?=\d)", lambda hit: "足す"),
            rule("operator", "s", r"(?<=\d)\s?[=＝]\s?(?=\d)", lambda hit: "は"),
            rule(
                "address number",
                "d",
                r"(?P<a>\d{1,4})-(?P<b>\d{1,4})-(?P<c>\d{1,4})(?![\d-])",
                lambda hit: f"{say(hit['a'])}の{say(hit['b'])}の{say(hit['c'])}",
            ),
            rule(
                "range",
                "d",
                rf"(?<![\d.\-])(?P<n>{_N})(?P<w>年|月|日|時|分|人|個|歳|章|ページ|円|回)?{_DASH}(?P<n2>{_N})(?!\d|[-–]\d)",
                lambda hit: f"{say(hit['n'])}{hit['w'] or ''}から{say(hit['n2'])}",
            ),
            rule(
                "word with digits",
                "l",
                r"(?=[A-Za-z\-]{1,30}\d)[A-Za-z]{1,20}(?:-?(?:\d{1,8}(?:\.\d{1,3})?|[A-Za-z]{1,20})){1,12}+",
                _word_with_digits,
            ),
            rule(
                "word with digits",
                "d",
                r"\d{1,5}(?:-?[A-Za-z]{1,20}\d{0,5}){1,6}+(?![A-Za-z\d])",
                _word_with_digits,
            ),
            rule("number", "sd", rf"{_MINUS}?(?P<n>{_N})", lambda hit: _signed(hit, say(hit["n"]))),
            rule(
                "power", "sd", r"\^\{?(?P<e>[-−]?\d{1,3}|[A-Za-z])\}?|(?P<e2>[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]{1,4}+)", _power
            ),
            rule("index", "sd", r"[₀₁₂₃₄₅₆₇₈₉]{1,4}+", lambda hit: say(hit[0].translate(SUBSCRIPT))),
            rule("number sign", "ls", r"(?:No|NO|no)\.\s?(?=\d)|№\s?|#(?=\d)", lambda hit: "ナンバー"),
            rule("about", "s", r"(?<![\p{N}\p{Han}\p{Katakana}])[~～〜≈](?=\d)", lambda hit: "約"),
            rule(
                "range",
                "s",
                r"(?<=[年月日時分人個円%度\p{N}\p{Han}])\s?[~〜～]\s?(?=[\d\p{Han}])",
                lambda hit: "から",
            ),
            rule("roman number", "l", r"(?P<r>[IVX]{2,5})(?=世|級|期|型|類)", _roman),
            rule("roman number", "s", r"[ⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩ]", lambda hit: say(str("ⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩ".index(hit[0]) + 1))),
            rule("sign", "s", rf"(?:{alternatives(_SIGNS)})", _sign),
        ],
        gap="",
    )


def _exponent(written: str) -> str:
    number = written.translate(SUPERSCRIPT).replace("−", "-")
    return ("マイナス" if number.startswith("-") else "") + say(number.lstrip("-"))
