"""Voices: an encoded reference speaker in one safetensors file, and a folder of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sonant.errors import VoiceError
from sonant.speech import Audio

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "sonant-voice-1"
SUFFIX = ".voice.safetensors"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
# Names Windows keeps for devices, with or without a suffix.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


@dataclass(frozen=True, kw_only=True, eq=False)
class Voice:
    """A reference speaker: named tensors for one model, and the clip they can be made from again.

    `tensors` are only meaningful for the model whose `fingerprint` they carry. With `clip` present the
    voice can be encoded again for any other model; a preset speaker has a name and nothing else.
    """

    name: str = ""
    family: str = ""
    fingerprint: str = ""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    transcript: str | None = None
    language: str | None = None
    clip: Audio | None = None
    origin: Mapping[str, str] = field(default_factory=dict)
    """Where it came from, in words: file name, date, consent, the instruction of a designed voice."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, atomically."""
        import torch
        from safetensors.torch import save

        tensors = {f"feature.{k}": v.detach().cpu().contiguous() for k, v in self.tensors.items()}
        if self.clip is not None:
            tensors["clip"] = torch.from_numpy(self.clip.samples.copy())
        if not tensors:
            tensors["empty"] = torch.zeros(0)
        record = {
            "name": self.name,
            "family": self.family,
            "fingerprint": self.fingerprint,
            "transcript": self.transcript,
            "language": self.language,
            "sample_rate": self.clip.sample_rate if self.clip is not None else None,
            "origin": dict(self.origin),
        }
        data = save(tensors, metadata={"format": FORMAT, "voice": json.dumps(record)})
        write_atomically(Path(path), data)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Voice:
        """Read a voice file. Raises VoiceError when it is missing, damaged or not a voice."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(os.fspath(path), framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise VoiceError(
                        f"{os.fspath(path)} is a safetensors file but no Sonant voice (format "
                        f"{metadata.get('format')!r}, expected {FORMAT!r}). "
                        "Make one with: sonant voice add NAME CLIP"
                    )
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise VoiceError(
                f"cannot read the voice file {os.fspath(path)} ({error}). "
                "Make it again with: sonant voice add NAME CLIP"
            ) from error
        try:
            record: dict[str, Any] = json.loads(metadata["voice"])
            clip = None
            if "clip" in tensors:
                clip = Audio(tensors["clip"].float().numpy(), int(record["sample_rate"]))
            return Voice(
                name=str(record["name"]),
                family=str(record["family"]),
                fingerprint=str(record["fingerprint"]),
                tensors={k[len("feature.") :]: v for k, v in tensors.items() if k.startswith("feature.")},
                transcript=record["transcript"],
                language=record["language"],
                clip=clip,
                origin=dict(record["origin"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise VoiceError(
                f"the voice file {os.fspath(path)} has a damaged header ({error!r}). "
                "Make it again with: sonant voice add NAME CLIP"
            ) from error

    def digest(self) -> str:
        """SHA-256 of what a model would hear: tensors, clip, transcript, language; 16 hex digits."""
        import hashlib

        state = hashlib.sha256()
        for key in sorted(self.tensors):
            tensor = self.tensors[key].detach().cpu().contiguous()
            state.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
            state.update(tensor.flatten().view(dtype=_bytes_dtype()).numpy().tobytes())
        if self.clip is not None:
            state.update(np.ascontiguousarray(self.clip.samples).tobytes())
            state.update(str(self.clip.sample_rate).encode())
        state.update(repr((self.name if not self.tensors else "", self.transcript, self.language)).encode())
        return state.hexdigest()[:16]


def _bytes_dtype() -> Any:
    import torch

    return torch.uint8


def write_atomically(path: Path, data: bytes, *, is_private: bool = True) -> None:
    """`data` at `path`, whole or not at all: a temporary neighbour is written, synced and renamed.

    Voices are private: only their owner may read them. Other files are as readable as any new file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if not is_private:
            os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


class VoiceLibrary:
    """A folder of voice files. Names are lower case letters, digits, dot, dash and underscore."""

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder) if folder is not None else default_voice_folder()

    def path(self, name: str) -> Path:
        """Where the voice of this name is kept. Raises VoiceError for a name that is not safe."""
        if not isinstance(name, str) or not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
            raise VoiceError(
                f"{name!r} is no voice name; expected 1 to 64 of a-z 0-9 . _ - with a letter or digit "
                "at both ends. Choose another name."
            )
        path = self.folder / f"{name}{SUFFIX}"
        if path.is_symlink():
            raise VoiceError(f"the voice {name!r} is a symbolic link, which is not followed. Remove it.")
        return path

    def names(self) -> list[str]:
        """Names of the voices kept here, sorted."""
        return sorted(self._found())

    def _found(self) -> Iterator[str]:
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            name = path.name.removesuffix(SUFFIX)
            if path.name != name and _NAME.fullmatch(name) and path.is_file() and not path.is_symlink():
                yield name

    def get(self, name: str) -> Voice:
        """The voice of this name. Raises VoiceError listing the names there are."""
        path = self.path(name)
        if not path.is_file():
            known = ", ".join(self.names()) or "none yet"
            raise VoiceError(
                f"no voice named {name!r} in {self.folder}; there are: {known}. "
                f"Add it with: sonant voice add {name} CLIP"
            )
        return Voice.load(path)

    def add(self, voice: Voice, *, name: str | None = None, overwrite: bool = False) -> Voice:
        """Keep a voice under `name` (or its own). Raises VoiceError when taken, unless `overwrite`."""
        named = replace(voice, name=name if name is not None else voice.name)
        path = self.path(named.name)
        if path.exists() and not overwrite:
            raise VoiceError(
                f"a voice named {named.name!r} exists already in {self.folder}. "
                "Choose another name, or pass --force to replace it."
            )
        named.save(path)
        return named

    def remove(self, name: str) -> None:
        """Delete a voice. Raises VoiceError when there is none of this name."""
        path = self.path(name)
        if not path.is_file():
            known = ", ".join(self.names()) or "none yet"
            raise VoiceError(f"no voice named {name!r} to remove; there are: {known}.")
        path.unlink()


def default_voice_folder() -> Path:
    """Where voices are kept unless told otherwise: SONANT_VOICES, or the user's data folder."""
    given = os.environ.get("SONANT_VOICES")
    if given:
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_data_dir("sonant")) / "voices"
