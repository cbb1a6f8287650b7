"""Train the codec encoder: the waveform in, the fixed features out (squared error, no quantiser in the loop).

Only cloning and re-encoding need it. encoder/state.pt: weights, optimiser, seconds spent.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from recipes.nano.codes import Codes
from recipes.nano.decoder import Clips
from recipes.nano.progress import Progress, resume, save
from recipes.nano.settings import FRAME, Settings
from sonant.families.qwen3_tts.codec_encoder import CodecEncoder
from sonant.families.qwen3_tts.config import CodecEncoderConfig

RATIOS = (8, 6, 5, 4)
BATCH, FRAMES, CONTEXT = 6, 7, 3


def config(s: Settings) -> CodecEncoderConfig:
    """The encoder's sizes."""
    width = s.encoder_filters * 16
    heads = 4
    return CodecEncoderConfig(
        width=width,
        layers=2,
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        intermediate=2 * width,
        rope_theta=10_000.0,
        norm_eps=1e-5,
        filters=s.encoder_filters,
        upsampling_ratios=RATIOS,
        kernel_size=7,
        last_kernel_size=3,
        residual_kernel_size=3,
        compress=2,
        codebook_size=s.codebook,
        codebook_dim=s.features,
        quantizers=s.groups,
        semantic_quantizers=1,
        sampling_rate=24_000,
        frame_rate=12.5,
    )


def build(s: Settings) -> CodecEncoder:
    """A new encoder; torch's default start would hardly let the waveform through."""
    torch.manual_seed(s.seed)
    net = CodecEncoder(config(s))
    for module in net.modules():
        if isinstance(module, nn.Conv1d):
            nn.init.normal_(module.weight, std=(module.weight.shape[1] * module.weight.shape[2]) ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    net.convolutions.first.weight.data.mul_(12.0)
    for residual in net.convolutions.residuals:
        residual.second.weight.data.mul_(0.3)
    for codebook in (*net.semantic.layers, *net.acoustic.layers):
        codebook.requires_grad_(False)
    return net


def features(net: CodecEncoder, waveform: Tensor) -> tuple[Tensor, Tensor]:
    """waveform [B, S] -> what the semantic and the acoustic quantiser see, [B, T, D] each."""
    x = net.embed(waveform)
    return net.semantic_in(x).transpose(1, 2), net.acoustic_in(x).transpose(1, 2)


def make(s: Settings) -> None:
    """Train until the time is used up."""
    folder, device = s.folder("encoder"), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    old = resume(folder / "state.pt")
    spent = 0.0 if old is None else float(old["seconds"])
    if spent >= s.encoder_seconds:
        return
    fit, clips = Codes.load(s), Clips(s)
    net = build(s).to(device)
    trained = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, 2e-3, betas=(0.9, 0.99), weight_decay=0.001)
    step = 0
    if old is not None:
        net.load_state_dict(old["net"])
        optimiser.load_state_dict(old["optimiser"])
        step = old["step"]
    progress = Progress("encoder", folder, spent)
    chance = np.random.default_rng(s.seed + step)
    spread = float(fit.books[1].var(0).mean())
    scale = (sum(float(book.var(0).sum()) for book in fit.books[1:]) / s.features) or spread
    seen: list[float] = []
    saved = progress.seconds
    total = len(clips.samples) // FRAME
    while (share := progress.seconds / s.encoder_seconds) < 1 or step < s.least_steps:
        share = min(1.0, share)
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * (0.03 + 0.485 * (1 + math.cos(math.pi * share)))
        at = chance.integers(1, total - FRAMES - CONTEXT - 1, BATCH)
        waves = np.stack([clips.samples[(i - 1) * FRAME : (i + FRAMES + CONTEXT + 1) * FRAME] for i in at])
        wave = torch.from_numpy(waves.astype(np.float32) / 32767)
        goal = fit.features(wave)[:, 1 + CONTEXT : -1].to(device)
        semantic, acoustic = features(net, wave[:, FRAME:-FRAME].to(device))
        loss = sum(((y[:, CONTEXT:] - goal) ** 2).mean() for y in (semantic, acoustic)) / (2 * scale)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 2.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        seen.append(loss.item())
        progress.bar(share, f"left {seen[-1]:.3f}")
        if step % s.log_every == 0:
            progress.log(step=step, left=float(np.mean(seen[-s.log_every :])))
        if progress.seconds - saved > 120:
            _keep(folder, net, optimiser, step, progress.seconds)
            saved = progress.seconds
    _keep(folder, net, optimiser, step, progress.seconds)
    progress.log(step=step, left=float(np.mean(seen[-s.log_every :])), done=1)
    progress.close()


def _keep(folder, net, optimiser, step, seconds) -> None:
    save(
        folder / "state.pt",
        {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "seconds": seconds},
    )
