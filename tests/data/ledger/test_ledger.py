"""The stored ledger has the rows and the scope of the core, also with concurrent writers."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context

import pytest
from sqlalchemy import insert, text, update

from rollout.data.database.append_failures import DatabaseBusyError
from rollout.data.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger, StoredLedgerHead
from rollout.data.tables.record_tables import build_triggers
from rollout.data.tables.tables import ledger, ledger_heads
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import Scope
from rollout.engine.events import VersionFirstUsed
from rollout.engine.ledger.ledger import BrokenLedgerError, parse_event, verify_lines
from rollout.kernel.errors import StaleRevisionError
from tests.data.plans import steps
from tests.factories import HOUR, NOON, eventful

EVENTS = tuple(eventful().events)
SALT = bytes(range(32))


@pytest.fixture
def rollout(database):
    return created(database)


def created(database, name="bear-alarm"):
    with database.begin_write() as transaction:
        return Rollouts(transaction).create(name, salt=SALT, at=NOON)


def append(database, rollout, events, after, access_head=None):
    with database.begin_write() as transaction:
        return Ledger(transaction, rollout).append(events, after=after, access_head=access_head)


def read(database, rollout, what, *args, **kwargs):
    """Ask the ledger something within a reading transaction; what is yielded comes as a list."""
    with database.begin_read() as transaction:
        found = getattr(Ledger(transaction, rollout), what)(*args, **kwargs)
        return list(found) if what in {"list_rows", "list_lines", "list_events"} else found


def seen(number):
    return VersionFirstUsed(at=NOON, by="policy", version=f"v{number}")


# The same ledger as the core's


def test_stored_rows_are_the_canonical_lines_of_the_core(database, rollout):
    append(database, rollout, EVENTS, after=0)
    lines = read(database, rollout, "list_lines")
    assert lines == [row.format() for row in read(database, rollout, "list_rows")]
    unnamed = [replace(parse_event(row), by="") for row in verify_lines(lines)]
    assert unnamed == [replace(event, by="") for event in EVENTS]


def test_events_come_back_as_they_went_in(database, rollout):
    append(database, rollout, EVENTS, after=0)
    assert tuple(read(database, rollout, "list_events")) == EVENTS


def test_the_stored_ledger_folds_into_the_scope_of_its_events(database, rollout):
    append(database, rollout, EVENTS, after=0)
    assert read(database, rollout, "load_scope") == apply_events(EVENTS)
    assert read(database, rollout, "verify").revision == len(EVENTS)


def test_folding_by_increments_gives_the_same_scope(database, rollout):
    scope, half = Scope(), len(EVENTS) // 2
    for part in (EVENTS[:half], EVENTS[half:]):
        append(database, rollout, part, after=scope.revision)
        scope = read(database, rollout, "load_scope", scope)
    assert scope == apply_events(EVENTS)


def test_the_scope_of_an_instant_is_what_had_happened_by_then(database, rollout):
    append(database, rollout, EVENTS, after=0)
    at = EVENTS[20].at
    assert read(database, rollout, "load_scope_at", at) == apply_events(
        e for e in EVENTS if e.at <= at
    )
    assert read(database, rollout, "load_scope_at", EVENTS[0].at - HOUR) == Scope()


@pytest.mark.parametrize("newest_rows", [0, 2, 500])
def test_the_last_entry_by_a_time_is_found_also_where_the_clock_went_back(
    database, rollout, monkeypatch, newest_rows
):
    monkeypatch.setattr("rollout.data.ledger.ledger.NEWEST_ROWS", newest_rows)
    hours = (0, 5, 6, 2, 7, 8)
    append(database, rollout, [replace(seen(n), at=NOON + n * HOUR) for n in hours], after=0)
    found = [read(database, rollout, "find_revision_at", NOON + n * HOUR) for n in range(-1, 10)]
    assert found == [0, 1, 1, 4, 4, 4, 4, 4, 5, 6, 6]


def test_old_times_are_found_by_an_index_without_reading_entries(database, rollout):
    kind = {"kind": "VersionFirstUsed", "actor": "policy", "previous": "", "hash": "", "form": 2}
    rows = [
        {"rollout": rollout.number, "revision": n, "at": NOON + n * HOUR, "body": "{}", **kind}
        for n in range(1, 3_001)
    ]
    with database.begin_write() as transaction:
        transaction.execute(insert(ledger), rows)
        transaction.execute(update(ledger_heads).values(revision=3_000))
        transaction.connection.exec_driver_sql("analyze")
    with database.begin_read() as transaction:
        ask = Ledger(transaction, rollout).find_revision_at
        assert ask(NOON + 7 * HOUR) == 7
        plan = "\n".join(steps(transaction, lambda: ask(NOON + 7 * HOUR)))
    assert re.search(r"(COVERING INDEX|Index Only Scan using) ix_ledger_times", plan)


def test_rows_are_read_from_a_revision_to_a_revision(database, rollout):
    append(database, rollout, EVENTS, after=0)
    rows = read(database, rollout, "list_rows", after=3, until=5)
    assert [row.revision for row in rows] == [4, 5]


def test_a_row_cites_the_house_revision_that_rights_were_judged_by(database, rollout):
    (row,) = append(database, rollout, [seen(1)], after=0, access_head=7)
    assert read(database, rollout, "list_rows") == [row]
    assert row.access_head == 7


def test_the_house_has_a_chain_of_its_own(database, rollout):
    with database.begin_write() as transaction:
        assert Rollouts(transaction).open_access_ledger() == ACCESS_CHAIN
    append(database, ACCESS_CHAIN, [seen(1)], after=0)
    append(database, rollout, [seen(2)], after=0)
    assert read(database, ACCESS_CHAIN, "verify").revision == 1


def test_an_empty_ledger_is_whole_and_allows_nothing(database, rollout):
    assert read(database, rollout, "verify").revision == 0
    assert read(database, rollout, "load_scope") == Scope()


def test_nothing_to_append_is_no_row(database, rollout):
    assert append(database, rollout, [], after=99) == ()


def test_creating_a_rollout_again_finds_the_first_with_its_salt(database, rollout):
    with database.begin_write() as transaction:
        again = Rollouts(transaction).create("bear-alarm", salt=bytes(32), at=NOON)
        assert again == rollout
        assert again.salt == SALT
        assert Rollouts(transaction).list_all() == (rollout,)


# Races


def test_who_decided_from_an_older_revision_is_refused(database, rollout):
    append(database, rollout, [seen(1)], after=0)
    with pytest.raises(StaleRevisionError, match="is at 1, not 0"):
        append(database, rollout, [seen(2)], after=0)
    assert read(database, rollout, "verify").revision == 1


def test_of_two_writers_at_once_one_is_refused(database, other, rollout):
    """The second waits for the first one's lock, and then finds that it has moved on."""
    with ThreadPoolExecutor(1) as pool:
        with database.begin_write() as transaction:
            Ledger(transaction, rollout).append([seen(1)], after=0)
            losing = pool.submit(append, other, rollout, [seen(2)], 0)
            with pytest.raises(TimeoutError):
                losing.result(timeout=0.3)
        with pytest.raises(StaleRevisionError):
            losing.result(timeout=10)
    assert [e.version for e in read(other, rollout, "list_events")] == ["v1"]


def test_who_comes_while_another_appends_waits_and_then_goes_on(database, other, rollout):
    """The head is read under its lock: nobody decides whether they are stale from an old one."""
    with ThreadPoolExecutor(1) as pool:
        with database.begin_write() as transaction:
            Ledger(transaction, rollout).append([seen(1)], after=0)
            next_one = pool.submit(append, other, rollout, [seen(2)], 1)
            with pytest.raises(TimeoutError):
                next_one.result(timeout=0.3)
        assert next_one.result(timeout=10)[0].revision == 2


def hammer(url, rollout, writer, count):
    """Append `count` events, each after what was last read, as services do."""
    database, done = Database(url), 0
    while done < count:
        after = read(database, rollout, "load_head").revision
        try:
            append(database, rollout, [seen(f"{writer}.{done}")], after=after)
        except (StaleRevisionError, DatabaseBusyError):
            continue
        done += 1
    database.close()


def test_many_writers_lose_nothing_and_double_nothing(url, database, rollout):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda writer: hammer(url, rollout, writer, 10), range(4)))
    assert read(database, rollout, "verify").revision == 40
    versions = [e.version for e in read(database, rollout, "list_events")]
    assert sorted(versions) == sorted(f"v{w}.{n}" for w in range(4) for n in range(10))


def test_processes_lose_nothing_and_double_nothing(url, database, rollout):
    forked = get_context("fork")
    writers = [forked.Process(target=hammer, args=(url, rollout, w, 10)) for w in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert read(database, rollout, "verify").revision == 20
    assert len({e.version for e in read(database, rollout, "list_events")}) == 20


def test_a_lost_lock_is_still_noticed(database, rollout, monkeypatch):
    """Were the head not locked, the second writer would find its revision taken."""
    append(database, rollout, [seen(1)], after=0)
    monkeypatch.setattr(Ledger, "_load_head", lambda *_: StoredLedgerHead(0, "", None))
    with pytest.raises(StaleRevisionError, match="revision 1 exists already"):
        append(database, rollout, [seen(2)], after=0)


def test_a_head_that_was_moved_meanwhile_is_noticed(database, rollout, monkeypatch):
    monkeypatch.setattr(Ledger, "_load_head", lambda *_: StoredLedgerHead(5, "", None))
    with pytest.raises(StaleRevisionError, match="no longer at 5"):
        append(database, rollout, [seen(2)], after=5)
    assert read(database, rollout, "list_events") == []


def test_an_error_after_an_append_undoes_it(database, rollout):
    with suppress(KeyError), database.begin_write() as transaction:
        Ledger(transaction, rollout).append([seen(1)], after=0)
        raise KeyError
    assert read(database, rollout, "verify").revision == 0


# What verification finds


def tamper(database, *statements):
    """Change rows as somebody could who owns the tables and passes their triggers."""
    with database.begin_write() as transaction:
        if transaction.engine == "sqlite":
            passing = [f"drop trigger {t}" for t in build_triggers("sqlite", "ledger")]
        else:
            passing = ["set local session_replication_role = replica"]
        for statement in (*passing, *statements):
            transaction.execute(text(statement))


ADDED_REASON = (  # to an approval that gave none
    "insert into ledger_texts select rollout, 6, field, salt, text from ledger_texts"
    " where field = 'reason' order by revision limit 1"
)


@pytest.mark.parametrize(
    ("statement", "line"),
    [
        ("update ledger set actor = 'eve' where revision = 3", 3),
        ("update ledger set body = '{ }' where revision = 3", 3),
        ("update ledger set body = replace(body, ':', ': ') where revision = 3", 3),
        ("update ledger set at = at + 1 where revision = 3", 3),
        ("delete from ledger where revision = 3", 3),
        ("delete from ledger where revision > 10", 11),
        ("update ledger_heads set hash = 'x'", len(EVENTS) + 1),
        (ADDED_REASON, 6),
    ],
)
def test_whoever_changes_rows_is_found_at_the_row(database, rollout, statement, line):
    append(database, rollout, EVENTS, after=0)
    tamper(database, statement)
    with pytest.raises(BrokenLedgerError) as caught:
        read(database, rollout, "verify")
    assert caught.value.line == line
