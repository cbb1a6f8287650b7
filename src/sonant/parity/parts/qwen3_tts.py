"""The parts of Qwen3-TTS's prompt. Source: `families.qwen3_tts.prompt.build_inputs`."""

from __future__ import annotations

from sonant.parity.trace import Entry, Trace


def _parts(trace: Trace, entry: Entry) -> list[tuple[str, int]]:
    request = trace.metadata.get("request")
    request = request if isinstance(request, dict) else {}
    language = str(request.get("language") or "auto").lower()
    style = request.get("style")
    is_cloned = "speaker.vector" in trace.by_key
    has_speaker = is_cloned or bool(request.get("voice"))
    parts = [
        ("instruction (text)", trace.length("prompt.instruction_ids")),
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
    clip = trace.length("codec_encoder.tokens", 1)
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


LAYOUTS = {"prompt.embeds": _parts, "prompt.part.text": _parts, "prompt.part.codec": _parts}
