"""An export has every stored row that names a user, also of others, and nobody else's name."""

import json
from dataclasses import MISSING, fields, replace
from datetime import datetime
from types import UnionType
from typing import get_args, get_origin

from sqlalchemy import insert

from rollout.data.access.idempotency_keys import IdempotencyKeys, IdempotentResponse
from rollout.data.access.users import SecondFactors, Users
from rollout.data.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.data.erasure.user_data import ACCOUNT_COLUMNS, MADE_BY_COLUMNS, NAMED_COLUMNS
from rollout.data.ledger.ledger import Accounts
from rollout.data.ledger.scopes import PendingStop, store_pending_stop
from rollout.data.records.record_rows import TABLES
from rollout.data.records.records import RecordStore
from rollout.data.tables.tables import ledger, ledger_texts, metadata
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.ledger.ledger import (
    ACCOUNT_FIELDS,
    ALL_EVENT_TYPES,
    EVENT_HINTS,
    ROW_FIELDS,
    TEXT_FIELDS,
    build_row,
    to_canonical_json,
)
from rollout.engine.records.records import Prediction
from rollout.features.access import keys, users
from rollout.features.access.credentials import reset_second_factor
from rollout.features.access.users import AccountUpdate
from rollout.features.erasure.erasure import iterate_user_data
from rollout.kernel.calendar.instants import Cell
from tests.data.conftest import database, url
from tests.data.databases import on_sqlite
from tests.factories import DAY, NOON
from tests.features.erasure.test_name_erasure import ADA, ANSWERS, decide, fill, store
from tests.features.houses import chance

__all__ = ["database", "url"]
FIRST_REVISION = 1_000
NUMBER_COLUMNS = {"user_id", "reset_by", "created_by"}
NAME_COLUMNS = {
    *("account", "acknowledged_by", "actor", "by", "imported_by", "principal", "raised_by"),
    *("received_by", "reviewer", "sender"),
}
MENTIONS = [
    (kind, field)
    for kind, hints in sorted(EVENT_HINTS.items())
    for field, hint in sorted(hints.items())
    if field not in {*ROW_FIELDS, *(set(TEXT_FIELDS[kind]) - set(ACCOUNT_FIELDS[kind]))}
    and hint in {str, tuple[str, ...]}
]
"""Every field of every kind that could hold an account, whatever it is called."""


def export(database, name, caller=ADA):
    return list(iterate_user_data(database, caller, name))


def find_ids(database, *names):
    with database.begin_read() as transaction:
        ids = Accounts(transaction).find_ids(names)
    return [ids[name] for name in names]


def make_value(hint):
    if get_origin(hint) is UnionType:
        return None if type(None) in get_args(hint) else make_value(get_args(hint)[0])
    if get_origin(hint) is tuple:
        return ()
    return {str: "x", int: 1, bool: False, datetime: NOON, Cell: Cell("a", "b")}[hint]


def build_mention(kind, field, account):
    """Return an event of a kind, by ada, that has an account in one field."""
    hints = EVENT_HINTS[kind]
    required = [f for f in fields(ALL_EVENT_TYPES[kind]) if f.default is MISSING]
    values = {f.name: make_value(hints[f.name]) for f in required}
    only = ACCOUNT_FIELDS[kind].get(field, True)
    values |= {} if only is True else {"kind": only}
    value = account if hints[field] is str else (account,)
    return ALL_EVENT_TYPES[kind](**values | {field: value, "at": NOON, "by": "ada"})


def insert_row(database, row, number):
    """Store a row of a ledger as it is; an export doesn't verify the chain."""
    values = {
        "rollout": number,
        "revision": row.revision,
        "at": NOON,
        "kind": row.kind,
        "actor": row.actor,
        "body": to_canonical_json(row.body),
        "previous": "",
        "hash": "",
    }
    with database.begin_write() as transaction:
        transaction.execute(insert(ledger).values(**values))


def list_entries(rows, after=FIRST_REVISION - 1):
    return [row for row in rows if row["table"] == "ledger" and row["revision"] > after]


@on_sqlite
def test_an_entry_of_any_kind_and_any_field_is_exported_to_whom_it_names(database):
    fill(database)
    (ada, bo) = find_ids(database, "ada", "bo")
    assert {(kind, name) for kind, each in ACCOUNT_FIELDS.items() for name in each} <= set(MENTIONS)
    with database.begin_read() as transaction:
        names = Accounts(transaction).find_names([ada, bo])
        ramps = Rollouts(transaction).find("ramps").number
    for number, (kind, field) in enumerate(MENTIONS):
        event = build_mention(kind, field, bo)
        owner = ACCESS_CHAIN.number if number % 2 else ramps
        row = build_row("x", FIRST_REVISION + number, event, "", salts=lambda *_: b"", names=names)
        insert_row(database, row, owner)
    entries = list_entries(export(database, "bo"))
    found = {
        (entry["kind"], field)
        for entry in entries
        for field, value in entry["fields"].items()
        if value in (bo, [bo])
    }
    assert found == set(MENTIONS)
    assert {entry["by"] for entry in entries} == {ada}
    assert list_entries(export(database, "rosalind")) == []


@on_sqlite
def test_what_another_user_typed_is_left_out_and_what_a_program_wrote_is_not(database):
    fill(database)
    (bo,) = find_ids(database, "bo")
    for number, actor in enumerate([*find_ids(database, "ada", "bo"), "policy"], FIRST_REVISION):
        event = build_mention("UserErased", "user", bo)
        row = build_row("x", number, event, "", salts=lambda *_: b"")
        insert_row(database, replace(row, actor=actor), ACCESS_CHAIN.number)
        text = {"field": "reason", "salt": b"", "text": f"typed by {actor}"}
        with database.begin_write() as transaction:
            place = {"rollout": ACCESS_CHAIN.number, "revision": number}
            transaction.execute(insert(ledger_texts).values(**place, **text))
    texts = [entry["text"] for entry in list_entries(export(database, "bo"))]
    assert texts == [None, f"typed by {bo}", "typed by policy"]


def change_everything(database):
    """Let ada do to bo all that an admin can do to a user, and let bo act."""
    role = AssignedRole("viewer", "ramps")
    factor = {"at": NOON, "code_hashes": [b"code"]}
    with database.begin_write() as transaction:
        bo = Users(transaction).find("bo")
        Users(transaction).record_credential(bo, at=NOON)
        SecondFactors(transaction).add(bo, b"secret", at=NOON)
        SecondFactors(transaction).confirm(bo, **factor)
        response = IdempotentResponse(b"hash", 200, b"{}")
        IdempotencyKeys(transaction).store("bo", "k-1", response, at=NOON, until=NOON + DAY)
        stop = PendingStop("w-1", "ramps", (), Actor("bo"), "fog", drill=False, at=NOON)
        store_pending_stop(transaction, stop)
        ramps = Rollouts(transaction).find("ramps")
        prediction = Prediction(key="c-1", version="v1", answers=ANSWERS)
        sender = Accounts(transaction).find_ids(["bo"])["bo"]
        RecordStore(transaction, ramps).store([prediction], received_at=NOON, sender=sender)
    users.create_sign_in_link(database, ADA, "bo", at=NOON, secret="x" * 40)
    keys.create_key(database, ADA, "bo", random_bytes=chance(), at=NOON)
    reset_second_factor(database, ADA, "bo", at=NOON)
    for update in (
        AccountUpdate(email="new@example.org", roles_to_grant=(role,)),
        AccountUpdate(roles_to_revoke=(role,)),
        AccountUpdate(is_disabled=True),
        AccountUpdate(is_disabled=False),
    ):
        users.update_account(database, ADA, "bo", update, at=NOON)


def test_an_export_has_what_others_did_to_a_user_and_no_name_of_theirs(database):
    fill(database)
    change_everything(database)
    rows = export(database, "bo")
    (ada, bo) = find_ids(database, "ada", "bo")
    about = {row["kind"] for row in rows if row["table"] == "ledger" and row["by"] == ada}
    assert about == {
        "UserAdded", "EmailSet", "RoleGranted", "RoleRevoked", "CredentialsReset", "KeyCreated",
        "OneTimeLinkCreated", "UserDisabled", "UserEnabled",
    }  # fmt: skip
    (role,) = (row["fields"] for row in rows if row.get("kind") == "RoleRevoked")
    assert (role["user"], role["role"], role["rollout"]) == (bo, "viewer", "ramps")
    resets = [row for row in rows if row["table"] == "credential_resets"]
    assert {(row["user"], row["by"], row["credential"]) for row in resets} == {
        (bo, ada, "second factor"), (bo, ada, "e-mail address"), (bo, ada, "key"),
    }  # fmt: skip
    (link,) = (row for row in rows if row["table"] == "one_time_links")
    assert (link["user"], link["by"]) == (bo, ada)
    assert '"ada"' not in json.dumps(rows)
    assert {row["table"] for row in rows} >= {"account_names", "idempotency_keys"}
    mine = [row for row in export(database, "ada") if row["table"] == "one_time_links"]
    assert [(row["user"], row["by"]) for row in mine] == [(bo, ada)]


def test_every_table_with_a_row_that_names_the_user_is_in_the_export(database):
    fill(database)
    change_everything(database)
    (bo,) = find_ids(database, "bo")
    rows = export(database, "bo")
    with database.begin_read() as transaction:
        number = Users(transaction).find("bo").number
        tables = {
            table.name
            for table in metadata.sorted_tables
            for row in transaction.execute(table.select()).mappings()
            if is_named(row, {"bo", bo}, number)
        }
    assert tables == {row["table"] for row in rows}
    assert {"pending_stops", "predictions", "ledger", "users"} <= tables
    (sent,) = (row for row in rows if row["table"] == "predictions")
    assert (sent["case"], sent["rollout"]) == ("c-1", "ramps")


def test_a_name_is_exported_in_every_spelling_that_counts_as_one_person(database):
    fill(database)
    store(database, [decide("c-0", "Wren"), decide("c-1", "wren"), decide("c-2", "WREN")])
    for name in ("wren", "Wren"):
        decided = [row["case"] for row in export(database, name) if row["table"] == "decisions"]
        assert sorted(decided) == ["c-0", "c-1", "c-2"]


def is_named(row, names, number):
    numbers = [value for column, value in row.items() if column in NUMBER_COLUMNS]
    texts = [json.dumps(value) for value in row.values() if isinstance(value, str | dict)]
    return number in numbers or any(
        f'"{name}"' in text.replace("\\", "") for text in texts for name in names
    )


def test_every_column_for_names_of_users_is_in_the_export_or_left_out_for_a_reason():
    exported = {
        *(column.table.name for column, _ in NAMED_COLUMNS),
        *(table.name for table in (*ACCOUNT_COLUMNS, *MADE_BY_COLUMNS, *TABLES.values())),
        *("account_names", "idempotency_keys", "ledger", "pending_stops", "report_requests"),
        "role_assignments",
    }
    named = {
        table.name
        for table in metadata.sorted_tables
        if {*NAME_COLUMNS, *NUMBER_COLUMNS} & set(table.c.keys())
    }
    assert named - exported == {"counted_units"}  # would show which decisions are on gold cases
