"""The decision behind each counted unit: who sent it, and whether it was a review made here."""

from collections import defaultdict
from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select

from rollout.data.database.rollouts import Rollout
from rollout.data.database.session import Transaction
from rollout.data.tables.record_tables import GATE
from rollout.data.tables.tables import count_series, counted_outcomes, counted_units, decisions
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.policy.evidence_sources import (
    ACCOUNT,
    BEFORE_SOURCES,
    UNNAMED,
    CountedOutcomeSource,
    CountedSource,
    name_sender,
)


def is_counted_decision() -> ColumnElement[bool]:
    """Return the condition that a decision is of a unit's reviewer, and of a source."""
    return and_(
        decisions.c.rollout == counted_units.c.rollout,
        decisions.c.case_id == counted_units.c.case_id,
        decisions.c.reviewer == counted_units.c.reviewer,
        or_(decisions.c.source.is_(None), decisions.c.source != UNNAMED),
    )


def is_gate_unit(
    rollout: Rollout, cell: Cell, version: str, first_slot: int, until: int
) -> ColumnElement[bool]:
    """Return the condition that a unit of a series is of a cell's gate track.

    It occurred from a slot on, and counts in slots up to `until`.
    """
    return and_(
        counted_units.c.rollout == rollout.number,
        counted_units.c.version == version,
        counted_units.c.track == GATE,
        counted_units.c.exclusion_reason.is_(None),
        count_series.c.site == cell.site,
        count_series.c.window == cell.window,
        counted_units.c.occurred >= first_slot,
        counted_units.c.slot <= until,
    )


def load_source_counts(
    transaction: Transaction,
    rollout: Rollout,
    cell: Cell,
    version: str,
    *,
    first_slot: int,
    until: int,
) -> tuple[CountedSource, ...]:
    """Return by source the decisions behind a version's gate units, most first.

    They occurred from a slot on and count in slots up to `until`. A unit counts once, with the
    newest decision of its reviewer. Units without a decision, and those whose decision was erased,
    are in no source.
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
        .where(is_gate_unit(rollout, cell, version, first_slot, until))
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
        CountedSource(name, len(reviewers), len(set(reviewers.values())))
        for name, reviewers in units_by_source.items()
    )
    return tuple(sorted(counts, key=lambda count: (-count.decisions, count.source)))


def load_outcome_source_counts(
    transaction: Transaction,
    rollout: Rollout,
    cell: Cell,
    version: str,
    outcomes: Collection[str],
    *,
    first_slot: int,
    until: int,
) -> tuple[CountedOutcomeSource, ...]:
    """Return by source the units whose outcomes are evidence for a version, most first.

    They occurred from a slot on and count in slots up to `until`. A unit with values of two sources
    counts with both.
    """
    rows: Any = transaction.execute(
        select(counted_outcomes.c.sources, counted_outcomes.c.unit).where(
            counted_outcomes.c.rollout == rollout.number,
            counted_outcomes.c.site == cell.site,
            counted_outcomes.c.window == cell.window,
            counted_outcomes.c.version == version,
            counted_outcomes.c.outcome.in_(outcomes),
            counted_outcomes.c.occurred >= first_slot,
            counted_outcomes.c.slot <= until,
            counted_outcomes.c.known_share > 0,
            counted_outcomes.c.source_fault.is_(None),
        )
    )
    units_by_source: dict[str, set[int]] = defaultdict(set)
    for sources, unit in rows:
        for source in (sources or BEFORE_SOURCES).split():
            units_by_source[source].add(unit)
    counts = (CountedOutcomeSource(source, len(units)) for source, units in units_by_source.items())
    return tuple(sorted(counts, key=lambda count: (-count.units, count.source)))
