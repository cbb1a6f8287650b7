"""Plays speech while it is made, through whichever player program this machine has."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from sonant.audio.encode import open_encoder
from sonant.errors import DependencyError, GenerationError

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Program:
    """A player: its command, and whether it takes a wav on its standard input or needs a file's name."""

    command: tuple[str, ...]
    takes_stdin: bool = True
    failure: str = ""
    """Among its errors, words of a failure that its status does not tell."""


PROGRAMS: Sequence[Program] = (
    Program(
        ("ffplay", "-loglevel", "error", "-nodisp", "-autoexit", "-i", "-"),
        failure="audio open failed",  # ffplay.c, after which it ends with 0
    ),
    Program(("pw-play", "-")),
    Program(("aplay", "-q", "-t", "wav", "-")),
    Program(("mpv", "--really-quiet", "--no-video", "-")),
    Program(("play", "-q", "-t", "wav", "-")),
    Program(("paplay",), takes_stdin=False),
    Program(("afplay",), takes_stdin=False),
)


def find_player() -> Program:
    """The first player program there is. Raises DependencyError naming them all."""
    for program in PROGRAMS:
        if shutil.which(program.command[0]):
            return program
    names = ", ".join(program.command[0] for program in PROGRAMS)
    raise DependencyError(
        f"no program that plays sound was found; expected one of {names}. Install one (ffplay comes with "
        "ffmpeg), or leave out --play and open the file."
    )


class Player:
    """One sound being played: write samples, close to wait until the last is heard."""

    def __init__(self, sample_rate: int, *, program: Program | None = None) -> None:
        self.program = program or find_player()
        self._encoder = open_encoder("wav", sample_rate)
        self._process: subprocess.Popen[bytes] | None = None
        self._wav = bytearray()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by __exit__; a pipe would have no reader
        if self.program.takes_stdin:
            self._process = subprocess.Popen(
                self.program.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
            )

    def write(self, samples: Samples) -> None:
        """Play the next samples [S]; a player that needs a file starts at `close`."""
        self._send(self._encoder.encode(samples))

    def close(self) -> None:
        """Wait until everything was heard. Raises GenerationError when the player failed."""
        self._send(self._encoder.finish())
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            status = self._process.wait()
        else:
            wav = self._encoder.final_header() + bytes(self._wav[44:])
            with tempfile.TemporaryDirectory(prefix="sonant-") as folder:
                path = Path(folder) / "speech.wav"
                path.write_bytes(wav)
                command = (*self.program.command, str(path))
                status = subprocess.run(command, check=False, stderr=self._errors).returncode
        self._errors.seek(0)
        told = self._errors.read().decode(errors="replace")
        if status or (self.program.failure and self.program.failure in told):
            last = told.strip().rpartition("\n")[2]
            raise GenerationError(
                f"the player {self.program.command[0]} ended with status {status}"
                f"{f' ({last})' if last else ''}; expected it to play to the end. "
                "Check that this machine has a sound device, or leave out --play and open the file."
            )

    def stop(self) -> None:
        """Silence at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _send(self, data: bytes) -> None:
        if self._process is None:
            self._wav += data
            return
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the player went away; its status says why
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def __enter__(self) -> Player:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.close()
        finally:
            self.stop()
            self._errors.close()
