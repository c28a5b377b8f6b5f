"""What guards look at beside verdicts, held in memory and grown by what came in.

Records that a guard may still look at are read once; afterwards only those of cases of which
something arrived since. Signs of life without a case are read when a guard asks for silence.
"""

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Guard, Policy
from rollout.replay.record_feed import Answers, HistoryFeeds
from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.unit_counting import FED, looks_at_more, stored_history
from rollout.store.counting.count_queue import DueQueue
from rollout.store.database.session import Transaction
from rollout.tally.case_placement import place
from rollout.tally.slots import slot_after
from rollout.tally.unit_arrays import Bools, Ints

AT_ONCE = 2_000  # cases of which records are in memory at a time
OVERLAP = timedelta(minutes=10)  # a batch may become visible so long after its instant
KEPT = timedelta(days=1)  # arrivals older than this are forgotten: a replica that slept reads anew
GOES_ON = 2**60  # a slot after all others: what is live has no end after which silence is none
SPANS = 3  # a guard's reading needs one of its spans, "good for a whole span" a second
NONE = np.empty(0, dtype=np.int64)


class _Seen:
    """What a guard saw in one cell: slots, ascending; which case each is of."""

    def __init__(self) -> None:
        self.slot, self.occurred, self.case = NONE, NONE, np.empty(0, dtype=np.uint64)
        self.bad: Bools = np.empty(0, dtype=bool)

    def put(self, part: pl.DataFrame) -> None:
        """Take in rows; those of a case take the place of its earlier ones."""
        case_hashes = part["case_key"].hash().to_numpy()
        is_other_case = ~np.isin(self.case, case_hashes)
        slots = np.concatenate([self.slot[is_other_case], part["slot"].to_numpy()])
        order = np.argsort(slots, kind="stable")
        self.slot = slots[order].astype(np.int64)
        occurred_slots = np.concatenate([self.occurred[is_other_case], part["occurred"].to_numpy()])
        self.occurred = occurred_slots[order].astype(np.int64)
        self.bad = np.concatenate([self.bad[is_other_case], part["bad"].to_numpy()])[order].astype(
            bool
        )
        self.case = np.concatenate([self.case[is_other_case], case_hashes])[order]


class LiveFeeds:
    """The feeds of one rollout under one policy."""

    until = GOES_ON

    def __init__(self) -> None:
        """Hold nothing; `read` reads all the first time."""
        self._seen: dict[str, dict[tuple[str, str, str], _Seen]] = {}
        self._heard: dict[str, Ints] = {}
        self._beats: dict[str, datetime] = {}
        self._known: set[tuple[datetime, int]] = set()
        self._read_at: datetime | None = None

    def answers(self, cell: Cell, version: str, guard: Guard) -> Answers:
        """Return (slot, occurred, bad) of each answer, or harm, that the guard looks at."""
        version_key = "" if guard.condition.measure == "harm" else version
        observations = self._seen.get(guard.id, {}).get((cell.site, cell.window, version_key))
        if observations is None:
            return NONE, NONE, np.empty(0, dtype=bool)
        return observations.slot, observations.occurred, observations.bad

    def heard(self, site: str) -> Ints:
        """Return the slots in which anything came from the site."""
        return self._heard.get(site, NONE)

    def stale(self, at: datetime) -> bool:
        """Say whether what came in since it was read may be forgotten: make new ones then."""
        return self._read_at is not None and at - self._read_at > KEPT / 2

    def read(self, transaction: Transaction, stood: Standing, at: datetime) -> set[str]:
        """Read what came in since the last time, all the first time; return whose sites it is."""
        if not looks_at_more(stood.policy):
            return set()
        if self._read_at is None:
            new_case_ids = self._begin(transaction, stood, at)
        else:
            since = min(at, self._read_at) - OVERLAP
            arrivals = DueQueue(transaction, stood.rollout).arrived(since=since)
            new_case_ids, self._known = {case_id for _, case_id in arrivals - self._known}, arrivals
        sites = {
            site for batch in _parts(new_case_ids) for site in self._add(transaction, stood, batch)
        }
        self._read_at = at
        return sites

    def _begin(self, transaction: Transaction, stood: Standing, at: datetime) -> set[int]:
        """Return the cases that a guard may still look at; note when each site was last heard."""
        history = stored_history(transaction, stood)
        for site, last_heard_at in history.last_heard().items():
            self._heard[site] = np.array([slot_after(last_heard_at, stood.policy.tick)])
        return history.recent(at - SPANS * _longest(stood.policy))

    def _add(self, transaction: Transaction, stood: Standing, case_ids: set[int]) -> set[str]:
        records = stored_history(transaction, stood).records(case_ids)
        history = place(records, stood.policy, stood.rollout.salt, stood.trained_until)
        new_feeds = HistoryFeeds(records, history, stood.policy)
        for guard in stood.policy.guards:
            if guard.condition.measure in FED - {"heartbeat"}:
                self._put(guard, new_feeds.seen(guard))
        for site, slots in new_feeds.heard_at.items():
            self._heard[site] = np.union1d(self.heard(site), slots)
        return set(new_feeds.heard_at)

    def _put(self, guard: Guard, seen: pl.DataFrame) -> None:
        guard_observations = self._seen.setdefault(guard.id, {})
        version_frames = seen.partition_by("site", "window", "version", as_dict=True)
        for (site, window, version), version_frame in version_frames.items():
            key = (str(site), str(window), str(version))
            guard_observations.setdefault(key, _Seen()).put(version_frame)

    def hear(self, transaction: Transaction, stood: Standing, sites: Iterable[str]) -> set[str]:
        """Read the signs of life of some sites; return those of which there is a new one."""
        history, sites_with_heartbeats = stored_history(transaction, stood), set()
        for site in sites:
            heartbeats = history.heartbeats(site, after=self._beats.get(site))
            if heartbeats:
                self._beats[site] = heartbeats[-1]
                slots = [slot_after(heartbeat, stood.policy.tick) for heartbeat in heartbeats]
                self._heard[site] = np.union1d(self.heard(site), np.array(slots))
                sites_with_heartbeats.add(site)
        return sites_with_heartbeats


def _longest(policy: Policy) -> timedelta:
    """Return the longest span over which a guard looks at anything beside verdicts."""
    guards = [guard for guard in policy.guards if guard.condition.measure in FED]
    silence_limits = (g.condition.line for g in guards if g.condition.measure == "heartbeat")
    periods = [guard.over or policy.tick for guard in guards]
    return max(*periods, *(timedelta(seconds=limit) for limit in silence_limits), policy.tick)


def _parts(case_ids: Collection[int]) -> Iterator[set[int]]:
    ordered_ids = sorted(case_ids)
    for start in range(0, len(ordered_ids), AT_ONCE):
        yield set(ordered_ids[start : start + AT_ONCE])
