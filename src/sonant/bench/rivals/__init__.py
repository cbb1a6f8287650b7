"""Originals to measure beside: `run_NAME.py` runs in the original's own environment and imports no Sonant."""

from pathlib import Path

RIVALS = tuple(sorted(p.stem[4:].replace("_", "-") for p in Path(__file__).parent.glob("run_*.py")))
"""Names of the originals, as `sonant bench --compare` takes them."""
