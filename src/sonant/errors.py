"""Every error Sonant raises on purpose, and the one table of HTTP statuses and exit codes.

SonantError
├── ConfigError        a model's config file says something impossible or unknown
├── CheckpointError    weights or model files missing, unreadable or wrong
├── RequestError       the request itself is wrong (text, field values, audio files)
│   └── UnsupportedError   the request is fine, but the loaded model cannot do it
├── VoiceError         a voice is missing, badly named or made for something else
├── GenerationError    speaking failed although the request was fine
│   ├── NotFiniteError     the model's scores are no numbers
│   ├── CancelledError     the caller went away or asked to stop
│   └── DeadlineError      the request's own time limit passed
├── StorageError       nothing can be kept: the disk is full, or may not be written
├── BusyError          no room in the queue now; try again later
└── DependencyError    an optional package is absent; the message names the extra

A message has three parts: what was found, what was expected, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence

_FEW = 6
_LINE = 200
"""Characters; names in a foreign file may be of any length."""


class SonantError(Exception):
    """Root of all errors raised on purpose."""


class ConfigError(SonantError):
    """A model's config is impossible, incomplete or has unknown keys."""


class CheckpointError(SonantError):
    """Model files are missing, unreadable, or do not fit the network."""


class RequestError(SonantError):
    """A request's own content is wrong; `field` names the field where one is to blame."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class UnsupportedError(RequestError):
    """The loaded model lacks a capability that the request needs."""


class VoiceError(SonantError):
    """A voice is missing, badly named, damaged or made for another model."""


class GenerationError(SonantError):
    """Speaking failed although the request was valid."""


class NotFiniteError(GenerationError):
    """The model's scores for the next token are no numbers; the engine may try again with another seed."""


class CancelledError(GenerationError):
    """The request was cancelled by its caller."""


class DeadlineError(GenerationError):
    """The request's own deadline passed before it was finished."""


class StorageError(SonantError):
    """What was made cannot be kept: the disk is full, or the folder may not be written."""


class BusyError(SonantError):
    """The queue is full; `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DependencyError(SonantError):
    """An optional package is not installed."""


# class -> (HTTP status, process exit code, stable error code). The first match in this order wins.
ERROR_TABLE: tuple[tuple[type[SonantError], int, int, str], ...] = (
    (UnsupportedError, 400, 4, "unsupported"),
    (RequestError, 400, 2, "invalid_request"),
    (VoiceError, 404, 5, "voice_error"),
    (ConfigError, 500, 3, "config_error"),
    (CheckpointError, 500, 3, "checkpoint_error"),
    (CancelledError, 499, 130, "cancelled"),
    (DeadlineError, 503, 7, "deadline_exceeded"),
    (GenerationError, 500, 6, "generation_failed"),
    (StorageError, 507, 10, "storage_unavailable"),
    (BusyError, 503, 8, "overloaded"),
    (DependencyError, 501, 9, "dependency_missing"),
    (SonantError, 500, 1, "internal_error"),
)


def describe(error: SonantError) -> tuple[int, int, str]:
    """HTTP status, exit code and stable code of an error, from the table."""
    for kind, status, exit_code, code in ERROR_TABLE:
        if isinstance(error, kind):
            return status, exit_code, code
    raise AssertionError("the table ends with SonantError")


def few(lines: Sequence[str]) -> list[str]:
    """A list as a message tells it: the first few, very long ones cut, and how many more there are."""
    told = [line if len(line) <= _LINE else f"{line[:_LINE]}..." for line in lines[:_FEW]]
    return [*told, f"and {len(lines) - _FEW} more"] if len(lines) > _FEW else told
