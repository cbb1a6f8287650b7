"""A whole book read by one command, watched: time, memory, chapters and cues in order, words heard.

    python benchmarks/long_book.py make alice29.txt book.epub     a text with CHAPTER lines -> an EPUB
    python benchmarks/long_book.py read book.epub book.m4b        sonant read, stopped after --seconds; again
    python benchmarks/long_book.py check book.m4b                 chapters, cues and lines against one another
    python benchmarks/long_book.py judge book.m4b --sentences 200 word errors of a sample, by the recogniser
    python benchmarks/long_book.py align book.m4b                 every sentence looked for in what is heard

judge and align take --first and --last, so that they can be run in parts (sentences; windows of 27 s).

Figures are added to book.m4b.figures.json. Such a text: tests/testdata/alice29.txt of brotli's source.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from difflib import SequenceMatcher
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

PAGE = '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>{0}</title></head><body><h1>{0}</h1>{1}</body></html>'
WINDOW = 27.0
"""Seconds that are heard at once; the recogniser's own window is 30."""


def make(text: Path, book: Path) -> None:
    """An EPUB with a page for each chapter of a plain text."""
    plain = re.sub(
        r"`((?:[^`']|'(?=\w))*)'(?!\w)", r"“\1”", text.read_text("utf-8", "replace")
    )  # `typewriter's quotes'
    parts = re.split(r"^\s*(CHAPTER [IVXLC]+\.?)\s*$", plain, flags=re.MULTILINE)
    pages = []
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        first, *paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", body) if p.strip()]
        blocks = "".join(f"<p>{escape(p)}</p>" for p in paragraphs)
        pages.append((f"{title.replace('CHAPTER', 'Chapter')} {first}".replace("  ", " "), blocks))
    items = "".join(
        f'<item id="c{n}" href="c{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(pages))
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(pages)))
    links = "".join(
        f'<li><a href="c{n}.xhtml">{escape(title)}</a></li>' for n, (title, _) in enumerate(pages)
    )
    with zipfile.ZipFile(book, "w") as file:
        file.writestr("mimetype", "application/epub+zip", compress_type=zipfile.ZIP_STORED)
        file.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
            '<rootfile full-path="book.opf" '
            'media-type="application/oebps-package+xml"/></rootfiles></container>',
        )
        file.writestr(
            "book.opf",
            '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata '
            f'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{escape(text.stem)}</dc:title><dc:language>en'
            '</dc:language></metadata><manifest><item id="nav" href="nav.xhtml" properties="nav" '
            f'media-type="application/xhtml+xml"/>{items}</manifest><spine>{spine}</spine></package>',
        )
        file.writestr(
            "nav.xhtml",
            '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><body>'
            f'<nav epub:type="toc"><ol>{links}</ol></nav></body></html>',
        )
        for n, (title, blocks) in enumerate(pages):
            file.writestr(f"c{n}.xhtml", PAGE.format(escape(title), blocks))
    words = sum(len(re.sub("<[^>]+>", " ", blocks).split()) for _, blocks in pages)
    print(f"{book}: {len(pages)} chapters, {words:,} words")


def read(book: Path, target: Path, seconds: float, options: list[str]) -> int:
    """`sonant read`, its memory taken at every tenth; stopped as by Ctrl-C after `seconds`."""
    command = [sys.executable, "-m", "sonant", "read", str(book), "-o", str(target), "--subtitles",
               str(target.with_suffix(".srt")), "--report",
               str(target.with_suffix(".json")), *options]  # fmt: skip
    began = time.monotonic()
    log = target.with_name(f"{target.name}.log")
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file, stdout=subprocess.DEVNULL)
    timer = subprocess.Popen(["sleep", str(seconds)])
    memory: dict[str, int] = {}
    peak, used = 0, 0.0
    while process.poll() is None:
        time.sleep(0.2)
        peak, used = max(peak, _resident(process.pid)), _cpu(process.pid) or used
        for share in re.findall(r"^(\d+) %$", log.read_text(), re.MULTILINE):
            memory.setdefault(share, _resident(process.pid))
        if timer.poll() is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait()
    timer.kill()
    timer.wait()
    _note(
        target, "runs",
        {"status": process.returncode, "wall_seconds": round(time.monotonic() - began, 1),
         "cpu_seconds": round(used, 1), "resident_mib_at_percent": memory, "peak_resident_mib": peak},
    )  # fmt: skip
    print("\n".join(log.read_text().splitlines()[-5:]))
    return process.returncode


def _resident(pid: int) -> int:
    """MiB in memory now."""
    try:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) // 1024 if found else 0


def _cpu(pid: int) -> float:
    """Seconds of processor time so far."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check(target: Path) -> None:
    """Chapters, cues and lines are in order, and none is missing."""
    import av

    from sonant.books.subtitles import read_subtitles

    report = _report(target)
    cues = read_subtitles(target.with_suffix(".srt"))
    with av.open(str(target)) as file:
        chapters = [(c["metadata"]["title"], c["start"] * float(c["time_base"])) for c in file.chapters()]
        seconds = file.duration / 1e6
    lines = report["lines"]
    assert [c["title"] for c in report["chapters"]] == [title for title, _ in chapters]
    assert all(abs(c["start"] - at) < 0.002 for c, (_, at) in zip(report["chapters"], chapters, strict=True))
    assert all(a["end"] <= b["start"] + 1e-6 for a, b in pairwise(lines))
    assert all(a.end <= b.start + 0.002 for a, b in pairwise(cues))
    spoken = " ".join(" ".join(line["text"].split()) for line in lines).split()
    assert " ".join(cue.text for cue in cues).split() == spoken
    assert abs(seconds - report["seconds"]) < 0.2
    figures = {
        "chapters": len(chapters), "lines": len(lines), "cues": len(cues), "words": len(spoken),
        "hours": round(seconds / 3600, 3),
        "failures": len(report["failures"]), "guards": len(report["guards"]),
        "mib": round(target.stat().st_size / 2**20, 1), "drift": report.get("drift"),
    }  # fmt: skip
    _note(target, "check", figures)


def judge(target: Path, count: int, first: int, last: int) -> None:
    """Word errors over a sample of sentences, `first` to `last` of it, each cut out of the finished file."""
    from sonant.request.audio import Audio
    from sonant.text.scoring import Score, score_words, words
    from sonant.voices.recogniser import Recogniser

    lines = [line for line in _report(target)["lines"] if len(words(line["text"], "english")) >= 4]
    chosen = sorted(random.Random(1).sample(range(len(lines)), min(count, len(lines))))[first:last]
    recogniser = Recogniser()
    scores: list[tuple[Score, str]] = []
    for number, samples, rate in _cuts(target, [lines[n] for n in chosen]):
        text = lines[chosen[number]]["text"]
        scores.append((score_words(text, recogniser.hear(Audio(samples, rate)).text, "english"), text))
    whole = sum((score for score, _ in scores), Score())
    kinds = [run.kind for run in whole.runs]
    _note(
        target, "judge",
        {"of": [first, first + len(scores)], "sentences": len(scores), "words": whole.words,
         "word_errors": whole.word_errors, "wer": round(whole.wer, 4), "longest_wrong": whole.longest,
         "runs": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
         "sentences_without_error": sum(not score.word_errors for score, _ in scores)},
    )  # fmt: skip
    for score, text in sorted(scores, key=lambda pair: -pair[0].word_errors)[:25]:
        print(f"{score.word_errors} of {score.words}: {'; '.join(map(str, score.runs))}\n    {text}")


def align(target: Path, first: int, last: int) -> None:
    """Of windows of lines: the share of each sentence's words that is heard in its place."""
    from sonant.request.audio import Audio
    from sonant.text.scoring import words as words_of
    from sonant.voices.recogniser import Recogniser

    recogniser = Recogniser()
    windows = list(_windows(_report(target)["lines"]))[first:last]
    cuts = [{"start": window[0]["start"], "end": window[-1]["end"]} for window in windows]
    missing, equal, total = [], 0, 0
    for number, samples, rate in _cuts(target, cuts):
        heard = words_of(recogniser.hear(Audio(samples, rate)).text, "english")
        lines = windows[number]
        words = [(word, n) for n, line in enumerate(lines) for word in words_of(line["text"], "english")]
        matches = SequenceMatcher(None, [w for w, _ in words], heard, autojunk=False).get_matching_blocks()
        found = np.zeros(len(words), bool)
        for block in matches:
            found[block.a : block.a + block.size] = True
        equal, total = equal + int(found.sum()), total + len(words)
        for n, line in enumerate(lines):
            mine = np.array([found[k] for k, (_, where) in enumerate(words) if where == n])
            if len(mine) and mine.mean() < 0.5:
                missing.append({"text": line["text"], "share": round(float(mine.mean()), 2)})
    _note(
        target, "align",
        {"windows": [first, first + len(windows)], "sentences": sum(map(len, windows)), "words": total,
         "heard_share": round(equal / max(total, 1), 4), "less_than_half_heard": missing},
    )  # fmt: skip


def _windows(lines: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    held: list[dict[str, Any]] = []
    for line in lines:
        if held and line["end"] - held[0]["start"] > WINDOW:
            yield held
            held = []
        held.append(line)
    if held:
        yield held


def _cuts(target: Path, lines: list[dict[str, Any]]) -> Iterator[tuple[int, np.ndarray, int]]:
    """Samples of each line in order, read once through the file."""
    import av

    with av.open(str(target)) as file:
        stream = file.streams.audio[0]
        rate = stream.rate
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        held, start, wanted = np.zeros(0, np.float32), 0, 0
        for frame in file.decode(stream):
            if wanted == len(lines):
                return
            ready = [f.to_ndarray()[0] for f in resampler.resample(frame)]
            held = np.concatenate([held, *ready])
            while wanted < len(lines):
                begin = max(round((lines[wanted]["start"] - 0.1) * rate), 0)
                end = round((lines[wanted]["end"] + 0.1) * rate)
                if start + len(held) < end:
                    drop = min(max(begin - start, 0), len(held))
                    held, start = held[drop:], start + drop
                    break
                yield wanted, held[begin - start : end - start], rate
                wanted += 1
        if wanted < len(lines):
            yield wanted, held[max(round((lines[wanted]["start"] - 0.1) * rate), 0) - start :], rate


def _report(target: Path) -> dict[str, Any]:
    return json.loads(target.with_suffix(".json").read_text("utf-8"))


def _note(target: Path, name: str, figures: dict[str, Any]) -> None:
    path = target.with_name(f"{target.name}.figures.json")
    data = json.loads(path.read_text()) if path.exists() else {}
    data.setdefault(name, []).append(figures)
    path.write_text(json.dumps(data, indent=2) + "\n")
    print(json.dumps({name: figures}, indent=2))


def main() -> None:
    """The commands above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("make", "read", "check", "judge", "align"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=500.0)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, default=10**6)
    given, rest = parser.parse_known_args()
    if given.step == "make":
        make(given.source, given.target)
    elif given.step == "read":
        sys.exit(read(given.source, given.target, given.seconds, rest))
    elif given.step == "check":
        check(given.source)
    elif given.step == "judge":
        judge(given.source, given.sentences, given.first, given.last)
    else:
        align(given.source, given.first, given.last)


if __name__ == "__main__":
    main()
