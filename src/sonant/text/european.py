"""What only German, French or Spanish does; and the rules of every language with blanks, by name."""

from __future__ import annotations

from functools import lru_cache

import regex

from sonant.text.english import English
from sonant.text.numerals import cardinal, ordinal, roman, year
from sonant.text.rules import Match, Rules
from sonant.text.tables import table
from sonant.text.western import Western, days, is_year, said_days

_ROMAN = r"(?P<r>[IVXLC]{1,8})"
_DIMENSIONS = r"(?P<a>\d{1,4})␣?[x×]␣?(?=\d{1,4}(?!\d))"  # what follows is read with its unit
_GERMAN_MONTHS = (
    r"Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember|"
    r"Jan\.|Feb\.|Febr\.|Mär\.|Apr\.|Jun\.|Jul\.|Aug\.|Sept?\.|Okt\.|Nov\.|Dez\."
)
_GERMAN_THINGS = (
    "Jahrhundert|Jh|Platz|Klasse|Kapitel|Stock|Stockwerk|Etage|Mal|Weltkrieg|Tag|Woche|Monat|Jahr|Geburtstag|Auflage|"
    "Band|Teil|Runde|Spieltag|Liga|Quartal|Halbjahr|Semester|Stunde|Minute|Preis|Advent|Reihe|Gang|Bezirk|Lebensjahr|"
    "Jahrestag|Halbzeit|Akt|Satz|Schritt|Versuch|Rang|Sieg|Staffel|Folge|Generation|Mannschaft|Bundesliga|Armee|Sitzung|"
    "Symphonie|Sinfonie|Januar|FC|FSV|FFC|SC"
)
_FEMININE = "Klasse|Etage|Woche|Auflage|Runde|Liga|Stunde|Minute|Reihe|Staffel|Folge|Generation|Mannschaft|Bundesliga|Armee|Sitzung|Halbzeit|Symphonie|Sinfonie"
_NEUTER = "Jahrhundert|Jh|Kapitel|Stockwerk|Mal|Jahr|Quartal|Halbjahr|Semester|Lebensjahr"
_KINGS = (
    "Ludwig|Karl|Friedrich|Wilhelm|Heinrich|Otto|Franz|Joseph|Maximilian|Leopold|Johannes|Paul|Benedikt|Pius|Leo|Elisabeth|"
    "Georg|Katharina|Peter|Nikolaus|Alexander|Philipp|Napoleon|August|Christian|Gustav|Rudolf|Ferdinand|Charles|Harald"
)
_SPANISH_KINGS = (
    "Felipe|Carlos|Juan|Alfonso|Fernando|Isabel|Enrique|Luis|Pedro|Sancho|Ramiro|Jaime|Pablo|Benedicto|Pío|León|Francisco|"
    "Gregorio|Napoleón|Guillermo|Jorge|Eduardo|Catalina|Nicolás|Alejandro|Federico|Ricardo"
)


_SPANISH_FEMININE = (
    r"(?:a|as|ión|iones|dad|dades)$|^(?:mujer|mujeres|vez|veces|noche|noches|tarde|tardes|calle|calles|clase|clases|llave|"
    r"llaves|flor|flores|parte|partes|serie|series|frase|frases|torre|torres|base|bases|voz|voces|luz|luces|red|redes|"
    r"ley|leyes|imagen|imágenes|orden|órdenes|madre|madres|nave|naves|fuente|fuentes)$"
)
_SPANISH_MASCULINE = (
    r"^(?:día|problema|tema|sistema|programa|idioma|mapa|planeta|poema|diagrama|síntoma|cura|guardia)s?$"
)


def _is_feminine(noun: str) -> bool:
    """Whether a Spanish noun is, by its ending or by itself."""
    return bool(regex.search(_SPANISH_FEMININE, noun)) and not regex.match(_SPANISH_MASCULINE, noun)


class German(Western):
    """German."""

    def __init__(self) -> None:
        super().__init__(table("german"))

    def rules(self) -> Rules:  # type: ignore[override]
        """The rules of German."""
        rule = self.rule
        before = r"(?P<w>(?:[Aa]m|[Vv]om|[Zz]um|[Bb]eim|[Ii]m|[Dd]em|[Dd]en|[Dd]es|[Dd]er|[Dd]ie|[Dd]as|[Bb]is zum|[Aa]b dem|[Ss]eit dem|[Ii]hr(?:en|em|e)?|[Ss]ein(?:en|em|e)?|[Mm]ein(?:en|em|e)?|[Uu]nser(?:en|em|e)?)␣)"
        own = [
            rule(
                "date",
                "l",
                rf"{before}(?:(?P<week>\p{{Lu}}\p{{Ll}}+),?␣(?:den␣|dem␣)?)?(?P<d>0?[1-9]|[12]\d|3[01])\.␣?(?P<m>{_GERMAN_MONTHS})(?:␣(?P<y>\d{{4}}))?(?!\p{{Ll}})",
                self.day_month,
            ),
            rule(
                "date",
                "d",
                rf"(?P<d>0?[1-9]|[12]\d|3[01])\.␣?(?P<m>{_GERMAN_MONTHS})(?:␣(?P<y>\d{{4}}))?(?!\p{{Ll}})",
                self.day_month,
            ),
            rule(
                "date",
                "l",
                rf"{before}(?:(?P<week>\p{{Lu}}\p{{Ll}}+),?␣(?:den␣|dem␣)?)?(?P<d>0?[1-9]|[12]\d|3[01])\.␣?(?P<n>0?[1-9]|1[0-2])\.(?:␣?(?P<y>\d{{4}}|\d{{2}}))?(?!\d)",
                self.day_month,
            ),
            rule(
                "date",
                "d",
                r"(?P<d>0?[1-9]|[12]\d|3[01])\.␣?(?P<n>0?[1-9]|1[0-2])\.␣?(?P<y>\d{4}|\d{2}(?!\.))(?!\d|\.\d)",
                self.day_month,
            ),
            rule("ordinal number", "l", rf"{before}(?P<d>\d{{1,4}})\.(?=␣\p{{L}})", self.order),
            rule(
                "ordinal number",
                "d",
                rf"(?P<d>\d{{1,3}})\.(?=␣(?P<thing>{_GERMAN_THINGS})(?:e?s)?\b)",
                self.order,
            ),
            rule(
                "time",
                "d",
                r"(?P<h>[01]?\d|2[0-4])[:.](?P<m>[0-5]\d)(?::(?P<s>[0-5]\d))?␣?(?:Uhr|h)\b",
                self.clock,
            ),
            rule(
                "time",
                "d",
                r"(?P<h>[01]?\d|2[0-4])␣?(?:-|–|bis)␣?(?P<h2>[01]?\d|2[0-4])␣Uhr\b",
                lambda hit: f"{self.hour(hit['h'])} bis {self.hour(hit['h2'])} Uhr",
            ),
            rule(
                "time",
                "d",
                r"(?P<h>[01]?\d|2[0-4])␣?(?:Uhr|h(?=␣(?:am|in|bis|und)))\b",
                lambda hit: f"{self.hour(hit['h'])} Uhr",
            ),
            rule("decade", "d", r"(?P<c>1\d|20)(?P<t>\d0)er\b(?:-?(?P<j>Jahre?n?))?", self.decade),
            rule("decade", "ds", r"['’]?(?P<t>[1-9]0)er\b(?:[-␣]?(?P<j>Jahre?n?))?", self.decade),
            rule(
                "compound",
                "d",
                r"(?P<n>\d{1,4})-?(?P<w>jährig\p{Ll}*|mal\b|fach\p{Ll}*|tägig\p{Ll}*|stündig\p{Ll}*|köpfig\p{Ll}*|stellig\p{Ll}*|teilig\p{Ll}*|monatig\p{Ll}*|wöchig\p{Ll}*|minütig\p{Ll}*|prozentig\p{Ll}*|stöckig\p{Ll}*)",
                self.compound,
            ),
            rule("compound", "d", r"(?P<n>\d{1,4})-(?=\p{L}{2,})", lambda hit: f"{self.whole(hit['n'])} "),
            rule("roman number", "l", rf"(?P<w>{_KINGS})(?P<g>s)?␣{_ROMAN}\.?(?![\p{{L}}\d])", self.king),
            rule("roman number", "l", rf"{_ROMAN}\.(?=␣(?P<thing>Jahrhundert|Weltkrieg))", self.roman_order),
            rule(
                "one",
                "d",
                r"1(?=␣\p{Lu}\p{Ll})",
                lambda hit: (
                    "ein"
                    if not regex.search(
                        r"(?:Nummer|Nr\.|Kapitel|Seite|Platz|Raum|Zimmer|Teil|Band)\s$",
                        hit.string[max(0, hit.start() - 10) : hit.start()],
                    )
                    else None
                ),
            ),
            rule(
                "telephone number",
                "ds",
                r"(?P<p>0\d{2,5}␣?[/\-–]␣?\d{2,8}(?:[ \-]\d{1,8}){0,4}+|0(?:1[5-7]\d|[2-9]\d{1,3})␣\d{3,8}(?:[ \-]\d{1,8}){0,4}+)(?!\d)",
                self.telephone,
            ),
            rule(
                "slash",
                "s",
                r"(?<=\p{L})/(?=\p{L})",
                lambda hit: (
                    " oder "
                    if regex.match(r"/(?:oder|die|sie)\b", hit.string[hit.start() : hit.start() + 6]) is None
                    and not hit.string[hit.start() - 3 : hit.start()].endswith("und")
                    else " "
                ),
            ),
            rule(
                "abbreviation",
                "l",
                r"(?P<w>\p{Lu}\p{Ll}{2,20})str\.(?=␣|,|$)",
                lambda hit: f"{hit['w']}straße",
            ),
            rule("hash tag", "s", r"#(?=\p{L})", lambda hit: "Hashtag "),
            rule(
                "dimensions",
                "d",
                _DIMENSIONS,
                lambda hit: f"{self.say(hit['a'])} mal ",
            ),
            rule("times", "d", r"(?P<n>\d{1,3})x(?=␣)", lambda hit: f"{self.whole(hit['n'], 'm')}mal"),
            rule(
                "range of days",
                "l",
                days(self.table.days),
                lambda hit: said_days(hit, self.table.days, "bis"),
            ),
            rule("round the clock", "d", r"24/7(?![\d/])", lambda hit: "vierundzwanzig sieben"),
        ]
        return super().rules(own)

    def hour(self, digits: str) -> str:
        """An hour before Uhr."""
        return "ein" if int(digits) == 1 else cardinal("de", int(digits))

    def spoken_time(self, hour: int, minute: int, second: str | None = None) -> str:
        """Vierzehn Uhr dreißig."""
        said = f"{self.hour(str(hour))} Uhr"
        if minute:
            said += f" {cardinal('de', minute)}"
        if second and int(second):
            said += f" und {self.counted(str(int(second)), self.table.noun('f:Sekunde/Sekunden'))}"
        return said

    def ending(self, word: str, thing: str = "") -> str:
        """What an ordinal ends in after an article or preposition, or before a noun alone."""
        word = word.strip().lower()
        if word in ("der", "die", "das") or regex.match(r"(?:ihr|sein|mein|unser)e$", word):
            return ""
        if word:
            return "n"
        if regex.match(rf"(?:{_FEMININE})", thing):
            return ""
        return "s" if regex.match(rf"(?:{_NEUTER})", thing) else "r"

    def day_month(self, hit: Match) -> str | None:
        """Am 3. Mai 2024."""
        groups = hit.groupdict()
        t = self.table
        before = groups.get("w") or ""
        ending = self.ending(before if not groups.get("week") else "dem")
        if not before:
            previous = hit.string[max(0, hit.start() - 30) : hit.start()]
            if regex.search(
                r"(?:\b(?:am|vom|zum|dem|den|bis|ab|seit)\s|\p{Lu}\p{Ll}+tag,?\s(?:den\s|dem\s)?)$",
                previous,
                regex.IGNORECASE,
            ):
                ending = "n"
        day = ordinal("de", int(hit["d"])) + ending
        if groups.get("m"):
            name = groups["m"]
            month = next((m for m in t.months if m.startswith(name.rstrip(".")[:3])), name)
            if name == "Mär.":
                month = "März"
        else:
            month = t.months[int(groups["n"]) - 1]
        week = (
            f"{groups['week']}, {article[1]} "
            if groups.get("week") and (article := regex.search(r"\b(de[nm])\s", hit[0][len(before) :]))
            else f"{groups['week']}, "
            if groups.get("week")
            else ""
        )
        said = f"{before}{week}{day} {month}"
        if groups.get("y"):
            digits = groups["y"]
            digits = digits if len(digits) == 4 else ("19" if int(digits) > 40 else "20") + digits
            said += f" {year('de', int(digits))}"
        elif groups.get("n"):
            rest = hit.string[hit.end() : hit.end() + 3]
            said += "." if not rest.strip() or (regex.match(r"\s+\p{Lu}", rest) and not rest.strip()) else ""
        return said

    def day_ordinal(self, day: int) -> str:
        """Dritter, in a full date without a preposition."""
        return ordinal("de", day) + "r"

    def short_date(self, hit: Match) -> str | None:
        """Only with slashes; those with stops are read by day_month."""
        return super().short_date(hit)

    def order(self, hit: Match) -> str | None:
        """Im 19. Jahrhundert, der 2. Weltkrieg."""
        groups = hit.groupdict()
        word = groups.get("w") or ""
        if not word:
            previous = regex.search(r"(\p{L}+)\s$", hit.string[max(0, hit.start() - 16) : hit.start()])
            if previous and previous[1].lower() in (
                "am",
                "im",
                "zum",
                "vom",
                "beim",
                "dem",
                "den",
                "des",
                "der",
                "die",
                "das",
                "bis",
                "ab",
                "und",
                "einen",
            ):
                word = previous[1] if previous[1].lower() != "bis" else "zum"
                return ordinal("de", int(hit["d"])) + self.ending(word)
        return word + ordinal("de", int(hit["d"])) + self.ending(word, groups.get("thing") or "")

    def decade(self, hit: Match) -> str | None:
        """1990er, 90er Jahre."""
        tens = hit["t"]
        groups = hit.groupdict()
        century = cardinal("de", int(groups["c"])) + "hundert" if groups.get("c") else ""
        if groups.get("c") == "20":
            century = "zweitausend"
        word = cardinal("de", int(tens)) if int(tens) else ""
        said = f"{century}{word}er"
        return f"{said} {groups['j']}" if groups.get("j") else said

    def compound(self, hit: Match) -> str | None:
        """8-jährig, 3-mal."""
        return f"{self.whole(hit['n'], 'm')}{hit['w']}"

    def king(self, hit: Match) -> str | None:
        """Ludwig XIV."""
        value = roman(hit["r"])
        if value is None or (
            hit["r"] in "CLXVI" and len(hit["r"]) == 1 and not hit[0].endswith(".") and hit["r"] != "V"
        ):
            return None
        rest = hit.string[hit.end() : hit.end() + 3]
        stop = "." if hit[0].endswith(".") and not rest.strip() else ""
        word = ordinal("de", value).capitalize()
        queen = hit["w"] in ("Elisabeth", "Katharina")
        if hit["g"]:
            return f"{hit['w']}s {'der' if queen else 'des'} {word}n{stop}"
        return f"{hit['w']} {'die' if queen else 'der'} {word}{stop}"

    def roman_order(self, hit: Match) -> str | None:
        """XX. Jahrhundert."""
        value = roman(hit["r"])
        previous = regex.search(r"(\p{L}+)\s$", hit.string[max(0, hit.start() - 16) : hit.start()])
        return (
            ordinal("de", value) + self.ending(previous[1] if previous else "", hit["thing"])
            if value
            else None
        )

    def year_or_number(self, hit: Match) -> str | None:
        """1984 by itself is a year; 1984 Menschen are counted."""
        digits = hit["n"]
        if not is_year(digits):
            return None
        counted = regex.match(r"\s\p{Lu}", hit.string[hit.end() : hit.end() + 2])
        return super().year_or_number(hit) if counted else year("de", int(digits))

    def raised(self, exponent: str) -> str:
        """Zum Quadrat is "hoch zwei" in sums."""
        digits = exponent.lstrip("+-")
        minus = "minus " if exponent.startswith("-") else ""
        return f"hoch {minus}{self.whole(digits) if digits.isdigit() else digits}"

    def mixed(self, whole: str, above: int, below: int) -> str:
        """Zweieinhalb, zwei dreiviertel."""
        if (above, below) == (1, 2):
            return f"{cardinal('de', int(whole)).removesuffix('s') if int(whole) == 1 else cardinal('de', int(whole))}einhalb"
        return f"{self.say(whole)} {self.fraction(above, below)}"


class French(Western):
    """French."""

    def __init__(self) -> None:
        super().__init__(table("french"))

    def rules(self) -> Rules:  # type: ignore[override]
        """The rules of French."""
        rule = self.rule
        own = [
            rule(
                "telephone number",
                "ds",
                r"(?P<p>(?:\+33[ .]?[1-9]|0[1-9])(?:[ .\-]\d{2}){4}|0[1-9]\d{8})(?!\d)",
                self.pairs,
            ),
            rule(
                "round the clock",
                "d",
                r"(?P<n>24|7)␣?(?P<u>[hj])/(?P=n)(?!\d)",
                lambda hit: (
                    f"{self.whole(hit['n'])} {'heures' if hit['u'] == 'h' else 'jours'} sur {self.whole(hit['n'])}"
                ),
            ),
            rule(
                "time",
                "d",
                r"(?P<h>[01]?\d|2[0-4])␣?[hH]␣?(?P<m>[0-5]\d)?(?![\p{L}\d])",
                lambda hit: self.spoken_time(int(hit["h"]), int(hit["m"] or 0)),
            ),
            rule("ordinal number", "d", r"1(?P<o>er|ers)\b", lambda hit: "premier" + hit["o"][2:]),
            rule("ordinal number", "d", r"1(?:re|ère|ère)s?\b", lambda hit: "première"),
            rule(
                "ordinal number",
                "d",
                r"2(?:nde?)\b",
                lambda hit: "seconde" if hit[0].endswith("e") else "second",
            ),
            rule("ordinal number", "d", r"(?P<n>\d{1,4})(?:e|è|ème|eme|ième)s?\b", self.ordinal_mark),
            rule(
                "roman number",
                "l",
                rf"{_ROMAN}(?:e|è|ème|eme)s?(?=␣(?:siècles?|arrondissement|République|Reich|dynastie|millénaire|congrès|Empire|édition|armée|légion)|,|␣et␣)",
                self.roman_order,
            ),
            rule(
                "roman number",
                "l",
                r"(?P<r>I)(?P<o>er|re|ère)(?=␣|[.,;!?)]|$)",
                lambda hit: "premier" if hit["o"] == "er" else "première",
            ),
            rule(
                "decade",
                "l",
                r"(?P<w>[Aa]nnées?)␣(?P<n>\d{2,4})\b",
                lambda hit: f"{hit['w']} {cardinal('fr', int(hit['n']))}",
            ),
            rule(
                "date",
                "d",
                rf"(?P<d>0?[1-9]|[12]\d|3[01])(?:er)?␣(?P<m>{'|'.join(self.table.months)}|janv\.|févr\.|avr\.|juil\.|sept\.|oct\.|nov\.|déc\.)(?:␣(?P<y>\d{{4}}))?(?!\p{{Ll}})",
                self.day_month,
            ),
            rule(
                "one",
                "d",
                r"(?P<n>\d{0,3}[02-68]?1)(?=␣(?:heures?|minutes?|secondes?|personnes?|fois|pages?|femmes?|filles?|voitures?|maisons?|villes?|semaines?|années?|journées?|places?|pièces?|tasses?|cuillères?|étoiles?|tables?|questions?|bouteilles?)\b)",
                lambda hit: self.whole(hit["n"], "f"),
            ),
            rule("hash tag", "s", r"#(?=\p{L})", lambda hit: "hashtag "),
            rule(
                "range of days", "l", days(self.table.days), lambda hit: said_days(hit, self.table.days, "à")
            ),
            rule("round the clock", "d", r"24/7(?![\d/])", lambda hit: "vingt-quatre sept"),
            rule(
                "slash",
                "s",
                r"(?<=\p{L})/(?=\p{L})",
                lambda hit: (
                    " ou " if not regex.search(r"et$", hit.string[hit.start() - 2 : hit.start()]) else " "
                ),
            ),
            rule(
                "dimensions",
                "d",
                _DIMENSIONS,
                lambda hit: (
                    f"{self.say(hit['a'])} {'fois' if regex.match(r'[0-9]{1,4}.{0,2}=', hit.string[hit.end() : hit.end() + 7]) else 'sur'} "
                ),
            ),
        ]
        return super().rules(own)

    def pairs(self, hit: Match) -> str | None:
        """01 23 45 67 89 in pairs."""
        digits = regex.sub(r"[^0-9]", "", hit["p"].removeprefix("+33"))
        plus = ""
        if hit["p"].startswith("+33"):
            plus = "plus trente-trois, "
            first, rest = [digits[:1]], digits[1:]
        else:
            first, rest = [], digits
        groups = first + [rest[i : i + 2] for i in range(0, len(rest), 2)]
        return plus + ", ".join(self.whole(group) for group in groups)

    def day_month(self, hit: Match) -> str | None:
        """1er mai 2024."""
        t = self.table
        name = hit["m"]
        month = name if name in t.months else next(m for m in t.months if m.startswith(name.rstrip(".")))
        said = f"{self.day(int(hit['d']))} {month}"
        return f"{said} {cardinal('fr', int(hit['y']))}" if hit["y"] else said

    def ordinal_mark(self, hit: Match) -> str | None:
        """2e, 21ème."""
        return ordinal("fr", int(hit["n"]))

    def roman_order(self, hit: Match) -> str | None:
        """XXe siècle."""
        value = roman(hit["r"])
        return ordinal("fr", value) if value else None

    def roman_after(self, hit: Match) -> str | None:
        """Louis XIV, chapitre II."""
        value = roman(hit["r"])
        if value is None:
            return None
        return f"{hit['w']} {'premier' if value == 1 and hit['w'][0].isupper() else cardinal('fr', value)}"

    def mixed(self, whole: str, above: int, below: int) -> str:
        """Deux et demi."""
        return (
            f"{self.say(whole)} et demi"
            if (above, below) == (1, 2)
            else f"{self.say(whole)} et {self.fraction(above, below)}"
        )

    def model_number(self, digits: str) -> str:
        """A number in a name is a number."""
        return self.whole(digits)


class Spanish(Western):
    """Spanish."""

    def __init__(self) -> None:
        super().__init__(table("spanish"))

    def rules(self) -> Rules:  # type: ignore[override]
        """The rules of Spanish."""
        rule = self.rule
        own = [
            rule(
                "telephone number",
                "d",
                r"(?P<p>[6789]\d{2}[ \-]\d{3}[ \-]\d{3}|9\d[ \-]\d{3}[ \-]\d{2}[ \-]\d{2}|[6789]\d{2}[ \-]\d{2}[ \-]\d{2}[ \-]\d{2}|\d{2,3}-\d{3,4}-\d{4})(?!\d)",
                self.telephone_if,
            ),
            rule(
                "time",
                "d",
                r"(?P<h>[01]?\d|2[0-4])[:.](?P<m>[0-5]\d)(?:␣?(?P<u>h|hs|hrs|horas))\b\.?",
                lambda hit: self.spoken_time(int(hit["h"]), int(hit["m"])) + " horas" * (hit["u"] == "horas"),
            ),
            rule(
                "time",
                "d",
                r"(?P<h>[01]?\d|2[0-4]):(?P<m>[0-5]\d)␣?(?P<half>[aApP])\.?␣?m\.?",
                lambda hit: (
                    f"{self.spoken_time(int(hit['h']), int(hit['m']))} {'de la mañana' if hit['half'] in 'aA' else 'de la tarde'}"
                ),
            ),
            rule(
                "ordinal number",
                "d",
                r"(?P<n>\d{1,3})\.?(?P<o>[ºª]|er\b|ero\b|era\b|do\b|da\b|to\b|ta\b|vo\b|va\b|mo\b|ma\b|o\b|a\b|°(?=␣\p{Ll}))(?![CF])",
                self.ordinal_mark,
            ),
            rule(
                "roman number",
                "l",
                rf"(?P<w>(?:{_SPANISH_KINGS})(?:␣Pablo|␣Carlos)?)␣{_ROMAN}(?![\p{{L}}\d])",
                self.king,
            ),
            rule(
                "roman number",
                "l",
                rf"(?P<w>[Ss]iglos?)␣{_ROMAN}(?:␣?(?P<j>[-–y])␣?(?P<r2>[IVXLC]{{1,8}}))?(?![\p{{L}}\d])",
                self.century,
            ),
            rule(
                "roman number",
                "l",
                rf"{_ROMAN}(?=␣(?:Guerra|Congreso|República|Edición|edición|Olimpiada|Festival|Cumbre|Reich))",
                self.roman_order,
            ),
            rule("one", "d", r"(?P<n>\d{0,3}1)(?=␣(?P<w>\p{Ll}{3,}))", self.one),
            rule(
                "hundreds",
                "d",
                r"(?P<n>[2-9]\d\d)(?=␣(?P<w>\p{Ll}{2,}s\b))",
                lambda hit: (
                    self.whole(hit["n"], "f")
                    .replace("quinientos", "quinientas")
                    .replace("cientos", "cientas")
                    if _is_feminine(hit["w"])
                    else None
                ),
            ),
            rule("hash tag", "s", r"#(?=\p{L})", lambda hit: "hashtag "),
            rule(
                "range of days", "l", days(self.table.days), lambda hit: said_days(hit, self.table.days, "a")
            ),
            rule("round the clock", "d", r"24/7(?![\d/])", lambda hit: "veinticuatro siete"),
            rule(
                "slash",
                "s",
                r"(?<=\p{L})/(?=\p{L})",
                lambda hit: (
                    " o "
                    if not regex.search(r"\by$", hit.string[max(0, hit.start() - 2) : hit.start()])
                    else " "
                ),
            ),
            rule(
                "dimensions",
                "d",
                _DIMENSIONS,
                lambda hit: f"{self.say(hit['a'])} por ",
            ),
        ]
        return super().rules(own)

    def spoken_time(self, hour: int, minute: int, second: str | None = None) -> str:
        """Las catorce y treinta."""
        hours = self.agree(cardinal("es", hour), "f")
        if not minute:
            return f"{hours} en punto"
        return f"{hours} y {cardinal('es', minute)}"

    def telephone_if(self, hit: Match) -> str | None:
        """Only where the words before speak of a telephone, or the grouping is no number's."""
        before = hit.string[max(0, hit.start() - 40) : hit.start()].lower()
        if regex.fullmatch(r"\d{3} \d{3} \d{3}", hit["p"]) and not regex.search(
            r"tel|llam|móvil|número|marca|contact|fax|\+34", before
        ):
            return None
        return self.digits(hit["p"])

    def ordinal_mark(self, hit: Match) -> str | None:
        """1.º, 3.er, 2ª."""
        mark, number = hit["o"], int(hit["n"])
        word = ordinal("es", number)
        if mark in ("er",):
            return {"primero": "primer", "tercero": "tercer"}.get(word, word)
        if mark in ("ª", "a", "era", "da", "ta", "va", "ma"):
            return regex.sub(r"o\b", "a", word)
        after = hit.string[hit.end() : hit.end() + 3]
        if (
            word in ("primero", "tercero")
            and regex.match(r"␣?\s\p{Ll}", after)
            and not regex.match(r"\s(?:de|y|en|a)\b", hit.string[hit.end() : hit.end() + 4])
        ):
            return word[:-1]
        return word

    def king(self, hit: Match) -> str | None:
        """Felipe VI; beyond ten the plain number."""
        value = roman(hit["r"])
        if value is None:
            return None
        said = ordinal("es", value) if value <= 10 else cardinal("es", value)
        if value <= 10 and regex.match(r"(?:Isabel|Catalina)", hit["w"]):
            said = regex.sub(r"o$", "a", said)
        return f"{hit['w']} {said}"

    def century(self, hit: Match) -> str | None:
        """Siglo XXI."""
        value, second = roman(hit["r"]), roman(hit["r2"]) if hit["r2"] else None
        if value is None:
            return None
        more = "" if second is None else f" {'y' if hit['j'] == 'y' else 'a'} {cardinal('es', second)}"
        return f"{hit['w']} {cardinal('es', value)}{more}"

    def roman_order(self, hit: Match) -> str | None:
        """II Guerra Mundial."""
        value = roman(hit["r"])
        if value is None:
            return None
        word = ordinal("es", value)
        masculine = regex.match(r"\s(?:Congreso|Festival|Reich)", hit.string[hit.end() : hit.end() + 10])
        return (
            regex.sub(r"ro$", "r", word)
            if masculine and value in (1, 3)
            else word
            if masculine
            else regex.sub(r"o\b", "a", word)
        )

    def one(self, hit: Match) -> str | None:
        """21 libros, 1 hora."""
        if regex.match(r"(?:y|de|en|del|por|con|que|es|para|más|o|a|al)\b", hit["w"]) or (
            len(hit["n"]) > 1 and hit["n"][-2] == "1"
        ):
            return None
        return self.whole(
            hit["n"],
            "f" if _is_feminine(hit["w"]) else "m",
        )

    def model_number(self, digits: str) -> str:
        """A number in a name is a number."""
        return self.whole(digits)


_OWN = {"english": English, "german": German, "french": French, "spanish": Spanish}
WESTERN = ("english", "german", "french", "spanish", "italian", "portuguese", "russian", "korean")


@lru_cache(maxsize=16)
def rules_of(language: str) -> Rules:
    """The rules of a language of WESTERN, built once."""
    if language in _OWN:
        return _OWN[language]().rules()
    return Western(table(language)).rules()
