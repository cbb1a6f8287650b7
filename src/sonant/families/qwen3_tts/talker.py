"""Talker and code predictor: prompt vectors [B, T, D] -> one frame of 16 tokens a step.

talker: 12.5 frames a second; its logits give token 0, its hidden state starts the code predictor
code predictor: a small stack run anew for every frame; gives tokens 1 .. 15 one after another
next talker input: the sum of all 16 tokens' embeddings, plus one position of text
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.families.qwen3_tts.config import ModelConfig, PredictorConfig, TalkerConfig
from sonant.families.qwen3_tts.speaker import SpeakerEncoder
from sonant.nn.cache import KVCache, Rows
from sonant.nn.native_frame import NativeFrame
from sonant.nn.tap import tap
from sonant.nn.transformer import Decoder

Choose = Callable[[int, Tensor], Tensor]
"""Token ids [B] from the predictor's float32 logits [B, V] of one group."""


def _table(rows: int, width: int) -> nn.Embedding:
    """An embedding without random values: drawing them on `meta` imports seconds of torch's compiler."""
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


class TextProjection(nn.Module):
    """fc2(silu(fc1(x))): text width to talker width."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(inner, inner)
        self.linear_fc2 = nn.Linear(inner, outer)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_fc2(F.silu(self.linear_fc1(x)))


class Talker(nn.Module):
    """The language model over frames.

    forward: inputs [B, T, D] -> hidden states [B, T, D] after the final norm.
    """

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.text_embedding = _table(config.text_vocabulary, config.text_width)
        self.text_projection = TextProjection(config.text_width, config.width)
        self.codec_embedding = _table(config.vocabulary, config.width)
        self.decoder: nn.Module = Decoder(config.decoder, "talker")
        self.codec_head: nn.Module = nn.Linear(config.width, config.vocabulary, bias=False)

    def text(self, ids: Tensor) -> Tensor:
        """Text ids [...] as talker inputs [..., D]."""
        # The table may be kept in a narrower dtype than the rest; widening its rows loses nothing.
        rows = self.text_embedding(ids).to(self.text_projection.linear_fc1.weight.dtype)
        return self.text_projection(rows)

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits [B, V] over token 0 from hidden states [B, D]."""
        logits = self.codec_head(hidden)
        return tap("talker.logits", logits if logits.dtype == torch.float64 else logits.float())

    def forward(
        self,
        x: Tensor,
        *,
        rows: Rows | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        return self.decoder(x, rows=rows, positions=positions, mask=mask)


class CodePredictor(nn.Module):
    """Tokens 1 .. G-1 of one frame, each from all before it."""

    def __init__(self, config: PredictorConfig, talker_width: int) -> None:
        super().__init__()
        self.config = config
        others = config.groups - 1
        self.codec_embedding = nn.ModuleList(_table(config.vocabulary, talker_width) for _ in range(others))
        self.small_to_mtp_projection: nn.Module = (
            nn.Identity() if talker_width == config.width else nn.Linear(talker_width, config.width)
        )
        self.decoder: nn.Module = Decoder(config.decoder, "predictor")
        self.lm_head = nn.ModuleList(
            nn.Linear(config.width, config.vocabulary, bias=False) for _ in range(others)
        )

        self.late: nn.Module | None = None
        """The stack for tokens from group `late_from` on, where it is kept in another precision."""
        self.late_from = config.groups
        self.frame: NativeFrame | None = None
        """The same steps in one call, where every part is in C."""

    def cache(self, slots: int, dtype: torch.dtype, device: torch.device) -> KVCache:
        """Storage for one frame of `slots` rows; every frame starts over in it."""
        return KVCache(
            layers=self.config.layers,
            slots=slots,
            heads=self.config.kv_heads,
            head_dim=self.config.head_dim,
            capacity=self.config.groups,
            dtype=dtype,
            device=device,
        )

    def forward(self, hidden: Tensor, first: Tensor, cache: KVCache, choose: Choose) -> tuple[Tensor, Tensor]:
        """Tokens [B, G-1] and the sum [B, D] of their embeddings.

        hidden [B, D] is the talker's state that gave token 0, first [B, D] that token's embedding.
        """
        batch = hidden.shape[0]
        slots = list(range(batch))
        for slot in slots:
            cache.free(slot)
        x = tap("predictor.inputs", torch.stack((hidden, first), dim=1))
        tokens: list[Tensor] = []
        total: Tensor | None = None
        for group, (head, table) in enumerate(zip(self.lm_head, self.codec_embedding, strict=True), 1):
            rows = cache.rows(slots, x.shape[1])
            stack = self.late if self.late is not None and group >= self.late_from else self.decoder
            last = stack(self.small_to_mtp_projection(x), rows=rows)[:, -1]
            logits = head(last)
            logits = tap("predictor.logits", logits if logits.dtype == torch.float64 else logits.float())
            token = tap("predictor.token", choose(group, logits))
            embedded = table(token)
            total = embedded if total is None else total + embedded
            x = embedded[:, None]
            tokens.append(token)
        assert total is not None
        return torch.stack(tokens, dim=-1), total


class Network(nn.Module):
    """Everything in `model.safetensors`: talker, code predictor and, in Base models, speaker encoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.talker = Talker(config.talker)
        self.predictor = CodePredictor(config.predictor, config.talker.width)
        self.speaker_encoder = None if config.speaker is None else SpeakerEncoder(config.speaker)

    def embed_frames(self, tokens: Tensor) -> Tensor:
        """Frames [T, G] as talker inputs [T, D]: the sum of all groups' embeddings."""
        total = self.talker.codec_embedding(tokens[:, 0])
        for group, table in enumerate(self.predictor.codec_embedding, 1):
            total = total + table(tokens[:, group])
        return total
