"""Checks of the mel half and the vocoder, fed with the recorded inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sonant.families.indextts2.dit import ROPE_THETA, time_frequencies
from sonant.families.indextts2.s2mel import frames_of
from sonant.families.indextts2.semantic_codec import HalfRateCodec
from sonant.families.indextts2.vocoder import kaiser_sinc
from sonant.nn.rope import rope_table
from sonant.parity.kit import KitReport
from sonant.parity.kits.indextts2.folder import TOLERANCES, Kit, recorded

T = TOLERANCES
GUIDANCE = 0.7  # of the recorded run. Source: the original's own


def check_regulator(kit: Kit, report: KitReport) -> None:
    """The length regulator to every recorded length."""
    tensors = kit.tensors("length_regulator")
    for key in tensors:
        if found := re.match(r"out_(\d+)$", key):
            expected = tensors[key]
            with torch.inference_mode():
                made = kit.model.parts.s2mel.length_regulator(tensors["in"], int(found[1]))
            report.close("length_regulator", key, made, expected, T["prompt_condition"])


def _dit_stage(name: str) -> str | None:
    fixed = {
        "cond_projection": "condition",
        "cond_x_merge_linear": "merged",
        "conv1": "conv1",
        "conv2": "out",
        "final_layer": "final",
        "res_projection": "residual",
        "skip_linear": "skip",
        "t_embedder": "t",
        "t_embedder2": "t2",
        "transformer": "transformer",
        "wavenet": "wavenet",
        "wavenet_cond": "wavenet.condition",
    }
    if name in fixed:
        return fixed[name]
    if found := re.match(r"layer(\d+)(?:_(\w+))?$", name):
        part = {None: "out", "skip_in_linear": "skip"}.get(found[2], found[2])
        return f"layer.{found[1]}.{part}"
    if found := re.match(r"wavenet_(in|res_skip)(\d+)$", name):
        return f"wavenet.{found[2]}.{found[1]}"
    return None


def check_dit(kit: Kit, report: KitReport) -> None:
    """One velocity with every recorded module output."""
    tensors = kit.tensors("dit")
    if not tensors:
        return
    estimator = kit.model.parts.s2mel.estimator
    with torch.inference_mode(), recorded() as seen:
        out = estimator(tensors["x"], tensors["prompt_x"], tensors["cond"], tensors["style"], tensors["t"])
    if "t_freqs" in tensors:
        report.close("dit", "t_freqs", time_frequencies(), tensors["t_freqs"], 1e-6)
    for key in tensors:
        if found := re.match(r"rope_table_first(\d+)$", key):
            expected = tensors[key]
            table = rope_table(torch.arange(int(found[1])), estimator.transformer.head_dim, ROPE_THETA)
            report.close("dit", key, torch.stack(table, dim=-1), expected, 1e-6)
    for stage in seen:  # in order of computation
        for key in tensors:
            if key.startswith("act_") and f"dit.{_dit_stage(key[4:])}" == stage:
                found_tensor = seen[stage][0]
                report.close("dit", key, found_tensor, tensors[key], T["dit"])
    unknown = [key for key in tensors if key.startswith("act_") and f"dit.{_dit_stage(key[4:])}" not in seen]
    report.equal("dit", "recorded stages without a tap", unknown, [])
    report.close("dit", "out", out, tensors["out"], T["dit"])


def check_s2mel(kit: Kit, report: KitReport) -> None:
    """A whole mel from recorded codes, latents and noise, with the state of every step."""
    tensors = kit.tensors("s2mel")
    if not tensors:
        return
    case = "s2mel"
    check = _check_decoded if kit.is_multilingual else _check_latents
    condition = check(kit, report, tensors)
    joined = torch.cat((tensors["prompt_condition"], condition), dim=1)
    report.close(case, "cat_condition", joined, tensors["cat_condition"], T["prompt_condition"])
    made, seen = _generate(kit, tensors, len(tensors["step_x_in"]), GUIDANCE)
    for step, expected in enumerate(tensors["step_x_in"]):
        found = seen[f"s2mel.step.{step}.x"][0][0]
        report.close(f"{case} step {step}", "x", found, expected, T["mel"])
        if f"step{step}_estimator" in tensors:
            velocity = seen[f"s2mel.step.{step}.velocity"][0]
            key = f"step{step}_estimator"
            report.close(f"{case} step {step}", "velocity", velocity, tensors[key], T["dit"])
    report.close(case, "mel_all", made, tensors["mel_all"], T["mel"])
    prompt = tensors["ref_mel"].shape[-1]
    report.close(case, "mel", made[..., prompt:], tensors["mel"], T["mel"])
    for key in tensors:
        if found_key := re.match(r"mel_cfg([\dp]+)_steps(\d+)$", key):
            guidance = float(found_key[1].replace("p", "."))
            other, _ = _generate(kit, tensors, int(found_key[2]), guidance)
            report.close(case, key, other, tensors[key], T["mel"])


def _check_latents(kit: Kit, report: KitReport, tensors: Mapping[str, Tensor]) -> Tensor:
    """IndexTTS2: condition of codes and latents."""
    parts = kit.model.parts
    with torch.inference_mode(), recorded() as seen:
        embedded = parts.codec.quantiser.embed(tensors["codes"])
        condition = parts.s2mel.condition(parts.s2mel.features(tensors["latent"], embedded))
    for key, stage, tolerance in (
        ("gpt_layer_out", "s2mel.gpt_layer", T["latent"]),
        ("vq2emb", "s2mel.vq2emb", T["S_ref"]),
        ("S_infer", "s2mel.features", T["latent"]),
        ("cond", "s2mel.condition", T["prompt_condition"]),
    ):
        report.close("s2mel", key, seen[stage][0], tensors[key], tolerance)
    frames = frames_of(tensors["codes"].shape[1])
    report.equal("s2mel", "target_lengths", torch.tensor([frames]), tensors["target_lengths"])
    return condition


def _check_decoded(kit: Kit, report: KitReport, tensors: Mapping[str, Tensor]) -> Tensor:
    """IndexTTS-2.5: features of codes, and their condition for every recorded duration."""
    parts = kit.model.parts
    assert isinstance(parts.codec, HalfRateCodec)
    with torch.inference_mode():
        features = parts.codec.decode(tensors["codes"])
        report.close("s2mel", "S_infer", features, tensors["S_infer"], T["S_infer"])
        for key in tensors:
            if not (found := re.match(r"cond_factor_([\d.]+)$", key)):
                continue
            expected, length = tensors[key], tensors[f"target_lengths_{found[1]}"]
            made = parts.s2mel.condition(tensors["S_infer"], float(found[1]))
            report.equal("s2mel", f"target_lengths_{found[1]}", torch.tensor([made.shape[1]]), length)
            report.close("s2mel", key, made, expected, T["prompt_condition"])
        return parts.s2mel.condition(features)


CODEC_STAGES: tuple[tuple[str, str], ...] = (
    ("vq2emb", "codec.out"),
    ("dec_embed", "codec.decoder.embed"),
    ("dec_norm", "codec.decoder.norm"),
    ("dec_final_norm", "codec.decoder.final_norm"),
    ("dec_linear", "codec.decoder"),
    ("up_in", "codec.repeated"),
    ("up_out", "codec.up"),
)


def check_codec(kit: Kit, report: KitReport) -> None:
    """IndexTTS-2.5's codec: decoding with every stage, short inputs, and the encoder that nothing uses."""
    tensors = kit.tensors("codec")
    if not tensors:
        return
    codec = kit.model.parts.codec
    assert isinstance(codec, HalfRateCodec)
    with torch.inference_mode(), recorded() as seen:
        codec.decode(tensors["codes"])
    stages = dict(CODEC_STAGES)
    for key in tensors:
        if found := re.match(r"dec_block(\d+)(?:_(\w+))?$", key):
            stages[key] = f"codec.decoder.block.{found[1]}.{found[2] or 'out'}"
    for key, stage in stages.items():
        # its channels-first stages are recorded so; one of ours is not
        made = seen[stage][0]
        expected = tensors[key]
        report.close("codec", key, made if made.shape == expected.shape else made.mT, expected, T["S_infer"])
    for key in tensors:
        if found := re.match(r"S_infer(?:_(\w+))?$", key):
            with torch.inference_mode():
                made = codec.decode(tensors["codes" if found[1] is None else f"codes_{found[1]}"])
            report.close("codec", key, made, tensors[key], T["S_infer"])
        if found := re.match(r"enc_(\w+)_in$", key):
            _check_encoder(kit, report, tensors, found[1])


def _check_encoder(kit: Kit, report: KitReport, tensors: Mapping[str, Tensor], name: str) -> None:
    case = f"codec enc_{name}"
    encoder = kit.codec_encoder
    with torch.inference_mode():
        down = encoder.down(tensors[f"enc_{name}_in"].mT)
        report.close(case, "down", down, tensors[f"enc_{name}_down"], T["S_infer"])
        x = torch.nn.functional.gelu(down)
        for stage in encoder.encoder:
            x = stage(x)
        report.close(case, "out", x, tensors[f"enc_{name}_out"], T["S_infer"])
        codes = encoder.quantiser.encode(x)
        report.equal(case, "codes", codes, tensors[f"enc_{name}_codes"])
        quantised = encoder.quantiser.embed(codes)
        report.close(case, "quantized", quantised, tensors[f"enc_{name}_quantized"], T["S_infer"])


def _generate(
    kit: Kit, tensors: Mapping[str, Tensor], steps: int, guidance: float
) -> tuple[Tensor, dict[str, list[Tensor]]]:
    with torch.inference_mode(), recorded() as seen:
        made = kit.model.parts.s2mel.generate(
            tensors["cat_condition"],
            tensors["ref_mel"],
            tensors["style"],
            tensors["noise"],
            steps=steps,
            guidance=guidance,
        )
    return made, seen


def _bigvgan_stage(name: str) -> str | None:
    fixed = {
        "activation_post": "activation_post.out",
        "conv_post": "conv_post",
        "conv_pre": "conv_pre",
        "wav": "out",
    }
    if name in fixed:
        return fixed[name]
    if found := re.match(r"act0_(in|up|snake|out)$", name):
        return f"stage.0.block.0.activation.0.{found[1]}"
    if found := re.match(r"stage(\d+)(?:_block(\d+))?$", name):
        return f"stage.{found[1]}" + (f".block.{found[2]}" if found[2] else "")
    if found := re.match(r"up(\d+)$", name):
        return f"up.{found[1]}"
    return None


def check_bigvgan(kit: Kit, report: KitReport) -> None:
    """Every recorded mel through the vocoder, with its recorded stages in order."""
    tensors = kit.tensors("bigvgan")
    if "filter" in tensors:
        report.close("bigvgan", "filter", kaiser_sinc(), tensors["filter"], 1e-7)
    for key in [name for name in tensors if name.endswith("_mel")]:
        stem = key.removesuffix("_mel")
        case = f"bigvgan {stem}"
        with report.section(case):
            with torch.inference_mode(), recorded() as seen:
                kit.model.parts.vocoder(tensors[key])
            wanted = {
                f"bigvgan.{_bigvgan_stage(name.removeprefix(stem + '_'))}": name
                for name in tensors
                if name.startswith(f"{stem}_") and name != key
            }
            for stage, found in seen.items():
                if stage in wanted:
                    name = wanted.pop(stage)
                    # inside, values are about as large as 60; only the waveform is in -1..1
                    scale = max(1.0, float(tensors[name].abs().max()))
                    report.close(case, name, found[0] / scale, tensors[name] / scale, T["wav"])
            report.equal(case, "recorded stages without a tap", sorted(wanted.values()), [])
