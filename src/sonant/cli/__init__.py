"""The command line. Each command's file is loaded when it is used, so `sonant --help` stays fast."""

from __future__ import annotations

from sonant.cli.app import main

__all__ = ["main"]
