"""A report says of a version with a sample on which cases it runs, or that no record says so."""

import pytest

from rollout.features.reports.figures.label_sources import VersionSample, compute_decision_sources
from rollout.kernel.policy.policy_warnings import list_policy_warnings
from rollout.kernel.policy.stages import VersionRule
from tests.engine.evidence.histories import a_policy, cases, decisions, predictions, records

SHARES = {"v1": 0.1}


@pytest.mark.parametrize(
    ("draws", "text"),
    [
        (
            {"draws": {"v1": True}},
            "v1 runs on 10 % of the cases, sampled by the service; others are no units of it.",
        ),
        (
            {},
            (
                "v1 runs on 10 % of the cases, and no record says on which: each counts, against"
                " the model."
            ),
        ),
    ],
    ids=["drawn", "undrawn"],
)
def test_report_says_on_which_cases_a_version_runs(draws, text):
    history = records(
        cases(("a", 1, draws), ("b", 2)), predictions(("a", "bear")), decisions(("a", "bear"))
    )
    sources = compute_decision_sources(history, shares=SHARES)
    assert sources.samples == (VersionSample("v1", 0.1, is_recorded=bool(draws)),)
    assert sources.sample_text == text
    assert compute_decision_sources(history).sample_text == ""


def test_plan_says_how_much_longer_a_sampled_version_takes():
    policy = a_policy(versions=(VersionRule("v1", "", 0.1), VersionRule("v2")))
    texts = [warning.text for warning in list_policy_warnings(policy) if "runs on" in warning.text]
    assert texts == [
        (
            "v1 runs on 10 % of the cases: its gates count no others, and take 10 times as long as"
            " planned here, unless its files say who was sampled"
        )
    ]
