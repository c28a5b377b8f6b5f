"""Where the detectors of guards by slice and of drift start, if not at the grants' last change.

A guard in alarm goes on through a narrowing: its detectors alone know which values are bad, and
good units of other values must not end the alarm.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class DetectorStart:
    """When detectors started, and since when the attempt that they watched counts."""

    changed_at: datetime
    attempt_since: datetime

    def move_back(self, at: datetime) -> "DetectorStart":
        """Return a start that is not after an instant."""
        return DetectorStart(min(self.changed_at, at), min(self.attempt_since, at))


@dataclass(frozen=True, slots=True)
class DetectorStarts:
    """The starts of one version's detectors in a cell.

    Attributes:
        by_guard: of the guards in alarm when grants were last removed; they go on.
        former: start before that, None if no grant was removed since the last widening.
    """

    by_guard: Mapping[str, DetectorStart] = field(default_factory=dict)
    former: DetectorStart | None = None

    def restart(
        self, current: DetectorStart, at: datetime, alarms: Iterable[str]
    ) -> "DetectorStarts":
        """Return the starts after grants were removed: only guards in alarm go on."""
        former = self.former if self.former and current.changed_at == at else current
        starts = {guard: self.by_guard.get(guard, former) for guard in sorted(alarms)}
        return DetectorStarts(MappingProxyType(starts), former)

    def add_alarm(self, guard: str, changed_at: datetime, at: datetime) -> "DetectorStarts":
        """Return the starts with a guard's alarm.

        An alarm at the very instant at which grants were removed rests on the units before.
        """
        if self.former is None or changed_at != at or guard in self.by_guard:
            return self
        return replace(self, by_guard=MappingProxyType({**self.by_guard, guard: self.former}))

    def move_back(self, at: datetime) -> "DetectorStarts":
        """Return the starts after the ledger's time was set back to `at`."""
        starts = {guard: start.move_back(at) for guard, start in self.by_guard.items()}
        former = None if self.former is None else self.former.move_back(at)
        return DetectorStarts(MappingProxyType(starts), former)
