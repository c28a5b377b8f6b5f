"""The result of a check of evidence, in numbers and sentences."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from rollout.data.counting.unit_records import UnsealedRecords

MAX_FAULTS: Final = 20  # sentences; the others are counted


@dataclass(slots=True)
class EvidenceReport:
    """The result of a check.

    Attributes:
        records, units: numbers of records hashed anew and of units counted anew.
        erased_units: units that rest on erased content.
        erasures: revisions of the events that took it, or an action or outcome.
        other_records: actions and outcomes compared with the hashes that ticks took.
        erased_records: those of them that an event took.
        unsealed_records: actions and outcomes that no tick's digest covers.
        large_ticks: those of a sample of which only runs were read, and no digest was compared.
        unread_lines: their other units, actions and outcomes.
        fault_count: all differences; `faults` has a sentence for the first ones.
    """

    records: int = 0
    units: int = 0
    erased_units: int = 0
    erasures: set[int] = field(default_factory=set)
    other_records: int = 0
    erased_records: int = 0
    unsealed_records: UnsealedRecords = field(default_factory=UnsealedRecords)
    large_ticks: int = 0
    unread_lines: int = 0
    fault_count: int = 0
    faults: list[str] = field(default_factory=list)

    def add_faults(self, faults: Iterable[str]) -> None:
        """Add differences; the first ones in words."""
        for fault in faults:
            self.fault_count += 1
            if len(self.faults) < MAX_FAULTS:
                self.faults.append(fault)

    def summarize(self) -> str:
        """Return the numbers in one line."""
        tracks = "a version's unit counts once for gates and once for guards"
        parts = [
            f"{self.erased_units:,} units rest on erased content{_list_events(self.erasures)}",
            f"{self.units:,} recomputed ({tracks}) from {self.records:,} records",
            f"{self.fault_count:,} differ",
        ]
        if self.other_records:
            erased = f", {self.erased_records} of them erased" if self.erased_records else ""
            parts.append(f"{self.other_records} actions and outcomes compared{erased}")
        if self.large_ticks:
            parts.append(
                f"{self.unread_lines} units, actions and outcomes of {self.large_ticks} large "
                "ticks were not read"
            )
        unsealed = self.unsealed_records
        if unsealed.newest is not None:
            parts.append(
                f"{unsealed.number} actions and outcomes are in no tick's digest: somebody added "
                "them to the database; the newest was received at "
                f"{unsealed.newest.isoformat()}"
            )
        return ", ".join(parts)

    def list_faults(self) -> Iterator[str]:
        """Yield the sentences; the last one counts the others."""
        yield from self.faults
        if self.fault_count > len(self.faults):
            yield f"and {self.fault_count - len(self.faults)} more"


def _list_events(revisions: Iterable[int]) -> str:
    """Return revisions in brackets; "" without any."""
    names = ", ".join(map(str, sorted(revisions)))
    return f" (events {names})" if names else ""
