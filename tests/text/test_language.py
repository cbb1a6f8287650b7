"""Language detection on plain sentences of the ten languages and on mixed ones."""

import pytest

from sonant.text.language import LANGUAGES, detect_language

SENTENCES = {
    "chinese": ["今天天气很好，我们去公园吧。", "我用 Python 和 PyTorch 写代码。", "你好"],
    "english": ["The weather is nice today.", "Hello", "GPT-5", "I don't know what you mean."],
    "french": ["Il fait très beau aujourd'hui, n'est-ce pas ?", "Merci beaucoup pour votre aide."],
    "german": ["Das Wetter ist heute schön.", "Guten Tag, wie geht es Ihnen?"],
    "italian": ["Oggi è una bella giornata, non è vero?", "Grazie per il vostro aiuto, ciao."],
    "japanese": ["今日は天気がいいですね。", "カタカナ"],
    "korean": ["오늘 날씨가 좋네요.", "안녕하세요 OpenAI"],
    "portuguese": ["Hoje o tempo está muito bom, não é?", "Obrigado pela sua ajuda."],
    "russian": ["Сегодня хорошая погода.", "Привет"],
    "spanish": ["Hoy hace muy buen tiempo, ¿no?", "Muchas gracias por su ayuda."],
}


@pytest.mark.parametrize(("language", "text"), [(k, t) for k, texts in SENTENCES.items() for t in texts])
def test_sentences_are_recognised(language, text):
    assert detect_language(text) == language


def test_every_language_is_covered():
    assert sorted(SENTENCES) == list(LANGUAGES)


@pytest.mark.parametrize("text", ["", "123 456", "!?…", "😀", "\x00\ud800"])
def test_nothing_to_judge_by_is_none(text):
    assert detect_language(text) is None


def test_words_of_addresses_say_nothing_of_the_language():
    assert detect_language("https://example.com/a?b=c and me@example.com") == "english"
    assert detect_language("me@example.com") == "english"
    assert detect_language("Hoje escrevi para me@exemplo.com, não é?") == "portuguese"


def test_the_choice_can_be_narrowed():
    assert detect_language("今日天気", among=["japanese", "english"]) == "japanese"
    assert detect_language("今日は", among=["chinese"]) == "chinese"
    assert detect_language("Привет", among=["english"]) is None
