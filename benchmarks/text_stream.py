"""Text from a language model, word by word: fed to the model as it comes, against sentence by sentence.

    python benchmarks/text_stream.py FOLDER [--rounds 5] [--precision int8]     a Qwen3-TTS checkpoint

Words are put one at a time, each when the engine has done all it can with those before; or the first three
at once, as a language model's first tokens come. Counted until the first sound: words that had to come,
frames made, and processor time of this process; all ways in turn, so that a busy machine disturbs them
alike. What a listener waits is the words at the language model's pace and then the work.
"""

import argparse
import json
import queue
import statistics
import time
from functools import partial

import numpy as np

import sonant
from sonant.request.speech import Sampling, SpeechRequest, Style, TextFeed
from sonant.server.live import SentenceCutter

TEXT = "Thank you for calling, I have found your booking for Friday. Would you like me to change it now?"
SETTLED = 25
"""Looks in a row, 20 ms apart, at which neither frames nor work were done: a prefill alone takes long."""


def words_of(text):
    parts = text.split(" ")
    return [f"{part} " for part in parts[:-1]] + parts[-1:]


def request_of(engine, **fields):
    spec = engine.spec
    style = Style(instruction="a calm voice") if spec.needs_instruction else Style()
    voice = spec.voices[0] if spec.voices else None
    if spec.needs_voice:  # what is said does not matter here: two seconds of noise, remembered by the engine
        noise = 0.1 * np.random.default_rng(0).standard_normal(48_000)
        voice = engine.clone(sonant.Audio(noise.astype(np.float32), 24_000))
    return SpeechRequest(
        voice=voice, style=style, seed=3, sampling=Sampling(max_frames=200), normalize="original", **fields
    )


def frames_of(stream):
    """Frames made so far; the engine's steps count those that waited for text, too."""
    return int(stream.timings.get("frames", 0))


def first_sound(stream, seconds=600.0):
    """True when sound came; False when the engine has settled without any."""
    still, last, until = 0, None, time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if len(stream.get(timeout=0.02).samples):
                return True
        except queue.Empty:
            now = (frames_of(stream), round(time.process_time(), 1))  # waiting takes a little work
            still, last = (still + 1, last) if now == last else (0, now)
            if still >= SETTLED:
                return False
    raise TimeoutError("no sound and no rest")


def by_model(engine, at_once=1):
    """Words, frames and work until the first sound when the model takes the text itself, the first `at_once`
    words together."""
    feed, work = TextFeed(), time.process_time()
    stream = engine.submit(request_of(engine, text="", text_feed=feed))
    try:
        first, rest = words_of(TEXT)[:at_once], words_of(TEXT)[at_once:]
        for number, words in enumerate(["".join(first), *rest], at_once):
            feed.put(words)
            if first_sound(stream):
                return number, frames_of(stream), time.process_time() - work
        feed.close()
        assert first_sound(stream)
        return number, frames_of(stream), time.process_time() - work
    finally:
        stream.cancel()


def by_sentence(engine):
    """The same when each sentence is a request once the text after it shows that it is over."""
    cutter, work = SentenceCutter(), time.process_time()
    ready, number = [], 0
    while not ready:
        ready = cutter.push(words_of(TEXT)[number])
        number += 1
    stream = engine.submit(request_of(engine, text=ready[0]))
    try:
        while not first_sound(stream):
            pass
        return number, frames_of(stream), time.process_time() - work
    finally:
        stream.cancel()


def settled(engine):
    while engine.load != (0, 0):
        time.sleep(0.01)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--words-a-second", type=float, default=10.0, help="of the language model")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    ways = {
        "fed to the model": by_model,
        "three words at once": partial(by_model, at_once=3),
        "sentence by sentence": by_sentence,
    }
    found = {name: [] for name in ways}
    with sonant.load(options.model, device="cpu", slots=1, precision=options.precision) as engine:
        for _ in range(options.rounds + 1):
            for name, way in ways.items():
                found[name].append(way(engine))
                settled(engine)
    report = {"text": TEXT, "model": options.model, "precision": options.precision}
    for name, rounds in found.items():
        words, frames, work = (statistics.median(column) for column in zip(*rounds[1:], strict=True))
        report[name] = {
            "words that had to come": words,
            "frames made until sound": frames,
            "work, s": round(work, 3),
            "first sound at that pace, s": round(words / options.words_a_second + work, 3),
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
