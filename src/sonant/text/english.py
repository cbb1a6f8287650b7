"""What only English does: dates by month and ordinal, a.m. and p.m., decades, feet and inches, kings."""

from __future__ import annotations

import regex

from sonant.text.numerals import cardinal, digits_one_by_one, ordinal, roman, year
from sonant.text.rules import Match, Rules
from sonant.text.tables import table
from sonant.text.western import Western, is_year

_MONTH = (
    "January|February|March|April|May|June|July|August|September|October|November|December|"
    r"(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec)\b\.?"
)
_HALF_DAY = r"(?P<half>[aApP])\.?[mM](?:\.(?=[^\p{Lu}]*(?:\p{Ll}|[,;)]))|\b\.?)"
_RULERS = (
    "Elizabeth|Henry|George|Charles|Edward|Richard|William|James|Mary|Louis|Philip|Felipe|Francis|Napoleon|"
    "Frederick|Friedrich|Wilhelm|Catherine|Peter|Paul|John|Alexander|Nicholas|Ivan|Pius|Benedict|Leo|Gregory|Clement|"
    "Innocent|Urban|Julius|Ptolemy|Ramesses|Ramses|Thutmose|Cleopatra|Darius|Xerxes|Cyrus|Otto|Leopold|Christian|"
    "Gustav|Carl|Karl|Haakon|Olaf|Margaret|Margrethe|Beatrix|Juan|Carlos|Alfonso|Ferdinand|Isabella|Victor|Umberto|"
    "Emmanuel|Joseph|Maximilian|Rudolf|Mehmed|Murad|Selim|Suleiman|Harald|Malcolm|Robert|David|Sixtus|Boniface|"
    "Celestine|Adrian|Stephen|Theodore|Constantine|Justinian|Basil|Michael|Leon|Amenhotep|Mithridates|Antiochus|Seleucus"
)
_TENTH = "Pius|Leo|Charles|Louis|Alfonso|Clement|Gregory|Benedict|Innocent|Ptolemy|Ramesses"
_NUMBERED = (
    "Chapter|chapter|Part|part|Volume|volume|Book|book|Act|act|Scene|scene|Section|section|Article|article|Title|"
    "Phase|phase|Stage|stage|Type|type|Class|class|Level|level|Grade|grade|Round|War|Appendix|appendix|Figure|Table|"
    "Vatican|Mark|Bowl|Fantasy|Division|Tier|Category|Factor|factor|Schedule|Annex|Amendment|Canto|Sonata|Symphony|"
    "Apollo|Saturn|Titan|Rocky|Civilization|Quest|Cohort|Group|Theorem|Lemma|Olympiad|Nerve|nerve|Zone|Region|Page|page|Lesson|Unit"
)
_FRACTION_NAMES = {2: ("half", "halves"), 4: ("quarter", "quarters")}
_DECADES = (
    "",
    "tens",
    "twenties",
    "thirties",
    "forties",
    "fifties",
    "sixties",
    "seventies",
    "eighties",
    "nineties",
)
_STATES = "Ave|Avenue|Blvd|Boulevard|Rd|Road|Ln|Lane|Dr|Drive|Way|Ct|Court|Pl|Place"


class English(Western):
    """English, in American order of dates."""

    def __init__(self) -> None:
        super().__init__(table("english"))

    def rules(self) -> Rules:  # type: ignore[override]
        """The rules of English."""
        rule, n = self.rule, self.n
        day = r"(?P<d>0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
        year_ = r"(?P<y>\d{4}(?!\d))"
        own = [
            rule(
                "date",
                "l",
                rf"(?P<m>{_MONTH})␣{{1,2}}{day}\b(?!:\d|\.\d|,\d{{3}}|␣?(?:%|[ap]\.?m\b|people|men|women|items))(?:␣?[-–]␣?(?P<d2>\d{{1,2}})(?:st|nd|rd|th)?\b)?(?:,?␣{year_})?",
                self.month_day,
            ),
            rule("date", "d", rf"{day}(?:␣of)?␣(?P<m>{_MONTH})(?![\p{{L}}])(?:,?␣{year_})?", self.day_month),
            rule("year", "l", rf"(?P<m>{_MONTH})(?:,|␣of)?␣{year_}", self.month_year),
            rule(
                "time",
                "d",
                rf"(?P<h>0?\d|1\d|2[0-3])(?:[:.](?P<m>[0-5]\d)(?::(?P<s>[0-5]\d))?)?(?:␣?[-–]␣?(?P<h2>\d{{1,2}})(?::(?P<m2>[0-5]\d))?)?␣?{_HALF_DAY}",
                self.half_day,
            ),
            rule(
                "time",
                "d",
                r"(?P<h>0?\d|1\d|2[0-3]):(?P<m>[0-5]\d)␣?[-–]␣?(?P<h2>0?\d|1\d|2[0-3]):(?P<m2>[0-5]\d)(?![\d:])",
                self.time_range,
            ),
            rule("decade", "d", r"(?P<c>1[1-9]|20)(?P<t>\d)0['’]?s\b", self.decade),
            rule("decade", "ds", r"['’]?(?P<t>[1-9])0['’]?s\b(?!␣?(?:timer|limit|delay))", self.short_decade),
            rule("year", "s", r"['’](?P<y>\d{2})(?![\p{L}\d])(?=␣|[,.;!?)\"”]|$|[-–])", self.short_year),
            rule(
                "height",
                "d",
                r"(?P<f>\d{1,2})['′’](?:␣?(?P<i>\d{1,2}(?:\.\d)?)(?:[\"″”]|['′’]{2}|␣?in\b)?)",
                self.height,
            ),
            rule("height", "d", r"(?P<f>\d{1,2})␣?ft\.?␣(?P<i>\d{1,2})␣?in\b\.?", self.feet_inches),
            rule("length", "d", rf"{n('n')}[″](?!\w)", self.inches),
            rule(
                "length",
                "d",
                rf"{n('n')}\"(?=␣(?:x|by|long|wide|tall|deep|pipe|screen|monitor|display|TV|laptop|nails?|pizza|thick|blade)\b)",
                self.inches,
            ),
            rule(
                "blood pressure",
                "d",
                r"(?P<a>\d{2,3})/(?P<b>\d{2,3})(?:␣?(?P<u>mmHg|mm␣Hg))?(?![\d/])",
                self.pressure,
            ),
            rule(
                "number",
                "d",
                r"(?<!\d)24/7(?!\d)(?:/365)?",
                lambda hit: "twenty-four seven" + (" three sixty-five" if hit[0].endswith("365") else ""),
            ),
            rule("date", "d", r"(?<!\d)9/11(?![\d/])", lambda hit: "nine eleven"),
            rule("score", "d", r"(?<![\d/.])(?P<a>\d{1,3}(?:\.\d)?)/(?P<b>5|10|100)(?![\d/])", self.out_of),
            rule(
                "telephone number",
                "ds",
                r"(?P<p>(?:\+?1[ \-.])?\(\d{3}\)[ \-]?\d{3}[-. ]\d{4}(?!\d))",
                self.telephone,
            ),
            rule(
                "telephone number",
                "d",
                r"(?P<p>(?:\+?1[ \-.])?\d{3}([-. ])\d{3}\2\d{4}(?!\d))",
                self.telephone,
            ),
            rule("telephone number", "d", r"(?P<p>1-8\d\d-)(?P<w>[A-Z0-9\-]{4,12})\b", self.vanity),
            rule("telephone number", "d", r"(?<![\d\-])(?P<p>\d{3}-\d{4})(?![\d\-])", self.telephone),
            rule(
                "emergency number",
                "l",
                r"(?P<w>[Cc]all(?:ing|ed)?|[Dd]ial(?:ing|ed|led)?|[Tt]ext|[Ee]xt(?:ension|\.)?|ZIP|zip code|PIN|pin|[Pp]asscode|[Pp]assword|code)(?:␣is|:)?␣(?P<p>\d{3,9})(?!\d|[.,:]\d|␣(?:people|friends|times|clients))",
                self.dialled,
            ),
            rule(
                "roman number",
                "l",
                rf"(?P<w>{_RULERS})␣(?P<r>(?!I␣(?:am|was|have|will|would|think|had|do|can|could|see|know)\b)[IVXLC]{{1,8}})(?P<p>['’]s)?(?![\p{{L}}\p{{N}}.])",
                self.ruler,
            ),
            rule(
                "roman number",
                "l",
                rf"(?P<w>{_RULERS})␣(?P<r>[IVX]{{2,6}})(?P<p>)(?=\.(?:␣|$|\n))",
                self.ruler,
            ),
            rule(
                "roman number",
                "l",
                rf"(?P<w>{_NUMBERED})␣(?P<r>[IVXLC]{{1,8}}|[ivxl]{{1,6}})(?P<p>['’]s)?(?![\p{{L}}\p{{N}}])",
                self.numbered,
            ),
            rule(
                "roman number",
                "l",
                r"(?<=\p{Lu}[\p{L}]{2,20}␣)(?P<r>II|III|IV|VI|VII|VIII|IX|XI|XII|XIII)(?P<p>['’]s)?(?![\p{L}\p{N}])",
                self.bare_roman,
            ),
            rule(
                "roman number",
                "l",
                r"(?P<r>[IVX]{2,6})(?:th|st|nd|rd)?␣(?P<w>century|centuries|Century|Olympiad)",
                self.roman_century,
            ),
            rule(
                "page numbers",
                "l",
                r"(?P<w>lines?|pages?|rooms?|Rooms?|chapters?|verses?)␣(?P<a>\d{1,4})␣?[-–]␣?(?P<b>\d{1,4})(?![\d\-])",
                self.pages,
            ),
            rule(
                "address number",
                "d",
                r"(?P<n>\d{3,4})(?=␣(?:[NSEW]\.?␣)?(?:\p{Lu}[\p{L}]+␣){1,3}(?:St|Street|Ave|Avenue|Blvd|Rd|Road|Ln|Lane|Dr|Drive)\b)",
                lambda hit: self.model_number(hit["n"]),
            ),
            rule("saint or street", "l", r"St\.(?=␣|,|$|\n)", self.saint),
            rule("doctor or drive", "l", r"Dr\.(?=␣|,|$|\n)", self.doctor),
            rule("hash tag", "s", r"#(?=\p{L})", lambda hit: "hashtag "),
            rule(
                "mention",
                "s",
                r"(?<![\p{L}\p{N}])@(?=[\p{L}_])(?P<a>[\p{L}\p{N}_]{1,40}+)",
                lambda hit: "at " + self.spell_address(hit["a"]),
            ),
            rule(
                "thousands",
                "d",
                r"(?P<n>\d{1,3}(?:\.\d{1,2})?)k\b(?!␣?(?:m|g)\b)",
                lambda hit: f"{self.say(hit['n'])} thousand",
            ),
            rule(
                "millions",
                "d",
                r"(?P<n>\d{1,3}(?:\.\d{1,2})?)(?P<m>M|bn|mn|m(?=␣(?:people|users|views|dollars|downloads|years|copies|units)))\b",
                lambda hit: f"{self.say(hit['n'])} {self.table.magnitudes[hit['m']]}",
            ),
            rule(
                "times",
                "d",
                rf"{n('n')}(?:x|×)(?=␣|[,.;!?)]|$)(?!␣?\d)",
                lambda hit: f"{self.say(hit['n'])} times",
            ),
            rule(
                "dimensions",
                "d",
                rf"{n('a')}␣?[x×]␣?{n('b')}(?:␣?[x×]␣?{n('c')})?(?:␣?(?P<u>cm|mm|m|km|in|ft|px|inches|feet)\b)?(?![\p{{L}}\d^⁰¹²³⁴-⁹⁻])",
                self.dimensions,
            ),
            rule(
                "number in groups",
                "d",
                r"(?<![\d.,-])(?!\d{4}-\d\d?-\d\d?(?!\d))(?P<p>\d{1,5}(?:-\d{1,7}){2,5})(?![\d-])",
                lambda hit: self.digits(hit["p"]),
            ),
            rule(
                "number",
                "d",
                r"(?<![\d.,])(?P<n>\d{1,3}(?: \d{3}){2,4})(?! ?\d)(?!,\d)",
                lambda hit: self.whole(hit["n"].replace(" ", "")),
            ),
            rule("programming language", "s", r"(?<=\bC)\+\+", lambda hit: " plus plus"),
            rule("programming language", "s", r"(?<=\b[CF])#(?!\w)", lambda hit: " sharp"),
            rule(
                "months",
                "l",
                r"(?P<a>Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?[-–](?P<b>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b\.?",
                lambda hit: f"{self.month(hit['a'])} to {self.month(hit['b'])}",
            ),
            rule("slash", "s", r"(?<=\p{L})/(?=\p{L})", lambda hit: " slash "),
            rule(
                "number",
                "d",
                r"(?<![\d.,])(?P<n>\d)\.(?P<z>0)(?![\d.])",
                lambda hit: f"{self.say(hit['n'])} point zero",
            ),
            rule(
                "coordinates",
                "d",
                rf"{n('d')}°␣?(?:(?P<m>\d{{1,2}})['′’])?␣?(?:(?P<s>\d{{1,2}}(?:\.\d{{1,4}})?)[\"″”])?␣?(?P<w>[NSEW])\b",
                self.coordinates,
            ),
            rule(
                "angle",
                "d",
                r"(?P<d>\d{1,3})°␣?(?P<m>\d{1,2})['′’](?:␣?(?P<s>\d{1,2})[\"″”])?",
                self.coordinates,
            ),
            rule("abbreviation", "l", r"min\.(?=␣\p{Ll})", lambda hit: "minimum"),
        ]
        return super().rules(own)

    # -- dates -------------------------------------------------------------------------------------

    def month(self, written: str) -> str:
        """A month's full name."""
        t = self.table
        number = t.month_short.get(written.rstrip("."))
        return written if number is None else t.months[number - 1]

    def month_day(self, hit: Match) -> str | None:
        """March 5, 2024; Mar. 5-7."""
        if (
            hit["m"] == "May"
            and hit["y"] is None
            and regex.match(r"\s+(?:be|percent|of)", hit.string[hit.end() : hit.end() + 10])
        ):
            return None
        said = f"{self.month(hit['m'])} {ordinal('en', int(hit['d']))}"
        if hit["d2"]:
            said += f" to {ordinal('en', int(hit['d2']))}"
        return f"{said}, {year('en', int(hit['y']))}" if hit["y"] else said

    def day_month(self, hit: Match) -> str | None:
        """5 March 2024."""
        before = hit.string[max(0, hit.start() - 4) : hit.start()]
        article = "" if before.lower().endswith("the ") else "the "
        said = f"{article}{ordinal('en', int(hit['d']))} of {self.month(hit['m'])}"
        return f"{said}, {year('en', int(hit['y']))}" if hit["y"] else said

    def month_year(self, hit: Match) -> str | None:
        """March 2024."""
        if not is_year(hit["y"]):
            return None
        return f"{self.month(hit['m'])} {year('en', int(hit['y']))}"

    def decade(self, hit: Match) -> str | None:
        """1990s, 1800s, 2000s."""
        century, tens = int(hit["c"]), int(hit["t"])
        if tens:
            return f"{cardinal('en', century)} {_DECADES[tens]}"
        return "two thousands" if century == 20 else f"{cardinal('en', century)} hundreds"

    def short_decade(self, hit: Match) -> str | None:
        """'90s, in her 30s."""
        return _DECADES[int(hit["t"])]

    def short_year(self, hit: Match) -> str | None:
        """'98."""
        digits = hit["y"]
        return (
            f"oh {cardinal('en', int(digits))}" if digits[0] == "0" and digits != "00" else self.whole(digits)
        )

    # -- times -------------------------------------------------------------------------------------

    def spoken_time(self, hour: int, minute: int, second: str | None = None, *, half: str = "") -> str:
        """Seven thirty, fourteen oh five, seven o'clock."""
        said = "zero" if hour == 0 and not half else cardinal("en", hour)
        if minute:
            said += f" oh {cardinal('en', minute)}" if minute < 10 else f" {cardinal('en', minute)}"
        elif not half:
            said = (
                f"{said} o'clock"
                if 0 < hour <= 12
                else f"{said} hundred hours"
                if hour == 0
                else f"{said} hundred"
            )
        if second and int(second):
            said += " and " + self.counted(str(int(second)), self.table.noun("second/seconds"))
        return f"{said} {half}".strip()

    def half_day(self, hit: Match) -> str | None:
        """5pm, 7:30 a.m., 9-11 am."""
        half = hit["half"].upper() + "M"
        rest = hit.string[hit.end() : hit.end() + 4]
        stop = (
            "."
            if hit[0].endswith(".") and (not rest.strip() or regex.match(r"[\"”’)]*\s+\p{Lu}", rest))
            else ""
        )
        if hit["h2"]:
            first = self.spoken_time(int(hit["h"]), int(hit["m"] or 0), half=" ").strip()
            return f"{first} to {self.spoken_time(int(hit['h2']), int(hit['m2'] or 0), half=half)}{stop}"
        return self.spoken_time(int(hit["h"]), int(hit["m"] or 0), hit["s"], half=half) + stop

    def time_range(self, hit: Match) -> str | None:
        """9:00-17:30."""
        return f"{self.spoken_time(int(hit['h']), int(hit['m']))} to {self.spoken_time(int(hit['h2']), int(hit['m2']))}"

    # -- measures ------------------------------------------------------------------------------------

    def height(self, hit: Match) -> str | None:
        """6'2"."""
        inches = hit["i"]
        before = hit.string[max(0, hit.start() - 1) : hit.start()]
        if before and before in "'’":
            return None
        return f"{self.say(hit['f'])} foot {self.say(inches)}"

    def feet_inches(self, hit: Match) -> str | None:
        """6 ft 2 in."""
        t = self.table
        return (
            f"{self.counted(hit['f'], t.noun('foot/feet'))} {self.counted(hit['i'], t.noun('inch/inches'))}"
        )

    def inches(self, hit: Match) -> str | None:
        """27"."""
        return (
            f"{self.say(hit['n'])} inch"
            if hit[0].endswith('"')
            else self.counted(hit["n"], self.table.noun("inch/inches"))
        )

    def pressure(self, hit: Match) -> str | None:
        """120/80 mmHg."""
        above, below = int(hit["a"]), int(hit["b"])
        around = hit.string[max(0, hit.start() - 40) : hit.start()].lower()
        if not hit["u"] and not ("pressure" in around or "bp" in around):
            return None
        unit = " " + "millimeters of mercury" if hit["u"] else ""
        return f"{cardinal('en', above)} over {cardinal('en', below)}{unit}"

    def out_of(self, hit: Match) -> str | None:
        """8/10, 4.5/5."""
        above, below = float(hit["a"]), int(hit["b"])
        around = hit.string[max(0, hit.start() - 24) : hit.start()].lower()
        rated = regex.search(
            r"\b(?:rat(?:ed|ing)|scor(?:e|ed|ing)|got|gave|give|gives|solid|grade|review|stars?|mark)\b",
            around,
        )
        if "." not in hit["a"] and above < below and not rated:
            return None
        return f"{self.say(hit['a'])} out of {self.say(hit['b'])}"

    def dimensions(self, hit: Match) -> str | None:
        """4x4, 1920×1080, 5 x 7 cm."""
        is_product = regex.match(r"␣?\s?=", hit.string[hit.end() : hit.end() + 3])
        word = "times" if is_product else "by"
        say = self.model_number if len(hit["a"]) == 4 and not hit["u"] and not is_product else self.say
        said = f" {word} ".join(
            say(part) if part.isdigit() else self.say(part) for part in (hit["a"], hit["b"], hit["c"]) if part
        )
        if hit["u"]:
            noun = self.unit_noun(hit["u"]) or self.table.noun(
                {"in": "inches", "inches": "inches"}.get(hit["u"], hit["u"])
            )
            said += f" {noun.forms[-1]}"
        return said

    def coordinates(self, hit: Match) -> str | None:
        """40°42'N."""
        groups = hit.groupdict()
        t = self.table
        said = [self.counted(hit["d"], t.noun("degree/degrees"))]
        if groups["m"]:
            said.append(self.counted(str(int(hit["m"])), t.noun("minute/minutes")))
        if groups["s"]:
            said.append(self.counted(hit["s"], t.noun("second/seconds")))
        if groups.get("w"):
            said.append({"N": "north", "S": "south", "E": "east", "W": "west"}[hit["w"]])
        return " ".join(said)

    # -- numbers -------------------------------------------------------------------------------------

    def year_or_number(self, hit: Match) -> str | None:
        """Four digits are a year unless they count something."""
        digits = hit["n"]
        said = super().year_or_number(hit)
        if said is not None or not is_year(digits):
            return said
        after = hit.string[hit.end() : hit.end() + 24]
        counts = regex.match(r"\s+(?:\p{Ll}+\s+)?(?:people|men|women|children|\p{Ll}{2,}(?<!s)s)\b", after)
        if counts or regex.match(r"\s*(?:[+*×÷=<>]|\p{Ll}{1,3}\b)", after):
            verb = regex.match(
                r"\s+(?:was|is|has|had|did|saw|were|to|and|or|as|by|in|on|at|of|the|a|for|it|he|she|we|will)\b",
                after,
            )
            return year("en", int(digits)) if verb else None
        return year("en", int(digits))

    def fraction(self, above: int, below: int) -> str:
        """Three quarters, five twelfths."""
        one, many = _FRACTION_NAMES.get(below) or (ordinal("en", below), ordinal("en", below) + "s")
        return f"{cardinal('en', above)} {one if above == 1 else many}"

    def mixed(self, whole: str, above: int, below: int) -> str:
        """Two and three quarters."""
        said = f"a {self.fraction(above, below)[4:]}" if above == 1 else self.fraction(above, below)
        return f"{self.say(whole)} and {said}"

    def plain_fraction(self, above: int, below: int) -> str:
        """Seven over three."""
        return f"{self.whole(str(above))} over {self.whole(str(below))}"

    def raised(self, exponent: str) -> str:
        """Squared, cubed, to the fifth."""
        if exponent in "23":
            return "squared" if exponent == "2" else "cubed"
        digits = exponent.lstrip("+-")
        if not digits.isdigit():
            return f"to the {digits}"
        minus = "minus " if exponent.startswith("-") else ""
        return f"to the power of {minus}{self.whole(digits)}"

    def power_of_ten(self, hit: Match) -> str | None:
        """6.02×10²³: always to the power of."""
        said = super().power_of_ten(hit)
        return said and said.replace("ten squared", "ten to the power of two").replace(
            "ten cubed", "ten to the power of three"
        )

    def pages(self, hit: Match) -> str | None:
        """pages 12-15."""
        return f"{hit['w']} {self.say(hit['a'])} to {self.say(hit['b'])}"

    def dialled(self, hit: Match) -> str | None:
        """Call 911."""
        word = "extension" if hit["w"].lower().startswith("ext") and hit["w"].endswith(".") else hit["w"]
        return f"{word} {digits_one_by_one('en', hit['p'])}"

    def vanity(self, hit: Match) -> str | None:
        """1-800-FLOWERS."""
        word = hit["w"]
        rest = (
            self.digits(word)
            if regex.fullmatch(r"[\d\-]+", word)
            else " ".join(
                digits_one_by_one("en", p) if p.isdigit() else p for p in regex.findall(r"\d+|[A-Z]+", word)
            )
        )
        return f"{self.digits(hit['p'])}, {rest}"

    # -- Roman numbers, abbreviations with two meanings ------------------------------------------------

    def ruler(self, hit: Match) -> str | None:
        """Elizabeth II's."""
        value = roman(hit["r"])
        if hit["r"] in ("C", "L") or (hit["r"] == "X" and not regex.match(_TENTH, hit["w"])):
            return None
        return f"{hit['w']} the {ordinal('en', value)}{hit['p'] or ''}" if value else None

    def numbered(self, hit: Match) -> str | None:
        """World War II, Chapter IV."""
        value = roman(hit["r"])
        after = hit.string[hit.end() : hit.end() + 12]
        if hit["r"] == "i" and hit["w"] not in ("Scene", "scene", "page", "Page"):
            return None
        if value is None or (
            hit["r"] == "I" and regex.match(r"[ ]\p{Ll}", after) and hit["w"] not in ("War", "Chapter")
        ):
            return None
        return f"{hit['w']} {cardinal('en', value)}{hit['p'] or ''}"

    def bare_roman(self, hit: Match) -> str | None:
        """Something II."""
        value = roman(hit["r"])
        return cardinal("en", value) + (hit["p"] or "") if value else None

    def roman_century(self, hit: Match) -> str | None:
        """XIX century."""
        value = roman(hit["r"])
        return f"{ordinal('en', value)} {hit['w']}" if value else None

    def saint(self, hit: Match) -> str | None:
        """St. Paul, Main St."""
        text, start, end = hit.string, hit.start(), hit.end()
        before = text[max(0, start - 24) : start]
        after = text[end : end + 24]
        name_follows = regex.match(r"[ \u00a0]\p{Lu}\p{Ll}", after)
        name_before = regex.search(r"(?:\p{Lu}[\p{L}]+|\d(?:st|nd|rd|th))[ \u00a0]$", before)
        starts_sentence = regex.search(r"(?:^|[.!?]\s+)\p{L}+[ \u00a0]$", before)
        if name_before and not (name_follows and (starts_sentence or not regex.search(r"\d", before))):
            return "Street" + self._stop_after(hit)
        return "Saint" if name_follows else "Street" + self._stop_after(hit)

    def doctor(self, hit: Match) -> str | None:
        """Dr. Who, Elm Dr."""
        text, start, end = hit.string, hit.start(), hit.end()
        before = text[max(0, start - 24) : start]
        if regex.match(r"[ \u00a0]\p{Lu}", text[end : end + 3]) and not regex.search(
            r"\d[^,.;]{1,18}$", before
        ):
            return "Doctor"
        if regex.search(r"\p{Lu}[\p{L}]+[ \u00a0]$", before):
            return "Drive" + self._stop_after(hit)
        return "Doctor"

    @staticmethod
    def _stop_after(hit: Match) -> str:
        rest = hit.string[hit.end() : hit.end() + 4]
        return "." if not rest.strip() or regex.match(r"\s+\p{Lu}", rest) else ""
