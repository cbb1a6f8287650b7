"""One request as parity runs it: what is asked for, and how a family answers it step by step.

The same steps as the engine's, one utterance at a time, and the whole of the tokens decoded at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sonant.engine.model import Prompt, SpeechModel, joined
from sonant.engine.preparing import PARTS_APART
from sonant.errors import RequestError
from sonant.nn.tap import tap, tap_scope
from sonant.parity.trace import Trace
from sonant.request.audio import Audio
from sonant.request.checks import check_request
from sonant.request.seeds import segment_seed
from sonant.request.settings import settings_of
from sonant.request.speech import ModelSpec, Sampling, SpeechRequest, Style
from sonant.request.spoken import request_of, spoken_parts
from sonant.voices.casting import Casting

RECORDED = tuple(row for row in settings_of("request") if row.kind not in ("clip", "feed"))
"""Settings of the request that stand in a trace under their names; its clips are tensors there."""
MOST_STEPS = 1_000_000
"""More decoding steps than any utterance has."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A request, and the clip to clone with its transcript (instead of an encoded voice)."""

    request: SpeechRequest
    audio: Audio | None = None
    transcript: str | None = None
    max_steps: int | None = None
    """No more decoding steps than this; the rest of the utterance is not recorded."""

    def clips(self) -> dict[str, Audio]:
        """The clips that are given, by name."""
        found = {
            "audio": self.audio,
            "emotion_audio": self.request.style.emotion_audio,
            "source_audio": self.request.source_audio,
        }
        return {name: clip for name, clip in found.items() if clip is not None}

    def data(self) -> dict[str, Any]:
        """Plain data for a trace; the clips travel as tensors. Raises RequestError for what is no data."""
        request = self.request
        if request.voice is not None and not isinstance(request.voice, str):
            raise RequestError(
                "a recording takes the reference clip, not an encoded voice; expected --voice with an audio "
                "file or the name of a preset.",
                field="voice",
            )
        if request.text_feed is not None:
            raise RequestError(
                "a recording takes a whole text, not a feed, which can be read only once; expected text. "
                "Give all of it at once.",
                field="text_feed",
            )
        style = replace(request.style, emotion_audio=None)
        settings = {row.name: getattr(request, row.name) for row in RECORDED}
        given = {row.name: settings[row.name] for row in RECORDED if row.is_set(settings[row.name])}
        return {
            **{name: dict(v) if isinstance(v, Mapping) else v for name, v in given.items()},
            "normalize": _SAID.get(request.normalize, request.normalize),
            "text": request.text,
            "voice": request.voice,
            "transcript": self.transcript,
            "style": {k: v for k, v in asdict(style).items() if v is not None},
            "sampling": request.sampling.given(),
            "max_steps": self.max_steps,
            "rates": {name: clip.sample_rate for name, clip in self.clips().items()},
        }


_SAID: Mapping[Any, Any] = {"original": True, "off": False}
"""Front ends as a trace says them, in the words of the first version; the others are said by name."""


def front_end_said(record: Mapping[str, Any]) -> Any:
    """Which front end reads the text of a trace's request, as `SpeechRequest.normalize` says it.

    Where nothing is said, as in what the recorders beside the originals write, it is the original's.
    """
    said = record.get("normalize", True)
    return next((name for name, word in _SAID.items() if word is said), said)


def task_of(trace: Trace) -> Task:
    """The task that a trace was made from, so that another port can be given the very same."""
    record: Mapping[str, Any] = trace.metadata.get("request", {})
    if not isinstance(record, Mapping) or "text" not in record:
        raise RequestError(
            "the trace does not say what was asked for; expected a recorded request in it. Take another's "
            "with --like, or give --text, --voice and the rest by hand."
        )
    limit = record.get("max_steps")
    if limit is not None and (
        isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= MOST_STEPS
    ):
        raise RequestError(
            f"the trace's request has the limit {limit!r}; expected 1 to {MOST_STEPS} decoding steps. "
            "Give --steps, or record it again."
        )
    try:
        clips = {name: _clip(trace, name, rate) for name, rate in (record.get("rates") or {}).items()}
    except AttributeError as error:
        raise _damaged(error) from error
    try:
        return _task(record, clips, limit)
    except (RequestError, TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> RequestError:
    said = str(error) if isinstance(error, RequestError) else repr(error)
    return RequestError(
        f"the trace's request is damaged ({said.rstrip('.')}); expected what sonant parity record writes. "
        "Give --text and the rest by hand, or record it again."
    )


def _clip(trace: Trace, name: str, rate: Any) -> Audio:
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 1000 <= rate <= 1_000_000:
        raise RequestError(
            f"the trace's clip input.{name} has the rate {rate!r}; expected 1000 to 1000000 Hz. "
            "Record it again."
        )
    entry = trace.by_key.get(f"input.{name}")
    if entry is None or entry.sampled is not None or not entry.stored.is_floating_point():
        raise RequestError(
            f"the trace's request has a clip, and its samples input.{name} are not in the trace as float "
            "numbers; expected them whole. Record it again, or give --text and --voice."
        )
    samples = entry.stored.flatten().float()
    if not bool(torch.isfinite(samples).all()):
        raise RequestError(f"the trace's clip input.{name} has samples that are no numbers. Record it again.")
    return Audio(samples.numpy(), int(rate))


def _task(record: Mapping[str, Any], clips: Mapping[str, Audio], limit: int | None) -> Task:
    for name in ("text", "voice", "transcript"):
        if not isinstance(record.get(name), str if name == "text" else str | None):
            raise TypeError(f"{name} is {record[name]!r}")
    style = dict(record.get("style") or {})
    if style.get("emotion_vector") is not None:
        style["emotion_vector"] = tuple(style["emotion_vector"])
    settings = {row.name: record[row.name] for row in RECORDED if record.get(row.name) is not None}
    request = SpeechRequest(
        record["text"],
        voice=record.get("voice"),
        style=Style(**style, emotion_audio=clips.get("emotion_audio")),
        sampling=Sampling(**(record.get("sampling") or {})),
        source_audio=clips.get("source_audio"),
        **settings | {"normalize": front_end_said(record)},
    )
    return Task(
        request=request, audio=clips.get("audio"), transcript=record.get("transcript"), max_steps=limit
    )


def perform(model: SpeechModel, task: Task) -> Tensor:
    """The samples [S] of the whole request, without pauses between its parts; taps see every stage.

    Raises RequestError or UnsupportedError, as the engine does, for what the model cannot do. What the engine
    does to a model's sound (`Setting.engine`), stretching it among others, is not done here.
    """
    request = task.request
    check_request(replace(request, exact=True), model.spec)
    if task.max_steps is not None:
        fewer = min(task.max_steps, request.sampling.max_frames or task.max_steps)
        request = replace(request, sampling=replace(request.sampling, max_frames=fewer))
    with torch.inference_mode():
        if task.audio is not None:
            request = replace(
                request, voice=Casting(model, None).encode(task.audio, transcript=task.transcript)
            )
        pieces = []
        prompts = (prompt for part in _parts(request, model.spec) for prompt in model.prepare(part))
        for index, prompt in enumerate(prompts):
            if index == 0:
                pieces.append(_segment(model, prompt, task.max_steps))
            else:
                with tap_scope(f"segment.{index}."):
                    pieces.append(_segment(model, prompt, task.max_steps))
    return torch.cat(pieces) if pieces else torch.zeros(0)


def _parts(request: SpeechRequest, spec: ModelSpec) -> Iterator[SpeechRequest]:
    """What the family is asked to prepare: the parts that the engine makes of the text where Sonant's front
    end or a glossary reads it, else the text as it is, which the family reads as its original does."""
    is_read = request.normalize == "sonant" or bool(request.glossary)
    if request.source_audio is not None or not is_read:
        yield request
        return
    spoken = (part for part in spoken_parts(request, spec) if part.text)
    for number, part in enumerate(spoken):
        seed = segment_seed(request.seed or 0, number * PARTS_APART)
        yield request_of(request, part, seed, spec)


def _segment(model: SpeechModel, prompt: Prompt, max_steps: int | None) -> Tensor:
    if max_steps is not None:
        prompt = replace(prompt, ceiling=min(prompt.ceiling, max_steps))
    model.allocate(prompt.rows, prompt.positions)
    utterance = model.start(prompt, list(range(prompt.rows)))
    tokens = []
    while True:
        (step,) = model.step([utterance])
        utterance.steps += 1
        tokens.append(step.tokens)
        if step.is_final:
            utterance.is_finished = True
            break
    decoder = model.decoder(prompt, streaming=False)
    pieces = decoder.push(joined(tokens)), decoder.finish()
    samples = torch.cat([torch.as_tensor(piece) for piece in pieces])
    return tap("output.samples", samples.float().cpu())
