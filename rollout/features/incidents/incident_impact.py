"""Impact of an incident: its cells before, after and now, and their counts."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from rollout.data.database.rollouts import PolicyTexts
from rollout.data.database.session import Transaction
from rollout.data.ledger.ledger import Ledger, LedgerEntry, LedgerFilter, LedgerPages
from rollout.engine.decide.guards import describe_cell_attempt
from rollout.engine.decide.permissions import Caller, Permission
from rollout.engine.decide.scope import CellState, Scope, compute_stage_level
from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.engine.words.event_kinds import CELL_KINDS
from rollout.engine.words.event_text import CitedProposals
from rollout.features.incidents.incidents import IncidentStatus, load_incident
from rollout.features.ledger.ledger_reader import load_cited_proposals
from rollout.kernel.calendar.instants import Cell, find_slot_before, to_instant
from rollout.kernel.policy.cell_evidence import EvidenceCounts
from rollout.kernel.policy.policy import Guard, Policy
from rollout.live.evidence.evidence_reader import load_evidence_views
from rollout.live.rollout_state import RolloutState, parse_stored_policy
from rollout.live.service import Service

INCIDENT_EFFECT_KINDS = ("Narrowed", "Suspended", "ProposalVoided")
PROPOSAL_VOIDED, INCIDENT_ACKNOWLEDGED = "ProposalVoided", "IncidentAcknowledged"
MAX_EARLIER_ROWS, MAX_LATER_ROWS = 3, 20  # entries about the cells to show
MAX_SEARCHED_ROWS = 500  # entries to search for the earlier ones
MAX_INCIDENT_ROWS = 2_000  # entries of one incident: a policy may have as many cells


@dataclass(frozen=True, slots=True)
class AffectedCell:
    """A cell that an incident changed: its stage before, after and now.

    `withheld` is `stopped` or `suspended` if its grants are withheld now, else "".
    """

    cell: Cell
    version: str
    stage_before: str
    stage_after: str
    stage_now: str
    withheld: str


@dataclass(frozen=True, slots=True)
class EvidencePeriod:
    """Counts of a cell in a period."""

    since: datetime
    until: datetime
    counts: EvidenceCounts


@dataclass(frozen=True, slots=True)
class ImpactEntries:
    """Ledger entries about an incident's cells; its own begin at `first_revision`."""

    first_revision: int
    cells: tuple[Cell, ...]
    earlier: tuple[LedgerEntry, ...]
    own: tuple[LedgerEntry, ...]
    later: tuple[LedgerEntry, ...]


@dataclass(frozen=True, slots=True)
class IncidentImpact:
    """An incident with its impact.

    Attributes:
        policy: the policy in force now.
        guard: the guard in that policy; None if it has no such guard.
        cells: its own cell first; () if it changed none.
        cited: the proposals in the entries.
        period_before, period_after: counts in its cell since the stage before began, and since the
            incident; None without a version in a cell of the policy.
        state_before: the version's state in its cell before the incident; None without both.
        attempt_text: the current attempt of its cell; "" without a version in a cell of the policy.
        open_proposals: ids of open proposals about its cells.
    """

    incident: IncidentStatus
    policy: Policy
    guard: Guard | None
    cells: tuple[AffectedCell, ...]
    entries: ImpactEntries
    cited: CitedProposals
    period_before: EvidencePeriod | None
    period_after: EvidencePeriod | None
    state_before: CellState | None
    attempt_text: str
    open_proposals: tuple[str, ...]


def load_incident_impact(
    service: Service, caller: Caller, rollout_name: str, incident_id: str, *, at: datetime
) -> IncidentImpact:
    """Return an incident with its impact.

    Cells at sites that the caller may not read are omitted.

    Raises:
        UnknownIncidentError: there is no such incident.
        NotAllowedError: the caller may not read its site.
    """
    incident = load_incident(service, caller, rollout_name, incident_id)
    state = service.state_cache.reload_rollout(rollout_name).state
    with service.database.begin_read() as transaction:
        entries = _load_entries(transaction, state, caller, incident)
        ledger = Ledger(transaction, state.rollout)
        scope_before = ledger.load_scope_of_revision(entries.first_revision - 1)
        scope_after = ledger.load_scope_of_revision(incident.revision)
        policy = _load_policy_of_scope(transaction, state, scope_before)
        rows = [entry.row for entry in (*entries.earlier, *entries.own, *entries.later)]
        cited = load_cited_proposals(transaction, state.rollout, rows)
    period_before, period_after = _build_evidence_periods(
        service, state, scope_before, incident, at
    )
    affected_cells = (
        _build_affected_cell(state, policy, cell, scope_before, scope_after, incident, at)
        for cell in entries.cells
    )
    return IncidentImpact(
        incident=incident,
        policy=state.policy,
        guard=next((guard for guard in state.policy.guards if guard.id == incident.guard), None),
        cells=tuple(affected_cell for affected_cell in affected_cells if affected_cell is not None),
        entries=entries,
        cited=cited,
        period_before=period_before,
        period_after=period_after,
        state_before=(
            None
            if period_before is None
            else scope_before.get_cell_state(Cell(incident.site, incident.window), incident.version)
        ),
        attempt_text=_describe_attempt(state, incident, at),
        open_proposals=tuple(
            proposal.id
            for proposal in state.scope.proposals.values()
            if proposal.cell in entries.cells
        ),
    )


def _load_entries(
    transaction: Transaction, state: RolloutState, caller: Caller, incident: IncidentStatus
) -> ImpactEntries:
    pages, ledger = LedgerPages(transaction, state.rollout), Ledger(transaction, state.rollout)
    all_entries = _find_incident_entries(pages, incident)
    own_entries = tuple(
        entry for entry in all_entries if _is_readable(entry, caller, state.rollout.name)
    )
    cells = _list_affected_cells(incident, own_entries)
    first_revision = all_entries[0].row.revision if all_entries else incident.revision
    later_entries = _iterate_later_entries(ledger, pages, cells, incident)
    return ImpactEntries(
        first_revision=first_revision,
        cells=cells,
        earlier=tuple(_find_earlier_entries(pages, cells, first_revision)),
        own=own_entries,
        later=tuple(islice(later_entries, MAX_LATER_ROWS)),
    )


def _find_incident_entries(pages: LedgerPages, incident: IncidentStatus) -> tuple[LedgerEntry, ...]:
    """Return the entries that the incident's guard wrote, oldest first.

    A tick writes an alarm's effects and then the incident, at one instant.
    """
    if not incident.guard:
        return ()
    row_filter = LedgerFilter(since=incident.opened_at)
    entries: list[LedgerEntry] = []
    for entry in pages.list_page(row_filter, before=incident.revision, limit=MAX_INCIDENT_ROWS):
        is_next = entry.row.revision == incident.revision - len(entries) - 1
        is_own_effect = (
            entry.row.kind == PROPOSAL_VOIDED or entry.row.fields.get("guard") == incident.guard
        )
        if not (is_next and entry.row.kind in INCIDENT_EFFECT_KINDS and is_own_effect):
            break
        entries.append(entry)
    return tuple(reversed(entries))


def _is_readable(entry: LedgerEntry, caller: Caller, rollout_name: str) -> bool:
    site = entry.row.fields.get("site")
    return caller.has_permission(Permission.READ, rollout_name, site or "")


def _list_affected_cells(
    incident: IncidentStatus, entries: Collection[LedgerEntry]
) -> tuple[Cell, ...]:
    bodies = [entry.row.fields for entry in entries if entry.row.kind != PROPOSAL_VOIDED]
    own_cell = [Cell(incident.site, incident.window)] if incident.site else []
    return tuple(
        dict.fromkeys([*own_cell, *(Cell(body["site"], body["window"]) for body in bodies)])
    )


def _load_policy_of_scope(transaction: Transaction, state: RolloutState, scope: Scope) -> Policy:
    texts = PolicyTexts(transaction, state.rollout).load_texts({scope.policy_hash})
    return parse_stored_policy(texts[scope.policy_hash]) if texts else state.policy


def _build_affected_cell(
    state: RolloutState,
    policy: Policy,
    cell: Cell,
    scope_before: Scope,
    scope_after: Scope,
    incident: IncidentStatus,
    at: datetime,
) -> AffectedCell | None:
    """Return the change of a cell, or None without a version there."""
    version = scope_before.get_holder(cell) or incident.version
    if not version or version not in scope_before.versions:
        return None
    scope = state.scope
    return AffectedCell(
        cell=cell,
        version=version,
        stage_before=_find_stage(scope_before, policy, cell, version, incident.opened_at),
        stage_after=_find_stage(scope_after, policy, cell, version, incident.opened_at),
        stage_now=_find_stage(scope, state.policy, cell, version, at),
        withheld=scope.find_withholding(cell, version),
    )


def _find_stage(scope: Scope, policy: Policy, cell: Cell, version: str, at: datetime) -> str:
    return policy.stage_ids[compute_stage_level(scope, policy, cell, version, at)]


def _find_earlier_entries(
    pages: LedgerPages, cells: Collection[Cell], first_revision: int
) -> list[LedgerEntry]:
    """Return the last entries about the cells before a revision, oldest first."""
    entries = (
        pages.list_page(
            LedgerFilter(kinds=CELL_KINDS), before=first_revision, limit=MAX_SEARCHED_ROWS
        )
        if cells
        else []
    )
    near = [entry for entry in entries if _names_any_cell(entry.row.fields, cells)]
    return near[:MAX_EARLIER_ROWS][::-1]


def _iterate_later_entries(
    ledger: Ledger, pages: LedgerPages, cells: Collection[Cell], incident: IncidentStatus
) -> Iterator[LedgerEntry]:
    """Yield later entries about the cells or the incident."""
    kinds = (*CELL_KINDS, INCIDENT_ACKNOWLEDGED)
    for row in ledger.list_rows(after=incident.revision, kinds=kinds):
        is_acknowledgement = (
            row.kind == INCIDENT_ACKNOWLEDGED and row.fields["incident"] == incident.id
        )
        if is_acknowledgement or (
            row.kind != INCIDENT_ACKNOWLEDGED and _names_any_cell(row.fields, cells)
        ):
            yield from pages.list_revisions([row.revision])


def _names_any_cell(body: dict[str, Any], cells: Collection[Cell]) -> bool:
    bodies = [body, *body.get("cells", ())]
    return any(
        Cell(cell_body["site"], cell_body["window"]) in cells
        for cell_body in bodies
        if cell_body.get("site")
    )


def _build_evidence_periods(
    service: Service,
    state: RolloutState,
    scope_before: Scope,
    incident: IncidentStatus,
    at: datetime,
) -> tuple[EvidencePeriod | None, EvidencePeriod | None]:
    """Return the counts in the incident's cell before it and since."""
    cell, version = Cell(incident.site, incident.window), incident.version
    if cell not in state.policy.cell_set or version not in scope_before.versions:
        return None, None
    evidence_view = load_evidence_views(service.database, state, (cell,)).get((cell, version))
    if evidence_view is None:
        return None, None
    state_before = scope_before.get_cell_state(cell, version)
    cell_state = state.scope.get_cell_state(cell, version)
    before = _build_evidence_period(
        replace(evidence_view, state=state_before), state_before.changed_at, incident.opened_at
    )
    state_since = begin_counts(cell_state, incident.opened_at, state.policy.tick)
    since = _build_evidence_period(
        replace(evidence_view, state=state_since), incident.opened_at, at
    )
    return before, since


def begin_counts(state: CellState, opened_at: datetime, tick: timedelta) -> CellState:
    """Return a state that counts units from the slot in which an incident opened.

    A late pass opens it, but what the pass judged ends with its slot.
    """
    return replace(state, changed_at=to_instant(find_slot_before(opened_at, tick), tick))


def _build_evidence_period(
    evidence_view: EvidenceView, since: datetime, until: datetime
) -> EvidencePeriod:
    return EvidencePeriod(
        since,
        until,
        evidence_view.entered_window.count_at(find_slot_before(until, evidence_view.policy.tick)),
    )


def _describe_attempt(state: RolloutState, incident: IncidentStatus, at: datetime) -> str:
    cell = Cell(incident.site, incident.window)
    if incident.version not in state.scope.versions or cell not in state.policy.cell_set:
        return ""
    return describe_cell_attempt(state.scope, state.policy, cell, incident.version, at)
