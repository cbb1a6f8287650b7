"""How Chinese reads numbers, dates, times, money, units and signs.

Source of the readings: GB/T 15835 on numerals, and what a broadcaster says: telephone numbers with 幺, two of a
thing as 两, years and rooms digit by digit.
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib.resources import files

import regex

from sonant.text.numerals import chinese, chinese_digits, roman
from sonant.text.rules import Match, Read, Rule, Rules
from sonant.text.tables import alternatives
from sonant.text.western import DOMAINS, SUBSCRIPT, SUPERSCRIPT

_N = r"(?:\d{1,3}(?:,\d{3})++(?![\d])(?:\.\d{1,15}+)?|\d{1,40}+(?:\.\d{1,15}+(?!\.?\d))?)"
_DASH = r"\s?(?:[-–—~～〜−]|——)\s?"
_MINUS = r"(?P<sign>(?<![A-Za-z\p{N}.,)\]）%℃])[-−－](?=[\d$￥¥€£]))"
_MEASURE = (
    "个|位|名|只|条|张|本|件|间|家|辆|台|座|栋|匹|头|棵|朵|片|块|双|对|套|份|杯|瓶|碗|盘|盒|箱|包|袋|把|根|支|枝|首|部|篇|"
    "个月|天|年|周|星期|小时|分钟|秒钟|点|次|遍|回|趟|场|种|类|项|句|段|层|倍|人|口|岁|元|块钱|斤|公斤|千克|吨|米|公里|升|里|亩|克|寸|"
    "万|亿|千|度|颗|粒|滴|门|枚|艘|架|顶|扇|面|笔|批|群|排|组|些|半|步|声|眼|拳|脚|顿|餐|夜|晚|季|集|厘米|毫米|平方米|立方米|顷|国|省|市|县|村|校|厅|室|字|行|页"
)
_BIG = "万亿|千亿|百亿|十亿|亿|千万|百万|十万|万|千|百"
_TABLE = tomllib.loads(files("sonant.text").joinpath("tables", "chinese.toml").read_text(encoding="utf-8"))
_UNITS: dict[str, str] = _TABLE["units"]
_MONEY: dict[str, str] = _TABLE["currencies"]
_SIGNS: dict[str, str] = _TABLE["signs"]
_ADDRESS: dict[str, str] = _TABLE["address"]
_FRACTIONS: dict[str, str] = _TABLE["fractions"]


def say(written: str) -> str:
    """A number as it is written, in characters."""
    whole, _, fraction = written.partition(".")
    whole = regex.sub(r"[^0-9]", "", whole) or "0"
    said = chinese(whole)
    return f"{said}点{chinese_digits(fraction)}" if fraction else said


def counted(written: str) -> str:
    """A number before what it counts: two is 两."""
    return "两" if written == "2" else say(written)


def signed(hit: Match, said: str) -> str:
    """With the minus before it."""
    return f"负{said}" if hit.groupdict().get("sign") else said


def phone(written: str) -> str:
    """A telephone number: one is 幺."""
    plus = "加" if written.lstrip("(（").startswith("+") else ""
    runs = regex.findall(r"\d+", written)
    return (
        plus + "，".join(chinese_digits(run, one="幺") for run in runs)
        if len(runs) > 1
        else plus + chinese_digits(runs[0], one="幺")
    )


def _unit(symbol: str) -> str | None:
    symbol = symbol.strip()
    if symbol in _UNITS:
        return _UNITS[symbol]
    if "/" in symbol:
        above, _, below = symbol.partition("/")
        up, down = _unit(above), _unit(below)
        return f"{up}每{down}" if up and down else None
    power = regex.match(r"(.+?)([²³23])$", symbol)
    base = _unit(power[1]) if power else None
    if power and base:
        return ("平方" if power[2] in "²2" else "立方") + base
    return None


def _percent(hit: Match) -> str:
    kind = {"%": "百分之", "％": "百分之", "‰": "千分之"}[hit["u"]]
    said = kind + say(hit["n"])
    if hit["n2"]:
        said += "到" + kind + say(hit["n2"])
    return f"负{said}" if hit["sign"] else said


def _with_unit(hit: Match) -> str | None:
    unit = _unit(hit["unit"])
    if unit is None:
        return None
    if hit["n2"]:
        return signed(hit, f"{say(hit['n'])}到{say(hit['n2'])}{unit}")
    if unit == "摄氏度" and hit["sign"]:
        return f"零下{say(hit['n'])}{unit}"
    number = counted(hit["n"]) if not hit["big"] else say(hit["n"]) + hit["big"]
    return signed(hit, f"{number}{unit}")


def _money(hit: Match) -> str:
    unit = _MONEY[hit["c"]]
    big = hit["big"] or ""
    written = hit["n"]
    upper = f"到{say(hit['n2'])}" if hit.groupdict().get("n2") else ""
    said = (counted(written) if not upper and not big else say(written)) + upper + big + unit
    return f"负{said}" if hit["sign"] else said


def _date(hit: Match) -> str | None:
    groups = hit.groupdict()
    month, day = int(hit["m"]), int(hit["d"])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return f"{chinese_digits(groups['y'])}年{chinese(str(month))}月{chinese(str(day))}日"


def _hour(hour: int) -> str:
    return "两" if hour == 2 else "零" if hour == 0 else chinese(str(hour))


def _time(hit: Match) -> str | None:
    hour, minute, second = int(hit["h"]), int(hit["m"]), hit.groupdict().get("s")
    if hour > 24 or minute > 59:
        return None
    said = f"{_hour(hour)}点"
    if minute or second:
        said += ("零" + chinese(str(minute)) if 0 < minute < 10 else chinese(str(minute))) + "分"
        if second:
            said += chinese(str(int(second))) + "秒"
    elif hit.string[hit.end() : hit.end() + 1] != "整":
        said += "整"
    return said


def _half_day(hit: Match) -> str:
    """3pm, 9:30 a.m."""
    hour = int(hit["h"])
    if hour == 12:
        part = "中午" if hit["half"] in "pP" else "凌晨"
    else:
        part = "上午" if hit["half"] in "aA" else "晚上" if hour > 6 else "下午"
    said = f"{part}{_hour(hour)}点"
    minute = int(hit["m"] or 0)
    return said + (("零" if minute < 10 else "") + chinese(str(minute)) + "分" if minute else "")


def _times(hit: Match) -> str | None:
    inner = regex.split(_DASH, hit[0])
    said = [_time(match) for part in inner if (match := _CLOCK.fullmatch(part.strip())) is not None]
    return "到".join(part for part in said if part) if len(said) == 2 and all(said) else None


_CLOCK = regex.compile(r"(?P<h>[01]?\d|2[0-4])[:：](?P<m>[0-5]\d)(?:[:：](?P<s>[0-5]\d))?")


def _year(hit: Match) -> str:
    return chinese_digits(hit["y"]) + "年"


def _range(hit: Match) -> str | None:
    low, high = hit["n"], hit["n2"]
    rest = hit.string[hit.end() : hit.end() + 1]
    if (
        low.isdigit()
        and high.isdigit()
        and len(low) < 4
        and int(low) > int(high)
        and not rest.strip(" ，。,.！!")
    ):
        return f"{say(low)}比{say(high)}"  # a score: nothing is counted from more to less
    if len(low) == 4 and len(high) == 4 and 1000 <= int(low) <= 2100 and 1000 <= int(high) <= 2100:
        return (
            f"{chinese_digits(low)}{'年' if rest == '年' and '年' in hit[0] else ''}到{chinese_digits(high)}"
        )
    return f"{say(low)}到{counted(high) if rest and regex.match(_MEASURE, hit.string[hit.end() : hit.end() + 2]) else say(high)}"


def _fraction(hit: Match) -> str | None:
    above, below = int(hit["a"]), int(hit["b"])
    before = hit.string[max(0, hit.start() - 12) : hit.start()]
    if regex.search(r"血压|高压|BP", before) or (above > below and above > 30):
        return f"{say(hit['a'])}，{say(hit['b'])}"
    whole = f"{say(hit['w'])}又" if hit.groupdict().get("w") else ""
    return f"{whole}{chinese(str(below))}分之{chinese(str(above))}"


def _address(hit: Match) -> str:
    written = regex.sub(r"^(?:https?|ftp)://", "", hit[0]).rstrip("/")
    out = []
    for piece in regex.findall(r"[A-Za-z]+|\p{Han}+|\d+|.", written):
        out.append(chinese_digits(piece) if piece.isdigit() else _ADDRESS.get(piece, piece))
    return " ".join(out)


def _word_with_digits(hit: Match) -> str:
    pieces = regex.findall(r"[A-Za-z]+|\d+(?:\.\d+)?|[^A-Za-z\d]+", hit[0])
    out = ""
    for piece in pieces:
        if piece[0].isdigit():
            out += (
                say(piece)
                if len(piece) < 3 or "." in piece
                else chinese_digits(piece, one="幺" if len(piece) > 3 else "一")
            )
        elif piece.isalpha():
            out += piece
    return out


def _plain(hit: Match) -> str:
    return signed(hit, say(hit["n"]))


def _long(hit: Match) -> str:
    return chinese_digits(hit[0], one="幺" if 11 <= len(hit[0]) < 19 else "一")


def _sign(hit: Match) -> str | None:
    word = _SIGNS.get(hit[0])
    text, start, end = hit.string, hit.start(), hit.end()
    before, after = text[max(0, start - 2) : start].strip(), text[end : end + 2].strip()
    if (
        hit[0] in "<>＜＞=^#+"
        and not (before[-1:].isalnum() and after[:1].isalnum())
        and not (hit[0] in "<>＜＞" and after[:1].isdigit())
    ):
        return "井号" if hit[0] == "#" and after[:1].isalnum() else None
    return word


def _two(hit: Match) -> str:
    return "两"


def _roman(hit: Match) -> str | None:
    value = roman(hit["r"])
    return chinese(str(value)) if value else None


def _king(hit: Match) -> str | None:
    value = roman(hit["r"])
    return chinese(str(value)) + (hit["s"] or "") if value else None


@lru_cache(maxsize=1)
def rules() -> Rules:
    """The rules of Chinese, in their order."""

    def rule(name: str, starts: str, pattern: str, read: Read) -> Rule:
        return Rule(name, pattern, read, starts)

    unit = alternatives(set(_UNITS) - {"%"})
    small = alternatives(set(_UNITS) - {"%", "M", "G", "A", "V", "W", "w", "N", "J", "d", "t", "s", "h"})
    money = alternatives(_MONEY)
    money_signs = alternatives([c for c in _MONEY if not c[-1].isalpha()])
    big = rf"(?P<big>{_BIG})?"
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
                r"(?:https?://|ftp://|www\.)[^\s<>\"“”，。；！？、）】\p{Han}]{1,240}(?<![.,;:!?)\]])",
                _address,
            ),
            rule(
                "web address",
                "ld",
                rf"[A-Za-z0-9\-]{{1,63}}(?:\.[A-Za-z0-9\-]{{1,63}}){{0,4}}?\.(?:{DOMAINS})(?:/[^\s<>\"，。；！？、）】\p{{Han}}]{{0,200}}(?<![.,;:!?)])|(?![A-Za-z\d]))",
                _address,
            ),
            rule(
                "date",
                "d",
                r"(?P<y>[12]\d{3})([-/.])(?P<m>0?[1-9]|1[0-2])\2(?P<d>0?[1-9]|[12]\d|3[01])(?!\d|[-/.]\d)",
                _date,
            ),
            rule(
                "date",
                "d",
                r"(?P<y>[12]\d{3})年(?P<m>0?[1-9]|1[0-2])月(?P<d>0?[1-9]|[12]\d|3[01])(?=[日号])",
                lambda hit: (
                    f"{chinese_digits(hit['y'])}年{chinese(str(int(hit['m'])))}月{chinese(str(int(hit['d'])))}"
                ),
            ),
            rule(
                "date",
                "d",
                r"(?P<m>0?[1-9]|1[0-2])月(?P<d>0?[1-9]|[12]\d|3[01])(?=[日号]|[-–—~至到])",
                lambda hit: f"{chinese(str(int(hit['m'])))}月{chinese(str(int(hit['d'])))}",
            ),
            rule(
                "date",
                "d",
                r"(?P<m>0?[1-9]|1[0-2])(?=月(?!饼|球|光|亮))",
                lambda hit: chinese(str(int(hit["m"]))),
            ),
            rule(
                "year",
                "d",
                r"(?P<y>[12]\d{3})(?:\s?[-–—~～至到]+\s?(?P<y2>[12]\d{3}))?年(?!代|级|前|后|里|来的?历史|间|之久|以上|的历史)",
                lambda hit: (
                    chinese_digits(hit["y"]) + ("到" + chinese_digits(hit["y2"]) if hit["y2"] else "") + "年"
                ),
            ),
            rule("year", "d", r"(?P<y>(?:19|20)\d{2})年(?=前后|代|间|后|前|里)", _year),
            rule(
                "year",
                "d",
                r"(?<!\d)(?P<y>(?:19|20)\d{2})(?=级(?!别|数))",
                lambda hit: chinese_digits(hit["y"]),
            ),
            rule(
                "duration",
                "d",
                r"(?<!\d)(?P<m>\d{1,2})['′’](?P<s>[0-5]\d)(?:[\"″”]|'')",
                lambda hit: f"{counted(hit['m'])}分{say(hit['s'].lstrip('0') or '0')}秒",
            ),
            rule(
                "year",
                "d",
                r"(?P<y>\d{2})年(?=代)",
                lambda hit: f"{chinese(hit['y']) if hit['y'][1] == '0' else chinese_digits(hit['y'])}年",
            ),
            rule("year", "d", r"(?<![\d.])(?P<y>[0-9]\d)(?=后|届毕业)", lambda hit: chinese_digits(hit["y"])),
            rule(
                "year",
                "d",
                r"(?<!\d)(?P<y>0\d|[6-9]\d)(?=年(?!前|后|以|的|来|间|里|代|历史))",
                lambda hit: chinese_digits(hit["y"]),
            ),
            rule(
                "time",
                "d",
                r"(?<!\d)(?P<h>0?[1-9]|1[0-2])(?:[:：](?P<m>[0-5]\d))?\s?(?P<half>[aApP])\.?[mM]\.?(?![A-Za-z])",
                _half_day,
            ),
            rule(
                "time",
                "d",
                rf"(?:[01]?\d|2[0-4])[:：][0-5]\d{_DASH}(?:[01]?\d|2[0-4])[:：][0-5]\d(?![:：\d])",
                _times,
            ),
            rule(
                "time",
                "d",
                r"(?P<h>[01]?\d|2[0-4])[:：](?P<m>[0-5]\d)(?:[:：](?P<s>[0-5]\d))?(?![:：\d.])",
                _time,
            ),
            rule(
                "season",
                "d",
                r"(?<!\d)(?P<y>(?:19|20)\d{2})/(?P<y2>\d{2}|(?:19|20)\d{2})(?=赛季|学年|年度|财年)",
                lambda hit: f"{chinese_digits(hit['y'])}到{chinese_digits(hit['y2'])}",
            ),
            rule(
                "day of the year",
                "d",
                r"(?<!\d)(?P<a>\d{1,2})[·•](?P<b>\d{1,2})(?!\d)",
                lambda hit: chinese_digits(hit["a"]) + chinese_digits(hit["b"]),
            ),
            rule(
                "day of the year",
                "d",
                r"(?<!\d)(?:618|315|119|110|911|520|1111|1212)(?=大促|晚会|消防[日宣]|购物节|事件|宣传日|狂欢)",
                lambda hit: chinese_digits(hit[0]),
            ),
            rule(
                "range",
                "s",
                r"(?<=\d[日号月年时点分元页章楼层岁度天周级])\s?[-–—~～]\s?(?=\d)",
                lambda hit: "到",
            ),
            rule(
                "telephone number",
                "ds",
                r"(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?!\d)",
                lambda hit: phone(hit[0]),
            ),
            rule(
                "telephone number",
                "sd",
                r"(?:[(（]0\d{2,3}[)）][- ]?|0\d{2,3}[- ]|(?:400|800)[- ]|\+\d{1,3}[- ])\d{2,4}(?:[- ]?\d{2,4}){1,4}+(?!\d)",
                lambda hit: phone(hit[0]),
            ),
            rule("telephone number", "d", r"(?:400|800)\d{7}(?!\d)", lambda hit: phone(hit[0])),
            rule(
                "telephone number",
                "d",
                r"(?<=(?:电话|拨打|致电|热线|手机|号码|客服|QQ|报警|急救|微信|尾号|分机|转|短信|编号|验证码|密码|学号|工号|邮编|身份证号?|卡号|账号|房号|房间号|门牌号)[为是：:\s]{0,3})\d{3,20}(?![\d.元块个])",
                lambda hit: phone(hit[0]),
            ),
            rule(
                "telephone number",
                "d",
                r"(?<=[打拨][了过]?)(?:110|119|120|122|12306|12315|12345|10086|10010|10000)(?![\d.]|[个元块分人次多万千折页字])",
                lambda hit: phone(hit[0]),
            ),
            rule(
                "telephone number",
                "d",
                r"(?<!\d)(?:110|119|120|122|12306|12315|12345|10086|10010|10000)(?=(?:报警|电话|热线|救护|急救|客服|服务|中心|指挥|平台|投诉))",
                lambda hit: phone(hit[0]),
            ),
            rule(
                "version",
                "d",
                r"\d{1,4}(?:\.\d{1,4}){2,5}+",
                lambda hit: "点".join(
                    chinese(g) if len(g) < 3 or hit[0].count(".") != 3 else chinese_digits(g)
                    for g in hit[0].split(".")
                ),
            ),
            rule(
                "version",
                "l",
                r"(?P<v>[vV])(?P<n>\d{1,4}(?:\.\d{1,4}){2,5}+)",
                lambda hit: hit["v"] + "点".join(chinese(g) for g in hit["n"].split(".")),
            ),
            rule(
                "percentage",
                "sd",
                rf"{_MINUS}?(?P<n>{_N})(?:[%％]?{_DASH}(?P<n2>{_N}))?\s?(?P<u>[%％‰])",
                _percent,
            ),
            rule(
                "amount of money",
                "sl",
                rf"{_MINUS}?(?P<c>{money})\s?(?P<n>{_N})(?:{_DASH}(?P<n2>{_N}))?{big}(?!\d)(?:(?<=\d)元)?",
                _money,
            ),
            rule(
                "amount of money",
                "sd",
                rf"{_MINUS}?(?P<n>{_N})\s?{big}\s?(?P<c>{money_signs}|(?:RMB|CNY|USD|EUR|GBP|JPY|HKD|KRW){end})",
                _money,
            ),
            rule(
                "blood pressure",
                "d",
                r"(?P<a>\d{2,3})/(?P<b>\d{2,3})\s?(?P<u>mmHg|毫米汞柱)",
                lambda hit: f"{say(hit['a'])}，{say(hit['b'])}毫米汞柱",
            ),
            rule(
                "number with a unit",
                "sd",
                rf"{_MINUS}?(?P<n>{_N})(?:{_DASH}(?P<n2>{_N}))?\s?{big}\s?(?P<unit>(?:{small})[²³]?(?:/(?:{unit})[²³]?)?|(?:km|m|cm|mm)[²³23]|(?<=\d)(?:M|A(?![级股座区])|V|W|w|N|J|s|h|t)(?:/(?:{unit})[²³]?)?|(?<=\d\s)(?:V|W|s|h|t)){end}",
                _with_unit,
            ),
            rule(
                "mixed number",
                "d",
                rf"(?P<w>\d{{1,3}})(?P<f>[{''.join(_FRACTIONS)}])",
                lambda hit: f"{say(hit['w'])}又{_FRACTIONS[hit['f']]}",
            ),
            rule("fraction", "s", rf"[{''.join(_FRACTIONS)}]", lambda hit: _FRACTIONS[hit[0]]),
            rule("number", "d", r"(?<!\d)7[×xX*]24", lambda hit: "七乘二十四"),
            rule("number", "d", r"(?<!\d)24/7(?!\d)", lambda hit: "二十四七"),
            rule(
                "fraction",
                "d",
                r"(?<![\d/.])(?:(?P<w>\d{1,3})\s(?=\d/\d))?(?P<a>\d{1,4})/(?P<b>\d{1,4})(?![\d/]|\.\d)",
                _fraction,
            ),
            rule(
                "ratio",
                "d",
                rf"(?<![\d:：])(?P<n>{_N})[:：](?P<n2>{_N})(?![\d:：])",
                lambda hit: f"{say(hit['n'])}比{say(hit['n2'])}",
            ),
            rule(
                "score",
                "d",
                r"(?<=(?:比分|以|胜|负|战平|击败|赢|输|总分)[\p{Han}]{0,4})(?P<n>\d{1,3})[-–—](?P<n2>\d{1,3})(?!\d)",
                lambda hit: f"{say(hit['n'])}比{say(hit['n2'])}",
            ),
            rule(
                "order",
                "d",
                rf"(?<=第)(?P<n>\d{{1,8}}(?:\.\d{{1,4}}(?!\.))?)(?:{_DASH}(?P<n2>\d{{1,8}}))?",
                lambda hit: say(hit["n"]) + (f"到{say(hit['n2'])}" if hit["n2"] else ""),
            ),
            rule(
                "room or flight",
                "d",
                r"(?P<n>\d{3,4})(?=室|房间|房|路(?!人|程)|次列车|次航班|号房|号线?列车|航班|宿舍|教室)",
                lambda hit: chinese_digits(hit["n"], one="幺"),
            ),
            rule(
                "scientific",
                "sd",
                rf"{_MINUS}?(?P<n>{_N})\s?[×xX*]\s?10(?:\^|(?=[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]))(?P<e>[-−]?\d{{1,3}}|[⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{{1,3}})",
                lambda hit: signed(hit, f"{say(hit['n'])}乘以十的{_exponent(hit['e'])}次方"),
            ),
            rule(
                "operator",
                "d",
                r"(?P<a>\d{1,9})\s?[-−－]\s?(?P<b>\d{1,9})(?=\s?[=＝])",
                lambda hit: f"{say(hit['a'])}减{say(hit['b'])}",
            ),
            rule("range", "d", rf"(?<![\d.\-])(?P<n>{_N})年?(?:{_DASH})(?P<n2>{_N})(?!\d|[-–]\d)", _range),
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
            rule(
                "number",
                "d",
                rf"(?<![\d.])(?P<n>\d{{1,12}}(?:\.\d{{1,4}})?)(?P<big>{_BIG})",
                lambda hit: (
                    (counted(hit["n"]) if not hit["big"].startswith(("十", "百")) else say(hit["n"]))
                    + hit["big"]
                ),
            ),
            rule("two", "d", rf"(?<![\d.])2(?=(?:{_MEASURE})(?!级))(?!月|日|号|楼|班|点零)", _two),
            rule("long number", "d", r"\d{17,}+|(?<!\d)0\d{1,40}+(?!\.)", _long),
            rule("number", "sd", rf"{_MINUS}?(?P<n>{_N})", _plain),
            rule(
                "power", "sd", r"\^\{?(?P<e>[-−]?\d{1,3}|[A-Za-z])\}?|(?P<e2>[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]{1,4}+)", _power
            ),
            rule("index", "sd", r"[₀₁₂₃₄₅₆₇₈₉]{1,4}+", lambda hit: say(hit[0].translate(SUBSCRIPT))),
            rule("number sign", "s", r"#(?=\d)|№\s?(?=\d)", lambda hit: ""),
            rule("number sign", "l", r"(?:No|NO|Nr)\.\s?(?=\d)", lambda hit: "第"),
            rule(
                "operator",
                "s",
                r"(?<=[\d\p{Han}A-Za-z)])\s?[-−*＊]\s?(?=\d{1,9}\s?[=＝≈<>])",
                lambda hit: "减" if hit[0].strip() in "-−" else "乘",
            ),
            rule("operator", "s", r"(?<=\d)\s?[*＊]\s?(?=\d)", lambda hit: "乘"),
            rule(
                "operator",
                "s",
                r"(?<=[\p{Han}\dA-Za-z])/(?=[\p{Han}])",
                lambda hit: (
                    "每"
                    if regex.match(
                        r"/(?:人|天|月|年|小时|次|斤|公斤|个|件|米|秒|分钟|平米|平方米|吨|升)(?!\p{Han})",
                        hit.string[hit.start() : hit.start() + 4],
                    )
                    else ""
                    if hit.string[hit.start() + 1] == "或"
                    else "或"
                ),
            ),
            rule(
                "about",
                "s",
                r"[~～≈](?=\d)",
                lambda hit: (
                    ""
                    if hit.string[max(0, hit.start() - 2) : hit.start()].strip().endswith(("约", "大概"))
                    else "约"
                ),
            ),
            rule("roman number", "l", r"(?<=\p{Han})(?P<r>[IVX]{2,6})(?P<s>世)?(?![A-Za-z])", _king),
            rule("roman number", "l", r"(?<=第)(?P<r>[IVXLC]{1,6})(?![A-Za-z])", _roman),
            rule("roman number", "l", r"(?P<r>[IVX]{2,5})(?=世|级|期|型|度|类)", _roman),
            rule(
                "roman number", "s", r"[ⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩ]", lambda hit: chinese(str("ⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩ".index(hit[0]) + 1))
            ),
            rule("sign", "s", rf"(?:{alternatives(_SIGNS)})", _sign),
        ],
        gap="",
    )


def _exponent(written: str) -> str:
    digits = written.translate(SUPERSCRIPT).replace("−", "-")
    return ("负" if digits.startswith("-") else "") + say(digits.lstrip("-"))


def _power(hit: Match) -> str | None:
    exponent = (hit["e"] or hit["e2"].translate(SUPERSCRIPT)).replace("−", "-")
    if exponent in ("+", "-"):
        return "正" if exponent == "+" else "负"
    if exponent[-1] in "+-":
        return say(exponent[:-1]) + ("正" if exponent[-1] == "+" else "负")
    if exponent in ("2", "3"):
        return "的平方" if exponent == "2" else "的立方"
    sign = "负" if exponent.startswith("-") else ""
    digits = exponent.lstrip("-")
    return f"的{sign}{say(digits) if digits.isdigit() else digits}次方"
