"""What a precision costs in what is said: the same sentences and seeds in each; how many codes stay equal?

    texts --the model in each precision, greedy and by seeds--> FOLDER/PRECISION/MODE/0001.wav and .json
    --judges, if asked--> word and letter errors, DNSMOS

Logits tell how far two precisions are apart; the codes that are chosen tell what a listener gets of it. One
code that differs changes all that follow, so the share of equal codes says how soon two readings part, not
how bad one of them is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from sonant.errors import RequestError
from sonant.files import write_atomically

if TYPE_CHECKING:
    from sonant.engine.engine import Engine
    from sonant.engine.model import SpeechModel, Step, Utterance
    from sonant.request.audio import Audio
    from sonant.request.voice import Voice

Judge = Callable[["Audio", str], tuple[str, float]]
"""What is heard in a clip that should say the text, and its DNSMOS."""
MODES = ("greedy", "seeds")
RECORD = "trial.json"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is said: by which model, and with sentence n and seed `seed + n`."""

    model: str
    fingerprint: str
    precisions: tuple[str, ...]
    """The first is what the others are held against."""
    texts: tuple[str, ...]
    seed: int = 0
    max_frames: int | None = None


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Of one precision and mode, against the first precision of the trial."""

    precision: str
    mode: str
    sentences: int
    equal: float
    """Share of codes that are equal at the same place, of those of the longer reading."""
    first: float
    """Frames before the first that differs, the median of all sentences; of equal readings, all of them."""
    whole: int
    """Sentences without any difference."""
    length: float
    """Frames of all readings over the first precision's."""
    wer: float | None = None
    """Word errors over words, of all sentences together; None before all of them were listened to."""
    cer: float | None = None
    """The same of letters."""
    dnsmos: float | None = None
    """How it sounds, 1 to 5, the mean of all sentences."""


def sentences() -> tuple[str, ...]:
    """A hundred English sentences, written for listening tests."""
    text = resources.files("sonant.bench").joinpath("sentences.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def read_texts(path: Path) -> tuple[str, ...]:
    """One sentence a line. Raises RequestError for a file that cannot be read or holds none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            f"cannot read the sentences of {path} ({error}); expected UTF-8 text, one a line."
        ) from error
    texts = tuple(line.strip() for line in lines if line.strip())
    if not texts:
        raise RequestError(f"{path} holds no sentence; expected one a line.")
    return texts


def choose_precisions(model: str, wanted: str) -> tuple[str, ...]:
    """Precisions to compare: the widest that the model offers, then `wanted`, or with "auto" all others."""
    from sonant.catalogue import registry

    offered = registry.precisions(model)
    base = "lossless" if "lossless" in offered else "full"
    others = tuple(name for name in offered if name not in ("auto", "full", base))
    if not others:
        raise RequestError(f"{model} has one precision only; there is nothing to compare.", field="precision")
    if wanted == "auto":
        return (base, *others)
    if wanted not in others:
        raise RequestError(
            f"precision is {wanted!r}; expected one of {', '.join(others)}, to be held against {base}.",
            field="precision",
        )
    return (base, wanted)


def speak(
    trial: Trial, folder: Path, *, threads: int, tell: Callable[[str], None], seconds: float | None = None
) -> bool:
    """Say whatever is not in the folder yet, for `seconds` at most; true when all of it is there.

    Raises RequestError for a folder of another trial, whose readings could not be compared.
    """
    import time

    import torch

    from sonant.bench.reference_clip import reference_voice
    from sonant.catalogue.registry import load

    until = None if seconds is None else time.monotonic() + seconds
    _check_trial(trial, folder)
    torch.set_num_threads(threads)
    for precision in trial.precisions:
        missing = [item for item in _items(trial, folder, precision) if not item[2].is_file()]
        if not missing:
            continue
        if until is not None and time.monotonic() > until:
            return False
        tell(f"{precision}: {len(missing)} to say")
        with load(trial.model, device="cpu", precision=precision, slots=1) as engine:
            voice: Voice | str | None = engine.spec.voices[0] if engine.spec.voices else None
            if engine.spec.needs_voice:
                voice = reference_voice(engine)
            for mode, number, file in missing:
                if until is not None and time.monotonic() > until:
                    return False
                _say(engine, trial, mode, number, voice, file)
    return True


def listen(
    trial: Trial, folder: Path, judge: Judge, *, tell: Callable[[str], None], seconds: float | None = None
) -> bool:
    """Judge what was said wherever it was not yet, for `seconds` at most; true when all of it is.

    Clips equal to the byte are judged once: a model that is greedy by itself says the same by every seed.
    """
    import time

    from sonant.request.audio import Audio

    until = None if seconds is None else time.monotonic() + seconds
    said = [item[2] for precision in trial.precisions for item in _items(trial, folder, precision)]
    readings = {file: _reading(file) for file in said if file.is_file()}
    clips = {file: (reading["text"], _hash(file.with_suffix(".wav"))) for file, reading in readings.items()}
    judged = {clips[file]: reading for file, reading in readings.items() if "dnsmos" in reading}
    missing = [file for file, reading in readings.items() if "dnsmos" not in reading]
    if missing:
        tell(f"{len({clips[file] for file in missing} - judged.keys())} to hear")
    for file in missing:
        if until is not None and time.monotonic() > until:
            return False
        if clips[file] not in judged:
            heard, mos = judge(Audio.read(file.with_suffix(".wav")), readings[file]["text"])
            judged[clips[file]] = {"heard": heard, "dnsmos": mos}
        record = {**readings[file], **{name: judged[clips[file]][name] for name in ("heard", "dnsmos")}}
        write_atomically(file, json.dumps(record).encode(), is_private=False)
    return all(file.is_file() for file in said)


def _hash(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()


def _check_trial(trial: Trial, folder: Path) -> None:
    record = json.loads(json.dumps(asdict(trial)))
    path = folder / RECORD
    if not path.is_file():
        write_atomically(path, json.dumps(record, indent=1, ensure_ascii=False).encode(), is_private=False)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(
            f"cannot read {path} ({error}); expected what an earlier run wrote. Take another folder."
        ) from error
    changed = [
        name for name in record if record[name] != (found.get(name) if isinstance(found, dict) else None)
    ]
    if changed:
        raise RequestError(
            f"{folder} holds readings of other {', '.join(changed)} than asked for now; expected the same "
            "trial. Take an empty folder, or ask for what was asked for then."
        )


def _items(trial: Trial, folder: Path, precision: str) -> Iterator[tuple[str, int, Path]]:
    for mode in MODES:
        for number in range(len(trial.texts)):
            yield mode, number, folder / precision / mode / f"{number + 1:04}.json"


def _say(engine: Engine, trial: Trial, mode: str, number: int, voice: Voice | str | None, file: Path) -> None:
    from sonant.request.speech import Sampling, SpeechRequest, Style

    spec = engine.spec
    given: dict[str, Any] = {**spec.greedy} if mode == "greedy" else {}
    if trial.max_frames is not None and "max_frames" in spec.sampling:
        given["max_frames"] = trial.max_frames
    style = Style(instruction="a calm, low voice") if spec.needs_instruction else Style()
    request = SpeechRequest(
        trial.texts[number], voice=voice, style=style, sampling=Sampling(**given), seed=trial.seed + number
    )
    with _listening(engine.model) as codes:
        speech = engine.synthesize(request)
    file.parent.mkdir(parents=True, exist_ok=True)
    speech.write(file.with_suffix(".wav"))
    record = {
        "text": trial.texts[number],
        "seed": trial.seed + number,
        "seconds": speech.seconds,
        "codes": codes,
    }
    write_atomically(file, json.dumps(record).encode(), is_private=False)


@contextmanager
def _listening(model: SpeechModel) -> Iterator[list[list[int]]]:
    """The tokens of every step while the block runs; one utterance at a time."""
    step, codes = model.step, list[list[int]]()

    def heard(utterances: Sequence[Utterance]) -> list[Step]:
        steps = step(utterances)
        for one in steps:
            codes.extend(one.tokens.tolist())
        return steps

    model.__dict__["step"] = heard
    try:
        yield codes
    finally:
        del model.__dict__["step"]


def shares(trial: Trial, folder: Path) -> list[Shares]:
    """What is in the folder so far, in the trial's order; where nothing is comparable yet is left out.

    The first precision comes first, and is held against itself: of it only the words tell something.
    """
    found: list[Shares] = []
    base = trial.precisions[0]
    for precision in trial.precisions:
        for mode in MODES:
            pairs = []
            for number in range(len(trial.texts)):
                files = [folder / one / mode / f"{number + 1:04}.json" for one in (base, precision)]
                if all(file.is_file() for file in files):
                    pairs.append(tuple(_reading(file) for file in files))
            if pairs:
                codes = [tuple(reading["codes"] for reading in pair) for pair in pairs]
                words = _words([pair[1] for pair in pairs])
                found.append(replace(_compared(precision, mode, codes), **words))
    return found


def _words(readings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    from sonant.text.scoring import Score, score_words

    if not all("heard" in reading and "dnsmos" in reading for reading in readings):
        return {}
    total = sum((score_words(reading["text"], reading["heard"]) for reading in readings), Score())
    mos = sum(float(reading["dnsmos"]) for reading in readings) / len(readings)
    return {"wer": round(total.wer, 4), "cer": round(total.cer, 4), "dnsmos": round(mos, 3)}


def _reading(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        codes = [[int(code) for code in frame] for frame in found["codes"]]
        return {**found, "text": str(found["text"]), "codes": codes}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"cannot read {file} ({error}); expected what a reading left. Remove it."
        ) from error


def _compared(precision: str, mode: str, pairs: Sequence[Sequence[list[list[int]]]]) -> Shares:
    equal = total = whole = 0
    firsts, lengths = [], [0, 0]
    for wide, narrow in pairs:
        same = [  # as far as both go: frames that only one has count in `total`, as unequal
            sum(a == b for a, b in zip(*frames, strict=True)) for frames in zip(wide, narrow, strict=False)
        ]
        longer = max(wide, narrow, key=len)
        equal += sum(same)
        total += sum(map(len, longer))
        parted = (at for at, count in enumerate(same) if count < len(wide[at]))
        first = next(parted, min(len(wide), len(narrow)))
        whole += first == len(longer)
        firsts.append(first)
        lengths = [lengths[0] + len(wide), lengths[1] + len(narrow)]
    return Shares(
        precision=precision,
        mode=mode,
        sentences=len(pairs),
        equal=round(equal / max(total, 1), 4),
        first=median(firsts),
        whole=whole,
        length=round(lengths[1] / max(lengths[0], 1), 4),
    )
