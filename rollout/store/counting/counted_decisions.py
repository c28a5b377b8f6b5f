"""The decision behind each counted unit: who sent it, and whether it was a review made here."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, or_, select

from rollout.core.calendar.sites import Cell
from rollout.core.policy.evidence_sources import (
    ACCOUNT,
    BEFORE_SOURCES,
    UNNAMED,
    FrozenOutcomeSource,
    FrozenSource,
    name_sender,
)
from rollout.store.counting.counted_units import ROWS_PER_FETCH
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.counting_tables import GATE
from rollout.store.tables.tables import (
    count_series,
    counted_outcomes,
    counted_units,
    decisions,
    external_keys,
    predictions,
)


@dataclass(frozen=True, slots=True)
class CountedDecision:
    """A unit that gates count, with the newest decision of its reviewer.

    Attributes:
        unit: the unit's key.
        attempt: number of the attempt in which the unit counts.
        source: kind of the source when the decision was received; None if none was found then.
        sender: id of an account, or a file; None for records from before senders, and where the
            decision was deleted.
        is_review: whether it was given in a review task.
        has_own_prediction: whether its sender also sent a prediction of the case.
    """

    cell: Cell
    version: str
    attempt: int
    unit: str
    reviewer: str
    source: str | None
    sender: str | None
    is_review: bool
    has_own_prediction: bool


def list_counted_decisions(transaction: Transaction, rollout: Rollout) -> Iterator[CountedDecision]:
    """Yield the units with a decision that gates count, of every cell and version, each once."""
    query = (
        select(
            *(count_series.c.site, count_series.c.window, count_series.c.attempt),
            *(counted_units.c.version, counted_units.c.unit.label("number")),
            external_keys.c.key,
            *(counted_units.c.reviewer, decisions.c.source, decisions.c.sender, decisions.c.review),
            _has_own_prediction().label("own"),
        )
        .join(count_series, count_series.c.id == counted_units.c.series_id)
        .join(external_keys, external_keys.c.id == counted_units.c.unit)
        .outerjoin(decisions, is_counted_decision())
        .where(
            counted_units.c.rollout == rollout.number,
            counted_units.c.track == GATE,
            counted_units.c.exclusion_reason.is_(None),
            counted_units.c.reviewer.is_not(None),
        )
        .order_by(counted_units.c.unit, counted_units.c.version, decisions.c.revision)
    )
    rows: Any = transaction.execute(query.execution_options(yield_per=ROWS_PER_FETCH))
    for _, revisions in groupby(rows, key=lambda row: (row.number, row.version)):
        *_, newest = revisions
        yield CountedDecision(
            cell=Cell(newest.site, newest.window),
            version=newest.version,
            attempt=newest.attempt,
            unit=newest.key,
            reviewer=newest.reviewer,
            source=newest.source,
            sender=newest.sender,
            is_review=newest.review is not None,
            has_own_prediction=bool(newest.own),
        )


def list_decision_senders(transaction: Transaction, rollout: Rollout) -> tuple[str, ...]:
    """Return the senders of a rollout's decisions: ids of accounts, and files."""
    query = select(decisions.c.sender).where(
        decisions.c.rollout == rollout.number, decisions.c.sender.is_not(None)
    )
    return tuple(transaction.execute(query.distinct()).scalars())


def is_counted_decision() -> ColumnElement[bool]:
    """Return the condition that a decision is of a unit's reviewer, and of a source."""
    return and_(
        decisions.c.rollout == counted_units.c.rollout,
        decisions.c.case_id == counted_units.c.case_id,
        decisions.c.reviewer == counted_units.c.reviewer,
        or_(decisions.c.source.is_(None), decisions.c.source != UNNAMED),
    )


def _has_own_prediction() -> ColumnElement[bool]:
    return exists().where(
        predictions.c.rollout == decisions.c.rollout,
        predictions.c.case_id == decisions.c.case_id,
        predictions.c.sender == decisions.c.sender,
    )


def load_source_counts(
    transaction: Transaction,
    rollout: Rollout,
    cell: Cell,
    version: str,
    *,
    first_slot: int,
    until: int,
) -> tuple[FrozenSource, ...]:
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
        .where(
            counted_units.c.rollout == rollout.number,
            counted_units.c.version == version,
            counted_units.c.track == GATE,
            counted_units.c.exclusion_reason.is_(None),
            count_series.c.site == cell.site,
            count_series.c.window == cell.window,
            counted_units.c.occurred >= first_slot,
            counted_units.c.slot <= until,
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


def load_outcome_source_counts(
    transaction: Transaction,
    rollout: Rollout,
    cell: Cell,
    version: str,
    outcomes: Collection[str],
    *,
    first_slot: int,
    until: int,
) -> tuple[FrozenOutcomeSource, ...]:
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
    counts = (FrozenOutcomeSource(source, len(units)) for source, units in units_by_source.items())
    return tuple(sorted(counts, key=lambda count: (-count.units, count.source)))
