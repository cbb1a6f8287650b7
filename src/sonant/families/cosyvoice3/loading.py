"""A checkpoint folder, official or converted -> the model; and the conversion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from sonant.checkpoints.files import fingerprint, read_json, write_tensors
from sonant.checkpoints.hub_cache import model_name
from sonant.errors import CheckpointError
from sonant.families.cosyvoice3 import weights
from sonant.families.cosyvoice3.config import QWEN_FOLDER, YAML_NAME, read_config
from sonant.families.cosyvoice3.encoders import SPEAKER_NAME, TOKENIZER_NAME, Encoders
from sonant.families.cosyvoice3.model import CosyVoice3Model, load_tokenizer, make_spec
from sonant.families.cosyvoice3.prompt import PRESETS_NAME, flattened, read_presets
from sonant.nn.precision import stack_plan
from sonant.nn.quantized import PackedStore
from sonant.request.speech import ModelSpec

IDENTITY = (
    YAML_NAME,
    "flow.pt",
    "hift.pt",
    TOKENIZER_NAME,
    SPEAKER_NAME,
    f"{QWEN_FOLDER}/config.json",
    f"{QWEN_FOLDER}/merges.txt",
)
"""Files that tell one checkpoint from another, beside the language model's."""
COPIED = (YAML_NAME, TOKENIZER_NAME, SPEAKER_NAME)
COPIED_QWEN = ("config.json", "vocab.json", "merges.txt", "tokenizer_config.json", "generation_config.json")
CONVERTED = "sonant.json"
FORMAT = "sonant-cosyvoice3-1"


def load(
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    precision: str | None = None,
    variant: str | None = None,
) -> CosyVoice3Model:
    """The model; the language model in `dtype`, flow and vocoder in float32 (float64 widens the flow).

    `precision` narrows the language model's weights on a CPU and, unless it is lossless, what the flow's
    products are made of.
    """
    refuse_older(path)
    config = read_config(path)
    flow_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    presets = read_presets(path, bins=config.flow.mel_bins, speaker_dim=config.flow.speaker_dim)
    plan = None if precision is None else stack_plan(precision, config.language.decoder.layers)
    store: PackedStore | None = None
    if precision is not None and plan is not None:
        dtype = torch.float32  # activations and cache
        store = None if plan.is_lossless else PackedStore.of(identity(path, variant), precision)
    return CosyVoice3Model(
        config=config,
        language=weights.load_language(
            path, config, device=device, dtype=dtype, plan=plan, store=store, variant=variant
        ),
        flow=weights.load_flow(
            path,
            config,
            device=device,
            dtype=flow_dtype,
            narrow=plan is not None and not plan.is_lossless and flow_dtype == torch.float32,
        ),
        vocoder=weights.load_vocoder(path, config, device=device),
        encoders=Encoders(path, device),
        tokenizer=load_tokenizer(path),
        presets=presets,
        fingerprint=identity(path, variant),
        name=_name(path, variant),
        device=device,
    )


def describe(path: Path, variant: str | None = None) -> ModelSpec:
    """The spec of a folder, from its configs and its preset speakers."""
    refuse_older(path)
    config = read_config(path)
    presets = read_presets(path, bins=config.flow.mel_bins, speaker_dim=config.flow.speaker_dim)
    return make_spec(config, presets, fingerprint=identity(path, variant), name=_name(path, variant))


def _name(path: Path, variant: str | None) -> str:
    return f"{model_name(path.resolve())}{'' if variant is None else f':{variant}'}"


def refuse_older(path: Path) -> None:
    """Raise CheckpointError for a folder of CosyVoice 1 or 2."""
    if (path / YAML_NAME).is_file():
        return
    for name, release in (("cosyvoice2.yaml", "CosyVoice2"), ("cosyvoice.yaml", "CosyVoice 1")):
        if (path / name).is_file():
            raise CheckpointError(
                f"{path} holds {release}, which is not supported yet; expected CosyVoice3 ({YAML_NAME}). "
                "Use Fun-CosyVoice3-0.5B."
            )


def identity(path: Path, variant: str | None = None) -> str:
    """The fingerprint of a checkpoint; a converted one keeps that of its source, so voices stay valid."""
    if (path / CONVERTED).is_file():
        record = read_json(path / CONVERTED)
        if record.get("format") != FORMAT or not isinstance(record.get("fingerprint"), str):
            raise CheckpointError(
                f"{path / CONVERTED} says {record.get('format')!r}; expected {FORMAT!r}. Convert again."
            )
        return str(record["fingerprint"])
    return fingerprint(path, (*IDENTITY, weights.part_file(path, "llm", variant).name))


def convert(source: Path, target: Path, variant: str | None = None) -> None:
    """Write `source` as safetensors without pickles to the new or empty folder `target`."""
    refuse_older(source)
    config = read_config(source)
    if target.exists() and any(target.iterdir()):
        raise CheckpointError(f"{target} is not empty. Give a new folder to convert into.")
    (target / QWEN_FOLDER).mkdir(parents=True, exist_ok=True)
    metadata = {"format": FORMAT}
    for name in ("llm", "flow"):
        write_tensors(
            target / f"{name}.safetensors", weights.part_tensors(source, config, name, variant), metadata
        )
    folded = weights.folded_vocoder(weights.part_tensors(source, config, "hift"))
    write_tensors(target / "hift.safetensors", folded, metadata)
    presets = read_presets(source, bins=config.flow.mel_bins, speaker_dim=config.flow.speaker_dim)
    if presets:
        write_tensors(target / f"{PRESETS_NAME}.safetensors", flattened(presets), metadata)
    for name in COPIED:
        _copy(source / name, target / name)
    for name in COPIED_QWEN:
        if (source / QWEN_FOLDER / name).is_file():
            _copy(source / QWEN_FOLDER / name, target / QWEN_FOLDER / name)
    record = {"format": FORMAT, "family": "cosyvoice3", "fingerprint": identity(source, variant)}
    (target / CONVERTED).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise CheckpointError(f"{source.name} is missing in {source.parent}; download it again.")
    shutil.copyfile(source, target)
