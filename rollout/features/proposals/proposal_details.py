"""Proposals with their frozen evidence and what they wait for, as API and console show them.

They name the imports in a proposal's evidence, and who vouches for the senders that a policy names
as vouched.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from rollout.data.database.rollouts import PolicyTexts, Rollout
from rollout.data.database.session import Transaction
from rollout.data.ledger.ledger import Accounts, Ledger
from rollout.data.ledger.projections import ListedProposal, ProposalStore
from rollout.engine.decide.approvals import TrackRecord, build_track_record
from rollout.engine.decide.commands import ApproveProposal
from rollout.engine.decide.decider import decide
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.decide.proposals import ProposalHold, list_proposal_holds
from rollout.engine.decide.scope import (
    RECORD_SPAN,
    GivenApproval,
    OfKind,
    ProposalState,
    Scope,
    count_filled_needs,
)
from rollout.engine.events import (
    EVENT_TYPES,
    OPEN_STATE,
    Approved,
    IncidentAcknowledged,
    LedgerEvent,
    PolicyApplied,
    ProposalRaised,
    RecordsImported,
    find_applied_policies,
    select_events,
)
from rollout.engine.ledger.ledger import parse_as, parse_event
from rollout.engine.words.evidence_text import VouchedUnits, describe_track_fact
from rollout.engine.words.formatting import format_zoned_time
from rollout.engine.words.state_text import CLOSED_PROPOSALS, TICK, describe_hold
from rollout.features.cells.cells import Gain, load_gains
from rollout.features.proposals.proposals import find_proposal_sites
from rollout.kernel.calendar.instants import Cell, find_slot_after, to_instant
from rollout.kernel.errors import RefusalError, UnknownProposalError
from rollout.kernel.facts import LooserRule, StoredReading
from rollout.kernel.policy.cell_evidence import describe_floor, describe_floor_cases
from rollout.kernel.policy.evidence_sources import (
    DEFAULT_SOURCES,
    CountedOutcomeSource,
    CountedSource,
    RegisteredUnits,
)
from rollout.kernel.policy.gates import describe_attempt
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy.stages import Stage, describe_share
from rollout.kernel.words import say_loosens, say_looser, say_reading
from rollout.live.rollout_state import RolloutState
from rollout.live.service import Service

TRACK_KINDS: Final = (
    IncidentAcknowledged.__name__,
    *(
        name
        for name, kind in EVENT_TYPES.items()
        if kind.list_track_facts is not LedgerEvent.list_track_facts
    ),
)
"""The events that a track record is built of."""


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


def load_vouchers(
    transaction: Transaction, rollout: Rollout, *, until: int
) -> dict[str, tuple[str, ...]]:
    """Return by account who approved its newest line of the policy, or applied it alone."""
    from rollout.kernel.policy_files.reader import parse_checked_policy  # slow to import

    kinds = (PolicyApplied.__name__, Approved.__name__)
    rows = Ledger(transaction, rollout).list_rows(until=until, kinds=kinds)
    events = [parse_event(row) for row in rows]
    texts = PolicyTexts(transaction, rollout).load_texts(find_applied_policies(events))
    approvers: dict[str, list[str]] = {}
    vouchers: dict[str, tuple[str, ...]] = {}
    before = DEFAULT_SOURCES.vouched
    for event in events:
        if event.is_approved:
            approvers.setdefault(event.about_proposal, []).append(event.by)
        else:
            vouched = parse_checked_policy(texts[event.applied_policy]).evidence.sources.vouched
            names = tuple(approvers.get(event.about_proposal, ())) or (event.by,)
            changed = (account for account in vouched if vouched[account] != before.get(account))
            vouchers |= dict.fromkeys(changed, names)
            before = vouched
    return vouchers


PROPOSAL_STATES: Final = ("open", "approved", *CLOSED_PROPOSALS)


@dataclass(frozen=True, slots=True)
class Approval(GivenApproval):
    """An approval with its reason; "" without one."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Proposal(OfKind):
    """A proposal as its approvers see it.

    Attributes:
        kind: widening, renewal, takeover, resume or policy.
        state: open; approved until it is applied; applied, rejected, void or expired.
        site, window, version, to: the permitted change; "" if the kind concerns no cell.
        about: stop of a resume, or hash of a policy.
        readings: the gate's conditions with their frozen figures; numbers are decimal text.
        loosens: what a policy loosens.
        texts: what it rests on in words: a line for each reading and the confidence floor; what a
            policy loosens; the cells to which a resume gives grants back.
        evidence_hash: hash that an approval cites.
        required_approvals: one group per approval; each needs a different user.
        groups_missing: groups of which one more approval would count.
        imports: imports of the cell's cases before the proposal was raised.
        sources: counted decisions by source, when it was raised.
        outcome_sources: units by source of their outcomes that its gate counts, in the same way.
        vouched: units that its gate counts only because their sender is vouched for.
        registered: units that its gate counts by who registered their cases.
        attempt: which attempt of the cell's year its evidence is, over all versions, and its share
            of the gate's risk; "" where attempts aren't numbered.
        gains: what its version has brought in its cell by now, by outcome with a value.
        confidence_floors: confidence from which cases are permitted, and the stricter ones to which
            an alarm may raise it; () without several floors.
        model_share: share of cases drawn for the version at the proposed stage; None where humans
            decide.
        against: what spoke against its versions in any cell from 30 days before it was raised, such
            as narrowings and harms; () of a closed one.
        closed_reason: reason of a rejection or voiding, "" without one.
        can_approve: whether the caller may approve now; else see `cannot_approve_reason`.
        waits_for: what delays an approved proposal now, and until when; what begins to hold it
            later, such as a freeze, is named from then on; [] in other states.
    """

    id: str
    kind: str
    state: str
    site: str
    window: str
    version: str
    to: str
    about: str
    allows: str
    readings: tuple[StoredReading, ...]
    loosens: tuple[LooserRule, ...]
    texts: tuple[str, ...]
    evidence_hash: str
    required_approvals: tuple[str, ...]
    approvals: tuple[Approval, ...]
    approvals_missing: int
    groups_missing: tuple[str, ...]
    raised_at: datetime
    raised_by: str
    expires_at: datetime
    closed_at: datetime | None
    closed_by: str
    closed_reason: str
    can_approve: bool
    cannot_approve_reason: str
    imports: tuple[EvidenceImport, ...]
    sources: tuple[CountedSource, ...]
    outcome_sources: tuple[CountedOutcomeSource, ...]
    vouched: tuple[VouchedUnits, ...]
    registered: tuple[RegisteredUnits, ...]
    attempt: str
    waits_for: tuple[ProposalWait, ...]
    gains: tuple[Gain, ...] = ()
    confidence_floors: tuple[float, ...] = ()
    model_share: float | None = None
    against: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProposalPage:
    """A page of proposals, newest first.

    `before` is a ledger revision, the cursor of the next page; None on the last page.
    """

    items: tuple[Proposal, ...]
    before: int | None


def load_proposals(
    service: Service,
    caller: Caller,
    rollout_name: str,
    *,
    at: datetime,
    states: Sequence[str] = ("open", "approved"),
    before: int | None = None,
    limit: int = 50,
) -> ProposalPage:
    """Return a page of the readable proposals, newest first.

    Raises:
        RefusalError: a requested state does not exist.
    """
    require_permission(caller, Permission.READ, rollout_name)
    if unknown_states := sorted(set(states) - set(PROPOSAL_STATES)):
        raise RefusalError(
            f"{unknown_states[0]} is no state of a proposal; use {', '.join(PROPOSAL_STATES)}"
        )
    state = service.state_cache.reload_rollout(rollout_name).state
    stored_states = {
        OPEN_STATE if proposal_state == "approved" else proposal_state for proposal_state in states
    }
    with service.database.begin_read() as transaction:
        rows = ProposalStore(transaction, state.rollout).list_page(
            states=sorted(stored_states), before=before, limit=limit
        )
        readable_rows = [
            row
            for row in rows
            if not row.site or caller.has_permission(Permission.READ, rollout_name, row.site)
        ]
        imports = load_imports(transaction, state.rollout)
        proposals = [
            _build_proposal_details(transaction, state, caller, row, at, imports)
            for row in readable_rows
        ]
    listed = [proposal for proposal in proposals if proposal.state in states]
    items = _add_present_facts(service, state, caller, listed, at)
    return ProposalPage(items, rows[-1].raised_in if len(rows) == limit else None)


def load_proposal(
    service: Service, caller: Caller, rollout_name: str, proposal_id: str, *, at: datetime
) -> Proposal:
    """Return one proposal, open or closed.

    Raises:
        UnknownProposalError: no proposal has this id.
        NotAllowedError: the caller may not read its site.
    """
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    with service.database.begin_read() as transaction:
        row = ProposalStore(transaction, state.rollout).find(proposal_id)
        if row is None:
            raise _build_unknown_proposal_error(state.scope, proposal_id)
        if row.site:
            require_permission(caller, Permission.READ, rollout_name, (row.site,))
        imports = load_imports(transaction, state.rollout)
        details = _build_proposal_details(transaction, state, caller, row, at, imports)
    (proposal,) = _add_present_facts(service, state, caller, [details], at)
    return proposal


def _add_present_facts(
    service: Service,
    state: RolloutState,
    caller: Caller,
    proposals: Sequence[Proposal],
    at: datetime,
) -> tuple[Proposal, ...]:
    """Return proposals with what is known by now: gains, and what speaks against open ones."""
    open_proposals = [proposal for proposal in proposals if proposal.closed_at is None]
    records = load_track_records(service, state, open_proposals, at)
    against = {
        proposal.id: tuple(
            list_facts_against(
                caller, state.rollout.name, line, state.policy.get_timezone(proposal.site), at
            )
        )
        for proposal, line in zip(open_proposals, records, strict=True)
    }
    keys = [(Cell(proposal.site, proposal.window), proposal.version) for proposal in proposals]
    gains = load_gains(service.database, state, keys)
    return tuple(
        replace(proposal, gains=gains.get(key, ()), against=against.get(proposal.id, ()))
        for key, proposal in zip(keys, proposals, strict=True)
    )


def load_track_records(
    service: Service, state: RolloutState, proposals: Sequence[Proposal], at: datetime
) -> list[tuple[TrackRecord, ...]]:
    """Return the track records of each proposal's versions, up to its end."""
    scope = state.scope
    versions = [_list_track_versions(scope, proposal) for proposal in proposals]
    if not any(versions):
        return [()] * len(proposals)
    with service.database.begin_read() as transaction:
        rows = Ledger(transaction, state.rollout).list_rows(until=scope.revision, kinds=TRACK_KINDS)
        events = list(map(parse_event, rows))
    return [
        tuple(
            build_track_record(
                version,
                events,
                [s for (_, v), met in scope.cell_values.items() if v == version
                 for s in met.statuses.values()],
                site=proposal.site,
                since=proposal.raised_at - RECORD_SPAN,
                until=proposal.closed_at or max(at, scope.at or at),
            )
            for version in proposal_versions
        )
        for proposal, proposal_versions in zip(proposals, versions, strict=True)
    ]  # fmt: skip


def _list_track_versions(scope: Scope, proposal: Proposal) -> list[str]:
    """Return the version of a proposal, and then those that act in its cells."""
    cells: Iterable[Cell] = [Cell(proposal.site, proposal.window)]
    if not proposal.site:
        cells = sorted(scope.stops[proposal.about].cells) if proposal.about in scope.stops else ()
    versions = (proposal.version, *(scope.get_holder(cell) for cell in cells))
    return list(dict.fromkeys(version for version in versions if version))


def list_facts_against(
    caller: Caller, rollout_name: str, records: Iterable[TrackRecord], timezone: str, at: datetime
) -> list[str]:
    """Say what spoke against versions; sites that the caller may not read aren't named."""

    def name_cell(cell: Cell | None) -> str:
        site = "" if cell is None else cell.site
        may_read = bool(site) and caller.has_permission(Permission.READ, rollout_name, site)
        return f"in {cell}" if may_read else "at another site"

    return [
        describe_track_fact(fact, lambda time: format_zoned_time(time, timezone, at), name_cell)
        for record in records
        for fact in record.facts
        if fact.speaks_against
    ]


def list_grounds(proposal_raised: ProposalRaised, policy: Policy) -> tuple[str, ...]:
    """Return in words what a proposal rests on."""
    floor = proposal_raised.confidence_floor
    return (
        *map(say_reading, proposal_raised.readings),
        *([describe_floor(policy.evidence, floor)] if floor else ()),
        *map(say_looser, proposal_raised.loosens),
        *map(str, proposal_raised.cells),
    )


def _build_proposal_details(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    row: ListedProposal,
    at: datetime,
    imports: ImportsByRevision,
) -> Proposal:
    proposal_raised, approval_events, closing_event = _load_history(transaction, state, row)
    cell = proposal_raised.cell
    approvals = tuple(Approval(e.by, e.groups, e.at, e.reason) for e in approval_events)
    counted_approvals = count_filled_needs(proposal_raised.needs, approvals)
    evidence_hash = _find_cited_hash(state, proposal_raised)
    accounts = Accounts(transaction)
    refusal_text = _find_obstacle(state, caller, row, evidence_hash, at)
    return Proposal(
        id=row.id,
        kind=row.kind,
        state="approved"
        if row.state == OPEN_STATE and counted_approvals == len(proposal_raised.needs)
        else row.state,
        site="" if cell is None else cell.site,
        window="" if cell is None else cell.window,
        version=proposal_raised.version,
        to=proposal_raised.to_stage,
        about=proposal_raised.about,
        allows=describe_effect(
            state, proposal_raised, at if row.closed_at is None else row.closed_at
        ),
        readings=proposal_raised.readings,
        loosens=proposal_raised.loosens,
        texts=list_grounds(proposal_raised, state.policy),
        evidence_hash=evidence_hash,
        required_approvals=proposal_raised.needs,
        approvals=approvals,
        approvals_missing=len(proposal_raised.needs) - counted_approvals,
        groups_missing=tuple(
            group
            for group in dict.fromkeys(proposal_raised.needs)
            if _would_count(proposal_raised.needs, approvals, group)
        ),
        raised_at=proposal_raised.at,
        raised_by=proposal_raised.by,
        expires_at=proposal_raised.expires_at,
        closed_at=row.closed_at,
        closed_by=closing_event.by if closing_event is not None and row.state == "rejected" else "",
        closed_reason=(
            "" if closing_event is None else closing_event.describe_closing(proposal_raised.cell)
        ),
        can_approve=not refusal_text,
        cannot_approve_reason=refusal_text,
        imports=select_imports(imports, cell, row.raised_in),
        sources=accounts.name_sources(proposal_raised.sources),
        outcome_sources=accounts.name_sources(proposal_raised.outcome_sources),
        vouched=_name_vouched_units(transaction, state, proposal_raised),
        registered=accounts.name_sources(proposal_raised.registered),
        attempt=_describe_attempt(proposal_raised),
        waits_for=list_proposal_waits(state, row.id, at),
        confidence_floors=tuple(map(float, proposal_raised.floors)),
        model_share=next(
            (
                stage.decided_share
                for stage in state.policy.stages
                if stage.id == proposal_raised.to_stage
            ),
            None,
        ),
    )


def _find_cited_hash(state: RolloutState, proposal_raised: ProposalRaised) -> str:
    """Return the hash that an approval cites: it covers incidents since a proposal was raised."""
    current = state.scope.proposals.get(proposal_raised.proposal)
    return proposal_raised.evidence_hash if current is None else current.evidence_hash


def _describe_attempt(proposal_raised: ProposalRaised) -> str:
    """Describe the attempt of a gate's evidence; a renewal has evidence of its own grant."""
    if not proposal_raised.attempt or proposal_raised.rules.extends_grant:
        return ""
    return describe_attempt(proposal_raised.attempt, float(proposal_raised.risk_weight))


def _name_vouched_units(
    transaction: Transaction, state: RolloutState, proposal_raised: ProposalRaised
) -> tuple[VouchedUnits, ...]:
    """Return a proposal's units of vouched senders, with who vouches for them."""
    counts = proposal_raised.vouched
    if not counts:
        return ()
    names = Accounts(transaction).find_names(count.account for count in counts)
    vouchers = load_vouchers(transaction, state.rollout, until=state.scope.revision)
    return tuple(
        VouchedUnits(
            name := names.find_name(count.account),
            count.units,
            count.counted,
            int(count.within.total_seconds()),
            vouchers.get(name, ()),
        )
        for count in counts
    )


def _load_history(
    transaction: Transaction, state: RolloutState, row: ListedProposal
) -> tuple[ProposalRaised, tuple[Approved, ...], LedgerEvent | None]:
    """Return how a proposal was raised, approved and closed."""
    ledger = Ledger(transaction, state.rollout)
    (proposal_raised,) = ledger.list_of(
        ProposalRaised, after=row.raised_in - 1, until=row.raised_in
    )
    open_proposal = state.scope.proposals.get(row.id)
    if row.closed_in is None and open_proposal is not None and not open_proposal.approvals:
        return proposal_raised, (), None  # avoids reading the rest of the ledger
    kinds = ("Approved",) if row.closed_in is None else ()
    rows = ledger.list_rows(after=row.raised_in, until=row.closed_in, kinds=kinds)
    later_events = [parse_event(r) for r in rows if r.fields.get("proposal") == row.id]
    approval_events = tuple(select_events(later_events, Approved))
    return proposal_raised, approval_events, later_events[-1] if row.closed_in is not None else None


def _would_count(
    required_groups: tuple[str, ...], approvals: tuple[GivenApproval, ...], group: str
) -> bool:
    """Return whether an approval of one more user of a group would count."""
    more_approvals = (*approvals, GivenApproval("", (group,), datetime.min))  # noqa: DTZ901 - no time of a real yes
    return count_filled_needs(required_groups, more_approvals) > count_filled_needs(
        required_groups, approvals
    )


def _find_obstacle(
    state: RolloutState,
    caller: Caller,
    row: ListedProposal,
    evidence_hash: str,
    at: datetime,
) -> str:
    """Return why the caller can't approve a proposal now; "" if they can.

    The core decides.
    """
    if row.state != OPEN_STATE:
        return f"{row.id} is {row.state}"
    rollout_name, sites = state.rollout.name, find_proposal_sites(state, row.id)
    by = caller.as_actor(rollout_name, sites)
    command = ApproveProposal(at=at, by=by, proposal=row.id, evidence_hash=evidence_hash)
    try:
        require_permission(caller, Permission.APPROVE, rollout_name, sites)
        events = decide(command, state.scope, state.policy)
    except RefusalError as refusal:
        return str(refusal)
    return "" if events else f"{caller.name} has approved {row.id} already"


def describe_effect(state: RolloutState, proposal_raised: ProposalRaised, at: datetime) -> str:
    """Describe what a proposal would permit if it were applied at `at`."""
    policy, cell = state.policy, proposal_raised.cell
    if (
        cell is None
        or cell not in policy.cell_set
        or proposal_raised.to_stage not in policy.stage_ids[1:]
    ):
        return _describe_rollout_effect(state, proposal_raised)
    stage = policy.get_stage(policy.stage_ids.index(proposal_raised.to_stage))
    until = format_zoned_time(at + stage.lasts, policy.sites_by_id[cell.site].timezone)
    location = f"at {cell.site}" if len(policy.windows) == 1 else f"at {cell.site} in {cell.window}"
    summary = (
        f"{proposal_raised.version} {_get_effect_verb(proposal_raised.kind)}"
        f" {proposal_raised.to_stage} {location}{_name_floor(proposal_raised)} until {until}"
    )
    return f"{summary}: {_describe_decider(stage, proposal_raised.version)}"


def _name_floor(proposal_raised: ProposalRaised) -> str:
    floor = proposal_raised.confidence_floor
    return f" for {describe_floor_cases(floor)}" if floor else ""


def _get_effect_verb(kind: str) -> str:
    return {"renewal": "keeps", "takeover": "replaces the acting version at"}.get(
        kind, "is widened to"
    )


def _describe_decider(stage: Stage, version: str) -> str:
    blind_text = f"; humans decide {stage.blind * 100:g} % blind" if stage.blind else ""
    if stage.share is not None:
        audits = f"; humans check {(stage.audit or 0) * 100:g} % of its decisions"
        return f"{describe_share(version, stage.share)}{audits}"
    if stage.model_decides:
        audit = f"{(stage.audit or 0) * 100:g} % of its decisions"
        return f"the model decides, {audit} are audited{blind_text}"
    return f"a human confirms or overrides the model's answer{blind_text}"


def _describe_rollout_effect(state: RolloutState, proposal_raised: ProposalRaised) -> str:
    if proposal_raised.rules.ends_stop:
        cells = ", ".join(map(str, proposal_raised.cells))
        stop = proposal_raised.about
        return f"stop {stop} ends; grants that have not expired apply again: {cells}"
    if proposal_raised.rules.changes_policy:
        number, loosens = state.scope.policy_number, say_loosens(proposal_raised.loosens)
        return f"another policy takes the place of policy {number}; it loosens: {loosens}"
    return f"{proposal_raised.version} at {proposal_raised.to_stage} in {proposal_raised.cell}"


def _build_unknown_proposal_error(scope: Scope, proposal_id: str) -> UnknownProposalError:
    open_ids = ", ".join(scope.proposals) or "none"
    return UnknownProposalError(f"there is no proposal {proposal_id}; open ones: {open_ids}")
