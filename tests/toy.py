"""A tiny seeded model of about a hundred lines: real cache rows, a causal decoder, frame streaming."""

import threading
from dataclasses import dataclass

import torch
from torch import nn

from sonant.engine.model import Prompt, Step, Utterance
from sonant.nn.cache import KVCache
from sonant.nn.conv import CausalConv1d, CausalConvTranspose1d
from sonant.nn.sampling import draw, generator
from sonant.nn.tap import tap
from sonant.nn.transformer import Decoder, DecoderConfig
from sonant.request.seeds import segment_seed
from sonant.request.speech import ModelSpec, SpeechRequest, TextFeed

VOCABULARY, END, RATE = 32, 0, 40


def held(model):
    """An event; until it is set, the model takes no step."""
    go, step = threading.Event(), model.step

    def when_let(utterances):
        assert go.wait(60)
        return step(utterances)

    model.step = when_let
    return go


def fed(*pieces, close=True):
    """A feed that holds these pieces of text."""
    feed = TextFeed()
    for piece in pieces:
        feed.put(piece)
    if close:
        feed.close()
    return feed


@dataclass(frozen=True, eq=False)
class ToyInputs:
    ids: torch.Tensor


class ToyModel:
    """Text bytes in, tokens out, 40 samples a token; `end_bias` -inf never ends by itself."""

    def __init__(self, *, end_bias=0.0, dtype=torch.float32, fail_at=None):
        torch.manual_seed(0)
        config = DecoderConfig(
            width=16,
            layers=2,
            heads=4,
            kv_heads=2,
            head_dim=8,
            intermediate=24,
            rope_theta=1e4,
            norm_eps=1e-6,
        )
        self.embedding = nn.Embedding(256 + VOCABULARY, 16).to(dtype)
        self.stack = Decoder(config, "toy").to(dtype)
        self.head = nn.Linear(16, VOCABULARY).to(dtype)
        self.conv = CausalConv1d(16, 8, 3).to(dtype)
        self.up = CausalConvTranspose1d(8, 1, 2 * RATE, RATE).to(dtype)
        self.end_bias, self.fail_at, self.dtype = end_bias, fail_at, dtype
        self.cache = None
        self.spec = ModelSpec(
            family="toy",
            name="toy",
            fingerprint="toy",
            sample_rate=8000,
            frame_rate=200.0,
            languages=("english",),
            voices=("ann",),
            default_voice="ann",
            capabilities=frozenset({"preset_voice", "frame_streaming", "seed"}),
            sampling={"temperature": 1.0},
            streams_by="frame",
            normalize="original",  # its tests count what it is given
        )

    def encode_voice(self, audio, transcript):
        raise NotImplementedError

    def prepare(self, request: SpeechRequest):
        prompts = []
        for index, sentence in enumerate(s for s in request.text.split(".") if s.strip()):
            ids = torch.tensor(list(sentence.encode()))
            ceiling = 2 * len(ids) + 8
            prompts.append(
                Prompt(
                    text=sentence,
                    sampling=request.sampling.over(self.spec.sampling),
                    seed=segment_seed(request.seed, index),
                    ceiling=ceiling,
                    inputs=ToyInputs(ids),
                    positions=len(ids) + ceiling + 1,
                )
            )
        return prompts

    def allocate(self, slots, positions):
        self.cache = KVCache(layers=2, slots=slots, heads=2, head_dim=8, capacity=positions, dtype=self.dtype)

    def start(self, prompt, slots):
        self.cache.free(slots[0])
        x = self.embedding(prompt.inputs.ids)[None]
        hidden = self.stack(x, rows=self.cache.rows(slots, x.shape[1]))
        return Utterance(
            prompt=prompt,
            slots=tuple(slots),
            generator=generator(prompt.seed, "tokens"),
            state=tap("toy.logits", self.head(hidden[:, -1])),
        )

    def step(self, utterances):
        tokens, ends = [], []
        for u in utterances:
            if self.fail_at is not None and u.steps >= self.fail_at:
                raise RuntimeError("the toy broke")
            scores = u.state[0].float() / u.prompt.sampling.temperature
            scores[END] += self.end_bias
            token = int(tap("toy.token", draw(scores.softmax(-1), u.generator)))
            tokens.append(token)
            ends.append(token == END)
        x = self.embedding(torch.tensor(tokens) + 256)[:, None]
        hidden = self.stack(x, rows=self.cache.rows([u.slots[0] for u in utterances], 1))
        logits = tap("toy.logits", self.head(hidden[:, -1]))
        steps = []
        for row, (u, token, end) in enumerate(zip(utterances, tokens, ends, strict=True)):
            u.state = logits[row : row + 1]
            at_ceiling = not end and u.steps + 1 >= u.prompt.ceiling
            out = torch.tensor([[] if end else [token]], dtype=torch.int64).reshape(-1, 1)
            steps.append(Step(out, end or at_ceiling, at_ceiling=at_ceiling))
        return steps

    def decoder(self, prompt, *, streaming):
        return ToyDecoder(self)


class ToyDecoder:
    def __init__(self, model):
        self.model, self.past, self.overlap = model, None, None

    def push(self, tokens):
        x = self.model.embedding(tokens[:, 0] + 256).T[None]
        if not tokens.shape[0]:
            return torch.zeros(0)
        x, self.past = self.model.conv(tap("toy.embedded", x), self.past)
        y, self.overlap = self.model.up(torch.tanh(tap("toy.conv", x)), self.overlap)
        return torch.tanh(tap("toy.up", y)[0, 0])

    def finish(self):
        return torch.zeros(0)
