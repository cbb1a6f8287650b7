"""A sentence's phonemes in pieces that a network can take, cut at clauses where there are any."""

from __future__ import annotations

import re

_CLAUSE = re.compile(r"(?<=[,;:—])\s+")


def fitting(phonemes: str, limit: int) -> list[str]:
    """Pieces of at most `limit` letters; a clause that is longer is cut between words, then anywhere."""
    pieces: list[str] = []
    current = ""
    for clause in _CLAUSE.split(phonemes):
        while len(clause) > limit:
            cut = clause.rfind(" ", 0, limit)
            cut = cut if cut > 0 else limit
            pieces.extend([current] if current else [])
            current = ""
            pieces.append(clause[:cut])
            clause = clause[cut:].lstrip()
        if current and len(current) + len(clause) + 1 > limit:
            pieces.append(current)
            current = clause
        else:
            current = f"{current} {clause}" if current else clause
    return [piece for piece in (*pieces, current) if piece.strip()]
