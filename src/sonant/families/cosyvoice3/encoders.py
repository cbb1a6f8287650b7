"""A reference clip -> what the model hears of it: speech tokens, speaker vector, mel.

    clip -> 16 kHz -> 128 log-mels -> speech tokenizer (ONNX) -> tokens at 25 Hz
    clip -> 16 kHz -> 80 Kaldi bins, mean removed -> CAM++ (ONNX) -> speaker [192]
    clip -> 24 kHz -> 80 log-mels at 50 Hz

The release ships the two encoders as ONNX graphs; onnxruntime runs them, inputs by position.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonant.audio.fbank import fbank
from sonant.audio.mel import WHISPER_128, MelConfig, log_mel
from sonant.audio.resample import resample_sinc
from sonant.errors import CheckpointError
from sonant.native.graphs import onnxruntime
from sonant.nn.tap import tap
from sonant.request.audio import Audio

TOKENIZER_NAME = "speech_tokenizer_v3.onnx"
SPEAKER_NAME = "campplus.onnx"
ENCODER_RATE = 16_000
MAX_CLIP_SECONDS = 30.0  # the speech tokenizer's limit

PROMPT_MEL = MelConfig(  # Source: `feat_extractor` in the yaml; Matcha-TTS's mel
    sample_rate=24_000,
    n_fft=1920,
    hop=480,
    bins=80,
    padding=720,
    low=0.0,
    high=12_000.0,
    energy_floor=1e-9,
    floor=1e-5,
)


class Encoders:
    """Both ONNX encoders of a checkpoint folder, opened when first used."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder = folder
        self._device = device
        for name in (TOKENIZER_NAME, SPEAKER_NAME):
            if not (folder / name).is_file():
                raise CheckpointError(
                    f"{name} is missing in {folder}. The folder is not a complete checkpoint; "
                    "download it again, for example with: sonant pull NAME"
                )

    @cached_property
    def _tokenizer(self) -> Any:
        return _session(self._folder / TOKENIZER_NAME, self._device)

    @cached_property
    def _speaker(self) -> Any:
        # The original keeps this one on the CPU.
        return _session(self._folder / SPEAKER_NAME, torch.device("cpu"))

    def tokens_of(self, logmel: Tensor) -> Tensor:
        """Speech tokens [n] of log-mel features [128, T]."""
        names = [item.name for item in self._tokenizer.get_inputs()]
        feeds = {
            names[0]: logmel[None].numpy().astype(np.float32),
            names[1]: np.array([logmel.shape[1]], dtype=np.int32),
        }
        found = _run(self._tokenizer, feeds, TOKENIZER_NAME)
        if found.dtype not in (np.int32, np.int64):
            raise CheckpointError(
                f"{TOKENIZER_NAME} gives {found.dtype}; expected whole numbers. Use the official file."
            )
        return torch.from_numpy(found.reshape(-1).astype(np.int64))

    def speaker_of(self, features: Tensor) -> Tensor:
        """Speaker vector [D] of filter banks [T, 80] with their mean removed."""
        name = self._speaker.get_inputs()[0].name
        found = _run(self._speaker, {name: features[None].numpy().astype(np.float32)}, SPEAKER_NAME)
        return torch.from_numpy(found.reshape(-1).astype(np.float32))

    def speech_tokens(self, audio: Audio) -> Tensor:
        """Speech tokens [n] of a clip."""
        logmel = tap("voice.logmel", log_mel(at_rate(audio, ENCODER_RATE), WHISPER_128))
        return tap("voice.tokens", self.tokens_of(logmel))

    def speaker(self, audio: Audio) -> Tensor:
        """Speaker vector [D] of a clip."""
        features = fbank(at_rate(audio, ENCODER_RATE))
        features = tap("voice.fbank", features - features.mean(dim=0, keepdim=True))
        return tap("voice.speaker", self.speaker_of(features))

    def mel(self, audio: Audio) -> Tensor:
        """Mel [T, 80] of a clip; T is samples at 24 kHz divided by 480, rounded down."""
        return tap("voice.mel", log_mel(at_rate(audio, PROMPT_MEL.sample_rate), PROMPT_MEL).T)


def at_rate(audio: Audio, rate: int) -> Tensor:
    """Waveform [S] of a clip at `rate` Hz."""
    return resample_sinc(torch.from_numpy(audio.samples), audio.sample_rate, rate)


def _session(path: Path, device: torch.device) -> Any:
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in ort.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    try:
        return ort.InferenceSession(str(path), sess_options=options, providers=providers)
    except Exception as error:  # onnxruntime's own errors share no public root
        raise CheckpointError(
            f"{path} is no readable ONNX graph ({type(error).__name__}); its size is "
            f"{path.stat().st_size} bytes. Download it again."
        ) from error


def _run(session: Any, feeds: dict[str, Any], name: str) -> Any:
    try:
        return np.asarray(session.run(None, feeds)[0])
    except Exception as error:  # onnxruntime's own errors share no public root
        raise CheckpointError(
            f"{name} failed on features of the expected shape ({error}). Use the official file."
        ) from error
