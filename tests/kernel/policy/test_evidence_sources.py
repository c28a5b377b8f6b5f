"""Sources of evidence: who counts for whom, and which edit of them is looser."""

from datetime import timedelta

import pytest

from rollout.kernel.policy.record_definition import is_redefined
from rollout.kernel.policy_files.reader import InvalidPolicyError, parse_policy
from tests.looser import say_looser_rules

POLICY = """
rollout: ramps
timezone: UTC
levers: [{{id: parcel, labels: [damaged, sound]}}]
sites: [ramp-a]
evidence: {{unit: case{}}}
gates: [{{to: supervised, require: [{{measure: agreement, at_least: 95%}}]}}]
"""
NONE = ""
BOX, LATER_BOX = (
    f", sources: {{vouched: [{{account: box-7, within: {within}}}]}}" for within in ("6h", "24h")
)
ONE = ", sources: {accounts: [{account: people, reviewers: [ana, 'b*']}]}"
FEWER = ", sources: {accounts: [{account: people, reviewers: [ana]}]}"
TILL, TWO_TILLS = (f", sources: {{outcomes: [{names}]}}" for names in ("till", "till, till-2"))
CAMERA, TWO_CAMERAS = (f", sources: {{cases: [{names}]}}" for names in ("c-1", "c-1, c-2"))
ALL = ", sources: {accounts: [{account: people, reviewers: ['*']}]}"


def policy(sources):
    return parse_policy(POLICY.format(sources))


@pytest.mark.parametrize(
    ("account", "reviewer", "kind"),
    [
        ("people", "ana", "account"),
        ("people", "bo", "account"),
        ("people", "cy", "unnamed"),
        ("other", "ana", "unnamed"),
    ],
)
def test_an_account_speaks_for_the_reviewers_that_fit(account, reviewer, kind):
    assert policy(ONE).evidence.find_account_kind(account, reviewer) == kind
    assert policy(NONE).evidence.find_account_kind(account, reviewer) == "unnamed"


def test_without_the_key_all_outcomes_count_and_nobody_is_vouched_for():
    sources = policy(NONE).evidence.sources
    assert sources.find_outcome_kind("till") == "account"
    assert not sources.vouched
    assert policy(BOX).evidence.sources.vouched == {"box-7": timedelta(hours=6)}


@pytest.mark.parametrize(
    ("vouched", "fault"),
    [
        ("{account: box-7, within: 25h}", "25h ends after grace, 1d, when units are counted"),
        ("{account: b, within: 1h}, {account: b, within: 2h}", "b is vouched for twice"),
        ("{account: box-7}", "within"),
    ],
)
def test_a_vouched_sender_is_named_once_and_sends_within_the_grace(vouched, fault):
    with pytest.raises(InvalidPolicyError, match=fault):
        policy(f", sources: {{vouched: [{vouched}]}}")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (NONE, ONE, "decisions that people sends for ana, b* are evidence"),
        (FEWER, ONE, "decisions that people sends for b* are evidence"),
        (ONE, ALL, "decisions that people sends for * are evidence"),
        (
            NONE,
            BOX,
            "what box-7 sends up to 6h after a case counts as made before the decision",
        ),
        (
            BOX,
            LATER_BOX,
            "what box-7 sends up to 1d after a case counts as made before the decision",
        ),
        (TILL, NONE, "outcomes of every account that may send them are evidence"),
        (TILL, TWO_TILLS, "outcomes that till-2 sends are evidence"),
        (CAMERA, NONE, "cases of every account that may send them count for gates"),
        (CAMERA, TWO_CAMERAS, "cases that c-2 sends count for gates"),
    ],
)
def test_a_source_more_is_looser_and_one_less_is_not(old, new, sentence):
    before, after = policy(old), policy(new)
    assert say_looser_rules(before, after) == (sentence,)
    assert say_looser_rules(after, before) == ()


def test_an_edit_of_the_sources_restarts_nothing():
    (cell,) = policy(NONE).cells
    assert not is_redefined(policy(NONE), policy(ALL), cell)


def test_outcomes_count_from_the_accounts_that_a_policy_names():
    sources = policy(TILL).evidence.sources
    assert [sources.find_outcome_kind(name) for name in ("till", "till-2")] == [
        "account",
        "unnamed",
    ]


def test_cases_count_from_the_accounts_that_a_policy_names():
    assert policy(NONE).evidence.sources.registers("c-2")
    assert [policy(CAMERA).evidence.sources.registers(name) for name in ("c-1", "c-2")] == [
        True,
        False,
    ]
    assert not policy(", sources: {cases: []}").evidence.sources.registers("c-1")


def test_an_account_names_its_reviewers():
    with pytest.raises(InvalidPolicyError, match="reviewers"):
        policy(", sources: {accounts: [{account: people}]}")
