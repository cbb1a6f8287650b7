"""Speech tokens -> waveform, at once or in chunks, with all state in one object for each utterance.

    tokens at 25 Hz --flow--> mel at 50 Hz --vocoder--> samples at 24 kHz

Chunks follow the original's schedule. A stream is solved under the streaming mask to its end: the flow sees
the prompt and a fixed number of earlier tokens, whose keys and values it keeps where `memory` allows and
solves again where not, and the vocoder a fixed number of earlier frames; so a second of audio costs the same
however long the utterance is. `context_tokens=None` runs both on everything so far, and the last chunk under
full attention, as the original does.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sonant.errors import GenerationError
from sonant.families.cosyvoice3.config import CosyVoice3Config
from sonant.families.cosyvoice3.flow import Flow, FlowInputs
from sonant.families.cosyvoice3.noise import Noise
from sonant.families.cosyvoice3.past import FlowPast, KeptPrompts, PastSize
from sonant.families.cosyvoice3.vocoder import Vocoder
from sonant.nn.tap import tap, tap_scope

HOP_GROWTH, LARGEST_HOP = 2, 4
"""A hop doubles after each chunk, up to four times the first. Source: the original's CosyVoice3Model."""
CONTEXT_TOKENS = 200
"""Earlier tokens the flow sees by default, 8 s: the first 9 s of a stream then miss nothing."""
MEMORY = 2 << 30
"""Bytes that a stream may keep of its past: enough after a reference of up to 11 s."""
PROMPTS = 1 << 30
"""Bytes that a model keeps of the prompts of voices that streamed last: some 11 s of references."""
KEPT = torch.bfloat16
"""What keys and values are kept in, but for a flow in float64, which keeps float64."""


ORDINARY_SECONDS = 10.0
"""Of a reference, where memory is reckoned before one is known."""


def stream_bytes(config: CosyVoice3Config) -> int:
    """What a stream keeps after an ordinary reference."""
    ratio = config.flow.frames_per_token
    size = PastSize(
        config=config.flow.transformer,
        steps=config.flow.steps,
        prompt=round(ORDINARY_SECONDS * config.token_rate) * ratio,
        window=CONTEXT_TOKENS * ratio,
    )
    return size.bytes(KEPT.itemsize)


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
        """The call after the last token: full attention, as the original's; a bounded stream changes that."""
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
    """Earlier tokens that the flow sees besides the prompt; None sees all, and keeps nothing."""
    memory: int = MEMORY
    """Bytes for keys and values of earlier frames; where they do not fit, the frames are solved again."""
    kept: torch.dtype = KEPT

    def is_chunked(self, *, streaming: bool) -> bool:
        """Whether the flow solves chunk by chunk, under the streaming mask to the end."""
        # Another pace stretches the whole mel, so it has to be there first; as in the original.
        return streaming and self.speed == 1.0 and self.context_tokens is not None


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
        prompts: KeptPrompts | None = None,
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
        self._is_chunked = options.is_chunked(streaming=streaming)
        self._past: FlowPast | None = None
        self._prompts = KeptPrompts(0) if prompts is None else prompts

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
        call = self._schedule.last(len(self._tokens))
        samples = self._run(replace(call, chunked=self._is_chunked))
        self._past = None
        return samples

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
        mel, positions = self._solve(inputs, noise, call)
        if not bool(torch.isfinite(mel).all()):
            raise GenerationError(
                "the flow gave values that are not finite. The weights or the precision are at fault; "
                "try --dtype float32 without --precision, and sonant parity."
            )
        positions = positions[positions >= voice.mel.shape[0]]
        target = tap("flow.mel", mel[:, mel.shape[1] - len(positions) :])
        return target[:, positions >= first]

    def _solve(self, inputs: FlowInputs, noise: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Mel [M, n] up to the end of a call and the numbers [n] of its frames: at least the new ones."""
        if call.offset == 0:
            self._past = self._fresh_past(inputs)
            if self._past is not None:
                self._keep_prompt(self._past, inputs, noise)
        if self._past is not None:
            parts = self._past.size.parts(inputs.positions[self._past.frames :])
        else:
            parts = [self._visible(call.offset, len(inputs.positions))]
        solved = [self._part(inputs, noise, part, chunked=call.chunked) for part in parts]
        return torch.cat(solved, dim=1), torch.cat(parts)

    def _part(self, inputs: FlowInputs, noise: Tensor, part: Tensor, *, chunked: bool) -> Tensor:
        """Mel [M, n] of the frames `part` [n]."""
        options = self._options
        return self._flow.solve(
            inputs.part(part),
            noise[:, part],
            chunked=chunked,
            steps=options.steps,
            guidance=options.guidance,
            past=self._past,
        )

    def _keep_prompt(self, past: FlowPast, inputs: FlowInputs, noise: Tensor) -> None:
        """Solve the chunks of the prompt that no later token reaches, or take them from the last stream.

        They are solved by themselves either way, so that samples do not depend on which it was.
        """
        voice, config = self._reference, self._config.flow
        settled = (len(voice.tokens) - config.lookahead) * config.frames_per_token
        settled = max(0, min(settled, voice.mel.shape[0]))
        settled -= settled % config.transformer.static_chunk_size
        if not settled:
            return
        frames = inputs.positions[:settled]
        key = _digest(past, inputs.part(frames), noise[:, :settled], self._options)
        found = self._prompts.find(key)
        if found is not None:
            past.restore(found)
            return
        for part in past.size.parts(frames):
            self._part(inputs, noise, part, chunked=True)
        self._prompts.keep(key, past.copy())

    def _fresh_past(self, inputs: FlowInputs) -> FlowPast | None:
        """Room for what this stream keeps; None where it keeps nothing or needs more than it may have."""
        config, kind, context = self._config.flow, inputs.mu.dtype, self._options.context_tokens
        transformer, ratio = config.transformer, config.frames_per_token
        if context is None or not self._is_chunked:
            return None
        if self._config.chunk_tokens * ratio % transformer.static_chunk_size:
            return None  # hops that end inside a chunk of the mask: its frames still change
        size = PastSize(
            config=transformer,
            steps=self._options.steps or config.steps,
            prompt=self._prompt_frames,
            window=context * ratio,
        )
        dtype = kind if kind == torch.float64 else self._options.kept
        if size.bytes(dtype.itemsize) > self._options.memory:
            return None
        return FlowPast(size, dtype, inputs.mu.device)

    @property
    def _prompt_frames(self) -> int:
        ratio = self._config.flow.frames_per_token
        return max(len(self._reference.tokens) * ratio, self._reference.mel.shape[0])

    def _visible(self, offset: int, total: int) -> Tensor:
        """Frames [n] that take part: the prompt, the context and what is new."""
        context, device = self._options.context_tokens, self._tokens.device
        if context is None or offset <= context:
            return torch.arange(total, device=device)
        ratio, prompt = self._config.flow.frames_per_token, self._prompt_frames
        window = (len(self._reference.tokens) + offset - context) * ratio
        parts = (torch.arange(prompt, device=device), torch.arange(max(prompt, window), total, device=device))
        return torch.cat(parts)


def _digest(past: FlowPast, inputs: FlowInputs, noise: Tensor, options: DecodeOptions) -> bytes:
    """Names all that decides what is kept of frames."""
    found = hashlib.sha256(f"{past.size.steps} {options.guidance} {past.dtype}".encode())
    for tensor in (inputs.mu, inputs.cond, inputs.speaker, noise):
        found.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.cpu().contiguous().numpy().tobytes())
    return found.digest()


def _wait(x: Tensor) -> None:
    if x.is_cuda:  # only what this thread waits for: to wait for the whole device breaks others' recordings
        torch.cuda.current_stream(x.device).synchronize()
