"""Known checkpoints, where they lie on disk, and fetching them from a hub."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sonant.errors import CheckpointError, DependencyError, RequestError, SonantError

logger = logging.getLogger(__name__)

SOURCES = ("hf", "modelscope")
SKIPPED = ("*.md", ".gitattributes", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.svg", "*.mp4", "*.pdf")
"""Files of a repository that no model reads."""
RECORD = ".sonant-pull.json"
"""In a fetched folder: repository, commit and the SHA-256 of each file."""
PARTS = ".parts"
"""Folder of files under way; what a cut connection left there is gone on with."""


@dataclass(frozen=True, kw_only=True)
class Companion:
    """Files of another repository that a model needs beside its own."""

    repository: str
    files: Mapping[str, str]
    """Path in the repository -> path in the model's folder."""


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A released checkpoint: its name here, its repository on the hub and what it is for."""

    name: str
    repository: str
    family: str
    about: str
    licence: str
    companions: tuple[Companion, ...] = field(default=())


KNOWN: tuple[KnownModel, ...] = (
    KnownModel(
        name="qwen3-tts-0.6b-base",
        repository="Qwen/Qwen3-TTS-12Hz-0.6B-Base",
        family="qwen3_tts",
        about="clones a voice from a clip",
        licence="Apache-2.0",
    ),
    KnownModel(
        name="qwen3-tts-1.7b-base",
        repository="Qwen/Qwen3-TTS-12Hz-1.7B-Base",
        family="qwen3_tts",
        about="clones a voice from a clip",
        licence="Apache-2.0",
    ),
    KnownModel(
        name="qwen3-tts-0.6b-customvoice",
        repository="Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice",
        family="qwen3_tts",
        about="nine named voices",
        licence="Apache-2.0",
    ),
    KnownModel(
        name="qwen3-tts-1.7b-customvoice",
        repository="Qwen/Qwen3-TTS-12Hz-1.7B-CustomVoice",
        family="qwen3_tts",
        about="nine named voices, style instructions",
        licence="Apache-2.0",
    ),
    KnownModel(
        name="qwen3-tts-1.7b-voicedesign",
        repository="Qwen/Qwen3-TTS-12Hz-1.7B-VoiceDesign",
        family="qwen3_tts",
        about="makes a voice from a description",
        licence="Apache-2.0",
    ),
    KnownModel(
        name="cosyvoice3-0.5b",
        repository="FunAudioLLM/Fun-CosyVoice3-0.5B-2512",
        family="cosyvoice3",
        about="zero-shot, cross-lingual, instruct, voice conversion",
        licence="Apache-2.0",
    ),
    KnownModel(
        name="indextts2",
        repository="IndexTeam/IndexTTS-2",
        family="indextts2",
        about="cloning with emotion from audio, numbers or words",
        licence="bilibili Model Use License",
        # Where the release's own loader keeps the auxiliary models: flat, under hf_cache.
        companions=(
            Companion(
                repository="facebook/w2v-bert-2.0",
                files={
                    name: f"hf_cache/w2v-bert-2.0/{name}"
                    for name in ("config.json", "preprocessor_config.json", "model.safetensors")
                },
            ),
            Companion(
                repository="amphion/MaskGCT",
                files={"semantic_codec/model.safetensors": "hf_cache/semantic_codec_model.safetensors"},
            ),
            Companion(
                repository="funasr/campplus",
                files={"campplus_cn_common.bin": "hf_cache/campplus_cn_common.bin"},
            ),
            Companion(
                repository="nvidia/bigvgan_v2_22khz_80band_256x",
                files={name: f"hf_cache/bigvgan/{name}" for name in ("config.json", "bigvgan_generator.pt")},
            ),
        ),
    ),
)


def models_folder() -> Path:
    """Where fetched checkpoints lie: SONANT_MODELS, or the user's data folder."""
    given = os.environ.get("SONANT_MODELS")
    if given:
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_data_dir("sonant")) / "models"


def known(name: str) -> KnownModel:
    """The released checkpoint of this name. Raises CheckpointError listing the names."""
    for model in KNOWN:
        if model.name == name.lower() or model.repository.lower() == name.lower():
            return model
    names = ", ".join(model.name for model in KNOWN)
    raise CheckpointError(
        f"{name!r} is neither a folder on this machine nor a known model. "
        f"Known models: builtin, nano, {names}."
    )


def local(name: str) -> Path:
    """Folder of a known model on disk. Raises CheckpointError when it was not fetched yet."""
    model = known(name)
    path = models_folder() / model.name
    if not path.is_dir():
        raise CheckpointError(
            f"{model.name} is not on this machine (looked in {path}). Fetch it with: sonant pull {model.name}"
        )
    return path


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file of a repository, and how its content is checked."""

    path: str
    size: int | None
    sha256: str | None = None
    """Of large files."""
    blob: str | None = None
    """Git's SHA-1 of small ones."""


def pull(
    name: str,
    *,
    source: str = "hf",
    revision: str | None = None,
    on_file: Callable[[str, int | None], None] = lambda path, size: None,
) -> Path:
    """Fetch a known model into the models' folder and return where it lies.

    What is there already and whole is not fetched again; what was cut off goes on where it stopped. Every
    file is checked against the hub's hash before the folder gets its final name. `on_file` hears each
    file's path and size before it is fetched. HF_ENDPOINT names another hub of the same protocol.
    Raises CheckpointError, DependencyError or RequestError.
    """
    model = known(name)
    if source not in SOURCES:
        raise RequestError(
            f"{source!r} is no place to fetch from; expected one of {', '.join(SOURCES)}. Choose one.",
            field="from",
        )
    final = models_folder() / model.name
    folder = final if final.is_dir() else models_folder() / f".{model.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        hashes: dict[str, str] = {}
        if source == "hf":
            commit = _pull_hub(model.repository, folder, revision, None, hashes, on_file)
        else:
            commit = _pull_modelscope(model.repository, folder, revision)
        for companion in model.companions:
            _pull_hub(companion.repository, folder, None, companion.files, hashes, on_file)
        record = {"repository": model.repository, "source": source, "commit": commit, "sha256": hashes}
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if (folder / PARTS).is_dir():
            shutil.rmtree(folder / PARTS)
        if folder != final:
            os.replace(folder, final)
    except OSError as error:
        raise CheckpointError(
            f"fetching {model.name} into {folder} failed ({error}); expected a complete download. "
            "Check the network and the disk, then run the same command again: it goes on where it stopped."
        ) from error
    return final


def pulled_record(folder: Path) -> Mapping[str, Any]:
    """What `pull` noted of a folder; empty for a folder that came another way."""
    try:
        data = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _pull_hub(
    repository: str,
    folder: Path,
    revision: str | None,
    wanted: Mapping[str, str] | None,
    hashes: dict[str, str],
    on_file: Callable[[str, int | None], None],
) -> str:
    """Fetch a repository, or the `wanted` files of it under other names; returns the commit."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    place = f"{repository}{f' at {revision}' if revision else ''} on {endpoint}"
    try:
        info = HfApi(endpoint=endpoint).model_info(repository, revision=revision, files_metadata=True)
        commit = str(info.sha)
        files = [
            RemoteFile(
                path=entry.rfilename,
                size=entry.size,
                sha256=entry.lfs.sha256 if entry.lfs is not None else None,
                blob=entry.blob_id if entry.lfs is None else None,
            )
            for entry in info.siblings or ()
            if (entry.rfilename in wanted if wanted is not None else not _is_skipped(entry.rfilename))
        ]
        absent = sorted(set(wanted or ()) - {file.path for file in files})
        if absent or not files:
            raise CheckpointError(
                f"{place} has no {', '.join(absent) or 'model files'}; expected them there. "
                "The repository may have changed; fetch another --revision."
            )
        for file in files:
            target = folder / (wanted[file.path] if wanted is not None else file.path)
            if not target.resolve().is_relative_to(folder.resolve()):
                raise CheckpointError(
                    f"{place} names a file {file.path!r} outside its own folder; expected plain relative "
                    "names. Do not use this repository."
                )
            if not (target.is_file() and _is_whole(target, file)):
                target.unlink(missing_ok=True)
                on_file(str(target.relative_to(folder)), file.size)
                fetched = _fetch(repository, file, commit, endpoint, folder / PARTS)
                if not _is_whole(fetched, file):
                    fetched.unlink()
                    raise CheckpointError(
                        f"{file.path} of {place} arrived damaged (its checksum differs from the hub's "
                        f"{(file.sha256 or file.blob or '')[:12]}); it was removed. Run the same command "
                        "again."
                    )
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(fetched, target)
            hashes[str(target.relative_to(folder))] = file.sha256 or _sha256(target)
        return commit
    except Exception as error:  # the hub's client raises errors of whichever HTTP package it uses
        if isinstance(error, (SonantError, OSError)) and not isinstance(error, HfHubHTTPError):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"cannot fetch {place} ({reason}); expected the hub to answer with its files. Check the network, "
            "HF_ENDPOINT and the revision, then run the same command again: it goes on where it stopped."
        ) from error


def _fetch(repository: str, file: RemoteFile, commit: str, endpoint: str, parts: Path) -> Path:
    """The file in the folder `parts`, going on after the bytes that are there.

    The client's own download function starts a file anew in each process; here gigabytes may be at stake.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported in its docs

    parts.mkdir(parents=True, exist_ok=True)
    identity = hashlib.sha256(f"{repository}/{file.path}@{file.sha256 or file.blob or commit}".encode())
    part = parts / identity.hexdigest()[:24]
    if file.size is not None and part.is_file() and part.stat().st_size > file.size:
        part.unlink()
    url = hf_hub_url(repository, file.path, revision=commit, endpoint=endpoint)
    found = get_hf_file_metadata(url, endpoint=endpoint)
    headers = build_hf_headers()
    if urlsplit(found.location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # a storage host gets no token of the hub
    with part.open("r+b" if part.is_file() else "w+b") as opened:
        http_get(
            found.location,
            opened,
            resume_size=opened.seek(0, os.SEEK_END),
            headers=headers,
            expected_size=file.size,
        )
    return part


def _pull_modelscope(repository: str, folder: Path, revision: str | None) -> str:
    """Fetch a repository from ModelScope, which checks its files' hashes itself."""
    try:
        from modelscope import snapshot_download
    except ImportError as error:
        raise DependencyError(
            "ModelScope's client is not installed; expected the package modelscope. "
            "Install it with: pip install 'sonant[modelscope]', or fetch with --from hf."
        ) from error
    try:
        snapshot_download(repository, revision=revision, local_dir=str(folder))
    except Exception as error:  # its client raises errors of many packages
        raise CheckpointError(
            f"cannot fetch {repository} from ModelScope ({type(error).__name__}: {error}); expected its "
            "files. Check the network and the revision, then run the same command again, or use --from hf."
        ) from error
    return revision or "master"


def _is_skipped(path: str) -> bool:
    return any(fnmatch(path.rsplit("/", 1)[-1].lower(), pattern) for pattern in SKIPPED)


def _is_whole(path: Path, file: RemoteFile) -> bool:
    """Whether the file on disk is the hub's, by size and hash."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return False
    if file.sha256 is not None:
        return _sha256(path) == file.sha256
    if file.blob is not None:
        state = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        state.update(path.read_bytes())
        return state.hexdigest() == file.blob
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
