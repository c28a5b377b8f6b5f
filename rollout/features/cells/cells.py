"""The state of each cell: permissions now, evidence, next step, and what its versions brought.

What a version brought is beyond people in the cell, by outcome with a value.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Accounts
from rollout.engine.decide.permissions import (
    Caller,
    Permission,
    may_be_asked_blind,
    require_permission,
)
from rollout.engine.decide.scope import CellState, find_acting_version
from rollout.engine.decide.widening_steps import find_decided_floor
from rollout.engine.events import LedgerEvent
from rollout.kernel.calendar.instants import SHADOW, Cell, CellVersion
from rollout.kernel.errors import UnknownCellError
from rollout.kernel.policy.policy import Policy, describe_guard
from rollout.live.rollout_state import RolloutState
from rollout.live.service import Service

if TYPE_CHECKING:
    from rollout.engine.evidence.evidence_view import EvidenceView
    from rollout.engine.evidence.late_senders import LateSenders, SilentSpell
    from rollout.engine.words.event_text import EventDescription
    from rollout.features.reports.figures.evidence_facts import EvidenceFacts
    from rollout.features.reports.figures.methods import GainFacts
    from rollout.features.reports.inputs.evidence_inputs import (
        EvidenceInputs,
        StatePeriod,
    )
    from rollout.kernel.facts import EvidenceSeries
    from rollout.live.evidence.evidence_reader import EvidenceKey


@dataclass(frozen=True, slots=True)
class GainArm:
    """One arm: its units with a value, those without one, and the mean value."""

    units: int
    missing: int
    mean: float | None


@dataclass(frozen=True, slots=True)
class Gain:
    """What the model's arm brought beyond the people's arm, in the outcome's unit.

    Attributes:
        site, window, version: the cell and the version.
        outcome, unit: the outcome and the unit of its values.
        arm: `decides` or `proposes`, what the model did in its arm.
        gain: the difference, as better counts; None without units in both arms.
        lower, upper: its interval of 95 %, valid at every look.
        has_one_share: whether all units had the same chance to get to the model; if not, the gain
            is not the difference of the means.
        without_arm: units of the same stages that are in no arm: more than chance decided them.
        missing_reasons: units whose value is of no source of evidence, by reason: also missing.
        more_is_better: whether a higher value is better; if not, a gain is a lower mean.
    """

    site: str
    window: str
    version: str
    outcome: str
    unit: str
    arm: str
    gain: float | None
    lower: float
    upper: float
    has_one_share: bool
    model: GainArm
    people: GainArm
    without_arm: int
    missing_reasons: Mapping[str, int]
    more_is_better: bool


def load_gains(
    database: Database, state: RolloutState, keys: "Iterable[EvidenceKey]"
) -> "dict[EvidenceKey, tuple[Gain, ...]]":
    """Return the gains of cells and versions; empty for a policy without outcomes."""
    wanted_keys = {key for key in keys if key[0] in state.policy.cell_set}
    if not state.policy.outcomes or not wanted_keys:
        return {}
    # imported here: most policies have no outcomes, and lists of proposals need nothing else of it
    from rollout.features.reports.figures.methods import compute_view_gains
    from rollout.live.evidence.evidence_reader import load_evidence_views

    views = load_evidence_views(database, state, sorted({cell for cell, _ in wanted_keys}))
    return {
        key: tuple(
            build_gain(facts)
            for outcome in state.policy.outcomes
            for facts in compute_view_gains(views[key], outcome)
        )
        for key in wanted_keys & views.keys()
    }


def load_cell_gains(database: Database, state: RolloutState, cell: Cell) -> tuple[Gain, ...]:
    """Return the gains of all versions in a cell, in order of first use."""
    keys = [(cell, version) for version in state.scope.versions]
    gains = load_gains(database, state, keys)
    return tuple(gain for key in keys for gain in gains.get(key, ()))


def build_gain(facts: "GainFacts") -> Gain:
    """Return a report's gain by arm."""
    return Gain(
        site=facts.site,
        window=facts.window,
        version=facts.version,
        outcome=facts.outcome,
        unit=facts.unit,
        arm=facts.arm,
        gain=facts.gain,
        lower=facts.lower,
        upper=facts.upper,
        has_one_share=facts.has_one_share,
        without_arm=facts.without_arm,
        missing_reasons=facts.missing_reasons,
        more_is_better=facts.more_is_better,
        model=GainArm(facts.model_units, facts.model_missing, facts.model_mean),
        people=GainArm(facts.human_units, facts.human_missing, facts.human_mean),
    )


def batch_evidence(
    views: "Mapping[CellVersion, EvidenceView]", caller: Caller, rollout_name: str
) -> "dict[CellVersion, EvidenceView]":
    """Return the views; in batches of sites where the caller may be asked for a blind review."""
    from rollout.engine.evidence.evidence_view import batch_view

    return {
        key: batch_view(view) if may_be_asked_blind(caller, rollout_name, (key[0].site,)) else view
        for key, view in views.items()
    }


NO_VERSION_YET = "no version was ever seen here: the first prediction brings one"


@dataclass(frozen=True, slots=True)
class CellStatus:
    """What is permitted in a cell, and its next step.

    Attributes:
        stage: current stage; shadow if in doubt.
        version: version with grants here, "" without grants.
        until: end of the highest used grant, None in shadow.
        ceiling: highest stage that the policy's limits permit now.
        confidence_floor: confidence from which the stage decides; None in shadow, and for any.
        model_share: share of cases drawn for the version to decide, 1 for all; None where humans
            decide.
        withheld: `stopped` or `suspended`, "" if grants are in use.
        suspended_by: guards that suspended the grants.
        stops, proposals: ids of active stops and open proposals.
        next_step: a sentence about what decides the next step.
    """

    site: str
    window: str
    stage: str
    version: str
    until: datetime | None
    ceiling: str
    withheld: str
    suspended_by: tuple[str, ...]
    stops: tuple[str, ...]
    proposals: tuple[str, ...]
    next_step: str
    confidence_floor: float | None = None
    model_share: float | None = None


@dataclass(frozen=True, slots=True)
class GuardStatus:
    """A guard of a cell: its name in the ledger, threshold and effect."""

    guard: str
    text: str
    action: str
    suspends: bool
    reported: bool
    last_alarm: datetime | None


@dataclass(frozen=True, slots=True)
class CellDetail:
    """A cell with its evidence, guards, history (oldest first), and what versions brought.

    Attributes:
        lateness: by version what its records look like if most come after the decision, else the
            spells without a case that cost units; only of versions that have either.
    """

    status: CellStatus
    evidence: "tuple[EvidenceFacts, ...]"
    guards: tuple[GuardStatus, ...]
    history: "tuple[EventDescription, ...]"
    gains: tuple[Gain, ...] = ()
    lateness: "Mapping[str, LateSenders | tuple[SilentSpell, ...]]" = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CellPage:
    """A page of cells in policy order; `next` is where the next begins, None at the end."""

    rollout: str
    revision: int
    hash: str
    policy: int
    items: tuple[CellStatus, ...]
    next: int | None


def load_cells(
    service: Service,
    caller: Caller,
    rollout_name: str,
    *,
    at: datetime,
    after: int = 0,
    limit: int = 100,
) -> CellPage:
    """Return a page of the cells whose sites the caller may read.

    Where the caller may be asked for blind reviews, evidence moves in whole batches.

    Raises:
        NotAllowedError: the caller may not read any site.
    """
    from rollout.live.evidence.evidence_reader import load_events, load_evidence_views

    require_permission(caller, Permission.READ, rollout_name)
    cached_rollout = service.state_cache.reload_rollout(rollout_name)
    state = cached_rollout.state
    readable_cells = [
        cell
        for cell in state.policy.cells
        if caller.has_permission(Permission.READ, rollout_name, cell.site)
    ]
    page = readable_cells[after : after + limit]
    evidence_views = batch_evidence(
        load_evidence_views(service.database, state, page), caller, rollout_name
    )
    evidence = build_cell_evidence(
        state, load_events(service.database, state), evidence_views, page, at
    )
    items = tuple(build_cell_status(state, cell, evidence[cell], at) for cell in page)
    next_index = after + limit if after + limit < len(readable_cells) else None
    head = cached_rollout.head
    return CellPage(
        rollout_name, head.revision, head.hash, state.scope.policy_number, items, next_index
    )


def load_cell(
    service: Service, caller: Caller, rollout_name: str, cell: Cell, *, at: datetime
) -> CellDetail:
    """Return one cell with its evidence and history.

    Where the caller may be asked for blind reviews, evidence moves in whole batches.

    Raises:
        NotAllowedError: the caller may not read the site.
        UnknownCellError: the policy has no such cell.
    """
    from rollout.engine.words.event_text import describe_events
    from rollout.features.reports.inputs.evidence_inputs import (
        build_evidence_paths,
        build_state_periods,
    )
    from rollout.live.evidence.evidence_reader import load_events, load_evidence_views

    require_permission(caller, Permission.READ, rollout_name)
    state = service.load_permitted_state(caller, Permission.READ, rollout_name, (cell.site,))
    if cell not in state.policy.cell_set:
        readable_cells = (
            str(c)
            for c in state.policy.cells
            if caller.has_permission(Permission.READ, rollout_name, c.site)
        )
        raise UnknownCellError(f"the policy has no {cell}; cells: {', '.join(readable_cells)}")
    evidence_views = batch_evidence(
        load_evidence_views(service.database, state, (cell,)), caller, rollout_name
    )
    inputs = build_evidence_inputs(state, load_events(service.database, state), evidence_views, at)
    state_periods = build_state_periods(inputs)
    paths = {
        key: build_evidence_paths(key, periods, inputs) for key, periods in state_periods.items()
    }
    evidence = _build_evidence_facts(inputs, state_periods, paths)
    event_descriptions = describe_events(
        state.policy,
        inputs.events,
        inputs.first,
        inputs.last,
        is_readable=partial(caller.has_permission, Permission.READ, rollout_name),
    )
    stop_events = _find_stop_events(inputs.events, cell)
    return CellDetail(
        status=build_cell_status(state, cell, evidence, at),
        evidence=evidence,
        guards=_list_guards(state, cell),
        history=tuple(
            event_description
            for event_description, event in zip(event_descriptions, inputs.events, strict=True)
            if (event_description.site, event_description.window) == (cell.site, cell.window)
            or event in stop_events
        ),
        gains=load_cell_gains(service.database, state, cell),
        lateness=_load_lateness(service.database, state, cell, evidence),
    )


def _load_lateness(
    database: Database, state: RolloutState, cell: Cell, evidence: "Sequence[EvidenceFacts]"
) -> "dict[str, LateSenders | tuple[SilentSpell, ...]]":
    """Return by version what makes its cases late, of those with missing units or without any."""
    versions = [row for row in evidence if row.losses or not row.closed_units]
    with database.begin_read() as transaction:
        rows = [(row.version, _find_lateness(transaction, state, cell, row)) for row in versions]
    return {version: lateness for version, lateness in rows if lateness}


def _find_lateness(
    transaction: Transaction, state: RolloutState, cell: Cell, evidence: "EvidenceFacts"
) -> "LateSenders | tuple[SilentSpell, ...]":
    """Return what late records look like if most cases are late, else the silent spells."""
    from rollout.data.counting.unit_records import load_sent_cases
    from rollout.engine.evidence.late_senders import (
        build_sent_cases,
        find_silent_spells,
        recognise_senders,
    )

    version = evidence.version
    names = [later for later, first in state.first_names.items() if first == version]
    cases, account = load_sent_cases(transaction, state.rollout, cell, version, [version, *names])
    late_cases = [case for case in cases if case.is_late]
    decided = sum(case.decided is not None for case in cases)
    if 2 * len(late_cases) > decided:
        name = Accounts(transaction).find_names([account]).names.get(account, "")
        delays = [
            (case.received - case.occurred, case.received - (case.decided or 0))
            for case in late_cases
        ]
        return recognise_senders(delays, decided, name)
    spells = find_silent_spells(build_sent_cases(cell.site, cases)) if late_cases else ()
    return tuple(spell for spell in spells if spell.until > evidence.attempt_since)


def _find_stop_events(events: Sequence[LedgerEvent], cell: Cell) -> list[LedgerEvent]:
    """Return the stops of a cell and their ends; they have no single cell."""
    stops = [event for event in events if event.about_stop and cell in event.list_cells()]
    stop_ids = {stop.about_stop for stop in stops}
    ends = [event for event in events if event.ends_stop and event.about_stop in stop_ids]
    return [*stops, *ends]


def build_cell_status(
    state: RolloutState, cell: Cell, evidence: "Sequence[EvidenceFacts]", at: datetime
) -> CellStatus:
    """Return what is permitted in a cell, and its next step."""
    scope, policy = state.scope, state.policy
    at = at if scope.at is None else max(at, scope.at)
    acting_version = scope.get_holder(cell)
    acting_grant = find_acting_version(scope, policy, cell, at)
    grant_state = None if acting_version is None else scope.get_cell_state(cell, acting_version)
    grant_ends = (
        []
        if grant_state is None or acting_grant is None
        else _list_grant_ends(grant_state, policy, acting_grant[1])
    )
    proposals = scope.proposals.values()
    main_evidence = find_main_evidence(evidence, acting_version)
    return CellStatus(
        site=cell.site,
        window=cell.window,
        stage=SHADOW if acting_grant is None else policy.stage_ids[acting_grant[1]],
        version=acting_version or "",
        until=min(grant_ends, default=None),
        ceiling=policy.stage_ids[policy.compute_ceiling(cell, at)],
        withheld=scope.find_withholding(cell, acting_version),
        suspended_by=() if grant_state is None else tuple(sorted(grant_state.suspended_by)),
        stops=tuple(stop.id for stop in scope.stops.values() if cell in stop.cells),
        proposals=tuple(proposal.id for proposal in proposals if proposal.cell == cell),
        next_step=NO_VERSION_YET if main_evidence is None else main_evidence.next_step,
        confidence_floor=None
        if grant_state is None or acting_grant is None
        else find_decided_floor(policy, grant_state, acting_grant[1]),
        model_share=None
        if acting_grant is None
        else policy.get_stage(acting_grant[1]).decided_share,
    )


def _list_grant_ends(grant_state: CellState, policy: Policy, stage_level: int) -> list[datetime]:
    """Return the ends of the grants that the stage depends on."""
    return [
        grant.until
        for grant in grant_state.grants
        if policy.stage_ids.index(grant.stage) <= stage_level
    ]


def find_main_evidence(
    evidence: "Sequence[EvidenceFacts]", acting_version: str | None
) -> "EvidenceFacts | None":
    """Return the evidence that describes a cell: of the acting version; None without any.

    In shadow it is that of the newest version with an open proposal, else of the newest with units:
    a version that only a question has named must not hide what waits for approval.
    """
    ranked = sorted(
        evidence,
        key=lambda facts: (
            facts.version == acting_version,
            facts.proposal is not None,
            facts.attempt_number > 0,
        ),
    )
    return ranked[-1] if ranked else None


def build_cell_evidence(
    state: RolloutState,
    events: tuple[LedgerEvent, ...],
    evidence_views: "Mapping[CellVersion, EvidenceView]",
    cells: Iterable[Cell],
    at: datetime,
) -> "Mapping[Cell, tuple[EvidenceFacts, ...]]":
    """Return the evidence of cells, by version in order of first use.

    Evidence paths are excluded because they cost more than everything else.

    Args:
        events: the whole ledger up to `state`.
        evidence_views: the counted evidence of the cells.
    """
    inputs = build_evidence_inputs(state, events, evidence_views, at)
    state_periods = {
        key: (build_current_period(key, state, inputs.last),) for key in inputs.evidence_views
    }
    all_facts = _build_evidence_facts(inputs, state_periods, dict.fromkeys(state_periods, ()))
    return {cell: tuple(facts for facts in all_facts if facts.cell == cell) for cell in cells}


def _build_evidence_facts(
    inputs: "EvidenceInputs",
    state_periods: "Mapping[CellVersion, tuple[StatePeriod, ...]]",
    paths: "Mapping[CellVersion, tuple[EvidenceSeries, ...]]",
) -> "tuple[EvidenceFacts, ...]":
    from rollout.features.reports.figures.evidence_facts import compute_evidence_facts

    versions = dict.fromkeys(version for _, version in inputs.evidence_views)  # by first use
    version_order = {version: number for number, version in enumerate(versions)}
    return tuple(
        sorted(
            compute_evidence_facts(inputs, state_periods, paths, {}),
            key=lambda facts: version_order[facts.version],
        )
    )


def build_current_period(key: "CellVersion", state: RolloutState, at: datetime) -> "StatePeriod":
    """Return the current state period of a version in a cell."""
    from rollout.features.reports.inputs.evidence_inputs import build_state_period

    period = build_state_period(key, state.scope, state.policy, at, at)
    return replace(period, since=period.state.changed_at)


def build_evidence_inputs(
    state: RolloutState,
    events: tuple[LedgerEvent, ...],
    evidence_views: "Mapping[CellVersion, EvidenceView]",
    at: datetime,
    *,
    has_retired: bool = False,
) -> "EvidenceInputs":
    """Return what evidence facts are computed from."""
    from rollout.features.reports.inputs.evidence_inputs import EvidenceInputs

    return EvidenceInputs(
        policy=state.policy,
        events=events,
        evidence_views={
            key: evidence_view
            for key, evidence_view in evidence_views.items()
            if has_retired or not state.scope.versions[key[1]].retired
        },
        first=events[0].at,
        last=max(at.astimezone(UTC), events[-1].at),
    )


def _list_guards(state: RolloutState, cell: Cell) -> tuple[GuardStatus, ...]:
    acting_version = state.scope.get_holder(cell)
    grant_state = (
        None if acting_version is None else state.scope.get_cell_state(cell, acting_version)
    )
    return tuple(
        GuardStatus(
            guard=guard.id,
            text=describe_guard(guard),
            action=guard.then,
            suspends=grant_state is not None and guard.id in grant_state.suspended_by,
            reported=grant_state is not None and guard.id in grant_state.reported_guards,
            last_alarm=None if grant_state is None else grant_state.last_alarms.get(guard.id),
        )
        for guard in state.policy.list_guards(cell)
    )
