"""How the numbers of versions agree with those of humans in a cell, from recent records."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from rollout.core.calendar.sites import Cell
from rollout.reports.figures.number_agreement import NumberAgreement, compute_number_agreements
from rollout.reports.inputs.pairs import build_pairs
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.store.counting.period_records import PeriodRecords
from rollout.store.database.session import Transaction
from rollout.store.records.history import StoredHistory
from rollout.store.records.site_signs import SiteSignStore
from rollout.tally.case_placement import place_cases

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
