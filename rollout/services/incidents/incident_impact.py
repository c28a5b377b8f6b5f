"""An incident with what it did: the cells before, after and now, and what was counted beside it."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

from rollout.core.calendar.sites import Cell
from rollout.core.policy.cell_evidence import Counted
from rollout.core.policy.policy import Guard, Policy
from rollout.core.scope.events import ProposalRaised
from rollout.core.scope.permissions import Act, Caller
from rollout.core.scope.scope import Scope, stage_at
from rollout.services.engine.evidence_reader import sights_of
from rollout.services.engine.rollout_state import Standing, kept_policy
from rollout.services.engine.service import Service
from rollout.services.incidents.incidents import IncidentStatus, incident_of
from rollout.services.ledger.ledger_reader import cited
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.ledger_pages import ChainPages, KeptRow, Looked
from rollout.store.ledger.policies import Policies
from rollout.tally.evidence_view import Sight
from rollout.tally.slots import slot_before

DID = ("Narrowed", "Suspended", "ProposalVoided")
OF_CELLS = (
    "Widened", "Renewed", "TakenOver", "Narrowed", "Suspended", "SuspensionCleared", "GrantExpired",
    "Stopped", "ProposalRaised", "IncidentOpened",
)  # fmt: skip
VOIDED, SEEN = "ProposalVoided", "IncidentAcknowledged"
EARLIER, LATER = 3, 20  # rows that are told of the cell's time before, and since
LOOKED_AT = 500  # rows in which those of before are looked for
MOST_DONE = 2_000  # rows that one incident may have written: a policy has as many cells


@dataclass(frozen=True, slots=True)
class Fallen:
    """A cell that an incident touched: its stage before, just after, and now.

    `withheld` is what withholds its grants now: `stopped` or `suspended`, else "".
    """

    cell: Cell
    version: str
    before: str
    after: str
    now: str
    withheld: str


@dataclass(frozen=True, slots=True)
class Span:
    """What was counted of a cell from one instant up to another."""

    since: datetime
    until: datetime
    counted: Counted


@dataclass(frozen=True, slots=True)
class Aftermath:
    """An incident with what it did.

    Attributes:
        incident: as it is listed.
        policy: the policy in force now.
        guard: the guard as the policy has it now; None where it has none of that name any more.
        cells: those that it touched, its own one first; () where it touched none.
        earlier, did, since: rows of the ledger about these cells: before, its own, and later ones.
        raised, approved: the proposals that these rows cite, and who said yes to each.
        before, after: what was counted in its cell since the stage that it held then began, and
            since the incident; None where it is about no version in a cell of the policy.
        attempt: the number of the attempt whose evidence counts now.
        proposals: ids of what is open about the cell now.
    """

    incident: IncidentStatus
    policy: Policy
    guard: Guard | None
    cells: tuple[Fallen, ...]
    earlier: tuple[KeptRow, ...]
    did: tuple[KeptRow, ...]
    since: tuple[KeptRow, ...]
    raised: dict[str, ProposalRaised]
    approved: dict[str, list[str]]
    before: Span | None
    after: Span | None
    attempt: int
    proposals: tuple[str, ...]


def aftermath(
    service: Service, caller: Caller, name: str, incident: str, *, at: datetime
) -> Aftermath:
    """Return an incident with what it did, and what became of it.

    Of cells at sites that the caller may not read nothing is said.

    Raises:
        UnknownIncident: none of that id was ever opened.
        NotAllowed: it is of a site that the caller may not read.
    """
    told = incident_of(service, caller, name, incident)
    state = service.watch.confirmed(name).standing
    with service.database.reading() as transaction:
        pages, ledger = ChainPages(transaction, state.rollout), Ledger(transaction, state.rollout)
        all_entries = _done(pages, told)
        own_entries = tuple(
            own_entry for own_entry in all_entries if _readable(own_entry, caller, name)
        )
        cells = _cells(told, own_entries)
        first_revision = all_entries[0].row.revision if all_entries else told.revision
        scope_before, scope_after = (
            ledger.scope_of(first_revision - 1),
            ledger.scope_of(told.revision),
        )
        policy = _policy_of(transaction, state, scope_before)
        earlier_entries = tuple(_earlier(pages, cells, first_revision))
        later_entries = tuple(islice(_later(ledger, pages, cells, told), LATER))
        cited_proposals, approvers = cited(
            transaction,
            state.rollout,
            [entry.row for entry in (*earlier_entries, *own_entries, *later_entries)],
        )
    period_before, period_after = _spans(service, state, scope_before, told, at)
    affected_cells = (
        _fallen(state, policy, cell, scope_before, scope_after, told, at) for cell in cells
    )
    return Aftermath(
        incident=told,
        policy=state.policy,
        guard=next((guard for guard in state.policy.guards if guard.id == told.guard), None),
        cells=tuple(affected_cell for affected_cell in affected_cells if affected_cell is not None),
        earlier=earlier_entries,
        did=own_entries,
        since=later_entries,
        raised=cited_proposals,
        approved=approvers,
        before=period_before,
        after=period_after,
        attempt=_attempt(state, told),
        proposals=tuple(
            proposal.id for proposal in state.scope.proposals.values() if proposal.cell in cells
        ),
    )


def _done(pages: ChainPages, told: IncidentStatus) -> tuple[KeptRow, ...]:
    """Return the rows that the incident's guard wrote just before it, oldest first.

    A tick writes what an alarm does and then the incident, all at one instant.
    """
    if not told.guard:
        return ()
    row_filter = Looked(since=told.opened_at)
    entries: list[KeptRow] = []
    for entry in pages.some(row_filter, before=told.revision, limit=MOST_DONE):
        is_next = entry.row.revision == told.revision - len(entries) - 1
        is_own_effect = (
            entry.row.event_kind == VOIDED or entry.row.fields.get("guard") == told.guard
        )
        if not (is_next and entry.row.event_kind in DID and is_own_effect):
            break
        entries.append(entry)
    return tuple(reversed(entries))


def _readable(kept: KeptRow, caller: Caller, name: str) -> bool:
    site = kept.row.fields.get("site")
    return caller.may(Act.READ, name, site or "")


def _cells(told: IncidentStatus, did: Collection[KeptRow]) -> tuple[Cell, ...]:
    bodies = [entry.row.fields for entry in did if entry.row.event_kind != VOIDED]
    own_cell = [Cell(told.site, told.window)] if told.site else []
    return tuple(
        dict.fromkeys([*own_cell, *(Cell(body["site"], body["window"]) for body in bodies)])
    )


def _policy_of(transaction: Transaction, stood: Standing, scope: Scope) -> Policy:
    texts = Policies(transaction, stood.rollout).texts({scope.policy_hash})
    return kept_policy(texts[scope.policy_hash]) if texts else stood.policy


def _fallen(
    stood: Standing,
    policy: Policy,
    cell: Cell,
    then: Scope,
    thereafter: Scope,
    told: IncidentStatus,
    at: datetime,
) -> Fallen | None:
    """Return what became of a cell; None where no version was concerned there."""
    version = then.holder(cell) or told.version
    if not version or version not in then.versions:
        return None
    scope = stood.scope
    withheld = "stopped" if scope.stopped(cell) else ""
    if not withheld and scope.state(cell, version).suspended_by:
        withheld = "suspended"
    return Fallen(
        cell=cell,
        version=version,
        before=_stage(then, policy, cell, version, told.opened_at),
        after=_stage(thereafter, policy, cell, version, told.opened_at),
        now=_stage(scope, stood.policy, cell, version, at),
        withheld=withheld,
    )


def _stage(scope: Scope, policy: Policy, cell: Cell, version: str, at: datetime) -> str:
    return policy.rungs[stage_at(scope, policy, cell, version, at)]


def _earlier(pages: ChainPages, cells: Collection[Cell], first: int) -> list[KeptRow]:
    """Return the last rows about the cells before a revision, oldest first."""
    entries = pages.some(Looked(kinds=OF_CELLS), before=first, limit=LOOKED_AT) if cells else []
    return [entry for entry in entries if _is_of(entry, cells)][:EARLIER][::-1]


def _later(
    ledger: Ledger, pages: ChainPages, cells: Collection[Cell], told: IncidentStatus
) -> Iterator[KeptRow]:
    """Yield the rows about the cells, or this incident, after it."""
    kinds = (*OF_CELLS, SEEN)
    for row in ledger.rows(after=told.revision, kinds=kinds):
        is_acknowledgement = row.event_kind == SEEN and row.fields["incident"] == told.id
        if is_acknowledgement or (row.event_kind != SEEN and _cell_in(row.fields, cells)):
            yield from pages.at([row.revision])


def _is_of(kept: KeptRow, cells: Collection[Cell]) -> bool:
    return _cell_in(kept.row.fields, cells)


def _cell_in(body: dict[str, Any], cells: Collection[Cell]) -> bool:
    bodies = [body, *body.get("cells", ())]
    return any(
        Cell(cell_body["site"], cell_body["window"]) in cells
        for cell_body in bodies
        if cell_body.get("site")
    )


def _spans(
    service: Service, stood: Standing, then: Scope, told: IncidentStatus, at: datetime
) -> tuple[Span | None, Span | None]:
    """Return what was counted in the incident's cell up to it, and since."""
    cell, version = Cell(told.site, told.window), told.version
    if cell not in stood.policy.known or version not in then.versions:
        return None, None
    evidence_view = sights_of(service.database, stood, (cell,)).get((cell, version))
    if evidence_view is None:
        return None, None
    state_before, cell_state = then.state(cell, version), stood.scope.state(cell, version)
    before = _span(
        replace(evidence_view, state=state_before), state_before.changed_at, told.opened_at
    )
    since = _span(
        replace(evidence_view, state=replace(cell_state, changed_at=told.opened_at)),
        told.opened_at,
        at,
    )
    return before, since


def _span(sight: Sight, since: datetime, until: datetime) -> Span:
    return Span(since, until, sight.entered.at(slot_before(until, sight.policy.tick)))


def _attempt(stood: Standing, told: IncidentStatus) -> int:
    if told.version not in stood.scope.versions or not told.site:
        return 1
    return stood.scope.state(Cell(told.site, told.window), told.version).attempt
