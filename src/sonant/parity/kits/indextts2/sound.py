"""Checks of the mel half and the vocoder, fed with the recorded inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sonant.families.indextts2.dit import ROPE_THETA, time_frequencies
from sonant.families.indextts2.s2mel import FRAMES_PER_CODE
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
    parts, case = kit.model.parts, "s2mel"
    with torch.inference_mode(), recorded() as seen:
        condition = parts.s2mel.condition(tensors["latent"], parts.codec.embed(tensors["codes"]))
    for key, stage, tolerance in (
        ("gpt_layer_out", "s2mel.gpt_layer", T["latent"]),
        ("vq2emb", "s2mel.vq2emb", T["S_ref"]),
        ("S_infer", "s2mel.features", T["latent"]),
        ("cond", "s2mel.condition", T["prompt_condition"]),
    ):
        report.close(case, key, seen[stage][0], tensors[key], tolerance)
    frames = int(tensors["codes"].shape[1] * FRAMES_PER_CODE)
    report.equal(case, "target_lengths", torch.tensor([frames]), tensors["target_lengths"])
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
