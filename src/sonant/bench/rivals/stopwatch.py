"""Seconds inside functions of somebody else's code. Beside the runners, and importing nothing of Sonant."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any


class Stopwatch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(
        self,
        owner: Any,
        method: str,
        stage: str,
        only: Callable[[dict[str, Any]], bool] = lambda _options: True,
    ) -> None:
        """Time every call of a method from now on whose keywords `only` says yes to."""
        original = getattr(owner, method)

        @functools.wraps(original)  # some callers look at the signature
        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                if only(options):
                    self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began

        setattr(owner, method, timed)
