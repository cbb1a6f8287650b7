"""The IndexTTS2 conformance kit: every recorded stage, from the text to the samples."""

from sonant.parity.kits.indextts2.run import recognises, run

__all__ = ["recognises", "run"]
