"""The revisions of planted cases: rows of before stay; back only if no case is planted."""

import hmac
from contextlib import closing

import pytest
from sqlalchemy import text

from rollout.store.database.migrations import downgrade, upgrade
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Database
from rollout.store.records.planted_cases import PlantedCases, join_key_hashes
from tests.migrations.test_field_words import reflected, row_of
from tests.migrations.test_ledger_form import filled
from tests.migrations.test_record_senders import contents
from tests.migrations.test_safety_tables import rows_by_table

__all__ = ["filled"]
BEFORE, AFTER, NEXT = "0036", "0034", "0037"
DECLARE = "insert into planted_cases (rollout, case_id, declared_at, revision) values (1, 7, 0, 2)"


@pytest.mark.slow
def test_rows_of_before_occurred_by_themselves_and_a_declaration_stays(filled):
    upgrade(filled, BEFORE)
    before, rows = contents(filled), rows_by_table(filled)
    assert before["cases"]
    upgrade(filled, AFTER)
    after = contents(filled)
    assert after["cases"] == [{**row, "planted": None} for row in before["cases"]]
    assert rows_by_table(filled) == {**rows, "planted_cases": 0}
    upgrade(filled, NEXT)
    downgrade(filled, AFTER)
    assert contents(filled) == after
    downgrade(filled, BEFORE)
    assert contents(filled) == before
    upgrade(filled, AFTER)
    with closing(Database(filled)) as database, database.begin_write() as transaction:
        transaction.execute(text(DECLARE))
    with pytest.raises(RuntimeError, match="1 cases are declared as planted"):
        downgrade(filled, BEFORE)


@pytest.mark.slow
def test_a_declaration_of_before_gets_a_row_of_its_own_and_the_case_keeps_its_number(url):
    upgrade(url, AFTER)
    salt, tables = bytes(32), reflected(url)
    rows = {
        "rollouts": [{"id": 1, "salt": salt}],
        "external_keys": [
            {"id": 7, "rollout": 1, "kind": "case", "key": "p1"},
            {"id": 8, "rollout": 1, "kind": "erased", "key": "e" * 64},
            {"id": 9, "rollout": 1, "kind": "case", "key": "n1"},
        ],
        "planted_cases": [
            {"rollout": 1, "case_id": n, "declared_at": 5, "revision": 2} for n in (7, 8)
        ],
    }
    with closing(Database(url)) as database, database.begin_write() as transaction:
        for table in tables:
            for n, row in enumerate(rows.get(table.name, ()), 1):
                transaction.execute(table.insert(), [{**row_of(table, n), **row}])
        if transaction.engine == "postgresql":
            transaction.execute(text("alter sequence external_keys_id_seq restart 20"))
    upgrade(url, NEXT)
    with closing(Database(url)) as database, database.begin_read() as transaction:
        keys = transaction.execute(text("select id, kind, key from external_keys")).all()
        declared = transaction.execute(text("select * from planted_cases order by case_id")).all()
        store = PlantedCases(transaction, Rollout(1, "one", salt))
        assert store.load_digests() == {2: (2, join_key_hashes([hash_key("p1"), "e" * 64]))}
        assert list(store.find(["p1", "n1"])) == ["p1"]
    new = {row.id for row in keys if row.kind == "planted"}
    assert {row.id for row in keys} - new == {7, 8, 9}
    assert [tuple(row) for row in declared] == [(1, n, 5, 2) for n in (7, 8, *sorted(new))]
    with pytest.raises(RuntimeError, match="2 cases are declared as planted"):
        downgrade(url, AFTER)


def hash_key(key):
    return hmac.digest(bytes(32), b"purged\x1f" + key.encode(), "sha256").hex()
