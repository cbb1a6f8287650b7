"""How languages with blanks between their words read numbers, dates, money, units, signs and abbreviations.

One set of rules for English, German, French, Spanish, Italian, Portuguese, Russian and Korean; what differs is
in `tables/LANGUAGE.toml`, and what only one of them does is in that language's own file (english.py, ...).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import regex

from sonant.text.numerals import LONGEST_NUMBER, cardinal, digits_one_by_one, ordinal, roman, year
from sonant.text.rules import Match, Read, Rule, Rules
from sonant.text.tables import Noun, Table, alternatives

_END = r"(?![\p{L}\p{N}_])"
_FRACTIONS = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5),
    "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8),
}  # fmt: skip
SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
SUBSCRIPT = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-")
DOMAINS = (
    "com|org|net|io|edu|gov|mil|int|de|fr|cn|uk|co|jp|info|dev|app|ai|eu|es|ch|at|tv|biz|ru|ca|au|us|nl|br|kr|xyz|"
    "gg|ly|pt|pl|se|cz|mx"
)
_FILE_ENDINGS = (
    "txt|md|py|pdf|png|jpe?g|gif|svg|csv|json|ya?ml|toml|xml|html?|css|js|ts|docx?|xlsx?|pptx?|zip|tar|gz|exe|dll|wav|mp3|"
    "mp4|flac|ogg|c|h|cpp|rs|go|java|sh|bat|ini|cfg|log|sql|ipynb|safetensors"
)


class Western:
    """The readings of one language: words for what its rules find."""

    def __init__(self, table: Table) -> None:
        self.table = t = table
        group = "," if t.decimal == "." else r"[.\u00a0\u202f ’']"
        if t.decimal == ".":
            group = r"[,\u00a0\u202f’']"
        self.number = (
            rf"(?:[0-9]{{1,3}}(?:(?P<g__>{group})[0-9]{{3}}(?![0-9]))(?:(?P=g__)[0-9]{{3}}(?![0-9])){{0,6}}"
            rf"(?:{regex.escape(t.decimal)}[0-9]{{1,15}}+)?|[0-9]{{1,40}}+(?:[.,][0-9]{{1,15}}+(?![.,]?[0-9]))?)"
        )
        if t.decimal == ".":
            self.number = self.number.replace("[.,][0-9]{1,15}", r"\.[0-9]{1,15}")
        self._groups = 0

    # -- pieces of patterns --------------------------------------------------------------------

    def n(self, name: str) -> str:
        """A pattern of a number, as the named group."""
        self._groups += 1
        return f"(?P<{name}>{self.number.replace('g__', f'g{self._groups}')})"

    # -- numbers ------------------------------------------------------------------------------

    def parts(self, written: str) -> tuple[str, str]:
        """Whole digits and fraction digits of a number as it is written."""
        t = self.table
        if t.decimal == ",":
            if regex.fullmatch(r"[0-9]{1,3}(?:[.\u00a0\u202f ’'][0-9]{3})+(?:,[0-9]+)?", written):
                whole, _, fraction = written.partition(",")
                return regex.sub(r"[^0-9]", "", whole), fraction
            whole, _, fraction = written.replace(".", ",").partition(",")
            return regex.sub(r"[^0-9]", "", whole), fraction
        whole, _, fraction = written.partition(".")
        return regex.sub(r"[^0-9]", "", whole), fraction

    def whole(self, digits: str, gender: str = "") -> str:
        """Digits as a number in words, or one by one where they are too many or begin with zero."""
        code = self.table.code
        if len(digits) > LONGEST_NUMBER or (len(digits) > 1 and digits[0] == "0"):
            return digits_one_by_one(code, digits)
        return self.agree(cardinal(code, int(digits)), gender) if gender else cardinal(code, int(digits))

    def agree(self, words: str, gender: str) -> str:
        """A number word as it stands before a noun of this gender."""
        for end, instead in self.table.agreement.get(gender, ()):
            changed = regex.sub(f"{end}$", instead, words)
            if changed != words:
                return changed
        return words

    def say(self, written: str, gender: str = "") -> str:
        """A number as it is written, in words."""
        t = self.table
        whole, fraction = self.parts(written)
        if not fraction:
            return self.whole(whole or "0", gender)
        if t.fraction_as_number and len(fraction) <= 2 and fraction[0] != "0":
            said = self.whole(fraction)
        else:
            said = digits_one_by_one(t.code, fraction)
        return f"{self.whole(whole or '0')} {t.point} {said}"

    def form(self, noun: Noun, written: str) -> str:
        """The form of a noun after a number."""
        whole, fraction = self.parts(written)
        forms = noun.forms
        if len(forms) == 3:
            count = int(whole[-2:] or 0)
            if fraction:
                return forms[1]
            if count % 10 == 1 and count != 11:
                return forms[0]
            return forms[1] if 2 <= count % 10 <= 4 and not 12 <= count <= 14 else forms[2]
        if self.table.code == "fr" and not int(whole or 0) // 2:  # zéro, un, and what is below two
            return forms[0]
        return forms[0] if int(whole or 0) == 1 and not fraction.strip("0") else forms[-1]

    def counted(self, written: str, noun: Noun) -> str:
        """A number and the noun it counts."""
        return f"{self.say(written, noun.gender)} {self.form(noun, written)}"

    def signed(self, hit: Match, said: str, name: str = "sign") -> str:
        """With the sign that stood before the number."""
        sign = hit.groupdict().get(name)
        if not sign:
            return said
        word = self.table.signs.get(sign) if sign in "+±" else self.table.minus
        return f"{word} {said}"

    def digits(self, written: str) -> str:
        """Every run of digits one by one, a comma between the runs."""
        return ", ".join(digits_one_by_one(self.table.code, run) for run in regex.findall("[0-9]+", written))

    # -- addresses -----------------------------------------------------------------------------

    def spell_address(self, written: str) -> str:
        """An address as it is spoken: its words, and the names of its signs."""
        names = self.table.address
        out: list[str] = []
        for piece in regex.findall(r"[\p{L}\p{M}]+|[0-9]+|.", written):
            if piece.isdigit():
                known = len(piece) == 4 and piece[:2] in ("19", "20")
                out.append(
                    year(self.table.code, int(piece))
                    if known
                    else digits_one_by_one(self.table.code, piece)
                    if len(piece) > 2 or piece[0] == "0"
                    else self.whole(piece)
                )
            elif piece in names:
                out.append(names[piece])
            elif piece == "www":
                out.append("W W W" if self.table.code == "en" else "www")
            elif piece.strip():
                out.append(piece)
        return " ".join(out)

    def address(self, hit: Match) -> str | None:
        """Web and mail addresses, file names."""
        written = hit[0]
        written = regex.sub(r"^(?:https?|ftp)://", "", written).rstrip("/")
        return self.spell_address(written) if written else None

    # -- dates and times -----------------------------------------------------------------------

    def spoken_date(self, day: int, month: int, year_digits: str) -> str | None:
        """A full date, None for one that no calendar has."""
        if not (1 <= month <= 12 and 1 <= day <= 31):
            return None
        t = self.table
        if len(year_digits) == 2:
            year_digits = ("19" if int(year_digits) > 40 else "20") + year_digits
        return t.date.format(
            day=self.day(day),
            ordinal=self.day_ordinal(day),
            month=t.months[month - 1],
            year=year(t.code, int(year_digits)),
        )

    def day(self, day: int) -> str:
        """A day of a month as a number."""
        return "premier" if self.table.code == "fr" and day == 1 else cardinal(self.table.code, day)

    def day_ordinal(self, day: int) -> str:
        """A day of a month as a place in an order."""
        return ordinal(self.table.code, day)

    def iso_date(self, hit: Match) -> str | None:
        """2024-03-15, 2024/3/15."""
        return self.spoken_date(int(hit["d"]), int(hit["m"]), hit["y"])

    def short_date(self, hit: Match) -> str | None:
        """15.03.2024, 3/15/2024."""
        first, second = int(hit["a"]), int(hit["b"])
        day_first = self.table.day_first or "." in hit[0] or first > 12
        if second > 12:
            day_first = False
        day, month = (first, second) if day_first else (second, first)
        return self.spoken_date(day, month, hit["y"])

    def clock(self, hit: Match) -> str | None:
        """14:30, 7:05."""
        hour, minute = int(hit["h"]), int(hit["m"])
        if hour > 24 or minute > 59:
            return None
        return self.spoken_time(hour, minute, hit.groupdict().get("s"))

    def spoken_time(self, hour: int, minute: int, second: str | None = None) -> str:
        """A time of day."""
        t = self.table
        hours = self.agree(cardinal(t.code, hour), t.hour_gender)
        if not minute and not second:
            return (
                t.full_hour.replace("heures", "heure") if t.code == "fr" and hour < 2 else t.full_hour
            ).format(hour=hours)
        pattern = t.clock.replace("heures", "heure") if t.code == "fr" and hour < 2 else t.clock
        said = pattern.format(hour=hours, minute=self.agree(cardinal(t.code, minute), t.hour_gender))
        if second and int(second):
            said += " " + self.counted(str(int(second)), t.noun(t.units["s"]))
        return said

    # -- money, units ---------------------------------------------------------------------------

    def money_after_sign(self, hit: Match) -> str | None:
        """$5.50, -€3, $2bn, $5-10 million."""
        return self.signed(hit, self.money(hit["n"], hit["c"], hit["mag"], hit.groupdict().get("n2")))

    def money_before_sign(self, hit: Match) -> str | None:
        """5,50 €, 20 USD."""
        groups = hit.groupdict()
        return self.signed(hit, self.money(hit["n"], hit["c"], groups.get("mag"), groups.get("n2")))

    def money(self, written: str, sign: str, magnitude: str | None, upper: str | None = None) -> str:
        """An amount of money."""
        t = self.table
        unit, part = t.money_nouns(sign.strip())
        word = t.magnitudes.get((magnitude or "").strip())
        whole, fraction = self.parts(written)
        if upper is not None:
            low = self.say(written)
            high = self.say(upper)
            amount = f"{low} {t.to} {high}"
            return f"{amount} {word} {self.of_many(unit)}" if word else f"{amount} {unit.forms[-1]}"
        if word:
            return f"{self.magnitude(written, word)} {self.of_many(unit)}"
        if part is None or len(fraction) != 2:
            return self.counted(written, unit)
        cents = fraction.lstrip("0") or "0"
        if not int(cents):
            return self.counted(whole, unit)
        if not int(whole or 0):
            return self.counted(cents, part)
        return t.money.format(
            whole=self.say(whole, unit.gender),
            unit=self.form(unit, whole),
            cents=self.say(cents, part.gender if "{part}" in t.money else ""),
            part=self.form(part, cents),
        )

    def of_many(self, noun: Noun) -> str:
        """The noun after a million: "millions d'euros"."""
        many = noun.forms[-1]
        if self.table.code == "fr":
            return f"d'{many}" if many[0] in "aeiouyéh" else f"de {many}"
        return (
            f"de {many}"
            if self.table.code in ("es", "pt_BR")
            else f"di {many}"
            if self.table.code == "it"
            else many
        )

    def magnitude(self, written: str, word: str) -> str:
        """A number of thousands, millions and so on."""
        noun = self.table.noun(word)
        return self.counted(written, noun)

    def unit_noun(self, symbol: str) -> Noun | None:
        """The noun of a unit, of its square or cube, or of one unit per another."""
        t = self.table
        symbol = symbol.strip()
        if symbol in t.units:
            return t.noun(t.units[symbol])
        over = regex.match(r"(.+)/(.+)$", symbol)
        if over:
            above, below = self.unit_noun(over[1]), self.unit_noun(over[2])
            if above is None or below is None:
                return None
            per = t.per
            if t.code == "en" and over[2] in ("s²", "s2"):
                return Noun(tuple(f"{form} per second squared" for form in above.forms), above.gender)
            return Noun(tuple(f"{form} {per} {below.forms[0]}" for form in above.forms), above.gender)
        power = regex.match(r"(.+?)([²³23])$", symbol)
        if power:
            base = self.unit_noun(power[1])
            if base is None:
                return None
            shape = (t.square if power[2] in "²2" else t.cubic).split("/")
            forms = tuple(
                shape[min(i, len(shape) - 1)].format(form).replace("{low}", form.lower())
                if "{low}" not in shape[0]
                else shape[0].replace("{low}", form.lower())
                for i, form in enumerate(
                    base.forms if len(base.forms) > 1 or len(shape) == 1 else base.forms * 2
                )
            )
            return Noun(forms, base.gender)
        return None

    def with_unit(self, hit: Match) -> str | None:
        """5 km, -3 °C, 10-15 %, 6 m²."""
        noun = self.unit_noun(hit["unit"])
        if noun is None:
            return None
        t = self.table
        word = t.magnitudes.get((hit.groupdict().get("mag") or "").strip())
        if hit.groupdict().get("n2"):
            said = f"{self.say(hit['n'])} {t.to} {self.counted(hit['n2'], noun)}"
        elif word:
            said = f"{self.magnitude(hit['n'], word)} {noun.forms[-1]}"
        else:
            said = self.counted(hit["n"], noun)
        return self.signed(hit, said)

    def bare_unit(self, hit: Match) -> str | None:
        """A unit by itself: km/h."""
        noun = self.unit_noun(hit["unit"])
        return noun.forms[-1] if noun else None

    # -- fractions, ranges, plain numbers --------------------------------------------------------

    def fraction(self, above: int, below: int) -> str:
        """Three quarters, one half, five twelfths."""
        t = self.table
        named = t.denominators.get(str(below))
        if named:
            noun = t.noun(named)
            if above == 1 and "!" in named:
                return noun.forms[0].replace("!", "")
            return (
                f"{self.say(str(above), noun.gender)} {noun.forms[0 if above == 1 else -1].replace('!', '')}"
            )
        return self.plain_fraction(above, below)

    def plain_fraction(self, above: int, below: int) -> str:
        """A fraction without a name of its own."""
        t = self.table
        return f"{self.say(str(above))} {t.over} {self.say(str(below))}"

    def slashed(self, hit: Match) -> str | None:
        """3/4, 120/80."""
        above, below = int(hit["a"]), int(hit["b"])
        whole = hit.groupdict().get("w")
        if not whole and above > 9 and (above == below or above + below == 100):
            return f"{self.say(hit['a'])} {self.say(hit['b'])}"  # 50/50, 80/20
        if (
            0 < above < below
            and below <= 100
            and (str(below) in self.table.denominators or self.table.code == "en")
        ):
            said = self.fraction(above, below)
            if whole:
                said = self.mixed(whole, above, below)
            return said + self.fraction_unit(hit)
        if whole:
            return None
        return f"{self.say(hit['a'])} {self.table.over} {self.say(hit['b'])}"

    def signed_fraction(self, hit: Match) -> str | None:
        """-1/2, and the second term of 3/4 + 1/2."""
        said = self.slashed(hit)
        return said and self.signed(hit, said)

    def mixed(self, whole: str, above: int, below: int) -> str:
        """A whole number and a fraction."""
        t = self.table
        if (above, below) == (1, 2):
            return f"{self.say(whole)} {t.and_a_half}"
        joint = t.signs["&"]
        return f"{self.say(whole)} {joint} {self.fraction(above, below)}"

    def vulgar(self, hit: Match) -> str | None:
        """½, 2¾."""
        above, below = _FRACTIONS[hit["f"]]
        said = self.mixed(hit["w"], above, below) if hit["w"] else self.fraction(above, below)
        return said + self.fraction_unit(hit)

    def fraction_unit(self, hit: Match) -> str:
        """The unit after a fraction: one where there is no whole."""
        symbol = hit.groupdict().get("fu")
        noun = self.unit_noun(symbol) if symbol else None
        return f" {noun.forms[-1 if hit['w'] else 0]}" if noun else ""

    def range_(self, hit: Match) -> str | None:
        """5-10, 1914-1918."""
        low, high = hit["n"], hit["n2"]
        if is_year(low) and (is_year(high) or (len(high) == 2 and int(high) > int(low[2:]))):
            second = year(self.table.code, int(high)) if len(high) == 4 else self.end_of_range(high)
            return f"{year(self.table.code, int(low))} {self.table.to} {second}"
        return f"{self.say(low)} {self.table.to} {self.say(high)}"

    def end_of_range(self, digits: str) -> str:
        """The last two digits of a year: 2008-09."""
        return self.whole(digits.lstrip("0") or "0")

    def version(self, hit: Match) -> str | None:
        """1.1.2, 192.168.1.1, v2.0."""
        t = self.table
        prefix = hit["v"] or ""
        dot = (
            t.address["."]
            if hit[0].count(".") == 3 and not prefix
            else t.letters.get("version_dot", t.address["."])
        )
        said = f" {dot} ".join(
            digits_one_by_one(t.code, group)
            if hit[0].count(".") == 3 and len(group) > 1 and not prefix
            else self.whole(group)
            for group in hit["r"].split(".")
        )
        return f"{t.letters.get('version', 'version')} {said}" if prefix else said

    def plain(self, hit: Match) -> str | None:
        """A number by itself."""
        return self.signed(hit, self.say(hit["n"]))

    def year_or_number(self, hit: Match) -> str | None:
        """Four digits that may be a year."""
        digits = hit["n"]
        before = hit.string[max(0, hit.start() - 24) : hit.start()]
        if not 1000 <= int(digits) <= 2099:
            return None
        if regex.search(rf"(?<![\p{{L}}])(?:{self.table.year_before})[\s(]*$", before, regex.IGNORECASE):
            return year(self.table.code, int(digits))
        return None

    def roman_after(self, hit: Match) -> str | None:
        """Chapter IV: a Roman number after a word that is numbered."""
        value = roman(hit["r"])
        return None if value is None else f"{hit['w']} {cardinal(self.table.code, value)}"

    def mixed_word(self, hit: Match) -> str | None:
        """A4, MP3, COVID-19, H2O: letters and digits in one word."""
        pieces = regex.findall(r"[\p{L}\p{M}]+|[0-9]+(?:\.[0-9]+)?|[^\p{L}\p{M}0-9]+", hit[0])
        out: list[str] = []
        for piece in pieces:
            if piece[0].isdigit():
                out.append(
                    self.say(piece.replace(".", self.table.decimal))
                    if len(piece) < 4 or "." in piece
                    else self.model_number(piece)
                )
            elif piece[0].isalpha():
                out.append(piece)
        return " ".join(out)

    def model_number(self, digits: str) -> str:
        """Digits of a model name or a flight."""
        if len(digits) == 4 and digits[1:] != "000" and digits[0] != "0":
            low = digits[2:]
            return f"{self.whole(digits[:2])} {'hundred' if low == '00' and self.table.code == 'en' else self.whole(low)}"
        return self.whole(digits) if len(digits) <= 3 else digits_one_by_one(self.table.code, digits)

    # -- signs and abbreviations -------------------------------------------------------------------

    def sign(self, hit: Match) -> str | None:
        """A sign by its name."""
        return self.table.signs.get(hit[0])

    def abbreviation(self, hit: Match) -> str | None:
        """An abbreviation in full; its stop stays where the sentence ends with it."""
        said = self.table.abbreviations.get(hit[0])
        if said is None:
            return None
        return said + self.sentence_stop(hit)

    def sentence_stop(self, hit: Match) -> str:
        """The full stop of an abbreviation that is also that of the sentence."""
        if not hit[0].endswith(".") or hit[0].rstrip(".") in self.table.letters.get("titles", "").split():
            return ""
        rest = hit.string[hit.end() : hit.end() + 12]
        if not rest.strip():
            return "."
        if rest[0] in '\n"”’)' and not rest[1:].strip():
            return "."
        if rest.startswith("\n") or (
            regex.match(r"[\"”’)]*\s+[\"“(¿¡]*\p{Lu}[\p{Ll}’']", rest) and hit[0].lower() in _MAY_END
        ):
            return "."
        return ""

    def before_number(self, hit: Match) -> str | None:
        """No. 5, p. 12, ~5."""
        return self.table.before_number[hit["w"]] + " "

    # -- the list --------------------------------------------------------------------------------

    def rules(self, first: Iterable[Rule] = ()) -> Rules:
        """All rules of the language, its own first."""
        return Rules([*first, *self.common()])

    def rule(self, name: str, starts: str, pattern: str, read: Read, *, ignore_case: bool = False) -> Rule:
        """One rule; "␣" in its pattern is a blank of any kind."""
        return Rule(name, pattern.replace("␣", r"[ \u00a0\u2009\u202f]"), read, starts, ignore_case)

    def common(self) -> list[Rule]:
        """The rules that every language has, in their order."""
        t, rule, n = self.table, self.rule, self.n
        signs = [c for c in t.currencies if not c[-1].isalpha()]
        codes = [c for c in t.currencies if c[-1].isalpha()]
        sign, code = alternatives(signs), alternatives(codes)
        magnitude = alternatives(t.magnitudes)
        mag = rf"(?P<mag>␣?(?:{magnitude}){_END})?"
        long_mag = rf"(?P<mag>␣(?:{alternatives([m for m in t.magnitudes if len(m) > 2]) or 'million'}){_END}|␣?(?:{magnitude})(?=[€$£]))?"
        unit = alternatives(t.units)
        loose = alternatives(
            [u for u in t.units if u not in ("A", "K", "T", "N", "in.", "min.", "sec.", "C", "t", "MP", "a")]
        )
        tight = alternatives([u for u in t.units if u in ("A", "T", "N", "MP")]) or "A"
        dotted = alternatives([u for u in t.units if u.endswith(".")]) or "zzzz"
        units = (
            rf"(?P<unit>␣?(?:{dotted})(?=␣?[\p{{Ll}}(,;])|␣?(?:{loose})[²³]?(?:/(?:{unit})[²³]?)?{_END}"
            rf"|(?:{loose})[23](?:/(?:{unit}))?{_END}|(?:{tight}){_END}|␣?(?:m|cm|km|mm|ft|mi)[23]{_END})"
        )
        minus = r"(?P<sign>(?<![\p{L}\p{N}.,)\]%°])[-−–](?=[\d$€£¥.₹])|[+±](?=␣?[\d$€£¥₹]))"
        dash = r"␣?(?:--|[-–—−])␣?"
        grouped = r"(?!\d{1,3}(?:\.\d{3})+(?![\d.]))" if t.decimal == "," else ""
        bare = r"(?<![\d.,:/])"
        related = alternatives([word for word in t.before_number if word in "<>≤≥≈"]) or "zzzz"
        unrelated = alternatives([word for word in t.before_number if word not in "<>≤≥≈"]) or "zzzz"
        measured = alternatives([u for u in t.units if u.isalpha() and len(u) > 1]) or "zzzz"
        fraction_unit = rf"(?:␣(?P<fu>{measured}){_END}(?:\.(?=␣\p{{Ll}}))?)?"
        return [
            rule(
                "per",
                "s",
                rf"(?<=[\p{{L}}\p{{N}}%])/(?P<w>{t.letters.get('per_words', 'zzzz')}){_END}",
                lambda hit: f" {t.per} {noun.forms[0] if (noun := self.unit_noun(hit['w'])) else hit['w']}",
            ),
            rule(
                "angle brackets",
                "s",
                r"(?<![\p{L}\p{N}])<(?P<w>\p{L}[\p{L}\p{M} '’\-]{0,40})>",
                lambda hit: hit["w"],
            ),
            rule(
                "e-mail address",
                "ld",
                r"[\p{L}\p{N}._%+\-]{1,64}+@[\p{L}\p{N}\-]{1,63}(?:\.[\p{L}\p{N}\-]{1,63}){1,4}+",
                self.address,
            ),
            rule(
                "web address",
                "l",
                r"(?:https?://|ftp://|www\.)[^\s<>\"“”«»，。；！？、）】]{1,240}(?<![.,;:!?)\]'’])",
                self.address,
            ),
            rule(
                "web address",
                "ld",
                rf"[\p{{L}}\p{{N}}\-]{{1,63}}(?:\.[\p{{L}}\p{{N}}\-]{{1,63}}){{0,4}}?\.(?:{DOMAINS})(?::\d+)?(?:/[^\s<>\"“”«»，。；！？、）】]{{0,200}}(?<![.,;:!?)\]'’])|(?![\p{{L}}\p{{N}}]|\.\p{{L}}))",
                self.address,
            ),
            rule(
                "file name",
                "ld",
                rf"[\p{{L}}\p{{N}}_\-]{{1,60}}(?:\.[\p{{L}}\p{{N}}_\-]{{1,30}}){{0,3}}?\.(?:{_FILE_ENDINGS}){_END}",
                self.file_name,
            ),
            rule(
                "path",
                "s",
                r"(?<![\p{L}\p{N}.])(?:~|\.{1,2})?(?:/[\p{L}\p{N}_.\-]{0,79}[\p{L}\p{N}_\-]){2,20}/?",
                self.path,
            ),
            rule("path", "l", r"[A-Za-z]:\\[^\s\"<>|,;!?]{0,200}(?<![.:])", self.path),
            rule(
                "date",
                "d",
                r"(?P<y>[12]\d{3})([-/.])(?P<m>0?[1-9]|1[0-2])\2(?P<d>0?[1-9]|[12]\d|3[01])(?!\d|[-/.]\d)",
                self.iso_date,
            ),
            rule(
                "date",
                "d",
                r"(?P<a>0?[1-9]|[12]\d|3[01])␣?([./-])␣?(?P<b>0?[1-9]|[12]\d|3[01])\2␣?(?P<y>[12]\d{3}|(?<=\.␣?)\d{2}(?!\.)|(?<=/)\d{2})(?!\d|[-/]\d|\.\d)",
                self.short_date,
            ),
            rule(
                "time",
                "d",
                rf"(?P<h>[01]?\d|2[0-4]):(?P<m>[0-5]\d)(?::(?P<s>[0-5]\d))?(?:␣?(?:{t.letters.get('oclock', 'zzzz')}){_END})?(?![\d:])",
                self.clock,
            ),
            rule(
                "version",
                "dl",
                grouped
                + r"(?P<v>(?<![\p{L}\p{N}])[vV]\.?(?=\d))?(?P<r>\d{1,4}(?:\.\d{1,4}){2,5}+|(?<=[vV])\d{1,3}(?:\.\d{1,4}){0,5}+)(?![\d])(?!\.\d)",
                self.version,
            ),
            rule(
                "telephone number",
                "ds",
                r"(?P<p>\+\d{1,3}[ \-.]?(?:\(0?\)\s?)?(?:\(\d{1,5}\)|\d{1,5})(?:[ \-./]\d{1,5}){0,6}+\d{0,10}+)(?![\d])",
                self.telephone,
            ),
            rule("telephone number", "d", self.telephone_pattern(), self.telephone),
            rule(
                "amount of money",
                "sld",
                rf"{minus}?␣?(?P<c>{sign}|(?:{code})(?=␣?\d))␣?{n('n')}(?:{dash}(?:(?P=c))?{n('n2')})?{mag}",
                self.money_after_sign,
            ),
            rule(
                "amount of money",
                "sd",
                rf"{minus}?␣?{n('n')}(?:{dash}{n('n2')})?{long_mag}␣?(?P<c>{sign}|(?:{code}){_END})",
                self.money_before_sign,
            ),
            rule(
                "fraction",
                "d",
                rf"{bare}(?P<w>\d{{1,4}})?[ \u00a0\u2009]?(?P<f>[{''.join(_FRACTIONS)}]){fraction_unit}",
                self.vulgar,
            ),
            rule("fraction", "sd", rf"(?P<w>)(?P<f>[{''.join(_FRACTIONS)}]){fraction_unit}", self.vulgar),
            rule(
                "number with a unit",
                "sd",
                rf"{minus}?␣?{n('n')}(?:(?P<ru>␣?(?:%|°C|°F|°|km|kg|cm|mm))?{dash}{n('n2')})?{long_mag}{units}",
                self.with_unit,
            ),
            rule(
                "power of ten",
                "sd",
                rf"{minus}?␣?{n('n')}␣?[×x*·]␣?10(?:\^|(?=[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]))\{{?(?P<e>[-−]?\d{{1,3}}|[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{{1,3}})\}}?",
                self.power_of_ten,
            ),
            rule(
                "power of ten",
                "d",
                r"(?P<n>\d{1,3}(?:\.\d{1,9})?)[eE](?P<e>[-+−]?\d{1,3})(?![\p{L}\p{N}])",
                self.power_of_ten,
            ),
            rule(
                "fraction",
                "s",
                rf"{minus}␣?(?P<w>)(?P<a>\d{{1,4}})[/⁄](?P<b>\d{{1,4}})(?![\d/]|[.,]\d)" + fraction_unit,
                self.signed_fraction,
            ),
            rule(
                "fraction",
                "d",
                r"(?<![\d/.,])(?:(?P<w>\d{1,4})[ \u00a0](?=\d{1,2}/\d{1,2}(?![\d/])))?(?P<a>\d{1,4})[/⁄](?P<b>\d{1,4})(?![\d/]|[.,]\d)"
                + fraction_unit,
                self.slashed,
            ),
            rule("ratio", "d", r"(?<![\d:])(?P<n>\d{1,3}):(?P<n2>\d{1,3})(?![\d:])", self.ratio),
            rule(
                "ordinal number",
                "d",
                rf"{bare}(?P<n>\d{{1,6}}|\d{{1,3}}(?:,\d{{3}})+)(?P<o>{t.ordinal_marks or 'zzzz'}){_END}",
                self.ordinal_mark,
            ),
            rule("range", "d", rf"(?<![\d.,:/\-]){n('n')}(?:{dash}){n('n2')}(?![\d]|[-–]\d)", self.range_),
            rule(
                "word with digits",
                "l",
                r"(?!(?:mid|early|late|pre|post)-\d)(?=[\p{Latin}\-]{1,30}\d)(?:[\p{Latin}]{1,20}|(?<=\d)-?|-(?=\d))(?:-?(?:\d{1,8}(?:\.\d{1,3}(?=[\p{L}\s,;!?]|$))?|[\p{Latin}]{1,20})){1,12}+(?!\d)",
                self.mixed_word,
            ),
            rule(
                "word with digits",
                "d",
                rf"(?<![\d.,])\d{{1,5}}(?:-?[\p{{Latin}}]{{1,20}}\d{{0,5}}){{1,6}}+{_END}",
                self.digits_first,
            ),
            rule("year", "d", r"(?<![\d.,])(?P<n>\d{4})(?![\d]|[.,]\d)", self.year_or_number),
            rule("number", "sd", rf"{minus}?␣?{n('n')}", self.plain),
            rule(
                "number",
                "sd",
                r"(?P<sign>(?<![\p{L}\p{N}.,)])[-−+±])?(?<![.\p{N}])(?P<n>\.\d{1,15}+)(?![.\d])",
                self.plain,
            ),
            rule(
                "power",
                "sd",
                r"\^\{?(?P<e>[-−]?\d{1,3}|\p{Latin})\}?|(?P<e2>[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]{1,4}+)",
                self.power,
            ),
            rule("index", "sd", r"[₀₁₂₃₄₅₆₇₈₉₊₋]{1,6}+", self.index),
            rule(
                "number sign",
                "s",
                r"#(?=\d)",
                lambda hit: t.before_number.get("#", t.signs.get("#", "number")) + " ",
            ),
            rule(
                "before a number",
                "ls",
                rf"(?P<w>(?<!(?:(?<!\p{{L}})\p{{L}}|[\p{{N}})πσ])␣?)(?:{related})|(?:{unrelated}))␣?(?=[\d$€£]|(?:[IVXLC]{{2,}}|[VXL])\b|\p{{N}})",
                self.before_number,
            ),
            rule(
                "operator",
                "s",
                r"(?<=[\p{N}\p{L})\]]␣?)(?P<o>[+*×÷/\-−<>])␣?(?=[\p{N}(√\-−])",
                self.operator,
            ),
            rule(
                "abbreviation",
                "l",
                rf"(?:{alternatives(t.abbreviations)})(?![\p{{L}}\p{{N}}])",
                self.abbreviation,
            ),
            rule(
                "unit",
                "l",
                rf"(?P<unit>(?:{unit})/(?:{unit})[²³]?|(?:mm|cm|m|km|ft)[²³]){_END}",
                self.bare_unit,
            ),
            rule("initials", "l", r"(?:\p{Lu}\.){2,8}", self.initials),
            rule(
                "roman number",
                "l",
                rf"(?P<w>{t.letters.get('numbered', 'zzzz')})[ \u00a0](?P<r>[IVXLC]{{1,8}}){_END}",
                self.roman_after,
            ),
            rule("sign", "l", r"[πµμΩΔ](?!\p{Greek})", self.sign_in_place),
            rule("sign", "s", rf"(?:{alternatives(list(t.signs))})", self.sign_in_place),
        ]

    # -- readings that a language may change --------------------------------------------------------

    def file_name(self, hit: Match) -> str | None:
        """readme.md, train_v2.py."""
        name, _, ending = hit[0].rpartition(".")
        if regex.search(r"\d$", name) and regex.fullmatch(r"[hcg]", ending):
            return None
        spelled = " ".join(ending.upper()) if len(ending) < 4 else ending
        return f"{self.spell_address(name)} {self.table.address['.']} {spelled}"

    def path(self, hit: Match) -> str | None:
        """/usr/bin, C:\\temp."""
        return self.spell_address(hit[0])

    def telephone_pattern(self) -> str:
        """Numbers that are telephone numbers by their grouping."""
        return r"(?P<p>0\d{1,5}[ /\-]␣?\d{3,8}(?:[ \-]\d{1,6}){0,4}+)(?!\d)"

    def telephone(self, hit: Match) -> str | None:
        """A telephone number, digit by digit in its groups."""
        plus = f"{self.table.signs['+']} " if hit[0].startswith("+") else ""
        return plus + self.digits(hit["p"])

    def ratio(self, hit: Match) -> str | None:
        """16:9, 3:1."""
        return f"{self.say(hit['n'])} {self.table.letters.get('ratio', self.table.to)} {self.say(hit['n2'])}"

    def ordinal_mark(self, hit: Match) -> str | None:
        """21st, 2e, 1.º."""
        digits = hit["n"].replace(",", "")
        return ordinal(self.table.code, int(digits))

    def power_of_ten(self, hit: Match) -> str | None:
        """3.2×10^5, 1e-6."""
        exponent = hit["e"].translate(SUPERSCRIPT).replace("−", "-")
        return self.signed(
            hit, f"{self.say(hit['n'])} {self.table.times} {self.say('10')} {self.raised(exponent)}"
        )

    def raised(self, exponent: str) -> str:
        """To the power of this."""
        t = self.table
        named = t.letters.get(f"power{exponent}")
        if named:
            return named
        sign = f"{t.minus} " if exponent.startswith("-") else ""
        digits = exponent.lstrip("+-")
        return f"{t.power} {sign}{self.say(digits) if digits.isdigit() else digits}"

    def power(self, hit: Match) -> str | None:
        """x^2, m²."""
        exponent = (hit["e"] or hit["e2"].translate(SUPERSCRIPT)).replace("−", "-").replace("ⁿ", "n")
        if exponent in "+-":
            return self.table.signs["+"] if exponent == "+" else self.table.minus
        if exponent[-1] in "+-":
            charge = self.table.signs["+"] if exponent[-1] == "+" else self.table.minus
            return f"{self.say(exponent[:-1])} {charge}"
        if (
            regex.search(r"[.,!?\"”’)]$|\p{Ll}{3}$", hit.string[max(0, hit.start() - 3) : hit.start()])
            and hit["e2"]
        ):
            return ""  # the mark of a footnote
        return self.raised(exponent)

    def index(self, hit: Match) -> str | None:
        """The small 2 of H₂O."""
        written = hit[0].translate(SUBSCRIPT)
        return (
            self.say(written)
            if written.isdigit()
            else " ".join(self.table.signs.get(c, c) if c in "+-" else self.say(c) for c in written)
        )

    def operator(self, hit: Match) -> str | None:
        """The sign of a sum between its terms."""
        t = self.table
        names = {"+": t.signs["+"], "*": t.times, "×": t.times, "÷": t.signs["÷"], "−": t.minus, "-": t.minus,
                 "/": t.signs["÷"], "<": t.signs["<"], ">": t.signs[">"]}  # fmt: skip
        sign = hit["o"]
        around = hit.string[max(0, hit.start() - 2) : hit.start()].rstrip()[-1:]
        if sign in "-/" and (
            " " not in hit[0] or not around.isdigit() or "=" not in hit.string[hit.start() : hit.start() + 20]
        ):
            return None
        return f" {names[sign]} "

    def digits_first(self, hit: Match) -> str | None:
        """3D, 4K, 1080p, 2nd-gen."""
        return self.mixed_word(hit)

    def initials(self, hit: Match) -> str | None:
        """U.S., F.B.I.: the letters without their stops."""
        return " ".join(hit[0].replace(".", " ").split()) + self.sentence_stop(hit)

    def sign_in_place(self, hit: Match) -> str | None:
        """A sign by its name, where it means something."""
        sign = hit[0]
        word = self.table.signs.get(sign)
        if word is None:
            return None
        text, start, end = hit.string, hit.start(), hit.end()
        before, after = text[start - 1 : start], text[end : end + 1]
        if sign in "<>" and not (before.strip() or after.strip()):
            near = text[max(0, start - 2) : start - 1], text[end + 1 : end + 2]
            if not all(mark.isalnum() for mark in near if mark) or not all(near):
                return None
        elif sign in "<>^+=~" and not (
            after[:1].isalnum() or before[:1].isalnum() or (before + after).isspace()
        ):
            return None
        if not word:
            return ""
        left = " " if before and not before.isspace() else ""
        right = " " if after and not after.isspace() and after not in ".,;:!?)" else ""
        return f"{left}{word}{right}"


def day_names(names: Mapping[str, str]) -> str:
    """A pattern of shortened names of days, the longest first."""
    return "|".join(sorted(names, key=len, reverse=True))


def days(names: Mapping[str, str]) -> str:
    """A pattern of two shortened days with a dash between them."""
    day = day_names(names)
    return rf"(?P<a>{day})\.?␣?[-–]␣?(?P<b>{day})(?!\p{{L}})\.?"


def said_days(hit: Match, names: Mapping[str, str], to: str) -> str:
    """Two shortened days in full; a stop at the end of the text stays."""
    stop = "." if hit[0].endswith(".") and not hit.string[hit.end() :].strip() else ""
    return f"{names[hit['a']]} {to} {names[hit['b']]}{stop}"


_MAY_END = frozenset(
    [
        "etc.",
        "usw.",
        "ecc.",
        "inc.",
        "ltd.",
        "co.",
        "corp.",
        "jr.",
        "a.m.",
        "p.m.",
        "u.s.",
        "u.k.",
        "u.s.a.",
        "b.c.",
        "a.d.",
        "ph.d.",
        "m.d.",
        "d.c.",
        "al.",
        "bros.",
        "ave.",
        "st.",
        "blvd.",
        "rd.",
    ]
)


def is_year(digits: str) -> bool:
    """Whether four digits may be a year."""
    return len(digits) == 4 and digits.isdigit() and 1100 <= int(digits) <= 2099
