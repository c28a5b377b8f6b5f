"""A long history's units are resolved by number of case, and are the same as by key."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.evidence import case_placement, decision_resolution, tallied_units
from rollout.engine.evidence.case_placement import number_units, place_cases, resolve_natural_units
from rollout.engine.evidence.tallied_units import build_units
from rollout.kernel.policy.policy import Minimum
from tests.engine.evidence.histories import (
    SALT,
    a_gate,
    a_policy,
    cases,
    decisions,
    evidence,
    predictions,
    records,
)
from tests.properties import examples

pytestmark = pytest.mark.slow

LABELS = st.sampled_from(["bear", "fox", "none", "owl", None])
DECISIONS = st.lists(
    st.tuples(
        LABELS,
        st.sampled_from(["ana", "bo", "cy"]),
        st.integers(1, 6),
        st.sampled_from([None, None, 1, 2, 3]),
        st.sampled_from(["blind", "blind", "assisted"]),
    ),
    max_size=3,
    unique_by=lambda decision: decision[1],
)
CASES = st.lists(st.tuples(LABELS, DECISIONS), max_size=9)


def build_history(drawn, *, unplaced=False):
    """Return a history; keys are not in the order of time, and some cases may have no site."""
    keys = [f"c-{(7 * number) % 10}" for number in range(len(drawn))]
    site = {"site": "nowhere"} if unplaced else {}
    return records(
        cases(*((key, n, site if n % 4 == 3 else {}) for n, key in enumerate(keys))),
        predictions(*((key, label) for key, (label, _) in zip(keys, drawn, strict=True))),
        decisions(
            *(
                (key, label, {"reviewer": who, "at": n + wait, "seat": seat, "exposure": exposure})
                for n, (key, (_, given)) in enumerate(zip(keys, drawn, strict=True))
                for label, who, wait, seat, exposure in given
            )
        ),
    )


def in_order(units):
    return units.with_columns(pl.col(pl.Categorical).cast(pl.String)).sort(units.columns)


@pytest.mark.parametrize("verdicts", [1, 2])
@pytest.mark.parametrize("unplaced", [False, True])
@examples(given(drawn=CASES), fast=6, whole=100)
def test_units_by_number_are_those_by_key(drawn, verdicts, unplaced):
    policy = evidence(a_policy(), verdicts=verdicts)
    history = place_cases(build_history(drawn, unplaced=unplaced), policy, SALT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(case_placement, "CASES_AT_ONCE", 3)
        numbered = number_units(history, policy)
    assert in_order(numbered.list_units()).equals(
        in_order(resolve_natural_units(history, policy)), null_equal=True
    )
    gate_units = numbered.list_units().filter(pl.col("track") == "gate")
    assert numbered.list_gate_units().equals(gate_units, null_equal=True)


@examples(given(drawn=CASES), fast=6, whole=100)
def test_arrays_of_units_by_number_are_those_by_key(drawn):
    policy = a_policy(gates=(a_gate("supervised", minimum=Minimum(1, 1, 1)),))
    history = place_cases(build_history(drawn), policy, SALT)
    numbered = number_units(history, policy)
    found = build_units(numbered.frame, policy, numbered.keys)
    expected = build_units(resolve_natural_units(history, policy), policy)
    assert list_cells(found) == list_cells(expected)
    assert found.reviewers == expected.reviewers
    assert (found.first_slot, found.last_slot) == (expected.first_slot, expected.last_slot)


def list_cells(units):
    """Return the rows of each cell and track, with classes and keys instead of numbers."""
    return {
        (key, track): [
            (
                *(array.tolist() for array in (rows.slot, rows.occurred, rows.reviewer, rows.day)),
                [units.unit_classes.classes[number] for number in rows.unit_class],
                units.unit_keys.gather(rows.unit).to_list(),
            )
        ]
        for key, cell in units.cells.items()
        for track in ("gate", "guard", "assisted")
        for rows in [getattr(cell, track)]
    }


DRAWN = [
    ("bear", [("bear", "ana", 1, None, "blind")]),
    ("fox", [("fox", "ana", 1, None, "blind"), ("bear", "bo", 2, None, "blind")]),
    *[("none", [("none", "cy", 1, None, "blind")])] * 6,
]


def test_only_decisions_on_one_case_are_ordered(monkeypatch):
    ordered, number_decisions = [], decision_resolution.number_decisions

    def count_rows(frame):
        ordered.append(frame.to_native().collect().height)
        return number_decisions(frame)

    monkeypatch.setattr(decision_resolution, "number_decisions", count_rows)
    policy = a_policy()
    number_units(place_cases(build_history(DRAWN), policy, SALT), policy)
    assert sum(ordered) == 2


def test_no_text_of_a_long_history_is_joined_once_its_units_are_made(monkeypatch):
    policy = a_policy()
    numbered = number_units(place_cases(build_history(DRAWN), policy, SALT), policy)
    joined, find_positions = [], tallied_units._find_positions

    def keep_column(column, values):
        joined.append(column)
        return find_positions(column, values)

    monkeypatch.setattr(tallied_units, "_find_positions", keep_column)
    build_units(numbered.frame, policy, numbered.keys)
    assert [column.name for column in joined if not column.dtype.is_integer()] == []


def test_a_column_of_one_value_is_stored_once():
    keys = [f"c-{number:03}" for number in range(400)]
    history = place_cases(
        records(
            cases(*((key, number, {}) for number, key in enumerate(keys))),
            predictions(*((key, "bear") for key in keys)),
            decisions(*((key, "bear", {"at": number}) for number, key in enumerate(keys))),
        ),
        a_policy(),
        SALT,
    )
    units = number_units(history, a_policy()).frame
    texts = units.select("attribute_values", "slices", "version", "lever")
    assert texts.height >= 400
    assert texts.estimated_size() < 100
