"""How versions meet the attribute values of a cell's cases, for pages."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import polars as pl

from rollout.core.calendar.sites import Cell
from rollout.core.policy.familiarity import AttributeValue, ValueReading
from rollout.reports.figures.number_agreement import NumberAgreement, compute_number_agreements
from rollout.reports.inputs.pairs import build_pairs
from rollout.services.engine.evidence_reader import load_evidence_views
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.store.counting.period_records import PeriodRecords
from rollout.store.database.session import Transaction
from rollout.store.records.history import StoredHistory
from rollout.store.records.site_signs import SiteSignStore
from rollout.tally.case_placement import place_cases
from rollout.tally.evidence_view import EvidenceView
from rollout.tally.slots import LAST_SLOT, find_slot_before
from rollout.tally.value_series import (
    NO_READING,
    UnfamiliarUnits,
    ValueCounts,
    ValueSeries,
    count_unfamiliar_units,
    count_values,
)

NUMBER_DAYS: Final = 30
MAX_NUMBER_CASES: Final = 1_000
"""The newest cases of a site that a page reads."""


def load_number_agreements(
    service: Service, state: RolloutState, cell: Cell, at: datetime
) -> dict[str, tuple[NumberAgreement, ...]]:
    """Return by version how its numbers agree with those of humans in a cell.

    They cover the pairs of a report, of the newest cases of the last 30 days; cases that may still
    be decided blind are left out. Nothing without a lever of numbers.
    """
    if not any(lever.number for lever in state.policy.levers):
        return {}
    with service.database.begin_read() as transaction:
        case_ids = _find_cases(transaction, state, cell, at)
        if not case_ids:
            return {}
        history = StoredHistory(
            transaction,
            state.rollout,
            levers=[lever.id for lever in state.policy.levers],
            attributes=sorted({name for window in state.policy.windows for name in window.when}),
            first_names=state.first_names,
        )
        records = history.load_records(case_ids)
    cases = place_cases(records, state.policy, state.rollout.salt, state.trained_until).cases
    hours = records.cases.with_columns(hour_written=pl.lit(None, pl.Int8))
    pairs = build_pairs(replace(records, cases=hours), cases, state.policy)
    in_cell = (pl.col("site") == cell.site) & (pl.col("window") == cell.window)
    agreements = compute_number_agreements(
        replace(pairs, frame=pairs.frame.filter(in_cell)), state.policy
    )
    filled = [a for a in agreements if a.within.n and a.version is not None]
    return {
        version: tuple(agreement for agreement in filled if agreement.version == version)
        for version in dict.fromkeys(str(agreement.version) for agreement in filled)
    }


def _find_cases(
    transaction: Transaction, state: RolloutState, cell: Cell, at: datetime
) -> list[int]:
    """Return the newest cases of the site that nobody may still decide blind."""
    since = at - timedelta(days=NUMBER_DAYS)
    case_ids = SiteSignStore(transaction, state.rollout).find_site_cases(cell.site, since)
    case_ids -= PeriodRecords(transaction, state.rollout).list_blind_cases(at)
    return sorted(case_ids)[-MAX_NUMBER_CASES:]


RECENT_DAYS: Final = 30
"""Days of the share of unfamiliar units, up to today."""


@dataclass(frozen=True, slots=True)
class CellValuesSummary:
    """The attribute values that a version met in a cell.

    Attributes:
        recent: units of the last 30 days.
        values: of all units, most met first. Mistakes are of units that nobody may still review.
    """

    version: str
    recent: UnfamiliarUnits
    values: tuple[ValueCounts, ...]


def load_cell_values(
    service: Service, state: RolloutState, cell: Cell, at: datetime
) -> dict[str, CellValuesSummary]:
    """Return by version what it met in a cell; nothing if the policy doesn't ask for values.

    Retired versions and those without units have none.
    """
    if state.policy.evidence.familiar is None or cell not in state.policy.cell_set:
        return {}
    zone = ZoneInfo(state.policy.sites_by_id[cell.site].timezone)
    first_day = (at.astimezone(zone) - timedelta(days=RECENT_DAYS - 1)).date().toordinal()
    closed_slot = find_slot_before(at - state.policy.evidence.grace, state.policy.tick)
    views = load_evidence_views(service.database, state, (cell,))
    return {
        version: _summarize_view(view, first_day, closed_slot)
        for (_, version), view in views.items()
        if len(view.rows.gate) and not state.scope.versions[version].retired
    }


def read_closed_values(series: ValueSeries, slot: int) -> dict[AttributeValue, ValueReading]:
    """Return the newest status of each value, with counts of units judged by a slot.

    A second blind review of a unit judged since may be open: a count of one unit would tell how the
    model answered, and its reader may become a reviewer.
    """
    closed = series.read_at(slot)
    return {
        value: replace(closed.get(value, NO_READING), status=reading.status)
        for value, reading in series.read_at(LAST_SLOT).items()
    }


def _summarize_view(view: EvidenceView, first_day: int, closed_slot: int) -> CellValuesSummary:
    rule, series = view.policy.evidence.familiar, view.value_series
    assert rule is not None and series is not None  # noqa: S101, PT018 - asked before
    unit_classes, history = view.unit_classes, view.familiar_history
    rows = view.rows.gate.select(unit_classes.is_whole_unit[view.rows.gate.unit_class])
    recent = rows.select(rows.day >= first_day)
    stage_levels = view.stage_history.find_own_levels(view.version, rows.occurred)
    readings = read_closed_values(series, closed_slot)
    return CellValuesSummary(
        view.version,
        count_unfamiliar_units(recent, unit_classes, history),
        count_values(rows, stage_levels, unit_classes, history, readings, rule),
    )
