"""Numbers, dates, times, money, units and signs as words, by one small table for each language.

The numerals themselves come from the package num2words; this file knows how they stand in a sentence.
Used for every language but Chinese and English, which have full grammars (see normalize), and for English
where its grammar gives up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import regex

LONGEST_NUMBER = 15  # digits; longer ones are read digit by digit, as are those with a leading zero
LONGEST_TOKEN = 40  # characters of digits and separators read as one expression

Forms = tuple[str, ...]
"""One form, or singular and plural, or the three Russian ones (1, 2-4, 5 and more)."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How one language reads numbers aloud."""

    code: str
    """Of num2words."""
    point: str
    comma_decimal: bool
    """3,14 and 1.000 as in most of Europe, against 3.14 and 1,000."""
    fraction_as_number: bool = False
    """3,14 as "three point fourteen" against "three point one four"."""
    minus: str
    to: str
    """Between the ends of a range, 3-5."""
    months: Forms
    date: str
    time: str
    hour: str
    """A full hour."""
    cents: str = "{whole} {currency} {cents}"
    """Money with cents; empty reads the decimal number."""
    currencies: Mapping[str, Forms]
    units: Mapping[str, Forms]
    signs: Mapping[str, str]
    gap: str = " "
    """Between words; empty in Japanese."""
    ordinal: str = ""
    """Pattern of what marks an ordinal after its digits."""
    spaced_groups: bool = False
    """1 000 000 with blanks."""
    names: Mapping[str, str] = field(default_factory=dict)


def read_numbers(text: str, language: str) -> str:
    """`text` with its numbers and signs in words; takes time in proportion to its length."""
    reading = READINGS[language]
    if reading.spaced_groups:
        text = _SPACED_GROUP.sub(lambda hit: regex.sub(r"\s", "", hit[0]), text)
    if language == "german":
        text = _GERMAN_DAY.sub(_german_day, text)
        text = _GERMAN_CLOCK.sub(r"\1", text)
    text = _EXPRESSION.sub(lambda hit: _expression(hit, reading), text)
    return _SIGN.sub(lambda hit: _sign(hit, reading), text)


def spell_digits(digits: str, language: str) -> str:
    """Digits one by one."""
    reading = READINGS[language]
    return reading.gap.join(_words(reading.code, int(digit)) for digit in digits)


_SPACED_GROUP = regex.compile(r"(?<![\p{Nd}.,])[0-9]{1,3}(?:[ \u00a0\u202f][0-9]{3})++(?![\p{Nd}])")
_CURRENCY = r"[$€£¥₩₽]|EUR\b|USD\b|GBP\b"
_UNIT = (
    r"km/h|km|cm|mm|m|kg|mg|g|ml|l|kHz|Hz|GB|MB|kW|W|°C|°F|°|%|‰"
    r"|(?:er|re|e|ème|eme|º|ª|st|nd|rd|th)"
)
_EXPRESSION = regex.compile(
    rf"(?P<currency>[$€£¥₩₽]\s?)?(?P<sign>(?<![\p{{L}}\p{{N}}.,)])[-−–])?"
    r"(?<![0-9])(?P<number>[0-9]++(?:[.,:/\-–][0-9]++)*+)"
    rf"(?:[ \u00a0\u202f]?(?P<money>{_CURRENCY})|[ \u00a0\u202f]?(?P<unit>{_UNIT})(?![\p{{L}}\p{{N}}]))?"
)
_SIGN = regex.compile(r"[&@%‰=×÷±°€$£]|(?<=[\p{L}\p{N}]\s?)\+(?=\s?[\p{L}\p{N}])|#(?=\p{N})")
_GROUPED = {
    True: regex.compile(r"[0-9]{1,3}(?:\.[0-9]{3})++"),
    False: regex.compile(r"[0-9]{1,3}(?:,[0-9]{3})++"),
}
_ISO_DATE = regex.compile(r"([12][0-9]{3})-(0?[1-9]|1[0-2])-(0?[1-9]|[12][0-9]|3[01])")
_DATE = regex.compile(r"(0?[1-9]|[12][0-9]|3[01])([./])(0?[1-9]|1[0-2])\2([12][0-9]{3})")
_TIME = regex.compile(r"([01]?[0-9]|2[0-4]):([0-5][0-9])")
_RANGE = regex.compile(r"([0-9]{1,4})[-–]([0-9]{1,4})")
_GERMAN_MONTH = "Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember"
_GERMAN_DAY = regex.compile(
    rf"(?P<before>\b(?:[Aa]m|[Vv]om|[Zz]um|[Dd]em|[Dd]en|[Bb]is|[Ii]m)\s)?"
    rf"(?<![0-9.,])(?P<day>[0-9]{{1,2}})\.(?=\s(?:{_GERMAN_MONTH}|Jahrhundert))"
)
_GERMAN_CLOCK = regex.compile(r"\b([0-2]?[0-9]:[0-5][0-9])\s{1,3}Uhr\b")  # the reading says "Uhr" itself


@lru_cache(maxsize=4096)
def _words(code: str, number: int, ordinal: bool = False) -> str:
    from num2words import num2words

    return num2words(number, lang=code, to="ordinal" if ordinal else "cardinal").replace(",", "")


def _whole(digits: str, reading: Reading) -> str:
    if len(digits) > LONGEST_NUMBER or (len(digits) > 1 and digits[0] == "0"):
        return reading.gap.join(_words(reading.code, int(digit)) for digit in digits)
    return _words(reading.code, int(digits))


def _expression(hit: regex.Match[str], reading: Reading) -> str:
    number, unit = hit["number"], hit["unit"]
    money = (hit["currency"] or hit["money"] or "").strip()
    if len(number) > LONGEST_TOKEN:
        return ", ".join(_whole(part, reading) for part in regex.split(r"[^0-9]+", number))
    sign = reading.minus + reading.gap if hit["sign"] else ""
    if unit and reading.ordinal and regex.fullmatch(reading.ordinal, unit) and number.isdigit():
        return sign + _words(reading.code, int(number[-LONGEST_NUMBER:]), True)
    whole, fraction = _decimal(number, reading)
    if whole is None:
        spoken = sign + _compound(number, reading)
        named = reading.currencies.get(money) or reading.units.get(unit or "")
        return spoken + (reading.gap + named[-1] if named else unit or money)
    if money and money in reading.currencies:
        return sign + _money(whole, fraction, money, reading)
    spoken = sign + _spoken_decimal(whole, fraction, reading)
    if not unit:
        return spoken
    forms = reading.units.get(unit)
    return spoken + (reading.gap + _form(forms, whole, fraction) if forms else hit[0][hit[0].rindex(unit) :])


def _decimal(number: str, reading: Reading) -> tuple[str | None, str]:
    """Whole and fractional digits of a plain number; None where it is something else."""
    separator, mark = (".", ",") if reading.comma_decimal else (",", ".")
    head, _, tail = number.partition(mark)
    if _GROUPED[reading.comma_decimal].fullmatch(head) and (not tail or tail.isdigit()):
        return head.replace(separator, ""), tail
    if head.isdigit() and (not tail or tail.isdigit()):
        return head, tail
    other_head, _, other_tail = number.partition(separator)  # the other habit: 3.14 in German
    if other_head.isdigit() and other_tail.isdigit() and len(other_tail) != 3:
        return other_head, other_tail
    return None, ""


def _spoken_decimal(whole: str, fraction: str, reading: Reading) -> str:
    spoken = _whole(whole, reading)
    if not fraction:
        return spoken
    if reading.fraction_as_number and len(fraction) <= 2 and fraction[0] != "0":
        after = _whole(fraction, reading)
    else:
        after = reading.gap.join(_words(reading.code, int(digit)) for digit in fraction)
    return reading.gap.join((spoken, reading.point, after))


def _money(whole: str, fraction: str, symbol: str, reading: Reading) -> str:
    if len(fraction) == 2 and reading.cents:
        currency = _form(reading.currencies[symbol], whole, "")
        if fraction == "00":
            return f"{_whole(whole, reading)}{reading.gap}{currency}"
        cents = _words(reading.code, int(fraction))
        return reading.cents.format(whole=_whole(whole, reading), currency=currency, cents=cents)
    currency = _form(reading.currencies[symbol], whole, fraction)
    return _spoken_decimal(whole, fraction, reading) + reading.gap + currency


def _form(forms: Forms, whole: str, fraction: str) -> str:
    if len(forms) == 1:
        return forms[0]
    if len(forms) == 2:
        return forms[0] if whole.lstrip("0") == "1" and not fraction else forms[1]
    if fraction:
        return forms[1]
    tens, ones = int(whole[-2:]), int(whole[-1])
    if 11 <= tens <= 14 or ones == 0 or ones > 4:
        return forms[2]
    return forms[0] if ones == 1 else forms[1]


def _compound(number: str, reading: Reading) -> str:
    """A date, a time, a range, or digits with separators read one after the other."""
    if found := _ISO_DATE.fullmatch(number):
        return _spoken_date(found[3], found[2], found[1], reading)
    if found := _DATE.fullmatch(number):
        return _spoken_date(found[1], found[3], found[4], reading)
    if found := _TIME.fullmatch(number):
        hour, minute = _words(reading.code, int(found[1])), int(found[2])
        if not minute:
            return reading.hour.format(hour=hour)
        return reading.time.format(hour=hour, minute=_words(reading.code, minute))
    if found := _RANGE.fullmatch(number):
        return reading.gap.join((_whole(found[1], reading), reading.to, _whole(found[2], reading)))
    parts = regex.split(r"([^0-9])", number)
    return reading.gap.join(
        _whole(part, reading) if part.isdigit() else reading.names.get(part, ",") for part in parts if part
    ).replace(" ,", ",")


def _spoken_date(day: str, month: str, year: str, reading: Reading) -> str:
    return reading.date.format(
        day=_words(reading.code, int(day)),
        ordinal=_words(reading.code, int(day), True),
        month=reading.months[int(month) - 1],
        year=_words(reading.code, int(year)),
    )


def _sign(hit: regex.Match[str], reading: Reading) -> str:
    word = reading.signs.get(hit[0])
    if word is None:
        return hit[0]
    text, start, end = hit.string, hit.start(), hit.end()
    before = reading.gap if start and not text[start - 1].isspace() else ""
    after = reading.gap if end < len(text) and not text[end].isspace() else ""
    return f"{before}{word}{after}"


def _german_day(hit: regex.Match[str]) -> str:
    ending = "n" if hit["before"] else "r"
    if not hit["before"] and hit.string[hit.end() :].lstrip().startswith("Jahrhundert"):
        ending = "s"
    return f"{hit['before'] or ''}{_words('de', int(hit['day']), True)}{ending}"


def _signs(words: str) -> dict[str, str]:
    """Words for & @ % = × ÷ ± ° + # in this order, separated by bars."""
    return dict(zip("&@%=×÷±°+#", words.split("|"), strict=True))


def _units(words: str) -> dict[str, Forms]:
    """Forms, separated by slashes, for the units of _UNIT_ORDER, separated by bars."""
    return {unit: tuple(forms.split("/")) for unit, forms in zip(_UNIT_ORDER, words.split("|"), strict=True)}


def _months(words: str) -> Forms:
    """Twelve names, separated by bars."""
    return tuple(words.split("|"))


def _money_names(words: str) -> dict[str, Forms]:
    names = [tuple(forms.split("/")) for forms in words.split("|")]
    table = dict(zip("$€£¥₩₽", names, strict=True))
    return {**table, "USD": table["$"], "EUR": table["€"], "GBP": table["£"]}


_UNIT_ORDER = (
    "km/h", "km", "cm", "mm", "m", "kg", "mg", "g", "ml", "l",
    "kHz", "Hz", "GB", "MB", "kW", "W", "°C", "°F", "°", "%", "‰",
)  # fmt: skip

READINGS: Mapping[str, Reading] = {
    "english": Reading(
        code="en",
        point="point",
        comma_decimal=False,
        minus="minus",
        to="to",
        months=_months(
            "January|February|March|April|May|June|July|August|September|October|November|December"
        ),
        date="{month} {ordinal} {year}",
        time="{hour} {minute}",
        hour="{hour} o'clock",
        cents="{whole} {currency} and {cents} cents",
        currencies=_money_names("dollar/dollars|euro/euros|pound/pounds|yen|won|ruble/rubles"),
        units=_units(
            "kilometer per hour/kilometers per hour|kilometer/kilometers|centimeter/centimeters|"
            "millimeter/millimeters|meter/meters|kilogram/kilograms|milligram/milligrams|gram/grams|"
            "milliliter/milliliters|liter/liters|kilohertz|hertz|gigabyte/gigabytes|megabyte/megabytes|"
            "kilowatt/kilowatts|watt/watts|degree Celsius/degrees Celsius|degree Fahrenheit/degrees "
            "Fahrenheit|degree/degrees|percent|per mille"
        ),
        signs=_signs("and|at|percent|equals|times|divided by|plus or minus|degrees|plus|number"),
        ordinal="st|nd|rd|th",
        names={".": "point", "/": "slash"},
    ),
    "german": Reading(
        code="de",
        point="Komma",
        comma_decimal=True,
        minus="minus",
        to="bis",
        months=tuple(_GERMAN_MONTH.split("|")),
        date="{ordinal}r {month} {year}",
        time="{hour} Uhr {minute}",
        hour="{hour} Uhr",
        currencies=_money_names("Dollar|Euro|Pfund|Yen|Won|Rubel"),
        units=_units(
            "Kilometer pro Stunde|Kilometer|Zentimeter|Millimeter|Meter|Kilogramm|Milligramm|Gramm|"
            "Milliliter|Liter|Kilohertz|Hertz|Gigabyte|Megabyte|Kilowatt|Watt|Grad Celsius|Grad "
            "Fahrenheit|Grad|Prozent|Promille"
        ),
        signs=_signs("und|at|Prozent|gleich|mal|geteilt durch|plus minus|Grad|plus|Nummer"),
        names={".": "Punkt", "/": "Strich"},
    ),
    "french": Reading(
        code="fr",
        point="virgule",
        comma_decimal=True,
        fraction_as_number=True,
        minus="moins",
        to="à",
        months=_months(
            "janvier|février|mars|avril|mai|juin|juillet|août|septembre|octobre|novembre|décembre"
        ),
        date="{day} {month} {year}",
        time="{hour} heures {minute}",
        hour="{hour} heures",
        currencies=_money_names("dollar/dollars|euro/euros|livre/livres|yen/yens|won/wons|rouble/roubles"),
        units=_units(
            "kilomètre par heure/kilomètres par heure|kilomètre/kilomètres|centimètre/centimètres|"
            "millimètre/millimètres|mètre/mètres|kilogramme/kilogrammes|milligramme/milligrammes|gramme/"
            "grammes|millilitre/millilitres|litre/litres|kilohertz|hertz|gigaoctet/gigaoctets|mégaoctet/"
            "mégaoctets|kilowatt/kilowatts|watt/watts|degré Celsius/degrés Celsius|degré Fahrenheit/"
            "degrés Fahrenheit|degré/degrés|pour cent|pour mille"
        ),
        signs=_signs("et|arobase|pour cent|égale|fois|divisé par|plus ou moins|degrés|plus|numéro"),
        ordinal="er|re|e|ème|eme",
        spaced_groups=True,
        names={".": "point", "/": "sur"},
    ),
    "spanish": Reading(
        code="es",
        point="coma",
        comma_decimal=True,
        fraction_as_number=True,
        minus="menos",
        to="a",
        months=_months(
            "enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre"
        ),
        date="{day} de {month} de {year}",
        time="{hour} y {minute}",
        hour="{hour} en punto",
        cents="{whole} {currency} con {cents}",
        currencies=_money_names("dólar/dólares|euro/euros|libra/libras|yen/yenes|won/wones|rublo/rublos"),
        units=_units(
            "kilómetro por hora/kilómetros por hora|kilómetro/kilómetros|centímetro/centímetros|"
            "milímetro/milímetros|metro/metros|kilogramo/kilogramos|miligramo/miligramos|gramo/gramos|"
            "mililitro/mililitros|litro/litros|kilohercio/kilohercios|hercio/hercios|gigabyte/gigabytes|"
            "megabyte/megabytes|kilovatio/kilovatios|vatio/vatios|grado Celsius/grados Celsius|grado "
            "Fahrenheit/grados Fahrenheit|grado/grados|por ciento|por mil"
        ),
        signs=_signs("y|arroba|por ciento|igual a|por|dividido por|más menos|grados|más|número"),
        ordinal="º|ª",
        spaced_groups=True,
        names={".": "punto", "/": "barra"},
    ),
    "italian": Reading(
        code="it",
        point="virgola",
        comma_decimal=True,
        fraction_as_number=True,
        minus="meno",
        to="a",
        months=_months(
            "gennaio|febbraio|marzo|aprile|maggio|giugno|luglio|agosto|settembre|ottobre|novembre|dicembre"
        ),
        date="{day} {month} {year}",
        time="{hour} e {minute}",
        hour="{hour} in punto",
        cents="{whole} {currency} e {cents}",
        currencies=_money_names("dollaro/dollari|euro|sterlina/sterline|yen|won|rublo/rubli"),
        units=_units(
            "chilometro orario/chilometri orari|chilometro/chilometri|centimetro/centimetri|millimetro/"
            "millimetri|metro/metri|chilogrammo/chilogrammi|milligrammo/milligrammi|grammo/grammi|"
            "millilitro/millilitri|litro/litri|chilohertz|hertz|gigabyte|megabyte|chilowatt|watt|grado "
            "Celsius/gradi Celsius|grado Fahrenheit/gradi Fahrenheit|grado/gradi|per cento|per mille"
        ),
        signs=_signs("e|chiocciola|per cento|uguale|per|diviso|più o meno|gradi|più|numero"),
        ordinal="º|ª",
        names={".": "punto", "/": "barra"},
    ),
    "portuguese": Reading(
        code="pt_BR",
        point="vírgula",
        comma_decimal=True,
        fraction_as_number=True,
        minus="menos",
        to="a",
        months=_months(
            "janeiro|fevereiro|março|abril|maio|junho|julho|agosto|setembro|outubro|novembro|dezembro"
        ),
        date="{day} de {month} de {year}",
        time="{hour} e {minute}",
        hour="{hour} em ponto",
        cents="{whole} {currency} e {cents}",
        currencies=_money_names("dólar/dólares|euro/euros|libra/libras|iene/ienes|won/wons|rublo/rublos"),
        units=_units(
            "quilômetro por hora/quilômetros por hora|quilômetro/quilômetros|centímetro/centímetros|"
            "milímetro/milímetros|metro/metros|quilograma/quilogramas|miligrama/miligramas|grama/gramas|"
            "mililitro/mililitros|litro/litros|quilohertz|hertz|gigabyte/gigabytes|megabyte/megabytes|"
            "quilowatt/quilowatts|watt/watts|grau Celsius/graus Celsius|grau Fahrenheit/graus Fahrenheit|"
            "grau/graus|por cento|por mil"
        ),
        signs=_signs("e|arroba|por cento|igual a|vezes|dividido por|mais ou menos|graus|mais|número"),
        ordinal="º|ª",
        names={".": "ponto", "/": "barra"},
    ),
    "russian": Reading(
        code="ru",
        point="запятая",
        comma_decimal=True,
        fraction_as_number=True,
        minus="минус",
        to="до",
        months=_months("января|февраля|марта|апреля|мая|июня|июля|августа|сентября|октября|ноября|декабря"),
        date="{day} {month} {year} года",
        time="{hour} {minute}",
        hour="{hour} часов",
        currencies=_money_names(
            "доллар/доллара/долларов|евро|фунт/фунта/фунтов|иена/иены/иен|вона/воны/вон|рубль/рубля/рублей"
        ),
        units=_units(
            "километр в час/километра в час/километров в час|километр/километра/километров|сантиметр/"
            "сантиметра/сантиметров|миллиметр/миллиметра/миллиметров|метр/метра/метров|килограмм/"
            "килограмма/килограммов|миллиграмм/миллиграмма/миллиграммов|грамм/грамма/граммов|миллилитр/"
            "миллилитра/миллилитров|литр/литра/литров|килогерц|герц|гигабайт/гигабайта/гигабайт|мегабайт/"
            "мегабайта/мегабайт|киловатт/киловатта/киловатт|ватт/ватта/ватт|градус Цельсия/градуса "
            "Цельсия/градусов Цельсия|градус Фаренгейта/градуса Фаренгейта/градусов Фаренгейта|градус/"
            "градуса/градусов|процент/процента/процентов|промилле"
        ),
        signs=_signs("и|собака|процентов|равно|умножить на|разделить на|плюс-минус|градусов|плюс|номер"),
        spaced_groups=True,
        names={".": "точка", "/": "дробь"},
    ),
    "japanese": Reading(
        code="ja",
        point="点",
        comma_decimal=False,
        minus="マイナス",
        to="から",
        months=_months("一月|二月|三月|四月|五月|六月|七月|八月|九月|十月|十一月|十二月"),
        date="{year}年{month}{day}日",
        time="{hour}時{minute}分",
        hour="{hour}時",
        cents="",
        currencies=_money_names("ドル|ユーロ|ポンド|円|ウォン|ルーブル"),
        units=_units(
            "キロメートル毎時|キロメートル|センチメートル|ミリメートル|メートル|キログラム|ミリグラム|グラム|ミリリットル|リットル|キロヘルツ|ヘルツ|ギガバイト|メガバイト|キロワット|"
            "ワット|度|度|度|パーセント|パーミル"
        ),
        signs=_signs("アンド|アット|パーセント|イコール|かける|わる|プラスマイナス|度|プラス|ナンバー"),
        gap="",
        names={".": "点", "/": "スラッシュ"},
    ),
    "korean": Reading(
        code="ko",
        point="점",
        comma_decimal=False,
        minus="마이너스",
        to="에서",
        months=_months("일월|이월|삼월|사월|오월|유월|칠월|팔월|구월|시월|십일월|십이월"),
        date="{year}년 {month} {day}일",
        time="{hour}시 {minute}분",
        hour="{hour}시",
        cents="",
        currencies=_money_names("달러|유로|파운드|엔|원|루블"),
        units=_units(
            "킬로미터 퍼 아워|킬로미터|센티미터|밀리미터|미터|킬로그램|"
            "밀리그램|그램|밀리리터|리터|킬로헤르츠|헤르츠|"
            "기가바이트|메가바이트|킬로와트|와트|도|화씨도|"
            "도|퍼센트|"
            "퍼밀"
        ),
        signs=_signs("앤드|앳|퍼센트|는|곱하기|나누기|플러스마이너스|도|더하기|넘버"),
        names={".": "점", "/": "슬래시"},
    ),
}
