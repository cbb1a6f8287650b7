"""The language model: text tokens -> speech tokens, 25 in a second.

    [start] + text embeddings + [task] + prompt speech embeddings -> Qwen2 decoder -> logits of speech ids

Tap names, in order: lm.input, those of the decoder (lm.layer.{i}...., lm.norm), lm.logits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sonant.families.cosyvoice3.config import SPECIAL_SPEECH_ROWS, LanguageConfig
from sonant.nn.cache import CacheRows, KVCache
from sonant.nn.row_steps import RowSteps
from sonant.nn.step_stack import Reach, StepStack
from sonant.nn.tap import tap
from sonant.nn.transformer import Decoder


class LanguageModel(nn.Module):
    """Qwen2 decoder with a speech table and a speech head without bias.

    Rows of the speech table above the speech tokens are the special ids: start, end, task, fill and
    others that also end an utterance.
    """

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        width, rows = config.decoder.width, config.speech_tokens + SPECIAL_SPEECH_ROWS
        self.text_embedding = nn.Embedding(config.text_vocabulary, width)
        self.decoder: nn.Module = Decoder(config.decoder, "lm")
        self.speech_embedding = nn.Embedding(rows, width)
        self.head: nn.Module = nn.Linear(width, rows, bias=False)

    def prompt(self, text: Tensor, prompt_speech: Tensor) -> Tensor:
        """Embeddings [1, L, D] of text tokens [n] (prompt and target) and prompt speech tokens [m]."""
        text, prompt_speech = tap("lm.text_ids", text), tap("lm.prompt_tokens", prompt_speech)
        marks = torch.tensor([self.config.start, self.config.task], device=text.device)
        start, task = self.speech_embedding(marks).split(1)
        parts = (start, self.text_embedding(text), task, self.speech_embedding(prompt_speech))
        return tap("lm.input", torch.cat(parts)[None])

    def forward(self, x: Tensor, rows: CacheRows | None = None) -> Tensor:
        """Hidden states [B, T, D] of embeddings [B, T, D], after the final norm."""
        return self.decoder(x, rows=rows)

    def step_stack(self) -> StepStack | None:
        """The decoder for steps of fixed shape; None where it is something narrower than `Decoder`."""
        return StepStack(self.decoder) if isinstance(self.decoder, Decoder) else None

    def row_steps(self, stack: StepStack, cache: KVCache, *, slots: int) -> RowSteps:
        """Speech ids -> scores for rows of a cache, as one piece of work."""
        stack.reach(cache.capacity)

        def work(ids: Tensor, places: Tensor, reach: Reach) -> Tensor:
            return self.logits(stack(self.speech_embedding(ids)[:, None], reach)[:, 0])

        return RowSteps(work, cache, slots=slots, scores=self.speech_embedding.num_embeddings)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores [.., V] of speech ids for hidden states [.., D], in float32."""
        scores = self.head(hidden)
        return tap("lm.logits", scores if scores.dtype == torch.float64 else scores.float())
