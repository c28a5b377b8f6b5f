"""Inputs of guards besides decisions, in memory, extended by new records.

Records that a guard may still use are read once; afterwards only those of cases with arrivals
since. Heartbeats are read when a guard watches for silence.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from rollout.core.calendar.instants import to_micros
from rollout.core.calendar.sites import Cell
from rollout.core.policy.counting_rules import has_guard_tests
from rollout.core.policy.measures import SITE_MEASURES
from rollout.core.policy.outcomes import OutcomeRule
from rollout.core.policy.policy import Guard, Policy
from rollout.core.statistics.share_detector import measure_sign_interval
from rollout.replay.record_feed import (
    EMPTY_VOTES,
    CaseHashes,
    GuardAnswers,
    GuardVotes,
    HistoryFeeds,
    hash_keys,
    to_answer_records,
)
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.unit_counting import (
    MEASURES_WITH_EXTRA_INPUT,
    add_unit_cases,
    has_extra_inputs,
    open_stored_history,
)
from rollout.store.counting.count_queue import CountQueue
from rollout.store.database.session import Transaction
from rollout.store.records.site_traffic import SiteSignStore
from rollout.tally.answer_records import AnswerRecords, build_empty_answers
from rollout.tally.case_placement import place_cases
from rollout.tally.episode_series import LONGEST_READ_BACK
from rollout.tally.outcome_buffer import OutcomeBuffer
from rollout.tally.outcome_units import OutcomeUnits
from rollout.tally.silence_series import (
    NO_SIGNS,
    READ_BACK,
    InstantArray,
    SiteSigns,
    build_case_signs,
)
from rollout.tally.slots import find_slot_after
from rollout.tally.unit_arrays import BoolArray, IntArray


class LiveSiteSigns:
    """The signs of a rollout's sites."""

    def __init__(self) -> None:
        self._cases: dict[str, pl.DataFrame] = {}
        self._pings: dict[str, InstantArray] = {}
        self._first_cases: dict[str, int] = {}
        self._signs: dict[str, SiteSigns] = {}

    def read(self, site: str) -> SiteSigns:
        """Return what is known of a site."""
        if site not in self._signs:
            self._signs[site] = self._build(site)
        return self._signs[site]

    def _build(self, site: str) -> SiteSigns:
        cases, pings = self._cases.get(site), self._pings.get(site, NO_SIGNS.pings)
        if cases is None:
            return SiteSigns(NO_SIGNS.cases, NO_SIGNS.units, pings, self._first_cases.get(site))
        signs = build_case_signs(
            cases["at"].to_numpy(), cases["unit"].to_numpy(), self._first_cases.get(site)
        )
        return SiteSigns(signs.cases, signs.units, pings, signs.known_since)

    def add_first_case(self, site: str, at: int) -> None:
        """Add when a site's first case occurred, which may be too old to be read."""
        self._first_cases[site] = at

    def add_cases(self, instants: pl.DataFrame) -> None:
        """Add rows of `HistoryFeeds.list_case_instants`; known ones change nothing."""
        new_cases = instants.with_columns(pl.col("unit").hash()).unique()
        for (site,), part in new_cases.partition_by("site", as_dict=True).items():
            earlier_cases = self._cases.get(str(site))
            joined = part if earlier_cases is None else pl.concat([earlier_cases, part]).unique()
            self._cases[str(site)] = joined
            self._signs.pop(str(site), None)

    def add_pings(self, site: str, instants: list[int]) -> None:
        """Add signs of life of a site."""
        earlier_pings = self._pings.get(site, NO_SIGNS.pings)
        self._pings[site] = np.union1d(earlier_pings, np.array(instants, dtype=np.int64))
        self._signs.pop(site, None)


CASES_PER_READ = 2_000  # limits the records in memory
OVERLAP = timedelta(minutes=10)  # a batch may become visible so long after its instant
ARRIVAL_RETENTION = timedelta(days=1)  # a replica that slept longer reads everything again
LIVE_END_SLOT = 2**60  # after all other slots: live records have no end
PING_READ_BACK = timedelta(days=7)  # longer than a pass may be late
READ_BACK_PERIODS = 3  # in guard spans: one for its reading, one for its recovery
EMPTY_SLOTS = np.empty(0, dtype=np.int64)


class _GuardObservations:
    """A guard's observations in one cell, ascending by slot."""

    def __init__(self) -> None:
        self.slots, self.occurred_slots = EMPTY_SLOTS, EMPTY_SLOTS
        self.case_hashes = np.empty(0, dtype=np.uint64)
        self.failures: BoolArray = np.empty(0, dtype=bool)
        self.answers = build_empty_answers()

    def add(self, frame: pl.DataFrame) -> None:
        """Add rows of cases that have none here."""
        slots = np.concatenate([self.slots, frame["slot"].to_numpy()])
        order = np.argsort(slots, kind="stable")
        self.slots = slots[order].astype(np.int64)
        occurred_slots = np.concatenate([self.occurred_slots, frame["occurred"].to_numpy()])
        self.occurred_slots = occurred_slots[order].astype(np.int64)
        failures = np.concatenate([self.failures, frame["bad"].to_numpy()])
        self.failures = failures[order].astype(bool)
        self.case_hashes = np.concatenate([self.case_hashes, hash_keys(frame)])[order]
        if "draw" in frame.columns:
            new_answers = to_answer_records(frame)
            self.answers = AnswerRecords.join([self.answers, new_answers]).take(order)

    def drop(self, case_hashes: CaseHashes) -> None:
        """Drop the rows of some cases."""
        others = np.flatnonzero(~np.isin(self.case_hashes, case_hashes))
        if len(others) == len(self.case_hashes):
            return
        self.slots, self.occurred_slots = self.slots[others], self.occurred_slots[others]
        self.failures, self.case_hashes = self.failures[others], self.case_hashes[others]
        if len(self.answers.slots):
            self.answers = self.answers.take(others)


class LiveGuardFeeds:
    """The guard feeds of one rollout under one policy; `outcomes` grow with the counts."""

    last_slot = LIVE_END_SLOT

    def __init__(self, outcomes: OutcomeBuffer) -> None:
        self._outcomes = outcomes
        self._observations: dict[str, dict[tuple[str, str, str], _GuardObservations]] = {}
        self._votes: dict[tuple[str, str, str], GuardVotes] = {}
        self._slots_by_site: dict[str, IntArray] = {}
        self._last_heartbeats: dict[str, datetime] = {}
        self._signs = LiveSiteSigns()
        self._known_arrivals: set[tuple[datetime, int]] = set()
        self._read_at: datetime | None = None

    def read_answers(self, cell: Cell, version: str, guard: Guard) -> GuardAnswers:
        """Return (slots, slots of occurrence, failures) of a guard's observations."""
        version_key = "" if guard.condition.measure == "harm" else version
        observations = self._observations.get(guard.id, {}).get(
            (cell.site, cell.window, version_key)
        )
        if observations is None:
            return EMPTY_SLOTS, EMPTY_SLOTS, np.empty(0, dtype=bool)
        return observations.slots, observations.occurred_slots, observations.failures

    def read_votes(self, site: str, version: str, guard: Guard) -> GuardVotes:
        """Return slot and badness of a site's answers, one per unit and minute."""
        key = (guard.id, site, version)
        if key not in self._votes:
            observations = self._observations.get(guard.id, {})
            parts = [
                part.answers
                for (part_site, _, part_version), part in observations.items()
                if (part_site, part_version) == (site, version)
            ]
            self._votes[key] = AnswerRecords.join(parts).select_votes() if parts else EMPTY_VOTES
        return self._votes[key]

    def read_outcomes(self, cell: Cell, version: str, outcome: OutcomeRule) -> OutcomeUnits:
        """Return a version's counted units in a cell with the value of an outcome."""
        return self._outcomes.read_outcomes(cell, version, outcome)

    def slots_with_records(self, site: str) -> IntArray:
        """Return the slots in which the site sent anything."""
        return self._slots_by_site.get(site, EMPTY_SLOTS)

    def read_signs(self, site: str) -> SiteSigns:
        """Return the instants of the site's cases and signs of life."""
        return self._signs.read(site)

    def is_stale(self, at: datetime) -> bool:
        """Return whether arrivals may have been deleted unread; then create new feeds."""
        return self._read_at is not None and at - self._read_at > ARRIVAL_RETENTION / 2

    def load_arrivals(
        self, transaction: Transaction, state: RolloutState, at: datetime
    ) -> set[str]:
        """Load new arrivals, all at first; return the sites they are from."""
        if not has_extra_inputs(state.policy):
            return set()
        if self._read_at is None:
            recent_cases = self._load_recent_cases(transaction, state, at)
            history = open_stored_history(transaction, state)
            # a site costs something in each batch that has a case of it
            new_case_ids = history.sort_by_site(recent_cases)
        else:
            since = min(at, self._read_at) - OVERLAP
            arrivals = CountQueue(transaction, state.rollout).list_arrivals(since=since)
            new_case_ids = sorted({case_id for _, case_id in arrivals - self._known_arrivals})
            self._known_arrivals = arrivals
        sites = {
            site
            for batch in _iterate_batches(new_case_ids)
            for site in self._load_feeds(transaction, state, batch)
        }
        self._read_at = at
        return sites

    def _load_recent_cases(
        self, transaction: Transaction, state: RolloutState, at: datetime
    ) -> set[int]:
        """Return cases that guards may still use; store each site's last slot."""
        history = open_stored_history(transaction, state)
        signs = SiteSignStore(transaction, state.rollout)
        since = at - _find_read_back(state)
        case_ids = history.find_recent_cases(since)
        for site, (first_case_at, last_case_at) in signs.load_case_spans().items():
            self._slots_by_site[site] = np.array([find_slot_after(last_case_at, state.policy.tick)])
            self._signs.add_first_case(site, to_micros(first_case_at))
            if _watches_traffic(state) and last_case_at - READ_BACK < since:
                case_ids |= signs.find_site_cases(site, last_case_at - READ_BACK)
        return case_ids

    def _load_feeds(
        self, transaction: Transaction, state: RolloutState, case_ids: set[int]
    ) -> set[str]:
        stored_history = open_stored_history(transaction, state)
        if _judges_harms_by_episode(state.policy):
            case_ids = add_unit_cases(stored_history, state.policy, case_ids)
        records = stored_history.load_records(case_ids)
        history = place_cases(records, state.policy, state.rollout.salt, state.trained_until)
        new_feeds = HistoryFeeds(records, history, state.policy)
        for guard in state.policy.guards:
            if guard.condition.measure in MEASURES_WITH_EXTRA_INPUT - {"heartbeat"}:
                self._replace_observations(guard, new_feeds)
        self._signs.add_cases(new_feeds.list_case_instants())
        for site, slots in new_feeds.slots_by_site.items():
            self._slots_by_site[site] = np.union1d(self.slots_with_records(site), slots)
        return set(new_feeds.slots_by_site)

    def _replace_observations(self, guard: Guard, feeds: HistoryFeeds) -> None:
        """Replace what the guard observed of cases that were read anew.

        A source may have taken a harm back. A case that moved stays in its first cell too, until a
        restart: senders of cases take no harm back.
        """
        guard_observations = self._observations.setdefault(guard.id, {})
        hashes_by_cell = feeds.hash_cases()
        for (site, window, version), observations in guard_observations.items():
            if (case_hashes := hashes_by_cell.get((site, window))) is not None:
                observations.drop(case_hashes)
                self._votes.pop((guard.id, site, version), None)
        version_frames = feeds.list_answers(guard).partition_by(
            "site", "window", "version", as_dict=True
        )
        for (site, window, version), version_frame in version_frames.items():
            key = (str(site), str(window), str(version))
            guard_observations.setdefault(key, _GuardObservations()).add(version_frame)
            self._votes.pop((guard.id, str(site), str(version)), None)

    def has_sign_interval(self, site: str) -> bool:
        """Return whether the loaded signs of life of the site have an interval."""
        return measure_sign_interval(self._signs.read(site).pings) is not None

    def load_heartbeats(
        self, transaction: Transaction, state: RolloutState, sites: Iterable[str]
    ) -> set[str]:
        """Load new heartbeats of some sites; return the sites that have any."""
        signs, sites_with_heartbeats = SiteSignStore(transaction, state.rollout), set()
        for site in sites:
            after = self._last_heartbeats.get(site) or _find_first_ping(signs, site, state)
            heartbeats = () if after is None else signs.load_heartbeats(site, after=after)
            if heartbeats:
                self._signs.add_pings(site, [to_micros(heartbeat) for heartbeat in heartbeats])
                self._last_heartbeats[site] = heartbeats[-1]
                slots = [find_slot_after(heartbeat, state.policy.tick) for heartbeat in heartbeats]
                self._slots_by_site[site] = np.union1d(
                    self.slots_with_records(site), np.array(slots)
                )
                sites_with_heartbeats.add(site)
        return sites_with_heartbeats


def _judges_harms_by_episode(policy: Policy) -> bool:
    """Return whether a harm's source depends on other cases of its episode."""
    has_harm_guard = any(guard.condition.measure == "harm" for guard in policy.guards)
    return has_harm_guard and policy.evidence.unit == "episode"


def _watches_traffic(state: RolloutState) -> bool:
    """Return whether a guard compares silence with a site's usual traffic."""
    guards = state.policy.guards
    has_heartbeat = any(guard.condition.measure == "heartbeat" for guard in guards)
    return has_heartbeat and has_guard_tests(state.scope.rules)


def _find_first_ping(signs: SiteSignStore, site: str, state: RolloutState) -> datetime | None:
    """Return after which time a site's signs of life are of use; None without any."""
    last = signs.load_last_heartbeat(site)
    if last is None:
        return None
    return last - max(PING_READ_BACK, READ_BACK_PERIODS * _find_longest_period(state.policy))


def _find_read_back(state: RolloutState) -> timedelta:
    """Return how old the inputs are that a guard may still use."""
    policy = state.policy
    read_back = READ_BACK_PERIODS * _find_longest_period(policy)
    if any(guard.condition.measure in SITE_MEASURES for guard in policy.guards):
        read_back = max(read_back, LONGEST_READ_BACK + policy.tick)
    return max(read_back, READ_BACK) if _watches_traffic(state) else read_back


def _find_longest_period(policy: Policy) -> timedelta:
    """Return the longest span for which a guard uses inputs besides decisions."""
    guards = [
        guard for guard in policy.guards if guard.condition.measure in MEASURES_WITH_EXTRA_INPUT
    ]
    silence_limits = (g.condition.line for g in guards if g.condition.measure == "heartbeat")
    periods = [guard.over or policy.tick for guard in guards]
    return max(*periods, *(timedelta(seconds=limit) for limit in silence_limits), policy.tick)


def _iterate_batches(case_ids: Sequence[int]) -> Iterator[set[int]]:
    for start in range(0, len(case_ids), CASES_PER_READ):
        yield set(case_ids[start : start + CASES_PER_READ])
