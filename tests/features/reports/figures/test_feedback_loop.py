"""Whether a loop feeds itself: whose labels, what hold-out, what becomes known on both sides."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from rollout.engine.records.reviews import DROP, RELABEL, CleaningChoice
from rollout.features.reports.figures.holdout import (
    REQUIRED_LOG_E,
    build_holdout_sides,
    compute_feedback,
)
from rollout.kernel.policy_files.reader import parse_policy
from tests.features.reports.conftest import BEARS, NOON, Case

HOUR = timedelta(hours=1)
LABELS, NUMBER = "labels: [bear, no-bear]", "number: {in: m, from: 0, to: 50, tolerance: 5%}"
ACTIONS = """    actions: {bear: sound-alarm, no-bear: nothing}
    costs: [{did: nothing, right: sound-alarm, cost: 20}, {cost: 1}]
"""


def stream(*, loop, cases=900, held=0.5, seed=3):
    """Return cases of which the model's half gets sirens; a bear is known only after a siren."""
    luck = np.random.default_rng(seed)
    told = [Case("first", human="bear", exposure="assisted", model={"v1": "bear"})]
    for number in range(cases):
        blind, comes, roster = luck.random(3)
        human = ("bear" if roster < 0.3 else "no-bear") if blind < held else "bear"
        known = comes < 0.4 and (human == "bear" or not loop)
        told.append(
            Case(
                f"c{number:04}",
                NOON + HOUR / 60 * (number + 1),
                human=human,
                model={"v1": "bear"},
                outcome="bear" if known else None,
                exposure="blind" if blind < held else "assisted",
            )
        )
    return told


def fed(replay_of, cases, **more):
    (one,) = compute_feedback(replace(replay_of(cases), **more))
    return one


def test_a_loop_is_told_with_what_to_do(replay_of):
    one = fed(replay_of, stream(loop=True))
    assert one.is_shown
    assert one.log_e_outcomes >= REQUIRED_LOG_E
    rows, loop, example, advice = one.summary
    assert "training rows" in rows
    assert loop.startswith("Feedback loop")
    assert "At creek, bear became known in" in example
    assert "Train on the hold-out" in advice


def test_the_same_stream_without_the_loop_is_not_told(replay_of):
    one = fed(replay_of, stream(loop=False))
    assert not one.is_shown
    assert one.log_e_outcomes < REQUIRED_LOG_E
    assert one.summary[1].startswith("No sign of a loop in")
    (gap,) = [known.difference for known in one.outcomes]
    assert gap.low < 0 < gap.high
    assert gap.method.startswith("Agresti–Caffo")


def test_that_the_model_acts_otherwise_is_no_loop_by_itself(replay_of):
    one = fed(replay_of, stream(loop=False))
    assert one.log_e_actions >= REQUIRED_LOG_E
    assert not one.is_shown


@pytest.mark.slow
def test_the_share_that_the_model_had_a_hand_in_is_counted(replay_of):
    told = [
        Case("first", human="bear", exposure="assisted", model={"v1": "bear"}),
        Case("blind", NOON + HOUR, human="bear", model={"v1": "bear"}),
        Case("told", NOON + HOUR, human="bear", exposure="assisted", model={"v1": "bear"}),
        Case("true", NOON + HOUR, human="bear", exposure="assisted", outcome="bear",
             model={"v1": "bear"}),
        Case("lost", NOON + HOUR, model={"v1": "bear"}),
    ]  # fmt: skip
    one = fed(replay_of, told)
    assert (one.model_label_share.count, one.model_label_share.n) == (2, 4)
    assert one.outcome_label_share.count == 1
    assert {s.source: s.rows for s in one.sources if s.rows} == {
        "blind": 1,
        "assisted": 2,
        "outcome": 1,
    }
    named = {"lever": "alarm", "by": "mia", "at": NOON}
    choices = (
        CleaningChoice(key="blind", choice=RELABEL, label="no-bear", **named),
        CleaningChoice(key="told", choice=DROP, **named),
    )
    cleaned = fed(replay_of, told, choices=choices)
    assert (cleaned.model_label_share.count, cleaned.model_label_share.n) == (2, 3)


def test_a_model_that_had_a_hand_in_nothing_feeds_nothing(replay_of, told):
    (one,) = compute_feedback(told[0])
    assert (one.holdout_units, one.model_units, one.log_e_outcomes) == (0, 0, None)
    assert one.summary[-1] == (
        "The model has influenced no case so far, so no feedback loop is possible yet."
    )


def test_without_a_hold_out_nobody_can_see_a_loop(replay_of):
    told = [replace(case, exposure="assisted") for case in stream(loop=True, cases=50)]
    one = fed(replay_of, told)
    assert not one.is_shown
    assert one.log_e_outcomes is None
    assert "No hold-out" in one.summary[1]


def test_a_hold_out_that_somebody_chose_proves_nothing(replay_of):
    one = fed(replay_of, stream(loop=True, held=0.2))
    assert one.has_planned_size is False
    assert (one.log_e_outcomes, one.is_shown) == (None, False)
    assert "differs from its plan" in one.summary[1]
    assert "instead of 50 %" in one.summary[1]


def test_without_outcomes_no_loop_can_be_seen(replay_of):
    told = [replace(case, outcome=None) for case in stream(loop=True, cases=200)]
    one = fed(replay_of, told)
    assert one.log_e_outcomes is None
    assert "No outcomes" in one.summary[1]


def test_of_numbers_only_whether_one_becomes_known_is_compared(replay_of):
    policy = parse_policy(BEARS.replace(LABELS, NUMBER).replace(ACTIONS, ""))
    told = [
        replace(case, human="10", model={"v1": "10"}, outcome=case.outcome and str(number % 7))
        for number, case in enumerate(stream(loop=True))
    ]
    lost = [replace(c, outcome=None) if c.exposure == "blind" else c for c in told]
    (one,) = compute_feedback(replay_of(lost, policy))
    assert one.is_shown
    assert one.log_e_actions is None
    assert [known.label for known in one.outcomes] == ["a number"]


def test_the_hold_out_begins_after_the_first_assisted_case_of_its_cell(replay_of):
    told = [
        Case("early", NOON - HOUR, human="bear", model={"v1": "bear"}),
        Case("first", NOON, human="bear", exposure="assisted", model={"v1": "bear"}),
        Case("blind", NOON + HOUR, human="bear", model={"v1": "bear"}),
        Case("told", NOON + HOUR, human="bear", exposure="assisted", model={"v1": "bear"}),
        Case("there", NOON + HOUR, site="meadow", human="bear", model={"v1": "bear"}),
    ]
    found = build_holdout_sides(replay_of(told))
    assert dict(found.select("case_key", "held").iter_rows()) == {"blind": True, "told": False}


def test_a_service_says_which_units_were_held_out(told):
    inputs = replace(told[0], is_simulated=False)
    found = build_holdout_sides(inputs)
    by_share = {
        share: part["held"].mean()
        for (share,), part in found.partition_by("share", as_dict=True).items()
    }
    assert set(by_share) == {0.5, 0.0}  # supervised keeps half, autonomous of this policy nothing
    assert 0.3 < by_share[0.5] < 0.7
    assert by_share[0.0] == 0
    (one,) = compute_feedback(inputs)
    assert one.model_units == found.height - found["held"].sum()
    assert one.untested_units == found.filter(pl.col("share") == 0).height
    assert f"{one.untested_units} units were on a stage without a hold-out" in one.summary[-1]


@pytest.mark.slow
@pytest.mark.parametrize("loop", [True, False])
def test_facts_of_every_view_hold_it(replay_of, loop):
    from rollout.features.reports.figures.facts import compute_report_facts  # noqa: PLC0415 - slow, and asked for here alone
    from rollout.features.reports.pages.html_report import render_html_report  # noqa: PLC0415
    from rollout.features.reports.pages.text_report import render_text_report  # noqa: PLC0415

    facts = compute_report_facts(replay_of(stream(loop=loop, cases=600)))
    page = render_html_report(facts)
    assert ("feedback loop</span>" in page) == loop == facts.feedback_loops[0].is_shown
    assert "A replay has no choices to relabel, drop or keep" in page
    said = " ".join(render_text_report(facts, 80).split())
    assert ("v1, alarm: Feedback loop:" in said) == loop
