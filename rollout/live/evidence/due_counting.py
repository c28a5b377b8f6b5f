"""Counting of due cases in pages, and of units with the value of an outcome.

A page is read at one instant, and resolving it blocks nobody and writes nothing; short transactions
store it. A part of it is stored only if what it rests on is as it was read: its queue entries, the
records of its cases, the names of versions, and no erasure since. What moved stays in the queue,
and the next pass reads it again.

A unit with the value of an outcome is counted when its deadline passes. Cases are queued for their
deadline when a record of theirs is stored. The tick resolves the units of due cases by the rule
that replay uses, and stores each once.
"""

import gc
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import itemgetter
from typing import Any, Final, TypeVar

import polars as pl

from rollout import faults
from rollout.data.counting import counter
from rollout.data.counting.count_queue import CASE_RECEIVED, CountQueue, DueCase
from rollout.data.counting.counted_units import CountedUnitRow, JustCounted, StoredUses
from rollout.data.counting.counts import CountedOutcomes
from rollout.data.counting.top_losses import LossRow, StoredLosses
from rollout.data.counting.unit_records import CountedRecords, UnitRecords, load_drawn
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.case_pages import CasePages, count_case_records
from rollout.data.records.external_keys import CASE, EPISODE, ExternalKeys
from rollout.data.records.versions import VersionStore
from rollout.data.tables.record_tables import GATE, OUTCOME, RECORD_UNSEALED, decode_instant
from rollout.engine.events import CasesErased, NameErased
from rollout.engine.evidence.case_placement import place_cases, resolve_all_units
from rollout.engine.evidence.outcome_buffer import CountedOutcome, OutcomeBuffer
from rollout.engine.evidence.outcome_resolution import resolve_outcome_units
from rollout.engine.evidence.version_uses import ANY_VERSION, Use, UseKey, list_first_uses
from rollout.kernel.arrays import Floats, Ints
from rollout.kernel.calendar.instants import LAST_SLOT, Cell, to_instant
from rollout.kernel.statistics.sampling import compute_sampling_values
from rollout.kernel.units import OutcomeRule, group_pairs
from rollout.live.evidence.evidence_feeds import LiveGuardFeeds
from rollout.live.evidence.evidence_seals import load_policies
from rollout.live.evidence.stage_history import RolloutHistory
from rollout.live.evidence.unit_counting import (
    add_unit_cases,
    find_cases_beside,
    list_unit_entries,
    load_uses,
    open_stored_history,
    read_case_page,
)
from rollout.live.rollout_state import RolloutState, load_state_and_events

BucketFinder = Callable[[Ints, Floats], Ints]
UnitNumbers = Callable[[Collection[str]], Mapping[str, int]]


def count_outcomes(
    transaction: Transaction,
    state: RolloutState,
    slot: int,
    case_ids: Collection[int],
    find_buckets: BucketFinder,
) -> None:
    """Count the due units of cases; queue those whose deadline is later than it was."""
    records = UnitRecords(state.first_names)

    def _assign_units(keys: Collection[str]) -> Mapping[str, int]:
        return open_unit_keys(transaction, state).assign_ids(keys, lock=False).by_key

    finders = (find_buckets, _assign_units)
    pending: set[DueCase] = set()
    due_lines: list[CountedOutcome] = []
    for line in resolve_outcome_lines(transaction, state, case_ids, records, *finders):
        if line.slot > slot:
            pending.add(DueCase(to_instant(line.slot, state.policy.tick), line.case_id, OUTCOME))
        else:
            due_lines.append(line)
    CountedOutcomes(transaction, state.rollout).store(due_lines)
    CountQueue(transaction, state.rollout).add(pending)


def resolve_outcome_lines(
    transaction: Transaction,
    state: RolloutState,
    case_ids: Collection[int],
    records: UnitRecords,
    find_buckets: BucketFinder,
    find_unit_ids: UnitNumbers,
) -> Iterator[CountedOutcome]:
    """Yield the units of some cases and their episodes, for each outcome of the policy.

    Units without a number are left out.
    """
    policy = state.policy
    history = open_stored_history(transaction, state, records.add_rows)
    all_case_ids = add_unit_cases(history, policy, case_ids)
    frames = history.load_records(all_case_ids)
    placement = place_cases(frames, policy, state.rollout.salt, state.trained_until)
    placement = replace(placement, uses=load_uses(transaction, state))
    if policy.evidence.unit != "case":
        records.cases_beside = find_cases_beside(transaction, state, [placement.cases])
    drawn = load_drawn(transaction, state.rollout, all_case_ids, records)
    for outcome in policy.outcomes:
        units = resolve_outcome_units(frames, placement, policy, outcome)
        if units.height:
            rows = _add_buckets(units, state, find_buckets).to_dicts()
            unit_ids = find_unit_ids({row["unit"] for row in rows})
            known_rows = [row for row in rows if row["unit"] in unit_ids]
            numbers = ExternalKeys(transaction, state.rollout, CASE).find_ids(
                {row["case_key"] for row in known_rows}
            )
            yield from _build_lines(outcome, known_rows, numbers, unit_ids, drawn, records)


def _add_buckets(
    units: pl.DataFrame, state: RolloutState, find_buckets: BucketFinder
) -> pl.DataFrame:
    values = compute_sampling_values(state.rollout.salt, "stage", units["unit"].to_list())
    buckets = find_buckets(units["occurred"].to_numpy(), values)
    return units.with_columns(bucket=pl.Series(buckets, dtype=pl.Int64))


def _build_lines(
    outcome: OutcomeRule,
    rows: Iterable[Mapping[str, Any]],
    case_ids: Mapping[str, int],
    unit_ids: Mapping[str, int],
    drawn: Mapping[tuple[int, str], str],
    records: UnitRecords,
) -> Iterator[CountedOutcome]:
    copied = (
        *("version", "slot", "occurred", "site", "window", "bucket", "score", "known_share"),
        *("sources", "source_fault"),
    )
    for row in rows:
        case_id = case_ids[row["case_key"]]
        yield CountedOutcome(
            unit=unit_ids[row["unit"]],
            outcome=outcome.id,
            case_id=case_id,
            definition=outcome.definition,
            drawn=drawn.get((case_id, row["version"])),
            record_hashes=records.join_hashes(case_id, row["version"]),
            **{name: row[name] for name in copied},
        )


def open_unit_keys(transaction: Transaction, state: RolloutState) -> ExternalKeys:
    """Return the keys of units under the policy in force."""
    kind = CASE if state.policy.evidence.unit == "case" else EPISODE
    return ExternalKeys(transaction, state.rollout, kind)


OTHER_TRACKS: Final = frozenset({OUTCOME, RECORD_UNSEALED})
"""Tracks of entries that are no due units."""
MAX_IDLE_PASSES: Final = 5
PLACE_COLUMNS: Final = ("site", "window", "version", "occurred")
ERASURES: Final = (CasesErased.__name__, NameErased.__name__)
RowT = TypeVar("RowT", DueCase, CountedUnitRow, LossRow)
log = logging.getLogger("rollout.scheduler")


@dataclass(frozen=True, slots=True)
class PageSize:
    """How much is read at once, and how much is stored in one transaction.

    Attributes:
        entries: of the queue that are read; the others of their cases come with them.
        cases: whose units are stored in one transaction, for which a stop may wait.
        others: entries whose records are read in the transaction that stores what follows.
    """

    entries: int
    cases: int
    others: int = 500


PAGE_SIZE: Final = PageSize(entries=10_000, cases=1_000)


@dataclass(frozen=True, slots=True)
class ResolvedPage:
    """Due cases, read at one instant, with what is to be stored of them.

    Attributes:
        state: the rollout's state with the versions of that instant.
        revision: of the ledger at that instant.
        entries: the page's entries of the queue for units.
        others: those for outcomes and for hashes of records.
        case_ids: the cases whose records were read.
        units: the units that are due, with their numbers.
        losses: the pairs among them that differ.
        later_entries: units that a later tick counts.
        row_counts: by case the number of records that were read.
        first_uses: the versions that these units bring into use, each with its case.
        unit_keys: the keys of the units by number.
    """

    state: RolloutState
    revision: int
    entries: Sequence[DueCase]
    others: Sequence[DueCase]
    case_ids: Collection[int] = ()
    units: Sequence[CountedUnitRow] = ()
    losses: Sequence[LossRow] = ()
    later_entries: Sequence[DueCase] = ()
    row_counts: Mapping[int, int] = field(default_factory=dict)
    first_uses: Sequence[tuple[UseKey, Use, int]] = ()
    unit_keys: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _PagePart:
    """Some of a page's due cases, which are stored in one transaction."""

    entries: Sequence[DueCase]
    case_ids: Collection[int]
    units: Sequence[CountedUnitRow]
    losses: Sequence[LossRow]


class DueCounter:
    """Counts the due cases of one rollout in one tick.

    Attributes:
        state: the rollout's state, with the versions of the last page.
    """

    def __init__(
        self,
        database: Database,
        state: RolloutState,
        history: RolloutHistory,
        page_size: PageSize = PAGE_SIZE,
        counted: JustCounted | None = None,
        feeds: LiveGuardFeeds | None = None,
    ) -> None:
        """Count by a state and its history.

        `counted` gets the units that were stored, `feeds` what was read of cases that have arrived.
        """
        self._counted = JustCounted() if counted is None else counted
        self._feeds = LiveGuardFeeds(OutcomeBuffer()) if feeds is None else feeds
        self._database, self.state, self._history = database, state, history
        self._page_size, self._is_page_read = page_size, False

    def count_until(self, slot: int, has_time: Callable[[], bool] = lambda: True) -> bool:
        """Count what is due by a slot, until nothing is left that others don't hold.

        Return whether it came to that; after each page it goes on while `has_time`.
        """
        idle_passes = 0
        while idle_passes < MAX_IDLE_PASSES:
            stored_count, is_settled = self._count_once(slot, has_time)
            if not stored_count and is_settled:
                return True
            if not has_time():
                return False
            idle_passes = 0 if stored_count else idle_passes + 1
        log.warning("some due cases of %s change all the time", self.state.rollout.name)
        return True

    def count_cases(self, case_ids: Collection[int]) -> None:
        """Count what is queued of cases as it stands; units keep slots that are yet to come."""
        for _ in range(MAX_IDLE_PASSES):
            with self._database.begin_read() as transaction:
                entries = CountQueue(transaction, self.state.rollout).list_queued(case_ids)
                page = self._read_page(transaction, entries, LAST_SLOT) if entries else None
            if page is None:
                return
            for part in _split_page(page, self._page_size.cases):
                self._store_part(page, part)
            self._count_others(page, LAST_SLOT)

    def _count_once(self, slot: int, has_time: Callable[[], bool]) -> tuple[int, bool]:
        """Count the queue from its start; return the entries done, and whether none had moved."""
        done_count, is_settled = 0, True
        position: DueCase | None = None
        until, limit = to_instant(slot, self.state.policy.tick), self._page_size.entries
        if self.state.policy.evidence.unit != "case":
            limit = min(limit, self._page_size.others)  # an episode may be of many cases
        while True:
            with pause_collections():
                with self._database.begin_read() as transaction:
                    queue = CountQueue(transaction, self.state.rollout)
                    entries = queue.list_due(until=until, limit=limit, after=position)
                    page = self._read_page(transaction, entries, slot) if entries else None
                if page is None:
                    return done_count, is_settled
                faults.reach_point("tick.read")
                position = entries[:limit][-1]
                for part in _split_page(page, self._page_size.cases):
                    part_count, is_unmoved = self._store_part(page, part)
                    done_count, is_settled = done_count + part_count, is_settled and is_unmoved
                done_count += self._count_others(page, slot)
            if not has_time():
                return done_count, is_settled

    def _read_page(
        self, transaction: Transaction, entries: Sequence[DueCase], slot: int
    ) -> ResolvedPage:
        # a name that came since the tick began may continue a version that is counted now
        versions = VersionStore(transaction, self.state.rollout).list_all()
        if versions != self.state.versions:
            self.state = self.state.replace_versions(versions)
        state = self.state
        revision = Ledger(transaction, state.rollout).load_head().revision
        due_entries = [entry for entry in entries if entry.track not in OTHER_TRACKS]
        others = [entry for entry in entries if entry.track in OTHER_TRACKS]
        if not due_entries:
            return ResolvedPage(state, revision, (), others)
        unit_records = UnitRecords(state.first_names)
        case_ids = {entry.case_id for entry in due_entries}
        is_received = any(entry.track == CASE_RECEIVED for entry in due_entries)
        if not self._is_page_read:
            self._is_page_read = True
            self._feeds.note_arrivals(transaction, state)
        case_page = read_case_page(
            transaction, state, case_ids, unit_records, has_any_version=is_received
        )
        self._feeds.add_page(state, case_page)
        units = resolve_all_units(case_page.natural, case_page.planted, state.policy)
        is_ripe, is_real = pl.col("slot") <= slot, pl.col("version") != ANY_VERSION
        ripe_units = units.filter(is_ripe & is_real)
        rows: Sequence[CountedUnitRow] = ()
        first_uses: Sequence[tuple[UseKey, Use, int]] = ()
        unit_keys: Mapping[int, str] = {}
        if ripe_units.height:
            ripe_units = self._add_unit_columns(ripe_units, state)
            numbers = self._find_numbers(transaction, ripe_units, unit_records.case_numbers)
            unit_keys = {number: key for key, number in numbers.units.items()}
            rows = counter.build_counted_units(ripe_units, numbers, unit_records)
            first_uses = list_first_uses(
                ripe_units, unit_records.uses.begun, unit_records.case_numbers
            )
        later_entries: Sequence[DueCase] = ()
        if is_received:
            later_units = units.filter(~is_ripe)
            later_entries = [
                DueCase(decode_instant(at), case_id, track)
                for at, case_id, track in list_unit_entries(transaction, state, later_units)
            ]
        return ResolvedPage(
            *(state, revision, due_entries, others),
            case_ids={*case_ids, *unit_records.row_counts},
            units=rows,
            losses=self._find_losses(rows),
            later_entries=later_entries,
            row_counts=unit_records.row_counts,
            first_uses=first_uses,
            unit_keys=unit_keys,
        )

    def _find_losses(self, rows: Sequence[CountedUnitRow]) -> list[LossRow]:
        """Return the differing pairs; a class may be newer than the instant of the page.

        So may be a prediction, but then its case has moved.
        """
        state = self.state
        with self._database.begin_read() as transaction:
            losses = StoredLosses(transaction, state.rollout, state.first_names)
            return losses.find_losses(rows)

    def _find_numbers(
        self, transaction: Transaction, units: pl.DataFrame, cases: Mapping[str, int]
    ) -> counter.UnitNumbers:
        """Return the numbers of units; few units have a key, class or series without one."""
        by_episode = self.state.policy.evidence.unit == "episode"
        rollout = self.state.rollout
        numbers = counter.find_numbers(transaction, rollout, units, cases, by_episode=by_episode)
        if numbers is not None:
            return numbers
        with self._database.begin_write() as writing:
            return counter.assign_numbers(writing, rollout, units, by_episode=by_episode)

    def _store_part(self, page: ResolvedPage, part: _PagePart) -> tuple[int, bool]:
        """Store what is unmoved; return the entries done, and whether that was all not held."""
        counted_units: Sequence[CountedUnitRow] = ()
        with self._database.begin_write() as transaction:
            queue = CountQueue(transaction, page.state.rollout)
            entries = queue.lock(part.entries)
            faults.reach_point("tick.taken")
            free_cases = {entry.case_id for entry in part.entries}
            free_cases -= {entry.case_id for entry in part.entries if entry not in entries}
            cases = self._select_unmoved(transaction, page, part, free_cases)
            if cases:
                units, losses = part.units, part.losses
                if len(cases) < len(part.case_ids):
                    units = [unit for unit in units if unit.case_id in cases]
                    losses = [loss for loss in losses if loss.case_id in cases]
                entries = {entry for entry in entries if entry.case_id in cases}
                queue.add(page.later_entries)
                # from here on evidence can't advance
                counted_units = counter.store_units(transaction, page.state.rollout, units, losses)
                latest_first = sorted(page.first_uses, key=itemgetter(1), reverse=True)
                first_uses = {key: use for key, use, case_id in latest_first if case_id in cases}
                StoredUses(transaction, page.state.rollout).store(first_uses)
                queue.delete(entries)
                queue.add(_list_silent_entries(transaction, page.state, first_uses))
        self._counted.add(counted_units, page.unit_keys)
        return (len(entries) if cases else 0), free_cases.issubset(cases)

    def _select_unmoved(
        self,
        transaction: Transaction,
        page: ResolvedPage,
        part: _PagePart,
        free_cases: Collection[int],
    ) -> set[int]:
        """Return the cases that may be stored as they were read."""
        state = page.state
        if not free_cases or _has_moved(transaction, page):
            return set()
        row_counts = count_case_records(transaction, state.rollout, part.case_ids)
        if state.policy.evidence.unit == "case":
            return {case for case in free_cases if row_counts[case] == page.row_counts.get(case, 0)}
        history = open_stored_history(transaction, state)
        due_cases = {entry.case_id for entry in part.entries}
        is_same = add_unit_cases(history, state.policy, due_cases) <= {*part.case_ids} and all(
            row_counts[case] == page.row_counts.get(case, 0) for case in part.case_ids
        )
        return {*part.case_ids} if is_same and due_cases == free_cases else set()

    def _count_others(self, page: ResolvedPage, slot: int) -> int:
        """Count outcomes and take hashes of records, each within one transaction."""
        remaining, done_count, state = iter(page.others), 0, page.state
        while entries := list(islice(remaining, self._page_size.others)):
            with self._database.begin_write() as transaction:
                queue = CountQueue(transaction, state.rollout)
                locked_entries = queue.lock(entries)
                due_outcomes = {entry.case_id for entry in locked_entries if entry.track == OUTCOME}
                if due_outcomes:
                    find_buckets = self._history.find_buckets
                    count_outcomes(transaction, state, slot, due_outcomes, find_buckets)
                unsealed = {e.case_id for e in locked_entries if e.track == RECORD_UNSEALED}
                CountedRecords(transaction, state.rollout).store(unsealed, slot=slot)
                queue.delete(locked_entries)
            done_count += len(locked_entries)
        return done_count

    def _add_unit_columns(self, units: pl.DataFrame, state: RolloutState) -> pl.DataFrame:
        """Add definition, attempt and bucket as of each unit's occurrence."""
        history = self._history
        places = units.select(PLACE_COLUMNS).unique()
        cells = [Cell(*row) for row in places.select("site", "window").rows()]
        attempts = map(history.find_attempt, cells, places["version"], places["occurred"])
        places = places.with_columns(
            definition=pl.Series([*map(history.find_definition, cells)], dtype=pl.String),
            attempt=pl.Series([*attempts], dtype=pl.Int64),
        )
        keys = units.select("unit").unique()  # a unit has a row for each version, track and lever
        decider_draws, audit_draws = state.draw_units(keys["unit"].to_list())
        keys = keys.with_columns(decider_draw=decider_draws, audit_draw=audit_draws)
        placed_units = units.join(places, on=PLACE_COLUMNS, how="left", maintain_order="left").join(
            keys, on="unit", maintain_order="left"
        )
        columns = ("occurred", "decider_draw", "audit_draw")
        buckets = history.find_buckets(*(placed_units[name].to_numpy() for name in columns))
        return placed_units.drop(columns[1:]).with_columns(
            bucket=pl.Series(buckets, dtype=pl.Int64)
        )


def count_before_erasure(database: Database, rollout_name: str, keys: Collection[str]) -> None:
    """Count what is queued of some cases and their episodes, before their records go.

    Otherwise an erasure would take disagreements from gates and guards, and nobody would know.
    """
    with database.begin_read() as transaction:
        state, events = load_state_and_events(transaction, rollout_name)
        case_ids = ExternalKeys(transaction, state.rollout, CASE).find_ids(keys).values()
        unit_cases = add_unit_cases(open_stored_history(transaction, state), state.policy, case_ids)
        if not CountQueue(transaction, state.rollout).list_queued(unit_cases):
            return
        history, policies = RolloutHistory(), load_policies(transaction, state, events)
        history.add_events(events, policies.__getitem__)
    DueCounter(database, state, history).count_cases(unit_cases)


def _list_silent_entries(
    transaction: Transaction, state: RolloutState, first_uses: Mapping[UseKey, Use]
) -> Iterator[DueCase]:
    """Yield an entry for each case on which a version is silent since its first use.

    A tick that counts many slots may have come to such a case before the use was known.
    """
    pages, tick = CasePages(transaction, state.rollout), state.policy.tick
    uses_by_version = group_pairs(
        (version, (site, use)) for (site, _, version), use in first_uses.items()
    )
    for version, uses in uses_by_version.items():
        since, sites = to_instant(min(use.occurred for _, use in uses), tick), {s for s, _ in uses}
        names = state.list_names(version)
        silent_cases = pages.list_unpredicted_cases(sites, names, since=since)
        for site, use in uses:
            begun, slot = to_instant(use.occurred, tick), to_instant(use.slot, tick)
            site_cases = silent_cases.get(site, ())
            yield from (DueCase(slot, case_id, GATE) for case_id, at in site_cases if at >= begun)


@contextmanager
def pause_collections() -> Iterator[None]:
    """Collect no garbage in the block, whose many rows are none: each would be walked over often.

    Where threads pause at once, the first one that ends resumes for all.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _has_moved(transaction: Transaction, page: ResolvedPage) -> bool:
    """Return whether names of versions were stored, or anything erased, since a page was read."""
    state = page.state
    if VersionStore(transaction, state.rollout).list_all() != state.versions:
        return True
    rows = Ledger(transaction, state.rollout).list_rows(after=page.revision, kinds=ERASURES)
    return next(rows, None) is not None


def _split_page(page: ResolvedPage, cases_per_part: int) -> Iterator[_PagePart]:
    """Yield parts of a page; units of several cases stay in one."""
    if not page.entries:
        return
    if page.state.policy.evidence.unit != "case":
        yield _PagePart(page.entries, page.case_ids, page.units, page.losses)
        return
    due_cases = list(dict.fromkeys(entry.case_id for entry in page.entries))
    part_numbers = {case: place // cases_per_part for place, case in enumerate(due_cases)}
    entries = _group_rows(page.entries, part_numbers)
    units, losses = _group_rows(page.units, part_numbers), _group_rows(page.losses, part_numbers)
    for number in range(-(-len(due_cases) // cases_per_part)):
        first = number * cases_per_part
        part_cases = due_cases[first : first + cases_per_part]
        yield _PagePart(entries[number], part_cases, units[number], losses[number])


def _group_rows(
    rows: Iterable[RowT], part_numbers: Mapping[int, int]
) -> defaultdict[int, list[RowT]]:
    """Return the rows by the number of the part that has their case."""
    groups: defaultdict[int, list[RowT]] = defaultdict(list)
    for row in rows:
        groups[part_numbers[row.case_id]].append(row)
    return groups
