"""Rows of divergences as `divergences.csv` has them: with what records say of each case."""

from collections.abc import Sequence
from dataclasses import asdict

import polars as pl

from rollout.reports.divergences import divergence_frame
from rollout.reports.pairs import Pairs
from rollout.services.compared import Pair, Where
from rollout.services.standing import Standing
from rollout.store.history import StoredHistory
from rollout.store.session import Transaction
from rollout.store.spans import Spans
from rollout.tally.frames import ATTRIBUTE, VALUE

SCHEMA = {
    "case_key": pl.String(),
    "window": pl.String(),
    "human": pl.String(),
    "model": pl.String(),
    "human_action": pl.String(),
    "model_action": pl.String(),
    "cost": pl.Float64(),
    "confidence": pl.Float64(),
}


def divergence_rows(
    transaction: Transaction, stood: Standing, where: Where, pairs: Sequence[Pair]
) -> pl.DataFrame:
    """Return pairs with their cases' sites, times, attributes and outcomes, the dearest first."""
    numbers, lever = {pair.case_id for pair in pairs}, where.lever.id
    names = Spans(transaction, stood.rollout).attributes(numbers)
    store = StoredHistory(transaction, stood.rollout, levers=[lever], attributes=names)
    records = store.records(numbers)
    said = pl.DataFrame([_row(pair) for pair in pairs], schema=SCHEMA)
    facts = records.cases.select(
        "case_key",
        "site",
        "occurred_text",
        *(ATTRIBUTE + name for name in names),
        t=pl.col("occurred_at").dt.epoch("us"),
    )
    truth = records.outcomes.select("case_key", outcome=VALUE + lever)
    frame = said.join(facts, on="case_key").join(truth, on="case_key", how="left")
    whose = {"version": pl.lit(where.version), "lever": pl.lit(lever)}
    told = frame.with_columns(agrees=pl.lit(value=False), **whose)
    return divergence_frame(Pairs(told, {}), stood.policy)


def _row(pair: Pair) -> dict[str, object]:
    return {"case_key": pair.key, **asdict(pair)}
