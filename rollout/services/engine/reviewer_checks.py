"""How far the people of a rollout are to be relied on, from what its store knows of them."""

from datetime import datetime

import polars as pl

from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.unit_counting import stored_history
from rollout.store.database.session import Transaction
from rollout.tally.reviewer_checks import asked_of
from rollout.tally.slots import EPOCH


def people_of(transaction: Transaction, stood: Standing) -> pl.DataFrame | None:
    """Return how everybody stands who was ever checked; None where the policy doesn't ask.

    It is the same frame that a replay of the same records makes of them: what counts of a verdict
    follows from times that the records name, not from when they came in or who counts them.
    """
    if stood.policy.evidence.min_reviewer_agreement is None:
        return None
    return asked_of(stored_history(transaction, stood).checked(), stood.policy)


class People:
    """One process' memory of how the people of a rollout stand.

    A verdict is judged by the checks before the day on which it was given, so a whole history is
    read again only where something that was said before today is new.
    """

    def __init__(self) -> None:
        self._frame: pl.DataFrame | None = None
        self._known: tuple[str, int, int] | None = None

    def read(self, transaction: Transaction, stood: Standing, at: datetime) -> pl.DataFrame | None:
        """Return `people_of`, as far as verdicts that were given up to `at` depend on it."""
        today = at.astimezone(EPOCH.tzinfo).replace(hour=0, minute=0, second=0, microsecond=0)
        cache_key = (stood.policy.hash, *stored_history(transaction, stood).judged_before(today))
        if cache_key != self._known:
            self._frame, self._known = people_of(transaction, stood), cache_key
        return self._frame
