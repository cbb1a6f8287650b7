"""Which part of a prompt a position belongs to: role, language tag, speaker, text, clip.

Told from what a trace records of itself (lengths of ids, the request), so that it works for any port that
is compared with it. Sources: `families.qwen3_tts.prompt.build_inputs`, `families.cosyvoice3.lm`,
`families.indextts2.gpt.conditions`.
"""

from __future__ import annotations

from collections.abc import Callable

from sonant.parity.trace import Entry, Trace


def part_of(trace: Trace, entry: Entry, position: int) -> tuple[str, int]:
    """Words for one position of a prompt's vectors, and how many positions they are for; "" if unknown."""
    layout = _LAYOUTS.get(entry.name)
    at = 0
    for words, length in layout(trace, entry) if layout is not None else ():
        if at <= position < at + length:
            return words, length
        at += length
    return "", 0


def _length(trace: Trace, name: str, axis: int = 0) -> int:
    entry = trace.by_key.get(name)
    return entry.shape[axis] if entry is not None and len(entry.shape) > axis else 0


def _qwen(trace: Trace, entry: Entry) -> list[tuple[str, int]]:
    request = trace.metadata.get("request")
    request = request if isinstance(request, dict) else {}
    language = str(request.get("language") or "auto").lower()
    style = request.get("style")
    is_cloned = "speaker.vector" in trace.by_key
    has_speaker = is_cloned or bool(request.get("voice"))
    parts = [
        ("instruction (text)", _length(trace, "prompt.instruction_ids")),
        ("role marker (text)", 3),
    ]
    if not request and style is None:
        return parts
    tag = ["no-think", "think begin", "think end"]
    if language != "auto":
        tag = ["think", "think begin", f"language {language}", "think end"]
    parts += [(f"codec tag {word} plus text pad", 1) for word in tag]
    if has_speaker:
        parts.append((f"speaker {'vector' if is_cloned else 'row'} plus text pad", 1))
    parts.append(("text begin plus codec pad", 1))
    rows = entry.shape[-2] if len(entry.shape) > 1 else 0
    rest = rows - sum(length for _, length in parts)
    if rest < 1:
        return []
    clip = _length(trace, "codec_encoder.tokens", 1)
    if "prompt.reference_ids" in trace.by_key and rest == clip + 1:
        return [*parts, ("text plus codec begin", 1), ("text plus frame of the clip", clip)]
    if rest > clip + 1 and "prompt.reference_ids" in trace.by_key:
        words = rest - clip - 1
        return [
            *parts,
            ("text plus codec pad", words),
            ("codec begin plus text pad", 1),
            ("clip frame", clip),
        ]
    if rest == 1:
        return [*parts, ("first text id plus codec begin", 1)]
    return [*parts, ("text plus codec pad", rest - 1), ("codec begin plus text pad", 1)]


def _cosyvoice(trace: Trace, entry: Entry) -> list[tuple[str, int]]:
    return [
        ("start of sequence", 1),
        ("text", _length(trace, "lm.text_ids")),
        ("task id", 1),
        ("speech token of the clip", _length(trace, "lm.prompt_tokens")),
    ]


def _indextts(trace: Trace, entry: Entry) -> list[tuple[str, int]]:
    latents = _length(trace, "gpt.speaker.latents", 1)
    rows = entry.shape[-2] if len(entry.shape) > 1 else 0
    if not latents:
        return []
    return [("speaker latent plus emotion", latents), ("speed row", 2), ("text", rows - latents - 2)]


_LAYOUTS: dict[str, Callable[[Trace, Entry], list[tuple[str, int]]]] = {
    "prompt.embeds": _qwen,
    "prompt.part.text": _qwen,
    "prompt.part.codec": _qwen,
    "lm.input": _cosyvoice,
    "gpt.prefix": _indextts,
}
