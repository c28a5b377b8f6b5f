"""Names that the ledger lacks: their order is the service's, and a later name needs no slot."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.data.database.rollouts import Rollout
from rollout.data.records.versions import StoredVersion, build_version_info
from rollout.engine.decide.decider import MAX_OPEN_VERSIONS
from rollout.engine.decide.scope import Scope, Version
from rollout.live.rollout_state import RolloutState, find_first_names, list_new_versions
from rollout.live.versions import select_usable_names
from tests.factories import HOUR, NOON, policy

CONTENT, OTHER = "ab" * 32, "cd" * 32
MINUTE = timedelta(minutes=1)
EMPTY = Scope()


def store(*rows):
    """Return versions of (name, content, minutes of receipt, hours of the stated first use)."""
    return {
        name: StoredVersion(
            NOON + used * HOUR,
            build_version_info(name, "records", {name: content} if content else {}),
            NOON + received * MINUTE,
        )
        for name, content, received, used in rows
    }


@pytest.mark.parametrize("used", [-5, 0, 5])
def test_a_stated_first_use_does_not_make_a_later_name_the_first(used):
    versions = store(("b", CONTENT, 2, used), ("a", CONTENT, 1, 0), ("c", OTHER, 3, -9))
    assert find_first_names(EMPTY, policy(), versions) == {"b": "a"}
    events = list_new_versions(EMPTY, policy(), versions, NOON - HOUR)
    assert [event.version for event in events] == ["c"], "none before the one it continues"
    events = list_new_versions(EMPTY, policy(), versions)
    assert [event.version for event in events] == ["c", "a", "b"]


def test_names_of_other_contents_begin_in_the_order_of_their_first_uses():
    versions = store(("b", CONTENT, 1, 1), ("a", OTHER, 2, 0), ("d", "", 0, 2), ("c", "", 3, 2))
    events = list_new_versions(EMPTY, policy(), versions)
    uses = [(event.version, (event.at - NOON) / HOUR) for event in events]
    assert uses == [("a", 0), ("b", 1), ("c", 2), ("d", 2)]


def build_full_state(count=MAX_OPEN_VERSIONS):
    """Return a state in whose ledger that many versions are open, and their stored facts."""
    names = [f"v{number}" for number in range(count)]
    versions = {name: Version(name, NOON, content=f"{n:064x}") for n, name in enumerate(names)}
    stored = store(*((name, v.content, 0, 0) for name, v in versions.items()))
    scope = replace(EMPTY, versions=versions)
    return RolloutState(Rollout(1, "r", b""), scope, policy(), {}, stored), stored


@pytest.mark.parametrize(
    ("count", "usable"),
    [(MAX_OPEN_VERSIONS, ["v0b"]), (MAX_OPEN_VERSIONS - 1, ["a", "v0b", "a2"])],
)
def test_a_known_content_needs_no_slot_and_a_new_one_does(count, usable):
    state, stored = build_full_state(count)
    new = store(("a", CONTENT, 1, 1), ("b", OTHER, 1, 2))
    new |= store(("v0b", f"{0:064x}", 1, 3), ("a2", CONTENT, 1, 4))
    assert select_usable_names(state, stored, new) == usable


def test_a_retired_version_and_its_names_take_no_slot():
    state, stored = build_full_state()
    versions = state.scope.versions
    retired = {**versions, "v1": replace(versions["v1"], retired_at=NOON)}
    state = replace(state, scope=replace(state.scope, versions=retired, aliases={"v1b": "v1"}))
    stored |= store(("v1b", versions["v1"].content, 1, 1))
    assert select_usable_names(state, stored, store(("new", CONTENT, 2, 2))) == ["new"]
