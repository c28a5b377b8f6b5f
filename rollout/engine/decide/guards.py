"""Alarms of guards and their ends, stops after a rollback, and the starts of attempts.

A tick begins with guards: alarms narrow or suspend, good measures clear suspensions.

Each attempt gets its share of the year's risk as it begins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache, partial
from zoneinfo import ZoneInfo

from rollout.engine.decide.commands import (
    AcceptRestore,
    AnsweredByCell,
    EvidenceByCell,
    StopAfterRollback,
    Tick,
)
from rollout.engine.decide.incident_kinds import ALARM, LATE, LEDGER_ROLLED_BACK, name_late
from rollout.engine.decide.projection import PendingEvents
from rollout.engine.decide.scope import AttemptYear, CellState, Scope
from rollout.engine.decide.stops import list_unstopped_cells
from rollout.engine.decide.widening_steps import get_acting_floor
from rollout.engine.events import (
    ENGINE,
    HARM_FACT,
    QUALITY_FACT,
    AttemptsBegan,
    EraBegan,
    IncidentOpened,
    Narrowed,
    Stopped,
    Suspended,
    SuspensionCleared,
)
from rollout.kernel.calendar.instants import SHADOW, Cell
from rollout.kernel.facts import IN_ALARM, NEW_ERA, StoredAlarm, Trigger
from rollout.kernel.measures import Watch
from rollout.kernel.policy.cell_evidence import (
    GuardReading,
    VersionEvidence,
    format_floor,
    list_floors,
    names_slices,
)
from rollout.kernel.policy.gates import compute_yearly_share
from rollout.kernel.policy.policy import Guard, Policy

THIRD_SUSPENSION_WITHIN = timedelta(hours=24)
EPISODE_PAUSE = timedelta(hours=24)  # a suspension so soon after the last is the same incident


@dataclass(frozen=True, slots=True)
class _GuardAlarm:
    cell: Cell
    version: str
    guard: Guard
    readings: tuple[StoredAlarm, ...]
    calm_floors: frozenset[str]


def apply_alarms(pending: PendingEvents, tick: Tick) -> None:
    """Emit the effects of each guard in alarm, where its version holds grants.

    Stopped and suspended cells are included: an alarm meanwhile keeps them down. All alarms are
    read before the first one narrows. Otherwise an alarm that removes all grants, here or from
    another cell, would hide an alarm about quality, and the attempt would not rise.
    """
    alarms = sorted(
        _list_alarms(pending, tick), key=lambda alarm: not is_quality_guard(alarm.guard)
    )
    failed_cells = frozenset(
        a.cell for a in alarms if is_quality_guard(a.guard) and a.guard.narrows
    )
    for alarm in alarms:
        _apply_alarm(pending, alarm, failed_cells, tuple(_list_slice_alarms(alarm, alarms)))
    harms = (i for i in pending.scope.open_incidents.values() if i.fact == HARM_FACT)
    open_harms = {(harm.cell, harm.version) for harm in harms}
    for alarm in _list_alarms(pending, tick, are_late=True):
        if (alarm.cell, alarm.version) not in open_harms:  # else it is told once that is read
            _open_alarm_incident(pending, alarm, LATE)


def _list_alarms(
    pending: PendingEvents, tick: Tick, *, are_late: bool = False
) -> Iterator[_GuardAlarm]:
    """Yield the alarms of versions that hold their cells, or of late harms in all cells."""
    for cell, version in tick.evidence:
        is_holder = pending.scope.get_holder(cell) == version
        if cell in pending.policy.cell_set and (is_holder or are_late):
            evidence = tick.evidence[cell, version]
            for guard in pending.policy.list_guards(cell):
                reading = evidence.guards.get(name_late(guard.id) if are_late else guard.id)
                if reading is not None and reading.is_alarm:
                    alarms = (store_alarm(guard, reading),)
                    calm_floors = _list_calm_floors(pending.policy, evidence, guard)
                    yield _GuardAlarm(cell, version, guard, alarms, calm_floors)


def store_alarm(guard: Guard, reading: GuardReading) -> StoredAlarm:
    """Return what a guard in alarm read, as the ledger holds it."""
    counts = reading.value, reading.records
    return StoredAlarm(guard.condition, guard.over, *counts, reading.subject)


def _list_calm_floors(policy: Policy, evidence: VersionEvidence, guard: Guard) -> frozenset[str]:
    """Return the confidence floors at which a guard's detector is far below its alarm."""
    floors = zip(list_floors(policy.evidence), evidence.floors, strict=False)
    return frozenset(
        format_floor(floor) for floor, part in floors if _get_guard_reading(part, guard).is_calm
    )


def _list_slice_alarms(alarm: _GuardAlarm, alarms: Sequence[_GuardAlarm]) -> Iterator[StoredAlarm]:
    """Yield what the other guards in alarm in the cell read of slices; narrowing may end them."""
    for other in alarms:
        if other.cell == alarm.cell and other is not alarm and names_slices(other.guard.condition):
            yield from other.readings


def _apply_alarm(
    pending: PendingEvents,
    alarm: _GuardAlarm,
    failed_cells: frozenset[Cell],
    slice_readings: tuple[StoredAlarm, ...],
) -> None:
    state, guard = pending.scope.get_cell_state(alarm.cell, alarm.version), alarm.guard
    if guard.narrows:
        _narrow_reached_cells(pending, alarm, failed_cells)
        readings = alarm.readings + slice_readings
        _open_alarm_incident(pending, replace(alarm, readings=readings), "narrowed")
    elif guard.then == "report" and state.grants and guard.id not in state.reported_guards:
        _open_alarm_incident(pending, alarm, "reported")
    elif guard.then == "suspend" and state.grants and guard.id not in state.suspended_by:
        _suspend_cell(pending, alarm)


def _suspend_cell(pending: PendingEvents, alarm: _GuardAlarm) -> None:
    continues_episode = _continues_episode(pending, alarm)
    pending.emit(
        Suspended(
            at=pending.at,
            by=ENGINE,
            cell=alarm.cell,
            version=alarm.version,
            guard=alarm.guard.id,
            alarms=alarm.readings,
        )
    )
    if not continues_episode:
        _open_alarm_incident(pending, alarm, "suspended")


def _continues_episode(pending: PendingEvents, alarm: _GuardAlarm) -> bool:
    """Return whether the suspension belongs to the incident of an earlier one.

    The guard has suspended another cell of the site, or its last suspension ended within 24 h.
    A silent site is one incident, whatever version holds its cells by then.
    """
    guard, measure = alarm.guard.id, alarm.guard.condition.measure
    cells = (
        [alarm.cell]
        if measure.is_of_cell
        else [cell for cell in pending.policy.cells if cell.site == alarm.cell.site]
    )
    versions = pending.scope.versions if measure.watch is Watch.SIGNS else (alarm.version,)
    states = [pending.scope.get_cell_state(cell, name) for cell in cells for name in versions]
    return any(
        guard in state.suspended_by
        or (guard in state.cleared_at and pending.at - state.cleared_at[guard] <= EPISODE_PAUSE)
        for state in states
    )


def _narrow_reached_cells(
    pending: PendingEvents, alarm: _GuardAlarm, failed_cells: frozenset[Cell]
) -> None:
    """Narrow the cell in alarm and those that the guard reaches.

    The attempt rises, once a tick, in cells where a quality guard is itself in alarm.
    """
    for cell in _list_reached_cells(pending, alarm.cell, alarm.guard):
        holder = pending.scope.get_holder(cell)
        if holder is not None:
            state = pending.scope.get_cell_state(cell, holder)
            initial_state = pending.initial_scope.get_cell_state(cell, holder)
            restarts = cell in failed_cells and state.attempt == initial_state.attempt
            floor = ""
            if cell == alarm.cell and alarm.guard.then == "one-stage":
                if get_acting_floor(state) != get_acting_floor(initial_state) and (
                    get_acting_floor(state) in alarm.calm_floors
                ):
                    continue  # another guard's alarm raised the floor, and here it is calm
                floor = _find_calm_floor(state, alarm.calm_floors)
            narrow_by_guard(
                pending, cell, holder, alarm.guard, alarm.readings, restart=restarts, floor=floor
            )


def is_quality_guard(guard: Guard) -> bool:
    """Return whether the guard watches quality, so that an alarm restarts evidence."""
    return guard.condition.measure.is_quality


def _find_calm_floor(state: CellState, calm_floors: frozenset[str]) -> str:
    """Return the first stricter floor of the acting grant that is calm, or ""."""
    floors = state.grants[-1].floors if state.grants else ()
    return next((floor for floor in floors[1:] if floor in calm_floors), "")


def _list_reached_cells(pending: PendingEvents, cell: Cell, guard: Guard) -> list[Cell]:
    if guard.reach == "cell":
        return [cell]
    other_cells = [
        other
        for other in pending.policy.cells
        if guard.reach == "rollout" or other.site == cell.site
    ]
    return [cell, *(other for other in other_cells if other != cell)]


def narrow_by_guard(
    pending: PendingEvents,
    cell: Cell,
    version: str,
    guard: Guard,
    alarms: tuple[StoredAlarm, ...],
    *,
    restart: bool,
    floor: str = "",
) -> None:
    """Raise the floor, or remove one grant or all; void the proposal that depends on them."""
    state = pending.scope.get_cell_state(cell, version)
    pending.void_proposal(state.proposal, IN_ALARM, alarms=alarms)
    stages = [SHADOW, *(grant.stage for grant in state.grants)]
    to = SHADOW if guard.then == "shadow" else stages[-1 if floor else -2]
    pending.emit(
        Narrowed(
            at=pending.at,
            by=ENGINE,
            cell=cell,
            version=version,
            from_stage=stages[-1],
            to_stage=to,
            guard=guard.id,
            restart=restart,
            alarms=alarms,
            confidence_floor=floor,
        )
    )


def _open_alarm_incident(pending: PendingEvents, alarm: _GuardAlarm, effect: str) -> None:
    pending.emit(
        IncidentOpened(
            at=pending.at,
            by=ENGINE,
            incident=pending.next_incident_id,
            kind=ALARM.name,
            effect=effect,
            alarms=alarm.readings,
            guard=alarm.guard.id,
            cell=alarm.cell,
            version=alarm.version,
            fact=_find_fact(alarm.guard, effect),
            holds="" if alarm.guard.holds == "rollout" else alarm.guard.holds,
        )
    )


def _find_fact(guard: Guard, effect: str) -> str:
    """Return how an alarm speaks against the version that acted: `harm`, `quality` or ""."""
    if guard.condition.measure.watch is Watch.HARMS:
        return HARM_FACT
    return QUALITY_FACT if effect == "narrowed" and is_quality_guard(guard) else ""


def is_heard_elsewhere(guard: Guard) -> bool:
    """Return whether an alarm may speak against its version in all cells, not in its own alone."""
    return _find_fact(guard, "reported" if guard.then == "report" else "narrowed") != ""


def apply_clears(pending: PendingEvents, tick: Tick) -> None:
    """Clear suspensions whose measure was good for its whole span."""
    for cell, version in tick.evidence:
        state = pending.scope.cells.get((cell, version))
        if (
            cell in pending.policy.cell_set
            and state is not None
            and (active_guards := state.suspended_by | state.reported_guards)
        ):
            evidence, guards = tick.evidence[cell, version], pending.policy.list_guards(cell)
            for guard in guards:
                _clear_guard(pending, tick, cell, version, guard, evidence)
            if _are_guards_good(
                pending, tick, evidence, [g for g in guards if g.then == "suspend"]
            ):
                for removed_guard in sorted(active_guards - {guard.id for guard in guards}):
                    _emit_cleared(pending, cell, version, removed_guard, ())


def _clear_guard(
    pending: PendingEvents,
    tick: Tick,
    cell: Cell,
    version: str,
    guard: Guard,
    evidence: VersionEvidence,
) -> None:
    state = pending.scope.get_cell_state(cell, version)
    cleared = (StoredAlarm(guard.condition, guard.over),)
    if guard.id in state.suspended_by and _are_guards_good(pending, tick, evidence, [guard]):
        if count := _count_repeated_suspensions(state, guard):
            alarms = (StoredAlarm(guard.condition, guard.over, suspensions=count),)
            narrow_by_guard(pending, cell, version, guard, alarms, restart=False)
        _emit_cleared(pending, cell, version, guard.id, cleared)
    elif guard.id in state.reported_guards and not _get_guard_reading(evidence, guard).is_alarm:
        _emit_cleared(pending, cell, version, guard.id, cleared)


def _emit_cleared(
    pending: PendingEvents, cell: Cell, version: str, guard: str, alarms: tuple[StoredAlarm, ...]
) -> None:
    at = pending.at
    pending.emit(
        SuspensionCleared(at=at, by=ENGINE, cell=cell, version=version, guard=guard, alarms=alarms)
    )


def _get_guard_reading(evidence: VersionEvidence, guard: Guard) -> GuardReading:
    return evidence.guards.get(guard.id, GuardReading(is_alarm=False))


def _are_guards_good(
    pending: PendingEvents, tick: Tick, evidence: VersionEvidence, guards: Sequence[Guard]
) -> bool:
    """Return whether each measure was good for its span, up to the slot of its evidence.

    The time after the slot would shorten the span: nothing of it was counted.
    """
    return all(
        _is_reading_good(
            _get_guard_reading(evidence, guard), tick, guard.over or pending.policy.tick
        )
        for guard in guards
    )


def _is_reading_good(reading: GuardReading, tick: Tick, span: timedelta) -> bool:
    if reading.good_since is None or reading.has_recovered is not None:
        return reading.good_since is not None and bool(reading.has_recovered)
    return (tick.slot or tick.at) - reading.good_since >= span


def _count_repeated_suspensions(state: CellState, guard: Guard) -> int:
    """Return how often the guard suspended within 24 h; 0 below three times."""
    times = [at for name, at in state.suspensions if name == guard.id]
    count = len([at for at in times if times[-1] - at <= THIRD_SUSPENSION_WITHIN])
    return count if count >= 3 and state.grants else 0


def stop_after_rollback(command: StopAfterRollback, pending: PendingEvents) -> None:
    """Open an incident, begin an era and stop every cell, once for each era."""
    if command.era < pending.scope.era:
        return
    pending.emit(
        IncidentOpened(
            at=pending.at,
            by=ENGINE,
            incident=pending.next_incident_id,
            kind=LEDGER_ROLLED_BACK.name,
            effect=LEDGER_ROLLED_BACK.effects[1].name,
            trigger=command.trigger,
            about=command.about,
        )
    )
    _begin_era(pending, ENGINE, command.era, trigger=command.trigger)


def accept_restore(command: AcceptRestore, pending: PendingEvents) -> None:
    """Begin an era and stop every cell, in a user's name."""
    _begin_era(pending, command.by.name, command.known_era, reason=command.reason)


def _begin_era(
    pending: PendingEvents,
    by: str,
    known_era: int,
    *,
    reason: str = "",
    trigger: Trigger | None = None,
) -> None:
    """Begin an era above each known one.

    Open proposals end: the lost entries may have rejected them.
    """
    era = max(pending.scope.era, known_era) + 1
    for proposal in tuple(pending.scope.proposals):
        pending.void_proposal(proposal, NEW_ERA, str(era))
    pending.emit(EraBegan(at=pending.at, by=by, era=era, reason=reason, trigger=trigger))
    cells = list_unstopped_cells(pending.scope, pending.policy.cells)
    if cells:
        stop = f"S-{pending.scope.revision + 1}"
        pending.emit(
            Stopped(at=pending.at, by=by, stop=stop, cells=cells, reason=reason, trigger=trigger)
        )


def begin_attempts(pending: PendingEvents, tick: Tick) -> None:
    """Begin each attempt whose first unit this tick counts, all in one event.

    An attempt begins before its gate is evaluated, so its share is fixed while its e-value is 1.
    Attempts of one cell that begin in one slot are numbered in the order of their versions' first
    use. A running attempt keeps its number and share at New Year.
    """
    keys = _list_starting_keys(pending.scope, pending.policy, tick.evidence)
    _emit_begun(pending, keys, pending.at if tick.slot is None else tick.slot)


def begin_answered_attempts(pending: PendingEvents, answered: AnsweredByCell) -> None:
    """Begin the attempts of which answers are stored, though none counts yet.

    Args:
        pending: the events so far.
        answered: by cell and version when the last unit occurred that was predicted before it was
            decided, and is.
    """
    places = {version: place for place, version in enumerate(pending.scope.versions)}
    keys = [
        key
        for key, occurred in answered.items()
        if _may_begin(pending.scope, pending.policy, key)
        and (
            (state := pending.scope.get_cell_state(*key)).attempt == 1
            or occurred >= state.attempt_since
        )
    ]
    _emit_begun(pending, sorted(keys, key=lambda key: (key[0], places[key[1]])), pending.at)


def _emit_begun(pending: PendingEvents, keys: Sequence[tuple[Cell, str]], slot: datetime) -> None:
    if not keys:
        return
    years = dict(pending.scope.attempt_years)
    find_year = cache(partial(_find_year, slot, pending.policy))
    starts = []
    for cell, version in keys:
        year = find_year(cell.site)
        years[cell] = _count_attempt(years.get(cell), year, pending.policy.evidence.releases)
        starts.append((cell, version, years[cell]))
    format_share = cache(lambda year: repr(compute_yearly_share(*year)))
    pending.emit(
        AttemptsBegan(
            at=pending.at,
            by=ENGINE,
            cells=tuple(cell for cell, _, _ in starts),
            versions=tuple(version for _, version, _ in starts),
            years=tuple(year.year for _, _, year in starts),
            numbers=tuple(year.count for _, _, year in starts),
            releases=tuple(year.releases for _, _, year in starts),
            shares=tuple(format_share((year.count, year.releases)) for _, _, year in starts),
        )
    )


def foresee_attempt(
    scope: Scope, policy: Policy, cell: Cell, version: str, at: datetime
) -> CellState:
    """Return a version's state in a cell, with the share that its attempt would get if it began.

    The scope alone knows neither the policy's planned releases nor the site's year.
    """
    state = scope.get_cell_state(cell, version)
    if state.has_begun:
        return state
    year = foresee_year(scope, policy, cell, at)
    return replace(state, risk_share=compute_yearly_share(year.count, year.releases))


def describe_cell_attempt(
    scope: Scope, policy: Policy, cell: Cell, version: str, at: datetime
) -> str:
    """Describe a version's attempt in a cell by its number, as the ledger has it.

    Before its first unit an attempt has no number: the text then has the one that it would get.
    """
    state = scope.get_cell_state(cell, version)
    if state.has_begun:
        return f"attempt {state.number} of the year in this cell"
    if scope.versions[version].retired:
        return f"no attempt: {version} is retired"
    following = foresee_year(scope, policy, cell, at)
    return f"no attempt yet; the next would be number {following.count} of the year in this cell"


def foresee_year(scope: Scope, policy: Policy, cell: Cell, at: datetime) -> AttemptYear:
    """Return a cell's year as it would be if an attempt began."""
    year = _find_year(at, policy, cell.site)
    return _count_attempt(scope.attempt_years.get(cell), year, policy.evidence.releases)


def _list_starting_keys(
    scope: Scope, policy: Policy, evidence: EvidenceByCell
) -> list[tuple[Cell, str]]:
    """Return the cells and versions whose attempt has evidence and has not begun, in order."""
    places = {version: place for place, version in enumerate(scope.versions)}
    keys = [
        (cell, version)
        for cell, version in evidence
        if _may_begin(scope, policy, (cell, version))
        and evidence[cell, version].attempt.has_evidence
    ]
    return sorted(keys, key=lambda key: (key[0], places[key[1]]))


def _may_begin(scope: Scope, policy: Policy, key: tuple[Cell, str]) -> bool:
    """Return whether an attempt waits for evidence: its version is not retired."""
    cell, version = key
    is_in_use = version in scope.versions and not scope.versions[version].retired
    return cell in policy.cell_set and is_in_use and not scope.has_begun(cell, version)


def _find_year(slot: datetime, policy: Policy, site: str) -> int:
    """Return the calendar year of a slot in a site's zone."""
    return slot.astimezone(ZoneInfo(policy.get_timezone(site))).year


def _count_attempt(previous: AttemptYear | None, year: int, releases: int) -> AttemptYear:
    """Return a cell's year with one more attempt.

    The planned number of releases is that of the year's first attempt, so shares never change
    within a year. No year begins twice: if the clock or the site's zone was set back over New Year,
    attempts go on in the later year.
    """
    if previous is None or year > previous.year:
        return AttemptYear(year, 1, releases)
    return AttemptYear(previous.year, previous.count + 1, previous.releases)
