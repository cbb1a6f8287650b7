"""Classes of text that people really send, through every model's front end: never a crash, never a long wait.

Found with these: 40 digits (an IndexError of the built-in voice's number words), 40 digits after a sign
(inflect's NumOutOfRangeError in CosyVoice3), 400 characters of `A1A1...` (15 s for one word).
"""

import base64
import contextlib
import random
import string
import time
from pathlib import Path

import pytest

from sonant.catalogue.registry import load
from sonant.errors import RequestError
from sonant.families.indextts2.text import TextFrontEnd
from sonant.request.speech import SpeechRequest
from sonant.server.models import _warm_up_request
from sonant.text.bounds import LONGEST_SENTENCE, LONGEST_WORD, within_bounds

DATA = Path(__file__).parents[1] / "data"
HEX = "0123456789abcdef"
EMOJI = ("😀", "👩‍👩‍👧", "🇩🇪", "❤️", "🤷🏽‍♀️")
MARKS = "[](){}<>\"'`*_~^|\\/@#&%$=+-:;,.!?…—„“”«»¿¡"
CODE = (
    "for (int i=0;i<10;++i){a[i]^=~b[i]<<2;}",
    "x = {'a': [1,2,{'b': (3,)}]} # %d",
    "SELECT * FROM t WHERE a<>'%s';",
    "/^(?:[a-z]+)$/gi",
)
UNITS = ("mm", "°C", "km/h", "€/m²", "GB", "kWh", "x", "°", '"', "'")


def texts(rng):
    """One text of each class."""

    def number(most):
        return rng.randrange(10 ** rng.randrange(1, most))

    def some(letters, lengths):
        return "".join(rng.choice(letters) for _ in range(rng.choice(lengths)))

    yield some(HEX, (7, 32, 40, 64, 128))
    yield some(string.digits, (20, 40, 60, 65, 100, 400))
    yield (
        rng.choice("$€£¥") + some(string.digits, (10, 40, 65, 200)) + rng.choice(("", ".50", "%", "th", "kg"))
    )
    yield ",".join(f"{rng.randrange(1000):03d}" for _ in range(rng.choice((5, 25, 60))))
    yield base64.b64encode(rng.randbytes(rng.choice((10, 100, 600)))).decode()
    yield "sk-" + some(string.ascii_letters + string.digits, (48,))
    yield f"2024-06-17T12:34:17.{number(9)}Z ERROR [worker-{number(3)}] 0x{number(18):x} at /x.so:{number(5)}"
    yield rng.choice(CODE)
    yield f"| a | b |\n|---|--:|\n| {number(40)} | {rng.random() * 10.0 ** rng.randrange(-20, 20)} |"
    yield some(EMOJI, (3, 30, 200))
    yield f"{rng.choice('%#+-±№½²٣६⅔Ⅻ')}{number(70)}{rng.choice('eE/-:.')}{number(70)}"
    yield f"{number(6)}-{number(3)}-{number(3)} {number(3)}:{number(3)} 7/{number(3)}/{number(5)} PM"
    yield f"{number(30)}{rng.choice(UNITS)} {rng.choice('IVXLCDM') * rng.choice((1, 3, 9, 40))}"
    yield "+" + "-".join(str(number(12)) for _ in range(rng.randrange(1, 7)))
    yield some(MARKS, (1, 5, 60))
    yield some(MARKS + " ab1 5", (5, 30, 100))
    yield f"https://ex.com/a/{number(12)}?q=a%20b&x[]=1#" + some(HEX, (40,))
    blocks = ((32, 127), (0xA0, 0x250), (0x370, 0x530), (0x600, 0x700), (0x2000, 0x2C00), (0x4E00, 0x9FFF))
    yield "".join(chr(rng.randrange(*rng.choice(blocks))) for _ in range(rng.choice((3, 20, 80))))


def corpus(seed, rounds):
    """Each class `rounds` times, alone and inside a sentence."""
    rng = random.Random(seed)
    for _ in range(rounds):
        for text in texts(rng):
            yield text
            yield f"Look at {text} please."


@pytest.mark.parametrize(
    ("place", "rounds"), [("builtin", 4), ("nano", 2), (DATA / "cosyvoice3" / "checkpoint", 1)]
)
def test_a_front_end_reads_or_refuses_every_class(place, rounds):
    with load(str(place), device="cpu") as engine:
        voice = engine.spec.voices[0] if engine.spec.voices else _warm_up_request(engine).voice
        for text in corpus(1, rounds):
            with contextlib.suppress(RequestError):
                engine.segments(SpeechRequest(text, voice=voice, seed=1))


@pytest.mark.slow
def test_indextts2s_front_end_reads_or_refuses_every_class():
    front_end = TextFrontEnd(DATA / "indextts2" / "bpe.model")
    for text in corpus(2, 4):
        with contextlib.suppress(RequestError):
            front_end.ids(text)


@pytest.mark.parametrize(
    "text", ['"' * 4_000 + "a", "[" * 4_000 + "a", "A1" * 400, "x-y/" * 200, "1" * 4_000]
)
def test_no_text_keeps_the_built_in_front_end_for_long(text):
    with load("builtin", device="cpu") as engine:
        engine.segments(SpeechRequest("Warm.", seed=1))
        began = time.thread_time()
        engine.segments(SpeechRequest(text, seed=1))
        # Processor time: 20 s to minutes before; the bound leaves room for a slow machine.
        assert time.thread_time() - began < 4


def test_prose_passes_the_bounds_unchanged():
    prose = "In 1815, M. Charles-François-Bienvenu Myriel was Bishop of D——; he paid 1,000,000 francs. " * 6
    assert list(within_bounds(prose)) == [prose]


def test_what_passes_the_bounds_is_bounded_and_whole():
    for text in corpus(3, 20):
        pieces = list(within_bounds(text * 20))
        assert all(len(piece) <= LONGEST_SENTENCE for piece in pieces)
        assert max(len(word) for piece in pieces for word in piece.split() or [""]) <= LONGEST_WORD
        assert [c for c in "".join(pieces) if c.isalnum()] == [c for c in text * 20 if c.isalnum()]
