"""Inputs of guards besides decisions, in memory, extended by new records, and their snapshots.

Records that a guard may still use are read once; afterwards only those of cases with arrivals
since. Heartbeats are read when a guard watches for silence.

Known arrivals are the last ones, and sums of those before. A batch becomes visible after its
receipt, and a clock that was set back stamps it far in the past. Sums by span find it without
holding each arrival of half a day.

A snapshot of what guards observed is stored once much of it is new. A check tells whether a process
that begins with it observes the same as one that reads all records.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from rollout.data.counting.count_queue import ARRIVAL_SPAN, ArrivalSum, StoredArrivals
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.scopes import EvidenceSnapshot, EvidenceSnapshots
from rollout.data.records.incoming_cases import SiteSignStore
from rollout.data.tables.record_tables import decode_instant, encode_instant
from rollout.data.tables.tables import guard_snapshots
from rollout.engine.evidence.case_placement import PlacedHistory, place_cases
from rollout.engine.evidence.frames import RecordFrames
from rollout.engine.evidence.outcome_buffer import OutcomeBuffer, OutcomeUnits
from rollout.engine.evidence.site_series import (
    EMPTY_VOTES,
    LONGEST_READ_BACK,
    READ_BACK,
    AnswerRecords,
    SiteSigns,
    SiteVotes,
)
from rollout.engine.slots.record_feed import GuardAnswers, HistoryFeeds
from rollout.kernel.arrays import Ints
from rollout.kernel.calendar.instants import (
    Cell,
    count_micros,
    find_slot_before,
    to_instant,
    to_micros,
)
from rollout.kernel.measures import Watch
from rollout.kernel.policy.policy import Guard, Policy
from rollout.kernel.statistics.detector import measure_sign_interval
from rollout.kernel.units import OutcomeRule
from rollout.live.evidence.guard_memory import (
    GuardMemory,
    GuardObservations,
    GuardSnapshot,
    LiveSiteSigns,
    can_be_stored,
    encode_snapshot,
    number_cases,
    restore_snapshot,
    split_observations,
)
from rollout.live.evidence.unit_counting import (
    CountedPage,
    add_unit_cases,
    has_extra_inputs,
    open_stored_history,
)
from rollout.live.rollout_state import RolloutState

Arrival = tuple[datetime, int]
"""When a record was received, and of which case."""
OVERLAP: Final = timedelta(minutes=10)  # a batch may become visible so long after its instant


class KnownArrivals:
    """The arrivals that were read, of one rollout."""

    def __init__(
        self, last: Iterable[Arrival] = (), sums: Mapping[int, ArrivalSum] | None = None
    ) -> None:
        """Begin with the last arrivals, and number and sum of cases by span."""
        self.last = frozenset(last)
        self.sums = dict(sums or {})

    @classmethod
    def read_all(cls, stored: StoredArrivals, at: datetime, span: timedelta) -> "KnownArrivals":
        """Return all arrivals of a span before a time as known, but the last ones.

        Those are read again.
        """
        arrivals = cls((), stored.sum_since(at - span))
        arrivals._add(stored.list_since(at - OVERLAP), sign=-1)
        return arrivals

    def read_new(self, stored: StoredArrivals, since: datetime) -> set[int]:
        """Return the cases that arrived since some minutes before a time, if unknown."""
        arrivals = frozenset(stored.list_since(since - OVERLAP))
        new_arrivals, self.last = arrivals - self.last, arrivals
        self._add(new_arrivals, sign=1)
        return {case_id for _, case_id in new_arrivals}

    def _add(self, arrivals: Iterable[Arrival], *, sign: int) -> None:
        """Add arrivals to the sums, or take them away."""
        for at, case_id in arrivals:
            span = to_micros(at) // ARRIVAL_SPAN
            count, total = self.sums.get(span, (0, 0))
            self.sums[span] = (count + sign, total + sign * case_id)

    def read_late(self, stored: StoredArrivals, since: datetime) -> set[int]:
        """Return the cases of the spans after a time in which others arrived than are known."""
        first = -(-to_micros(since) // ARRIVAL_SPAN)
        stored_sums = stored.sum_since(decode_instant(first * ARRIVAL_SPAN))
        changed_spans = [span for span, s in stored_sums.items() if s != self.sums.get(span)]
        self.sums = stored_sums
        return {
            case_id
            for span in changed_spans
            for _, case_id in stored.list_since(
                decode_instant(span * ARRIVAL_SPAN),
                before=decode_instant((span + 1) * ARRIVAL_SPAN),
            )
        }


CASES_PER_READ = 5_000  # limits the records in memory, as a page of counting does
ARRIVAL_RETENTION = timedelta(days=1)  # a replica that slept longer reads everything again
SEARCHED_BACK = ARRIVAL_RETENTION / 2
"""Arrivals stamped late are found if not by more; before, ticks may have deleted some."""
LIVE_END_SLOT = 2**60  # after all other slots: live records have no end
PING_READ_BACK = timedelta(days=7)  # longer than a pass may be late
LONGEST_COMMIT = timedelta(hours=1)  # from the receipt of a heartbeat until others see it
READ_BACK_PERIODS = 3  # in guard spans: one for its reading, one for its recovery
MIN_NEW_CASES = 1_000  # which a process reads in about 0.05 s
SNAPSHOTS_PER_DOUBLING = 100  # at most about so many are written until the cases double
RENEWAL_AGE = ARRIVAL_RETENTION / 4  # of a snapshot: arrivals after it must not be deleted yet
NO_OBSERVATIONS = GuardObservations()


class LiveGuardFeeds:
    """The guard feeds of one rollout under one policy; `outcomes` grow with the counts."""

    last_slot = LIVE_END_SLOT

    def __init__(self, outcomes: OutcomeBuffer, *, reads_all: bool = False) -> None:
        """Begin with nothing; with `reads_all` the first read uses no snapshot."""
        self._outcomes, self._reads_all = outcomes, reads_all
        self._memory = GuardMemory({}, LiveSiteSigns())
        self._votes: dict[tuple[str, str, str], SiteVotes] = {}
        self._last_votes: tuple[AnswerRecords, Ints] | None = None
        self._last_heartbeats: dict[str, tuple[int, datetime]] = {}
        self._arrivals = KnownArrivals()
        self._searched_at: datetime | None = None
        self._first_names: Mapping[str, str] = {}  # by which versions are named in memory
        self._waiting_cases: set[int] = set()  # to be read, or read anew since they moved
        self._added_sites: set[str] = set()  # of cases that counting has read
        self._unplaced_cases: set[int] = set()
        self._new_case_count = 0
        self.read_at: datetime | None = None
        """The instant up to which records are known; None before the first read."""
        self.snapshot_at: datetime | None = None
        """The instant of the stored snapshot, None if none is known."""

    def read_answers(self, cell: Cell, version: str, guard: Guard) -> GuardAnswers:
        """Return (slots, slots of occurrence, failures) of a guard's observations."""
        version_key = version if guard.condition.measure.has_version else ""
        observations = self._memory.observations.get(guard.id, {}).get(
            (cell.site, cell.window, version_key), NO_OBSERVATIONS
        )
        return observations.slots, observations.occurred_slots, observations.is_bad

    def read_votes(self, site: str, version: str, guard: Guard) -> SiteVotes:
        """Return a site's answers, one per unit and minute."""
        key = (guard.id, site, version)
        if key not in self._votes:
            observations = self._memory.observations.get(guard.id, {})
            parts = [
                part.to_answers()
                for (part_site, _, part_version), part in observations.items()
                if (part_site, part_version) == (site, version)
            ]
            self._votes[key] = self._select_votes(parts) if parts else EMPTY_VOTES
        return self._votes[key]

    def _select_votes(self, parts: list[AnswerRecords]) -> SiteVotes:
        """Return the answers that count; two guards on the same predictions share the choice."""
        answers = AnswerRecords.join(parts)
        if self._last_votes is None or not self._last_votes[0].is_same_but_badness(answers):
            self._last_votes = answers, answers.find_votes()
        votes = self._last_votes[1]
        return SiteVotes(answers.slots[votes], answers.is_bad[votes])

    def read_outcomes(self, cell: Cell, version: str, outcome: OutcomeRule) -> OutcomeUnits:
        """Return a version's counted units in a cell with the value of an outcome."""
        return self._outcomes.read_outcomes(cell, version, outcome)

    def read_signs(self, site: str) -> SiteSigns:
        """Return the instants of the site's cases and signs of life."""
        return self._memory.signs.read(site)

    def is_stale(self, at: datetime) -> bool:
        """Return whether arrivals may have been deleted unread; then create new feeds."""
        return self.read_at is not None and at - self.read_at > ARRIVAL_RETENTION / 2

    def load_arrivals(
        self, transaction: Transaction, state: RolloutState, at: datetime
    ) -> set[str]:
        """Load new arrivals, all at first; return the sites they are from."""
        if not has_extra_inputs(state.policy):
            return set()
        if self.read_at is None and (sites := self._restore(transaction, state, at)) is not None:
            return sites | self.load_arrivals(transaction, state, at)
        stored = StoredArrivals(transaction, state.rollout)
        if self.read_at is None:
            recent_cases = self._load_recent_cases(transaction, state, at)
            # a site costs something in each batch that has a case of it
            new_case_ids = open_stored_history(transaction, state).sort_by_site(recent_cases)
            self._arrivals = KnownArrivals.read_all(stored, at, SEARCHED_BACK)
            self._first_names, self._searched_at = state.first_names, at
            self.read_at = at
            return self._load_cases(transaction, state, new_case_ids)
        arrived_cases = self._arrivals.read_new(stored, min(at, self.read_at))
        new_case_ids = sorted(arrived_cases | self._waiting_cases)
        sites = self._load_cases(transaction, state, new_case_ids) | self._added_sites
        self._waiting_cases, self._added_sites = set(), set()
        self.read_at = at
        if self._is_search_due(state, at):
            late_cases = self._arrivals.read_late(stored, at - SEARCHED_BACK)
            sites |= self._load_cases(transaction, state, sorted(late_cases))
            self._searched_at = at
        return sites

    def note_arrivals(self, transaction: Transaction, state: RolloutState) -> None:
        """Note which cases have arrived, before counting reads some of them."""
        if self.read_at is not None and has_extra_inputs(state.policy):
            stored = StoredArrivals(transaction, state.rollout)
            self._waiting_cases |= self._arrivals.read_new(stored, self.read_at)

    def add_page(self, state: RolloutState, page: CountedPage) -> None:
        """Add the cases of a page that have arrived; they need no second reading.

        A case that arrives after `note_arrivals` is read again.
        """
        case_ids = self._waiting_cases.intersection(page.numbers.values())
        if not case_ids or _judges_harms_by_episode(state.policy):
            return
        records, placement = page.records, page.natural
        if len(case_ids) < len(page.numbers):
            keys = [key for key, number in page.numbers.items() if number in case_ids]
            records = _select_records(records, keys)
            placement = place_cases(records, state.policy, state.rollout.salt, state.trained_until)
        self._waiting_cases -= case_ids
        self._added_sites |= self._add_records(state, case_ids, records, placement, page.numbers)

    def _load_cases(
        self, transaction: Transaction, state: RolloutState, case_ids: Sequence[int]
    ) -> set[str]:
        return {
            site
            for batch in _iterate_batches(case_ids)
            for site in self._load_feeds(transaction, state, batch)
        }

    def _is_search_due(self, state: RolloutState, at: datetime) -> bool:
        """Return whether to search for late arrivals: first, and before each snapshot."""
        if self._searched_at is None or at - self._searched_at >= RENEWAL_AGE:
            return True
        return self.is_snapshot_due(state)

    def _restore(
        self, transaction: Transaction, state: RolloutState, at: datetime
    ) -> set[str] | None:
        """Begin with the stored snapshot; return its sites, or None if there is none to use."""
        if self._reads_all or not can_be_stored(state, _find_read_back(state)):
            return None
        restored = restore_snapshot(transaction, state, at, ARRIVAL_RETENTION / 2)
        if restored is None:
            return None
        snapshot, self.read_at = restored
        self._memory, self._waiting_cases = snapshot.memory, set(snapshot.moved_cases)
        last = ((decode_instant(arrived_at), case_id) for arrived_at, case_id in snapshot.arrivals)
        self._arrivals = KnownArrivals(last, snapshot.arrival_sums)
        self._first_names, self.snapshot_at = state.first_names, self.read_at
        self._load_case_spans(transaction, state)
        return set(self._memory.signs.cases)

    def is_snapshot_due(self, state: RolloutState) -> bool:
        """Return whether a process that begins later would read much that is known here."""
        if self.read_at is None or not can_be_stored(state, _find_read_back(state)):
            return False
        if self._first_names != state.first_names:
            return False  # some of what is known has former names of versions
        case_count = self._memory.signs.case_count
        min_new_cases = max(MIN_NEW_CASES, case_count // SNAPSHOTS_PER_DOUBLING)
        is_aging = self.snapshot_at is not None and self.read_at - self.snapshot_at >= RENEWAL_AGE
        return self._new_case_count >= min_new_cases or is_aging

    def note_snapshot(self, snapshot_at: datetime) -> None:
        """Note that a snapshot of a time is stored, by this process or another one."""
        self.snapshot_at, self._new_case_count = snapshot_at, 0

    def build_snapshot(self, state: RolloutState) -> GuardSnapshot:
        """Return what a process needs that begins later."""
        moved_cases = self._memory.find_moved_cases()
        arrivals = {(encode_instant(at), case_id) for at, case_id in self._arrivals.last}
        return GuardSnapshot(
            self._select_used(state, moved_cases),
            frozenset(moved_cases.tolist()),
            frozenset(arrivals),
            self._arrivals.sums,
        )

    def observes_same(self, other: "LiveGuardFeeds", state: RolloutState) -> bool:
        """Return whether guards may use the same here as in other feeds of the same instant.

        Cases that were moved since the first read are left out: they stay in their first cell too.
        So are those of a silent site that a retention may have deleted since.
        """
        left_out = self._memory.find_moved_cases(), self._find_kept_since(state)
        own, others = (feeds._select_used(state, *left_out) for feeds in (self, other))  # noqa: SLF001
        return own.equals(others)

    def _find_kept_since(self, state: RolloutState) -> int | None:
        """Return before which microsecond records may have been deleted; None without retention."""
        if state.policy.retention.cases is None or self.read_at is None:
            return None
        # no snapshot is used for as long as a day of ticks
        return to_micros(self.read_at - state.policy.retention.cases + ARRIVAL_RETENTION)

    def _select_used(
        self, state: RolloutState, moved_cases: Ints, kept_since: int | None = None
    ) -> GuardMemory:
        """Return what guards may still use, without moved and unplaced cases."""
        assert self.read_at is not None  # noqa: S101 - something was read
        return self._memory.select(
            np.array([*moved_cases.tolist(), *self._unplaced_cases], dtype=np.int64),
            since=to_micros(self.read_at - _find_read_back(state)),
            tick=count_micros(state.policy.tick),
            silence_span=count_micros(READ_BACK) if _watches_traffic(state) else None,
            kept_since=kept_since,
        )

    def _load_recent_cases(
        self, transaction: Transaction, state: RolloutState, at: datetime
    ) -> set[int]:
        """Return cases that guards may still use."""
        history = open_stored_history(transaction, state)
        signs = SiteSignStore(transaction, state.rollout)
        since = at - _find_read_back(state)
        case_ids = history.find_recent_cases(since)
        for site, last_case_at in self._load_case_spans(transaction, state).items():
            if _watches_traffic(state) and last_case_at - READ_BACK < since:
                case_ids |= signs.find_site_cases(site, last_case_at - READ_BACK)
        return case_ids

    def _load_case_spans(
        self, transaction: Transaction, state: RolloutState
    ) -> dict[str, datetime]:
        """Note each site's first case; return when its last case occurred."""
        sites = [site.id for site in state.policy.sites]
        spans = SiteSignStore(transaction, state.rollout).load_case_spans(sites)
        for site, (first_case_at, _) in spans.items():
            self._memory.signs.first_cases[site] = to_micros(first_case_at)
        return {site: last_case_at for site, (_, last_case_at) in spans.items()}

    def _load_feeds(
        self, transaction: Transaction, state: RolloutState, case_ids: set[int]
    ) -> set[str]:
        stored_history = open_stored_history(transaction, state)
        if _judges_harms_by_episode(state.policy):
            case_ids = add_unit_cases(stored_history, state.policy, case_ids)
        records = stored_history.load_records(case_ids)
        placement = place_cases(records, state.policy, state.rollout.salt, state.trained_until)
        numbers = stored_history.case_numbers
        return self._add_records(state, case_ids, records, placement, numbers)

    def _add_records(
        self,
        state: RolloutState,
        case_ids: set[int],
        records: RecordFrames,
        placement: PlacedHistory,
        numbers: Mapping[str, int],
    ) -> set[str]:
        """Add what guards observe in the records of some cases; return their sites."""
        new_feeds = HistoryFeeds(records, placement, state.policy)
        cases = number_cases(new_feeds.list_cases(), numbers, state.policy, state.rollout.salt)
        for guard in state.policy.guards:
            if guard.condition.measure.reads_more and not _reads_signs(guard):
                self._replace_observations(guard, new_feeds, cases)
        self._memory.signs.add_cases(cases)
        self._note_loaded(case_ids, set(cases["case_id"].to_list()))
        return set(new_feeds.list_cases()["site"].unique())

    def _note_loaded(self, case_ids: set[int], placed_ids: set[int]) -> None:
        """Note which cases have no cell, or no longer one."""
        self._new_case_count += len(case_ids)
        self._unplaced_cases -= placed_ids
        self._unplaced_cases |= case_ids - placed_ids

    def _replace_observations(self, guard: Guard, feeds: HistoryFeeds, cases: pl.DataFrame) -> None:
        """Replace what the guard observed of cases that were read anew.

        A source may have taken a harm back. A case that moved stays in its first cell too, until a
        restart: senders of cases take no harm back.
        """
        observations = self._memory.observations.setdefault(guard.id, {})
        cell_cases = {
            cell: part["case_id"].to_numpy()
            for cell, part in cases.partition_by(
                "site", "window", as_dict=True, include_key=False
            ).items()
        }
        for key, known_part in observations.items():
            if (case_ids := cell_cases.get(key[:2])) is not None:
                observations[key] = known_part.drop_cases(case_ids)
                self._votes.pop((guard.id, key[0], key[2]), None)
        numbers = cases.select("case_key", "case_id", "unit_id")
        answers = feeds.list_answers(guard).join(
            numbers, on="case_key", how="left", maintain_order="left"
        )
        for (site, window, version), new_part in split_observations(answers):
            known_part = observations.get((site, window, version), NO_OBSERVATIONS)
            observations[site, window, version] = known_part.join(new_part)
            self._votes.pop((guard.id, site, version), None)

    def has_sign_interval(self, site: str) -> bool:
        """Return whether the loaded signs of life of the site have an interval."""
        return measure_sign_interval(self._memory.signs.read(site).pings) is not None

    def load_heartbeats(
        self, transaction: Transaction, state: RolloutState, sites: Iterable[str], at: datetime
    ) -> set[str]:
        """Load heartbeats of some sites that came by `at`; return the sites that have new ones.

        Also those that came late, for a time before others: a process that starts now has them.
        """
        signs, sites_with_heartbeats = SiteSignStore(transaction, state.rollout), set()
        for site in sites:
            last, since = self._last_heartbeats.get(site, (None, None))
            if (last := last or signs.load_last_heartbeat(site)) is None:
                continue
            after = last - _compute_ping_read_back(state.policy)
            heartbeats = signs.load_heartbeats(site, after=after, received_since=since)
            if self._memory.signs.add_pings(site, np.array(heartbeats, dtype=np.int64)):
                sites_with_heartbeats.add(site)
            self._last_heartbeats[site] = max([last, *heartbeats[-1:]]), at - LONGEST_COMMIT
        return sites_with_heartbeats


def _select_records(records: RecordFrames, keys: Sequence[str]) -> RecordFrames:
    """Return the records of some cases, also those that decisions or guards alone place."""
    is_selected = pl.col("case_key").is_in(keys)
    return replace(
        records.select_cases(pl.Series(keys, dtype=pl.String)),
        guard_cases=records.guard_cases.filter(is_selected),
        named_places=records.named_places.filter(is_selected),
    )


def _judges_harms_by_episode(policy: Policy) -> bool:
    """Return whether a harm's source depends on other cases of its episode."""
    has_harm_guard = any(guard.condition.measure.watch is Watch.HARMS for guard in policy.guards)
    return has_harm_guard and policy.evidence.unit == "episode"


def _watches_traffic(state: RolloutState) -> bool:
    """Return whether a guard compares silence with a site's usual traffic."""
    return any(map(_reads_signs, state.policy.guards))


def _reads_signs(guard: Guard) -> bool:
    return guard.condition.measure.watch is Watch.SIGNS


def _compute_ping_read_back(policy: Policy) -> int:
    """Return for how many microseconds before the last one signs of life are of use."""
    return count_micros(max(PING_READ_BACK, READ_BACK_PERIODS * _find_longest_period(policy)))


def _find_read_back(state: RolloutState) -> timedelta:
    """Return how old the inputs are that a guard may still use."""
    policy = state.policy
    read_back = READ_BACK_PERIODS * _find_longest_period(policy)
    if any(guard.condition.measure.is_of_site for guard in policy.guards):
        read_back = max(read_back, LONGEST_READ_BACK + policy.tick)
    return max(read_back, READ_BACK) if _watches_traffic(state) else read_back


def _find_longest_period(policy: Policy) -> timedelta:
    """Return the longest span for which a guard uses inputs besides decisions."""
    guards = [guard for guard in policy.guards if guard.condition.measure.reads_more]
    silence_limits = (guard.condition.threshold for guard in guards if _reads_signs(guard))
    periods = [guard.over or policy.tick for guard in guards]
    return max(*periods, *(timedelta(seconds=limit) for limit in silence_limits), policy.tick)


def _iterate_batches(case_ids: Sequence[int]) -> Iterator[set[int]]:
    for start in range(0, len(case_ids), CASES_PER_READ):
        yield set(case_ids[start : start + CASES_PER_READ])


def store_guard_snapshot(
    database: Database, state: RolloutState, feeds: LiveGuardFeeds, revision: int
) -> bool:
    """Store what guards observed if much of it is new; return whether it was stored.

    Of several processes that tick in turn, one stores: the others find a newer one than theirs.
    """
    if not feeds.is_snapshot_due(state) or feeds.read_at is None:
        return False
    tick = state.policy.tick
    if feeds.snapshot_at is not None:  # else this process found none that it could use
        with database.begin_read() as transaction:
            slot = EvidenceSnapshots(transaction, state.rollout, guard_snapshots).load_slot()
        stored_slot = find_slot_before(feeds.snapshot_at, tick)
        # a later slot than this one is damaged, or of a clock that was ahead: it is replaced
        if slot is not None and stored_slot < slot <= find_slot_before(feeds.read_at, tick):
            feeds.note_snapshot(to_instant(slot, tick))
            if not feeds.is_snapshot_due(state):
                return False
    body = encode_snapshot(feeds.build_snapshot(state), state)
    snapshot = EvidenceSnapshot(revision, find_slot_before(feeds.read_at, tick), body)
    with database.begin_write() as transaction:
        is_stored = EvidenceSnapshots(transaction, state.rollout, guard_snapshots).store(snapshot)
    feeds.note_snapshot(feeds.read_at)
    return is_stored


def is_guard_snapshot_wrong(transaction: Transaction, state: RolloutState) -> bool:
    """Return whether a process that began with the stored snapshot would observe something else.

    All records that guards use are read, in batches.
    """
    snapshots = EvidenceSnapshots(transaction, state.rollout, guard_snapshots)
    snapshot = snapshots.load(until=state.scope.revision)
    if snapshot is None:
        return False  # no process uses it
    at = to_instant(snapshot.slot, state.policy.tick)
    restored = LiveGuardFeeds(OutcomeBuffer())
    restored.load_arrivals(transaction, state, at)
    if restored.snapshot_at is None:
        return False  # no process uses it
    read = LiveGuardFeeds(OutcomeBuffer(), reads_all=True)
    read.load_arrivals(transaction, state, at)
    return not restored.observes_same(read, state)
