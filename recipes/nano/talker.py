"""Train the talker and its code predictor on the codes, with the teacher's own timing as text.

talker/state.pt: weights, optimiser, seconds spent; restarts go on where they stopped.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from recipes.nano import speech
from recipes.nano.progress import Progress, resume, save
from recipes.nano.settings import LEAD_FRAMES, SLOT_MS, Settings
from recipes.nano.talker_net import SPECIALS, TalkerNet
from sonant.text.paced_phonemes import INDEX, STOP, slots

PAD, EOS = SPECIALS.index("<tts_pad>"), SPECIALS.index("<tts_text_eod>")


def text_frames(sounds: list[int], milliseconds: list[float], frames: int) -> np.ndarray:
    """The two symbols of each frame [frames, 2] from the teacher's durations."""
    counts = slots(milliseconds, SLOT_MS)
    line = [sound for sound, count in zip(sounds, counts, strict=True) for _ in range(count)]
    line = (line + [INDEX[STOP]] * (2 * frames))[: 2 * frames]
    return np.array(line, np.int64).reshape(frames, 2)


class Sentences:
    """All sentences as (text frames, codes); one shard is kept apart for the curve."""

    def __init__(self, s: Settings) -> None:
        self.s, self.train, self.apart = s, [], []
        self.known: set[int] = set()
        self.chance = np.random.default_rng(s.seed)
        self.look_for_more()

    def look_for_more(self) -> bool:
        """Read shards that have got their codes since the last look; whether there were any."""
        more = [n for n in speech.numbers(self.s) if n not in self.known]
        more = [n for n in more if (self.s.folder("codes") / f"{n:03d}.npz").exists()]
        for number in more:
            codes = np.load(self.s.folder("codes") / f"{number:03d}.npz")["codes"].astype(np.int16)
            first = 0
            for _, frames, sounds, _, milliseconds in speech.lines(self.s, number):
                item = (text_frames(sounds, milliseconds, frames), codes[first : first + frames])
                (self.apart if number == self.s.apart_shard else self.train).append(item)
                first += frames
        self.known.update(more)
        self.train.sort(key=lambda item: len(item[1]))
        return bool(more)

    def draw(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Sentences of about the same length, `talker_frames` frames in all; some are two or three joined.

        Joined ones teach the talker to go on after a full stop, and longer texts than any sentence here.
        """
        at = int(self.chance.integers(len(self.train)))
        size = max(1, self.s.talker_frames // len(self.train[at][1]))
        span = range(max(0, at - 3 * size), min(len(self.train), at + 3 * size))
        chosen = [self.train[i] for i in self.chance.choice(span, min(size, len(span)), replace=False)]
        joined = int(self.chance.choice((1, 1, 1, 2, 3)))
        if joined == 1 or len(chosen) < 2 * joined:
            return chosen
        self.chance.shuffle(chosen)  # type: ignore[arg-type]
        groups = [chosen[i : i + joined] for i in range(0, len(chosen) - joined + 1, joined)]
        return [tuple(np.concatenate(part) for part in zip(*group, strict=True)) for group in groups]  # type: ignore[misc]


def arrange(items: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor, Tensor]:
    """Text tokens [B, N + 1, 2], codes [B, N, K], lengths [B]; -1 in front marks special tokens."""
    longest = max(len(codes) for _, codes in items)
    text = torch.empty(len(items), longest + 1, 2, dtype=torch.int64)
    text[..., 0], text[..., 1] = -1, PAD
    codes = torch.zeros(len(items), longest, items[0][1].shape[1], dtype=torch.int64)
    for row, (pairs, frames) in enumerate(items):
        told = len(pairs) - LEAD_FRAMES
        text[row, :told] = torch.from_numpy(pairs[LEAD_FRAMES:])
        text[row, told, 1] = EOS
        codes[row, : len(frames)] = torch.from_numpy(frames)
    return text, codes, torch.tensor([len(frames) for _, frames in items])


def losses(
    net: TalkerNet, items: list[tuple[np.ndarray, np.ndarray]], *, noise: float, share: float, language: bool
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of code 0 (with the end) and of the other codes, mean over frames."""
    device = net.codec_head.weight.device
    text, codes, lengths = (x.to(device) for x in arrange(items))
    batch, longest, groups = codes.shape
    steps = torch.arange(longest + 1, device=device)
    inside = steps[:-1] < lengths[:, None]
    said = net.pairs(text)
    seen = codes
    if noise:  # some past frames are those of another place, so that the text has to be listened to
        flat = codes[inside]
        other = flat[torch.randint(len(flat), (batch, longest), device=device)]
        wrong = torch.rand(batch, longest, device=device) < noise
        some = torch.rand(batch, longest, groups, device=device) < noise / 2
        seen = torch.where(wrong[..., None] | some, other, codes)
    prefix = net.prefix(said[:, 0], language)
    x = torch.cat((prefix, net.embed(seen) + said[:, 1:]), dim=1)
    hidden = net.decoder(x)[:, prefix.shape[1] - 1 :]
    target = torch.where(inside, codes[..., 0], -100)
    target = torch.cat((target, torch.full_like(target[:, :1], -100)), dim=1)
    target[torch.arange(batch, device=device), lengths] = net.s.codebook
    first = F.cross_entropy(net.codec_head(hidden).flatten(0, 1), target.flatten(), ignore_index=-100)
    if share < 1:
        inside = inside & (torch.rand(inside.shape, device=device) < share)
    chosen = codes[inside]
    logits = net.predictor_logits(hidden[:, :-1][inside], chosen)
    return first, F.cross_entropy(logits.flatten(0, 1), chosen[:, 1:].flatten())


def make(s: Settings) -> None:
    """Train until the time is used up."""
    folder, device = s.folder("talker"), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    old = resume(folder / "state.pt")
    spent = 0.0 if old is None else float(old["seconds"])
    if spent >= s.talker_seconds:
        return
    torch.manual_seed(s.seed)
    data = Sentences(s)
    net = TalkerNet(s).to(device)
    decayed = [p for n, p in net.named_parameters() if p.ndim > 1]
    rest = [p for n, p in net.named_parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.02}, {"params": rest, "weight_decay": 0.0}],
        s.talker_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    step, passed = 0, 0
    if old is not None:
        net.load_state_dict(old["net"])
        optimiser.load_state_dict(old["optimiser"])
        for group in optimiser.param_groups:
            group["fused"] = True
        step, passed = old["step"], old["frames"]
        data.chance = np.random.default_rng(s.seed + step)
        torch.manual_seed(s.seed + step)
    if s.compiled:
        torch._dynamo.config.recompile_limit = 64
        for stack in (net.decoder, net.predictor):
            stack.forward = torch.compile(stack.forward, dynamic=True)  # type: ignore[method-assign]
    progress = Progress("talker", folder, spent)
    progress.log(parameters=sum(p.numel() for p in net.parameters()), sentences=len(data.train))
    seen: list[tuple[float, float]] = []
    saved = progress.seconds
    while (share := progress.seconds / s.talker_seconds) < 1 or step < s.least_steps:
        share = min(1.0, share)
        rate = s.talker_rate * min(1, (step + 1) / 200) * (0.03 + 0.485 * (1 + math.cos(math.pi * share)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        items = data.draw()
        language = bool(data.chance.random() < 0.5)
        # 1.4 times as fast as float32 on a CPU with AVX512-BF16; so short, plain attention is the faster one.
        with torch.autocast(device.type, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            first, others = losses(
                net, items, noise=s.talker_noise, share=s.predictor_share, language=language
            )
        (first + others).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        passed += sum(len(codes) for _, codes in items)
        seen.append((first.item(), others.item()))
        progress.bar(share, f"first {seen[-1][0]:.3f} others {seen[-1][1]:.3f}")
        if step % s.log_every == 0:
            a, b = (float(v) for v in np.mean(seen[-s.log_every :], 0))
            extra = {}
            if step % 500 == 0:
                extra = dict(zip(("apart_first", "apart_others"), apart(net, data), strict=True))
            progress.log(step=step, frames=passed, first=a, others=b, **extra)
            if data.look_for_more():
                progress.log(step=step, sentences=len(data.train))
        if progress.seconds - saved > 120:
            _keep(folder, net, optimiser, step, passed, progress.seconds)
            saved = progress.seconds
    a, b = apart(net, data)
    progress.log(step=step, frames=passed, apart_first=a, apart_others=b, done=1)
    _keep(folder, net, optimiser, step, passed, progress.seconds)
    progress.close()


def apart(net: TalkerNet, data: Sentences) -> tuple[float, float]:
    """Losses on up to 64 sentences kept apart."""
    net.eval()
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        a, b = losses(net, data.apart[:64], noise=0.0, share=1.0, language=True)
    net.train()
    return float(a), float(b)


def _keep(folder, net, optimiser, step, passed, seconds) -> None:
    save(
        folder / "state.pt",
        {
            "net": net.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": step,
            "frames": passed,
            "seconds": seconds,
        },
    )
