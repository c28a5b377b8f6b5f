"""A standing is gone on from: each row is folded once, and never one that no longer holds."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from rollout.core.commands import Person
from rollout.core.events import VersionFirstUsed
from rollout.services.applying import apply
from rollout.services.standing import standing
from rollout.store import ledger as chain
from rollout.store.ledger import Ledger

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
    apply(database, POLICY, Person("ana"), NOON)
    return database


def see(transaction, version):
    stood = standing(transaction, "story")
    seen = VersionFirstUsed(at=NOON + timedelta(hours=1), by="engine", version=version)
    Ledger(transaction, stood.rollout).append([seen], after=stood.scope.revision)
    return standing(transaction, "story").scope


def undo(database):
    """Append a row, read it, and undo it."""
    with suppress(UndoneError), database.writing() as transaction:
        assert list(see(transaction, "undone").versions) == ["undone"]
        raise UndoneError


def seen_by(database):
    with database.reading() as transaction:
        stood = standing(transaction, "story")
        assert stood.scope == Ledger(transaction, stood.rollout).scope()
        return list(stood.scope.versions)


def test_a_row_that_was_undone_is_forgotten(story):
    undo(story)
    assert seen_by(story) == []


def test_a_chain_that_goes_on_otherwise_is_read_anew(story, other):
    undo(story)
    with other.writing() as transaction:  # as from a backup: the same revisions, other rows
        see(transaction, "v1")
        see(transaction, "v2")
    assert seen_by(story) == ["v1", "v2"]


def test_each_row_is_folded_once(story, monkeypatch):
    read = []
    known = chain.event_of
    monkeypatch.setattr(chain, "event_of", lambda row: read.append(row.revision) or known(row))
    with story.writing() as transaction:
        last = see(transaction, "v1").revision
        see(transaction, "v2")
    assert sorted(read) == list(range(1, last + 2))
