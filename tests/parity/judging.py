"""What `compare` and `bisect` say of a planted fault, and what of it is not right."""

from dataclasses import dataclass

from sonant.parity.bisect import Bisection, bisect
from sonant.parity.compare import compare
from sonant.parity.record import record
from sonant.parity.stages import stage_table
from sonant.parity.verdicts import Comparison
from tests.parity import cases
from tests.parity.faults import Fault


@dataclass(frozen=True)
class Answers:
    """Both answers. A fault is missed where an answer does not tell of it, and a claim is false where it
    tells of something else."""

    fault: Fault
    first: str
    """The documented stage that `compare` points at."""
    found: Comparison
    split: Bisection

    @property
    def named(self) -> tuple[str, ...]:
        """The documented stages that `bisect` names."""
        return tuple(item.stage for item in self.split.faults)

    @property
    def wrongs(self) -> dict[str, str]:
        """What is not right, by "missed by compare", "false by compare" and so on; empty if all is."""
        fault, found, split = self.fault, self.found, self.split
        status = "suspicious" if fault.is_suspicious else "wrong"
        expected = set() if fault.ends else set(fault.stages)
        checks = (
            ("missed by compare", found.first_failed is None, "nothing is named"),
            ("missed by compare", not self.has_words, f"no words {fault.words!r}: {found.diagnosis}"),
            (
                "false by compare",
                self.first not in ("", fault.stages[0]),
                f"{self.first} for the first stage",
            ),
            ("false by compare", found.inputs_differed is True, f"inputs that differ: {found.headline}"),
            ("false by compare", found.status != status, f"{found.status}, not {status}"),
            ("missed by bisect", expected - set(self.named), f"{expected - set(self.named)} not named"),
            ("missed by bisect", fault.ends and not split.ended, "no word of the end"),
            ("false by bisect", set(self.named) - expected, f"{set(self.named) - expected} named"),
            ("false by bisect", split.ended and not fault.ends, split.ended),
            ("false by bisect", split.status != status, f"{split.status}, not {status}"),
            ("false by bisect", split.stopped, f"stopped {split.stopped}"),
        )
        return {kind: words for kind, is_so, words in checks if is_so}

    @property
    def has_words(self) -> bool:
        """Whether the diagnosis says what it must."""
        return not self.fault.words or any(self.fault.words in line for line in self.found.diagnosis)

    def row(self, family: str) -> str:
        """A line of a table of what was said."""
        said = self.split.ended if self.fault.ends else ", ".join(f"`{name}`" for name in self.named)
        words = "; ".join(self.found.diagnosis[:2])
        kind, what, first = self.fault.kind, self.fault.what, self.found.first_failed
        return f"| {family} | {kind} | {what} | `{first}` | {words} | {said} |"


def answers(family: str, fault: Fault, patch) -> Answers:
    """Plant a fault and ask both."""
    reference = cases.reference(family)
    fault.inject(patch)
    found = compare(reference, record(cases.load(family), cases.task(family)))
    split = bisect(cases.load(family), reference)
    name = (found.first_failed or "").split("@")[0]
    first = stage_table(reference.family).pattern_of(name) if name else ""
    return Answers(fault, first, found, split)
