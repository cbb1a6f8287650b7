"""The checkpoint to measure: a folder as it is, or random weights of a known model's true shapes."""

from __future__ import annotations

from pathlib import Path

from sonant.errors import CheckpointError

QWEN_KINDS = {"base": "base", "customvoice": "custom_voice", "voicedesign": "voice_design"}


def folder_for(model: str, scratch: Path) -> Path:
    """The folder of `model`; for a known name that is not on disk, a random checkpoint under `scratch`.

    Short names stand for the usual kind: qwen3-tts-0.6b is the CustomVoice model. Raises CheckpointError
    for a name that is neither.
    """
    if model == "builtin" or Path(model).is_dir():
        return Path(model)
    from sonant.catalogue import hub

    try:
        return hub.local(model)
    except CheckpointError:
        pass
    folder = scratch / model
    parts = model.lower().split("-")
    if parts[:2] == ["qwen3", "tts"] and len(parts) in (3, 4) and parts[2] in ("0.6b", "1.7b"):
        kind = parts[3] if len(parts) == 4 else "customvoice"
        if kind in QWEN_KINDS:
            from sonant.bench import qwen3_tts_checkpoint

            qwen3_tts_checkpoint.write(folder, size=parts[2], kind=QWEN_KINDS[kind])
            return folder
    if model.lower() == "cosyvoice3-0.5b":
        from sonant.bench import cosyvoice3_checkpoint

        cosyvoice3_checkpoint.write(folder)
        return folder
    if model.lower() in ("indextts2", "indextts2.5"):
        from sonant.bench import indextts2_checkpoint

        indextts2_checkpoint.write(folder, model.lower())
        return folder
    raise CheckpointError(
        f"{model!r} is neither a folder nor a model whose shapes are known here. "
        "Give a checkpoint's folder, builtin, qwen3-tts-0.6b / qwen3-tts-1.7b (-base, -customvoice, "
        "-voicedesign), cosyvoice3-0.5b, indextts2 or indextts2.5."
    )
