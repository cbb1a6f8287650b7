"""What only English does: dates by month and ordinal, a.m. and p.m., decades, feet and inches, kings."""

from __future__ import annotations

import regex

from sonant.text.numerals import cardinal, digits_one_by_one, ordinal, roman, year
from sonant.text.rules import Match, Rules
from sonant.text.tables import table
from sonant.text.western import Western, day_names, days, is_year, said_days

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
_AFTER_PART_I = r" (?:is|of|and|or|has|begins|ends|starts|covers|felon|error|diabetes|device|evidence|rail)"
_FRACTION_NAMES = {2: ("half", "halves"), 4: ("quarter", "quarters")}
_STATES = "Ave|Avenue|Blvd|Boulevard|Rd|Road|Ln|Lane|Dr|Drive|Way|Ct|Court|Pl|Place"


_BOOKS = (
    "Genesis|Exodus|Leviticus|Numbers|Deuteronomy|Joshua|Judges|Ruth|Samuel|Kings|Chronicles|Ezra|Nehemiah|Esther|Job|"
    "Psalms?|Proverbs|Ecclesiastes|Isaiah|Jeremiah|Ezekiel|Daniel|Hosea|Joel|Amos|Micah|Zechariah|Malachi|Matthew|Mark|"
    "Luke|John|Acts|Romans|Corinthians|Galatians|Ephesians|Philippians|Colossians|Thessalonians|Timothy|Titus|Hebrews|"
    "James|Peter|Jude|Revelation|Surah|Quran"
)
_IDENTIFIED = (
    r"Boeing|Airbus|[Ff]light(?:␣[A-Z]{2})?|[Hh]ighway|Hwy\.?|[Rr]oute|Interstate|[Rr]oom|[Ss]uite|[Aa]partment|"
    r"[Ee]xtension|[Tt]rain|[Bb]us"
)
_MEASURED_THINGS = (
    "battery|bulb|adapter|charger|supply|outlet|socket|engine|motor|drive|card|stick|phone|laptop|screen|display|monitor|"
    "lens|pool|race|sprint|dash|freestyle|relay|hurdles|radius|tank|bag|bottle|pack|box|jar|ruler|rope|cable|fence|wall"
)
_PLURALS = r"Wars|Parts|Chapters|[Vv]olumes|Vols\.|Books|Acts|[Tt]ypes|Phases|Articles|Sections|Titles|Levels|Classes"
_VERBS_AND_PREPOSITIONS = (
    "of|from|for|and|or|per|is|are|was|were|has|had|will|would|can|could|may|might|must|should|did|does|do|away|tall|wide|"
    "high|deep|thick|long|ago|later|apart|in|on|at|to|with|by|we|they|it|you|he|she|that|which|than|as|but|if|when|so|"
    "every|each|below|above|over|under|off|out|up|down|more|less|ahead|behind|north|south|east|west|into|through|along|"
    "took|takes|felt|feels|seemed|seems|ran|runs|flew|cost|costs|left|became|began|gave|gives|got|kept|went|means|meant|"
    "looks|remain|remains|paid|spent|early|late|straight|back|again|\\p{Ll}{3,}ed|across|around|after|before|until|goes|"
    "came|comes|made|fell|rose|too|only|not|already|just|extra|total"
)


_PER = {
    "m.p.h": "mile per hour/miles per hour", "k.p.h": "kilometer per hour/kilometers per hour",
    "m.p.g": "mile per gallon/miles per gallon",
}  # fmt: skip
_DEGREES = {"F": "Fahrenheit", "C": "Celsius"}


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
                "range of days", "l", days(self.table.days), lambda hit: said_days(hit, self.table.days, "to")
            ),
            rule(
                "day",
                "l",
                rf"(?P<a>{day_names(self.table.days)})\.?(?=,?␣(?:(?:{_MONTH})(?:\b|␣)|\d{{1,2}}(?:st|nd|rd|th)?␣(?:{_MONTH})))",
                lambda hit: self.table.days[hit["a"]],
            ),
            rule("day", "l", r"(?P<a>Sat|Sun)\.(?=[,;)])", lambda hit: self.table.days[hit["a"]]),
            rule(
                "day",
                "l",
                r"(?<=(?:Mon|Tues?|Wed|Thu(?:rs)?|Fri|Sat)\.?,?␣(?:and␣|or␣)?)(?P<a>Sat|Sun)\.(?P<e>␣*$)?",
                lambda hit: self.table.days[hit["a"]] + ("." if hit["e"] is not None else ""),
            ),
            rule(
                "verse",
                "l",
                rf"(?P<w>{_BOOKS})␣(?P<c>\d{{1,3}}):(?P<v>\d{{1,3}})(?:[-–](?P<v2>\d{{1,3}}))?(?![\d:])",
                self.verse,
            ),
            rule(
                "time",
                "d",
                rf"(?P<h>0?\d|1\d|2[0-3])(?:[:.](?P<m>[0-5]\d))?␣?(?P<first>[aApP])\.?[mM]\.?␣?[-–]␣?(?P<h2>\d{{1,2}})(?:[:.](?P<m2>[0-5]\d))?␣?{_HALF_DAY}",
                self.half_days,
            ),
            rule(
                "duration",
                "d",
                r"(?P<h>\d{1,3})␣?(?:h|hrs?)␣?(?P<m>\d{1,2})␣?(?:m|mins?)\b(?:␣?(?P<s>\d{1,2})␣?(?:s|secs?)\b)?",
                self.duration,
            ),
            rule(
                "amount of money",
                "s",
                r"(?P<c>[€£$])␣?(?P<n>\d{1,3}(?:\.\d{3}){0,4},\d{2})(?![\d,])",
                self.comma_money,
            ),
            rule(
                "amount of money",
                "d",
                r"(?P<n>\d{1,3}(?:\.\d{3}){0,4},\d{2})␣?(?P<c>[€£])",
                self.comma_money,
            ),
            rule(
                "attribute",
                "l",
                rf"(?P<w>[Aa]n?|[Tt]he|[Tt]his|[Tt]hat)␣{n('n')}␣?(?P<u>mm|cm|m|km|kg|g|lb|oz|W|kW|V|GB|TB|MB|GHz|MHz|Hz|mph|ft|mi|ml|mL|L|min|hr|acre)(?=␣(?!(?:{_VERBS_AND_PREPOSITIONS})\b)\p{{Ll}}{{3,}})",
                self.attribute,
            ),
            rule(
                "attribute",
                "l",
                rf"(?P<w>[Aa]n?|[Tt]he|[Tt]his|[Tt]hat)␣(?P<c>[€£$]){n('n')}(?P<mag>␣?(?:k|m|M|mn|bn|B|million|billion|trillion)\b)?(?=␣(?!(?:{_VERBS_AND_PREPOSITIONS}|k|m|bn|million|billion|trillion)\b)\p{{Ll}}{{3,}})",
                self.money_attribute,
            ),
            rule(
                "attribute",
                "d",
                rf"(?P<w>){n('n')}␣?(?P<u>m|cm|km|kg|g|W|kW|V|GB|TB|MB|GHz|Hz|ft|ml|L|l)(?=␣(?:{_MEASURED_THINGS})\b)",
                self.attribute,
            ),
            rule(
                "roman number",
                "l",
                rf"(?P<w>{_PLURALS})␣(?P<r>[IVX]{{1,5}})(?P<j>,␣|␣and␣|␣or␣|␣to␣|␣?[-–]␣?)(?P<r2>[IVX]{{1,5}})(?:(?P<j2>,?␣and␣|,?␣or␣)(?P<r3>[IVX]{{1,5}}))?(?![\p{{L}}\p{{N}}])",
                self.numbered_pair,
            ),
            rule(
                "roman number",
                "l",
                rf"(?P<t>King|Queen|Pope|Emperor|Empress|Tsar|Czar|Sultan)␣(?P<w>{_RULERS})␣I(?=[.,;!?)]|$)",
                lambda hit: f"{hit['t']} {hit['w']} the first",
            ),
            rule(
                "roman number",
                "l",
                r"(?<=\p{Lu}\p{Ll}{1,20}␣)the␣(?P<r>[IVX]{2,6})(?:th|st|nd|rd)?(?![\p{L}\p{N}])",
                lambda hit: f"the {ordinal('en', value)}" if (value := roman(hit["r"])) else None,
            ),
            rule(
                "speed",
                "sd",
                rf"{n('n')}␣?(?P<u>m\.p\.h|k\.p\.h|m\.p\.g)\.(?P<e>␣*$)?",
                lambda hit: (
                    self.counted(hit["n"], self.table.noun(_PER[hit["u"]]))
                    + ("." if hit["e"] is not None else "")
                ),
            ),
            rule(
                "unit",
                "l",
                r"degrees␣(?P<u>[FC])(?![\p{L}\p{N}])",
                lambda hit: f"degrees {_DEGREES[hit['u']]}",
            ),
            rule("range", "l", r"(?P<a>[Nn]oon|[Mm]idnight)␣?[-–]␣?(?=\d)", lambda hit: f"{hit['a']} to "),
            rule("range of days", "l", r"M[-–]F(?=␣\d|[,.;:)]|$)", lambda hit: "Monday to Friday"),
            rule(
                "amount of money",
                "s",
                rf"(?P<c>[€£$]){n('n')}(?P<mag>k|m|M|bn|B)?␣?[-–]␣?(?P=c)?{n('n2')}(?P<mag2>k|m|M|bn|B)(?![\p{{L}}\p{{N}}])",
                self.money_range,
            ),
            rule(
                "fraction",
                "d",
                r"(?<![\d/.,])(?P<a>\d{1,2})/(?P<b>\d{1,2})(?:rds?|ths?|nds?)(?!\p{L})",
                lambda hit: self.fraction(int(hit["a"]), int(hit["b"])) if int(hit["b"]) > 1 else None,
            ),
            rule(
                "length",
                "d",
                r"(?<![\d/.,])(?:(?P<w>\d{1,3})[ \-](?=\d/))?(?P<a>\d{1,2})/(?P<b>2|4|8|16|32|64)(?:[″]|\"|␣?in\b\.?)(?![\p{L}\p{N}])",
                self.inch_fraction,
            ),
            rule("lumber", "d", r"(?P<a>[124])x(?P<b>\d{1,2})s\b", self.lumber),
            rule(
                "postal code",
                "d",
                r"(?<=(?:[A-Z]{2}|[A-Z]\.[A-Z]\.)␣)(?P<n>\d{5})(?:-(?P<m>\d{4}))?(?![\d\-]|[.,]\d|␣(?:people|\p{Ll}+s\b))",
                lambda hit: self.digits(hit[0]),
            ),
            rule("star", "s", r"(?<=(?:[Dd]ial|[Pp]ress|[Ee]nter|[Hh]it)␣(?:the␣)?)\*", lambda hit: "star "),
            rule(
                "hash", "s", r"(?<=(?:[Dd]ial|[Pp]ress|[Ee]nter|[Hh]it)␣(?:the␣)?)#(?!\w)", lambda hit: "hash"
            ),
            rule(
                "number of a thing",
                "l",
                rf"(?P<w>{_IDENTIFIED})␣(?P<n>[1-9]\d\d)(?![\d%°]|[.,:]\d|-)",
                lambda hit: f"{hit['w']} {self.identified(hit['n'])}",
            ),
            rule(
                "number of a thing",
                "l",
                r"(?P<w>[AB])(?P<n>[1-9]\d\d)(?![\p{L}\d])",
                lambda hit: f"{hit['w']} {self.identified(hit['n'])}",
            ),
            rule("standard", "l", r"(?P<w>H)\.(?P<n>\d{3})\b", lambda hit: f"H {self.digits(hit['n'])}"),
            rule("halves", "d", r"(?<![\d-])50[-–]50(?![\d-])", lambda hit: "fifty-fifty"),
            rule(
                "dimensions",
                "ls",
                r"(?<=\d␣?(?:mm|cm|m|km|in|ft|inches|feet|meters|metres)␣)[x×](?=␣\d)",
                lambda hit: "by",
            ),
            rule(
                "number",
                "d",
                r"(?<![\d.,])(?P<n>\d{1,3}(?:[ \u00a0\u202f\u2009]000)+|\d{1,3}(?:[\u00a0\u202f\u2009’']\d{3})+)(?![\d.,'’]\d| ?\d)",
                lambda hit: self.whole(regex.sub(r"\D", "", hit["n"])),
            ),
            rule(
                "telephone number",
                "s",
                r"(?P<p>\(0\d{1,4}\)[ \-]?\d{3,4}[ \-]?\d{3,4})(?!\d)",
                self.telephone,
            ),
            rule("abbreviation", "l", r"(?<!\d␣)[Mm]in\.(?=␣?\d)", lambda hit: "minimum"),
            rule("letters", "l", r"AT&T\b", lambda hit: "A T and T"),
            rule(
                "slash",
                "l",
                r"(?P<a>[Hh]e|[Ss]he|[Hh]is|[Hh]im|[Hh]er|[Yy]es|[Tt]rue|[Oo]n)/(?P<b>she|he|hers?|his|him|no|false|off)(?!\p{L})",
                lambda hit: f"{hit['a']} or {hit['b']}",
            ),
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
                r"(?P<f>\d{1,2})['′’](?:␣?(?P<i>\d{1,2}(?:\.\d)?)(?!\d)(?:[\"″”]|['′’]{2}|␣?in\b)?)",
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
                rf"{n('n')}(?:x|×)(?=␣|[,.;!?)]|$)(?!␣?[\d+*/=^−-])",
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
            rule(
                "slash",
                "s",
                rf"(?<=\p{{L}})/(?!(?:{self.table.letters['per_words']})(?!\p{{L}}))(?=\p{{L}})",
                lambda hit: " slash ",
            ),
            rule(
                "number",
                "d",
                r"(?<![\d.,])(?P<n>\d)\.(?P<z>0)(?![\d.eE])",
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
            return f"{cardinal('en', century)} {self.table.decades[tens]}"
        return "two thousands" if century == 20 else f"{cardinal('en', century)} hundreds"

    def short_decade(self, hit: Match) -> str | None:
        """'90s, in her 30s."""
        return self.table.decades[int(hit["t"])]

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

    def half_days(self, hit: Match) -> str | None:
        """9am-5pm."""
        first = self.spoken_time(int(hit["h"]), int(hit["m"] or 0), half=hit["first"].upper() + "M")
        rest = hit.string[hit.end() : hit.end() + 4]
        stop = "." if hit[0].endswith(".") and (not rest.strip() or regex.match(r"\s+\p{Lu}", rest)) else ""
        last = self.spoken_time(int(hit["h2"]), int(hit["m2"] or 0), half=hit["half"].upper() + "M")
        return f"{first} to {last}{stop}"

    def duration(self, hit: Match) -> str | None:
        """1h 30m."""
        t = self.table
        said = [
            self.counted(hit["h"], t.noun("hour/hours")),
            self.counted(hit["m"], t.noun("minute/minutes")),
        ]
        if hit["s"]:
            said.append(self.counted(hit["s"], t.noun("second/seconds")))
        return " ".join(said)

    def verse(self, hit: Match) -> str | None:
        """Psalm 23:4, John 3:16-18."""
        said = f"{hit['w']} {self.say(hit['c'])} {self.say(hit['v'])}"
        return f"{said} to {self.say(hit['v2'])}" if hit["v2"] else said

    # -- measures ------------------------------------------------------------------------------------

    def height(self, hit: Match) -> str | None:
        """6'2"."""
        inches = hit["i"]
        before = hit.string[max(0, hit.start() - 1) : hit.start()]
        if before and before in "'’":
            return None
        return f"{self.say(hit['f'])} foot {self.say(inches)}"

    def comma_money(self, hit: Match) -> str | None:
        """€5,50 as it is written on the continent."""
        return self.money(hit["n"].replace(".", "").replace(",", "."), hit["c"], None)

    def attribute(self, hit: Match) -> str | None:
        """A 60W bulb: a unit before the noun that it describes has no plural."""
        noun = self.unit_noun(hit["u"])
        return f"{hit['w']} {self.say(hit['n'])} {noun.forms[0]}".lstrip() if noun else None

    def money_attribute(self, hit: Match) -> str | None:
        """The €50 note, a £1.5m deal."""
        t = self.table
        word = t.magnitudes.get((hit["mag"] or "").strip())
        if (hit["mag"] and word is None) or (not hit["mag"] and "." in hit["n"]):
            return None
        amount = self.magnitude(hit["n"], word) if word else self.say(hit["n"])
        return f"{hit['w']} {amount} {t.money_nouns(hit['c'])[0].forms[0]}"

    def money_range(self, hit: Match) -> str | None:
        """£10k-£15k."""
        t = self.table
        low, high = t.magnitudes.get(hit["mag"] or ""), t.magnitudes.get(hit["mag2"])
        if high is None:
            return None
        first = self.magnitude(hit["n"], low) if low and low != high else self.say(hit["n"])
        return f"{first} {t.to} {self.magnitude(hit['n2'], high)} {t.money_nouns(hit['c'])[0].forms[-1]}"

    def inch_fraction(self, hit: Match) -> str | None:
        """1/4", 7 1/2 in."""
        before = hit.string[max(0, hit.start() - 300) : hit.start()]
        if hit[0].endswith('"') and len(regex.findall(r'(?<!\d)"', before)) % 2:
            return None  # it closes a quotation
        stop = "." if hit[0].endswith(".") and not hit.string[hit.end() :].strip() else ""
        if hit["w"]:
            return f"{self.mixed(hit['w'], int(hit['a']), int(hit['b']))} inches{stop}"
        return f"{self.fraction(int(hit['a']), int(hit['b']))} inch{stop}"

    def lumber(self, hit: Match) -> str | None:
        """2x4s: two by fours."""
        last = self.whole(hit["b"])
        return f"{self.whole(hit['a'])} by {last}{'es' if last.endswith('x') else 's'}"

    def numbered_pair(self, hit: Match) -> str | None:
        """World Wars I and II, Vols. I-III."""
        values = [roman(hit[name]) for name in ("r", "r2", "r3") if hit[name]]
        if not all(values):
            return None
        joint = " to " if hit["j"].strip() in ("-", "–") else hit["j"]
        words = [cardinal("en", value or 0) for value in values]
        said = f"{'volumes' if hit['w'] == 'Vols.' else hit['w']} {words[0]}{joint}{words[1]}"
        return f"{said}{hit['j2']}{words[2]}" if hit["r3"] else said

    def mixed_word(self, hit: Match) -> str | None:
        """B747, US-101, 221B: three digits go in two parts."""
        said = regex.sub(
            r"(?<![0-9.])[1-9][0-9]{2}(?![0-9.])", lambda run: f" {self.identified(run[0])} ", hit[0]
        )
        if said == hit[0]:
            return super().mixed_word(hit)
        pieces = regex.findall(r"[\p{L}\p{M} ]+|[0-9]+(?:\.[0-9]+)?", said)
        words = [
            self.say(p) if p[0].isdigit() and len(p) < 4 else self.model_number(p) if p[0].isdigit() else p
            for p in pieces
        ]
        return " ".join(" ".join(words).split())

    def end_of_range(self, digits: str) -> str:
        """2008-09: oh nine."""
        return f"oh {self.whole(digits[1])}" if digits[0] == "0" and digits != "00" else self.whole(digits)

    def identified(self, digits: str) -> str:
        """Three digits of a flight, a room or a road: seven thirty-seven, one oh one, six hundred."""
        if digits[1:] == "00":
            return self.whole(digits)
        low = f"oh {self.whole(digits[2])}" if digits[1] == "0" else self.whole(digits[1:])
        return f"{self.whole(digits[0])} {low}"

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
        counts = hit["w"] in ("War", "Chapter") or regex.match(_AFTER_PART_I, after)
        if value is None or (hit["r"] == "I" and regex.match(r"[ ]\p{Ll}", after) and not counts):
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
