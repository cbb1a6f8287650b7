"""Stored voices: a folder of them, one file each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sonant.errors import VoiceError
from sonant.request.voice import Voice

SUFFIX = ".voice.safetensors"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
# Names Windows keeps for devices, with or without a suffix.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


class VoiceLibrary:
    """A folder of voice files. Names are lower case letters, digits, dot, dash and underscore."""

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder) if folder is not None else default_voice_folder()

    def __repr__(self) -> str:
        return f"<VoiceLibrary: {len(self.names())} voices in {self.folder}>"

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

    def has(self, name: str) -> bool:
        """Whether a voice of this name is kept here; False for what is no name."""
        try:
            return self.path(name).is_file()
        except VoiceError:
            return False

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
