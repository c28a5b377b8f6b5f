"""Another gain in place of one is another try at the gate: a new attempt, at a smaller risk."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.core.policy.outcomes import DECIDES, GAIN, GainCondition, OutcomeRule
from rollout.core.scope.events import PolicyApplied
from tests.factories import AGREEMENT, BO, CREEK, CY, DAN, RolloutDriver, gates, policy

PROFIT = OutcomeRule("profit", -20, 60, "EUR", True, timedelta(days=2), 0.05)
GAINS = GainCondition(GAIN, 0.0, at_least=True, outcome=PROFIT, arm=DECIDES)
LATER = replace(PROFIT, closes=timedelta(days=3))
COSTS = replace(PROFIT, id="costs")


def asking(*gains):
    outcomes = tuple(dict.fromkeys(gain.outcome for gain in gains))
    return policy(outcomes=outcomes, gates=gates(require=(AGREEMENT, *gains)))


@pytest.mark.parametrize(
    ("new", "restarts"),
    [
        ([replace(GAINS, outcome=LATER)], True),
        ([replace(GAINS, outcome=COSTS)], True),
        ([replace(GAINS, pool="site")], True),
        ([replace(GAINS, line=-1.0)], False),
        ([replace(GAINS, outcome=replace(PROFIT, missing_at_most=0.1))], False),
        ([GAINS, replace(GAINS, outcome=COSTS)], False),
        ([], False),
    ],
)
def test_another_gain_begins_a_new_attempt(new, restarts):
    rollout = RolloutDriver(asking(GAINS))
    events = rollout.edit(asking(*new))
    if not any(isinstance(event, PolicyApplied) for event in events):
        rollout.approve(rollout.open("policy"), *[BO, CY, DAN][: len(rollout.open("policy").needs)])
        events = rollout.tick()
    (applied,) = [event for event in events if isinstance(event, PolicyApplied)]
    assert (CREEK in applied.restarted) is restarts
    assert applied.cleared == ()
