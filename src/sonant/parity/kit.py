"""Run a conformance kit: a folder of tiny checkpoints with the original's own outputs at every stage.

A family whose table lies in `sonant.parity.kits` has its runner there; this file recognises the kit and
reports, one line for each checked tensor: case, name, shape, largest absolute error, tolerance, PASS or FAIL.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonant.catalogue.registry import having
from sonant.errors import CheckpointError
from sonant.parity.listening import heard

LISTENER_DB, LISTENER_SHARE = 0.1, 0.01
"""What a listener does not hear: a tenth of a just noticeable level, and magnitudes 40 dB below the sound."""

RUNNERS = having("sonant.parity.kits", "{}.toml")
"""Families with a table there; the module beside it has `recognises(folder)` and `run(folder, report)`."""


class Recorded(Mapping[str, Tensor]):
    """Tensors of one file of a kit, which remembers what was read.

    Looking for a key, or going through the keys, reads nothing; taking a tensor does.
    """

    def __init__(self, path: Path) -> None:
        from sonant.checkpoints.files import read_tensors

        self._tensors = read_tensors(path)
        self.unread = set(self._tensors)

    def __getitem__(self, key: str) -> Tensor:
        tensor = self._tensors[key]
        self.unread.discard(key)
        return tensor

    def __contains__(self, key: object) -> bool:
        return key in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def shapes(self) -> dict[str, list[int]]:
        """Shape of every tensor, none of them read."""
        return {key: list(tensor.shape) for key, tensor in self._tensors.items()}

    def groups(self) -> list[str]:
        """Words before the first dot, in order."""
        return list(dict.fromkeys(key.split(".")[0] for key in self._tensors))


class RecordedFiles:
    """Tensor files of one kit by path, each opened once; tells at the end what no check has read."""

    def __init__(self, folder: Path, pattern: str = "**/*.safetensors") -> None:
        self.folder = folder
        self._pattern = pattern
        self._open: dict[str, Recorded] = {}

    def __getitem__(self, name: str) -> Recorded:
        """The file `name`, a path in the folder without its suffix. Raises CheckpointError without it."""
        if name not in self._open:
            self._open[name] = Recorded(self.folder / f"{name}.safetensors")
        return self._open[name]

    def __contains__(self, name: object) -> bool:
        return (self.folder / f"{name}.safetensors").is_file()

    def names(self) -> list[str]:
        """Every file of the folder that the pattern fits, sorted."""
        paths = self.folder.glob(self._pattern)
        return sorted(path.relative_to(self.folder).with_suffix("").as_posix() for path in paths)

    def check_coverage(self, report: KitReport) -> None:
        """One check: every tensor of every file was read by some check before."""
        unread = [
            f"{name}: {key}"
            for name in self.names()
            for key in (sorted(self._open[name].unread) if name in self._open else ["the whole file"])
        ]
        report.equal("coverage", "tensors that no check has read", unread, [])


class KitReport:
    """Counts and prints the checks of one kit."""

    def __init__(self, write: Callable[[str], None], *, verbose: bool = False) -> None:
        self._write = write
        self._verbose = verbose
        self.passed = 0
        self.failed = 0

    def close(
        self,
        case: str,
        name: str,
        found: Any,
        expected: Any,
        tolerance: float,
        exact: Callable[[], Any] | None = None,
    ) -> bool:
        """Check floats: same shape, same non-finite places, largest absolute difference in tolerance.

        Two processors round differently, each within the tolerance of what float64 gives, and may be up to
        twice as far apart. So where they are farther apart, `exact`, the same in float64, is asked (None of
        what is not computed in it): both must be in the tolerance of that.
        """
        a, b = _array(found).astype(np.float64), _array(expected).astype(np.float64)
        if a.shape != b.shape:
            return self._line(case, name, b.shape, f"shape {a.shape}", tolerance, False)
        finite = np.isfinite(b)
        if not np.array_equal(np.isfinite(a), finite) or not np.array_equal(a[~finite], b[~finite]):
            return self._line(case, name, b.shape, "non-finite differ", tolerance, False)
        error = float(np.abs(a[finite] - b[finite]).max()) if finite.any() else 0.0
        detail, good = f"{error:.3e}", error <= tolerance
        held = exact() if exact is not None and tolerance < error <= 2 * tolerance else None
        if held is not None:
            right = _array(held).astype(np.float64)
            ours, theirs = (
                float(np.abs(one[finite] - right[finite]).max()) if right.shape == b.shape else float("inf")
                for one in (a, b)
            )
            detail = f"{error:.3e}, from float64 {ours:.3e} here and {theirs:.3e} as recorded"
            good = ours <= tolerance and theirs <= tolerance
        return self._line(case, name, b.shape, detail, tolerance, good)

    def sound(
        self,
        case: str,
        name: str,
        found: Tensor,
        expected: Tensor,
        tolerance: float,
        again: Callable[[], tuple[Tensor, float] | None],
    ) -> bool:
        """Check a whole request's waveform [1, S]: by its samples, or by what the stages before it allow.

        A source whose phase adds up over time turns rounding of the mel into samples hundreds of times
        farther apart, which nobody hears. Then three things must hold instead: `again`, the waveform from
        the recorded mel, is in the tolerance that it comes with; and spectra agree to a listener's ear.
        """
        error = _largest(found, expected)
        if error <= tolerance or found.shape != expected.shape:
            return self.close(case, name, found, expected, tolerance)
        fed = again()
        if fed is None:
            return self.close(case, name, found, expected, tolerance)
        waveform, limit = fed
        by_stage = _largest(waveform, expected)
        ear = heard(expected, found)
        detail = (
            f"{error:.3e}, from the recorded mel {by_stage:.3e} (<= {limit:.1e}), to the ear "
            f"{ear.decibels:.3f} dB (<= {LISTENER_DB}) and {ear.convergence:.1e} (<= {LISTENER_SHARE})"
        )
        good = by_stage <= limit and ear.decibels <= LISTENER_DB and ear.convergence <= LISTENER_SHARE
        return self._line(case, name, tuple(expected.shape), detail, tolerance, good)

    def equal(self, case: str, name: str, found: Any, expected: Any) -> bool:
        """Check integers, strings or plain data: everything equal."""
        if isinstance(expected, (str, dict, list, tuple, bool, int, type(None))):
            same = found == expected
            shape: tuple[int, ...] = (len(expected),) if isinstance(expected, (list, tuple)) else ()
            detail = "equal" if same else f"found {_short(found)}, expected {_short(expected)}"
            return self._line(case, name, shape, detail, 0, same)
        a, b = _array(found), _array(expected)
        if a.shape != b.shape:
            return self._line(case, name, b.shape, f"shape {a.shape}", 0, False)
        wrong = int((a != b).sum())
        first = f", first at {np.argwhere(a != b)[0].tolist()}" if wrong and a.ndim else ""
        return self._line(case, name, b.shape, f"{wrong} differ{first}", 0, wrong == 0)

    def check(self, case: str, name: str, holds: bool, detail: str = "") -> bool:
        """Record a plain truth, such as "raises the right error"."""
        return self._line(case, name, (), detail or ("holds" if holds else "does not hold"), 0, holds)

    @contextmanager
    def section(self, case: str) -> Iterator[None]:
        """A crash inside becomes one FAIL of this case, and the run goes on."""
        try:
            yield
        except Exception as error:
            if self._verbose:
                self._write(traceback.format_exc())
            self._line(case, "ran to its end", (), f"{type(error).__name__}: {_short(error)}", 0, False)

    def _line(
        self,
        case: str,
        name: str,
        shape: tuple[int, ...],
        detail: str,
        tolerance: float,
        good: bool,
    ) -> bool:
        self.passed += good
        self.failed += not good
        limit = f"{tolerance:.1e}" if tolerance else "exact"
        size = "x".join(str(n) for n in shape) or "-"
        self._write(f"{'PASS' if good else 'FAIL'}  {case:<40} {name:<44} {size:<16} {detail} (<= {limit})")
        return good


def _largest(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    difference = (found.double() - expected.double()).abs()
    return float(difference.max().nan_to_num(float("inf"))) if difference.numel() else 0.0


def _array(value: Any) -> np.ndarray[Any, Any]:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()
    return np.asarray(value)


def _short(value: Any) -> str:
    text = str(value).replace("\n", " ")
    return text if len(text) <= 160 else text[:157] + "..."


def run_kit(folder: Path, write: Callable[[str], None], *, verbose: bool = False) -> bool:
    """Run the kit in `folder`; True when something was checked and nothing failed.

    Raises CheckpointError when the folder is no kit that Sonant knows.
    """
    for name in RUNNERS:
        runner = import_module(f"sonant.parity.kits.{name}")
        if runner.recognises(folder):
            report = KitReport(write, verbose=verbose)
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # kits are recorded with one
            try:
                runner.run(folder, report)
            finally:
                torch.set_num_threads(threads)
            write("")
            write(f"{report.passed} passed, {report.failed} failed")
            return report.failed == 0 and report.passed > 0
    raise CheckpointError(
        f"{folder} is no conformance kit of a known family ({', '.join(RUNNERS)}). "
        "Give the folder that holds the kit's README and manifest."
    )
