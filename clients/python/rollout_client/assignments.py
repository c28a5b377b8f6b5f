"""A client's answers, which end with the lease of their site."""

from datetime import timedelta
from typing import NamedTuple

from rollout_client.leases import NO_TIME, Clocks
from rollout_client.questions import LeverFallback, ReadyAnswer


class LeaseBounds(NamedTuple):
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


class LocalAssignment(NamedTuple):
    """A client's answer to "who decides this case?".

    Attributes:
        decider: `human` or `model`.
        stage: stage of the version in the cell.
        exposure: what a reviewer sees: `blind` or `assisted`; audits are `blind`.
        share: share of units with sampling values that lead to the same decider.
        revision: ledger revision of the answer.
        fallbacks: of each lever that defines one.
        usable_until: second of the boot clock until which the answer may be used.
        bounds: of the site's lease; None without one.
    """

    decider: str
    stage: str
    exposure: str
    share: float
    reason: str
    revision: int
    fallbacks: tuple[LeverFallback, ...]
    usable_until: float = 0.0
    bounds: LeaseBounds | None = None

    @property
    def lease(self) -> timedelta:
        """Return how long the answer may still be used, by both clocks."""
        return NO_TIME if self.bounds is None else self.bounds.compute_time_until(self.usable_until)

    @property
    def answer_within(self) -> timedelta | None:
        """Return the time to the first fallback, or None."""
        return min((lever.after for lever in self.fallbacks), default=None)


def build_local_assignment(
    answer: ReadyAnswer,
    revision: int = 0,
    fallbacks: tuple[LeverFallback, ...] = (),
    usable_until: float = 0.0,
    bounds: LeaseBounds | None = None,
) -> LocalAssignment:
    """Return an assignment with the end of its use."""
    return LocalAssignment(*answer, revision, fallbacks, usable_until, bounds)
