"""What a bounded context costs CosyVoice3's streams: difference from the original's whole prefix, and work.

    python benchmarks/stream_context_cosyvoice3.py CHECKPOINT [--seconds 40]

Random tokens stand for speech, so the difference is that of the weights at hand, not of real utterances.
"""

import argparse
import time
from pathlib import Path

import torch

from sonant.families import cosyvoice3
from sonant.families.cosyvoice3.noise import SeededNoise
from sonant.families.cosyvoice3.stream import DecodeOptions, Reference, SpeechDecoder


def stream(model, voice, tokens, context):
    """Mel [M, T] of the whole stream, frames the flow worked on, and seconds."""
    decoder = SpeechDecoder(
        model.config,
        model.flow,
        model.vocoder,
        voice,
        SeededNoise(model.config, 1),
        DecodeOptions(context_tokens=context),
        streaming=True,
    )
    mels, frames = [], 0
    solve, vocode = model.flow.solve, decoder._samples.push

    def counted(inputs, *args, **kwargs):
        nonlocal frames
        frames += inputs.mu.shape[-1]
        return solve(inputs, *args, **kwargs)

    def kept(mel, **kwargs):
        mels.append(mel)
        return vocode(mel, **kwargs)

    model.flow.solve, decoder._samples.push = counted, kept
    began = time.perf_counter()
    try:
        with torch.inference_mode():
            decoder.push(tokens[:, None])
            decoder.finish()
    finally:
        model.flow.solve = solve
    return torch.cat(mels, dim=1), frames, time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--prompt-seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    model = cosyvoice3.load(arguments.checkpoint, device=torch.device("cpu"), dtype=torch.float32)
    rng = torch.Generator().manual_seed(0)
    config = model.config
    rate, ratio = config.token_rate, config.flow.frames_per_token
    prompt, count = int(arguments.prompt_seconds * rate), int(arguments.seconds * rate)
    voice = Reference(
        tokens=torch.randint(0, config.flow.speech_tokens, (prompt,), generator=rng),
        mel=torch.randn(prompt * ratio, config.flow.mel_bins, generator=rng) * 2 - 4,
        speaker=torch.randn(config.flow.speaker_dim, generator=rng),
    )
    tokens = torch.randint(0, config.flow.speech_tokens, (count,), generator=rng)
    whole, frames, seconds = stream(model, voice, tokens, None)
    print(
        f"torch {torch.__version__}, {arguments.seconds:g} s of speech, prompt {arguments.prompt_seconds:g} s"
    )
    print(f"{'context':>10} {'mel rms difference':>20} {'frames per spoken frame':>25} {'seconds':>9}")
    print(f"{'all':>10} {0:>19.2f}% {frames / whole.shape[1]:>25.2f} {seconds:>9.1f}")
    for context in (25, 50, 100, 200, 400):
        mel, frames, seconds = stream(model, voice, tokens, context)
        difference = float((mel - whole).pow(2).mean().sqrt() / whole.std()) * 100
        print(f"{context:>10} {difference:>19.2f}% {frames / mel.shape[1]:>25.2f} {seconds:>9.1f}")


if __name__ == "__main__":
    main()
