"""The codec's passes of a few frames as one piece of work each, recorded where the device can (CUDA).

    tokens [1, n, K], state --CodecDecoder--> waveform [1, n * samples_per_frame], state

The state of a stream has the same shapes from its first pass on, and is copied in before a pass and out
after it, so one recording serves every stream. Samples are those of `CodecDecoder` up to the order of sums.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch
from torch import Tensor

from sonant.families.qwen3_tts.codec import CodecDecoder, CodecState
from sonant.nn.cache import PaddedWindow
from sonant.nn.channel_last import Pasts
from sonant.nn.replay import Replay


@dataclass(eq=False)
class StreamState:
    """One stream's own state, changed in place: the tensors in the order of `CodecSteps`, and its age."""

    tensors: list[Tensor]
    frames: int = 0


class CodecSteps:
    """Passes of 1 to `longest` frames of one stream at a time."""

    def __init__(self, decoder: CodecDecoder, *, longest: int) -> None:
        self._decoder = decoder
        device, config = decoder.like.device, decoder.config
        self._before = config.sliding_window - 1
        with torch.inference_mode():
            _, state = decoder(torch.zeros(1, 1, config.quantizers, dtype=torch.int64, device=device))
        self._convolutions = len(state.pasts)
        self._state = [torch.zeros_like(tensor) for tensor in self._padded(state)]
        self._tokens = torch.zeros(1, longest, config.quantizers, dtype=torch.int64, device=device)
        self._start = torch.zeros((), dtype=torch.int64, device=device)
        self._waveform = torch.zeros(
            1, longest * config.samples_per_frame, dtype=decoder.like.dtype, device=device
        )
        self.replay = Replay(device)
        self._lock = threading.Lock()

    def begin(self, state: CodecState | None) -> StreamState:
        """A new stream, after what `state` has heard."""
        if state is None:
            return StreamState([torch.zeros_like(tensor) for tensor in self._state])
        return StreamState([tensor.clone() for tensor in self._padded(state)], state.frames)

    def run(self, tokens: Tensor, stream: StreamState) -> Tensor:
        """The waveform [n * samples_per_frame] of tokens [n, K]; the stream moves on."""
        frames = tokens.shape[0]
        with self._lock:
            self._record(frames)
            torch._foreach_copy_(self._state, stream.tensors)
            self._tokens[0, :frames] = tokens
            self._start.fill_(stream.frames)
            self.replay.run(frames, lambda: self._pass(frames))
            torch._foreach_copy_(stream.tensors, self._state)
            stream.frames += frames
            return self._waveform[0, : frames * self._decoder.config.samples_per_frame].clone()

    def warm_up(self) -> None:
        """Record every length of pass, where passes are recorded."""
        with self._lock:
            for frames in range(1, self._tokens.shape[1] + 1):
                self._record(frames)

    def _record(self, frames: int) -> None:
        def reset() -> None:
            self._start.zero_()
            for tensor in self._state:
                tensor.zero_()

        self.replay.record(frames, lambda: self._pass(frames), self._waveform, reset=reset)

    def _pass(self, frames: int) -> None:
        keys_and_values = self._state[self._convolutions :]
        past = list(zip(keys_and_values[::2], keys_and_values[1::2], strict=True))
        rows = PaddedWindow(past, start=self._start, new=frames, window=self._before + 1)
        pasts = Pasts(self._state[: self._convolutions])
        waveform = self._decoder.through(self._tokens[:, :frames], pasts, rows)
        self._waveform[:, : waveform.shape[1]] = waveform
        made = [*pasts.new, *(tensor for pair in rows.new for tensor in pair)]
        for kept, new in zip(self._state, made, strict=True):
            kept.copy_(new)

    def _padded(self, state: CodecState) -> list[Tensor]:
        """A state's tensors, keys and values with zeros before what there is of them."""
        padded = [
            torch.nn.functional.pad(tensor, (0, 0, self._before - tensor.shape[2], 0))
            for pair in state.keys_and_values
            for tensor in pair
        ]
        return [*state.pasts, *padded]
