"""What a request may set that only IndexTTS2 and IndexTTS-2.5 have, sampling defaults and presets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sonant.errors import RequestError
from sonant.request.settings import options_of

# Source: the defaults of the original's `infer`.
SAMPLING: Mapping[str, Any] = {
    "greedy": False,
    "temperature": 0.8,
    "top_k": 30,
    "top_p": 0.8,
    "repetition_penalty": 10.0,
    "beams": 3,
    "length_penalty": 0.0,
    "flow_steps": 25,
    "guidance": 0.7,
    "max_frames": 1500,
}


def _sweep(top_k: int, top_p: float, temperature: float, penalty: float) -> dict[str, Any]:
    return {
        "top_k": top_k,
        "top_p": top_p,
        "temperature": temperature,
        "repetition_penalty": penalty,
        "flow_steps": 25,
        "guidance": 0.7,
    }


# Source: the quality sweep of an earlier port; "cfg_a_safe" is the one it recommends.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "cfg_a_safe": _sweep(0, 1.0, 0.8, 1.05),
    "cfg_b": _sweep(20, 0.92, 0.75, 1.10),
    "cfg_c": _sweep(50, 0.95, 0.8, 1.10),
    "cfg_d": _sweep(0, 1.0, 0.7, 1.15),
    "cfg_e": _sweep(0, 1.0, 0.85, 1.00),
}

OPTIONS = options_of(
    "emotion_bias",
    "emotion_random_seed",
    "segment_pieces",
    "quick_pieces",
    "interval_silence_ms",
    "typical_mass",
    "early_stopping",
    "mask_start_code",
)
MULTILINGUAL_OPTIONS = {
    **{name: told for name, told in OPTIONS.items() if name != "quick_pieces"},
    **options_of("duration_factor", "language_code", "piece_characters"),
}


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """`SpeechRequest.options` by name, each with its default."""

    emotion_bias: bool = True
    emotion_random_seed: int | None = None
    segment_pieces: int = 120
    quick_pieces: int = 0
    interval_silence_ms: float = 200.0
    typical_mass: float | None = None
    early_stopping: bool = False
    mask_start_code: bool = False
    duration_factor: float | None = None
    language_code: str | None = None
    piece_characters: int | None = None

    @staticmethod
    def of(given: Mapping[str, Any], *, longest_segment: int) -> IndexOptions:
        """The options of a request. Raises RequestError for what this very model cannot take."""
        options = IndexOptions(**given)
        if "segment_pieces" in given and options.segment_pieces > longest_segment:
            raise RequestError(
                f"segment_pieces is {options.segment_pieces}; this model takes 1 to {longest_segment}",
                field="segment_pieces",
            )
        code = options.language_code
        if code is not None and not re.fullmatch(r"[A-Za-z/]{1,20}", code):
            raise RequestError(
                f"language_code is {code!r}; expected a code such as zhen, yue or fr", field="language_code"
            )
        return options
