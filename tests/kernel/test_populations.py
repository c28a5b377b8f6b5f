"""Conditions on populations: keys, texts, what starts evidence anew."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.populations import ALL_UNITS, BothArms, EachValue, PlantedUnits, Population
from rollout.kernel.units import DECIDES, PROPOSES, OutcomeRule

PROFIT = OutcomeRule("profit", -20, 60, timedelta(days=2), "EUR", missing_at_most=0.05)
AGREEMENT, RECALL, GAIN = MEASURES["agreement"], MEASURES["recall"], MEASURES["gain"]


@pytest.mark.parametrize(
    ("condition", "key", "text"),
    [
        (
            Condition(AGREEMENT, 0.9, population=EachValue("group")),
            ("agreement by group", None, None),
            "agreement of each group at least 90 %",
        ),
        (
            Condition(AGREEMENT, 0.9, population=EachValue("group", "new")),
            ("agreement by group", None, None),
            "agreement of group=new at least 90 %",
        ),
        (
            Condition(RECALL, 0.95, "bear", "alarm", population=PlantedUnits()),
            ("recall of planted", "bear", "alarm"),
            "recall of bear (alarm) of planted cases at least 95 %",
        ),
        (
            Condition(GAIN, 0.0, population=BothArms(PROFIT, PROPOSES)),
            ("gain", "profit", "proposes"),
            "gain of profit by proposals at least 0 EUR",
        ),
        (
            Condition(GAIN, 0.0, population=BothArms(PROFIT)),
            ("gain", "profit", None),
            "gain of profit at least 0 EUR",
        ),
    ],
)
def test_condition_on_population_has_own_key_and_text(condition, key, text):
    assert (condition.key, str(condition)) == (key, text)
    assert condition.key != replace(condition, population=EachValue("light")).key


def test_another_meaning_of_an_outcome_is_another_question_under_the_same_key():
    gain = Condition(GAIN, 0.0, population=BothArms(PROFIT, DECIDES))
    later = replace(PROFIT, closes=timedelta(days=3))
    other = replace(gain, population=BothArms(later, DECIDES))
    assert (gain.key, gain.question) != (other.key, other.question)
    assert gain.key == other.key


def test_a_population_without_arms_has_no_outcome():
    with pytest.raises(LookupError, match="no arms"):
        _ = ALL_UNITS.outcome


def test_a_population_without_its_key_cannot_be_made():
    class Forgotten(Population):
        pass

    with pytest.raises(TypeError, match="suffix"):
        Forgotten()
