"""A voice: an encoded reference speaker, in one safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sonant.errors import VoiceError
from sonant.files import write_atomically
from sonant.request.audio import Audio

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "sonant-voice-1"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
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
    parts: tuple[tuple[Voice, float], ...] = ()
    """Of a mixture that no model has made yet: voices and their weights, which sum to 1."""

    def __repr__(self) -> str:
        made = f" of {self.family}" if self.family else ""
        clip = f", clip of {self.clip.seconds:.1f} s" if self.clip is not None else ""
        words = ", with transcript" if self.transcript else ""
        return f"<Voice {self.name or 'without a name'}{made}{clip}{words}>"

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
        for part, weight in self.parts:
            state.update(f"{part.digest()}{weight!r}".encode())
        return state.hexdigest()[:16]


def _bytes_dtype() -> Any:
    import torch

    return torch.uint8
