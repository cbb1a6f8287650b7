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

READ = 4_000  # characters looked at; a text says its language soon
KANA_SHARE = 0.05  # of the kana and ideographs; above it the text is Japanese

_SCRIPTS = {
    "han": regex.compile(r"\p{Han}"),
    "kana": regex.compile(r"[\p{Hiragana}\p{Katakana}]"),
    "hangul": regex.compile(r"\p{Hangul}"),
    "cyrillic": regex.compile(r"\p{Cyrillic}"),
    "latin": regex.compile(r"\p{Latin}"),
}
_WORD = regex.compile(r"\p{Latin}+(?:['’]\p{Latin}+)?")

# The commonest short words. A word that several languages share counts for each of them.
_COMMON_LIST = {
    "english": "the of and to in is that it was for on are as with his they at be this have from or had "
    "by but not what all were we when your can said there use an each which she do how their "
    "if will up other about out many then them these so some her would make like him into has "
    "look more no way could people my than been who its now find long down day did get come "
    "made may part i you he hello yes please good it's don't",
    "french": "le la les de des du un une et est en que qui dans pour pas sur se ce il elle nous vous "
    "ils ne au aux avec son sa ses mais ou où par plus tout être avoir cette je tu on leur "
    "sont été fait comme était si même aussi bien très bonjour merci oui non c'est j'ai d'un "
    "d'une qu'il l'on n'est s'il y",
    "german": "der die das und ist in den von zu mit sich des auf für nicht ein eine dem als auch es an "
    "werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so "
    "zum war haben nur oder aber vor zur bis mehr durch man sein wurde wenn können ich wir "
    "ihr mir mich guten hallo danke bitte ja nein",
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
    "está son fue hay nos hola gracias sí buenos al nuestro usted qué cómo dónde era",
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


def detect_language(text: str, *, among: Iterable[str] = LANGUAGES) -> str | None:
    """The likeliest language of `text` out of `among`, or None when it has no letters to judge by.

    An ideograph counts as much as a Latin word, so a Chinese sentence with English names stays Chinese.
    """
    allowed = set(among)
    head = text[:READ]
    counts = {name: len(pattern.findall(head)) for name, pattern in _SCRIPTS.items()}
    words = [word.lower().replace("’", "'") for word in _WORD.findall(head)]
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
        latin = _latin_language(words, head.lower(), allowed)
        if latin is not None:
            scores[latin] = float(len(words))
    scores = {name: score for name, score in scores.items() if score > 0 and name in allowed}
    return max(sorted(scores), key=scores.__getitem__, default=None)


def _latin_language(words: list[str], lowered: str, allowed: set[str]) -> str | None:
    candidates = [language for language in _COMMON if language in allowed]
    if not candidates:
        return None
    scores = {
        language: sum(word in _COMMON[language] for word in words)
        + LETTER_WEIGHT * sum(lowered.count(letter) for letter in _LETTERS.get(language, ""))
        for language in candidates
    }
    best = max(candidates, key=scores.__getitem__)
    # Without any evidence, Latin letters are read as English: names, brands, single words.
    if scores[best] == 0 and "english" in candidates:
        return "english"
    if "english" in candidates and scores["english"] == scores[best]:
        return "english"
    return best
