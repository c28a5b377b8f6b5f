from dataclasses import replace

import numpy as np
import pytest

from benchmarks import senders
from rollout.features.policies.gate_plans import (
    compute_days_with_losses,
    compute_fresh_days,
    format_losses,
    plan_gates,
)
from rollout.features.policies.traffic import build_expected_traffic
from rollout.kernel.policy.policy import DAY
from rollout.kernel.policy_files.reader import parse_policy

AT_ONCE = senders.Sending("at once", 0.98, senders.at_once)
GRACE = replace(AT_ONCE, name="late", grace=74 / 24)


def lose_predictions(cases):
    cases.predicted[cases.rng.random(len(cases.cell)) < 0.01] = np.inf


LOST = replace(AT_ONCE, name="lost", change=lose_predictions)


def plan_sending(sending, agreement="98%", missing="5%"):
    text = senders.write_policy(sending, cells=2).replace(
        "grace:", f"missing_at_most: {missing}, grace:"
    )
    text += f"expect: {{units_per_day: {senders.CASES_A_DAY}, agreement: {agreement}}}\n"
    policy = parse_policy(text)
    traffic = build_expected_traffic(policy)
    return next(plan_gates(policy, traffic)), policy, traffic


def test_plan_says_what_grace_losses_and_races_cost_in_days():
    grace, losses = format_losses(*plan_sending(AT_ONCE))
    assert grace == "grace costs 1d, and about 40 hours until the answers inside it agree too"
    assert losses == (
        "1 % of units missing: median 18 → 45 days; 5 %, as where services race and aren't vouched"
        " for: not expected to open"
    )


def test_shares_above_missing_at_most_never_open():
    _, losses = format_losses(*plan_sending(AT_ONCE, missing="0.2%"))
    assert losses.startswith("0.2 % of units missing: median 18 → 20 days; 5 %, as")
    assert losses.endswith("never, as missing_at_most is 0.2 %")


def test_gate_without_a_date_has_no_cost():
    assert not list(format_losses(*plan_sending(AT_ONCE, agreement="95%")))


@pytest.mark.simulation
@pytest.mark.parametrize("sending", [AT_ONCE, GRACE, LOST], ids=lambda sending: sending.name)
def test_days_are_those_of_replays_of_three_seeds(sending):
    gate_plan, policy, traffic = plan_sending(sending)
    days = gate_plan.days
    if sending is LOST:
        days = compute_days_with_losses(gate_plan, policy, traffic, 0.01)
    fresh_days = compute_fresh_days(gate_plan, policy)
    assert gate_plan.days > policy.evidence.grace / DAY
    replayed = np.median([senders.find_first_days(sending, seed) for seed in range(3)])
    tolerance = 5 if sending is LOST else 2
    assert days + fresh_days == pytest.approx(replayed, abs=tolerance)
