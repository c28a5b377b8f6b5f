"""What a proposal rests on and waits for: imports in its evidence, and until when."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout.core.calendar.sites import Cell
from rollout.core.ledger.ledger import parse_as
from rollout.core.scope.events import RecordsImported
from rollout.core.scope.proposal_holds import ProposalHold, list_proposal_holds
from rollout.core.scope.scope import ProposalState
from rollout.reports.text.formatting import format_zoned_time
from rollout.reports.text.state_text import TICK, describe_hold
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.tally.slots import find_slot_after, to_instant


@dataclass(frozen=True, slots=True)
class EvidenceImport:
    """An import of cases of a proposal's cell, before the proposal was raised.

    Attributes:
        by: the user who vouches for the times of receipt.
        cases: imported cases of the cell, whether they count or not.
        received_since, received_until: first and last time of receipt in the files.
        files: the files' names.
    """

    by: str
    imported_at: datetime
    cases: int
    received_since: datetime
    received_until: datetime
    files: tuple[str, ...]


ImportsByRevision = dict[int, RecordsImported]


def load_imports(transaction: Transaction, rollout: Rollout) -> ImportsByRevision:
    """Return all imports of a rollout by ledger revision."""
    rows = Ledger(transaction, rollout).list_rows(kinds={RecordsImported.__name__})
    return {row.revision: parse_as(row, RecordsImported) for row in rows}


def select_imports(
    imports: ImportsByRevision, cell: Cell | None, raised_in: int
) -> tuple[EvidenceImport, ...]:
    """Return the imports of a cell's cases before a revision, oldest first."""
    events = (event for revision, event in imports.items() if revision < raised_in)
    return tuple(_iterate_cell_imports(events, cell))


def _iterate_cell_imports(
    events: Iterable[RecordsImported], cell: Cell | None
) -> Iterable[EvidenceImport]:
    for event in events:
        cases = dict(zip(event.cells, event.cell_cases, strict=True)).get(cell) if cell else None
        if cases:
            yield EvidenceImport(
                by=event.by,
                imported_at=event.imported_at,
                cases=cases,
                received_since=event.received_since,
                received_until=event.received_until,
                files=event.files,
            )


@dataclass(frozen=True, slots=True)
class ProposalWait:
    """A reason why an approved proposal is not applied yet.

    Attributes:
        reason: tick, observing, facts, harm, fresh, stop, freeze, alarm, wave or settling.
        text: what it waits for, in words.
        until: when the reason ends if nothing changes; None if that is not known. The first tick
            from then on applies the proposal.
    """

    reason: str
    text: str
    until: datetime | None


def list_proposal_waits(
    state: RolloutState, proposal_id: str, at: datetime
) -> tuple[ProposalWait, ...]:
    """Return what an approved proposal waits for; () for any other proposal."""
    proposal = state.scope.proposals.get(proposal_id)
    if proposal is None or not proposal.is_approved:
        return ()
    zone = state.policy.timezone if proposal.cell is None else _find_zone(state, proposal)

    def format_time(instant: datetime) -> str:
        return format_zoned_time(instant, zone, at)

    return tuple(
        ProposalWait(hold.kind, describe_hold(hold, format_time), hold.until)
        for hold in list_holds_or_tick(state, proposal, at)
    )


def _find_zone(state: RolloutState, proposal: ProposalState) -> str:
    assert proposal.cell is not None  # noqa: S101 - asked before
    return state.policy.get_timezone(proposal.cell.site)


def list_holds_or_tick(
    state: RolloutState, proposal: ProposalState, at: datetime
) -> tuple[ProposalHold, ...]:
    """Return all that holds a proposal back, or the next tick if nothing does."""
    scope_at = at if state.scope.at is None else max(at, state.scope.at)
    holds = list_proposal_holds(state.scope, state.policy, proposal, scope_at)
    if proposal.is_held and not holds:
        holds = (ProposalHold("fresh", ""),)
    tick = state.policy.tick
    next_tick = to_instant(find_slot_after(at + timedelta(microseconds=1), tick), tick)
    return holds or (ProposalHold(TICK, "", next_tick),)
