"""A database with ledgers of form 1 goes on in form 2; accounts and texts stand beside the rows."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, update

from rollout.core.ledger.ledger import parse_event, verify_lines
from rollout.core.scope.events import Stopped, VersionFirstUsed
from rollout.core.scope.projection import apply_events
from rollout.services.ledger.ledger_forms import change_forms
from rollout.store.counting.projection_repair import ProjectionRepair
from rollout.store.database.errors import LedgerFormError
from rollout.store.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.store.ledger.accounts import Accounts
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.projection_check import find_differences
from rollout.store.tables.columns import decode_instant
from rollout.store.tables.tables import account_names, ledger, ledger_heads, ledger_texts
from tests.factories import CREEK, NOON

CHAINS = Path(__file__).parents[2] / "core" / "ledger" / "chains"
OLD = (CHAINS / "rollout-form-1.jsonl").read_text(encoding="utf-8").splitlines()
OLD_ACCESS = (CHAINS / "access-form-1.jsonl").read_text(encoding="utf-8").splitlines()
STOPPED = Stopped(at=NOON, by="ana", stop="S-41", cells=(CREEK,), reason="smoke")


def keep(transaction, rollout, lines):
    """Write rows as the program before form 2 wrote them."""
    rows = [json.loads(line) for line in lines]
    values = [
        {
            "rollout": rollout.number,
            "revision": row["revision"],
            "at": decode_instant(row["at"]),
            "kind": row["kind"],
            "actor": row["actor"],
            "body": json.dumps(
                row["body"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
            ),
            "access_head": row["house"],
            "previous": row["previous"],
            "hash": row["hash"],
        }
        for row in rows
    ]
    transaction.execute(insert(ledger), values)
    last = {"revision": len(rows), "hash": rows[-1]["hash"], "at": decode_instant(rows[-1]["at"])}
    own = update(ledger_heads).where(ledger_heads.c.rollout == rollout.number)
    transaction.execute(own.values(**last, form=1))


@pytest.fixture
def rollout(database):
    """Return a rollout of before, in a database with an access ledger of before."""
    with database.begin_write() as transaction:
        made = Rollouts(transaction).create("bear-alarm", salt=bytes(32), at=NOON)
        keep(transaction, made, OLD)
        keep(transaction, Rollouts(transaction).open_access_ledger(), OLD_ACCESS)
    return made


def read(database, rollout, what, **more):
    with database.begin_read() as transaction:
        found = getattr(Ledger(transaction, rollout), what)(**more)
        return list(found) if what in {"list_rows", "list_lines", "list_events"} else found


def append(database, rollout, *events):
    with database.begin_write() as transaction:
        chain = Ledger(transaction, rollout)
        return chain.append(events, after=chain.load_head().revision)


def test_a_ledger_of_before_is_read_and_verified_as_it_was_written(database, rollout):
    assert read(database, rollout, "list_lines") == OLD
    assert read(database, rollout, "verify").hash == json.loads(OLD[-1])["hash"]
    assert read(database, rollout, "load_scope") == apply_events(
        map(parse_event, verify_lines(OLD))
    )


def test_nothing_is_appended_to_form_1_and_the_command_is_named(database, rollout):
    with pytest.raises(LedgerFormError, match=r"bear-alarm is in form 1.*`rollout db upgrade`"):
        append(database, rollout, STOPPED)
    assert read(database, rollout, "list_lines") == OLD


def test_an_upgrade_ends_form_1_once_and_the_ledger_goes_on(database, rollout):
    before = read(database, rollout, "load_scope")
    assert change_forms(database, NOON) == ("access ledger", "bear-alarm")
    assert change_forms(database, NOON) == ()
    append(database, rollout, STOPPED)
    lines = read(database, rollout, "list_lines")
    assert lines[: len(OLD)] == OLD
    assert [row.form for row in verify_lines(lines)] == [1] * (len(OLD) + 1) + [2]
    read(database, rollout, "verify")
    read(database, ACCESS_CHAIN, "verify")
    now = read(database, rollout, "load_scope")
    assert now.stops["S-41"].by == "ana"
    assert now == apply_events([STOPPED], replace(before, revision=before.revision + 1))


def test_the_row_that_ends_form_1_never_comes_before_the_last_one(database, rollout):
    change_forms(database, NOON - timedelta(days=9999))
    *_, last, changed = read(database, rollout, "list_rows")
    assert changed.at == last.at


def test_what_follows_from_a_mixed_ledger_is_rebuilt_alike(database, rollout):
    change_forms(database, NOON)
    with database.begin_write() as transaction:
        derived = ProjectionRepair(transaction, rollout)
        derived.repair_projections(find_differences(transaction, rollout))
    append(database, rollout, STOPPED)
    with database.begin_read() as transaction:
        assert not find_differences(transaction, rollout)


def test_new_ledgers_begin_in_form_2(database):
    with database.begin_write() as transaction:
        made = Rollouts(transaction).create("bear-alarm", salt=bytes(32), at=NOON)
    (row,) = append(database, made, STOPPED)
    assert row.form == 2
    assert change_forms(database, NOON) == ()


def test_rows_are_found_by_kind_and_actor_in_both_forms(database, rollout):
    change_forms(database, NOON)
    append(database, rollout, STOPPED, VersionFirstUsed(at=NOON, by="policy", version="v9"))
    first = [row.kind for row in read(database, rollout, "list_rows", kinds=("VersionFirstUsed",))]
    assert first == ["VersionSeen", "VersionSeen", "VersionFirstUsed"]
    with database.begin_read() as transaction:
        told = Ledger(transaction, rollout).count_events
        assert told("ana", "Stopped", since=decode_instant(0)) == 2


# Accounts


def test_rows_hold_random_ids_and_events_names(database, rollout):
    change_forms(database, NOON)
    (row,) = append(database, rollout, STOPPED)
    assert row.actor.startswith("u-")
    assert len(row.actor) == 18
    (line,) = read(database, rollout, "list_lines", after=row.revision - 1)
    assert "ana" not in line
    assert read(database, rollout, "list_events", after=row.revision - 1) == [STOPPED]


def test_an_account_has_one_id_in_every_ledger_and_the_engine_none(database):
    with database.begin_write() as transaction:
        names = Accounts(transaction).add_names(["ana", "policy", ""])
        again = Accounts(transaction).add_names(["ana", "bo"])
    assert names.find_id("ana") == again.find_id("ana") != again.find_id("bo")
    assert (names.find_id("policy"), names.find_id("")) == ("policy", "")


def test_a_name_that_was_erased_leaves_its_id(database, rollout):
    change_forms(database, NOON)
    (row,) = append(database, rollout, STOPPED)
    with database.begin_write() as transaction:
        transaction.execute(update(account_names).values(name=None))
    (event,) = read(database, rollout, "list_events", after=row.revision - 1)
    assert event.by == row.actor
    read(database, rollout, "verify")


# Texts


def test_a_text_that_was_erased_leaves_its_hash_and_a_sound_ledger(database, rollout):
    change_forms(database, NOON)
    (row,) = append(database, rollout, STOPPED)
    assert "smoke" not in json.dumps(row.body)
    with database.begin_write() as transaction:
        assert transaction.execute(select(ledger_texts.c.text)).scalars().all() == ["smoke"]
        transaction.execute(delete(ledger_texts))
    (event,) = read(database, rollout, "list_events", after=row.revision - 1)
    assert event == replace(STOPPED, reason="")
    read(database, rollout, "verify")


def test_a_text_that_was_changed_is_found(database, rollout):
    change_forms(database, NOON)
    append(database, rollout, STOPPED)
    with database.begin_write() as transaction:
        transaction.execute(update(ledger_texts).values(text="fire"))
    with pytest.raises(ValueError, match="its text `reason` is not the one that was hashed"):
        read(database, rollout, "verify")


def test_the_same_text_has_another_salt_each_time(database, rollout):
    change_forms(database, NOON)
    first, second = append(database, rollout, STOPPED, replace(STOPPED, stop="S-42"))
    assert first.texts["reason"].salt != second.texts["reason"].salt
