"""What gates' risks add up to over all cells."""

from dataclasses import replace

import pytest

from rollout.features.policies.gate_plans import (
    GatePlan,
    compute_expected_errors,
    count_cells_by_gate,
    describe_fleet_risk,
    format_risk,
    format_total_risk,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy_files.reader import load_policy
from tests.shipped_policies import SHIPPED_POLICIES

POLICY = load_policy(SHIPPED_POLICIES["mail-room"])


def plan_of(cells, risk=0.05):
    gate = replace(POLICY.gates[0], risk=risk)
    places = tuple(Cell(f"s{n}", "day") for n in range(cells))
    return GatePlan(gate, "shadow", places, places[0], (), None)


def test_a_cell_counts_once_at_each_gate_that_it_can_pass():
    assert count_cells_by_gate(POLICY) == {0: 8, 1: 7}
    assert compute_expected_errors(POLICY) == pytest.approx(8 * 0.05 + 7 * 0.01)
    assert describe_fleet_risk(POLICY) == (
        "Even if every cell stayed just short of each threshold, expect at most 0.47 wrong"
        " widenings a year (gates of cells: 8 at 5 % and 7 at 1 %)."
    )
    assert describe_fleet_risk(replace(POLICY, gates=())) == ""


def test_the_number_comes_first_where_more_than_one_is_expected():
    assert format_risk(plan_of(12)).startswith("risk 5 % per cell and year")
    assert "at most 0.6 wrong widenings a year" in format_risk(plan_of(12))
    large = format_risk(plan_of(400))
    assert large.startswith("at most 20 wrong widenings a year, if all 400 cells")
    assert large.endswith("for at most one in 400 cells, write `risk: 0.25%`")
    assert "wrong" not in format_risk(plan_of(1))


def test_several_gates_are_added_up():
    assert list(format_total_risk([plan_of(12)])) == []
    (total,) = format_total_risk([plan_of(12), plan_of(8, 0.01)])
    assert total.startswith("all gates together: at most 0.68 wrong")
