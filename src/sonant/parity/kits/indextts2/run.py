"""A kit of IndexTTS2 or IndexTTS-2.5 from end to end, stage by stage in order of computation."""

from __future__ import annotations

import json
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sonant.families.indextts2.config import CONFIG_NAME, describes_index
from sonant.families.indextts2.speaker_rows import ResampledSpeaker
from sonant.families.indextts2.text import TextFrontEnd
from sonant.parity.kit import KitReport, Recorded
from sonant.parity.kits.indextts2 import front, listen, multilingual, sound, speak, whole
from sonant.parity.kits.indextts2.folder import IndexKit


def _check_text(kit: IndexKit) -> None:
    check = multilingual.check_text if kit.is_multilingual else front.check_text
    check(kit)


def _check_sizes(kit: IndexKit) -> None:
    """Sizes that the kit states, as they are read from config and tensors."""
    path = kit.folder / "index.json"
    if not path.is_file():
        return
    index, report = json.loads(path.read_text(encoding="utf-8")), kit.report
    sizes, parts = index.get("sizes", {}), kit.model.parts
    found: dict[str, Any] = {name: attrgetter(path)(parts) for name, path in kit.data["sizes"].items()}
    found |= {"H": found["H"].shape[0], "emo_num": list(found["emo_num"])}
    if isinstance(parts.text, TextFrontEnd):
        found["vocab"] = parts.text.vocabulary_size
    if isinstance(parts.gpt.speaker, ResampledSpeaker):
        found["cond_latents"] = parts.gpt.speaker.conditioner.perceiver.latents.shape[0]
    if parts.s2mel.gpt_layer is not None:
        found["gpt_layer"] = [
            layer.out_features for layer in parts.s2mel.gpt_layer if isinstance(layer, nn.Linear)
        ][:-1]
    for name, value in found.items():
        if name in sizes:
            report.equal("sizes", name, value, sizes[name])
    for name, tensors in index.get("tensors", {}).items():
        held = kit.tensors(name)
        shapes = held.shapes() if isinstance(held, Recorded) else {}
        report.equal("index", name, shapes, {key: shape for key, (_, shape) in tensors.items()})


def _check_noise(kit: IndexKit) -> None:
    """The largest values that the kit's table of tolerances is based on, from the recorded tensors."""
    table, report = kit.json("noise"), kit.report
    if not table:
        return
    places: dict[str, str] = kit.data["noise"]
    for quantity, record in table.items():
        if quantity == "codec codes mismatches":
            report.equal("noise", quantity, record, 0)
            continue
        report.check(
            "noise",
            f"{quantity} is far below its largest value",
            record["max_abs"] < 1e-3 * record["ref_max"],
        )
        held = [
            float(tensors[places[quantity]].abs().max())
            for name in kit.files.names()
            if quantity in places
            and places[quantity] in (tensors := kit.tensors(name))
            and tensors[places[quantity]].dtype == torch.float32
        ]
        if held:
            nearest = min(abs(value - record["ref_max"]) for value in held)
            report.close("noise", f"{quantity} largest value", nearest, 0.0, 1e-4 * record["ref_max"])


STAGES: tuple[tuple[str, Callable[[IndexKit], None]], ...] = (
    ("sizes", _check_sizes),
    ("checkpoint", whole.check_keys),
    ("text", _check_text),
    ("references", listen.check_references),
    ("recorded inputs", listen.check_recorded_inputs),
    ("conditioning", listen.check_conditioning),
    ("emotion", front.check_emotion),
    ("classifier", front.check_classifier),
    ("prefix", speak.check_prefix),
    ("decode", speak.check_decode),
    ("sampling", speak.check_sampling),
    ("codec", sound.check_codec),
    ("length", multilingual.check_lengths),
    ("length regulator", sound.check_regulator),
    ("dit", sound.check_dit),
    ("s2mel", sound.check_s2mel),
    ("bigvgan", sound.check_bigvgan),
    ("end to end", whole.check_whole),
    ("cache", whole.check_cache),
)


def recognises(folder: Path) -> bool:
    """True when the folder is a kit of this family."""
    return (folder / "fixtures").is_dir() and describes_index(folder / "checkpoint" / CONFIG_NAME)


def run(folder: Path, report: KitReport) -> None:
    """Check everything the kit records."""
    kit = IndexKit(folder, report)
    for name, check in STAGES:
        with report.section(name):
            check(kit)
    # What only listens to the recordings comes last, and does not count as a check of them.
    kit.files.check_coverage(report)
    with report.section("noise"):
        _check_noise(kit)
