"""What is known of one version in one cell when a decision is made: counts and guard readings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

Key = tuple[str, str | None, str | None]  # measure, label or action, lever


@dataclass(frozen=True, slots=True)
class Counted:
    """Units of one span, each counted once.

    Attributes:
        closed: units that closed in the span.
        missing: of these, the ones without a blind verdict.
        days: local days with a judged unit.
        reviewers: different people who judged one.
        counts: per measure what its gate takes: (successes, failures) of a share, units per cost
            level, or the four parity classes. A measure without records has zeros.
    """

    closed: int = 0
    missing: int = 0
    days: int = 0
    reviewers: int = 0
    counts: Mapping[Key, tuple[int, ...]] = field(default_factory=dict)

    @property
    def judged(self) -> int:
        """Return the units that have a verdict."""
        return self.closed - self.missing


@dataclass(frozen=True, slots=True)
class GuardReading:
    """What a guard saw: whether it is in alarm, at which value over how many records.

    `good_since` is when an operational guard's measure was last seen to turn good, None while bad.
    """

    alarm: bool
    value: str = ""
    records: int = 0
    good_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """Evidence of one (cell, version) through a slot.

    Attributes:
        attempt: everything that counts in the present attempt.
        entered: the same since the cell entered the stage that it is in.
        spans: per stage held, the same within the span of that stage's grant.
        guards: readings by guard id; a guard without records may be left out.
    """

    attempt: Counted = Counted()
    entered: Counted = Counted()
    spans: Mapping[str, Counted] = field(default_factory=dict)
    guards: Mapping[str, GuardReading] = field(default_factory=dict)
