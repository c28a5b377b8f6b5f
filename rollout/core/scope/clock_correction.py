"""Correction of a rollout whose time is ahead of the clock.

One clock jump would block a rollout until that time comes. An incident says so; whoever
acknowledges it confirms the clock. Then the rollout's time goes back to the clock's: entries and
ticks dated ahead hold nothing, and grants that ended in the skipped time stay ended.
"""

from datetime import UTC, datetime, timedelta

from rollout.core.scope.commands import CheckClock, OpenIncident
from rollout.core.scope.events import ENGINE, ClockCorrected
from rollout.core.scope.incident_kinds import CLOCK_BEHIND
from rollout.core.scope.incidents import open_incident
from rollout.core.scope.pending_events import PendingEvents
from rollout.kernel.readings import CORRECTED_CLOCK

CLOCK_TOLERANCE = timedelta(minutes=1)


def is_clock_behind(latest: datetime, clock: datetime) -> bool:
    """Return whether the clock is over a minute behind the last entry or tick."""
    return latest > clock + CLOCK_TOLERANCE


def check_clock(command: CheckClock, pending: PendingEvents) -> None:
    """Open an incident if the clock is behind; correct the rollout's time once it was confirmed."""
    latest = max(pending.at, command.last_slot or pending.at)
    if not is_clock_behind(latest, command.at):
        return
    if pending.scope.confirmed_ahead == latest:
        _correct_clock(pending, command.at.astimezone(UTC), latest)
    else:
        open_clock_incident(pending, command.at, latest)


def open_clock_incident(pending: PendingEvents, clock: datetime, latest: datetime) -> None:
    """Open an incident: the clock is behind the last entry or tick."""
    reason = (
        f"the clock shows {clock.astimezone(UTC).isoformat(timespec='seconds')}, but the last entry"
        f" or tick is of {latest.isoformat(timespec='seconds')}; if the clock is right acknowledge"
        " this, else set it right first"
    )
    open_incident(
        OpenIncident(at=clock, kind=CLOCK_BEHIND.name, reason=reason, about=latest.isoformat()),
        pending,
    )


def _correct_clock(pending: PendingEvents, clock: datetime, latest: datetime) -> None:
    """Set the time to the clock's and void all open proposals."""
    for proposal in list(pending.scope.proposals.values()):
        pending.void_proposal(proposal.id, CORRECTED_CLOCK)
    pending.emit(ClockCorrected(at=clock, by=ENGINE, previous_time=latest))
