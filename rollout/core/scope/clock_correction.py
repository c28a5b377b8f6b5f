"""A ledger whose time is ahead of the clock: how people set it right.

One jump of a clock would hold a rollout still until that time really comes. Two people may set
the ledger's time back to the clock's; whatever was lost in the time that never was stays lost.
"""

from datetime import UTC, datetime, timedelta

from rollout.core.scope.commands import CorrectClock
from rollout.core.scope.events import (
    ClockCorrected,
    ProposalExpired,
    ProposalRaised,
    ProposalVoided,
)
from rollout.core.scope.pending_events import Draft
from rollout.core.scope.proposals import evidence_hash
from rollout.core.scope.scope import ENGINE, Proposal
from rollout.core.scope.stops import TWO_OPERATORS

CLOCK_TOLERANCE = timedelta(minutes=1)
KIND = "clock"


def is_behind(draft: Draft, clock: datetime) -> bool:
    """Say whether the clock stands more than a minute before the ledger's last entry."""
    return draft.at > clock + CLOCK_TOLERANCE


def raise_correction(command: CorrectClock, draft: Draft) -> None:
    """Propose that the ledger's time goes back; nothing where it is right, or asked already.

    The proposal lives by the clock: by the ledger's time it would never expire, or at once.
    """
    if not is_behind(draft, command.at) or any(_corrections(draft)):
        return
    clock = command.at.astimezone(UTC)
    to = clock.isoformat()
    reading_lines = (
        f"the ledger's last entry is of {draft.at.isoformat()}",
        f"the clock shows {to}",
    )
    draft.emit(
        ProposalRaised(
            at=draft.at,
            by=command.by.name,
            proposal=f"P-{draft.scope.raised + 1}",
            kind=KIND,
            expires_at=clock + draft.policy.open_for,
            needs=TWO_OPERATORS,
            evidence_hash=evidence_hash(("clock", *reading_lines)),
            about=to,
            readings=reading_lines,
        )
    )


def _corrections(draft: Draft) -> list[Proposal]:
    return [p for p in draft.scope.proposals.values() if p.kind == KIND]


def corrected(draft: Draft, at: datetime) -> bool:
    """Follow up the proposals to set the ledger's time right; say whether one was applied.

    Args:
        draft: the decision; its own time is the ledger's.
        at: what the clock shows.
    """
    clock = at.astimezone(UTC)
    for proposal in _corrections(draft):
        proposal_id = proposal.id
        if clock >= proposal.expires_at:
            draft.emit(ProposalExpired(at=draft.at, by=ENGINE, proposal=proposal_id))
        elif not is_behind(draft, clock):
            reason = "the clock is no longer behind"
            draft.emit(ProposalVoided(at=draft.at, by=ENGINE, proposal=proposal_id, reason=reason))
        elif proposal.approved and clock >= datetime.fromisoformat(proposal.about):
            _correct(draft, clock, proposal)
            return True
    return False


def _correct(draft: Draft, clock: datetime, approved: Proposal) -> None:
    """Set the ledger's time to the clock's. What else is open was raised by the wrong time."""
    reason = "the ledger's clock was corrected"
    for other in list(draft.scope.proposals.values()):
        if other.id != approved.id:
            draft.emit(ProposalVoided(at=draft.at, by=ENGINE, proposal=other.id, reason=reason))
    draft.emit(ClockCorrected(at=clock, by=ENGINE, previous_time=draft.at, proposal=approved.id))
