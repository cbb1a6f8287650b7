"""What a comparison cannot speak of: paths that the request of the reference never took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sonant.parity.stages.table import StageTable
from sonant.parity.trace import Trace

ALWAYS = "streaming: an answer is recorded whole, so pieces and kept states are not exercised"


def unexercised(trace: Trace, table: StageTable) -> Iterator[str]:
    """A sentence for each path that was not taken; nothing for a file that says nothing of its request."""
    request = trace.metadata.get("request")
    if not isinstance(request, Mapping) or "text" not in request or not table.stages:
        return
    sampling = request.get("sampling")
    given = sampling if isinstance(sampling, Mapping) else {}
    names = {entry.name for entry in trace.entries}
    has_draws = any(name.startswith("draw.") for name in names)
    if given.get("greedy"):
        yield "sampling: the request is greedy, so temperature, top-k, top-p and draws are not exercised"
    elif not has_draws:
        yield "sampling: nothing was drawn"
    else:
        if given.get("top_p", 1.0) in (None, 1.0, 1) and "top_p" not in table.set_by_model:
            yield "top-p: not set in the request, so it is the model's own (often off)"
        if given.get("top_k") == 0:
            yield "top-k: off"
        if given.get("repetition_penalty") == 1:
            yield "repetition penalty: off"
    beams = [entry.elements for entry in trace.entries if table.beams and entry.name == table.beams]
    if beams and max(beams) < 2:
        yield "beams: one beam, so beam search is not exercised"
    if "input.audio" not in names:
        yield "voice: no clip was encoded, so the reference encoders are not exercised"
    if table.token and not _has_ended(trace, table):
        yield "the end: decoding stopped at the limit of steps, no end token was chosen"
    options = request.get("options")
    code = options.get("language_code") if isinstance(options, Mapping) else None
    if not (request.get("language") or code):
        yield "language: none was asked for"
    style = request.get("style")
    given_style = style if isinstance(style, Mapping) else {}
    has_style = any(value for name, value in given_style.items() if name != "emotion_strength")
    if not has_style and "input.emotion_audio" not in names:
        yield "style: no instruction and no emotion was asked for"
    if not any(name.startswith("segment.") for name in names):
        yield "segments: the text is one segment"
    yield ALWAYS


def _has_ended(trace: Trace, table: StageTable) -> bool:
    """Fewer steps than the limit: the run ended by itself."""
    request = trace.metadata.get("request", {})
    limit = request.get("max_steps")
    steps = sum(e.kind == "token" and e.name == table.token for e in trace.entries)
    return not (isinstance(limit, int) and steps >= limit)
