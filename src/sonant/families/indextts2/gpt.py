"""The autoregressive half: conditioning and text -> semantic codes, and in IndexTTS2 codes -> latents.

    [speaker latents + emotion][two rows][text] [start] code code ... -> logits [B, V]

GPT-2 blocks without a position table of their own. `prefill` and `step` use the key-value cache;
`latents` is the second, uncached pass whose hidden states feed the mel half. IndexTTS-2.5 has one latent and
no second pass, and adds a row for the language to all of the text.
Tap names: gpt.prefix, gpt.input, gpt.h.{i}.ln_1, .c_attn, .attn, .ln_2, .mlp, .out, gpt.ln_f, gpt.final_norm,
gpt.logits; the latent pass puts "latent." before them and ends with latent.out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.errors import ConfigError
from sonant.families.indextts2.conditioning import Conditioner
from sonant.families.indextts2.config import GptConfig
from sonant.families.indextts2.speaker_rows import FOLLOWERS, ProjectedSpeaker, ResampledSpeaker
from sonant.nn.cache import CacheRows, KVCache
from sonant.nn.native_gpt2 import NativeGpt2
from sonant.nn.row_steps import RowSteps
from sonant.nn.step_stack import Reach
from sonant.nn.tap import is_tapped, tap, tap_scope

NORM_EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class ConditionSizes:
    """Widths the original keeps in code, read from the tensors."""

    features: int
    emotion_width: int
    positions: int
    latents: int = 0
    """Speaker latents that are resampled from features; 0 where the style vector is projected."""
    style: int = 0
    """Width of the projected style vector."""
    languages: int = 0
    """Rows of the language embedding; 0 without one."""

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor], features: int) -> ConditionSizes:
        """Sizes of a checkpoint; `features` is the width of w2v-bert. Raises KeyError."""
        sizes = ConditionSizes(
            features=features,
            emotion_width=tensors["emo_perceiver_encoder.latents"].shape[1],
            positions=tensors["emo_conditioning_encoder.embed.pos_enc.pe"].shape[1],
        )
        if "spk_emb_proj.weight" not in tensors:
            return replace(sizes, latents=tensors["perceiver_encoder.latents"].shape[0])
        return replace(
            sizes,
            style=tensors["spk_emb_proj.weight"].shape[1],
            languages=tensors["lang_embedding.weight"].shape[0],
        )


def cached_code_position(index: int) -> int:
    """Row of the code position table while decoding: the start code is index 0, then 1, 2, ...

    Parity: the original derives it from the length of the attention mask, which gives 0, 2, 3, 4, ...:
    row 1 is never used. Counting 0, 1, 2 leaves the first logits equal and every later step wrong. The
    latent pass does count 0, 1, 2.
    """
    return index if index == 0 else index + 1


class Attention(nn.Module):
    """Causal multi-head attention, one fused projection: x [B, T, D] -> [B, T, D]."""

    def __init__(self, width: int, heads: int, name: str) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.name = name

    def forward(self, x: Tensor, rows: CacheRows | None, layer: int) -> Tensor:
        batch, length, width = x.shape
        fused = tap(f"{self.name}.c_attn", self.c_attn(x))
        query, key, value = (
            part.view(batch, length, self.heads, self.head_dim).transpose(1, 2)
            for part in fused.chunk(3, dim=-1)
        )
        if rows is None:
            out = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            key, value = rows.append(layer, key, value)
            out = F.scaled_dot_product_attention(query, key, value, attn_mask=rows.mask)
        return self.c_proj(out.transpose(1, 2).reshape(batch, length, width))

    def step(self, x: Tensor, reach: Reach, layer: int) -> Tensor:
        """One new position x [B, D] of each row -> [B, D]."""
        batch, width = x.shape
        query, key, value = self.c_attn(x).view(batch, 3, self.heads, self.head_dim).unbind(dim=1)
        keys, values = reach.write(layer, key[:, None], value[:, None])
        out = F.scaled_dot_product_attention(query[:, :, None], keys, values, attn_mask=reach.mask)
        return self.c_proj(out.reshape(batch, width))


class Mlp(nn.Module):
    """Linear, GELU by tanh, Linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """x += attn(ln_1(x)); x += mlp(ln_2(x)). Source: GPT-2."""

    def __init__(self, width: int, heads: int, name: str) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, NORM_EPS)
        self.attn = Attention(width, heads, name)
        self.ln_2 = nn.LayerNorm(width, NORM_EPS)
        self.mlp = Mlp(width)
        self.name = name

    def forward(self, x: Tensor, rows: CacheRows | None, layer: int) -> Tensor:
        name = self.name
        x = x + tap(f"{name}.attn", self.attn(tap(f"{name}.ln_1", self.ln_1(x)), rows, layer))
        x = x + tap(f"{name}.mlp", self.mlp(tap(f"{name}.ln_2", self.ln_2(x))))
        return tap(f"{name}.out", x)

    def step(self, x: Tensor, reach: Reach, layer: int) -> Tensor:
        """One new position x [B, D] of each row -> [B, D]."""
        x = x + self.attn.step(self.ln_1(x), reach, layer)
        return x + self.mlp(self.ln_2(x))


def _speaker(config: GptConfig, sizes: ConditionSizes) -> ResampledSpeaker | ProjectedSpeaker:
    if not sizes.latents:
        return ProjectedSpeaker(sizes.style, config.model_dim)
    if config.condition_module is None:
        raise ConfigError(
            "section gpt of config.yaml has no condition_module, but gpt.pth resamples its speaker; expected "
            "the sizes of that network. Use the config.yaml of the checkpoint's own release."
        )
    return ResampledSpeaker(
        config.condition_module,
        features=sizes.features,
        width=config.model_dim,
        latents=sizes.latents,
        positions=sizes.positions,
    )


class IndexGpt(nn.Module):
    """Conditioning encoders, embeddings, blocks, the two norms and the code head."""

    def __init__(self, config: GptConfig, sizes: ConditionSizes) -> None:
        super().__init__()
        self.config = config
        width = config.model_dim
        self.speaker = _speaker(config, sizes)
        self.emotion = Conditioner(
            config.emo_condition_module,
            inner=sizes.features,
            width=sizes.emotion_width,
            latents=1,
            positions=sizes.positions,
            name="gpt.emotion",
        )
        self.emovec_layer = nn.Linear(sizes.emotion_width, width)
        self.emo_layer = nn.Linear(width, width)
        self.languages = nn.Embedding(sizes.languages, width) if sizes.languages else None
        self.text_embedding = nn.Embedding(config.number_text_tokens + 1, width)
        self.text_positions = nn.Embedding(config.text_positions, width)
        self.code_embedding = nn.Embedding(config.number_mel_codes, width)
        self.code_positions = nn.Embedding(config.code_positions, width)
        self.h = nn.ModuleList(Block(width, config.heads, f"gpt.h.{index}") for index in range(config.layers))
        self.ln_f = nn.LayerNorm(width, NORM_EPS)
        self.final_norm = nn.LayerNorm(width, NORM_EPS)
        self.code_head: nn.Module = nn.Linear(width, config.number_mel_codes)
        self.native: NativeGpt2 | None = None
        """All of a step from the blocks on, where their weights are in C."""

    def join_steps(self) -> None:
        """Have steps run in one call into C, where all layers are there."""
        norms = [norm for norm in (self.ln_f, self.final_norm) if isinstance(norm, nn.LayerNorm)]
        self.native = NativeGpt2.of(list(self.h), norms, self.code_head, heads=self.config.heads)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the blocks."""
        return self.code_embedding.weight.dtype

    def speaker_latents(self, features: Tensor, style: Tensor) -> Tensor:
        """Latents [N, D] of normalised w2v-bert features [1, T, H] and style vector [1, S]."""
        return self.speaker(features.to(self.dtype), style.to(self.dtype))

    def emotion_vector(self, features: Tensor) -> Tensor:
        """Emotion vector [D] of normalised w2v-bert features [1, T, H]."""
        latent = self.emotion(features.to(self.dtype))[0, 0]
        middle = tap("gpt.emotion.widened", self.emovec_layer(latent))
        return tap("gpt.emotion.vector", self.emo_layer(middle))

    def conditions(self, latents: Tensor, emotion: Tensor) -> Tensor:
        """Conditioning rows [N + 2, D]: latents [N, D] plus emotion [D], then the two that follow."""
        return torch.cat((latents.to(self.dtype) + emotion.to(self.dtype), self.speaker.followers()))

    def _text(self, ids: Sequence[int], language: int | None) -> Tensor:
        """Text rows [n + 2, D] of ids, with start and stop; `language` is a row of the language embedding."""
        c = self.config
        marked = [c.start_text_token, *ids, c.stop_text_token]
        text = torch.tensor(marked, device=self.code_embedding.weight.device)
        rows = self.text_embedding(text) + self.text_positions.weight[: len(marked)]
        if self.languages is None:
            return rows
        assert language is not None
        return rows + self.languages.weight[language]

    def spoken_ids(self, ids: Sequence[int]) -> list[int]:
        """Ids without start and stop marks inside the text.

        Parity: in IndexTTS-2.5 these ids are the ordinary tokens `!` and `"`, which therefore vanish.
        """
        c = self.config
        return [value for value in ids if value not in (c.start_text_token, c.stop_text_token)]

    def prefix(
        self, latents: Tensor, emotion: Tensor, ids: Sequence[int], language: int | None = None
    ) -> Tensor:
        """What the codes follow, [P, D]: conditioning, then text without marks inside it.

        The original pads the removed ids with masked rows on the left. They change no number, since the
        blocks know no positions, so they are left out here; `prefix_length` still counts them.
        """
        rows = torch.cat((self.conditions(latents, emotion), self._text(self.spoken_ids(ids), language)))
        return tap("gpt.prefix", rows)

    def prefix_length(self, latents: Tensor, ids: Sequence[int]) -> int:
        """Rows of the original's prefix, pads included: conditioning, start, every id, stop."""
        return latents.shape[0] + FOLLOWERS + len(ids) + 2

    def prefill(self, prefix: Tensor, rows: CacheRows) -> Tensor:
        """Logits [1, V] after prefix [P, D] and the start code; fills P + 1 positions of the rows."""
        start = torch.tensor([self.config.start_mel_token], device=prefix.device)
        first = self.code_embedding(start) + self.code_positions.weight[cached_code_position(0)]
        return self._logits(self._blocks(torch.cat((prefix, first))[None], rows)[:, -1])

    def step(self, codes: Tensor, indices: Sequence[int], rows: CacheRows) -> Tensor:
        """Logits [B, V] after one more code [B] in each row; `indices` count codes, the start code is 0."""
        places = torch.tensor([cached_code_position(index) for index in indices], device=codes.device)
        x = self.code_embedding(codes) + self.code_positions(places)
        if self.native is not None and rows.cache.origins is not None and not is_tapped():
            return self.native(x, rows)
        return self._logits(self._blocks(x[:, None], rows)[:, -1])

    def row_steps(self, cache: KVCache, *, slots: int) -> RowSteps:
        """`step` for rows of a cache, as one piece of work."""

        def work(codes: Tensor, places: Tensor, reach: Reach) -> Tensor:
            x = self.code_embedding(codes) + self.code_positions(places)
            for index, block in enumerate(self.h):
                assert isinstance(block, Block)
                x = block.step(x, reach, index)
            return self._logits(self.final_norm(self.ln_f(x)))

        return RowSteps(work, cache, slots=slots, scores=self.config.number_mel_codes)

    def full_logits(self, prefix: Tensor, codes: Sequence[int]) -> Tensor:
        """Logits [n + 1, V] after the start code and each of n codes, without a cache.

        Uses the cached decoding's positions; it is what every cached step must equal.
        """
        fed = torch.tensor([self.config.start_mel_token, *codes], device=prefix.device)
        places = torch.tensor([cached_code_position(i) for i in range(len(fed))], device=prefix.device)
        x = torch.cat((prefix, self.code_embedding(fed) + self.code_positions(places)))
        return self._logits(self._blocks(x[None], None)[0, prefix.shape[0] :])

    def latents(self, latents: Tensor, emotion: Tensor, ids: Sequence[int], codes: Tensor) -> Tensor:
        """Hidden states [1, n, D] that predicted codes [n], by one pass over everything spoken.

        Parity: positions count 0, 1, 2, ... here, and the text keeps its inner marks.
        """
        c = self.config
        start, stop = codes.new_tensor([c.start_mel_token]), codes.new_tensor([c.stop_mel_token])
        fed = torch.cat((start, codes, stop))
        spoken = self.code_embedding(fed) + self.code_positions.weight[: len(fed)]
        x = torch.cat((self.conditions(latents, emotion), self._text(ids, None), spoken))
        with tap_scope("latent."):
            hidden = self._blocks(x[None], None)[:, -len(fed) : -2]
        return tap("latent.out", hidden)

    def _blocks(self, x: Tensor, rows: CacheRows | None) -> Tensor:
        x = tap("gpt.input", x)
        for index, block in enumerate(self.h):
            x = block(x, rows, index)
        if rows is not None:
            rows.commit()
        # Parity: two norms in series, the transformer's own and the one before the head.
        return tap("gpt.final_norm", self.final_norm(tap("gpt.ln_f", self.ln_f(x))))

    def _logits(self, hidden: Tensor) -> Tensor:
        return tap("gpt.logits", self.code_head(hidden).float())
