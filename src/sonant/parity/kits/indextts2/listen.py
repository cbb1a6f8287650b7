"""Checks of everything that listens: reference features and the GPT's conditioning."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sonant.audio.fbank import fbank
from sonant.audio.resample import resample_sinc
from sonant.families.indextts2 import emotion
from sonant.families.indextts2.reference import SEMANTIC_RATE
from sonant.families.indextts2.semantic_codec import SemanticCodec
from sonant.families.indextts2.w2v_bert import seamless_features
from sonant.families.indextts2.weights import load_w2v_bert
from sonant.parity.kits.driver import watched
from sonant.parity.kits.indextts2.folder import IndexKit
from sonant.request.audio import Audio


def check_references(kit: IndexKit) -> None:
    """Every fixture named after an audio file: a speaker, a long speaker, or an emotion clip."""
    for name in kit.files.names():
        if not kit.audio(name).is_file():
            continue
        tensors, clip = kit.tensors(name), Audio.read(kit.audio(name))
        with kit.report.section(name):
            if "emo_cond_emb" in tensors:
                group, found = "emotion_clip", _emotion_clip(kit, clip)
            elif "lengths" in tensors:
                group, found = "long_clip", _long_clip(kit, clip)
            else:
                hidden = [int(key[7:]) for key in tensors if re.fullmatch(r"hidden_\d+", key)]
                group, found = "speaker", _speaker(kit, clip, max(hidden, default=0))
            kit.compare(group, name, tensors, found, exact=partial(_in_float64, kit, found))


def _in_float64(kit: IndexKit, found: Mapping[str, Any]) -> dict[str, Any]:
    """Stages of w2v-bert, the filter banks and CAM++ in float64, from what they were given in float32."""
    encoder = kit.model.parts.reference
    waveform = "reference.emotion_16k" if "reference.emotion_16k" in found else "reference.audio_16k"
    features, whole = seamless_features(found[waveform][0])
    with torch.inference_mode(), watched() as seen:
        hidden = copy.deepcopy(encoder.w2v_bert).double()(features[None].double(), whole[None])
        if "reference.fbank" in found:
            copy.deepcopy(encoder.campplus).double()(found["reference.fbank"][0][None].double())
    banks = {}
    if "reference.fbank_raw" in found:
        raw = fbank(found["reference.audio_16k"][0].double())
        banks = {"reference.fbank_raw": raw, "reference.fbank": raw - raw.mean(dim=0, keepdim=True)}
    return {
        **seen,
        **banks,
        "reference.semantic": (hidden - encoder.mean.double()) / encoder.deviation.double(),
    }


def _speaker(kit: IndexKit, clip: Audio, deepest: int) -> dict[str, Any]:
    """Stages of a speaker's clip, hidden states up to the `deepest` among them."""
    encoder = kit.model.parts.reference
    with watched() as seen:
        encoder.speaker(clip)
    features, whole = seamless_features(seen["reference.audio_16k"][0])
    found: dict[str, Any] = {"attention_mask": whole[None].int(), **seen}
    if deepest > len(encoder.w2v_bert.layers):  # recorded although nothing reads it
        deeper, _ = load_w2v_bert(kit.layout.w2v_bert, device="cpu", layers=deepest)
        with watched() as seen:
            deeper(features[None], whole[None])
        found |= seen
    return found | _projection(kit, found["campplus.out"][0])


def _projection(kit: IndexKit, style: Tensor) -> dict[str, Any]:
    """IndexTTS-2.5: the speaker's only row in the GPT, from the style vector [1, S]."""
    if not kit.is_multilingual:
        return {}
    with torch.inference_mode():
        return {"spk_latent": kit.model.parts.gpt.speaker(torch.zeros(0), style)[None]}


def _long_clip(kit: IndexKit, clip: Audio) -> dict[str, Any]:
    with watched() as seen:
        kit.model.parts.reference.speaker(clip)
    axes = {"audio_22k": -1, "audio_16k": -1, "semantic": 1, "mel": -1, "fbank": 0}
    lengths = [seen[f"reference.{name}"][0].shape[axis] for name, axis in axes.items()]
    return {"lengths": torch.tensor(lengths), **seen, **_projection(kit, seen["campplus.out"][0])}


def _emotion_clip(kit: IndexKit, clip: Audio) -> dict[str, Any]:
    with watched() as seen:
        features = kit.model.parts.reference.emotion(clip)
    _, whole = seamless_features(seen["reference.emotion_16k"][0])
    return {**seen, "attention_mask": whole[None].int(), "emo_cond_emb": features}


def check_recorded_inputs(kit: IndexKit) -> None:
    """The listening networks again, each fed with what the original fed it."""
    for name in kit.files.names():
        with kit.report.section(f"{name} recorded"), torch.inference_mode():
            tensors = kit.tensors(name)
            kit.compare("recorded_inputs", f"{name} recorded", tensors, _fed(kit, tensors), is_partial=True)


def _fed(kit: IndexKit, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the networks make of the recorded inputs, as far as those are recorded with their outputs."""
    parts, held = kit.model.parts, tensors.keys()
    encoder, found = parts.reference, {}
    if {"audio_22k", "audio_16k"} <= held:
        found["audio_16k"] = resample_sinc(
            tensors["audio_22k"][0], parts.config.s2mel.sample_rate, SEMANTIC_RATE
        )
    if {"input_features", "attention_mask", "hidden_17"} <= held:
        mask = tensors["attention_mask"].bool()
        found["hidden_17"] = encoder.w2v_bert(tensors["input_features"], mask)
    if {"spk_cond_emb", "S_ref", "codec_codes"} <= held:
        assert isinstance(parts.codec, SemanticCodec)
        found["codec_codes"] = parts.codec.encode(tensors["spk_cond_emb"])
        found["S_ref"] = parts.codec.quantiser.embed(tensors["codec_codes"])
    if {"fbank", "style"} <= held:
        found["style"] = encoder.campplus(tensors["fbank"][None])
    content = "spk_cond_emb" if kit.is_multilingual else "S_ref"  # IndexTTS-2.5 takes the raw features
    if {content, "ref_mel", "prompt_condition"} <= held:
        found["prompt_condition"] = encoder.regulator(tensors[content], tensors["ref_mel"].shape[-1])
    return found


def check_conditioning(kit: IndexKit) -> None:
    """Conformers and perceivers stage by stage, and the emotion blends."""
    tensors, gpt = kit.tensors("gpt_cond"), kit.model.parts.gpt
    if not tensors:
        return
    for key in ("spk_latent", "spk_latent_b"):
        if key in tensors:
            made = _projection(kit, tensors[key.replace("spk_latent", "style")])
            kit.compare("speaker", f"gpt_cond {key}", {"spk_latent": tensors[key]}, made)
    with watched() as seen:
        if not kit.is_multilingual:
            gpt.speaker(tensors["spk_in"], torch.zeros(0))
        other = gpt.emotion_vector(tensors["emo_in"])[None]
    found: dict[str, Any] = dict(seen)
    with torch.inference_mode():
        own = gpt.emotion_vector(tensors["spk_in"])[None]
    for prefix, name in (("spk", "gpt.speaker.out"), ("emo", "gpt.emotion.out")):
        if name in seen:  # nothing is ever masked
            found[f"{prefix}_mask"] = torch.ones(1, 1, seen[name][0].shape[1], dtype=torch.uint8)
    found |= {"emovec_base": own, "emovec_emo": other}
    for key in tensors:
        if key.startswith("merge_"):
            found[key] = emotion.blend(own, other, float(key.removeprefix("merge_")))
    kit.compare("conditioning", "gpt_cond", tensors, found)
