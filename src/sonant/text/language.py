"""Which of ten languages a text is in: by its script, and for Latin letters by its commonest words.

Enough to choose number words and a model's language tag; nothing is downloaded, and the same text always
gives the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable

import regex

LANGUAGES = (
    "chinese",
    "english",
    "french",
    "german",
    "italian",
    "japanese",
    "korean",
    "portuguese",
    "russian",
    "spanish",
)

MINORITY = 4  # words of another language that a sentence must have to be read by its rules
READ = 4_000  # characters looked at; a text says its language soon
KANA_SHARE = 0.05  # of the kana and ideographs; above it the text is Japanese

_SCRIPTS = {
    "han": regex.compile(r"\p{Han}"),
    "kana": regex.compile(r"[\p{Hiragana}\p{Katakana}]"),
    "hangul": regex.compile(r"\p{Hangul}"),
    "cyrillic": regex.compile(r"\p{Cyrillic}"),
    "latin": regex.compile(r"\p{Latin}"),
}
_WORD = regex.compile(r"(?<![\p{L}\p{N}])\p{Latin}++(?:['’]\p{Latin}++)?(?!\p{N})")
_IN_ADDRESSES = ("://", "www.", ".com", "@")
ONE_LETTER = 0.25  # of a common word: "a", "o" and "y" are also names of things

# The commonest short words. A word that several languages share counts for each of them.
_COMMON_LIST = {
    "english": "the of and to in is that it was for on are as with his they at be this have from or had "
    "by but not what all were we when your can said there use an each which she do how their "
    "if will up other about out many then them these so some her would make like him into has "
    "look more no way could people my than been who its now find long down day did get come "
    "made may part i you he hello yes please good it's don't",
    "french": "le la les de des du un une et est en que qui dans pour pas sur se ce il elle nous vous "
    "ils ne au aux avec son sa ses mais ou où par plus tout être avoir cette je tu on leur "
    "sont été fait comme était si même aussi bien très bonjour merci oui non c'est j'ai d'un nos vos notre "
    "votre ces chez depuis après avant entre heures coûte coûtent rue aujourd'hui demain hier siècle environ "
    "d'une qu'il l'on n'est s'il y",
    "german": "der die das und ist in den von zu mit sich des auf für nicht ein eine dem als auch es an "
    "werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so "
    "zum war haben nur oder aber vor zur bis mehr durch man sein wurde wenn können ich wir "
    "ihr mir mich guten hallo danke bitte ja nein habe hast kostet kostete uhr heute morgen gestern dieser "
    "diese dieses unser mein dein euch uns war waren worden kein keine liegt geht gibt kommt beträgt etwa "
    "seit jahr jahre euro stunden bleibt wohnt zimmer nummer platz ende",
    "italian": "il lo la gli le di del della dei delle che e è un una in per non con sono da si al alla "
    "come ma ho ha hai abbiamo mi ti ci più anche questo questa quello se nel nella suo sua "
    "loro era io tu lui lei noi voi essere stato fatto molto bene ciao grazie perché quando "
    "dove sì l'ha c'è dell'arte buongiorno oggi",
    "portuguese": "o os a as de do da dos das em no na nos nas um uma que e é para com não por mais se como "
    "mas foi ao ele ela eles seu sua ou ser quando muito há já está eu também só pelo pela "
    "até isso entre era depois sem mesmo aos ter seus quem me esse você foram essa num tem "
    "olá obrigado sim não bom dia minha meu são",
    "spanish": "el la los las de del que y a en un una ser se no haber por con su para como estar tener "
    "le lo todo pero más hacer o poder este esta otro ese si me ya ver porque dar cuando él "
    "muy sin vez mucho saber sobre mi alguno mismo yo también hasta año dos querer entre es "
    "está son fue hay nos hola gracias sí buenos al nuestro usted qué cómo dónde era cuesta tengo tiene "
    "calle siglo desde entre durante horas hoy ayer mañana años día nació vive",
}
_COMMON = {language: frozenset(words.split()) for language, words in _COMMON_LIST.items()}

# Letters that one or two of the languages use and the others hardly.
_LETTERS = {
    "german": "ßäöü",
    "spanish": "ñ¿¡",
    "portuguese": "ãõ",
    "french": "œèêîôûëïàâù",
    "italian": "òìùè",
}
LETTER_WEIGHT = 0.5  # of a common word


LANGUAGE_CODES = {
    "zh": "chinese", "en": "english", "de": "german", "it": "italian", "pt": "portuguese",
    "es": "spanish", "ja": "japanese", "ko": "korean", "fr": "french", "ru": "russian",
    "ar": "arabic", "yue": "chinese", "cmn": "chinese",
}  # fmt: skip
"""ISO 639 codes accepted for the names that models use."""


def language_name(language: str | None) -> str | None:
    """The lower-case name of a language given by name, code or locale tag such as "zh-CN" or "pt_BR";
    None for auto and for nothing."""
    name = (language or "").strip().lower()
    if name in ("", "auto"):
        return None
    return LANGUAGE_CODES.get(name.replace("_", "-").split("-")[0], name)


def detect_language(text: str, *, among: Iterable[str] = LANGUAGES) -> str | None:
    """The likeliest language of `text` out of `among`, or None when it has no letters to judge by.

    An ideograph counts as much as a Latin word, so a Chinese sentence with English names stays Chinese.
    """
    allowed = set(among)
    head = text[:READ]
    counts = {name: len(pattern.findall(head)) for name, pattern in _SCRIPTS.items()}
    words = _words(head)
    east = counts["han"] + counts["kana"]
    scores = {
        "korean": float(counts["hangul"]),
        "russian": counts["cyrillic"] / 5.0,  # letters in an average word
    }
    is_japanese = counts["kana"] > KANA_SHARE * east
    if ("japanese" in allowed) != ("chinese" in allowed):
        is_japanese = "japanese" in allowed
    scores["japanese" if is_japanese else "chinese"] = float(east)
    if words:
        latin = _latin_language(_words(_without_addresses(head)), head.lower(), allowed)
        if latin is not None:
            first = regex.search(r"\p{L}", head)
            begins = first is not None and _SCRIPTS["latin"].match(first[0]) is not None
            scores[latin] = len(words) + (0.5 if begins else 0.0)  # of a tie, what comes first decides
    scores = {name: score for name, score in scores.items() if score > 0 and name in allowed}
    return max(sorted(scores), key=scores.__getitem__, default=None)


def _words(text: str) -> list[str]:
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def _without_addresses(text: str) -> str:
    """The text less its web and e-mail addresses: "com" and "me" are Portuguese words, but not there."""
    return " ".join(piece for piece in text.split() if not any(mark in piece for mark in _IN_ADDRESSES))


def _latin_language(words: list[str], lowered: str, allowed: set[str]) -> str | None:
    candidates = [language for language in _COMMON if language in allowed]
    if not candidates:
        return None
    scores = {
        language: sum(ONE_LETTER if len(word) == 1 else 1 for word in words if word in _COMMON[language])
        + LETTER_WEIGHT * sum(lowered.count(letter) for letter in _LETTERS.get(language, ""))
        for language in candidates
    }
    best = max(candidates, key=scores.__getitem__)
    # Without any evidence, Latin letters are read as English: names, brands, single words.
    if scores[best] < LETTER_WEIGHT and "english" in candidates:
        return "english"
    if "english" in candidates and scores["english"] == scores[best]:
        return "english"
    return best


def passage_languages(text: str, whole: str, among: Iterable[str] = LANGUAGES) -> list[tuple[int, int, str]]:
    """Where each language of a text begins and ends, `whole` being that of the text around it.

    Between Latin and East Asian letters the writing decides: a number belongs to what stands on both sides of
    it, and between the two to `whole`. Between languages with Latin letters a sentence must show several
    words of another language to be taken for it.
    """
    allowed = set(among) | {whole}
    if not (_SCRIPTS["latin"].search(text) and _EAST.search(text)):
        found = whole
        if _EAST.search(text):
            found = detect_language(text, among=allowed & _EASTERN) or whole
        elif _SCRIPTS["cyrillic"].search(text) and "russian" in allowed:
            found = "russian"
        elif whole in _EASTERN and len(_WORD.findall(text)) >= 2:
            found = detect_language(text, among=allowed - _EASTERN) or whole
        elif whole not in _EASTERN and whole != "russian":
            found = _other_latin(text, whole, allowed)
            if found == whole:
                return _sentence_languages(text, whole, allowed)
        return [(0, len(text), found)]
    east = (
        whole
        if whole in _EASTERN
        else detect_language("".join(_EAST.findall(text)), among=allowed & _EASTERN)
    )
    west = (
        whole
        if whole not in _EASTERN
        else detect_language(" ".join(_WORD.findall(text)), among=allowed - _EASTERN)
    )
    east, west = east or whole, west or whole
    runs: list[tuple[int, int, str]] = []
    start, current = 0, ""
    last_letter = 0
    for match in _LETTERS_RUN.finditer(text):
        kind = west if _SCRIPTS["latin"].match(match[0]) else east
        if not current:
            current = kind
        elif kind != current:
            # What stands between the two writings goes to the language of the whole.
            cut = match.start() if current == whole else last_letter
            if ended := _GAP_END.search(text, last_letter, match.start()):
                cut = ended.end()  # the number before the end of a sentence belongs to it
            elif kind == east and (touching := _TOUCHING.search(text, last_letter, match.start())):
                cut = touching.start()  # a number written to its measure word
            led = _LEADS.search(text, start, last_letter) if current == west != whole else None
            if led and (number := _NEXT_NUMBER.match(text, last_letter)):
                cut = number.end()  # "stop at 9" is said in one language
            runs.append((start, cut, current))
            start, current = cut, kind
        last_letter = match.end()
    runs.append((start, len(text), current or whole))
    return _without_names(text, runs, whole)


def _without_names(text: str, runs: list[tuple[int, int, str]], whole: str) -> list[tuple[int, int, str]]:
    """Runs of one or two words of another writing are names: they are read as the text around them."""
    merged: list[tuple[int, int, str]] = []
    for start, end, language in runs:
        if (
            language != whole
            and whole in _EASTERN
            and language not in _EASTERN
            and len(text[start:end].split()) < 3
            and not _LED_NUMBER.search(text, start, end)
        ):
            language = whole
        if merged and merged[-1][2] == language:
            merged[-1] = (merged[-1][0], end, language)
        else:
            merged.append((start, end, language))
    return merged


_LEADING = (
    r"(?:at|to|the|of|is|in|on|than|for|about|have|has|had|are|was|by|from|over|under|after|before|until)"
)
_GAP_END = regex.compile(r"[.!?](?=\s)|[。！？]")
_TOUCHING = regex.compile(r"(?<=\s)\d[\d.,]{0,20}$")
_LEADS = regex.compile(rf"(?<!\p{{L}}){_LEADING}$", regex.IGNORECASE)
_NEXT_NUMBER = regex.compile(r" \d[\d.,:]*+%?(?<![.,:])")
_LED_NUMBER = regex.compile(rf"\p{{L}} {_LEADING} \d", regex.IGNORECASE)
_EASTERN = frozenset({"chinese", "japanese", "korean"})
_EAST = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]++")
_LETTERS_RUN = regex.compile(r"\p{Latin}++|[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}ー]++")


_SENTENCE = regex.compile(r"(?<=[\p{Ll}\p{N})\"”»][.!?])\s+(?=[\p{Lu}¿¡\"“«])")
SENTENCE_EVIDENCE = 2  # common words of another language, and none of the text's own


def _sentence_languages(text: str, whole: str, allowed: set[str]) -> list[tuple[int, int, str]]:
    """Sentences of a line that are in another language with Latin letters; neighbours alike are one."""
    ends = [match.end() for match in _SENTENCE.finditer(text)]
    if not ends:
        return [(0, len(text), whole)]
    candidates = [language for language in _COMMON if language in allowed]
    spans: list[tuple[int, int, str]] = []
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        words = [
            word.lower().replace("’", "'") for word in _WORD.findall(text, start, min(end, start + READ))
        ]
        scores = {one: sum(word in _COMMON[one] for word in words) for one in candidates}
        best = max(candidates, key=scores.__getitem__, default=whole)
        found = best if scores and scores[best] >= SENTENCE_EVIDENCE and not scores.get(whole) else whole
        if spans and spans[-1][2] == found:
            spans[-1] = (spans[-1][0], end, found)
        else:
            spans.append((start, end, found))
    return spans


def _other_latin(text: str, whole: str, allowed: set[str]) -> str:
    words = [word.lower().replace("’", "'") for word in _WORD.findall(text[:READ])]
    if len(words) < MINORITY:
        return whole
    candidates = [language for language in _COMMON if language in allowed]
    scores = {
        language: sum(word in _COMMON[language] for word in words)
        + LETTER_WEIGHT * sum(text.count(letter) for letter in _LETTERS.get(language, ""))
        for language in candidates
    }
    best = max(candidates, key=scores.__getitem__, default=whole)
    if best == whole or scores[best] < 3 or scores[best] < scores.get(whole, 0.0) + 2:
        return whole
    return best
