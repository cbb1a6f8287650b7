"""The encoder of IndexTTS-2.5's codec, which speaking does not need: features at 50 Hz -> codes at 25 Hz."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from sonant.checkpoints.modules import build, fold_weight_norm, load_strict
from sonant.families.indextts2.config import CodecConfig
from sonant.families.indextts2.semantic_codec import Quantiser, vocos
from sonant.families.indextts2.weights import CODEC_RULES, codec_tensors


class HalfRateEncoder(nn.Module):
    """A convolution of stride 2, exact GELU, backbone and quantiser."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.down = nn.Conv1d(config.hidden_size, config.hidden_size, 3, stride=2, padding=1)
        self.encoder = vocos(config, "codec.encoder")
        self.quantiser = Quantiser(config)


def load_codec_encoder(path: Path, config: CodecConfig) -> HalfRateEncoder:
    """The encoder of a `codec.pth`, float32 on the CPU."""
    network: HalfRateEncoder = build(lambda: HalfRateEncoder(config))
    tensors = fold_weight_norm(codec_tensors(path))
    ignored = (r"^decoder\.", r"^up\.")
    load_strict(network, tensors, rules=CODEC_RULES, ignored=ignored, dtype=torch.float32, where=str(path))
    return network
