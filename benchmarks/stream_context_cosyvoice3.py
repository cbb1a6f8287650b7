"""What a bounded context costs CosyVoice3's streams: difference from the whole, work and memory.

    python benchmarks/stream_context_cosyvoice3.py CHECKPOINT [--seconds 40] [--steps 10]

The whole is solved at once under the streaming mask. Random tokens stand for speech, so the difference is
that of the weights at hand, not of real utterances; seconds are processor time on one thread.
"""

import argparse
from pathlib import Path

import torch

from sonant.families import cosyvoice3
from sonant.families.cosyvoice3.noise import SeededNoise
from sonant.families.cosyvoice3.stream import DecodeOptions, FlowVoice, SpeechDecoder
from sonant.nn.tap import tapped

EVERYTHING = 10**6


def stream(model, voice, tokens, **options):
    """Mel [M, T] of a stream, the frames that the flow worked on, seconds, bytes kept."""
    decoder = SpeechDecoder(
        model.config,
        model.flow,
        model.vocoder,
        voice,
        SeededNoise(model.config, 1),
        DecodeOptions(**options),
        streaming=True,
    )
    mels, frames = [], 0

    def sink(name, tensor):
        nonlocal frames
        if name.endswith("vocoder.mel"):
            mels.append(tensor.clone())
        elif name.endswith("flow.step.0.x"):
            frames += tensor.shape[-1]

    with torch.inference_mode(), tapped(sink):
        decoder.push(tokens[:, None])
        kept = 0 if decoder._past is None else decoder._past.size.bytes(decoder._past.dtype.itemsize)
        decoder.finish()
    return torch.cat(mels, dim=1), frames, decoder.timings["flow"], kept


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--prompt-seconds", type=float, default=5.0)
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = cosyvoice3.load(arguments.checkpoint, device=torch.device("cpu"), dtype=torch.float32)
    rng = torch.Generator().manual_seed(0)
    config = model.config
    rate, ratio = config.token_rate, config.flow.frames_per_token
    prompt, count = int(arguments.prompt_seconds * rate), int(arguments.seconds * rate)
    voice = FlowVoice(
        tokens=torch.randint(0, config.flow.speech_tokens, (prompt,), generator=rng),
        mel=torch.randn(prompt * ratio, config.flow.mel_bins, generator=rng) * 2 - 4,
        speaker=torch.randn(config.flow.speaker_dim, generator=rng),
    )
    tokens = torch.randint(0, config.flow.speech_tokens, (count,), generator=rng)
    whole, *_ = stream(model, voice, tokens, context_tokens=EVERYTHING, memory=0, steps=arguments.steps)
    print(f"torch {torch.__version__}, {arguments.seconds:g} s, prompt {arguments.prompt_seconds:g} s")
    print(f"{'context':>8} {'':>14} {'mel rms apart':>14} {'frames a frame':>15} {'seconds':>8} {'MiB':>7}")
    for context in (25, 50, 100, 200, 400):
        for title, memory in (("kept", 1 << 40), ("solved again", 0)):
            mel, frames, seconds, kept = stream(
                model, voice, tokens, context_tokens=context, memory=memory, steps=arguments.steps
            )
            apart = float((mel - whole).pow(2).mean().sqrt() / whole.std()) * 100
            print(
                f"{context:>8} {title:>14} {apart:>13.2f}% {frames / mel.shape[1]:>15.2f} "
                f"{seconds:>8.1f} {kept / 2**20:>7.0f}"
            )


if __name__ == "__main__":
    main()
