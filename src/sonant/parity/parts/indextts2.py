"""The parts of IndexTTS2's prompt. Source: `families.indextts2.gpt.conditions`."""

from __future__ import annotations

from sonant.parity.trace import Entry, Trace


def _parts(trace: Trace, entry: Entry) -> list[tuple[str, int]]:
    latents = trace.length("gpt.speaker.latents", 1)
    rows = entry.shape[-2] if len(entry.shape) > 1 else 0
    if not latents:
        return []
    return [("speaker latent plus emotion", latents), ("speed row", 2), ("text", rows - latents - 2)]


LAYOUTS = {"gpt.prefix": _parts}
