"""What a server keeps of books and readings, on disk: a folder for each owner, plain files in it.

    OWNER/books/ID/      the file as sent, book.json, contents.json, cover, and about.json once all is there
    OWNER/readings/ID/   reading.json, pieces/, and what was made: book.m4b, book.srt, report.json

An owner is a key, where a server has several; else everybody. Ids are random, and names of files are ours.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sonant.errors import RequestError
from sonant.files import sweep_parts, write_atomically
from sonant.server.auth import Caller
from sonant.server.problems import HttpProblem

log = logging.getLogger(__name__)

Status = Literal["queued", "running", "completed", "failed", "cancelled"]
_ID = re.compile(r"(?:book|reading)-[0-9a-f]{16}")
_FACTS = {"books": "about.json", "readings": "reading.json"}
"""The file that makes a folder a book or a reading: written last of a book, first of a reading."""
_GONE = ".gone-"
EVERYBODY = "everybody"


def owner_of(caller: Caller) -> str:
    """The folder of a caller's books."""
    return f"key-{caller.id}" if caller.has_own_shelf else EVERYBODY


@dataclass(kw_only=True)
class Reading:
    """A reading as it is kept, and how it goes."""

    id: str
    owner: str
    caller: str
    priority: int
    book: str
    title: str
    format: str
    options: dict[str, Any]
    """What was asked, as it was sent."""
    status: Status = "queued"
    created_at: float = field(default_factory=time.time)
    started_at: float | None = None
    ended_at: float | None = None
    error: dict[str, str] | None = None
    lines: int = 0
    done: int = 0
    seconds: float = 0.0
    failed: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)
    guards: int = 0
    wanted: int = 0
    """Bytes that it was thought to take."""

    def kept(self) -> dict[str, Any]:
        """As it is written to disk."""
        return dict(vars(self))


class Bookshelf:
    """Folders of books and readings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new_id(self, kind: Literal["book", "reading"]) -> str:
        """An id that nobody can guess."""
        return f"{kind}-{secrets.token_hex(8)}"

    def book(self, owner: str, book: str) -> Path:
        """The folder of a book there is. Raises HttpProblem 404."""
        return self._found(owner, "books", book, "book")

    def reading(self, owner: str, reading: str) -> Path:
        """The folder of a reading there is. Raises HttpProblem 404."""
        return self._found(owner, "readings", reading, "reading")

    def place(self, owner: str, kind: Literal["books", "readings"], name: str) -> Path:
        """Where a book or a reading lies, whether or not it is there."""
        return self.folder / owner / kind / name

    def _found(self, owner: str, kind: Literal["books", "readings"], name: str, what: str) -> Path:
        path = self.place(owner, kind, name)
        if not _ID.fullmatch(name) or not (path / _FACTS[kind]).is_file():
            raise HttpProblem(
                404,
                f"{what}_not_found",
                f"there is no {what} {name!r} here. GET /v1/audio/{kind} lists them.",
            )
        return path

    def ids(self, owner: str, kind: Literal["books", "readings"]) -> set[str]:
        """What an owner has, whole or not."""
        return {path.name for path in self._folders(owner, kind)}

    def books(self, owner: str) -> list[dict[str, Any]]:
        """The books of an owner, the newest first."""
        found = [read_json(path / _FACTS["books"]) for path in self._folders(owner, "books")]
        known = [without_large(about) for about in found if about is not None and "id" in about]
        return sorted(known, key=lambda about: -about["created_at"])

    def keep_book(self, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Make the folder a book, once its contents.json is there; what `about` says of it."""
        contents = read_json(folder / "contents.json") or {}
        about = without_large({**facts, **contents})
        write_atomically(folder / _FACTS["books"], json.dumps(about).encode())
        return {**contents, **about}

    def about(self, owner: str, book: str) -> dict[str, Any]:
        """A book with its chapters and roles. Raises HttpProblem 404, RequestError where it is damaged."""
        folder = self.book(owner, book)
        about = read_json(folder / _FACTS["books"])
        if about is None:  # deleted since the line above
            raise HttpProblem(404, "book_not_found", f"the book {book!r} cannot be read any more.")
        about = {**(read_json(folder / "contents.json") or {}), **about}
        if "roles" not in about:
            raise RequestError("the book is damaged. Delete it and send it again.", field="book")
        return about

    def readings(self) -> Iterator[Reading]:
        """Every reading that is kept, of all owners."""
        for owner in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            for path in self._folders(owner.name, "readings"):
                data = read_json(path / _FACTS["readings"])
                try:
                    if data is not None:
                        yield Reading(**data)
                except TypeError as error:
                    log.warning("%s is of another version and left alone: %s", path, error)

    def _folders(self, owner: str, kind: str) -> list[Path]:
        folder = self.folder / owner / kind
        return [path for path in folder.iterdir() if _ID.fullmatch(path.name)] if folder.is_dir() else []

    def save(self, reading: Reading) -> None:
        """Keep how a reading stands."""
        folder = self.place(reading.owner, "readings", reading.id)
        write_atomically(folder / _FACTS["readings"], json.dumps(reading.kept()).encode())

    def missing(self, reading: Reading) -> int:
        """Bytes that a reading still needs, as it was estimated."""
        return max(0, reading.wanted - folder_size(self.place(reading.owner, "readings", reading.id)))

    def sweep(self) -> None:
        """Remove what a killed server left half made or half removed. Only while nobody else is at work here.

        What may not be removed stays, with a warning.
        """
        for owner in self.folder.iterdir() if self.folder.is_dir() else ():
            for kind, facts in _FACTS.items():
                for path in sorted((owner / kind).iterdir()) if (owner / kind).is_dir() else ():
                    try:
                        _sweep(path, path / facts)
                    except OSError as error:
                        log.warning("%s was left by a stopped server and cannot be removed: %s", path, error)

    def size(self, owner: str) -> int:
        """Bytes that an owner's folder has."""
        return folder_size(self.folder / owner)

    def free(self) -> int:
        """Bytes free on the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.folder).free


def read_json(path: Path) -> dict[str, Any] | None:
    """What a file of ours holds; None where it is absent or damaged."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder; those that vanish meanwhile do not count."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def _sweep(path: Path, facts: Path) -> None:
    if path.name.startswith(_GONE) and _ID.fullmatch(path.name.removeprefix(_GONE)):
        shutil.rmtree(path)
    elif _ID.fullmatch(path.name):
        known = read_json(facts)
        if not facts.exists() or (known is not None and "id" not in known):
            remove_folder(path)
        else:
            sweep_parts(path)
            sweep_parts(path / "pieces")


def remove_folder(folder: Path) -> None:
    """Remove a folder of ours, first out of sight, so that a crash leaves nothing half there."""
    hidden = folder.with_name(f"{_GONE}{folder.name}")
    try:
        folder.rename(hidden)
    except FileNotFoundError:  # somebody else is at it
        return
    shutil.rmtree(hidden)


def without_large(about: Mapping[str, Any]) -> dict[str, Any]:
    """A book as a list has it."""
    return {name: value for name, value in about.items() if name not in ("chapters", "roles", "left_out")}
