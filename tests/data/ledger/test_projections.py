"""Proposals, incidents and stored scopes equal those of the ledger."""

import pytest
from sqlalchemy import insert, select, text, update

from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger import projections
from rollout.data.ledger import scopes as kept
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.projections import find_differences
from rollout.data.ledger.scopes import StoredScopes, encode_scope, from_plain, to_plain
from rollout.data.tables.tables import incidents, proposals, scopes
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import Scope
from tests.data.new_rollouts import created
from tests.factories import HOUR, NOON, eventful

EVENTS = tuple(eventful().events)


@pytest.fixture
def rollout(database):
    with database.begin_write() as transaction:
        made = Rollouts(transaction).create("bear-alarm", salt=bytes(32), at=NOON)
        for start in range(0, len(EVENTS), 5):
            Ledger(transaction, made).append(EVENTS[start : start + 5], after=start)
    return made


def wrong(database, rollout):
    with database.begin_read() as transaction:
        return find_differences(transaction, rollout, Ledger(transaction, rollout).list_events)


def test_the_tables_are_what_the_ledger_says(database, rollout):
    assert wrong(database, rollout) == {}


def test_open_proposals_are_those_of_the_scope(database, rollout):
    with database.begin_read() as transaction:
        rows = transaction.execute(select(proposals).where(proposals.c.state == "open")).all()
    assert {row.proposal for row in rows} == set(apply_events(EVENTS).proposals)


def test_each_way_in_which_a_proposal_ends_is_told_apart(database, rollout):
    with database.begin_read() as transaction:
        rows = transaction.execute(select(proposals)).all()
        seen = transaction.execute(select(incidents.c.acknowledged_by)).scalars().all()
    assert {row.state for row in rows} >= {"applied", "rejected", "expired", "void"}
    assert all((row.closed_revision is None) == (row.state == "open") for row in rows)
    assert "bo" in seen


@pytest.mark.parametrize(
    "statement",
    [
        "update proposals set state = 'open' where proposal = 'P-1'",
        "delete from proposals where proposal = 'P-1'",
        "update incidents set incident = 'I-99' where incident = 'I-1'",
        "update incidents set site = 'elsewhere' where incident = 'I-1'",
    ],
)
def test_a_row_that_the_ledger_does_not_say_is_found(database, rollout, statement):
    with database.begin_write() as transaction:
        transaction.execute(text(statement))
    assert 1 <= len(wrong(database, rollout)) <= 2


@pytest.mark.parametrize("size", [1, 4])
def test_rows_are_compared_in_parts_of_any_size(database, rollout, monkeypatch, size):
    statements = (
        "update proposals set state = 'applied' where proposal in ('P-1', 'P-3')",
        "update proposals set proposal = 'P-99' where proposal = 'P-2'",
        "update incidents set site = 'elsewhere' where incident = 'I-1'",
    )
    with database.begin_write() as transaction:
        for statement in statements:
            transaction.execute(text(statement))
    expected = wrong(database, rollout)
    waiting, add_change = [], projections._ProjectionCheck.add_change

    def count_rows(check, row_change):
        add_change(check, row_change)
        waiting.append(len(check._rows))

    monkeypatch.setattr(projections._ProjectionCheck, "add_change", count_rows)
    monkeypatch.setattr(projections, "ROWS_PER_COMPARISON", size)
    assert list(wrong(database, rollout).items()) == list(expected.items())
    assert {key for _, key in expected} >= {"I-1", "P-2", "P-99"}
    assert (len(waiting) > 8, max(waiting) < size) == (True, True)


# Kept scopes


def test_a_scope_is_written_and_read_back_whole():
    scope = Scope()
    for event in EVENTS:
        scope = apply_events([event], scope)
        again = from_plain(Scope, to_plain(scope))
        assert again == scope
        assert {c: again.get_holder(c) for c, _ in scope.cells} == {
            c: scope.get_holder(c) for c, _ in scope.cells
        }


@pytest.fixture
def every_ten(monkeypatch):
    monkeypatch.setattr(kept, "REVISIONS_BETWEEN", 10)


def keep_along(database, rollout):
    """Keep the scopes of a ledger as it grew; return the revisions that were kept."""
    scope, revisions = Scope(), []
    with database.begin_write() as transaction:
        for event in EVENTS:
            scope = apply_events([event], scope)
            if StoredScopes(transaction, rollout).store_if_due(scope):
                revisions.append(scope.revision)
    return revisions


def test_a_scope_is_kept_every_so_many_revisions(database, rollout, every_ten):
    assert keep_along(database, rollout) == list(range(10, len(EVENTS) + 1, 10))
    with database.begin_read() as transaction:
        newest = StoredScopes(transaction, rollout).load_newest()
    assert newest == apply_events(EVENTS[: newest.revision])


@pytest.mark.parametrize("form", [[], ["0123456789abcdef"]], ids=["none", "another"])
def test_a_scope_that_another_program_stored_counts_as_missing(database, rollout, form):
    scope, row_hash = apply_events(EVENTS), load_hash(database, rollout)
    store_body(database, rollout, [*to_plain(scope), row_hash, *form])
    with database.begin_write() as transaction:
        assert StoredScopes(transaction, rollout).load_newest() == Scope()
        transaction.execute(update(scopes).values(body=encode_scope(scope, row_hash)))
        assert StoredScopes(transaction, rollout).load_newest() == scope


def test_no_scope_of_a_later_revision_is_read(database, rollout, every_ten):
    keep_along(database, rollout)
    with database.begin_read() as transaction:
        stored = StoredScopes(transaction, rollout)
        assert [stored.load_newest(until=n).revision for n in (9, 10, 19)] == [0, 10, 10]
        ledger = Ledger(transaction, rollout)
        assert ledger.load_scope_of_revision(15) == apply_events(EVENTS[:15])


def test_a_rollout_reads_no_scope_of_another(database, rollout, every_ten):
    keep_along(database, rollout)
    other = created(database)
    with database.begin_write() as transaction:
        Ledger(transaction, other).append(EVENTS[:12], after=0)
        stored = StoredScopes(transaction, other)
        assert stored.load_newest() == Scope()
        scope = apply_events(EVENTS[:12])
        assert stored.store_if_due(scope)
        assert stored.load_newest() == scope


def test_a_scope_of_another_ledgers_row_counts_as_missing(database, rollout):
    store_body(database, rollout, encode_scope(apply_events(EVENTS[:5]), "0" * 64))
    with database.begin_read() as transaction:
        assert StoredScopes(transaction, rollout).load_newest() == Scope()
        assert Ledger(transaction, rollout).load_scope_of_revision(len(EVENTS)) == apply_events(
            EVENTS
        )


def test_a_scope_is_read_without_looking_at_its_types_again(monkeypatch):
    plain = to_plain(apply_events(EVENTS))
    first = from_plain(Scope, plain)
    monkeypatch.setattr(kept, "get_type_hints", None)
    assert from_plain(Scope, plain) == first


def store_body(database, rollout, body):
    values = {"revision": len(EVENTS), "at": EVENTS[-1].at, "body": body}
    with database.begin_write() as transaction:
        transaction.execute(insert(scopes).values(rollout=rollout.number, **values))


def load_hash(database, rollout):
    with database.begin_read() as transaction:
        return Ledger(transaction, rollout).load_head().hash


@pytest.mark.slow
def test_the_scope_of_an_instant_is_the_same_with_and_without_kept_ones(
    database, rollout, every_ten
):
    instants = sorted({event.at for event in EVENTS} | {NOON - HOUR, EVENTS[-1].at + HOUR})

    def at_all():
        with database.begin_read() as transaction:
            return [Ledger(transaction, rollout).load_scope_at(at) for at in instants]

    before = at_all()
    keep_along(database, rollout)
    assert at_all() == before
    with database.begin_write() as transaction:
        StoredScopes(transaction, rollout).delete_all()
        assert StoredScopes(transaction, rollout).load_newest() == Scope()
