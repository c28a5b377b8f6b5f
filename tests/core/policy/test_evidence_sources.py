"""Sources of evidence: who counts for whom, and which edit of them is looser."""

import pytest

from rollout.core.policy.record_definition import is_redefined
from rollout.core.scope.policy_diff import list_looser_rules
from rollout.formats.policy.reader import InvalidPolicyError, parse_policy

POLICY = """
rollout: ramps
timezone: UTC
levers: [{{id: parcel, labels: [damaged, sound]}}]
sites: [ramp-a]
evidence: {{unit: case{}}}
gates: [{{to: supervised, require: [{{measure: agreement, at_least: 95%}}]}}]
"""
NONE = ""
NO_REVIEWS = ", sources: {reviews: false}"
NO_IMPORTS = ", sources: {imports: false}"
ONE = ", sources: {accounts: [{account: people, reviewers: [ana, 'b*']}]}"
FEWER = ", sources: {accounts: [{account: people, reviewers: [ana]}]}"
TILL, TWO_TILLS = (f", sources: {{outcomes: [{names}]}}" for names in ("till", "till, till-2"))
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


def test_without_the_key_reviews_and_imports_are_sources():
    sources = policy(NONE).evidence.sources
    assert (sources.review_kind, sources.import_kind) == ("reviews", "imports")
    assert sources.find_outcome_kind("till") == "account"
    assert policy(NO_REVIEWS).evidence.sources.review_kind == "unnamed"
    assert policy(NO_IMPORTS).evidence.sources.import_kind == "unnamed"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (NONE, ONE, "decisions that people sends for ana, b* are evidence"),
        (FEWER, ONE, "decisions that people sends for b* are evidence"),
        (ONE, ALL, "decisions that people sends for * are evidence"),
        (NO_REVIEWS, NONE, "reviews made here are evidence"),
        (NO_IMPORTS, NONE, "imports are evidence"),
        (TILL, NONE, "outcomes of every account that may send them are evidence"),
        (TILL, TWO_TILLS, "outcomes that till-2 sends are evidence"),
    ],
)
def test_a_source_more_is_looser_and_one_less_is_not(old, new, sentence):
    before, after = policy(old), policy(new)
    assert list_looser_rules(before, after) == (sentence,)
    assert list_looser_rules(after, before) == ()


def test_an_edit_of_the_sources_restarts_nothing():
    (cell,) = policy(NONE).cells
    assert not is_redefined(policy(NONE), policy(ALL), cell)


def test_outcomes_count_from_the_accounts_that_a_policy_names():
    sources = policy(TILL).evidence.sources
    assert [sources.find_outcome_kind(name) for name in ("till", "till-2")] == [
        "account",
        "unnamed",
    ]


def test_an_account_names_its_reviewers():
    with pytest.raises(InvalidPolicyError, match="reviewers"):
        policy(", sources: {accounts: [{account: people}]}")
