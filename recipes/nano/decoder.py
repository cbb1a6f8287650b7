"""Train the codec decoder: fixed codes in, the teacher's waveform out, spectral losses, no adversary.

decoder/state.pt: weights, optimiser, seconds spent. A run ends after `decoder_seconds`, over all restarts.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from recipes.nano import speech
from recipes.nano.codec_net import CodecDecoder, Snake
from recipes.nano.codes import Codes, mel_filters
from recipes.nano.progress import Progress, resume, save
from recipes.nano.settings import FRAME, SAMPLE_RATE, Settings


class SpectralLoss(nn.Module):
    """Log-mel, log-magnitude and magnitude distances at four resolutions; also the mel part alone."""

    sizes = ((256, 64, 32), (512, 128, 64), (1024, 256, 80), (2048, 512, 128))

    def __init__(self) -> None:
        super().__init__()
        for size, _, bins in self.sizes:
            self.register_buffer(f"window{size}", torch.hann_window(size))
            # peak one, not area one: the floor of 1e-2 below belongs to this scale
            filters = mel_filters(bins, size)
            self.register_buffer(f"mel{size}", filters / filters.amax(1, keepdim=True).clamp_min(1e-6))

    def forward(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        total = mels = torch.zeros((), device=y.device)
        for size, hop, _ in self.sizes:
            window, filters = getattr(self, f"window{size}"), getattr(self, f"mel{size}")
            a, b = (torch.stft(v, size, hop, window=window, return_complex=True).abs() for v in (y, x))
            mel = (
                (torch.log10((filters @ a).clamp_min(1e-2)) - torch.log10((filters @ b).clamp_min(1e-2)))
                .abs()
                .mean()
            )
            fine = (torch.log10(a.clamp_min(1e-2)) - torch.log10(b.clamp_min(1e-2))).abs().mean()
            total = total + mel + 0.2 * fine + 0.3 * (a - b).norm() / b.norm().clamp_min(1e-3)
            mels = mels + mel.detach()
        return total / len(self.sizes), mels / len(self.sizes)


class LowBand(nn.Module):
    """How far the first harmonics (below 1 kHz) are from the target's, whatever the time of its pulses.

    Codes made from mel frames do not hold phase, so a waveform cannot be asked for; but within 43 ms it is
    known up to a shift of the pulses. Each stretch of the output is compared with the target at the shift
    that fits it best. Only the first harmonics are: their unsteady phase is what makes a buzz of a voice.
    """

    size, hop, reach, top_hz = 1024, 256, 110, 1000.0

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(self.size))
        hertz = torch.fft.rfftfreq(2 * self.size, 1 / SAMPLE_RATE)
        self.register_buffer("band", ((hertz > 60) & (hertz < self.top_hz)).float())
        self.last = 1 + int(self.top_hz * self.size / SAMPLE_RATE)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        ours = y[:, self.reach : -self.reach].unfold(1, self.size, self.hop) * self.window
        wide = x.unfold(1, self.size + 2 * self.reach, self.hop)
        with torch.no_grad():
            a, b = (torch.fft.rfft(v, 2 * self.size) for v in (ours * self.window, wide))
            fit = torch.fft.irfft(b * a.conj() * self.band, 2 * self.size)[..., : 2 * self.reach + 1]
            at = fit.argmax(-1, keepdim=True) + torch.arange(self.size, device=x.device)
            b = torch.fft.rfft(torch.gather(wide, 2, at) * self.window)[..., 2 : self.last]
            b_size = (b.real.square() + b.imag.square() + 1e-3).pow(0.25)
        a = torch.fft.rfft(ours)[..., 2 : self.last]
        a_size = (a.real.square() + a.imag.square() + 1e-3).pow(0.25)
        return (a / a_size - b / b_size).abs().mean() / b_size.mean()


class Clips:
    """Random stretches of speech with their codes; quiet stretches are drawn less often."""

    def __init__(self, s: Settings) -> None:
        self.s, self.chance = s, np.random.default_rng(s.seed)
        shards = speech.numbers(s)[: s.decoder_shards]
        self.samples = np.concatenate([speech.samples(s, n) for n in shards])
        files = [s.folder("codes") / f"{n:03d}.npz" for n in shards]
        self.codes = torch.from_numpy(np.concatenate([np.load(f)["codes"] for f in files]).astype(np.int64))
        assert len(self.codes) * FRAME == len(self.samples), "codes and speech belong together"
        loud = np.abs(self.samples[::64].astype(np.int32)).reshape(len(self.codes), -1).mean(1)
        self.loud = np.convolve(loud, np.ones(s.decoder_frames))[s.decoder_frames - 1 :]

    def draw(self, batch: int, frames: int, context: int) -> tuple[Tensor, Tensor]:
        """Codes [B, context + frames, K] and the waveform of the last `frames` [B, S]."""
        at = self.chance.integers(context, len(self.codes) - frames, batch * 3 // 2)
        at = at[np.argsort(self.loud[at])[-batch:]]
        codes = torch.stack([self.codes[i - context : i + frames] for i in at])
        waves = np.stack([self.samples[i * FRAME : (i + frames) * FRAME] for i in at])
        return codes, torch.from_numpy(waves.astype(np.float32) / 32767)


def build(s: Settings, fit: Codes) -> CodecDecoder:
    """A new decoder."""
    torch.manual_seed(s.seed)
    net = CodecDecoder(s)
    spread = fit.books[1].std(0)
    spread = spread.clamp_min(0.1 * float(fit.books[1].std()))
    net.start_from(spread, fit.mean.reshape(4, -1).mean(0))
    return net


def make(s: Settings) -> None:
    """Train until the time is used up."""
    folder, device = s.folder("decoder"), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch._dynamo.config.recompile_limit = 64
    Snake.compiled = s.compiled
    old = resume(folder / "state.pt")
    spent = 0.0 if old is None else float(old["seconds"])
    if spent >= s.decoder_seconds:
        return
    fit, clips, loss_of = Codes.load(s), Clips(s), SpectralLoss().to(device)
    low_band = LowBand().to(device)
    net = build(s, fit)
    net.to(device)
    optimiser = torch.optim.AdamW(net.parameters(), s.decoder_rate, betas=(0.8, 0.99), weight_decay=0.001)
    step = 0
    if old is not None:
        net.load_state_dict(old["net"])
        optimiser.load_state_dict(old["optimiser"])
        step = old["step"]
        clips.chance = np.random.default_rng(s.seed + step)
    progress = Progress("decoder", folder, spent)
    context, frames = s.decoder_context, s.decoder_frames
    seen: list[tuple[float, float, float, float]] = []
    saved = progress.seconds
    while (share := progress.seconds / s.decoder_seconds) < 1 or step < s.least_steps:
        share = min(1.0, share)
        rate = s.decoder_rate * min(1, (step + 1) / 100) * (0.04 + 0.48 * (1 + math.cos(math.pi * share)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        codes, target = clips.draw(s.decoder_batch, frames, context)
        semantic, acoustic = fit.books[0][codes[..., 0]], fit.chain(codes)
        mel = fit.mel(acoustic[:, context:]).reshape(len(codes), frames * 4, -1).to(device)
        states = net.states(semantic.to(device), acoustic.to(device))
        head = (net.mel(states[:, :, context * 4 :].transpose(1, 2)) - mel).abs().mean()
        wave = net.waveform(states[:, :, (context - 1) * 4 :])[:, FRAME:]
        spectral, mels = loss_of(wave, target.to(device))
        low = low_band(wave, target.to(device)) if s.decoder_low_band else spectral.detach() * 0
        (spectral + s.decoder_low_band * low + 0.2 * head).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        seen.append((spectral.item(), mels.item(), head.item(), low.item()))
        progress.bar(share, f"mel {seen[-1][1]:.3f}")
        if step % s.log_every == 0:
            loss, mel_loss, head_loss, low_loss = (float(v) for v in np.mean(seen[-s.log_every :], 0))
            progress.log(step=step, loss=loss, mel=mel_loss, head=head_loss, low=low_loss)
        if progress.seconds - saved > 120:
            _keep(folder, net, optimiser, step, progress.seconds)
            saved = progress.seconds
    loss, mel_loss, head_loss, low_loss = (float(v) for v in np.mean(seen[-s.log_every :], 0))
    progress.log(step=step, loss=loss, mel=mel_loss, head=head_loss, low=low_loss, done=1)
    _keep(folder, net, optimiser, step, progress.seconds)
    progress.close()


def _keep(folder, net, optimiser, step, seconds) -> None:
    save(
        folder / "state.pt",
        {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "seconds": seconds},
    )
