"""Assignments that a client makes itself: the rest of their lease is computed when it is read."""

from dataclasses import dataclass, field
from datetime import timedelta

from rollout.client.clocks import Clocks
from rollout.client.leases import NO_TIME
from rollout.core.scope.assignment import Assignment, FallbackAction


@dataclass(frozen=True, slots=True)
class LeaseBounds:
    """The seconds of both clocks between which the lease of a site is valid."""

    clocks: Clocks
    boot_since: float
    boot_until: float
    wall_since: float
    wall_until: float

    def compute_time_until(self, usable_until: float) -> timedelta:
        """Return the time from now to a second of the boot clock; 0 out of bounds."""
        boot, wall = self.clocks.read_seconds()
        if boot is None or boot < self.boot_since:
            return NO_TIME
        if not self.wall_since <= wall <= self.wall_until:
            return NO_TIME
        return max(NO_TIME, timedelta(seconds=min(usable_until, self.boot_until) - boot))


@dataclass(frozen=True, slots=True)
class LocalAssignment:
    """A client's answer to "who decides this case?"; fields as in `Assignment`.

    Attributes:
        usable_until: second of the boot clock until which the answer may be used.
        bounds: of the site's lease; None without one.
    """

    decider: str
    stage: str
    exposure: str
    is_audited: bool
    share: float
    reason: str
    revision: int
    fallbacks: tuple[FallbackAction, ...]
    usable_until: float
    bounds: LeaseBounds | None = field(compare=False, repr=False)

    @property
    def lease(self) -> timedelta:
        """Return how long the answer may still be used, by both clocks."""
        return NO_TIME if self.bounds is None else self.bounds.compute_time_until(self.usable_until)

    @property
    def answer_within(self) -> timedelta | None:
        """Return the time to the first fallback, or None."""
        return min((lever.after for lever in self.fallbacks), default=None)


def build_local_assignment(
    assignment: Assignment, usable_until: float = 0.0, bounds: LeaseBounds | None = None
) -> LocalAssignment:
    """Return an assignment with the end of its use in place of its lease."""
    return LocalAssignment(
        assignment.decider,
        assignment.stage,
        assignment.exposure,
        assignment.is_audited,
        assignment.share,
        assignment.reason,
        assignment.revision,
        assignment.fallbacks,
        usable_until,
        bounds,
    )
