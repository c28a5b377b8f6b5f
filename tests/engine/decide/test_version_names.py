"""A new name with a known content continues its version: attempt, grants, stops, detectors."""

import pytest

from rollout.engine.decide.commands import AddVersion
from rollout.engine.decide.policy_changes import MAX_ALIASES, describe_version, list_names
from rollout.engine.decide.projection import apply_events
from rollout.engine.events import VersionFirstUsed, VersionRenamed, VersionRetired
from rollout.kernel.policy.policy import EvidenceRules
from rollout.kernel.policy.stages import VersionRule
from tests.engine.decide.test_yearly_promise import RetryingDriver
from tests.factories import BETWEEN, CREEK, DAY, HOUR, MET, NOON, policy

CONTENT, OTHER = "ab" * 32, "cd" * 32


class NamedDriver(RetryingDriver):
    """A rollout whose versions declare contents."""

    def __init__(self, first=None):
        super().__init__(first=first)

    def declare(self, version, content=CONTENT):
        """Use a version for the first time; return the kinds of the events."""
        events = self.do(AddVersion(at=self.at, version=version, content=content))
        return [type(event) for event in events]


@pytest.fixture
def rollout():
    """A rollout whose v2 has the content and has begun the second attempt."""
    made = NamedDriver()
    made.count(NOON + HOUR, "v1")
    assert made.declare("v2") == [VersionFirstUsed]
    made.count(NOON + 2 * HOUR, "v2")
    assert made.state("v2").number == 2
    return made


def test_a_rename_changes_no_cell_and_takes_no_number(rollout):
    before = rollout.scope
    assert rollout.declare("v2b") == [VersionRenamed]
    assert rollout.declare("v2b") == [], "once"
    after = rollout.scope
    assert (after.cells, after.versions) == (before.cells, before.versions)
    assert after.attempt_years == before.attempt_years
    assert list_names(after, "v2") == ("v2", "v2b")
    assert describe_version(after, "v2") == "v2b (was v2)"


def test_back_to_the_first_name_is_no_event(rollout):
    rollout.declare("v2b")
    assert rollout.declare("v2") == []
    assert rollout.declare("v2c") == [VersionRenamed]
    assert rollout.scope.aliases == {"v2b": "v2", "v2c": "v2"}, "never a name of a name"


@pytest.mark.parametrize(("content", "name"), [(OTHER, "another"), ("", "none")])
def test_another_content_or_none_is_a_new_version(rollout, content, name):
    assert rollout.declare("v3", content) == [VersionFirstUsed], name
    assert rollout.count(NOON + 3 * HOUR, "v3") == [[("v3", 2027, 3)]]


def test_a_name_that_was_used_stays_a_version_of_its_own(rollout):
    """Its content was declared after it began to count: no attempt is taken back."""
    assert rollout.declare("v1") == []
    rollout.change_policy(policy(versions=(VersionRule("v1", content=CONTENT),)))
    assert "v1" not in rollout.scope.aliases
    assert rollout.state("v1").number == 1


def test_the_policy_may_declare_the_content_that_a_new_name_continues():
    made = NamedDriver(policy(versions=(VersionRule("v1", content=CONTENT),)))
    assert made.declare("v1b") == [VersionRenamed]
    assert made.scope.aliases == {"v1b": "v1"}


def test_a_name_of_a_retired_version_is_retired(rollout):
    rollout.retire("v2")
    assert rollout.declare("v2b") == [VersionRenamed]
    rollout.tick({CREEK: MET}, "v2")
    assert rollout.scope.versions["v2"].retired
    assert not rollout.scope.proposals
    assert rollout.scope.attempt_years[CREEK].count == 2


def test_to_retire_any_name_retires_the_version(rollout):
    rollout.declare("v2b")
    (retired,) = rollout.retire("v2b")
    assert (type(retired), retired.version) == (VersionRetired, "v2")
    assert rollout.retire("v2") == ()


def test_names_beyond_the_limit_are_versions_of_their_own(rollout):
    names = [
        VersionRenamed(at=rollout.at, by="policy", version=f"x{n}", continues="v2", content=CONTENT)
        for n in range(MAX_ALIASES)
    ]
    rollout.scope = apply_events(names, rollout.scope)
    assert rollout.declare("v2b") == [VersionFirstUsed]


def test_a_restart_after_a_rename_is_the_next_number_of_the_same_version(rollout):
    rollout.declare("v2b")
    rollout.change_policy(policy(evidence=EvidenceRules(grace=2 * HOUR)))
    rollout.at += DAY
    assert rollout.count(rollout.at, "v2", evidence=BETWEEN) == [[("v2", 2027, 3)]]
