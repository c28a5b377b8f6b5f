"""Units by value: at every row of random histories, what the gate reads one value at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.evidence.guard_evidence import CountWindow
from rollout.engine.evidence.unit_arrays import UnitArrays, UnitClasses
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.cell_evidence import MAX_SLICE_VALUES
from rollout.kernel.policy.gates import is_gate_open, read_gate, read_renewal
from rollout.kernel.policy.policy import Minimum
from rollout.kernel.populations import EachValue
from rollout.kernel.units import MISSING, UnitClass
from rollout.kernel.words import say_requirement
from tests.engine.evidence.histories import a_gate, a_policy


class EachOfFew(EachValue):
    minimum = 3


BY_GROUP = Condition(MEASURES["agreement"], 0.5, population=EachOfFew("group"))
POLICY = a_policy(gates=(a_gate("supervised", BY_GROUP, minimum=Minimum(0, 0, 0)),))
(CELL,) = POLICY.cells
UNIT = st.tuples(
    st.sampled_from(['{"group":"a"}', '{"group":"b"}', '{"group":null}', ""]),
    st.sampled_from(["bear", "bear", "bear", "fox", MISSING]),
)


def window_of(units, condition=BY_GROUP):
    """Return the window of units in order, one a slot: stored values and the human's label."""
    classes = [UnitClass("alarm", "bear", decided, slices=text) for text, decided in units]
    rows = np.arange(len(units))
    zeros = np.zeros(len(units), dtype=np.int64)
    arrays = UnitArrays(rows, rows, rows, zeros, zeros, rows)
    return CountWindow(arrays, UnitClasses(tuple(classes), POLICY), (condition,))


@pytest.mark.parametrize("has_minimum", [True, False])
@given(units=st.lists(UNIT, max_size=60))
def test_all_values_pass_where_the_gate_says_so(units, has_minimum):
    window = window_of(units)
    rows = window.get_slice_rows(BY_GROUP)
    passing = rows.find_passing(BY_GROUP, 0.2, has_minimum=has_minimum)
    risk_share = 0.2 / POLICY.gates[0].risk
    for position in range(len(units) + 1):
        counts = window.count_at(position - 1)
        if has_minimum:
            gate = read_gate(POLICY, CELL, 1, risk_share, counts, counts)
            missing_holds = counts.missing > POLICY.evidence.missing_at_most * counts.closed
            assert gate.is_met == (passing[position] and not missing_holds)
            assert is_gate_open(POLICY, CELL, 1, risk_share, counts, counts) == gate.is_met
    turned = rows.find_passing(BY_GROUP, 1.0, has_minimum=False)
    counts = window.count_at(len(units))
    assert read_renewal(POLICY, CELL, 1, counts).is_met == (turned[-1] and counts.decided > 0)


@given(units=st.lists(UNIT, max_size=40), value=st.sampled_from(["a", "b"]))
def test_a_unit_without_a_decision_never_opens_a_gate(units, value):
    before = window_of(units).get_slice_rows(BY_GROUP)
    text = f'{{"group":"{value}"}}'
    after = window_of([*units, (text, MISSING)]).get_slice_rows(BY_GROUP)
    was_open = before.find_passing(BY_GROUP, 0.2, has_minimum=True)[-1]
    is_open = after.find_passing(BY_GROUP, 0.2, has_minimum=True)[-1]
    assert was_open or not is_open


def test_undecided_units_are_no_part_of_a_values_minimum():
    condition = Condition(MEASURES["agreement"], 0.5, population=EachValue("group"))
    text, minimum = '{"group":"a"}', condition.population.minimum
    units = [(text, "bear")] * (minimum - 1) + [(text, MISSING), (text, "bear")]
    rows = window_of(units, condition).get_slice_rows(condition)
    assert rows.find_passing(condition, 0.2, has_minimum=True)[-3:].tolist() == [False, False, True]
    assert rows.find_passing(condition, 0.2, has_minimum=False)[-3:].all()


def test_counts_of_each_value_name_the_absent_and_the_unrecorded():
    units = [('{"group":"a"}', "bear"), ('{"group":null}', "fox"), ("", MISSING), ("", "bear")]
    counts = window_of(units).count_at(3).slices[BY_GROUP.key]
    assert counts == {"a": (1, 0, 0), "(none)": (0, 1, 0), "(not recorded)": (1, 1, 1)}


def test_more_values_than_the_limit_hold_the_gate_and_are_refused_by_name():
    units = [(f'{{"group":"g{n}"}}', "bear") for n in range(MAX_SLICE_VALUES + 1) for _ in range(9)]
    window = window_of(units)
    passing = window.get_slice_rows(BY_GROUP).find_passing(BY_GROUP, 0.2, has_minimum=True)
    assert passing[9 * MAX_SLICE_VALUES]
    assert not passing[-1]
    counts = window.count_at(len(units))
    reading = read_gate(POLICY, CELL, 1, 1.0, counts, counts)
    assert "group has 101 values, and at most 100 can be slices" in say_requirement(
        reading.unmet_requirements[0]
    )
    assert len(reading.readings) == 1


def test_no_unit_opens_nothing():
    assert (
        not window_of([])
        .get_slice_rows(BY_GROUP)
        .find_passing(BY_GROUP, 1.0, has_minimum=False)[-1]
    )
