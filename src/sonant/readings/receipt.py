"""Receipts: a JSON file beside a recording that says exactly how it was made, and replays it.

A receipt holds the whole job, hashes of all that went in and came out, versions, seed and guards.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sonant import __version__, native
from sonant.errors import RequestError
from sonant.files import write_atomically
from sonant.readings.job import Job, file_hash
from sonant.request.voice import Voice

if TYPE_CHECKING:
    from sonant.readings.delivery import Outcome
    from sonant.request.speech import ModelSpec

FORMAT = "sonant-receipt-1"
PACKAGES = ("torch", "numpy", "soundfile", "av", "soxr", "scipy", "onnxruntime", "hibari-tts", "wetext")
"""Packages whose version may move a sample or a byte."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What made a recording. All values are plain data."""

    job: Job
    inputs: Mapping[str, str]
    """SHA-256 of the text and of audio files the job names."""
    model: Mapping[str, str]
    """Family, name and fingerprint."""
    voice: Mapping[str, str]
    """Name, and the digest where it is not one of the model's own."""
    seed: int
    guards: tuple[Mapping[str, Any], ...]
    segments: int
    timings: Mapping[str, float]
    versions: Mapping[str, str]
    threads: int
    verdicts: tuple[Mapping[str, Any], ...] = ()
    """What a recogniser made of each segment, where it was asked (--verify)."""
    output: Mapping[str, Any]
    """File name, format, seconds, sample rate and SHA-256 of the bytes."""
    made: str = ""

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        data = {"format": FORMAT, **asdict(self), "job": self.job.to_data()}
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
        write_atomically(path, text.encode("utf-8", "surrogatepass"), is_private=False)

    @staticmethod
    def load(path: Path) -> Receipt:
        """Read one. Raises RequestError when it is missing, damaged or no receipt."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
                raise ValueError(f"it does not say it is a {FORMAT}")
            job = data.pop("job")
            guards = tuple(data.pop("guards"))
            verdicts = tuple(data.pop("verdicts", ()))
            return Receipt(job=Job.from_data(job), guards=guards, verdicts=verdicts, **data)
        except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
            raise RequestError(
                f"{path} is no receipt ({error}); expected a file that sonant say --receipt wrote. Check "
                "the path."
            ) from error


def receipt_path(recording: Path) -> Path:
    """Where the receipt of a recording lies."""
    return recording.with_name(f"{recording.name}.receipt.json")


def describe_voice(voice: Voice | str | None, spec: ModelSpec) -> dict[str, str]:
    """Name and, for anything but a preset speaker, the digest of what the model hears."""
    if isinstance(voice, Voice):
        return {"name": voice.name, "digest": voice.digest()}
    return {"name": voice or spec.default_voice or ""}


def versions() -> dict[str, str]:
    """Of Sonant, Python, the machine and the packages in PACKAGES; the C kernel's path, if it is in use."""
    found = {
        "sonant": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    if (kernel := native.path_in_use()) is not None:
        found["kernel"] = kernel
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def make_receipt(
    job: Job, *, spec: ModelSpec, voice: Voice | str | None, outcome: Outcome, recording: Path
) -> Receipt:
    """The receipt of a recording that was just made."""
    import torch

    return Receipt(
        job=replace(job, settings={"normalize": spec.normalize, **job.settings, "seed": outcome.seed}),
        inputs=job.input_hashes(),
        model={"family": spec.family, "name": spec.name, "fingerprint": spec.fingerprint},
        voice=describe_voice(voice, spec),
        seed=outcome.seed,
        guards=tuple(asdict(guard) for guard in outcome.guards),
        segments=len(outcome.segments),
        verdicts=tuple(verdict.as_dict() for verdict in outcome.verdicts),
        timings={name: round(seconds, 4) for name, seconds in outcome.timings.items()},
        versions=versions(),
        threads=torch.get_num_threads(),
        output={
            "file": recording.name,
            "format": job.format,
            "seconds": round(outcome.seconds, 4),
            "sample_rate": outcome.sample_rate,
            "sha256": file_hash(recording),
        },
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def changed_inputs(receipt: Receipt, *, spec: ModelSpec, voice: Voice | str | None) -> list[str]:
    """What is no longer what the receipt says, one sentence each; empty when all inputs are the same."""
    changes = []
    for name, expected in receipt.inputs.items():
        found = receipt.job.input_hashes().get(name)
        if found != expected:
            changes.append(
                f"the {name.replace('_', ' ')} has another content ({_short(found)}, was {_short(expected)})"
            )
    model = receipt.model
    if (spec.family, spec.fingerprint) != (model["family"], model["fingerprint"]):
        changes.append(
            f"the model is {spec.family} {spec.fingerprint}, was {model['family']} {model['fingerprint']}"
        )
    found_voice = describe_voice(voice, spec)
    if found_voice.get("digest") != receipt.voice.get("digest") or (
        "digest" not in found_voice and found_voice["name"] != receipt.voice["name"]
    ):
        changes.append(f"the voice is {_voice_words(found_voice)}, was {_voice_words(receipt.voice)}")
    return changes


def changed_versions(receipt: Receipt) -> list[str]:
    """Packages and machine that differ from the receipt's, such as "torch 2.12.0 -> 2.13.0"."""
    now = versions()
    names = sorted({*now, *receipt.versions})
    return [
        f"{name} {receipt.versions.get(name, 'absent')} -> {now.get(name, 'absent')}"
        for name in names
        if receipt.versions.get(name) != now.get(name)
    ]


def _short(digest: str | None) -> str:
    return (digest or "absent")[:12]


def _voice_words(voice: Mapping[str, str]) -> str:
    return f"{voice.get('name') or 'unnamed'}{' ' + voice['digest'] if 'digest' in voice else ''}"
