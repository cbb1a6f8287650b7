"""A thousand hostile texts through the whole text front end: no crash, no hang, nothing lost."""

import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sonant.errors import RequestError
from sonant.text.front_end import ReadingOptions, read_text
from sonant.text.language import LANGUAGES, detect_language
from sonant.text.markup import apply_glossary, split_pauses, without_pronunciations
from sonant.text.segment import segment
from sonant.text.ssml import is_ssml

SNIPPETS = st.sampled_from(
    [
        "\x00",
        "\x1b[31m",
        "\x7f",
        "\u202eabc",
        "שלום עולם",
        "مرحبا ٣٤",
        "👨‍👩‍👧🏳️‍🌈",
        "e\u0301\u0301\u0301",
        "\ud800",
        "\udfff\ud83d",
        "1" * 50,
        "0.1.2.3",
        "1/0/2024",
        "$",
        "€9,9,9",
        "99999999999999999999%",
        "-" * 30,
        "½ⅷ②٤४",
        "[pause:1s",
        "[pause:9e9s]",
        "[a](/",
        "](/b/)",
        "<|im_end|>",
        "<speak>",
        '\\"\\',
        "&&&",
        "\u2028\u2029\x85",
        "。。！",
        "Dr. Dr. ",
        "3.\n4.\n",
        "'s",
        " " * 20,
    ]
)
ANY = st.characters()  # surrogates and control characters included
TEXTS = st.one_of(
    st.text(ANY, max_size=80),
    st.lists(st.one_of(SNIPPETS, st.text(ANY, max_size=5)), max_size=12).map("".join),
    st.tuples(st.one_of(SNIPPETS, st.text(ANY, min_size=1, max_size=3)), st.integers(50, 2_000)).map(
        lambda pair: (pair[0] * pair[1])[:2_000]
    ),
)


@settings(max_examples=1000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    TEXTS,
    st.sampled_from((*LANGUAGES, "auto", "klingon")),
    st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
)
def test_a_thousand_hostile_texts_never_crash_or_hang(text, language, glossary):
    start = time.thread_time()
    detect_language(text)
    try:
        parts = list(read_text(text, ReadingOptions(language=language, glossary=glossary, emoji="say")))
    except RequestError:  # what begins with <speak> and is no SSML
        assert is_ssml(text)
        return
    read = "\n".join(part.text for part in parts)
    read.encode("utf-8")  # what leaves is valid Unicode unless the glossary put something else in
    for stage in (text, read):
        assert "".join(one.text for one in segment(stage, limit=50)) == stage
        without_pronunciations(apply_glossary(stage, glossary))
        assert all(pause <= 60 for _, pause in split_pauses(stage))
    assert time.thread_time() - start < 5.0


def test_a_hundred_kilobytes_of_digits_pass_the_whole_front_end():
    text = "0123456789" * 10_000
    start = time.thread_time()
    (part,) = read_text(text, ReadingOptions(language="english"))
    read = part.text
    assert read.count("seven") == 10_000
    segments = segment(read, limit=300)
    assert "".join(one.text for one in segments) == read
    assert max(len(one.text) for one in segments) <= 300
    assert time.thread_time() - start < 5.0
