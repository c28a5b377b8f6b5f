"""Assignments and counting use the same sampling value for audits."""

import pytest

from rollout.engine.decide.assignment import compute_unit_key
from rollout.engine.evidence.case_placement import place_cases
from tests.engine.evidence.histories import HOUR, SALT, a_policy, cases, evidence, hour, records


@pytest.mark.parametrize("unit", ["case", "episode"])
@pytest.mark.parametrize("span", [None, HOUR])
@pytest.mark.parametrize("episode", [None, "burst"])
def test_a_case_is_asked_about_and_counted_by_one_key(unit, span, episode):
    policy = evidence(a_policy(), unit=unit, episode_span=span)
    placed = place_cases(records(cases(("c-1", 1.5, {"episode": episode}))), policy, SALT).cases
    asked = compute_unit_key(policy, "c-1", "creek", hour(1.5), episode)
    counted = placed["unit"].to_list()
    assert counted == ([] if unit == "episode" and not (span or episode) else [asked])
