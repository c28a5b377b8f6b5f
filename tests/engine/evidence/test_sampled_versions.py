"""A version with a sample has the drawn cases as units, and no others."""

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import polars as pl
import pytest

from rollout.engine.evidence.frames import NAMED_PLACE_SCHEMA
from rollout.engine.evidence.version_uses import drop_undrawn
from rollout.engine.records.records import NAMED_BY_DECISION, UNREGISTERED, pick_first_draws
from rollout.kernel.units import MISSING, NOT_PREDICTED
from tests.engine.evidence.histories import (
    a_policy,
    cases,
    decisions,
    evidence,
    hour,
    predictions,
    records,
    resolved,
    track,
)

POLICY = a_policy()
IN, OUT = {"draws": {"v1": True}}, {"draws": {"v1": False}}


def list_units(history, policy=POLICY, name="gate"):
    """Return case, version, predicted and decided of the units that count."""
    frame = resolved(drop_undrawn(history), policy)
    return [
        (row["case_key"], row["version"], row["predicted"], row["decided"])
        for row in track(frame, name)
        if row["excluded"] is None
    ]


@pytest.mark.parametrize("name", ["gate", "guard"])
def test_undrawn_case_is_no_unit_even_if_it_was_predicted(name):
    history = records(
        cases(("a", 1, IN), ("b", 10, OUT), ("c", 11, OUT), ("d", 12, IN)),
        predictions(("a", "bear"), ("b", "bear"), ("d", "fox")),
        decisions(("a", "bear"), ("b", "bear"), ("c", "bear"), ("d", "bear")),
    )
    assert list_units(history, name=name) == [
        ("a", "v1", "bear", "bear"),
        ("d", "v1", "fox", "bear"),
    ]


@pytest.mark.parametrize("answer", [None, {"received": 20}], ids=["silent", "late"])
def test_drawn_case_that_is_not_predicted_is_missing_even_if_nobody_decides_it(answer):
    history = records(
        cases(("a", 1, IN), ("b", 10, IN), ("c", 11, OUT)),
        predictions(("a", "bear"), *([] if answer is None else [("b", "bear", answer)])),
        decisions(("a", "bear")),
    )
    assert list_units(history) == [
        ("a", "v1", "bear", "bear"),
        ("b", "v1", NOT_PREDICTED, MISSING),
    ]


def test_other_version_and_case_without_a_draw_count_as_ever():
    history = records(
        cases(("a", 1), ("b", 10, OUT), ("c", 11)),
        predictions(("a", "bear"), ("a", "bear", {"version": "v2"}), ("b", "bear")),
        decisions(("a", "bear"), ("b", "bear", {"at": 10.5}), ("c", "fox", {"at": 11.5})),
    )
    assert list_units(history) == [
        ("a", "v1", "bear", "bear"),
        ("a", "v2", "bear", "bear"),
        ("b", "v2", NOT_PREDICTED, "bear"),
        ("c", "v1", NOT_PREDICTED, "fox"),
        ("c", "v2", NOT_PREDICTED, "fox"),
    ]


def test_use_begins_with_a_drawn_case():
    history = records(
        cases(("a", 1, OUT), ("b", 10, IN), ("c", 20, IN)),
        predictions(("a", "bear"), ("c", "bear")),
        decisions(("a", "bear"), ("b", "bear", {"at": 10.5}), ("c", "bear")),
    )
    assert list_units(history) == [("c", "v1", "bear", "bear")]


def test_episode_that_is_not_drawn_is_no_unit():
    policy = evidence(POLICY, unit="episode", episode_span=timedelta(hours=4))
    rows = [("a", 1, IN), ("b", 10, OUT), ("c", 10.5, OUT), ("d", 20, IN), ("e", 20.5, IN)]
    history = records(
        cases(*((key, at, {"episode": f"e{at:.0f}", **more}) for key, at, more in rows)),
        predictions(("a", "bear"), ("b", "bear"), ("c", "fox")),
        decisions(*((key, "bear", {"at": at + 0.7}) for key, at, _ in rows if at < 20)),
    )
    units = list_units(history, policy)
    assert [(case, predicted) for case, _, predicted, _ in units[:1]] == [("a", "bear")]
    assert [predicted for _, _, predicted, _ in units[1:]] == [NOT_PREDICTED]
    assert units[1][0] in {"d", "e"}


@pytest.mark.parametrize(("more", "expected"), [(IN, 1), (OUT, 0)], ids=["drawn", "undrawn"])
def test_decision_without_a_case_is_missing_if_its_key_is_drawn(more, expected):
    place = {
        "case_key": "x",
        "site": "creek",
        "occurred_at": hour(10),
        "received_at": hour(10.2),
        "has_time": True,
        "may_move": True,
        "draws": '{"v1":true}' if more is IN else '{"v1":false}',
    }
    history = replace(
        records(
            cases(("a", 1, IN)),
            predictions(("a", "bear")),
            decisions(("a", "bear"), ("x", "bear", {"at": 10.1, "received": 10.2})),
        ),
        named_places=pl.DataFrame([place], schema=NAMED_PLACE_SCHEMA),
    )
    assert len([unit for unit in list_units(history) if unit[0] == "x"]) == expected


def test_draw_of_any_name_of_a_version_is_that_of_its_first():
    history = records(
        cases(("a", 1, {"draws": {"v1b": False}}), ("b", 2, {"draws": {"v1b": True, "v1": False}})),
        predictions(("a", "bear"), ("b", "bear")),
        decisions(("a", "bear"), ("b", "bear")),
    )
    named = drop_undrawn(history, {"v1b": "v1"})
    assert named.predictions["case_key"].to_list() == ["b"]


def test_first_received_revision_draws():
    rows = [
        SimpleNamespace(case_id=number, revision=revision, received_at=at, draws=draws)
        for number, revision, at, draws in [
            *((1, 1, 30, "late"), (1, 2, 20, "first")),
            *((2, NAMED_BY_DECISION, 10, None), (2, 1, 20, "later")),
            *((3, 1, 10, "one"), (3, 2, 10, "two")),
            *((4, UNREGISTERED + 1, 10, "by another"), (4, 1, 20, "registered")),
        ]
    ]
    assert pick_first_draws(rows) == {1: "first", 3: "one", 4: "registered"}
