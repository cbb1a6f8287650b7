"""The talker and code predictor for training, built from Sonant's own decoder stack.

The text table is trained as a sum of two small tables, one for each half of a frame, so that pairs of sounds
never met in training still have a meaning; the export writes out the ordinary table of all pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.nano.settings import Settings
from sonant.nn.transformer import Decoder, DecoderConfig
from sonant.text.paced_phonemes import SYMBOLS

SPECIALS = ("<|im_start|>", "assistant", "\n", "<|im_end|>", "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>")
SPEAKER = "sona"


@dataclass(frozen=True)
class CodecIds:
    """Rows of the codec embedding table: codes first, then controls inside the last 1024 rows."""

    codes: int

    def __getattr__(self, name: str) -> int:
        offsets = {
            "english": 8,
            "pad": 100,
            "bos": 101,
            "eos": 102,
            "think": 106,
            "nothink": 107,
            "think_bos": 108,
            "think_eos": 109,
            "speaker": 200,
        }
        return self.codes + offsets[name]

    @property
    def rows(self) -> int:
        """Size of the table."""
        return self.codes + 1024


def talker_stack(s: Settings) -> DecoderConfig:
    """The talker's transformer."""
    return DecoderConfig(
        width=s.talker_width,
        layers=s.talker_layers,
        heads=s.talker_heads,
        kv_heads=s.talker_kv_heads,
        head_dim=s.talker_width // s.talker_heads,
        intermediate=s.talker_intermediate,
        rope_theta=10_000.0,
        norm_eps=1e-6,
        qk_norm=True,
    )


def predictor_stack(s: Settings) -> DecoderConfig:
    """The code predictor's transformer."""
    return DecoderConfig(
        width=s.predictor_width,
        layers=s.predictor_layers,
        heads=2,
        kv_heads=2,
        head_dim=s.predictor_width // 2,
        intermediate=3 * s.predictor_width,
        rope_theta=10_000.0,
        norm_eps=1e-6,
        qk_norm=True,
    )


class TalkerNet(nn.Module):
    """Everything of `model.safetensors`, for training."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.s, self.ids = s, CodecIds(s.codebook)
        width = s.talker_width
        self.first, self.second = (
            nn.Embedding(len(SYMBOLS), s.text_width),
            nn.Embedding(len(SYMBOLS), s.text_width),
        )
        self.special = nn.Embedding(len(SPECIALS), s.text_width)
        self.fc1, self.fc2 = nn.Linear(s.text_width, s.text_width), nn.Linear(s.text_width, width)
        self.codec_embedding = nn.Embedding(self.ids.rows, width)
        self.decoder = Decoder(talker_stack(s), "talker")
        self.codec_head = nn.Linear(width, s.codebook + 1, bias=False)  # the last row is the end
        self.code_tables = nn.ModuleList(nn.Embedding(s.codebook, width) for _ in range(s.groups - 1))
        self.to_predictor = nn.Linear(width, s.predictor_width)
        self.predictor = Decoder(predictor_stack(s), "predictor")
        self.heads = nn.Parameter(
            torch.randn(s.groups - 1, s.codebook, s.predictor_width) * s.predictor_width**-0.5
        )
        for table in (self.codec_embedding, *self.code_tables):
            nn.init.normal_(table.weight, std=0.3 / s.groups**0.5)
        for table in (self.first, self.second, self.special):
            nn.init.normal_(table.weight, std=0.7)

    def project(self, rows: Tensor) -> Tensor:
        """Rows of the text table -> talker inputs."""
        return self.fc2(F.silu(self.fc1(rows)))

    def pairs(self, text: Tensor) -> Tensor:
        """Frames of text [B, T, 2]; [-1, i] is the special token i -> talker inputs [B, T, D]."""
        special = text[..., :1] < 0
        pair = self.first(text[..., 0].clamp_min(0)) + self.second(text[..., 1].clamp_max(len(SYMBOLS) - 1))
        return self.project(
            torch.where(special, self.special(text[..., 1].clamp_max(len(SPECIALS) - 1)), pair)
        )

    def words(self, *names: str) -> Tensor:
        """Special tokens as talker inputs [N, D]."""
        at = torch.tensor([SPECIALS.index(name) for name in names], device=self.special.weight.device)
        return self.project(self.special(at))

    def prefix(self, first_text: Tensor, language: bool) -> Tensor:
        """The CustomVoice prompt up to the first frame [B, P, D]; first_text [B, D]: the first token."""
        i = self.ids
        tag = (
            [i.think, i.think_bos, i.english, i.think_eos]
            if language
            else [i.nothink, i.think_bos, i.think_eos]
        )
        control = torch.tensor([*tag, i.speaker, i.pad, i.bos], device=first_text.device)
        sound = self.codec_embedding(control)
        role = self.words("<|im_start|>", "assistant", "\n")
        pad, bos = self.words("<tts_pad>", "<tts_text_bos>")
        middle = sound[:-1] + torch.cat((pad.expand(len(control) - 2, -1), bos[None]))
        fixed = torch.cat((role, middle)).expand(len(first_text), -1, -1)
        return torch.cat((fixed, (sound[-1] + first_text)[:, None]), dim=1)

    def embed(self, codes: Tensor) -> Tensor:
        """Frames [..., K] -> the sum of their embeddings [..., D]."""
        total = self.codec_embedding(codes[..., 0])
        for k, table in enumerate(self.code_tables, 1):
            total = total + table(codes[..., k])
        return total

    def predictor_logits(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """hidden [N, D], codes [N, K] -> logits [N, K - 1, V] of codes 1 .. K - 1."""
        parts = [hidden, self.codec_embedding(codes[:, 0])]
        parts += [table(codes[:, k]) for k, table in enumerate(self.code_tables[:-1], 1)]
        out = self.predictor(self.to_predictor(torch.stack(parts, 1)))[:, 1:]
        return torch.einsum("nkd,kvd->nkv", out, self.heads)
