"""Where agreement and gain point apart, in sentences."""

from dataclasses import replace

import pytest

from rollout.features.reports.figures.methods import GainFacts
from rollout.features.reports.figures.oversight import VisibleAgreement
from rollout.features.reports.pages.findings import rank_findings
from rollout.features.reports.pages.summary import (
    describe_conflicts,
    describe_gain,
    summarize_gains,
)
from rollout.kernel.statistics.intervals import compute_share


def build_gain(lower, upper):
    mean = (lower + upper) / 2
    return GainFacts(
        site="shop",
        window="day",
        version="v1",
        outcome="profit",
        unit="EUR",
        arm="decides",
        model_units=50,
        human_units=50,
        missing=0,
        model_missing=0,
        human_missing=0,
        model_mean=mean,
        human_mean=0.0,
        gain=mean,
        lower=lower,
        upper=upper,
        has_one_share=True,
    )


def test_gains_are_counted_by_outcome_where_the_interval_says_so():
    clicks = replace(build_gain(1, 4), outcome="clicks", gain=None)
    gains = [build_gain(1, 4), build_gain(-1, 4), clicks, build_gain(-4, -1), build_gain(2, 3)]
    assert list(summarize_gains(gains)) == [
        "profit: better with the model in 2 of 4 comparisons, worse in 1",
        "no clicks to compare yet",
    ]


@pytest.mark.parametrize(
    ("agreeing", "lower", "upper", "ending"),
    [
        (98, -4, -1, "98.0\N{NO-BREAK SPACE}% of 100 units, and its arm has the worse profit."),
        (25, 1, 4, "25.0\N{NO-BREAK SPACE}% of 100 units, and its arm has the better profit."),
        (98, 1, 4, None),
        (25, -4, -1, None),
        (98, -4, 1, None),
        (25, -1, 4, None),
    ],
)
def test_agreement_and_gain_point_apart_only_where_the_interval_says_so(
    agreeing, lower, upper, ending
):
    share = compute_share(agreeing, 100)
    agreement = VisibleAgreement("shop", "day", "v1", share, None, share)
    lines = list(describe_conflicts([build_gain(lower, upper)], [agreement]))
    start = "shop · day, v1: agreement and profit point apart: it agrees with humans on "
    assert lines == ([start + ending] if ending else [])


def test_a_cell_without_decisions_has_no_conflict():
    share = compute_share(0, 0)
    agreement = VisibleAgreement("shop", "day", "v1", share, None, share)
    assert not list(describe_conflicts([build_gain(-4, -1)], [agreement]))
    assert not list(describe_conflicts([build_gain(-4, -1)], []))


def test_units_in_no_arm_are_named():
    gain, rest = build_gain(1, 4), "7 more units in no arm: more than chance decided"
    assert "in no arm" not in describe_gain(gain)
    for each in (gain, replace(gain, gain=None, model_units=0)):
        assert rest in describe_gain(replace(each, without_arm=7))


def test_less_of_an_outcome_is_a_gain_and_never_more_of_it():
    waste = replace(build_gain(1, 4), outcome="waste", model_mean=16.5, human_mean=19.0)
    text = describe_gain(replace(waste, more_is_better=False))
    assert "the model brought a gain of +2.50 EUR a unit in waste (+1.00 to +4.00 at" in text
    assert text.endswith("19.00 in the humans' (50 units), sampled at random; less is better.")
    assert "of waste" not in text


def test_arms_that_a_replay_assigned_are_named():
    gain = build_gain(1, 4)
    assert describe_gain(gain).endswith("sampled at random.")
    assigned = describe_gain(replace(gain, has_recorded_arms=False))
    assert "sampled at random" not in assigned
    assert assigned.endswith("by this replay; no column `sampled_arm` says which arm acted.")


def test_a_loss_is_a_finding_for_all_and_agreement_for_engineers_alone(facts):
    share = compute_share(98, 100)
    agreement = VisibleAgreement("shop", "day", "v1", share, None, share)
    losing = replace(facts, gains=(build_gain(-4, -1),), visible_agreements=(agreement,))
    titles = {
        reader: [item.title for item in rank_findings(losing, reader)]
        for reader in ("operator", "engineer", "auditor")
    }
    loss, apart = "v1 has the worse profit in shop · day", "Agreement would mislead in 1 cell"
    assert all(loss in found for found in titles.values())
    assert [reader for reader, found in titles.items() if apart in found] == ["engineer"]
    earning = replace(facts, gains=(build_gain(-1, 4),), visible_agreements=(agreement,))
    assert loss not in [item.title for item in rank_findings(earning, "operator")]


def test_units_without_a_value_in_time_are_counted():
    gain = replace(build_gain(-4, 4), gain=None, model_units=0, human_units=0, missing=705)
    assert describe_gain(gain).endswith(
        "no profit to compare yet. 0 of 705 closed units have a value that came in time."
    )
