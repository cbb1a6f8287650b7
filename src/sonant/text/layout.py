"""Lines as people write them -> paragraphs of whole sentences; Markdown and HTML -> what is read of them.

Hard-wrapped lines are joined. Headings, list items, table rows, verses and paragraphs keep their break, and get
a full stop where they end without any mark, so that every model pauses there. Plain text passes through the same
door as Markdown: only marks that cannot be meant otherwise are taken for such, and no word is dropped but
addresses of links, comments and what HTML does not show.
"""

from __future__ import annotations

import html
from typing import Literal

import regex

from sonant.text.markup import PAUSE_PATTERN, PRONUNCIATION_PATTERN
from sonant.text.rules import is_east

Code = Literal["say", "skip"]

WRAPPED = 36  # characters; lines wrapped by an editor or a mailer are longer
_END_MARK = regex.compile(r"[.!?…。！？:：;；,，、—–\-~～।؟][\"'”’»›)\]}」』）】》*_`]*$")
_STOPPED = regex.compile(r"[.!?…。！？:：;；।؟][\"'”’»›)\]}」』）】》]*$")
_TAG_END = regex.compile(rf"(?:{PAUSE_PATTERN})\s*$")

# -- HTML ------------------------------------------------------------------------------------------------

_HIDDEN = regex.compile(
    r"<(script|style|head|template|noscript)\b[^<>]{0,2000}>.*?(?:</\1\s*>|\Z)",
    regex.DOTALL | regex.IGNORECASE,
)
_COMMENT = regex.compile(r"<!--.*?(?:-->|\Z)", regex.DOTALL)
_IMAGE_TAG = regex.compile(r"<img\b[^<>]{0,2000}>", regex.IGNORECASE)
_ALT = regex.compile(r"\balt\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))", regex.IGNORECASE)
_BREAK_TAG = regex.compile(r"<br\s*/?>|</?(?:li|tr|dt|dd|option)\b[^<>]{0,2000}>", regex.IGNORECASE)
_CELL_TAG = regex.compile(r"</t[dh]\s*>\s*(?=<t[dh]\b)", regex.IGNORECASE)
_BLOCK_TAG = regex.compile(
    r"</?(?:p|div|h[1-6]|ul|ol|dl|table|thead|tbody|tfoot|section|article|header|footer|nav|main|aside|blockquote|"
    r"pre|figure|figcaption|form|html|body|hr|address|caption|center|title|details|summary|legend|fieldset|dialog)\b[^<>]{0,2000}>",
    regex.IGNORECASE,
)
_INLINE_TAG = regex.compile(
    # A letter that is a tag needs a real attribute: "a <b and c> d" is a comparison.
    r"</?(?:[abiqsu](?:\s(?=[^<>]{0,2000}=)[^<>]{0,2000}|\s*/)?|"
    r"(?:abbr|acronym|bdi|bdo|big|button|cite|code|data|del|dfn|em|font|ins|kbd|label|mark|rp|rt|ruby|"
    r"samp|small|span|strike|strong|t[dh]|time|tt|var|wbr|input|picture|source|svg|path|meta|link|iframe|video|"
    r"audio|col|colgroup|select|textarea|canvas|embed|object|param|map|area)\b(?:\s[^<>]{0,2000}|\s*/)?)>",
    regex.IGNORECASE,
)
_SUPER = regex.compile(
    r"(?<=[\p{L}\p{N})])<sup\b[^<>]{0,200}>\s*([-−+]?\d{1,3}|n)\s*</sup\s*>", regex.IGNORECASE
)
_SUB_SUPER = regex.compile(r"</?su[bp]\b[^<>]{0,200}>", regex.IGNORECASE)
_ENTITY = regex.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_PRE = regex.compile(r"</?pre\b[^<>]{0,200}>", regex.IGNORECASE)


def _without_html(text: str, kept: regex.Pattern[str] | None) -> str:
    """The text that HTML shows. Tags in `kept` are a model's own and stay."""
    if "<" in text:
        text = _COMMENT.sub(" ", text)
        text = _HIDDEN.sub("\n\n", text)
        text = _IMAGE_TAG.sub(_alternative, text)
        text = _CELL_TAG.sub(", ", text)
        text = _BREAK_TAG.sub("\n\x1e", text)
        text = _BLOCK_TAG.sub("\n\n", text)
        text = _SUPER.sub(r"^\1", text)
        text = _SUB_SUPER.sub("", text)
        text = _INLINE_TAG.sub(lambda hit: hit[0] if kept and kept.fullmatch(hit[0]) else "", text)
    return _ENTITY.sub(lambda hit: html.unescape(hit[0]), text) if "&" in text else text


def _alternative(hit: regex.Match[str]) -> str:
    found = _ALT.search(hit[0])
    return next((group for group in found.groups() if group), "") if found else ""


# -- Markdown ------------------------------------------------------------------------------------------------

_FENCE = regex.compile(r"\s{0,3}(```+|~~~+)([^`]*)$")
_HEADING = regex.compile(r"\s{0,3}#{1,6}\s+(.*?)(?:\s+#+)?\s*$")
_UNDERLINE = regex.compile(r"\s{0,3}(?:=+|-{2,})\s*$")
_RULE = regex.compile(
    r"\s{0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,}|(?:=\s*){3,}|(?:~\s*){3,}|(?:#\s*){3,}|(?:[─━═╌]\s*){2,})$"
)
_QUOTE = regex.compile(r"\s{0,3}(?:>\s?)+")
_BULLET = regex.compile(r"\s*(?:[-*+•‣◦▪●○■□–—・]\s+|[•‣◦▪●■・](?=\S))(?:\[[ xX]\]\s+)?")
_NUMBERED = regex.compile(r"\s*(\d{1,3}|[a-zA-Z]|[ivx]{1,4})[.)]\s+(?=\S)")
_SEPARATOR = regex.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
_DEFINITION = regex.compile(r"\s{0,3}\[[^\]\n]{1,200}\]:\s+\S.*$")
_FOOTNOTE = regex.compile(r"\s{0,3}\[\^[^\]\n]{1,60}\]:\s*")

_LINK_TARGET = r"\((?:<[^<>\n]{0,1000}>|[^\s()\n]{0,1000}(?:\([^\s()\n]{0,200}\)[^\s()\n]{0,200})?)(?:\s+(?:\"[^\"\n]{0,300}\"|'[^'\n]{0,300}'))?\s*\)"
_INLINE = regex.compile(
    rf"(?P<atom>{PAUSE_PATTERN}|{PRONUNCIATION_PATTERN})"
    r"|(?P<code>(?P<tick>`{1,3})(?!`)(?P<said>[^`\n]{1,400})(?P=tick)(?!`))"
    rf"|!\[(?P<alt>[^\[\]\n]{{0,300}})\](?:{_LINK_TARGET}|\[[^\[\]\n]{{0,100}}\])"
    rf"|\[(?P<link>(?:[^\[\]\n]|\[[^\[\]\n]{{0,100}}\]){{1,300}})\](?:{_LINK_TARGET}|\[[^\[\]\n]{{0,100}}\])"
    r"|(?P<note>\[\^[^\[\]\n]{1,60}\])"
    r"|<(?P<auto>(?:https?|ftp|mailto):[^\s<>]{1,1000})>"
    r"|(?P<escaped>\\[*_`#\[\]~>|{}!])"
)
_EMPHASIS = tuple(
    regex.compile(pattern)
    for pattern in (
        r"(?<![\\*])\*\*\*(?=[^\s*])((?:[^*\n]|\n(?!\n)){1,1000})(?<=[^\s*])\*\*\*(?!\*)",
        r"(?<![\\*])\*\*(?=[^\s*])((?:[^*\n]|\n(?!\n)|(?<!\*)\*(?!\*)){1,1000}?)(?<=[^\s])\*\*(?!\*)",
        r"(?<![\\\p{L}\p{N}_])__(?=[^\s_])((?:[^\n]|\n(?!\n)){1,1000}?)(?<=[^\s_])__(?![\p{L}\p{N}_])",
        r"(?<![\\*\p{N}])\*(?=[^\s*])((?:[^*\n]|\n(?!\n)){1,1000})(?<=[^\s*])\*(?![*\p{N}])",
        r"(?<![\\\p{L}\p{N}_])_(?=[^\s_])((?:[^_\n]|\n(?!\n)){1,1000})(?<=[^\s_])_(?![\p{L}\p{N}_])",
        r"~~(?=[^\s~])((?:[^~\n]|\n(?!\n)){1,1000})(?<=[^\s~])~~",
        r"==(?=[^\s=])((?:[^=\n]|\n(?!\n)){1,1000})(?<=[^\s=])==",
        r"\|\|(?=[^\s|])([^|\n]{1,500})(?<=[^\s|])\|\|",
    )
)


def _inline(text: str, code: Code) -> str:
    """A paragraph without its marks of emphasis, links, images and code."""
    shelf: list[str] = []

    def keep(said: str) -> str:
        shelf.append(said)
        return f"\x1f{len(shelf) - 1}\x1f"

    def read(hit: regex.Match[str]) -> str:
        if hit["atom"] is not None:
            return keep(hit[0])
        if hit["code"] is not None:
            return keep(hit["said"].strip() if code == "say" else "")
        if hit["alt"] is not None:
            return hit["alt"]
        if hit["link"] is not None:
            return hit["link"]
        if hit["auto"] is not None:
            return keep(hit["auto"].removeprefix("mailto:"))
        if hit["escaped"] is not None:
            return keep(hit["escaped"][1:])
        return ""

    if "[" in text or "`" in text or "<" in text or "\\" in text:
        text = _INLINE.sub(read, text)
        if "[" in text:  # a picture inside a link
            text = _INLINE.sub(read, text)
    for pattern in _EMPHASIS:
        text = pattern.sub(r"\1", text)
    return regex.sub(r"\x1f(\d+)\x1f", lambda hit: shelf[int(hit[1])], text) if shelf else text


# -- lines ------------------------------------------------------------------------------------------------


def paragraphs(text: str, *, code: Code = "say", kept: regex.Pattern[str] | None = None) -> list[str]:
    """The paragraphs of a clean text, without mark-up, their wrapped lines joined.

    `code` skips code blocks and spans, or says them as they are typed; `kept` are a model's own tags. A break that
    stays is "\\n" inside a paragraph.
    """
    text = _without_html(text.replace("\x1e", "").replace("\x1f", ""), kept)
    found: list[str] = []
    last = ""
    for block in _blocks(text.split("\n"), code):
        joined = _joined(block)
        said = _inline(joined, code)
        lines = [line.strip() for line in said.split("\n")]
        said = "\n".join(_stopped(line) for line in lines if line)
        if said:
            found.append(said)
            last = lines[-1]
    if found and last and found[-1].endswith(_stopped(last)):  # the end of the text needs no stop
        found[-1] = found[-1][: len(found[-1]) - len(_stopped(last))] + last
    return found


def _blocks(lines: list[str], code: Code) -> list[list[tuple[str, bool]]]:
    """Lines of each paragraph, each with whether it begins anew whatever stands before it."""
    blocks: list[list[tuple[str, bool]]] = [[]]
    fence = ""
    for number, line in enumerate(lines):
        opening = _FENCE.match(line)
        if fence:
            if opening and opening[1].startswith(fence) and not opening[2].strip():
                fence = ""
                blocks.append([])
            elif code == "say" and line.strip():
                blocks[-1].append((line.strip(), True))
            continue
        if opening and (opening[1][0] != "~" or not opening[2].strip() or " " not in opening[2].strip()):
            fence = opening[1]
            blocks.append([])
            continue
        starts = line.startswith("\x1e")
        line = line.lstrip("\x1e")
        quoted = _QUOTE.match(line)
        if quoted and not regex.match(r"\s*>\s?[\d=]", line):
            line = line[quoted.end() :]
        if not line.strip():
            blocks.append([])
            continue
        if _DEFINITION.match(line) and not _FOOTNOTE.match(line):
            continue
        line = _FOOTNOTE.sub("", line)
        if (
            _UNDERLINE.match(line)
            and blocks[-1]
            and len(blocks[-1]) == 1
            and not _BULLET.match(blocks[-1][0][0])
        ):
            blocks.append([])  # the text above is a heading
            continue
        if _RULE.match(line):
            blocks.append([])
            continue
        heading = _HEADING.match(line)
        if heading:
            blocks.append([(heading[1], True)])
            blocks.append([])
            continue
        if "|" in line:
            if _SEPARATOR.match(line) and "-" in line:
                continue
            after = lines[number + 1] if number + 1 < len(lines) else ""
            before = lines[number - 1] if number else ""
            is_row = line.strip().startswith("|") and line.strip().endswith("|") and line.count("|") > 1
            if (
                is_row
                or ("|" in after and _SEPARATOR.match(after))
                or ("|" in before and _SEPARATOR.match(before))
            ):
                cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
                blocks[-1].append((", ".join(cell for cell in cells if cell), True))
                continue
        bullet = _BULLET.match(line)
        if bullet and line[bullet.end() :].strip():
            blocks[-1].append((line[bullet.end() :], True))
        elif _NUMBERED.match(line) and (not blocks[-1] or _numbers_on(blocks[-1], lines, number)):
            blocks[-1].append((line, True))
        else:
            blocks[-1].append((line, starts))
    return [block for block in blocks if block]


def _numbers_on(block: list[tuple[str, bool]], lines: list[str], number: int) -> bool:
    """Whether a numbered line inside a block is an item: the line before is one or ends, or another follows."""
    before = block[-1][0].rstrip()
    after = lines[number + 1] if number + 1 < len(lines) else ""
    return bool(_STOPPED.search(before) or block[-1][1] or _NUMBERED.match(before) or _NUMBERED.match(after))


_LOOSE_END = regex.compile(
    r"(?<![\p{L}])(?:the|a|an|of|to|in|on|at|by|for|with|from|and|or|but|as|is|was|are|that|which|who|his|her|their|my|your|"
    r"its|our|this|these|into|than|der|die|das|den|dem|des|ein|eine|einen|einem|einer|und|oder|von|zu|mit|im|am|auf|für|"
    r"le|la|les|un|une|des|du|de|et|ou|à|au|aux|en|dans|sur|par|pour|que|qui|el|los|las|del|y|o|al|con|por|para|un|una|"
    r"il|lo|gli|di|e|che|per|da|em|no|na|do|da|os|as|um|uma)$",
    regex.IGNORECASE,
)


def _joined(block: list[tuple[str, bool]]) -> str:
    """The lines of a block with "\\n" where a break is meant and a blank where a line was only wrapped."""
    if len(block) == 1:
        return block[0][0].strip()
    lines = [line.strip() for line, _ in block]
    widths = [_width(line) for line in lines]
    widest = max(widths)
    run = [index for index in range(len(block) - 1) if not block[index + 1][1]]
    is_wrapped = (
        bool(run)
        and widest >= WRAPPED
        and all(_is_full(lines[i], lines[i + 1], widths[i], widest) for i in run)
    )
    is_verse = (
        len(lines) > 2 and not is_wrapped and all(regex.match(r"[\"'“‘(]?\p{Lu}", line) for line in lines)
    )
    if not is_wrapped and run and is_east(lines[-1][-2:-1] or " ") and _STOPPED.search(lines[-1]):
        # One sentence of East Asian writing over several lines: only the last ends with a mark.
        is_wrapped = not any(
            regex.search(r"[，。、；：！？]", line) for line in (*lines[:-1], lines[-1][:-1])
        )
    out = [lines[0]]
    for index in range(1, len(lines)):
        before, line = lines[index - 1], lines[index]
        if block[index][1]:
            out.append("\n")
        elif before.endswith(("-", "‐")) and len(before) > 1 and before[-2].isalpha() and line[:1].isalpha():
            pass  # well-\nknown
        elif not _is_break(before, line, is_wrapped, is_verse):
            out.append("" if is_east(before[-1]) and is_east(line[0]) else " ")
        else:
            out.append("\n")
        out.append(line)
    return "".join(out)


_EAST_LOOSE = regex.compile(r"[がはをにのとでもへや的和与在把被对从是、，]$")


_ABBREVIATED = regex.compile(
    r"(?:^|[\s(])(?:Mr|Mrs|Ms|Dr|Prof|St|Gen|Col|Capt|Lt|Sgt|Rev|Sen|Rep|Gov|Mt|No|Nos|Figs?|Vol|vs|e\.g|i\.e|cf|"
    r"approx|Hr|Fr|Nr|Sr|Sra|Dra|M|Mme|Mlle|ca|z\. ?B|d\. ?h|p\. ?ej|p\. ?ex|\p{Lu})\.$"
)


def _is_break(before: str, line: str, is_wrapped: bool, is_verse: bool) -> bool:
    if is_verse:
        return True
    if _ABBREVIATED.search(before[-10:]) and _width(before) >= WRAPPED:
        return False  # a title and its name on two lines
    if _EAST_LOOSE.search(before) and is_east(line[0]):
        return False
    first = line.lstrip("\"'“‘«‹([{¿¡*_")[:1]
    if _STOPPED.search(before):
        return not is_wrapped and not first.islower()
    if first.islower() or _LOOSE_END.search(before[-12:]):
        return False
    if regex.search(r"[,，、—–]$", before):
        return False
    return not is_wrapped


def _is_full(line: str, following: str, width: int, widest: int) -> bool:
    """Whether the first word of the next line had no room on this one: a mark of wrapping."""
    word = following.split(" ", 1)[0] if not is_east(following[:1]) else following[:1]
    return width + 1 + _width(word) > widest - 2 or line.rstrip().endswith("-")


def _width(line: str) -> int:
    return sum(2 if is_east(character) else 1 for character in line) if not line.isascii() else len(line)


def _stopped(line: str) -> str:
    """The line with a full stop where it ends without any mark."""
    bare = _TAG_END.sub("", line)
    if not bare or _END_MARK.search(bare) or not any(character.isalnum() for character in bare):
        return line
    last = next((c for c in reversed(bare) if c.isalnum()), "")
    stop = "。" if is_east(last) or "\uac00" > last >= "\u3040" else "."
    if last and not bare[-1].isalnum() and bare[-1] not in ")]}\"'”’»）】》」』%€$£":
        return line
    return f"{bare.rstrip()}{stop}{line[len(bare) :]}"
