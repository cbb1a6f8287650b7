"""Long texts in pieces that are kept: a stopped reading goes on, and an edited one says only what is new.

Each piece is stored under a hash of everything that decides its samples, so the folder needs no index and
entries never go stale.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sonant import __version__
from sonant.engine.engine import Engine
from sonant.engine.stream import SpeechStream
from sonant.errors import GenerationError, RequestError, StorageError
from sonant.files import sweep_parts, write_atomically
from sonant.readings.job import Job
from sonant.readings.verifying import Recognisers, Verdict, Verified
from sonant.request.audio import Samples
from sonant.request.checks import make_folder
from sonant.request.speech import AudioChunk, GuardEvent, Normalize, SpeechRequest
from sonant.request.voice import Voice
from sonant.text.cleaning import clean
from sonant.text.segment import segment
from sonant.text.ssml import is_ssml

NEWER = (
    ("emoji", "skip"), ("code", "say"), ("exact", False), ("guards", "usual"), ("trim", False),
    ("remove_dc", False),
)  # fmt: skip
"""Settings that came later, and their values in pieces from before."""
PIECE_LIMIT = 1200
"""Characters; a longer paragraph is cut after a sentence."""


@dataclass(frozen=True)
class Piece:
    """Some text to say, and the silence after it in seconds."""

    text: str
    pause_after: float


def split_pieces(text: str, normalize: Normalize = "original") -> list[Piece]:
    """The text by paragraphs and pause tags, long paragraphs cut after sentences.

    Where Sonant's front end reads it, its lines are those of `text.cleaning`: any system's line ends part
    paragraphs.

    What cannot be spoken (a line of dashes, a lone pause tag) only adds its silence to the piece before it.
    """
    if normalize == "sonant":
        if is_ssml(text):
            raise RequestError(
                "the text is SSML, which is read as a whole; expected plain text or Markdown for a reading "
                "in pieces. Leave out --resume, or the tags.",
                field="text",
            )
        text = clean(text)
    pieces: list[Piece] = []
    for part in segment(text, limit=PIECE_LIMIT):
        if part.is_spoken:
            pieces.append(Piece(part.spoken, part.pause))
        elif pieces:
            pieces[-1] = Piece(pieces[-1].text, pieces[-1].pause_after + part.pause)
    if not pieces:
        raise RequestError(
            f"the text {text[:60]!r} has nothing to say in it. Give at least one word.", field="text"
        )
    return pieces


def piece_seed(seed: int, text: str) -> int:
    """The seed of a piece: its text decides, not its place, so an insertion changes nothing after it."""
    digest = hashlib.sha256(f"sonant-piece:{seed}:{text}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@dataclass(frozen=True, eq=False)
class Told:
    """A piece that was spoken, now or in an earlier run."""

    samples: Samples
    guards: tuple[tuple[str, str], ...]
    """Kind and message of each."""
    is_kept: bool
    """True when it was in the folder."""


class PieceStore:
    """Pieces spoken with one engine, voice and settings, each kept under a hash of all that decides it.

    `client` and `priority` are the engine's: whose turn comes next. Stores may share their `recognisers`.
    """

    def __init__(
        self,
        engine: Engine,
        job: Job,
        voice: Voice | str | None,
        folder: Path,
        *,
        client: Hashable = None,
        priority: int = 0,
        recognisers: Recognisers | None = None,
    ) -> None:
        self.seed: int = job.get("seed") or 0
        self.timings: dict[str, float] = {"generate": 0.0, "decode": 0.0}
        self._engine = engine
        self._verify = job.verify
        self._tries = job.verify_tries
        self._recognisers = recognisers or Recognisers()
        if job.verify:
            self._recognisers.expect(job.text)
            self._recognisers.of(job.get("language"), job.text)  # refused now, not in the middle of a book
        self.verdicts: list[Verdict] = []
        """Of what was spoken now, not of pieces from before."""
        self._voice = voice
        self._plain = replace(job, text="").request(None, spec=engine.spec)
        self.pace = self._plain.speed
        """Of speech at the job's own settings, 1 being the model's."""
        self._folder = folder
        self._identity = self._describe(job, voice)
        self._stream: SpeechStream | Verified | None = None
        self._turn: dict[str, Any] = {"client": client, "priority": priority}
        make_folder(folder)
        sweep_parts(folder)

    def _describe(self, job: Job, voice: Voice | str | None) -> str:
        """Everything but the text that decides the samples of a piece."""
        data = job.to_data()
        for name in ("text", "model", "format", "de_rumble", "loudness", "voice", "transcript", "in_pieces"):
            del data[name]
        spec = self._engine.spec
        # Pieces from before there was a choice of front ends stay good: they say true and false.
        front_end = data["normalize"] or spec.normalize
        data["normalize"] = {"original": True, "off": False}.get(front_end, front_end)
        if not self._verify:
            del data["verify"], data["verify_tries"]
        for name, default in NEWER:
            if data[name] == default:
                del data[name]
        hashes = job.input_hashes()
        del hashes["text"]
        data["versions"] = __version__
        data["fingerprint"] = [spec.family, spec.fingerprint]
        data["voice"] = voice if voice is None or isinstance(voice, str) else voice.digest()
        data["inputs"] = hashes
        data["seed"] = self.seed
        return json.dumps(data, sort_keys=True)

    def entry(self, text: str, *, speed: float | None = None) -> Path:
        """Where the piece of this text is kept."""
        pace = "" if speed is None else f"\nspeed {speed}"
        key = hashlib.sha256(f"{self._identity}{pace}\n{text}".encode("utf-8", "surrogatepass"))
        return self._folder / f"{key.hexdigest()[:40]}.safetensors"

    def tell(self, text: str, *, speed: float | None = None) -> Told:
        """The piece from the folder, or spoken now and kept; at another pace than the job's if one is given.

        Raises what speaking it raised.
        """
        entry = self.entry(text, speed=speed)
        kept = read_piece(entry)
        if kept is not None:
            return kept
        request = replace(self._request, text=text, seed=piece_seed(self.seed, text))
        if speed is not None:
            request = replace(request, speed=speed)
        told = self._speak(request)
        self._keep(entry, told)
        return told

    @cached_property
    def _request(self) -> SpeechRequest:
        """What every piece is spoken with; the voice is encoded for the first that is not kept."""
        return replace(self._plain, voice=self._engine.fit(self._voice))

    def cancel(self) -> None:
        """Stop the piece that is being spoken."""
        if self._stream is not None:
            self._stream.cancel()

    def _speak(self, request: SpeechRequest) -> Told:
        with self._begin(request) as stream:
            parts = [stream.get()]
            while not parts[-1].is_final:
                parts.append(stream.get())
            samples = np.concatenate([chunk.samples for chunk in parts])
        if isinstance(stream, Verified):
            self.verdicts += stream.verdicts
        for name in ("generate", "decode", "frames", "prefill", "prepare", "verify", "verify_again"):
            self.timings[name] = self.timings.get(name, 0.0) + stream.timings.get(name, 0.0)
        return Told(samples, tuple((guard.kind, guard.message) for guard in stream.guards), is_kept=False)

    def _begin(self, request: SpeechRequest) -> SpeechStream | Verified:
        if self._verify:
            recogniser = self._recognisers.of(request.language, request.text)
            language = self._recognisers.language_of(request.language, request.text)
            made = Verified(
                self._engine,
                request,
                tries=self._tries,
                recogniser=recogniser,
                language=language,
                **self._turn,
            )
            self._stream = made
            return made
        self._stream = self._engine.submit(request, streaming=False, **self._turn)
        return self._stream

    def _keep(self, entry: Path, told: Told) -> None:
        from safetensors.numpy import save

        metadata = {"format": "sonant-piece-1", "guards": json.dumps(told.guards)}
        try:
            write_atomically(entry, save({"samples": told.samples}, metadata=metadata))
        except OSError as error:
            raise StorageError(
                f"a finished piece cannot be kept in {self._folder} ({error.strerror or error}); "
                "expected room to write. Free space on the disk and run it again: what was kept before is "
                "not spoken again."
            ) from error


def read_piece(entry: Path) -> Told | None:
    """What is kept of a piece; None when it is absent or damaged, and it is then spoken again."""
    from safetensors import SafetensorError, safe_open

    if not entry.is_file():
        return None
    try:
        with safe_open(entry, framework="numpy") as file:
            metadata = file.metadata() or {}
            guards = tuple((str(kind), str(message)) for kind, message in json.loads(metadata["guards"]))
            return Told(file.get_tensor("samples"), guards, is_kept=True)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


class Narration:
    """A long text spoken piece by piece, each from the folder when it is there; read like a SpeechStream."""

    def __init__(self, engine: Engine, job: Job, voice: Voice | str | None, folder: Path) -> None:
        self.sample_rate = engine.spec.sample_rate
        self.guards: list[GuardEvent] = []
        self.pieces: Sequence[Piece] = split_pieces(job.text, job.get("normalize") or engine.spec.normalize)
        self.segments = tuple(piece.text for piece in self.pieces)
        self.reused = 0
        """Pieces that were in the folder."""
        self.store = PieceStore(engine, job, voice, folder)
        self.seed = self.store.seed
        self.verdicts = self.store.verdicts
        self.timings = self.store.timings
        self.timings |= {"first_audio": 0.0, "total": 0.0}
        self._next = 0
        self._start = 0
        self._began = time.monotonic()

    def get(self) -> AudioChunk:
        """The next piece whole, with the pause after it. Raises what speaking it raised."""
        if self._next >= len(self.pieces):
            raise GenerationError("this reading was read to its end; start it again")
        index = self._next
        piece = self.pieces[index]
        told = self._tell_or_skip(piece)
        self.reused += told.is_kept
        self.guards.extend(GuardEvent(kind, message, index) for kind, message in told.guards)
        pause = piece.pause_after if len(told.samples) else 0.0
        gap = np.zeros(round(pause * self.sample_rate), np.float32)
        joined = np.concatenate([told.samples, gap])
        start = self._start / self.sample_rate
        self._start += len(joined)
        self._next += 1
        elapsed = time.monotonic() - self._began
        self.timings["first_audio"] = self.timings["first_audio"] or elapsed
        self.timings["total"] = elapsed
        self.timings["audio"] = self._start / self.sample_rate
        is_final = self._next == len(self.pieces)
        return AudioChunk(joined, self.sample_rate, index, start, is_final, piece.text)

    def _tell_or_skip(self, piece: Piece) -> Told:
        """The piece; no sound and a warning where nothing of it can be spoken.

        A reading of which nothing at all can be spoken raises what its last piece raised.
        """
        try:
            return self.store.tell(piece.text)
        except RequestError as error:
            if error.field != "text" or (self._start == 0 and self._next + 1 == len(self.pieces)):
                raise
            message = f"paragraph {self._next + 1} was left out: {error}"
            return Told(np.zeros(0, np.float32), (("unspeakable", message),), is_kept=False)

    def cancel(self) -> None:
        """Stop the piece that is being spoken."""
        self.store.cancel()
