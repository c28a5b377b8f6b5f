"""All ledgers are rewritten, with right hashes, in a database that a service made by itself."""

import os
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.data.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.data.tables.record_tables import decode_instant
from rollout.data.tables.tables import ledger, ledger_heads
from tests.api.bears import founded
from tests.api.test_serve import serving, until_ready
from tests.factories import NOON
from tests.live.test_evidence_check import attacking

pytestmark = [pytest.mark.enable_socket, pytest.mark.slow]


def rewrite_ledgers(database):
    """Date every entry a microsecond later, and compute all hashes anew."""
    with attacking(database, "ledger") as transaction:
        for rollout in (ACCESS_CHAIN, *Rollouts(transaction).list_all()):
            previous = ""
            for row in list(Ledger(transaction, rollout).list_rows()):
                other = replace(row, at=row.at + 1, previous=previous)
                previous, at = other.hash, decode_instant(other.at)
                place = (ledger.c.rollout == rollout.number, ledger.c.revision == row.revision)
                values = {"at": at, "previous": other.previous, "hash": previous}
                transaction.execute(update(ledger).where(*place).values(values))
            head = ledger_heads.c.rollout == rollout.number
            transaction.execute(update(ledger_heads).where(head).values(hash=previous, at=at))


def ask_doctor(url, folder):
    settings = {
        "ROLLOUT_DATABASE_URL": url, "ROLLOUT_SECRET_KEY_FILE": str(folder / "rollout-secret.key")
    }  # fmt: skip
    done = CliRunner().invoke(app, ["doctor"], env={**os.environ, **settings})
    return done.exit_code, done.stdout


def test_ledgers_rewritten_as_a_whole_are_found_though_nobody_made_a_key(url, tmp_path):
    with closing(Database(url)) as database:
        founded(database, NOON)
        with serving(url, folder=tmp_path) as (address, process):
            until_ready(address)
            process.terminate()  # it signs at its start
            assert process.wait(timeout=20) == 0
        code, said = ask_doctor(url, tmp_path)
        assert "ok    the ledgers have the rows of the signed heads" in said
        assert "Name a place elsewhere" in said
        rewrite_ledgers(database)
    code, said = ask_doctor(url, tmp_path)
    assert code == 1
    assert "ok    bears: the ledger is intact" in said, "every hash is right"
    assert "FAIL  the ledgers have the rows of the signed heads" in said
    assert ":access: row" in said
    assert "bears: row" in said
