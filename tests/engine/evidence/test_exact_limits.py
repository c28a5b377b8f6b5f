"""Limits that are met exactly: reviewers, days, missing units, the confidence of a floor."""

import numpy as np
import pytest

from rollout.engine.decide.projection import apply_events
from rollout.engine.events import VersionFirstUsed
from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.engine.evidence.gate_series import are_renewal_minimums_met, build_floor_views
from rollout.engine.evidence.guard_evidence import CountWindow
from rollout.engine.evidence.stage_history import StageHistory, build_stage_shares
from rollout.engine.evidence.unit_arrays import CellUnitArrays, UnitArrays, UnitClasses
from rollout.kernel.policy.policy import Minimum
from rollout.kernel.units import MISSING, UnitClass
from tests.engine.evidence.histories import START, a_policy, evidence

REVIEWERS = [0, 1, 1, 2]  # of the units, in their order


def build_units(classes, reviewers, days=None):
    zeros = np.zeros(len(classes), dtype=np.int64)
    days = zeros if days is None else np.array(days, dtype=np.int64)
    slots = np.arange(1, len(classes) + 1, dtype=np.int64)
    numbers = (np.array(each, dtype=np.int64) for each in (classes, reviewers))
    return UnitArrays(slots, slots - 1, *numbers, days, zeros)


@pytest.mark.parametrize(
    ("minimum", "met"),
    [
        (Minimum(units=1, reviewers=1), [False, True, True, True, True]),
        (Minimum(units=1, reviewers=2), [False, False, True, True, True]),
        (Minimum(units=3, reviewers=1), [False, False, False, True, True]),
        (Minimum(units=0, reviewers=3), [False, False, False, False, True]),
    ],
)
def test_a_renewal_asks_for_as_many_units_and_reviewers_as_the_gate_says(minimum, met):
    classes = UnitClasses((UnitClass("alarm", "bear", "bear"),), a_policy())
    window = CountWindow(build_units([0] * 4, REVIEWERS), classes, ())
    assert are_renewal_minimums_met(minimum, window, np.arange(5)).tolist() == met


def open_window(days, missing=()):
    """Return a window with a unit on each day of a list, those at some places undecided."""
    decided, undecided = (UnitClass("alarm", "bear", label) for label in ("bear", MISSING))
    numbers = [int(place in missing) for place in range(len(days))]
    units = build_units(numbers, [-1 if number else 0 for number in numbers], days)
    return CountWindow(units, UnitClasses((decided, undecided), a_policy()), ())


def test_a_gate_asks_for_as_many_days_with_a_decision_as_it_says():
    window, slots = open_window([0, 0, 1, 2], missing=[2]), np.arange(5)
    for days, met in ((1, [1, 2, 3, 4]), (2, [4]), (3, [])):
        met_slots = slots[window.find_minimum(Minimum(units=1, days=days), slots)]
        assert met_slots.tolist() == met, days
    assert [window.has_judged_unit(slot) for slot in (0, 1)] == [False, True]


@pytest.mark.parametrize(
    ("days", "missing", "at_most", "is_few"),
    [
        ([0] * 4, [3], 0.25, True),
        ([0] * 4, [3], 0.24, False),
        ([*[0] * 20, 1, 2, 3, 4, 5, 6, 7], [20, 21], 0.25, False),  # 2 of the 7 in 7 days
        ([*[0] * 20, 1, 2, 3, 4, 5, 6, 7, 8], [20, 21], 0.25, True),
        ([*[0] * 20, 1, 2, 3, 4, 5, 6, 7, 1, 7], [20, 21], 0.2, False),  # one late, no new day
    ],
)
def test_few_units_are_missing_of_all_and_of_the_last_seven_days(days, missing, at_most, is_few):
    window = open_window(days, missing)
    assert window.find_few_missing(at_most, np.array([len(days)])).tolist() == [is_few]


def test_a_floor_counts_the_units_that_reach_it():
    policy = evidence(a_policy(), confidence_floors=(0.0, 0.6, 0.9))
    classes = tuple(UnitClass("alarm", "bear", "bear", band=band) for band in range(3))
    units = build_units([0, 1, 2, 1], REVIEWERS)
    (cell,) = policy.cells
    view = EvidenceView(
        cell=cell,
        version="v1",
        rows=CellUnitArrays(gate=units, guard=units, assisted=units, planted=units),
        unit_classes=UnitClasses(classes, policy),
        policy=policy,
        state=apply_events([VersionFirstUsed(at=START, by="policy", version="v1")]).get_cell_state(
            cell, "v1"
        ),
        first_seen=START,
        stage_history=StageHistory(),
        shares=build_stage_shares(policy),
        find_buckets=lambda rows: rows.unit,
        feeds=None,
    )
    rows = [floor.rows for floor in build_floor_views(view)]
    for part in ("gate", "guard", "assisted", "planted"):
        slots = [getattr(each, part).slot.tolist() for each in rows]
        assert slots == [[1, 2, 3, 4], [2, 3, 4], [3]]
