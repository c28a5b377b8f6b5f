"""Correction of a ledger whose time is ahead of the clock.

One clock jump would block a rollout until that time comes. Two approvals set the ledger's time back
to the clock's; grants that ended in the skipped time stay ended.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from rollout.core.scope.commands import ProposeClockCorrection
from rollout.core.scope.event_base import ENGINE
from rollout.core.scope.events import ClockCorrected, ProposalExpired
from rollout.core.scope.pending_events import PendingEvents
from rollout.core.scope.proposals import build_proposal, compute_evidence_hash
from rollout.core.scope.scope import ProposalState
from rollout.core.scope.stop_targets import TWO_OPERATORS

CLOCK_TOLERANCE = timedelta(minutes=1)
CLOCK_PROPOSAL = "clock"


def is_clock_behind(pending: PendingEvents, clock: datetime) -> bool:
    """Return whether the clock is over a minute behind the ledger's last entry."""
    return pending.at > clock + CLOCK_TOLERANCE


def propose_clock_correction(command: ProposeClockCorrection, pending: PendingEvents) -> None:
    """Propose to set the ledger's time back, unless correct or proposed already.

    The proposal expires by the clock: by the ledger's time it would never expire, or at once.
    """
    if not is_clock_behind(pending, command.at) or any(_list_corrections(pending)):
        return
    clock = command.at.astimezone(UTC)
    to = clock.isoformat()
    readings = (
        f"the ledger's last entry is of {pending.at.isoformat()}",
        f"the clock shows {to}",
    )
    proposal = build_proposal(
        pending, CLOCK_PROPOSAL, command.by.name, TWO_OPERATORS, readings, about=to
    )
    pending.emit(
        replace(
            proposal,
            expires_at=clock + pending.policy.open_for,
            evidence_hash=compute_evidence_hash(("clock", *readings)),
        )
    )


def _list_corrections(pending: PendingEvents) -> list[ProposalState]:
    return [p for p in pending.scope.proposals.values() if p.kind == CLOCK_PROPOSAL]


def apply_clock_correction(pending: PendingEvents, at: datetime) -> bool:
    """Expire, void or apply clock proposals; return whether one was applied.

    `at` is the time of the clock; the decision's own time is the ledger's.
    """
    clock = at.astimezone(UTC)
    for proposal in _list_corrections(pending):
        proposal_id = proposal.id
        if clock >= proposal.expires_at:
            pending.emit(ProposalExpired(at=pending.at, by=ENGINE, proposal=proposal_id))
        elif not is_clock_behind(pending, clock):
            pending.void_proposal(proposal_id, "the clock is no longer behind")
        elif proposal.is_approved and clock >= datetime.fromisoformat(proposal.about):
            _correct_clock(pending, clock, proposal)
            return True
    return False


def _correct_clock(pending: PendingEvents, clock: datetime, approved: ProposalState) -> None:
    """Set the ledger's time to the clock's and void all other open proposals."""
    for other in list(pending.scope.proposals.values()):
        if other.id != approved.id:
            pending.void_proposal(other.id, "the ledger's clock was corrected")
    pending.emit(
        ClockCorrected(at=clock, by=ENGINE, previous_time=pending.at, proposal=approved.id)
    )
