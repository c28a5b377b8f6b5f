"""What a box is told ("audited") is what counting takes the unit for: one key is drawn by both."""

import pytest

from rollout.core.scope.assignment import unit_of
from rollout.tally.case_placement import place
from tests.tally.histories import HOUR, SALT, a_policy, cases, evidence, hour, records


@pytest.mark.parametrize("unit", ["case", "episode"])
@pytest.mark.parametrize("span", [None, HOUR])
@pytest.mark.parametrize("episode", [None, "burst"])
def test_a_case_is_asked_about_and_counted_by_one_key(unit, span, episode):
    policy = evidence(a_policy(), unit=unit, episode_span=span)
    placed = place(records(cases(("c-1", 1.5, {"episode": episode}))), policy, SALT).cases
    asked = unit_of(policy, "c-1", "creek", hour(1.5), episode)
    counted = placed["unit"].to_list()
    assert counted == ([] if unit == "episode" and not (span or episode) else [asked])
