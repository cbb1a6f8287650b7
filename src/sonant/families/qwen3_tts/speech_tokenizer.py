"""The 12 Hz speech tokenizer as a tool: waveform -> tokens, tokens -> waveform, whole or frame by frame."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from sonant.audio.resample import resample_soxr
from sonant.checkpoints.hub_cache import model_name
from sonant.engine.model import AudioDecoder, Prompt, Step, Utterance
from sonant.errors import RequestError, UnsupportedError
from sonant.families.qwen3_tts.codec import CodecDecoder, CodecState
from sonant.families.qwen3_tts.codec_steps import CodecSteps
from sonant.families.qwen3_tts.config import FAMILY, CodecConfig
from sonant.families.qwen3_tts.weights import Codec, identity
from sonant.nn.tap import is_tapped
from sonant.request.audio import Audio
from sonant.request.speech import ModelSpec, SpeechRequest
from sonant.request.voice import Voice

KEPT_REFERENCES = 4


FIRST_BLOCKS = (1, 1, 2)
"""Frames of the first passes of a streaming decode: small, so that the first audio comes at once."""
LATER_BLOCK = 4
"""Frames of every later pass. Weights are read once a pass: four frames cost a third of four passes."""


class FrameDecoder:
    """Tokens -> waveform for one utterance, in passes of 1, 1, 2, 4, 4, ... frames.

    The passes have their own boundaries however tokens arrive, so any split gives the same samples to the
    bit. `state` is where to begin: after a reference clip's tokens, or None. With `steps` a pass is one
    piece of work of the device.
    """

    def __init__(
        self, decoder: CodecDecoder, state: CodecState | None, steps: CodecSteps | None = None
    ) -> None:
        self._decoder = decoder
        self._state = state
        self._steps = steps
        self._stream = None if steps is None else steps.begin(state)
        self._device = decoder.like.device
        self._waiting = torch.zeros(0, decoder.config.quantizers, dtype=torch.int64, device=self._device)
        self._passes = 0

    def push(self, tokens: Tensor) -> Tensor:
        """Samples of the passes that tokens [n, G] completed."""
        self._waiting = torch.cat((self._waiting, tokens.to(self._device)))
        pieces = []
        while len(self._waiting) >= (size := self._size()):
            pieces.append(self._run(size))
        return torch.cat(pieces) if pieces else torch.zeros(0, device=self._device)

    def finish(self) -> Tensor:
        """Samples of the frames that filled no pass."""
        if not len(self._waiting):
            return torch.zeros(0, device=self._device)
        return self._run(len(self._waiting))

    def _size(self) -> int:
        return FIRST_BLOCKS[self._passes] if self._passes < len(FIRST_BLOCKS) else LATER_BLOCK

    def _run(self, size: int) -> Tensor:
        tokens, self._waiting = self._waiting[:size], self._waiting[size:]
        self._passes += 1
        if self._steps is not None and self._stream is not None:
            return self._steps.run(tokens, self._stream)
        waveform, self._state = self._decoder(tokens[None], self._state)
        return waveform[0]


class ChunkedDecoder:
    """Tokens -> waveform as the original's public interface makes it: everything at `finish`.

    A reference's tokens are decoded in front and cut off by the original's rule.
    """

    def __init__(self, decoder: CodecDecoder, reference: Tensor | None) -> None:
        self._decoder = decoder
        self._device = decoder.like.device
        self._reference = reference
        self._tokens: list[Tensor] = []

    def push(self, tokens: Tensor) -> Tensor:
        """Nothing yet, [0]."""
        self._tokens.append(tokens.to(self._device))
        return torch.zeros(0, device=self._device)

    def finish(self) -> Tensor:
        """All samples."""
        if not any(len(tokens) for tokens in self._tokens):
            return torch.zeros(0, device=self._device)
        lead = [] if self._reference is None else [self._reference.to(self._device)]
        tokens = torch.cat([*lead, *self._tokens])
        waveform = self._decoder.decode_in_chunks(tokens)
        frames = 0 if self._reference is None else self._reference.shape[0]
        return waveform[reference_samples(frames, tokens.shape[0], waveform.shape[0]) :]


def reference_samples(reference: int, total: int, samples: int) -> int:
    """How many samples the original cuts from the front for `reference` of `total` frames.

    Parity: the quotient is rounded before it is multiplied, so some pairs lose one sample less than the
    reference has.
    """
    return int(reference / max(total, 1) * samples)


class SpeechTokenizer:
    """Both directions of the codec on loaded weights."""

    def __init__(self, config: CodecConfig, codec: Codec) -> None:
        self.config = config
        self.codec = codec
        self._lock = threading.Lock()
        self._references: OrderedDict[bytes, CodecState] = OrderedDict()
        self.steps: CodecSteps | None = None
        """Passes as one piece of work each; None where the decoder's own passes are as good."""
        if codec.decoder.like.device.type != "cpu":
            self.pass_in_one_piece()

    @property
    def quantizers(self) -> int:
        """Tokens of one frame."""
        return self.config.encoder_valid_num_quantizers

    def pass_in_one_piece(self) -> None:
        """Decode streams by passes that wait for the device once: what everything but a CPU does."""
        self.steps = CodecSteps(self.codec.decoder, longest=LATER_BLOCK)

    def encode_audio(self, audio: Audio) -> Tensor:
        """Tokens [frames, G] of a clip; frames = ceil(seconds * frame rate)."""
        rate = self.config.input_sample_rate
        samples = resample_soxr(audio.samples, audio.sample_rate, rate)
        if not len(samples):
            raise RequestError("the audio is empty; give at least one sample.", field="audio")
        weight = self.codec.decoder.like
        waveform = torch.from_numpy(samples).to(weight)
        with torch.inference_mode():
            return self.codec.encoder(waveform[None], self.quantizers)[0]

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Samples [S] at the output rate of tokens [frames, G]. Raises RequestError for impossible ones."""
        self.check_tokens(tokens)
        with torch.inference_mode():
            return self.codec.decoder.decode(tokens.to(self.codec.decoder.like.device))

    def check_tokens(self, tokens: Tensor) -> None:
        """Raise RequestError unless tokens [frames, G] name rows of the codebooks."""
        groups, size = self.config.decoder.quantizers, self.config.decoder.codebook_size
        if tokens.ndim != 2 or tokens.shape[1] != groups or tokens.is_floating_point():
            raise RequestError(
                f"tokens of shape {list(tokens.shape)} and type {tokens.dtype}; expected integers "
                f"[frames, {groups}]. Encode audio with the same codec.",
                field="tokens",
            )
        if tokens.numel() and not (int(tokens.min()) >= 0 and int(tokens.max()) < size):
            raise RequestError(
                f"tokens from {int(tokens.min())} to {int(tokens.max())}; expected 0 to {size - 1}. "
                "Encode audio with the same codec.",
                field="tokens",
            )

    def decoder(self, reference: Tensor | None = None, *, in_chunks: bool = False) -> AudioDecoder:
        """A fresh decoder of one utterance, continuing after a reference's tokens [T, G] when given."""
        if in_chunks:
            return ChunkedDecoder(self.codec.decoder, reference)
        state = None if reference is None else self._after(reference)
        return FrameDecoder(self.codec.decoder, state, None if is_tapped() else self.steps)

    def _after(self, reference: Tensor) -> CodecState | None:
        """The decoder's state after a reference: one for every utterance of a voice, so a few are kept."""
        key = reference.cpu().numpy().tobytes()
        with self._lock:
            if key in self._references:
                self._references.move_to_end(key)
                return self._references[key]
        state: CodecState | None = None
        with torch.inference_mode():
            tokens = reference.to(self.codec.decoder.like.device)[None]
            for _, made in self.codec.decoder.blocks(tokens, None):
                state = made
        if state is not None:
            with self._lock:
                self._references[key] = state
                while len(self._references) > KEPT_REFERENCES:
                    self._references.popitem(last=False)
        return state


def codec_spec(folder: Path, config: CodecConfig) -> ModelSpec:
    """The spec of a folder that holds only the speech tokenizer."""
    return ModelSpec(
        family=FAMILY,
        name=model_name(folder),
        fingerprint=identity(folder),
        sample_rate=config.output_sample_rate,
        frame_rate=config.output_sample_rate / config.decode_upsample_rate,
        languages=(),
        licence="Apache-2.0",
        note="speech tokenizer only: sonant codec encode and decode",
    )


class CodecOnly:
    """A folder with nothing but the speech tokenizer: encodes and decodes, cannot speak."""

    def __init__(self, folder: Path, config: CodecConfig, codec: Codec) -> None:
        self.speech_tokenizer = SpeechTokenizer(config, codec)
        self.spec = codec_spec(folder, config)

    def encode_audio(self, audio: Audio) -> Tensor:
        """Tokens [frames, G] of a clip."""
        return self.speech_tokenizer.encode_audio(audio)

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Samples [S] of tokens [frames, G]."""
        return self.speech_tokenizer.decode_tokens(tokens)

    def _refuse(self) -> NoReturn:
        raise UnsupportedError(
            f"{self.spec.name} is a speech tokenizer without a language model, so it cannot speak. "
            "Give the folder of a Qwen3-TTS model, or use sonant codec."
        )

    def encode_voice(self, audio: Audio, transcript: str | None) -> Voice:
        """Raises UnsupportedError."""
        self._refuse()

    def prepare(self, request: SpeechRequest) -> list[Prompt]:
        """Raises UnsupportedError."""
        self._refuse()

    def allocate(self, slots: int, positions: int) -> None:
        """Nothing to make room for."""

    def start(self, prompt: Prompt, slots: Sequence[int]) -> Utterance:
        """Raises UnsupportedError."""
        self._refuse()

    def step(self, utterances: Sequence[Utterance]) -> list[Step]:
        """Raises UnsupportedError."""
        self._refuse()

    def decoder(self, prompt: Prompt, *, streaming: bool) -> AudioDecoder:
        """Raises UnsupportedError."""
        self._refuse()
