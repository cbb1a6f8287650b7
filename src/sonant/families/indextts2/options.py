"""What a request may set that only IndexTTS2 and IndexTTS-2.5 have, sampling defaults and presets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sonant.errors import RequestError
from sonant.request.speech import ModelSpec

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

OPTIONS: Mapping[str, str] = {
    "emotion_bias": "weigh and cap an emotion vector as the original's web page does (default true); "
    "false takes the numbers as they are, as the original's Python interface does",
    "emotion_random_seed": "seed of Python's generator for emotion_random (default: the request's seed)",
    "segment_pieces": "text pieces in one segment at most, 1 to the model's limit (default 120)",
    "quick_pieces": "join the first this many pieces less, for an earlier first sound (default 0)",
    "interval_silence_ms": "silence between segments in milliseconds, 0 to 10000 (default 200)",
    "typical_mass": "locally typical sampling with this mass, 0 to 1 (default off)",
    "early_stopping": "beams stop as soon as enough of them ended (default false)",
    "mask_start_code": "never choose the start code, which ends in an error (default false; changes parity)",
}

MULTILINGUAL_OPTIONS: Mapping[str, str] = {
    **{name: told for name, told in OPTIONS.items() if name != "quick_pieces"},
    "segment_pieces": "text tokens in one segment at most, the language's prefix included (default 120)",
    "duration_factor": "length of the speech as a multiple of the model's own, 0.25 to 4; the same as "
    "1 / speed (default 1)",
    "language_code": "a code of the original's table that is no language of this list, such as zhen for "
    "Chinese mixed with English, yue or fr (default: by language)",
    "piece_characters": "first cut the text at marks into pieces of so many characters, each with an emotion "
    "of its own words; the original does so with 40 on small GPUs (default off)",
}


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """`SpeechRequest.options`, checked."""

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
    def read(given: Mapping[str, Any], *, spec: ModelSpec, longest_segment: int) -> IndexOptions:
        """The options of a request. Raises RequestError naming the first wrong one."""
        unknown = sorted(given.keys() - spec.options.keys())
        if unknown:
            raise RequestError(
                f"unknown option {unknown[0]!r}; {spec.name} has: {', '.join(spec.options)}.", field="options"
            )
        limits: dict[str, tuple[float, float]] = {
            "emotion_random_seed": (0, 2**63 - 1),
            "segment_pieces": (1, longest_segment),
            "quick_pieces": (0, 100_000),
            "interval_silence_ms": (0, 10_000),
            "typical_mass": (1e-6, 1),
            "duration_factor": (0.25, 4),
            "piece_characters": (1, 100_000),
        }
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name in limits:
                low, high = limits[name]
                whole = name not in ("interval_silence_ms", "typical_mass", "duration_factor")
                is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
                if not is_number or not low <= value <= high:
                    raise RequestError(
                        f"option {name} is {value!r}; expected {'a whole number ' if whole else ''}"
                        f"{low:g} to {high:g}",
                        field=f"options.{name}",
                    )
            elif name == "language_code":
                if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z/]{1,20}", value):
                    raise RequestError(
                        f"option {name} is {value!r}; expected a code such as zhen, yue or fr",
                        field=f"options.{name}",
                    )
            elif not isinstance(value, bool):
                raise RequestError(
                    f"option {name} is {value!r}; expected true or false", field=f"options.{name}"
                )
            values[name] = value
        return IndexOptions(**values)
