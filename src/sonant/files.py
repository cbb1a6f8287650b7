"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO

fcntl: ModuleType | None
try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a file cannot grow: the disk, a quota or the file system's largest file."""
SHUT = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What it says of a place that this user may not write."""
LONGEST_NAME = 200
"""Bytes of a file's name that the name of its part file begins with: systems take 255."""
LEFT_SECONDS = 3600.0
"""Where files cannot be locked: age of a part file that nobody writes any more."""


def write_atomically(path: Path, data: bytes, *, is_private: bool = True) -> None:
    """`data` at `path`, whole or not at all: a temporary neighbour is written, synced and renamed.

    Voices are private: only their owner may read them. Other files are as readable as any new file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _named_in_the_end(path, is_private=is_private) as (file, _):
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A new file beside `path` for whoever writes by name: it takes the name when the block ends well, and is
    removed when it does not. What a killed process left of this one is removed first."""
    folder = path.absolute().parent
    sweep_parts(folder, of=path.name)
    with _named_in_the_end(folder / path.name, is_private=False) as (_, place):
        yield place


@contextlib.contextmanager
def written_over(path: Path) -> Iterator[Path]:
    """Where to write what takes the place of `path`: a new file beside it, as with `written_beside`; itself
    where it is a link or no file (/dev/stdout), which stays what it is, where it may not be written, or where
    the folder takes none."""
    is_other = path.is_symlink() or (path.exists() and not (path.is_file() and os.access(path, os.W_OK)))
    if is_other or not os.access(path.absolute().parent, os.W_OK):
        yield path
    else:
        with written_beside(path) as place:
            yield place


@contextlib.contextmanager
def _named_in_the_end(path: Path, *, is_private: bool) -> Iterator[tuple[IO[bytes], Path]]:
    """A locked neighbour of `path`, open, and where it lies; it takes the name when the block ends well.

    What is not private is as readable as the file that was there, or as any new file.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_beginning(path.name), suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            _lock(file)  # until it has its name: `sweep_parts` leaves it alone
            yield file, Path(name)
            if not is_private:
                os.chmod(name, stat.S_IMODE(path.stat().st_mode) if path.is_file() else _mode_of_new(name))
            if fcntl is not None:
                os.replace(name, path)
        if fcntl is None:  # Windows renames no open file
            os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _mode_of_new(name: str) -> int:
    """What a new file here may be read by: the umask cannot be asked without changing it for all threads."""
    beside = f"{name}.new.part"
    handle = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)
        os.unlink(beside)


class Held:
    """A folder that one process has for itself, by a locked file in it; no more than that on Windows.

    Raises OSError where the file cannot be made, BlockingIOError while another process has it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            raise

    def close(self) -> None:
        """Let others have it."""
        os.close(self._handle)


def sweep_parts(folder: Path, *, of: str | None = None) -> list[Path]:
    """Remove what `write_atomically` left where its process was killed, of one file or of all; the files
    removed.

    One that another process is writing now stays. A folder that may not be changed stays as it is.
    """
    removed = []
    pattern = ".*.part" if of is None else f"{glob.escape(_beginning(of))}*.part"
    for path in sorted(folder.glob(pattern)) if folder.is_dir() else []:
        with contextlib.suppress(OSError):
            if path.is_symlink() or not path.is_file() or _is_being_written(path):
                continue
            path.unlink()
            removed.append(path)
    return removed


def _beginning(name: str) -> str:
    """How the part files of a name begin."""
    begins = name.encode("utf-8", "surrogatepass")[:LONGEST_NAME].decode("utf-8", "ignore")
    return f".{begins}."


def _lock(file: IO[bytes]) -> None:
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_being_written(path: Path) -> bool:
    if fcntl is None:
        return time.time() - path.stat().st_mtime < LEFT_SECONDS
    with path.open("rb") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
