"""SSML's common part -> passages of text: break, say-as, sub, phoneme, prosody rate, p, s, lang.

Source: Speech Synthesis Markup Language 1.1, https://www.w3.org/TR/speech-synthesis11/
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from xml.etree import ElementTree

import regex

from sonant.errors import RequestError
from sonant.text.markup import LONGEST_PAUSE

log = logging.getLogger(__name__)

_RATES = {"x-slow": 0.5, "slow": 0.75, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.6}
_STRENGTHS = {"none": 0.0, "x-weak": 0.1, "weak": 0.2, "medium": 0.4, "strong": 0.8, "x-strong": 1.2}
DEEPEST = 60


@dataclass(frozen=True)
class Passage:
    """A stretch of text in one language and pace. `language` is a tag such as "fr-FR", or None."""

    text: str
    language: str | None = None
    rate: float = 1.0


def is_ssml(text: str) -> bool:
    """Whether the text is an SSML document."""
    return regex.match(r"[\s\ufeff]*(?:<\?xml[^<>]{0,200}\?>\s*)?<speak[\s>]", text) is not None


def read_ssml(text: str) -> tuple[list[Passage], list[str]]:
    """The passages of an SSML document, and the names of what it asks for that is not done.

    Raises RequestError for what is no well-formed SSML.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise RequestError("the SSML declares a document type; expected none. Leave it out.", field="text")
    try:
        root = ElementTree.fromstring(text.lstrip("\ufeff \t\r\n"))
    except (ElementTree.ParseError, UnicodeError) as error:
        raise RequestError(
            f"the text begins with <speak> but is no well-formed SSML ({error}); expected every tag closed "
            "and & written as &amp;. Mend it, or leave the tags out.",
            field="text",
        ) from error
    passages: list[Passage] = []
    ignored: list[str] = []
    _walk(root, passages, ignored, language=_language(root), rate=1.0, depth=0)
    return _merged(passages), sorted(set(ignored))


def _walk(
    node: ElementTree.Element,
    out: list[Passage],
    ignored: list[str],
    *,
    language: str | None,
    rate: float,
    depth: int,
) -> None:
    if depth > DEEPEST:
        raise RequestError(
            f"the SSML has tags in tags deeper than {DEEPEST}; expected fewer. Flatten it.", field="text"
        )
    name = node.tag.rsplit("}", 1)[-1]
    language = _language(node) or language

    def say(text: str | None) -> None:
        if text:
            out.append(Passage(text, language, rate))

    inner = node.text
    if name == "break":
        say(_pause(node))
    elif name == "sub":
        say(node.get("alias") or "".join(node.itertext()))
        return
    elif name == "phoneme":
        word, phonemes = "".join(node.itertext()).strip(), (node.get("ph") or "").replace("/", "")
        say(f"[{word or 'word'}](/{phonemes}/)" if phonemes else word)
        return
    elif name == "say-as":
        say(_said_as(node))
        return
    elif name == "prosody":
        rate *= _rate(node.get("rate"))
        ignored.extend(
            f"prosody {key}"
            for key in node.attrib
            if key in ("pitch", "range", "contour", "volume", "duration")
        )
    elif name in ("p", "paragraph"):
        say("\n\n")
    elif name not in ("speak", "s", "sentence", "lang", "w", "token"):
        ignored.append(name)
        if name in ("lexicon", "metadata", "meta", "desc"):
            return
    say(regex.sub(r"\s+", " ", inner or ""))
    for child in node:
        _walk(child, out, ignored, language=language, rate=rate, depth=depth + 1)
        say(regex.sub(r"\s+", " ", child.tail or ""))
    if name in ("p", "paragraph"):
        say("\n\n")
    elif name in ("s", "sentence"):
        last = next((one.text.rstrip() for one in reversed(out) if one.text.strip()), "")
        say(" " if last.endswith((".", "!", "?", "。", "！", "？", "]")) or not last else ". ")


def _language(node: ElementTree.Element) -> str | None:
    return node.get("{http://www.w3.org/XML/1998/namespace}lang") or None


def _pause(node: ElementTree.Element) -> str:
    time = (node.get("time") or "").strip().lower()
    if time:
        found = regex.fullmatch(r"\+?(\d{1,6}(?:\.\d{1,6})?|\.\d{1,6})\s*(ms|s)", time)
        if not found:
            raise RequestError(
                f'the SSML has <break time="{time[:40]}">; expected a time such as 500ms or 1.5s.',
                field="text",
            )
        seconds = float(found[1]) / (1000 if found[2] == "ms" else 1)
    else:
        strength = node.get("strength") or "medium"
        if strength not in _STRENGTHS:
            raise RequestError(
                f'the SSML has <break strength="{strength[:40]}">; expected one of {", ".join(_STRENGTHS)}.',
                field="text",
            )
        seconds = _STRENGTHS[strength]
    return f" [pause:{min(seconds, LONGEST_PAUSE):g}s] " if seconds else " "


def _rate(written: str | None) -> float:
    if not written:
        return 1.0
    written = written.strip().lower()
    if written in _RATES:
        return _RATES[written]
    found = regex.fullmatch(r"([+-]?)(\d{1,4}(?:\.\d{1,4})?)(%?)", written)
    if not found:
        raise RequestError(
            f'the SSML has <prosody rate="{written[:40]}">; expected {", ".join(_RATES)} or such as 80%.',
            field="text",
        )
    value = float(found[2]) / (100 if found[3] else 1)
    if found[1]:
        value = 1 + value if found[1] == "+" else 1 - value
    if not 0.25 <= value <= 4:
        raise RequestError(f"the SSML asks for the rate {written}; expected 25% to 400%.", field="text")
    return value


def _said_as(node: ElementTree.Element) -> str:
    kind = (node.get("interpret-as") or "").lower()
    text = " ".join("".join(node.itertext()).split())
    if kind in ("characters", "spell-out", "verbatim"):
        return (
            " "
            + " ".join(
                character.upper() if character.islower() else character
                for character in text
                if not character.isspace()
            )
            + " "
        )
    if kind in ("digits", "telephone") and kind == "digits":
        return " " + " ".join(text.replace(" ", "")) + " "
    if kind == "telephone":
        return " " + ", ".join(" ".join(run) for run in regex.findall(r"\d+", text)) + " "
    if kind == "ordinal" and regex.fullmatch(r"\d{1,9}", text):
        return f"\ue000{text}\ue001"  # read by the rule "ordinal" of `reading`
    if kind in ("cardinal", "number"):
        return regex.sub(r"(?<=\d),(?=\d{3})", "", text)
    if kind == "date":
        return _date(text, node.get("format") or "")
    return text


def _date(text: str, order: str) -> str:
    parts = regex.findall(r"\d+", text)
    order = order.lower()
    if len(parts) == 3 and sorted(order) == ["d", "m", "y"]:
        named = dict(zip(order, parts, strict=True))
        if len(named["y"]) == 4:
            return f"{named['y']}-{int(named['m']):02d}-{int(named['d']):02d}"
    return text


def _merged(passages: list[Passage]) -> list[Passage]:
    merged: list[Passage] = []
    for one in passages:
        last = merged[-1] if merged else None
        if last and (last.language, last.rate) == (one.language, one.rate):
            merged[-1] = Passage(last.text + one.text, one.language, one.rate)
        elif one.text:
            merged.append(one)
    return merged
