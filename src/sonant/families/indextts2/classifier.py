"""Text -> eight emotion numbers: a small Qwen3 that answers in JSON, and the reading of its answer.

chat prompt ids -> greedy ids -> text -> {"高兴": 0.9, ...} -> happy, angry, sad, ... calm
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sonant.checkpoints.files import read_json, read_tensors
from sonant.checkpoints.modules import build, load_strict, used
from sonant.errors import CheckpointError, ConfigError, GenerationError
from sonant.families.indextts2.chat import chat_renderer
from sonant.nn.cache import KVCache
from sonant.nn.tap import tap
from sonant.nn.transformer import Decoder, DecoderConfig

SYSTEM = "文本情感分类"
LARGEST = 1.2  # answers are held to 0..1.2. Source: the original
MAX_ANSWER = 512  # ids; the original allows 32768, an answer takes about 60
MAX_TEXT = 4096  # prompt ids

# Keys of an answer, in the order of the eight numbers.
KEYS = ("高兴", "愤怒", "悲伤", "恐惧", "反感", "低落", "惊讶", "自然")
NAMES = ("happy", "angry", "sad", "afraid", "disgusted", "melancholic", "surprised", "calm")
SAD, MELANCHOLIC, CALM = KEYS.index("悲伤"), KEYS.index("低落"), KEYS.index("自然")
LABEL_KEYS = ("emotion", "emotion_label", "label", "情感", "情绪")
# Texts with one of these are melancholic where the model says sad, and the other way round.
MELANCHOLIC_WORDS = ("低落", "melancholy", "melancholic", "depression", "depressed", "gloomy")

_PAIR = re.compile(r'([^\s":.,]+?)"?\s*:\s*([\d.]+)')


def parse_answer(answer: str, text: str) -> tuple[float, ...]:
    """Eight numbers from a model's answer about `text`.

    A JSON object, or any `name: number` pairs, or one label alone. Nothing usable is calm.
    Raises GenerationError where a value is no number and no label.
    """
    try:
        found = json.loads(answer)
    except ValueError:
        found = {name: _number(number, name) for name, number in _PAIR.findall(answer)}
    swapped = any(word in text.lower() for word in MELANCHOLIC_WORDS)
    if isinstance(found, dict) and swapped:
        found = _swapped(found)
    values = [max(0.0, min(LARGEST, value)) for value in _values(found)]
    if not any(value > 0 for value in values):
        values[CALM] = 1.0
    return tuple(values)


def _number(value: Any, key: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise GenerationError(
            f"the emotion model answered {value!r} for {key}; expected a number. "
            "Describe the emotion in other words, or give an emotion vector."
        ) from error


def _swapped(found: Mapping[str, Any]) -> dict[str, Any]:
    """Sad and melancholic change places; an absent one counts as 0, as in the original."""
    changed = dict(found)
    sad, low = KEYS[SAD], KEYS[MELANCHOLIC]
    changed[sad], changed[low] = found.get(low, 0.0), found.get(sad, 0.0)
    return changed


def _label(value: Any) -> str | None:
    """The key that a label in any of the two languages means."""
    if not isinstance(value, str):
        return None
    plain = value.strip()
    if plain in KEYS:
        return plain
    return KEYS[NAMES.index(plain.lower())] if plain.lower() in NAMES else None


def _values(found: Any) -> list[float]:
    """The numbers of the eight keys.

    A label in place of a number moves: its own emotion counts as 1, whatever stood there, and the key it
    stood under as 0.
    """
    if not isinstance(found, dict):
        label = _label(found)
        return [float(key == label) for key in KEYS]
    values = dict(found)
    if not any(key in values for key in KEYS):
        labels = [label for key in LABEL_KEYS if (label := _label(values.get(key))) is not None]
        values = dict.fromkeys(labels[:1], 1.0)
    for key in KEYS:
        label = _label(values.get(key))
        if label is not None:
            values[key] = 0.0
            values[label] = 1.0
    return [_number(values.get(key, 0.0), key) for key in KEYS]


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Qwen3's sizes. Source: `config.json` of the classifier folder."""

    decoder: DecoderConfig
    vocabulary: int
    is_tied: bool
    end: tuple[int, ...]

    @staticmethod
    def read(folder: Path) -> ClassifierConfig:
        """From `config.json` and, for the end tokens, `generation_config.json` where it exists."""
        data = read_json(folder / "config.json")
        if data.get("model_type") != "qwen3" or data.get("rope_scaling"):
            raise ConfigError(
                f"{folder / 'config.json'} is a {data.get('model_type')!r} model; expected qwen3 without "
                "rope scaling. Use the emotion model of the checkpoint's own release."
            )
        generation = folder / "generation_config.json"
        end: Any = (read_json(generation) if generation.is_file() else {}).get("eos_token_id")
        try:
            end = data["eos_token_id"] if end is None else end
            rope = data.get("rope_parameters") or {}
            heads, width = data["num_attention_heads"], data["hidden_size"]
            return ClassifierConfig(
                decoder=DecoderConfig(
                    width=width,
                    layers=data["num_hidden_layers"],
                    heads=heads,
                    kv_heads=data["num_key_value_heads"],
                    head_dim=data.get("head_dim") or width // heads,
                    intermediate=data["intermediate_size"],
                    rope_theta=float(data.get("rope_theta", rope.get("rope_theta", 1_000_000.0))),
                    norm_eps=data["rms_norm_eps"],
                    qk_norm=True,
                    qkv_bias=bool(data.get("attention_bias", False)),
                ),
                vocabulary=data["vocab_size"],
                is_tied=bool(data.get("tie_word_embeddings", False)),
                end=tuple(end) if isinstance(end, list) else (int(end),),
            )
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"{folder / 'config.json'} lacks {error}; it is no complete Qwen3 config. Download it again."
            ) from error


class EmotionNetwork(nn.Module):
    """Embedding, decoder stack and head: ids [1, T] -> logits of the last position [1, V]."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary, config.decoder.width)
        self.decoder = Decoder(config.decoder, "emotion.model")
        self.lm_head: nn.Linear | None = None
        if not config.is_tied:
            self.lm_head = nn.Linear(config.decoder.width, config.vocabulary, bias=False)

    def forward(self, ids: Tensor, cache: KVCache) -> Tensor:
        rows = cache.rows([0], ids.shape[1])
        hidden = self.decoder(self.embed_tokens(ids), rows=rows)[:, -1]
        head = self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return tap("emotion.logits", (hidden @ head.T).float())


RULES = ((r"^model\.embed_tokens\.", "embed_tokens."), (r"^model\.", "decoder."))


def _ignored(config: ClassifierConfig) -> tuple[str, ...]:
    """Keys that inference never reads."""
    return (r"^lm_head\.",) if config.is_tied else ()  # the same table again


def tensors_read(folder: Path) -> dict[Path, dict[str, Tensor]]:
    """Of each file of weights in a classifier's folder, what inference reads."""
    config = ClassifierConfig.read(folder)
    network = build(lambda: EmotionNetwork(config))
    return {
        path: used(network, read_tensors(path), rules=RULES, ignored=_ignored(config), where=str(path))
        for path in sorted(folder.glob("*.safetensors"))
    }


class EmotionClassifier:
    """The classifier of one checkpoint folder: text -> answer -> eight numbers.

    Answers are chosen greedily, so a text always means the same emotion.
    """

    def __init__(self, folder: Path, *, device: torch.device | str, dtype: torch.dtype) -> None:
        from tokenizers import Tokenizer

        self.config = ClassifierConfig.read(folder)
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise CheckpointError(f"{file.name} is missing in {folder}. Download the emotion model again.")
        try:
            self.tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(
                f"{file} is no tokenizer ({error}); it is probably damaged. Download the emotion model again."
            ) from error
        tensors: dict[str, Tensor] = {}
        for part in sorted(folder.glob("*.safetensors")):
            tensors.update(read_tensors(part))
        self.network = build(lambda: EmotionNetwork(self.config))
        load_strict(
            self.network,
            tensors,
            rules=RULES,
            ignored=_ignored(self.config),
            dtype=dtype,
            device=device,
            where=str(folder),
        )
        self.chat = chat_renderer(folder)
        self.device, self.dtype = device, dtype

    def prompt(self, text: str) -> str:
        """The chat the model was trained on, by its own template, up to where the answer begins."""
        return self.chat([{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}])

    def prompt_ids(self, text: str) -> list[int]:
        """Ids of the whole chat."""
        return list(self.tokenizer.encode(self.prompt(text), add_special_tokens=False).ids)

    @torch.inference_mode()
    def answer_ids(self, text: str) -> list[int]:
        """Greedy answer, its end token included. Raises GenerationError when it does not end."""
        ids = self.prompt_ids(text)
        if len(ids) > MAX_TEXT:
            raise GenerationError(
                f"the emotion text has {len(ids)} tokens; expected at most {MAX_TEXT}. Shorten it."
            )
        c = self.config.decoder
        cache = KVCache(
            layers=c.layers,
            slots=1,
            heads=c.kv_heads,
            head_dim=c.head_dim,
            capacity=len(ids) + MAX_ANSWER,
            dtype=self.dtype,
            device=self.device,
        )
        fed, answer = ids, []
        for _ in range(MAX_ANSWER):
            logits = self.network(torch.tensor([fed], device=self.device), cache)
            answer.append(int(logits[0].argmax()))
            if answer[-1] in self.config.end:
                return answer
            fed = answer[-1:]
        raise GenerationError(
            f"the emotion model did not end its answer within {MAX_ANSWER} tokens. "
            "Describe the emotion in other words, or give an emotion vector."
        )

    def decode(self, answer: list[int]) -> str:
        """The answer's text, without what the model thought first."""
        mark = self.tokenizer.token_to_id("</think>")
        if mark in answer:
            answer = answer[len(answer) - answer[::-1].index(mark) :]
        return str(self.tokenizer.decode(answer, skip_special_tokens=True)).strip("\n")

    def classify(self, text: str) -> tuple[float, ...]:
        """Eight numbers for a text. Raises GenerationError."""
        return parse_answer(self.decode(self.answer_ids(text)), text)
