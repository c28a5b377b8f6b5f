"""A standing is gone on from: each row is folded once, and never one that no longer holds."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from rollout.data.ledger import ledger as chain
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.commands import Actor, AddVersion
from rollout.engine.events import VersionFirstUsed
from rollout.live import rollout_state
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import append_command, load_rollout_state
from tests.features.access.test_sign_in import counted_statements

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
POLICY = """
rollout: story
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
"""


class UndoneError(Exception):
    """Undoes a transaction."""


@pytest.fixture
def story(database):
    apply_policy(database, POLICY, Actor("ana"), NOON)
    return database


def see(transaction, version):
    stood = load_rollout_state(transaction, "story")
    seen = VersionFirstUsed(at=NOON + timedelta(hours=1), by="engine", version=version)
    Ledger(transaction, stood.rollout).append([seen], after=stood.scope.revision)
    return load_rollout_state(transaction, "story").scope


def undo(database):
    """Append a row, read it, and undo it."""
    with suppress(UndoneError), database.begin_write() as transaction:
        assert list(see(transaction, "undone").versions) == ["undone"]
        raise UndoneError


def seen_by(database):
    with database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "story")
        assert stood.scope == Ledger(transaction, stood.rollout).load_scope()
        return list(stood.scope.versions)


def test_a_row_that_was_undone_is_forgotten(story):
    undo(story)
    assert seen_by(story) == []


def test_a_chain_that_goes_on_otherwise_is_read_anew(story, other):
    undo(story)
    with other.begin_write() as transaction:  # as from a backup: the same revisions, other rows
        see(transaction, "v1")
        see(transaction, "v2")
    assert seen_by(story) == ["v1", "v2"]


def test_command_leaves_the_state_of_what_it_wrote(story):
    appended = append_command(story, "story", lambda _: AddVersion(at=NOON, version="v1"))
    with counted_statements(story) as statements, story.begin_read() as transaction:
        state = load_rollout_state(transaction, "story")
    assert sum("FROM ledger " in text for text in statements) == 1  # the last entry, hashed anew
    assert state.scope == appended.scope
    assert seen_by(story) == ["v1"]
    assert appended.build_result(story).revision == state.scope.revision
    repeated = append_command(story, "story", lambda _: AddVersion(at=NOON, version="v1"))
    assert (repeated.rows, repeated.scope) == ((), state.scope)
    result = repeated.build_result(story)
    assert (result.revision, result.hash) == (state.scope.revision, appended.rows[-1].hash)


def test_command_that_another_entry_followed_returns_its_own(story):
    appended = append_command(story, "story", lambda _: AddVersion(at=NOON, version="v1"))
    with story.begin_write() as transaction:
        see(transaction, "v2")
    assert appended.build_result(story).hash == appended.rows[-1].hash
    assert seen_by(story) == ["v1", "v2"]


def test_each_row_is_folded_once(story, monkeypatch):
    read = []
    known = chain.parse_event
    for module in (chain, rollout_state):
        monkeypatch.setattr(
            module, "parse_event", lambda row: read.append(row.revision) or known(row)
        )
    with story.begin_write() as transaction:
        last = see(transaction, "v1").revision
        see(transaction, "v2")
    assert sorted(read) == list(range(1, last + 2))
