"""Sampling settings under a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sonant.errors import RequestError
from sonant.speech import Sampling


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings that belong together, and what they are for."""

    name: str
    about: str
    sampling: Sampling


PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="indextts2-clean",
            about="IndexTTS2: the settings that a sweep over its decoding found cleanest",
            sampling=Sampling(
                top_k=0, top_p=1.0, temperature=0.8, repetition_penalty=1.05, flow_steps=25, guidance=0.7
            ),
        ),
        Preset(
            name="greedy",
            about="any model with a greedy setting: the likeliest token every time",
            sampling=Sampling(greedy=True),
        ),
    )
}


def find_preset(name: str) -> Preset:
    """The preset of this name. Raises RequestError listing the names."""
    preset = PRESETS.get(name.lower())
    if preset is None:
        known = "; ".join(f"{preset.name} ({preset.about})" for preset in PRESETS.values())
        raise RequestError(f"{name!r} is no preset; there are: {known}. Choose one of them.", field="preset")
    return preset
