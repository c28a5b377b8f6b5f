"""A case that is decided, and that a version in use did not predict, is a missing unit."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.engine.evidence.case_placement import number_units, place_cases, resolve_natural_units
from rollout.engine.evidence.version_uses import VersionUses
from rollout.kernel.calendar.instants import Site, to_micros
from rollout.kernel.units import MISSING, NOT_PREDICTED
from tests.engine.evidence.histories import (
    SALT,
    a_policy,
    cases,
    decisions,
    evidence,
    hour,
    outcomes,
    predictions,
    records,
    resolved,
    track,
)

POLICY = a_policy(sites=(Site("creek", "UTC"), Site("lake", "UTC")))


def list_silent(frame, name="gate"):
    """Return case, version and slot of the units that a version did not predict."""
    return [
        (row["case_key"], row["version"], row["slot"] - to_micros(hour(0)) // 3_600_000_000)
        for row in track(frame, name)
        if row["predicted"] == NOT_PREDICTED
    ]


def test_decided_case_of_version_in_use_is_missing():
    history = records(
        cases(("a", 9), ("b", 10), ("c", 10.5)),
        predictions(("b", "bear")),
        decisions(("a", "bear", {"at": 9.2}), ("b", "bear"), ("c", "fox", {"at": 10.7})),
    )
    frame = resolved(history, POLICY)
    assert list_silent(frame) == [("c", "v1", 13)]  # not a: it occurred before the first use
    (unit,) = (row for row in track(frame) if row["case_key"] == "c")
    assert (unit["decided"], unit["excluded"]) == ("fox", None)
    assert list_silent(frame, "guard") == []  # decided before it was certain that v1 is in use


def test_silence_of_the_slot_of_the_first_use_counts_once_that_use_does():
    for at in (10.2, 12.9):
        history = records(
            cases(("a", 10), ("b", 10.5)),
            predictions(("b", "bear")),
            decisions(("b", "bear"), ("a", "fox", {"at": at})),
        )
        frame = resolved(history, POLICY)
        assert list_silent(frame) == ([("a", "v1", 13)] if at < 12 else []), at
        assert list_silent(frame, "guard") == ([("a", "v1", 13)] if at > 12 else []), at


def test_guard_counts_audit_without_prediction_as_disagreement():
    history = records(
        cases(("a", 1), ("b", 10)),
        predictions(("a", "bear")),
        decisions(("a", "bear"), ("b", "fox", {"at": 10.5})),
    )
    assert list_silent(resolved(history, POLICY), "guard") == [("b", "v1", 11)]


@pytest.mark.parametrize(
    ("case", "decision"),
    [
        ({}, None),  # nobody decided it
        ({}, {"at": 10.5, "received": 13}),  # known after the slot only
        ({"site": "lake"}, {"at": 10.5}),  # not in use there
    ],
)
def test_other_cases_are_no_units(case, decision):
    history = records(
        cases(("a", 1), ("b", 10, case)),
        predictions(("a", "bear")),
        decisions(("a", "bear"), *([] if decision is None else [("b", "fox", decision)])),
    )
    assert list_silent(resolved(history, POLICY)) == []


def test_prediction_after_its_slot_is_not_predicted():
    history = records(
        cases(("a", 1), ("b", 10)),
        predictions(("a", "bear"), ("b", "fox", {"received": 20})),
        decisions(("a", "bear"), ("b", "fox", {"at": 10.5})),
    )
    assert list_silent(resolved(history, POLICY)) == [("b", "v1", 12)]


def test_case_decided_by_an_outcome_alone_is_missing_without_a_decision():
    history = records(
        cases(("a", 1), ("b", 10)),
        predictions(("a", "bear")),
        decisions(("a", "bear")),
        outcomes(("b", "bite", 10.5)),
    )
    frame = resolved(history, POLICY)
    assert list_silent(frame) == [("b", "v1", 12)]
    assert [row["decided"] for row in track(frame)] == ["bear", MISSING]


def test_use_ends_with_retirement_and_is_apart_by_version():
    history = records(
        cases(("a", 1), ("b", 5), ("c", 10), ("d", 6)),  # d at the instant of the retirement
        predictions(("a", "bear"), ("b", "bear", {"version": "v2"})),
        decisions(("a", "bear"), ("b", "bear"), ("c", "bear"), ("d", "bear")),
    )
    placed = replace(
        place_cases(history, POLICY, SALT), uses=VersionUses(retired={"v1": to_micros(hour(6))})
    )
    frame = resolve_natural_units(placed, POLICY).sort("case_key", "version")
    assert list_silent(frame) == [("b", "v1", 7), ("c", "v2", 12), ("d", "v2", 8)]


def test_prediction_made_after_the_decision_begins_no_use():
    history = records(
        cases(("a", 1), ("b", 10)),
        predictions(("a", "bear", {"received": 2})),
        decisions(("a", "bear", {"at": 1.5}), ("b", "bear")),
    )
    assert list_silent(resolved(history, POLICY)) == []


def test_episode_counts_the_drawn_case_even_where_another_was_predicted():
    policy = evidence(POLICY, unit="episode", episode_span=timedelta(hours=4))
    keys = [f"c{number}" for number in range(40)]
    history = records(
        cases(
            ("a", 1),
            *((key, 10 + number % 3 / 4, {"episode": key[:1]}) for number, key in enumerate(keys)),
        ),
        predictions(("a", "bear"), *((key, "bear") for key in keys[::2])),
        decisions(("a", "bear"), *((key, "bear", {"at": 11}) for key in keys)),
    )
    units = [row for row in track(resolved(history, policy)) if row["unit"] == "c"]
    drawn = keys.index(units[0]["case_key"])
    assert len(units) == 1
    assert (units[0]["predicted"] == NOT_PREDICTED) == bool(drawn % 2)


@pytest.mark.slow
def test_numbered_units_have_the_same_silent_ones(monkeypatch):
    monkeypatch.setattr("rollout.engine.evidence.case_placement.CASES_AT_ONCE", 2)
    keys = [f"c{number}" for number in range(9)]
    history = records(
        cases(*((key, number) for number, key in enumerate(keys))),
        predictions(*((key, "bear") for key in keys[::2])),
        decisions(*((key, "bear") for key in keys)),
    )
    frame = number_units(place_cases(history, POLICY, SALT), POLICY).list_units()
    assert sorted(list_silent(frame)) == sorted(list_silent(resolved(history, POLICY)))
    assert len(list_silent(frame)) == 4
