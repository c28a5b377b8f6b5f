"""Reviewer checks as they were known when a tick counted, for counting its units again.

Checks follow from the records' own times. So what a tick knew differs from what is known today only
by records that came later than on their own day, and by records that an event erased.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from rollout.core.calendar.instants import EPOCH
from rollout.services.engine.evidence_seals import LAST_SLOT
from rollout.services.engine.known_arrivals import OVERLAP
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.unit_counting import open_stored_history
from rollout.store.database.session import Transaction
from rollout.store.records.history import RowFilter, list_late_receipts, select_received_before
from rollout.store.records.record_hashes import ErasedHashes
from rollout.store.tables.columns import encode_instant
from rollout.tally.reviewer_checks import compute_required_reliability
from rollout.tally.slots import to_instant


def compute_reviewer_checks(
    transaction: Transaction, state: RolloutState, select_rows: RowFilter | None = None
) -> pl.DataFrame | None:
    """Return the reviewer checks by all records or some; None if the policy needs none.

    A replay of the same records computes the same frame: it depends on the records' own times, not
    on when they were received or counted.
    """
    if state.policy.evidence.min_reviewer_agreement is None:
        return None
    return compute_required_reliability(
        open_stored_history(transaction, state, select_rows).load_checked_records(), state.policy
    )


class ReviewerCheckCache:
    """One process's cache of a rollout's reviewer checks.

    A decision depends on the checks before its day, so the history is read again only if a decision
    from before today is new.
    """

    def __init__(self) -> None:
        self._frame: pl.DataFrame | None = None
        self._cache_key: tuple[str, int, int] | None = None

    def load(
        self, transaction: Transaction, state: RolloutState, at: datetime
    ) -> pl.DataFrame | None:
        """Return the reviewer checks that decisions made up to `at` depend on."""
        today = at.astimezone(EPOCH.tzinfo).replace(hour=0, minute=0, second=0, microsecond=0)
        cache_key = (
            state.policy.hash,
            *open_stored_history(transaction, state).count_decisions_before(today),
        )
        if cache_key != self._cache_key:
            self._frame, self._cache_key = compute_reviewer_checks(transaction, state), cache_key
        return self._frame


MAX_EARLIER_CHECKS: Final = 10  # each reads all decisions of cases with several
MAX_HELD_CHECKS: Final = 4


class ReviewerRecount:
    """The reviewer checks of a rollout, for one check of its evidence."""

    def __init__(self, transaction: Transaction, state: RolloutState) -> None:
        self._late_receipts = list_late_receipts(transaction, state.rollout)
        self.has_erasures = bool(ErasedHashes(transaction, state.rollout).list_revisions())
        self._checks: dict[tuple[str, int], pl.DataFrame | None] = {}

    def load_newest(self, transaction: Transaction, state: RolloutState) -> pl.DataFrame | None:
        """Return the checks by all records; None if the policy needs none."""
        return self._load(transaction, state, len(self._late_receipts))

    def iterate_earlier(
        self, transaction: Transaction, state: RolloutState, first_slot: int, last_slot: int
    ) -> Iterator[pl.DataFrame | None]:
        """Yield the checks that a tick of one of these slots may have known, newest first."""
        first, last = self._find_positions(state.policy.tick, first_slot, last_slot)
        for position in range(last, max(first, last - MAX_EARLIER_CHECKS + 1) - 1, -1):
            yield self._load(transaction, state, position)

    def has_more(self, tick: timedelta, first_slot: int, last_slot: int) -> bool:
        """Return whether such a tick may have known yet other checks."""
        first, last = self._find_positions(tick, first_slot, last_slot)
        return last - first >= MAX_EARLIER_CHECKS

    def _find_positions(self, tick: timedelta, first_slot: int, last_slot: int) -> tuple[int, int]:
        """Return how many late receipts a tick knew at least and at most."""
        receipts = self._late_receipts
        start = encode_instant(to_instant(first_slot, tick) - OVERLAP)
        if last_slot == LAST_SLOT:
            return bisect_right(receipts, start), len(receipts)
        end = encode_instant(to_instant(last_slot + 1, tick))
        return bisect_right(receipts, start), bisect_left(receipts, end)

    def _load(
        self, transaction: Transaction, state: RolloutState, position: int
    ) -> pl.DataFrame | None:
        key = (state.policy.hash, position)
        if key not in self._checks:
            unknown = self._late_receipts[position : position + 1]
            select_rows = select_received_before(*unknown) if unknown else None
            checks = compute_reviewer_checks(transaction, state, select_rows)
            while len(self._checks) >= MAX_HELD_CHECKS:
                del self._checks[next(iter(self._checks))]
            self._checks[key] = checks
        return self._checks[key]
