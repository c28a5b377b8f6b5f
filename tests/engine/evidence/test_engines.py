"""Counts are equal on Polars and DuckDB and in any order of rows."""

from dataclasses import replace
from datetime import timedelta

import duckdb
import narwhals as nw
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.evidence.tallied_units import build_units
from rollout.engine.evidence.units import count_units, resolve_units
from rollout.kernel.units import CostRule, Lever, Margin, Number
from tests.engine.evidence.histories import (
    ALARM,
    SALT,
    a_policy,
    cases,
    decisions,
    evidence,
    hour,
    predictions,
    records,
)
from tests.properties import examples

pytestmark = pytest.mark.slow

PRICE = Lever(
    "price",
    number=Number("EUR", 0, 10, Margin(0.5)),
    costs=(CostRule(2, over=Margin(0.2, relative=True)), CostRule(1, off=Margin(0.6))),
    answer_within=timedelta(minutes=30),
)
ANSWERS = {
    "alarm": st.sampled_from(["bear", "fox", "none", "wolf", None]),
    "price": st.sampled_from(["0", "2", "2.5", "3.1", "11", "dear", None]),
}
LEVERS = [(ALARM,), (PRICE,), (ALARM, PRICE)]
ORDER = ["track", "unit", "version", "lever"]
times = st.sampled_from([0, 0.25, 0.5, 0.9, 1, 1.5, 2, 3, 4.2])


@st.composite
def policies(draw):
    policy = a_policy(levers=draw(st.sampled_from(LEVERS)))
    return evidence(
        policy,
        unit=draw(st.sampled_from(["case", "episode"])),
        episode_span=draw(st.sampled_from([None, timedelta(minutes=45)])),
        grace=draw(st.sampled_from([timedelta(), timedelta(minutes=40), timedelta(hours=2)])),
        verdicts=draw(st.sampled_from([1, 3])),
        confidence_floor=draw(st.sampled_from([None, 0.5])),
    )


@st.composite
def histories(draw, policy, most):
    levers = [lever.id for lever in policy.levers]
    said = st.tuples(*(ANSWERS[lever] for lever in levers))
    keys = [f"c{i}" for i in range(draw(st.integers(0, most)))]
    case_rows, prediction_rows, decision_rows = [], [], []
    for key in keys:
        more = {
            "episode": draw(st.sampled_from([None, "e1", "e2"])),
            "received": draw(st.sampled_from([None, 2, 5])),
        }
        case_rows.append((key, draw(times), more))
        for version in draw(st.sets(st.sampled_from(["v1", "v2"]))):
            own = {"version": version, "at": draw(st.none() | times), "confidence": draw(sure)}
            own["received"] = draw(st.none() | times)
            prediction_rows.append((key, draw(said), own))
        for reviewer in draw(st.sets(st.sampled_from(["ana", "bo", "cy", "di"]))):
            own = {"reviewer": reviewer, "at": draw(st.none() | times)}
            own["received"] = draw(st.none() | times)
            own |= {"seat": draw(seats), "exposure": draw(exposures)}
            decision_rows.append((key, draw(said), own))
    return records(
        cases(*case_rows),
        predictions(*prediction_rows, levers=levers),
        decisions(*decision_rows, levers=levers),
    )


sure = st.sampled_from([None, 0.2, 0.9])
seats = st.sampled_from([None, None, 1, 2, 3])
exposures = st.sampled_from(["blind", "blind", "assisted", "revealed", "unknown"])


@st.composite
def situations(draw, most=8):
    policy = draw(policies())
    return policy, draw(histories(policy, most))


def on_duckdb(placed, connection):
    frames = {}
    for name in (
        *("cases", "predictions", "decisions"),
        *("assisted_decisions", "other_decisions"),
    ):
        if getattr(placed, name) is None:
            continue
        connection.register(name, getattr(placed, name).collect("polars").to_native().to_arrow())
        frames[name] = nw.from_native(connection.table(name))
    return replace(placed, **frames)


def collected(frame, by):
    return frame.collect("polars").to_native().sort(by)


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as opened:
        yield opened


@examples(given(situation=situations(most=25), trained=st.none() | times), fast=1, whole=6)
def test_polars_and_duckdb_resolve_alike(connection, situation, trained):
    policy, history = situation
    until = {} if trained is None else {"v1": hour(trained)}
    placed = place_cases(history, policy, SALT, until).placed
    elsewhere = on_duckdb(placed, connection)
    assert _resolved(placed, policy).equals(_resolved(elsewhere, policy))


@examples(given(situation=situations(most=25)), fast=1, whole=3)
def test_polars_and_duckdb_count_alike(connection, situation):
    policy, history = situation
    placed = place_cases(history, policy, SALT).placed
    counts, theirs = (
        collected(
            count_units(resolve_units(it, policy), extra_columns=("reviewer", "day")), pl.all()
        )
        for it in (placed, on_duckdb(placed, connection))
    )
    assert counts.equals(theirs.cast({"n": counts.schema["n"]}))


def _resolved(placed, policy):
    return collected(resolve_units(placed, policy), ORDER)


@examples(given(situation=situations(), data=st.data()), fast=3, whole=15)
def test_rows_in_any_order_give_the_same_units(situation, data):
    policy, history = situation
    seed = data.draw(st.integers(0, 99))
    mixed = replace(
        history,
        **{
            name: getattr(history, name).sample(fraction=1, shuffle=True, seed=seed)
            for name in ("cases", "predictions", "decisions")
        },
    )
    once, again = (
        _resolved(place_cases(it, policy, SALT).placed, policy) for it in (history, mixed)
    )
    assert once.equals(again)


@examples(given(situation=situations()), fast=3, whole=15)
def test_each_unit_is_counted_once_on_each_track_after_it_occurred(situation):
    policy, history = situation
    frame = _resolved(place_cases(history, policy, SALT).placed, policy)
    assert not frame.select(ORDER).is_duplicated().any()
    assert (frame["slot"] > frame["occurred"]).all()
    asked = history.predictions.join(history.cases, on="case_key")
    if policy.evidence.unit == "case":
        assert frame.filter(pl.col("track") == "gate").height == asked.height * _rows(policy)


def _rows(policy):
    return 1 if len(policy.levers) == 1 else len(policy.levers) + 1


@examples(given(situation=situations()), fast=3, whole=12)
def test_arrays_hold_what_the_tally_counts(situation):
    policy, history = situation
    frame = _resolved(place_cases(history, policy, SALT).placed, policy)
    units = build_units(frame, policy)
    counted = count_units(nw.from_native(frame.lazy())).collect("polars").to_native()
    for row in counted.iter_rows(named=True):
        cell = next(c for c in units.cells if (c[0].window, c[1]) == ("always", row["version"]))
        rows = getattr(units.cells[cell], row["track"])
        same = [
            i
            for i in range(len(rows))
            if (rows.slot[i], rows.occurred[i]) == (row["slot"], row["occurred"])
            and _as_row(units.unit_classes.classes[rows.unit_class[i]]) == _as_row_of(row)
        ]
        assert len(same) == row["n"]
    rows = [len(t) for c in units.cells.values() for t in (c.gate, c.guard, c.assisted)]
    assert sum(rows) == frame.filter(pl.col("excluded").is_null()).height


def _as_row(kind):
    return (kind.lever, kind.predicted, kind.decided, kind.second, kind.level)


def _as_row_of(row):
    return tuple(row[name] for name in ("lever", "predicted", "decided", "second", "level"))
