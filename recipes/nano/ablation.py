"""Where the words get lost: teacher -> codec -> talker led by the true past -> talker alone, judged by ear.

`python -m recipes.nano ablation`: runs the training networks on the held-out sentences; ablation/table.json.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor

from recipes.nano import decoder as decoder_stage
from recipes.nano.codec_net import Snake
from recipes.nano.codes import Codes
from recipes.nano.hearing import Ear, Score
from recipes.nano.progress import Progress, resume
from recipes.nano.settings import FRAME, LEAD_FRAMES, SAMPLE_RATE, Settings
from recipes.nano.speech import Teacher
from recipes.nano.talker import arrange, text_frames
from recipes.nano.talker_net import TalkerNet
from recipes.nano.texts import held_out
from sonant.nn.cache import KVCache
from sonant.text.paced_phonemes import INDEX, PacedPhonemes


def choose(logits: Tensor, temperature: float, chance: torch.Generator) -> Tensor:
    """The best [N] of logits [N, V], or a draw from the best 50 at `temperature`."""
    if not temperature:
        return logits.argmax(-1)
    best, at = (logits / temperature).topk(min(50, logits.shape[-1]))
    return at.gather(1, torch.multinomial(best.softmax(-1), 1, generator=chance))[:, 0]


def finish_frame(
    net: TalkerNet, hidden: Tensor, first: Tensor, heat: float, chance: torch.Generator
) -> Tensor:
    """Codes [N, K] from the talker's state and code 0."""
    codes = torch.zeros(len(first), net.s.groups, dtype=torch.int64)
    codes[:, 0] = first
    for k in range(1, net.s.groups):  # the whole frame is run again for every code: it is tiny
        codes[:, k] = choose(net.predictor_logits(hidden, codes)[:, k - 1], heat, chance)
    return codes


@torch.inference_mode()
def led(net: TalkerNet, items: list) -> list[Tensor]:
    """The talker's best guess of every frame, given the true past."""
    text, codes, lengths = arrange(items)
    said = net.pairs(text)
    prefix = net.prefix(said[:, 0], True)
    hidden = net.decoder(torch.cat((prefix, net.embed(codes) + said[:, 1:]), 1))[:, prefix.shape[1] - 1 :]
    chance = torch.Generator()
    out = []
    for row, length in enumerate(lengths.tolist()):
        state = hidden[row, :length]
        out.append(finish_frame(net, state, net.codec_head(state)[:, :-1].argmax(-1), 0.0, chance))
    return out


@torch.inference_mode()
def alone(
    net: TalkerNet, pairs: np.ndarray, heat: float, chance: torch.Generator, limit: int = 400
) -> Tensor:
    """Codes [T, K] of one sentence; pairs [N, 2] are the frames of text, unshifted."""
    s = net.s
    text, _, _ = arrange([(pairs, np.zeros((len(pairs), s.groups), np.int64))])
    said = net.pairs(text)[0]
    pad = net.words("<tts_pad>")[0]
    cache = KVCache(
        layers=s.talker_layers,
        slots=1,
        heads=s.talker_kv_heads,
        head_dim=s.talker_width // s.talker_heads,
        capacity=limit + 32,
    )
    x = net.prefix(said[:1], True)
    frames: list[Tensor] = []
    while len(frames) < limit:
        state = net.decoder(x, rows=cache.rows([0], x.shape[1]))[:, -1]
        logits = net.codec_head(state)
        if len(frames) < 2:
            logits[:, -1] = -torch.inf
        first = choose(logits, heat, chance)
        if int(first) == s.codebook:
            break
        frames.append(finish_frame(net, state, first, heat, chance))
        place = len(frames)
        x = (net.embed(frames[-1]) + (said[place] if place < len(said) else pad))[:, None]
    return torch.cat(frames) if frames else torch.zeros(0, s.groups, dtype=torch.int64)


def make(s: Settings, count: int | None = None) -> None:
    """The table, printed and written."""
    Snake.compiled = False
    fit = Codes.load(s)
    codec, talker = resume(s.work / "decoder" / "state.pt"), resume(s.work / "talker" / "state.pt")
    assert codec is not None
    assert talker is not None
    voice = decoder_stage.build(s, fit).eval()
    voice.load_state_dict(codec["net"])
    net = TalkerNet(s).eval()
    net.load_state_dict(talker["net"])
    teacher, front, ear = Teacher(), PacedPhonemes.load(s.folder("pace")), Ear()
    chance = torch.Generator().manual_seed(s.seed)
    progress = Progress("ablation", s.folder("ablation"))

    @torch.inference_mode()
    def sound(codes: Tensor) -> np.ndarray:
        wave = voice(fit.books[0][codes[None, :, 0]], fit.chain(codes[None]))
        return wave[0].clamp(-1, 1).numpy()

    table: dict[str, Score] = {}
    heard: dict[str, list[str]] = {}
    sentences = held_out()[: count or s.held_out]
    for index, text in enumerate(sentences):
        said = teacher.say(text, seed=index)
        assert said is not None, text
        samples = said[0].astype(np.float32) / 32767
        codes = fit.encode(fit.features(torch.from_numpy(samples)[None])[0])
        true_pairs = text_frames(said[1], said[3], len(samples) // FRAME)
        own_pairs = np.array([[INDEX[a], INDEX[b]] for a, b in front.frames(text)])
        clips = {
            "teacher": samples,
            "codec": sound(codes),
            "talker led": sound(led(net, [(true_pairs, codes.numpy())])[0]),
            "talker alone, teacher's timing": sound(alone(net, true_pairs, 0.0, chance)),
            "talker alone": sound(alone(net, own_pairs, 0.0, chance)),
            "talker alone, temperature 0.6": sound(alone(net, own_pairs, 0.6, chance)),
        }
        for name, clip in clips.items():
            score, understood = ear.score(clip, SAMPLE_RATE, text)
            table[name] = table.get(name, Score()) + score
            heard.setdefault(name, []).append(understood)
        progress.bar((index + 1) / len(sentences))
    for name, total in table.items():
        progress.log(row=name, wer=100 * total.wer, cer=100 * total.cer)
    (s.folder("ablation") / "heard.json").write_text(json.dumps(heard, indent=1), encoding="utf-8")
    progress.close()


assert LEAD_FRAMES >= 1, "the first frame of text must be silence"
