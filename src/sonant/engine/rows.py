"""Rows of the model's cache: who has which, and room for longer texts."""

from __future__ import annotations

from collections.abc import Sequence

from sonant.engine.model import Prompt, SpeechModel


class Rows:
    """The cache of one model. `positions` is how long each of its rows is; there are none at first.

    slots: rows wanted at least, for utterances that run together.
    cache_positions: positions that all rows together may have; None is no limit.
    records_ahead: record a device's steps as soon as there is new room for them.
    """

    def __init__(
        self, model: SpeechModel, *, slots: int, cache_positions: int | None, records_ahead: bool
    ) -> None:
        self._model = model
        self._slots = slots
        self._limit = cache_positions
        self._records_ahead = records_ahead
        self._free: list[int] = []
        self._count = 0
        self.positions = 0

    @property
    def are_full(self) -> bool:
        """True when no row is free."""
        return bool(self._count) and not self._free

    def fit(self, prompt: Prompt) -> bool:
        """Whether the prompt can be begun as things are."""
        return prompt.positions <= self.positions and prompt.rows <= len(self._free)

    def take(self, prompt: Prompt) -> list[int]:
        """Rows for a prompt that fits."""
        assert self.fit(prompt)
        taken, self._free = self._free[: prompt.rows], self._free[prompt.rows :]
        return taken

    def give_back(self, rows: Sequence[int]) -> None:
        """Rows that are used no longer."""
        self._free = sorted((*self._free, *rows))

    def grow(self, prompt: Prompt) -> bool:
        """Lengthen rows that are in use until the prompt fits; False where that is not possible."""
        longer = getattr(self._model, "grow", None)
        positions = self._doubled(prompt.positions)
        if longer is None or prompt.rows > len(self._free) or prompt.positions <= self.positions:
            return False
        if self._limit is not None and self._count * positions > self._limit:
            return False
        if not longer(positions):
            return False
        self.positions = positions
        return True

    def allocate(self, prompt: Prompt) -> None:
        """Make new rows in which the prompt fits; what was in the old ones is lost. Raises what the model
        raises when memory runs out, and then there are no rows."""
        slots = max(self._slots, prompt.rows)
        positions = self._doubled(prompt.positions)
        if self._limit is not None and slots * positions > self._limit:
            positions = max(prompt.positions, self._limit // slots)
            slots = min(slots, self._limit // positions)
        self.forget()
        self._model.allocate(slots, positions)
        if self._records_ahead and hasattr(self._model, "warm_up"):
            self._model.warm_up()
        self._free, self._count, self.positions = list(range(slots)), slots, positions

    def forget(self) -> None:
        """There are no rows until the next `allocate`."""
        self._free, self._count, self.positions = [], 0, 0

    def _doubled(self, wanted: int) -> int:
        positions = max(self.positions, getattr(self._model, "least_positions", 256))
        while positions < wanted:
            positions *= 2
        return positions
