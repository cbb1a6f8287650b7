"""CosyVoice3 at its true size with random weights: load time, peak memory, milliseconds for each stage.

    python benchmarks/full_size_cosyvoice3.py [FOLDER] [--seconds 5] [--threads 1] [--dtype float32]

FOLDER receives a checkpoint in the official layout (3.5 GB) unless it holds one already; the two ONNX
encoders are the small stand-ins of the tests. The noise it speaks says nothing about quality.
"""

import argparse
import json
import re
import resource
import shutil
import tempfile
import time
from pathlib import Path

import torch

from sonant.checkpoint import build
from sonant.engine import Engine
from sonant.families import cosyvoice3
from sonant.families.cosyvoice3.config import SILENT_TOKENS, read_config
from sonant.families.cosyvoice3.flow import Flow
from sonant.families.cosyvoice3.lm import LanguageModel
from sonant.families.cosyvoice3.vocoder import Vocoder
from sonant.speech import Audio, Sampling, SpeechRequest

TINY = Path(__file__).parents[1] / "tests" / "data" / "cosyvoice3"
# Official sizes: Fun-CosyVoice3-0.5B's yaml and Qwen2-0.5B's config.
YAML_SIZES = (
    (r"(llm_(?:in|out)put_size): 64", r"\1: 896"),
    (r"(speech_token_size|vocab_size): 729", r"\1: 6561"),
    (r"channels: 96", "channels: 1024"),
    (r"dim: 64\b", "dim: 1024"),
    (r"depth: 3\b", "depth: 22"),
    (r"\bheads: 4\b", "heads: 16"),
    (r"dim_head: 16", "dim_head: 64"),
    (r"base_channels: 48", "base_channels: 512"),
    (r"cond_channels: 32", "cond_channels: 512"),
)
QWEN_SIZES = {
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151_936,
}
PIECES = 151_643  # Qwen2's vocabulary without its markers
SCALE = 0.02
LANGUAGE_NAMES = (
    (r"^text_embedding\.", "llm.model.model.embed_tokens."),
    (r"^decoder\.", "llm.model.model."),
    (r"^head\.", "llm_decoder."),
)


def write_checkpoint(folder):
    """An official-layout folder of random weights."""
    qwen = folder / "CosyVoice-BlankEN"
    qwen.mkdir(parents=True, exist_ok=True)
    text = (TINY / "checkpoint" / "cosyvoice3.yaml").read_text(encoding="utf-8")
    for pattern, replacement in YAML_SIZES:
        text, count = re.subn(pattern, replacement, text)
        assert count, pattern
    (folder / "cosyvoice3.yaml").write_text(text, encoding="utf-8")
    for name in ("campplus.onnx", "speech_tokenizer_v3.onnx"):
        shutil.copyfile(TINY / "checkpoint" / name, folder / name)
    tiny = TINY / "checkpoint" / "CosyVoice-BlankEN"
    config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    (qwen / "config.json").write_text(json.dumps({**config, **QWEN_SIZES}))
    pieces = json.loads((tiny / "vocab.json").read_text(encoding="utf-8"))
    single = [piece for piece in pieces if len(piece) == 1]
    names = single + [f"unused{number}" for number in range(PIECES - len(single))]
    (qwen / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    (qwen / "merges.txt").write_text("#version: 0.2\n")
    markers = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    added = {str(PIECES + n): {"content": marker, "special": True} for n, marker in enumerate(markers)}
    (qwen / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    sizes = read_config(folder)
    rng = torch.Generator().manual_seed(0)
    for name, network, rules in (
        ("llm", build(lambda: LanguageModel(sizes.language)), LANGUAGE_NAMES),
        ("flow", build(lambda: Flow(sizes.flow)), ()),
        ("hift", build(lambda: Vocoder(sizes.vocoder)), ()),
    ):
        tensors = {}
        for key, tensor in network.state_dict().items():
            for pattern, replacement in rules:
                key = re.sub(pattern, replacement, key)
            tensors[key] = random_like(key, tensor, rng)
        if name == "llm":
            # Without a score, silences and the ids that end an utterance are never among the best.
            tensors["llm_decoder.weight"][sizes.language.speech_tokens :] = 0
            tensors["llm_decoder.weight"][sorted(SILENT_TOKENS)] = 0
        torch.save(tensors, folder / f"{name}.pt")


def random_like(key, tensor, rng):
    """Small random values; ones where a network expects a gain, real frequencies for the rotation."""
    if key.endswith("inv_freq"):
        exponent = torch.arange(0, 2 * len(tensor), 2).float() / (2 * len(tensor))
        return 1.0 / (10_000**exponent)
    if key.endswith("alpha") or ("norm" in key and tensor.ndim == 1 and key.endswith("weight")):
        return torch.ones(tensor.shape)
    return torch.randn(tensor.shape, generator=rng) * SCALE


def peak_gigabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "hift.pt").is_file():
            began = time.perf_counter()
            write_checkpoint(folder)
            print(f"checkpoint written in {time.perf_counter() - began:.1f} s")
            print("memory below includes what writing it took; give FOLDER and run again to measure alone")
        speak(folder, arguments)


def speak(folder, arguments):
    began = time.perf_counter()
    model = cosyvoice3.load(folder, device=torch.device("cpu"), dtype=getattr(torch, arguments.dtype))
    print(f"load        {time.perf_counter() - began:8.2f} s, peak memory {peak_gigabytes():.2f} GB")
    parts = {"LM": model.language, "flow": model.flow, "vocoder": model.vocoder}
    counts = ", ".join(
        f"{name} {sum(p.numel() for p in m.parameters()) / 1e6:.0f}M" for name, m in parts.items()
    )
    print(f"parameters  {counts}; torch {torch.__version__}, {arguments.threads} threads, {arguments.dtype}")
    voice = model.encode_voice(Audio.read(TINY / "prompt_24k.wav"), "A small boat crosses the quiet lake.")
    # Greedy, because random weights draw an end at any time; the work of a step is the same.
    sampling = Sampling(greedy=True, max_frames=round(arguments.seconds * model.config.token_rate))
    text = "This is a sentence that is long enough for several seconds of random speech to be made from it."
    request = SpeechRequest(text, voice=voice, seed=1, sampling=sampling)
    before = time.process_time()
    with Engine(model, slots=1) as engine:
        speech = engine.synthesize(request)
    processor = time.process_time() - before
    t, audio = speech.timings, speech.seconds
    print(f"spoken      {audio:8.2f} s of audio in {t['total']:.2f} s ({t['total'] / audio:.2f} s a second)")
    print(f"processor   {processor:8.2f} s, that is {processor / audio:.2f} s for a second of audio")
    print(f"prefill     {1e3 * t['prefill']:8.0f} ms")
    print(f"LM          {1e3 * t['generate'] / audio:8.0f} ms for a second of audio, "
          f"{1e3 * t['generate'] / t['frames']:.1f} ms a token")  # fmt: skip
    for stage in ("flow", "vocoder"):
        print(f"{stage:<11} {1e3 * t[stage] / audio:8.0f} ms for a second of audio")
    print(f"peak memory {peak_gigabytes():8.2f} GB")


if __name__ == "__main__":
    main()
