"""The two hubs: what a repository holds there, and a file's address. Fetching is the same for both."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from sonant.errors import CheckpointError, RequestError, SonantError

HUGGING_FACE = "https://huggingface.co"
MODELSCOPE = "https://www.modelscope.cn"
MIRROR = "https://hf-mirror.com"
"""A copy of Hugging Face; where IndexTTS2's own loader turns when ModelScope has not got a file."""
SOURCES = ("hf", "modelscope")
_NOT_FOR_YOU = (401, 403, 404)
"""HTTP: Hugging Face answers 401 for a repository that does not exist, too."""
SECONDS = 30
"""A hub that says nothing for so long is away."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file of a repository, and how its content is checked."""

    path: str
    size: int | None
    sha256: str | None = None
    """Of large files; on ModelScope of all."""
    blob: str | None = None
    """Git's SHA-1 of small ones."""

    @property
    def identity(self) -> str | None:
        """The hash that names the content."""
        return self.sha256 or self.blob

    def is_whole(self, path: Path) -> bool:
        """Whether the file on disk is the hub's, by size and hash."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return False
        if self.sha256 is not None:
            return sha256(path) == self.sha256
        if self.blob is not None:
            state = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
            state.update(path.read_bytes())
            return state.hexdigest() == self.blob
        return True


@dataclass(frozen=True, kw_only=True)
class Repository:
    """What a hub says of a repository at one commit."""

    name: str
    place: str
    """For messages: name, revision and hub."""
    commit: str
    files: tuple[RemoteFile, ...]
    url: Callable[[RemoteFile], str]

    def file(self, path: str) -> RemoteFile:
        """The file of this path, which is there."""
        return next(file for file in self.files if file.path == path)

    def fetch(self, file: RemoteFile, parts: Path) -> Path:
        """The file in the folder `parts`, going on after the bytes that are there, and checked.

        The client's own download function starts a file anew in each process; here gigabytes may be at stake.
        Raises CheckpointError.
        """
        from huggingface_hub.file_download import http_get

        parts.mkdir(parents=True, exist_ok=True)
        part = self.part(file, parts)
        if file.size is not None and part.is_file() and part.stat().st_size > file.size:
            part.unlink()
        with _told(self.place):
            url, headers = _resolved(self.url(file))
            with part.open("r+b" if part.is_file() else "w+b") as opened:
                begin = opened.seek(0, os.SEEK_END)
                http_get(url, opened, resume_size=begin, headers=headers, expected_size=file.size)
        if not file.is_whole(part):
            part.unlink()
            raise CheckpointError(
                f"{file.path} of {self.place} arrived damaged (its checksum differs from the hub's "
                f"{(file.identity or '')[:12]}); it was removed. Run the same command again."
            )
        return part

    def part(self, file: RemoteFile, parts: Path) -> Path:
        """Where a file under way lies; what a cut connection left there is gone on with."""
        identity = f"{self.name}/{file.path}@{file.identity or self.commit}"
        return parts / hashlib.sha256(identity.encode()).hexdigest()[:24]


def find_repository(
    source: str, name: str, revision: str | None, *, modelscope: str | None = None
) -> Repository:
    """A repository on a hub, "hf" or "modelscope"; its name on the latter may be another.

    HF_ENDPOINT and MODELSCOPE_ENDPOINT name other hubs of the same protocols. Raises CheckpointError, or
    RequestError for another source.
    """
    if source == "hf":
        return on_hugging_face(name, revision, _address("HF_ENDPOINT", HUGGING_FACE))
    if source == "modelscope":
        return on_modelscope(modelscope or name, revision, _address("MODELSCOPE_ENDPOINT", MODELSCOPE))
    raise RequestError(
        f"{source!r} is no place to fetch from; expected one of {', '.join(SOURCES)}. Choose one.",
        field="from",
    )


def on_mirror(name: str) -> Repository:
    """A repository on HF_ENDPOINT, or else on the mirror of Hugging Face."""
    return on_hugging_face(name, None, _address("HF_ENDPOINT", MIRROR))


def on_hugging_face(name: str, revision: str | None, endpoint: str) -> Repository:
    """A repository on a hub with Hugging Face's protocol."""
    from huggingface_hub import HfApi, hf_hub_url

    place = f"{name}{f' at {revision}' if revision else ''} on {endpoint}"
    with _told(place):
        info = HfApi(endpoint=endpoint).model_info(
            name, revision=revision, files_metadata=True, timeout=SECONDS
        )
    files = tuple(
        RemoteFile(
            path=entry.rfilename,
            size=entry.size,
            sha256=entry.lfs.sha256 if entry.lfs is not None else None,
            blob=entry.blob_id if entry.lfs is None else None,
        )
        for entry in info.siblings or ()
    )
    commit = str(info.sha)
    return Repository(
        name=name,
        place=place,
        commit=commit,
        files=files,
        url=lambda file: hf_hub_url(name, file.path, revision=commit, endpoint=endpoint),
    )


def on_modelscope(name: str, revision: str | None, endpoint: str) -> Repository:
    """A repository on a hub with ModelScope's protocol, which two plain addresses make up."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # in its docs

    revision = revision or "master"
    place = f"{name} at {revision} on {endpoint}"
    base = f"{endpoint}/api/v1/models/{quote(name)}/repo"
    with _told(place):
        answer = get_session().get(
            f"{base}/files", params={"Revision": revision, "Recursive": "True"}, timeout=SECONDS
        )
        answer.raise_for_status()
        data = answer.json().get("Data") or {}
        entries = data if isinstance(data, list) else data.get("Files") or []
        files = tuple(_modelscope_file(entry) for entry in entries if entry.get("Type") != "tree")
    return Repository(
        name=name,
        place=place,
        commit=revision,
        files=files,
        url=lambda file: f"{base}?{urlencode({'Revision': revision, 'FilePath': file.path})}",
    )


def _modelscope_file(entry: dict[str, Any]) -> RemoteFile:
    size = entry.get("Size")
    return RemoteFile(
        path=str(entry["Path"]),
        size=int(size) if size is not None else None,
        sha256=entry.get("Sha256") or None,
    )


def _address(variable: str, default: str) -> str:
    given = (os.environ.get(variable) or default).rstrip("/")
    return given if "://" in given else f"https://{given}"


def _resolved(url: str) -> tuple[str, dict[str, str]]:
    """Where the bytes of a file are, and the headers to ask with.

    A file of Hugging Face lies behind a redirect, whose target gets no token of the hub.
    """
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported in its docs

    if "/resolve/" not in url:
        return url, {}
    found = get_hf_file_metadata(url, endpoint=url.partition("/resolve/")[0].rsplit("/", 2)[0])
    headers = build_hf_headers()
    if urlsplit(found.location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)
    return found.location, headers


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Errors of whichever HTTP package the hub's client uses, as one of Sonant's."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except Exception as error:
        if isinstance(error, (SonantError, OSError)) and not isinstance(error, HfHubHTTPError):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        advice = (
            "Check the network, HF_ENDPOINT or MODELSCOPE_ENDPOINT and the revision, then run the same "
            "command again: it goes on where it stopped."
        )
        if getattr(getattr(error, "response", None), "status_code", None) in _NOT_FOR_YOU:
            advice = (
                "Check how the repository and the revision are spelled; a private or gated repository also "
                "needs a token of Hugging Face (HF_TOKEN)."
            )
        raise CheckpointError(
            f"cannot fetch {place} ({reason}); expected the hub to answer with its files. {advice}"
        ) from error


def sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
