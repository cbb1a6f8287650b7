"""Whose voices are whose: one shelf for everybody, and one for each key where there are several.

A shelf is a folder of voices. The shared one is the server's library; a key's own lies inside it as
`key-<hash>`, where no other key finds it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sonant.errors import VoiceError
from sonant.request.voice import Voice
from sonant.server.auth import Caller
from sonant.server.problems import HttpProblem
from sonant.voices.library import VoiceLibrary

OWNER = "owner"
"""In a shared voice's origin: the id of the key that shared it."""


class Shelves:
    """The stored voices as each caller sees them."""

    def __init__(self, library: VoiceLibrary) -> None:
        self.shared = library

    def view(self, caller: Caller) -> ShelfView:
        """What one caller sees, as finders of voices want it."""
        return ShelfView(self, caller)

    def own(self, caller: Caller) -> VoiceLibrary:
        """Where the caller's new voices go."""
        return VoiceLibrary(self.shared.folder / f"key-{caller.id}") if caller.has_own_shelf else self.shared

    def names(self, caller: Caller) -> list[str]:
        """Voices the caller can speak with."""
        return sorted({*self.own(caller).names(), *self.shared.names()})

    def has(self, caller: Caller, name: str) -> bool:
        """True when the caller has or shares a voice of this name."""
        return self._shelf_of(caller, name) is not None

    def get(self, caller: Caller, name: str) -> Voice:
        """The voice of this name. Raises VoiceError naming those there are."""
        shelf = self._shelf_of(caller, name)
        if shelf is None:
            self.shared.path(name)  # a name that none can have is told as such
            known = ", ".join(self.names(caller)) or "none yet"
            raise VoiceError(f"no voice named {name!r} is stored; there are: {known}. Add it first.")
        return shelf.get(name)

    def remove(self, caller: Caller, name: str) -> None:
        """Delete a voice of the caller. Raises HttpProblem 403 for one that another shared."""
        shelf = self._shelf_of(caller, name)
        if shelf is None:
            self.get(caller, name)  # raises
            return
        is_others = shelf is self.shared and caller.has_own_shelf and not caller.is_admin
        if is_others and shelf.get(name).origin.get(OWNER) != caller.id:
            message = f"the voice {name!r} is shared, and not yours to remove."
            raise HttpProblem(403, "not_your_voice", message, param="name")
        shelf.remove(name)

    def _shelf_of(self, caller: Caller, name: str) -> VoiceLibrary | None:
        for shelf in dict.fromkeys((self.own(caller), self.shared)):
            try:
                if shelf.path(name).is_file():
                    return shelf
            except VoiceError:  # no name a voice can have
                return None
        return None


@dataclass(frozen=True)
class ShelfView:
    """The voices of one caller: its own, then those that are everybody's."""

    shelves: Shelves
    caller: Caller

    def names(self) -> list[str]:
        """Names of the voices, sorted."""
        return self.shelves.names(self.caller)

    def has(self, name: str) -> bool:
        """Whether a voice of this name is there."""
        return self.shelves.has(self.caller, name)

    def get(self, name: str) -> Voice:
        """The voice. Raises VoiceError."""
        return self.shelves.get(self.caller, name)
