"""Speech tokens -> waveform, at once or in chunks, with all state in one object for each utterance.

    tokens at 25 Hz --flow--> mel at 50 Hz --vocoder--> samples at 24 kHz

Chunks follow the original's schedule. By default the flow sees the prompt and a fixed number of earlier
tokens, and the vocoder a fixed number of earlier frames, so a second of audio costs the same however long
the utterance is; `context_tokens=None` runs both on everything so far, as the original does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sonant.errors import GenerationError
from sonant.families.cosyvoice3.config import CosyVoice3Config
from sonant.families.cosyvoice3.flow import Flow
from sonant.families.cosyvoice3.noise import Noise
from sonant.families.cosyvoice3.vocoder import Vocoder
from sonant.nn.tap import tap, tap_scope

HOP_GROWTH, LARGEST_HOP = 2, 4
"""A hop doubles after each chunk, up to four times the first. Source: the original's CosyVoice3Model."""
CONTEXT_TOKENS = 200
"""Earlier tokens the flow sees by default, 8 s: the first 12 s of a stream are then the original's own."""


@dataclass(frozen=True)
class Call:
    """One run of the flow: frames from `offset` tokens on are kept, `given` target tokens go in."""

    offset: int
    given: int
    chunked: bool
    is_final: bool


class ChunkSchedule:
    """When to decode how many tokens.

    The first chunk is longer by what aligns prompt and hop with the chunks of the streaming mask. `hop` is
    25 tokens for a fresh request; the original keeps it on the model, so there a later request starts with
    the last one's 50 or 100 (`hop` then reproduces that).
    """

    def __init__(self, prompt_tokens: int, *, hop: int, largest: int, lookahead: int) -> None:
        self.hop = hop
        self.offset = 0
        self._largest = largest
        self._lookahead = lookahead
        self._next = hop + -prompt_tokens % hop

    def next(self, tokens: int) -> Call | None:
        """The call that `tokens` target tokens allow, or None while they are too few."""
        given = self.offset + self._next + self._lookahead
        if tokens < given:
            return None
        call = Call(self.offset, given, True, False)
        self.offset += self._next
        self.hop = self._next = min(self._largest, self.hop * HOP_GROWTH)
        return call

    def plan(self, tokens: int) -> list[Call]:
        """The original's calls when all `tokens` are there before the first one.

        Parity: after a call it looks whether the rest would fill the hop of that call, not the next one; a
        long first hop can so end a stream early. A decoder fed token by token never meets this.
        """
        calls: list[Call] = []
        while (call := self.next(tokens)) is not None:
            calls.append(call)
            waited = self.offset - call.offset
            if tokens - self.offset < waited + self._lookahead:
                break
        return [*calls, self.last(tokens)]

    def last(self, tokens: int) -> Call:
        """The call after the last token: full attention, as the original's."""
        return Call(self.offset, tokens, False, True)


class VocoderStream:
    """Mel in pieces -> samples; pieces joined equal the whole up to rounding.

    It keeps F0 and harmonic phase of what it heard and as many frames of mel as one frame of audio depends
    on (`context`), or every frame with `context=None`.
    """

    def __init__(self, vocoder: Vocoder, noise: Noise, *, context: int | None) -> None:
        self._vocoder = vocoder
        self._noise = noise
        self._context = context
        self._start = 0  # number of the first frame kept
        self._spoken = 0
        self._mel: Tensor | None = None  # [M, n]
        self._f0: Tensor | None = None  # [n] of the frames kept, then of those already known
        self._turns: Tensor | None = None  # [n, K]

    def push(self, mel: Tensor, *, is_final: bool) -> Tensor:
        """Samples [S] that became certain with the next frames [M, n]."""
        config = self._vocoder.config
        mel = mel.to(self._vocoder.conv_pre.weight)  # its device and float32
        self._mel = mel if self._mel is None else torch.cat((self._mel, mel), dim=1)
        end = self._start + self._mel.shape[1]
        until = end if is_final else end - config.lookahead
        if until <= self._spoken:
            return mel.new_zeros(0)
        self._hear(is_final=is_final)
        assert self._f0 is not None
        assert self._turns is not None
        heard = self._start + len(self._f0)
        noise = tap("vocoder.noise", self._noise.source(self._start, heard))
        source = self._vocoder.m_source(self._f0, self._turns, noise)
        window = self._mel[None, :, : heard - self._start]
        samples = self._vocoder.decode(window, source, is_final=is_final)
        samples = samples[(self._spoken - self._start) * config.samples :]
        self._spoken = until
        self._forget()
        return samples

    def _hear(self, *, is_final: bool) -> None:
        """Bring F0 and phase up to the last frame that can be known."""
        assert self._mel is not None
        predictor = self._vocoder.f0_predictor
        known = 0 if self._f0 is None else len(self._f0)
        first = max(0, known - predictor.context)
        fresh = predictor(self._mel[None, :, first:], is_final=is_final)[0][known - first :]
        before = None if self._turns is None else self._turns[-1]
        turns = self._vocoder.m_source.turns(fresh, before)
        self._f0 = fresh if self._f0 is None else torch.cat((self._f0, fresh))
        self._turns = turns if self._turns is None else torch.cat((self._turns, turns))

    def _forget(self) -> None:
        if self._context is None:
            return
        assert self._mel is not None
        assert self._f0 is not None
        assert self._turns is not None
        drop = max(0, self._spoken - self._context - self._start)
        self._start += drop
        self._mel, self._f0, self._turns = self._mel[:, drop:], self._f0[drop:], self._turns[drop:]


@dataclass(frozen=True, kw_only=True, eq=False)
class FlowVoice:
    """The voice as the flow hears it: speech tokens [P], mel [T, M], speaker [D]."""

    tokens: Tensor
    mel: Tensor
    speaker: Tensor


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """How one utterance is decoded."""

    steps: int | None = None
    guidance: float | None = None
    speed: float = 1.0
    hop: int | None = None
    """First hop in tokens; None is the model's own."""
    context_tokens: int | None = CONTEXT_TOKENS
    """Earlier tokens that the flow sees besides the prompt; None sees all."""


class SpeechDecoder:
    """The audio decoder of one utterance. `timings` counts seconds spent in "flow" and "vocoder"."""

    def __init__(
        self,
        config: CosyVoice3Config,
        flow: Flow,
        vocoder: Vocoder,
        reference: FlowVoice,
        noise: Noise,
        options: DecodeOptions,
        *,
        streaming: bool,
    ) -> None:
        self.timings = {"flow": 0.0, "vocoder": 0.0}
        self.calls: list[Call] = []
        """Runs of the flow so far, in order."""
        self._config = config
        self._flow = flow
        self._vocoder = vocoder
        self._reference = reference
        self._noise = noise
        self._options = options
        # Another pace stretches the whole mel, so it has to be there first; as in the original.
        self._streaming = streaming and options.speed == 1.0
        self._tokens = reference.tokens.new_zeros(0)
        self._next_frame = reference.mel.shape[0]
        hop = options.hop or config.chunk_tokens
        largest = LARGEST_HOP * config.chunk_tokens
        self._schedule = ChunkSchedule(
            len(reference.tokens), hop=hop, largest=largest, lookahead=config.flow.lookahead
        )
        context = None if options.context_tokens is None else vocoder.context
        self._samples = VocoderStream(vocoder, noise, context=context)

    @property
    def hop(self) -> int:
        """Tokens of the next chunk: what the original would start its next stream with."""
        return self._schedule.hop

    def push(self, tokens: Tensor) -> Tensor:
        """Samples [S] that became certain with tokens [n, 1]."""
        self._tokens = torch.cat((self._tokens, tokens[:, 0].to(self._tokens)))
        parts = []
        while self._streaming and (call := self._schedule.next(len(self._tokens))) is not None:
            parts.append(self._run(call))
        return torch.cat(parts) if parts else self._nothing()

    def finish(self) -> Tensor:
        """The rest of the samples."""
        if not len(self._tokens):
            return self._nothing()
        return self._run(self._schedule.last(len(self._tokens)))

    def _nothing(self) -> Tensor:
        return self._vocoder.conv_pre.weight.new_zeros(0)

    def _run(self, call: Call) -> Tensor:
        with tap_scope(f"call.{len(self.calls)}." if self._streaming else ""):
            self.calls.append(call)
            began = time.perf_counter()
            mel = self._mel(call)
            if self._options.speed != 1.0:
                frames = max(1, int(mel.shape[1] / self._options.speed))
                mel = F.interpolate(mel[None], size=frames, mode="linear")[0]
            _wait(mel)
            solved = time.perf_counter()
            samples = self._samples.push(tap("vocoder.mel", mel), is_final=call.is_final)
            _wait(samples)
        self.timings["flow"] += solved - began
        self.timings["vocoder"] += time.perf_counter() - solved
        return samples

    def _mel(self, call: Call) -> Tensor:
        """Target frames [M, n] from `call.offset` tokens on."""
        voice, config = self._reference, self._config.flow
        tokens = tap("flow.tokens", torch.cat((voice.tokens, self._tokens[: call.given])))
        inputs = self._flow.inputs(tokens, voice.mel, voice.speaker, is_final=call.is_final)
        total = inputs.mu.shape[-1]
        noise = tap("flow.noise", self._noise.flow(total).to(inputs.mu.device))
        first = self._next_frame
        if self._options.context_tokens is None:
            # Parity: where mel and tokens of the prompt differ in length (conversion does not trim them),
            # the original repeats or skips that many frames between two chunks.
            first = voice.mel.shape[0] + call.offset * config.frames_per_token
        self._next_frame = total
        keep = self._visible(call.offset, total)
        if keep is not None:
            inputs, noise = inputs.part(keep), noise[:, keep]
        mel = self._flow.solve(
            inputs, noise, chunked=call.chunked, steps=self._options.steps, guidance=self._options.guidance
        )
        if not bool(torch.isfinite(mel).all()):
            raise GenerationError(
                "the flow gave values that are not finite. The weights or the precision are at fault; "
                "try --dtype float32 and sonant parity."
            )
        positions = inputs.positions[inputs.positions >= voice.mel.shape[0]]
        target = tap("flow.mel", mel[:, mel.shape[1] - len(positions) :])
        return target[:, positions >= first]

    def _visible(self, offset: int, total: int) -> Tensor | None:
        """Frames [n] that take part: the prompt, the context and what is new; None is all of them."""
        context = self._options.context_tokens
        if context is None or offset <= context:
            return None
        ratio = self._config.flow.frames_per_token
        prompt = max(len(self._reference.tokens) * ratio, self._reference.mel.shape[0])
        window = (len(self._reference.tokens) + offset - context) * ratio
        device = self._tokens.device
        parts = (torch.arange(prompt, device=device), torch.arange(max(prompt, window), total, device=device))
        return torch.cat(parts)


def _wait(x: Tensor) -> None:
    if x.is_cuda:  # only what this thread waits for: to wait for the whole device breaks others' recordings
        torch.cuda.current_stream(x.device).synchronize()
