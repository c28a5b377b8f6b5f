"""From which sources the decisions of counted units came."""

from collections import defaultdict
from typing import Any

from sqlalchemy import select

from rollout.core.calendar.sites import Cell
from rollout.core.policy.evidence_sources import ACCOUNT, FrozenSource, name_sender
from rollout.store.counting.counted_decisions import is_counted_decision
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.counting_tables import GATE
from rollout.store.tables.tables import count_series, counted_units, decisions


def load_source_counts(
    transaction: Transaction, rollout: Rollout, cell: Cell, version: str, attempt: int
) -> tuple[FrozenSource, ...]:
    """Return by source the decisions behind an attempt's gate units, most first.

    A unit counts once, with the newest decision of its reviewer. Units without a decision, and
    those whose decision was erased, are in no source.
    """
    units_by_source: dict[str, dict[int, str]] = defaultdict(dict)
    newest: dict[int, tuple[str, str]] = {}
    query = (
        select(
            counted_units.c.unit,
            decisions.c.reviewer,
            decisions.c.source,
            decisions.c.sender,
            decisions.c.review,
        )
        .join(count_series, count_series.c.id == counted_units.c.series_id)
        .join(decisions, is_counted_decision())
        .where(
            counted_units.c.rollout == rollout.number,
            counted_units.c.version == version,
            counted_units.c.track == GATE,
            counted_units.c.exclusion_reason.is_(None),
            count_series.c.site == cell.site,
            count_series.c.window == cell.window,
            count_series.c.attempt == attempt,
        )
        .order_by(counted_units.c.unit, decisions.c.revision)
    )
    rows: Any = transaction.execute(query)
    for unit, reviewer, source, sender, review in rows:
        name = name_sender(sender, is_review=review is not None)
        name = source if source not in {None, ACCOUNT} else name
        newest[unit] = (name, reviewer)
    for unit, (name, reviewer) in newest.items():
        units_by_source[name][unit] = reviewer
    counts = (
        FrozenSource(name, len(reviewers), len(set(reviewers.values())))
        for name, reviewers in units_by_source.items()
    )
    return tuple(sorted(counts, key=lambda count: (-count.decisions, count.source)))
