"""Seeds of what a request is spoken in, derived from its own."""

from __future__ import annotations

import hashlib


def segment_seed(seed: int, index: int) -> int:
    """The seed of segment number `index` of a request; segment 0 keeps the request's seed."""
    if index == 0:
        return seed
    digest = hashlib.sha256(f"sonant-segment:{seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
