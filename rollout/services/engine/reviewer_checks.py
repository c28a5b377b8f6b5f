"""Reliability of a rollout's reviewers, from its stored records."""

from datetime import datetime

import polars as pl

from rollout.core.calendar.instants import EPOCH
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.unit_counting import open_stored_history
from rollout.store.database.session import Transaction
from rollout.store.records.history import RowFilter
from rollout.tally.reviewer_checks import compute_required_reliability


def compute_reviewer_checks(
    transaction: Transaction, state: RolloutState, select_row: RowFilter | None = None
) -> pl.DataFrame | None:
    """Return the reviewer checks by all records or some; None if the policy needs none.

    A replay of the same records computes the same frame: it depends on the records' own times, not
    on when they were received or counted.
    """
    if state.policy.evidence.min_reviewer_agreement is None:
        return None
    return compute_required_reliability(
        open_stored_history(transaction, state, select_row).load_checked_records(), state.policy
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
