"""Every number of the recipe in one place: "full" (a shippable voice), "gpu", and "smoke" (a minute)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

SAMPLE_RATE = 24_000
FRAME = 1920
"""Samples of one codec frame: 80 ms."""
HOP = 240
"""Samples between two mel frames; eight of them make one codec frame."""
MELS = 80
TEACHER_SPEED = 0.9
"""Pace of the teacher. A little slower than its own: fewer sounds share one 80 ms frame."""
LEAD_FRAMES = 2
"""The text runs this many frames ahead of the sound, so that the talker hears what comes next."""
CUT_SAMPLES = 3600
"""Taken from the teacher's leading silence (at least 325 ms of it), to leave about LEAD_FRAMES."""
SLOT_MS = 40.0
"""Two slots make one frame; a slot holds one sound."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run. Folders below `work`: texts, speech, codes, decoder, encoder, pace, talker, model, judge."""

    work: Path
    seed: int = 20
    threads: int = 1
    log_every: int = 100
    least_steps: int = 0
    """Training stages take at least so many steps, whatever their time (for very slow machines)."""
    compiled: bool = True
    """Compile the codec's activation (three times as fast) and the talker (twice), after a minute or two."""
    texts: int = 42_000
    speech_shard: int = 300
    """Sentences in one file of speech: what a resumed run loses at most."""
    code_shards: int = 8
    """Shards of speech from which the codebooks are fitted."""
    groups: int = 8
    codebook: int = 512
    features: int = 128
    """Width of a codebook vector: principal components of a frame's 640 log-mel values."""
    latent: int = 256
    decoder_shards: int = 30
    """Shards of speech that the codec's networks are trained on: eight hours are plenty for them."""
    decoder_width: int = 128
    decoder_layers: int = 2
    decoder_window: int = 8
    decoder_batch: int = 8
    decoder_frames: int = 6
    decoder_context: int = 4
    decoder_seconds: float = 1800.0
    decoder_rate: float = 2e-3
    decoder_low_band: float = 0.0
    """Weight of the loss on unsteady first harmonics; the shipped checkpoint was trained without it."""
    encoder_seconds: float = 600.0
    encoder_filters: int = 12
    pace_steps: int = 1500
    text_width: int = 64
    talker_width: int = 256
    talker_layers: int = 4
    talker_heads: int = 4
    talker_kv_heads: int = 2
    talker_intermediate: int = 768
    predictor_width: int = 128
    predictor_layers: int = 2
    predictor_share: float = 0.34
    """Share of frames in each batch on which the code predictor is trained."""
    apart_shard: int = 0
    """This shard of speech is kept from the talker, for its curve."""
    talker_frames: int = 640
    """Frames of one batch, about."""
    talker_seconds: float = 3000.0
    talker_rate: float = 2e-3
    talker_noise: float = 0.2
    """Share of past frames whose codes are replaced in training, so that the text is listened to."""
    held_out: int = 100

    def folder(self, name: str) -> Path:
        """`work/name`, made if need be."""
        path = self.work / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def settings(work: Path, scale: str) -> Settings:
    """The settings of a scale: "full", "gpu" or "smoke"."""
    full = Settings(work=work)
    if scale == "full":
        return full
    if scale == "gpu":  # half an hour of one large GPU
        return replace(
            full,
            threads=8,
            latent=384,
            decoder_width=256,
            decoder_batch=48,
            decoder_frames=10,
            decoder_seconds=480.0,
            encoder_seconds=240.0,
            talker_width=384,
            talker_layers=6,
            talker_heads=6,
            talker_intermediate=1152,
            talker_frames=16_000,
            predictor_share=1.0,
            talker_seconds=480.0,
        )
    if scale == "smoke":
        return replace(
            full,
            texts=60,
            log_every=10,
            least_steps=30,
            compiled=False,
            speech_shard=20,
            code_shards=3,
            groups=4,
            codebook=32,
            features=24,
            latent=32,
            decoder_width=32,
            decoder_layers=1,
            decoder_batch=2,
            decoder_seconds=10.0,
            encoder_seconds=6.0,
            encoder_filters=4,
            pace_steps=60,
            text_width=16,
            talker_width=32,
            talker_layers=1,
            talker_heads=2,
            talker_kv_heads=1,
            talker_intermediate=64,
            predictor_width=16,
            predictor_layers=1,
            talker_frames=300,
            talker_seconds=10.0,
            held_out=1,
        )
    raise SystemExit(f"scale {scale!r} is not known; expected full, gpu or smoke")
