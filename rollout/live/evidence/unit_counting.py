"""From records to queued units: windows, slots, sources and who could look first.

Units of cases are resolved, and queued for the slots in which they count. If a unit is a case, its
slots follow from a few times. The queue holds every slot that
`rollout.engine.evidence.units.resolve_units` returns for it, and some more: an entry whose unit is
pending or already counted has no effect. Units that are episodes depend on other cases: the next
tick resolves them in one batch and queues those that are pending.

Windows of incoming cases: opening hours are computed once a day and site.

Cells in which a version's answers could be looked at, though none counts yet, are asked only where
an edit makes gates ask anew: with a long grace somebody could read the first answers, and choose
the question that they favour.

New proposals state from which sources their evidence came.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from rollout import faults
from rollout.data.counting.count_queue import CASE_RECEIVED, CountQueue, DueCase, StoredArrivals
from rollout.data.counting.counted_units import StoredUses
from rollout.data.counting.unit_records import (
    UnitRecords,
    load_outcome_source_counts,
    load_registering_counts,
    load_source_counts,
    load_vouched_counts,
)
from rollout.data.records.case_pages import CasePages
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import IncomingCase, IncomingCases, build_incoming_cases
from rollout.data.tables.record_tables import OUTCOME
from rollout.engine.events import NO_SOURCES, LedgerEvent, ProposalSources
from rollout.kernel.arrays import pl
from rollout.kernel.calendar.instants import (
    DAY,
    LAST_SLOT,
    OTHER_WINDOW,
    Cell,
    Site,
    Window,
    count_micros,
    find_slot_after,
    find_slot_before,
    to_instant,
    to_instant_micros,
    to_micros,
)
from rollout.kernel.calendar.opening_hours import compute_open_edges, is_always_open
from rollout.kernel.calendar.windows import select_window
from rollout.kernel.policy.cell_evidence import list_recorded_attributes
from rollout.kernel.units import MISSING, SILENT, group_pairs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from rollout.data.database.session import Transaction
    from rollout.data.records.history import RowFilter, StoredHistory
    from rollout.data.records.records import StoredBatch
    from rollout.engine.evidence.case_placement import PlacedHistory
    from rollout.engine.evidence.frames import RecordFrames
    from rollout.engine.evidence.version_uses import VersionUses
    from rollout.kernel.policy.evidence_sources import CountedOutcomeSource
    from rollout.kernel.policy.policy import Policy
    from rollout.live.rollout_state import RolloutState


BLIND, ASSISTED, UNKNOWN = "blind", "assisted", "unknown"
GATE, GUARD = "gate", "guard"
QueueEntry = tuple[int, int, str]


def queue_new_cases(
    transaction: Transaction,
    state: RolloutState,
    stored_batch: StoredBatch,
    at: datetime,
    *,
    arrived_at: datetime | None = None,
) -> Mapping[int, IncomingCase]:
    """Queue a stored batch's cases, in the transaction that stored it; return their facts.

    Units that are episodes are resolved by the next tick: of them no facts are read. If guards use
    more than decisions, tickers extend their memory by the arrivals since their last tick: records
    of an import, received long ago, arrive at `arrived_at`; others when they were received.
    """
    case_ids = stored_batch.changed_cases
    if not case_ids:
        return {}
    if has_extra_inputs(state.policy):
        # a gold case's answer is no record, but arrives like one
        arrivals = set() if arrived_at else stored_batch.list_arrivals()
        arrivals = arrivals or {(arrived_at or at, case_id) for case_id in case_ids}
        StoredArrivals(transaction, state.rollout).add(arrivals)
    if state.policy.evidence.unit != "case":
        queue_outcomes(transaction, state, case_ids)
        CountQueue(transaction, state.rollout).add(
            DueCase(at, case_id, CASE_RECEIVED) for case_id in case_ids
        )
        faults.reach_point("ingest.due")
        return {}
    incoming_cases = IncomingCases(transaction, state.rollout)
    case_facts = load_case_facts(incoming_cases, stored_batch)
    outcome_entries = _build_outcome_entries(case_facts, state.policy)
    entries = [*_build_entries(case_facts, state.policy), *sorted(outcome_entries)]
    incoming_cases.queue_entries(entries, stored_batch.new_cases)
    faults.reach_point("ingest.due")
    return case_facts


def load_case_facts(
    incoming_cases: IncomingCases, stored_batch: StoredBatch
) -> Mapping[int, IncomingCase]:
    """Return the facts of a stored batch's cases, by number."""
    case_facts = build_incoming_cases(stored_batch.columns)
    old_cases = stored_batch.changed_cases - stored_batch.new_cases
    if old_cases:  # they also have stored facts
        case_facts |= incoming_cases.load_cases(old_cases)
    return case_facts


def _build_entries(  # noqa: C901 - calls for each case and place took a third of its time
    case_facts: Mapping[int, IncomingCase], policy: Policy
) -> list[QueueEntry]:
    """Return the queue entries of cases, by the rule of `resolve_units`."""
    sites = policy.sites_by_id
    grace, tick = count_micros(policy.evidence.grace), count_micros(policy.tick)
    tracks = {BLIND: GUARD, ASSISTED: ASSISTED}
    if policy.evidence.outside_blind:
        tracks[UNKNOWN] = GUARD
    entries: set[QueueEntry] = set()
    for case_id, case in case_facts.items():
        if not case.predicted and case.first_decided is None and not policy.samples_by_version:
            continue  # who neither was asked nor predicted has missed nothing
        for site, occurred, received in case.places:  # which one counts is known later
            if site not in sites:
                continue
            closes = occurred + grace
            times = [(max(received, closes), GATE)]
            settled = (case.first_decided or 0) + grace
            if settled > received > closes:
                times.append((settled, GATE))
            for exposure, decided in case.decisions:
                track = tracks.get(exposure)
                if track == ASSISTED:
                    times += [(max(decided, received, at), track) for at in case.predicted]
                elif track is not None:
                    times.append((max(received, decided), track))
            first_at = (occurred // tick + 1) * tick  # the slot after the one in which it occurred
            for at, track in times:
                entries.add((max(first_at, -(-at // tick) * tick), case_id, track))
    return sorted(entries)  # sorted inserts are faster


def queue_outcomes(
    transaction: Transaction, state: RolloutState, case_ids: Collection[int]
) -> None:
    """Queue stored cases for the deadlines of the policy's outcomes."""
    if state.policy.outcomes:
        incoming_cases = IncomingCases(transaction, state.rollout)
        entries = _build_outcome_entries(incoming_cases.load_cases(case_ids), state.policy)
        incoming_cases.queue_entries(sorted(entries))


def _build_outcome_entries(
    case_facts: Mapping[int, IncomingCase], policy: Policy
) -> set[QueueEntry]:
    """Return the queue entries of cases for the deadlines of the policy's outcomes."""
    tick, sites = count_micros(policy.tick), policy.sites_by_id
    spans = {count_micros(outcome.closes) for outcome in policy.outcomes}
    return {
        (max(-(-due // tick), occurred // tick + 1) * tick, case_id, OUTCOME)
        for case_id, case in case_facts.items()
        for site, occurred, received in case.places
        if site in sites
        for due in (max(occurred + span, received) for span in spans)
    }


def list_unit_entries(
    transaction: Transaction, state: RolloutState, units: pl.DataFrame
) -> list[QueueEntry]:
    """Return the queue entry of each unit, once."""
    case_ids = ExternalKeys(transaction, state.rollout).find_ids(
        units["case_key"].unique().to_list()
    )
    due_units = units.select("slot", "case_key", "track").unique().sort("slot", "case_key", "track")
    tick = count_micros(state.policy.tick)
    return [(slot * tick, case_ids[key], track) for slot, key, track in due_units.iter_rows()]


@dataclass(frozen=True, slots=True)
class CountedPage:
    """Some cases with the others of their units, read at one instant and placed.

    Attributes:
        numbers: of the cases, by key.
        planted: those of them that users planted; None without any.
    """

    records: RecordFrames
    numbers: Mapping[str, int]
    natural: PlacedHistory
    planted: PlacedHistory | None


def resolve_case_units(
    transaction: Transaction,
    state: RolloutState,
    case_ids: set[int],
    unit_records: UnitRecords | None = None,
    *,
    has_any_version: bool = False,
) -> pl.DataFrame:
    """Return the units of some cases and their episodes, as of `read_case_page`."""
    from rollout.engine.evidence.case_placement import resolve_all_units

    page = read_case_page(
        transaction, state, case_ids, unit_records, has_any_version=has_any_version
    )
    return resolve_all_units(page.natural, page.planted, state.policy)


def read_case_page(
    transaction: Transaction,
    state: RolloutState,
    case_ids: set[int],
    unit_records: UnitRecords | None = None,
    *,
    has_any_version: bool = False,
) -> CountedPage:
    """Return some cases and their episodes.

    `unit_records` gets the records that were read. `has_any_version` adds the units of
    `ANY_VERSION`: when they close, some version's use may have begun that nobody knows of yet.
    """
    from rollout.engine.evidence.case_placement import place_cases, place_planted_cases

    select_rows = None if unit_records is None else unit_records.add_rows
    record_history = open_stored_history(transaction, state, select_rows)
    all_case_ids = add_unit_cases(record_history, state.policy, case_ids)
    records = record_history.load_records(all_case_ids)
    if unit_records is not None:
        unit_records.case_numbers = record_history.case_numbers
    placing = (state.policy, state.rollout.salt, state.trained_until)
    natural, planted = place_cases(records, *placing), place_planted_cases(records, *placing)
    uses = load_uses(transaction, state)
    natural = replace(natural, uses=uses.assume(natural.cases) if has_any_version else uses)
    if unit_records is not None:
        unit_records.uses = uses
    if unit_records is not None and state.policy.evidence.unit != "case":
        placements = (natural,) if planted is None else (natural, planted)
        frames = (placement.cases for placement in placements)
        unit_records.cases_beside = find_cases_beside(transaction, state, frames)
    return CountedPage(records, record_history.case_numbers, natural, planted)


def load_uses(transaction: Transaction, state: RolloutState) -> VersionUses:
    """Return since when each version is in use in each cell, as it was counted."""
    from rollout.engine.evidence.version_uses import VersionUses

    begun = StoredUses(transaction, state.rollout).load_all()
    return VersionUses(begun, state.retired_until)


def add_unit_cases(
    record_history: StoredHistory, policy: Policy, case_ids: Collection[int]
) -> set[int]:
    """Return cases with all others of their units."""
    if policy.evidence.unit == "case":
        return {*case_ids}
    all_case_ids = record_history.add_episode_cases(case_ids)
    episode_span = policy.evidence.episode_span
    if policy.evidence.unit == "episode" and episode_span is not None:
        all_case_ids |= record_history.add_span_cases(case_ids, episode_span)
    return all_case_ids


def find_cases_beside(
    transaction: Transaction, state: RolloutState, frames: Iterable[pl.DataFrame]
) -> dict[int, list[int]]:
    """Return by case all cases of its unit; each frame has the placed cases of a population."""
    unit_cases: dict[int, list[int]] = {}
    for cases in frames:
        case_ids = ExternalKeys(transaction, state.rollout).find_ids(cases["case_key"].to_list())
        cases_by_unit = group_pairs(
            (unit, case_ids[key]) for unit, key in cases.select("unit", "case_key").iter_rows()
        )
        unit_cases |= {number: numbers for numbers in cases_by_unit.values() for number in numbers}
    return unit_cases


def has_extra_inputs(policy: Policy) -> bool:
    """Return whether a guard uses failures, latency, harm or heartbeats."""
    return any(guard.condition.measure.reads_more for guard in policy.guards)


def open_stored_history(
    transaction: Transaction, state: RolloutState, select_rows: RowFilter | None = None
) -> StoredHistory:
    """Return the rollout's stored records, with the columns its policy needs."""
    from rollout.data.records.history import StoredHistory

    windows, rule = state.policy.windows, state.policy.evidence.familiar
    attributes = {attribute for window in windows for attribute in window.when}
    return StoredHistory(
        transaction,
        state.rollout,
        levers=[lever.id for lever in state.policy.levers],
        outcomes=[outcome.id for outcome in state.policy.outcomes],
        attributes=sorted(
            attributes
            | (rule.attribute_names if rule else frozenset())
            | {*list_recorded_attributes(state.policy)}
        ),
        select_rows=select_rows,
        first_names=state.first_names,
    )


MAX_CACHED_DAYS: Final = 50_000  # pairs of day and site, for one policy
DayWindows = tuple[tuple[Window, tuple[int, ...] | None], ...]
"""Each window and when it opens and closes; None if it is always open."""


class WindowLookup:
    """Windows of one policy, by the rule of `rollout.kernel.calendar.windows.find_window`."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._days = _get_day_cache(policy.rollout, policy.hash)

    def find_window(self, site: str, at: datetime, attributes: Mapping[str, str]) -> str:
        """Return the window of an instant and attributes; `other` at unknown sites.

        Raises:
            ValueError: `at` has no time zone.
        """
        try:
            instant = to_micros(at)
        except TypeError:
            instant = to_instant_micros(at)  # raises with an explanation
        key = (site, instant // DAY)
        day_windows = self._days.get(key)
        if day_windows is None:
            policy_site = self._policy.sites_by_id.get(site)
            if policy_site is None:
                return OTHER_WINDOW
            day_windows = self._load_day(policy_site, key[1])
        return select_window(
            (
                window
                for window, edges in day_windows
                if edges is None or bisect_right(edges, instant) % 2
            ),
            attributes,
        )

    def _load_day(self, site: Site, day: int) -> DayWindows:
        day_start, day_end = day * DAY, (day + 1) * DAY
        day_windows = tuple(
            (
                window,
                None
                if is_always_open(window.hours)
                else tuple(compute_open_edges(window.hours, site, day_start, day_end).tolist()),
            )
            for window in self._policy.windows
        )
        if len(self._days) >= MAX_CACHED_DAYS:
            self._days.clear()
        self._days[site.id, day] = day_windows
        return day_windows


@lru_cache(maxsize=64)
def _get_day_cache(_rollout: str, _policy_hash: str) -> dict[tuple[str, int], DayWindows]:
    return {}


def find_answered_units(
    transaction: Transaction, state: RolloutState, at: datetime, cells: Collection[Cell]
) -> dict[tuple[Cell, str], datetime]:
    """Return by cell and version the slot in which the last answered unit within grace occurred.

    Such a unit was predicted before it was decided, and is decided; older ones count already.
    """
    policy, answered = state.policy, {}
    since = at - policy.evidence.grace - 2 * policy.tick
    for site in sorted({cell.site for cell in cells}):
        case_ids = CasePages(transaction, state.rollout).list_site_cases(site, since=since)
        if not case_ids:
            continue
        units = resolve_case_units(transaction, state, case_ids)
        rows = (
            units.filter(
                pl.col("track") == GATE,
                pl.col("decided") != MISSING,
                ~pl.col("predicted").is_in(sorted(SILENT)),
                pl.col("excluded").is_null(),
            )
            .group_by("site", "window", "version")
            .agg(pl.col("occurred").max())
        )
        for place, window, version, occurred in rows.iter_rows():
            if (cell := Cell(place, window)) in cells:
                answered[cell, version] = to_instant(occurred, policy.tick)
    return answered


def freeze_sources(
    transaction: Transaction, state: RolloutState, events: tuple[LedgerEvent, ...]
) -> tuple[LedgerEvent, ...]:
    """Return the events, each new proposal of a cell with its sources."""
    return tuple(
        event.add_sources(partial(_load_sources, transaction, state, event.slot))
        for event in events
    )


def _load_sources(
    transaction: Transaction,
    state: RolloutState,
    slot: datetime | None,
    cell: Cell,
    version: str,
    stage: str,
) -> ProposalSources:
    if version not in state.scope.versions:
        return NO_SOURCES
    cell_state = state.scope.get_cell_state(cell, version)
    is_later = cell_state.attempt > 1  # a first attempt counts all units
    first_slot = find_slot_after(cell_state.attempt_since, state.policy.tick) if is_later else 0
    # units of later slots may be counted already
    until = LAST_SLOT if slot is None else find_slot_before(slot, state.policy.tick)
    slots = (first_slot, until)
    units = (transaction, state.rollout, cell, version)
    counts = load_source_counts(*units, first_slot=first_slot, until=until)
    later_names = (later for later, first in state.first_names.items() if first == version)
    names = [version, *later_names]
    outcome_counts = _load_outcome_counts(transaction, state, (cell, version, stage), slots)
    return ProposalSources(
        sources=counts,
        outcome_sources=outcome_counts,
        vouched=load_vouched_counts(*units, names, first_slot=first_slot, until=until),
        registered=load_registering_counts(*units, names, first_slot=first_slot, until=until),
    )


def _load_outcome_counts(
    transaction: Transaction,
    state: RolloutState,
    place: tuple[Cell, str, str],
    slots: tuple[int, int],
) -> tuple[CountedOutcomeSource, ...]:
    """Return the sources of the outcomes that the proposal's gate asks for; () if for none."""
    policy, (cell, version, stage) = state.policy, place
    if not policy.outcomes or stage not in policy.stage_ids or cell not in policy.cell_set:
        return ()
    conditions = policy.list_conditions(policy.stage_ids.index(stage), cell)
    outcomes = {c.population.outcome.id for c in conditions if c.population.has_gain}
    if not outcomes:
        return ()
    first_slot, until = slots
    return load_outcome_source_counts(
        transaction,
        state.rollout,
        cell,
        version,
        outcomes,
        first_slot=first_slot,
        until=until,
    )
