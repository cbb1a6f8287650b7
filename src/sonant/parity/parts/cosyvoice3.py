"""The parts of CosyVoice3's prompt. Source: `families.cosyvoice3.lm`."""

from __future__ import annotations

from sonant.parity.trace import Entry, Trace


def _parts(trace: Trace, entry: Entry) -> list[tuple[str, int]]:
    return [
        ("start of sequence", 1),
        ("text", trace.length("lm.text_ids")),
        ("task id", 1),
        ("speech token of the clip", trace.length("lm.prompt_tokens")),
    ]


LAYOUTS = {"lm.input": _parts}
