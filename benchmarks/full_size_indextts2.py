"""Speak with an IndexTTS2 checkpoint of the true sizes and random weights: load time, memory, stages.

    python benchmarks/full_size_indextts2.py /tmp/index-full --seconds 5

Writes the official layout (about 7 GB, kept for the next run) outside the repository, then speaks in a
fresh process on the CPU. Names and shapes are those of the official classes under the official config.
The text-to-emotion model is left out; sound is noise, since the weights are.
"""

import argparse
import gzip
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHAPES = Path(__file__).with_name("indextts2_shapes.json.gz")
TINY = ROOT / "tests" / "data" / "indextts2"  # a small piece model: 420 of the 12000 pieces
STOP = 8193

CONFIG = """
dataset: {bpe_model: bpe.model, sample_rate: 24000}
gpt:
  model_dim: 1280
  max_mel_tokens: 1815
  max_text_tokens: 600
  heads: 20
  use_mel_codes_as_input: true
  mel_length_compression: 1024
  layers: 24
  number_text_tokens: 12000
  number_mel_codes: 8194
  start_mel_token: 8192
  stop_mel_token: 8193
  start_text_token: 0
  stop_text_token: 1
  train_solo_embeddings: false
  condition_type: conformer_perceiver
  condition_module: {output_size: 512, linear_units: 2048, attention_heads: 8, num_blocks: 6,
    input_layer: conv2d2, perceiver_mult: 2}
  emo_condition_module: {output_size: 512, linear_units: 1024, attention_heads: 4, num_blocks: 4,
    input_layer: conv2d2, perceiver_mult: 2}
semantic_codec: {codebook_size: 8192, hidden_size: 1024, codebook_dim: 8, vocos_dim: 384,
  vocos_intermediate_dim: 2048, vocos_num_layers: 12}
s2mel:
  preprocess_params:
    sr: 22050
    spect_params: {n_fft: 1024, win_length: 1024, hop_length: 256, n_mels: 80, fmin: 0, fmax: "None"}
  style_encoder: {dim: 192}
  length_regulator: {channels: 512, is_discrete: false, in_channels: 1024, content_codebook_size: 2048,
    sampling_ratios: [1, 1, 1, 1], vector_quantize: false, f0_condition: false}
  DiT: {hidden_dim: 512, num_heads: 8, depth: 13, in_channels: 80, style_condition: true,
    final_layer_type: wavenet, content_dim: 512, is_causal: false, long_skip_connection: true,
    zero_prompt_speech_token: false, time_as_token: false, style_as_token: false,
    uvit_skip_connection: true}
  wavenet: {hidden_dim: 512, num_layers: 8, kernel_size: 5, dilation_rate: 1, style_condition: true}
gpt_checkpoint: gpt.pth
w2v_stat: wav2vec2bert_stats.pt
s2mel_checkpoint: s2mel.pth
emo_matrix: feat2.pt
spk_matrix: feat1.pt
emo_num: [3, 17, 2, 8, 4, 5, 10, 24]
qwen_emo_path: qwen0.6bemo4-merge/
vocoder: {type: bigvgan, name: nvidia/bigvgan_v2_22khz_80band_256x}
version: 2.0
"""
W2V = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
BIGVGAN = {"upsample_initial_channel": 1536}


def random_tensor(name, shape, block):
    """A tensor that keeps activations near 1, copied out of one random block."""
    import torch

    if name.endswith("num_batches_tracked") or name.endswith("input_pos"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith(("running_var", "weight_g", "var", "gamma")) or ("norm" in name and "bias" not in name):
        return torch.ones(shape)
    if len(shape) == 1 or name.endswith("running_mean"):
        return torch.zeros(shape)
    count = math.prod(shape)
    values = block.repeat(-(-count // block.numel()))[:count].view(shape)
    return values / math.sqrt(math.prod(shape[1:]))


def write(folder):
    """The checkpoint, file by file."""
    import torch
    from safetensors.torch import save_file

    shapes = json.loads(gzip.decompress(SHAPES.read_bytes()))
    block = torch.randn((1 << 22) + 7, generator=torch.Generator().manual_seed(0))
    cache = folder / "hf_cache"
    for name, sizes in (("w2v-bert-2.0", W2V), ("bigvgan", BIGVGAN)):
        (cache / name).mkdir(parents=True, exist_ok=True)
        config = json.loads((TINY / f"{name}.json").read_text()) | sizes
        (cache / name / "config.json").write_text(json.dumps(config))
    (folder / "config.yaml").write_text(CONFIG)
    shutil.copy(TINY / "bpe.model", folder)
    torch.save(torch.randn(73, 192), folder / "feat1.pt")
    torch.save(torch.randn(73, 1280), folder / "feat2.pt")
    for name, listed in shapes.items():
        tensors = {key: random_tensor(key, shape, block) for key, shape in listed.items()}
        if name == "gpt.pth":
            tensors["mel_head.bias"][STOP] = -1e4  # the length is decided by the benchmark
        if name.endswith(".safetensors"):
            save_file(tensors, folder / name)
        elif name == "s2mel.pth":
            parts = {}
            for key, tensor in tensors.items():
                part, rest = key.split(".", 1)
                parts.setdefault(part, {})[rest] = tensor
            torch.save({"net": parts}, folder / name)
        else:
            torch.save({"generator": tensors} if "bigvgan" in name else tensors, folder / name)
        print(f"wrote {name}: {len(tensors)} tensors, {(folder / name).stat().st_size / 1e9:.2f} GB")


def speak(folder, seconds, beams, dtype):
    """Load, encode a clip, speak; prints what each took."""
    import numpy as np
    import torch

    from sonant import SpeechRequest
    from sonant.engine import Engine
    from sonant.families import indextts2
    from sonant.speech import Audio, Sampling

    began = time.perf_counter()
    model = indextts2.load(folder, device=torch.device("cpu"), dtype=getattr(torch, dtype))
    print(f"load                {time.perf_counter() - began:8.2f} s")
    print(f"resident after load {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:8.2f} GB")
    rng = np.random.default_rng(0)
    clip = Audio((0.1 * rng.standard_normal(22_050 * 6)).astype(np.float32), 22_050)
    with Engine(model, slots=beams) as engine:
        began = time.perf_counter()
        voice = engine.clone(clip)
        print(f"encode a 6 s clip   {time.perf_counter() - began:8.2f} s")
        codes = round(seconds * model.spec.frame_rate)
        text = "One two three, this sentence is spoken by random weights and says nothing at all."
        sampling = Sampling(max_frames=codes, beams=beams)
        speech = engine.synthesize(SpeechRequest(text, voice=voice, seed=1, sampling=sampling))
    print(f"spoken              {speech.seconds:8.2f} s of sound, {codes} codes, {beams} beams, {dtype}")
    for stage, spent in speech.timings.items():
        print(f"  {stage:<18}{spent:8.2f}")
    total = speech.timings["total"]
    print(f"processor seconds   {time.process_time():8.2f} in all, on a shared machine the steadier number")
    print(f"real-time factor    {total / speech.seconds:8.2f}")
    print(f"peak resident       {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:8.2f} GB")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the checkpoint is kept, outside the repository")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--stage", choices=["write", "speak"], help="one stage only, in this process")
    given = parser.parse_args()
    if given.folder.resolve().is_relative_to(ROOT):
        parser.error("the folder must lie outside the repository")
    if given.stage == "write":
        write(given.folder)
    elif given.stage == "speak":
        speak(given.folder, given.seconds, given.beams, given.dtype)
    else:
        stages = ["speak"] if (given.folder / "s2mel.pth").exists() else ["write", "speak"]
        for stage in stages:
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--stage", stage], check=True)


if __name__ == "__main__":
    main()
