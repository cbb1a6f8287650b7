"""Checks of the mel half and the vocoder, fed with the recorded inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sonant.families.indextts2.dit import ROPE_THETA, time_frequencies
from sonant.families.indextts2.s2mel import frames_of
from sonant.families.indextts2.semantic_codec import HalfRateCodec
from sonant.families.indextts2.vocoder import kaiser_sinc
from sonant.nn.rope import rope_table
from sonant.parity.kits.driver import watched
from sonant.parity.kits.indextts2.folder import IndexKit

GUIDANCE = 0.7  # of the recorded run. Source: the original's own


def numbers(tensors: Mapping[str, Tensor], pattern: str) -> dict[str, str]:
    """Keys that fit the pattern, with the number in its only group."""
    return {key: found[1] for key in tensors if (found := re.fullmatch(pattern, key))}


def check_regulator(kit: IndexKit) -> None:
    """The length regulator to every recorded length."""
    tensors, regulator = kit.tensors("length_regulator"), kit.model.parts.s2mel.length_regulator
    with torch.inference_mode():
        lengths = numbers(tensors, r"out_(\d+)")
        found = {key: regulator(tensors["in"], int(length)) for key, length in lengths.items()}
    kit.compare("length_regulator", "length_regulator", tensors, found)


def check_dit(kit: IndexKit) -> None:
    """One velocity with every recorded module output."""
    tensors, estimator = kit.tensors("dit"), kit.model.parts.s2mel.estimator
    if not tensors:
        return
    with watched() as seen:
        out = estimator(tensors["x"], tensors["prompt_x"], tensors["cond"], tensors["style"], tensors["t"])
    found: dict[str, Any] = {"t_freqs": time_frequencies()}
    for key, length in numbers(tensors, r"rope_table_first(\d+)").items():
        table = rope_table(torch.arange(int(length)), estimator.transformer.head_dim, ROPE_THETA)
        found[key] = torch.stack(table, dim=-1)
    compared = kit.compare("dit", "dit", tensors, {**found, **seen, "out": out})
    unknown = [key for key in tensors if key.startswith("act_") and key not in compared]
    kit.report.equal("dit", "recorded stages without a tap", unknown, [])


def check_s2mel(kit: IndexKit) -> None:
    """A whole mel from recorded codes, latents and noise, with the state of every step."""
    tensors, case = kit.tensors("s2mel"), "s2mel"
    if not tensors:
        return
    condition, found = (_of_codes if kit.is_multilingual else _of_latents)(kit, tensors)
    found["cat_condition"] = torch.cat((tensors["prompt_condition"], condition), dim=1)
    kit.compare("s2mel", case, tensors, found)
    made, seen = _generate(kit, tensors, len(tensors["step_x_in"]), GUIDANCE)
    for step, expected in enumerate(tensors["step_x_in"]):
        state = seen[f"s2mel.step.{step}.x"][0][0]
        kit.report.close(f"{case} step {step}", "x", state, expected, kit.limits["mel"])
        if (key := f"step{step}_estimator") in tensors:
            velocity = seen[f"s2mel.step.{step}.velocity"][0]
            kit.report.close(f"{case} step {step}", "velocity", velocity, tensors[key], kit.limits["dit"])
    mels = {"mel_all": made, "mel": made[..., tensors["ref_mel"].shape[-1] :]}
    for key in tensors:
        if other := re.fullmatch(r"mel_cfg([\dp]+)_steps(\d+)", key):
            mels[key], _ = _generate(kit, tensors, int(other[2]), float(other[1].replace("p", ".")))
    kit.compare("mel", case, tensors, mels)


def _of_latents(kit: IndexKit, tensors: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
    """IndexTTS2: condition of codes and latents, and its stages."""
    parts = kit.model.parts
    with watched() as seen:
        embedded = parts.codec.quantiser.embed(tensors["codes"])
        condition = parts.s2mel.condition(parts.s2mel.features(tensors["latent"], embedded))
    return condition, {**seen, "target_lengths": torch.tensor([frames_of(tensors["codes"].shape[1])])}


def _of_codes(kit: IndexKit, tensors: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
    """IndexTTS-2.5: condition of the features of codes, and of the recorded ones for every duration."""
    parts = kit.model.parts
    assert isinstance(parts.codec, HalfRateCodec)
    with torch.inference_mode():
        features = parts.codec.decode(tensors["codes"])
        found: dict[str, Any] = {"s2mel.features": features}
        for key, factor in numbers(tensors, r"cond_factor_([\d.]+)").items():
            found[key] = parts.s2mel.condition(tensors["S_infer"], float(factor))
            found[f"target_lengths_{factor}"] = torch.tensor([found[key].shape[1]])
        return parts.s2mel.condition(features), found


def check_codec(kit: IndexKit) -> None:
    """IndexTTS-2.5's codec: decoding with every stage, short inputs, and the encoder that nothing uses."""
    tensors, codec = kit.tensors("codec"), kit.model.parts.codec
    if not tensors:
        return
    assert isinstance(codec, HalfRateCodec)
    with watched() as seen:
        codec.decode(tensors["codes"])
    found: dict[str, Any] = dict(seen)
    with torch.inference_mode():
        for key, tail in numbers(tensors, r"S_infer(|_\w+)").items():
            found[key] = codec.decode(tensors[f"codes{tail}"])
    kit.compare("codec", "codec", tensors, found)
    for name in numbers(tensors, r"enc_(\w+)_in").values():
        found = _encoded(kit, tensors[f"enc_{name}_in"])
        kit.compare("codec_encoder", f"codec enc_{name}", tensors, found, prefix=f"enc_{name}_")


@torch.inference_mode()
def _encoded(kit: IndexKit, features: Tensor) -> dict[str, Any]:
    encoder = kit.codec_encoder
    down = encoder.down(features.mT)
    x = torch.nn.functional.gelu(down)
    for stage in encoder.encoder:
        x = stage(x)
    codes = encoder.quantiser.encode(x)
    return {"down": down, "out": x, "codes": codes, "quantized": encoder.quantiser.embed(codes)}


def _generate(
    kit: IndexKit, tensors: Mapping[str, Tensor], steps: int, guidance: float
) -> tuple[Tensor, Mapping[str, list[Tensor]]]:
    given = [tensors[key] for key in ("cat_condition", "ref_mel", "style", "noise")]
    with watched() as seen:
        made = kit.model.parts.s2mel.generate(*given, steps=steps, guidance=guidance)
    return made, seen


def check_bigvgan(kit: IndexKit) -> None:
    """Every recorded mel through the vocoder, with its recorded stages in order."""
    tensors = kit.tensors("bigvgan")
    if "filter" in tensors:
        kit.report.close("bigvgan", "filter", kaiser_sinc(), tensors["filter"], kit.limits["filter"])
    for stem in numbers(tensors, r"(\w+)_mel").values():
        case, prefix = f"bigvgan {stem}", f"{stem}_"
        with kit.report.section(case):
            with watched() as seen:
                kit.model.parts.vocoder(tensors[f"{prefix}mel"])
            compared = kit.compare("bigvgan", case, tensors, seen, prefix=prefix, title=f"{prefix}{{}}")
            left = {key for key in tensors if key.startswith(prefix)} - compared - {f"{prefix}mel"}
            kit.report.equal(case, "recorded stages without a tap", sorted(left), [])
