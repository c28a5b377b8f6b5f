"""A gate of which the gain changes asks anew: a new attempt, at a smaller risk."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.engine.events import PolicyApplied
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.populations import BothArms
from rollout.kernel.units import DECIDES, OutcomeRule
from tests.factories import AGREEMENT, BO, CREEK, CY, DAN, RolloutDriver, gates, policy

SITES = policy().sites
PROFIT = OutcomeRule("profit", -20, 60, timedelta(days=2), "EUR", missing_at_most=0.05)
GAINS = Condition(MEASURES["gain"], 0.0, population=BothArms(PROFIT, DECIDES))
LATER = replace(PROFIT, closes=timedelta(days=3))
COSTS = replace(PROFIT, id="costs")


def asking(*gains):
    outcomes = tuple(dict.fromkeys(gain.population.outcome for gain in gains))
    return policy(outcomes=outcomes, gates=gates(require=(AGREEMENT, *gains)))


def apply_edit(rollout, new):
    """Return the event of an edit, approved where it is looser."""
    events = rollout.edit(new)
    if not any(isinstance(event, PolicyApplied) for event in events):
        operators = iter([BO, DAN])
        needs = rollout.open("policy").needs
        approvers = [CY if need == "safety" else next(operators) for need in needs]
        rollout.approve(rollout.open("policy"), *approvers)
        events = rollout.tick()
    (applied,) = [event for event in events if isinstance(event, PolicyApplied)]
    return applied


@pytest.mark.parametrize(
    ("new", "restarts"),
    [
        ([replace(GAINS, population=BothArms(LATER, DECIDES))], True),
        ([replace(GAINS, population=BothArms(COSTS, DECIDES))], True),
        ([replace(GAINS, threshold=-1.0)], False),
        (
            [replace(GAINS, population=BothArms(replace(PROFIT, missing_at_most=0.1), DECIDES))],
            False,
        ),
        ([GAINS, replace(GAINS, population=BothArms(COSTS, DECIDES))], True),
        ([], True),
    ],
)
def test_another_gain_begins_a_new_attempt(new, restarts):
    rollout = RolloutDriver(asking(GAINS))
    rollout.answered = ("v1",)
    applied = apply_edit(rollout, asking(*new))
    assert (CREEK in applied.restarted) is restarts
    assert applied.cleared == ()
