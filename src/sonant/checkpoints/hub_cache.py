"""The cache of Hugging Face's client: `models--OWNER--NAME/snapshots/COMMIT`, with links into `blobs`."""

from __future__ import annotations

import os
from pathlib import Path


def user_hub_cache() -> Path:
    """The user's own cache, as the client finds it: HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME or ~/.cache."""
    if given := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(given).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("HF_HOME") or cache / "huggingface").expanduser() / "hub"


def hub_snapshots(cache: Path, repository: str) -> list[Path]:
    """Folders of the repository's commits in a cache, the branch main's first."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshots = sorted((root / "snapshots").iterdir()) if (root / "snapshots").is_dir() else []
    try:
        main = (root / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        main = ""
    return sorted(snapshots, key=lambda path: path.name != main)


def model_name(folder: Path) -> str:
    """What a checkpoint's folder is called; a snapshot in a cache is called like its repository."""
    folder = folder if folder.name else folder.absolute()
    owner = folder.parent.parent.name
    if folder.parent.name == "snapshots" and owner.startswith("models--"):
        return owner.rpartition("--")[2]
    return folder.name
