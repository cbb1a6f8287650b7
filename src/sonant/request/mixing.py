"""A mixture of a model's own voices, written as their names with weights: `af_bella:0.6+af_sky:0.4`."""

from __future__ import annotations

import math

from sonant.errors import VoiceError


def parse_mixture(name: str) -> tuple[tuple[str, float], ...]:
    """Names and weights, which sum to 1; a name without a weight has the weight 1 before that.

    Raises VoiceError.
    """
    parts = []
    for part in name.split("+"):
        voice, colon, written = (piece.strip() for piece in part.partition(":"))
        try:
            weight = float(written) if colon else 1.0
        except ValueError:
            weight = math.nan
        if not voice or not math.isfinite(weight) or weight <= 0:
            raise VoiceError(
                f"{part!r} in {name!r} is no voice with a weight; expected names of voices with weights "
                "above 0, such as af_bella:0.6+af_sky:0.4. Mend it."
            )
        parts.append((voice, weight))
    total = sum(weight for _, weight in parts)
    if not math.isfinite(total):
        raise VoiceError(f"the weights of {name!r} are too large to be added up. Give smaller ones.")
    return tuple((voice, weight / total) for voice, weight in parts)
