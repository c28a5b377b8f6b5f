"""A restored back-up loses again what a ledger says was erased."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

import pytest

from rollout.data.access.users import Users
from rollout.data.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Accounts, Ledger
from rollout.engine.decide.permissions import Caller
from rollout.engine.ledger.ledger import verify_lines
from rollout.features.access import users
from rollout.features.backups import backups
from rollout.features.erasure.erasure import erase_case, erase_episode, erase_name
from rollout.features.erasure.erasure_replay import AppliedErasures, apply_erasures
from rollout.kernel.errors import NotAllowedError
from tests.data.conftest import database, url
from tests.data.databases import on_sqlite
from tests.factories import NOON
from tests.features.erasure.test_case_erasure import build_records
from tests.features.erasure.test_name_erasure import ADA, LATER, REQUEST, decide, fill, store
from tests.features.erasure.traces import find_traces

pytestmark = pytest.mark.slow

__all__ = ["database", "url"]
IN_RAMPS = replace(REQUEST, rollout="ramps")
WORDS = ("rosalind", "wren", "kestrel", "flock", "gull-1")


def load_rows(database):
    """Return the rows of both ledgers as read from exported files."""
    with database.begin_read() as transaction:
        rollouts = (Rollouts(transaction).find("ramps"), ACCESS_CHAIN)
        ledgers = [list(Ledger(transaction, rollout).list_lines()) for rollout in rollouts]
    return [row for lines in ledgers for row in verify_lines(lines)]


@on_sqlite
def test_a_restored_database_loses_again_what_was_erased(database, tmp_path):
    fill(database)
    store(database, [*build_records("kestrel"), *build_records("gull-1", episode="flock")])
    store(database, [decide("c-1", "wren")])
    backup = back_up(database, tmp_path / "backup.db")
    erase_case(database, IN_RAMPS, "kestrel")
    erase_episode(database, IN_RAMPS, "flock")
    erase_name(database, IN_RAMPS, "wren")
    erase_name(database, REQUEST, "rosalind")
    rows = load_rows(database)
    assert all(find_traces(backup, word) for word in WORDS)
    assert apply_erasures(backup, ADA, rows, LATER) == AppliedErasures(cases=2, names=2)
    assert [word for word in WORDS if find_traces(backup, word)] == []
    assert apply_erasures(backup, ADA, rows, LATER) == AppliedErasures(cases=0, names=0)
    backup.close()


@on_sqlite
def test_a_restore_erases_what_the_replaced_database_says_was_erased(database, url, tmp_path):
    fill(database)
    store(database, [*build_records("kestrel"), *build_records("gull-1", episode="flock")])
    file = tmp_path / "monday"
    backups.back_up(url, file)
    erase_case(database, IN_RAMPS, "kestrel")
    erase_name(database, REQUEST, "rosalind")
    live = tmp_path / "live.db"  # nobody else has it open, unlike the one that `fresh` watches
    backups.back_up(url, live)
    url = f"sqlite:///{live}"
    backups.restore(backups.RestoreRequest(url, file, ADA.name, "test", LATER, discards_newer=True))
    with closing(Database(url)) as restored:
        assert [word for word in ("rosalind", "kestrel") if find_traces(restored, word)] == []
        assert find_traces(restored, "flock")


@on_sqlite
def test_who_restores_is_erased_last_so_that_no_entry_brings_the_name_back(database, tmp_path):
    fill(database)
    users.create_account(database, ADA, "zoe", at=NOON, role_assignments=ADA.role_assignments)
    backup = back_up(database, tmp_path / "backup.db")
    by_zoe = replace(REQUEST, caller=replace(ADA, name="zoe"))
    for name in ("ada", "rosalind"):
        erase_name(database, by_zoe, name)
    applied = apply_erasures(backup, ADA, load_rows(database), LATER)
    assert applied == AppliedErasures(cases=0, names=2)
    with backup.begin_read() as transaction:
        assert Accounts(transaction).find_ids(["ada", "rosalind"]) == {}
        assert Users(transaction).find("ada") is None
    backup.close()


@on_sqlite
def test_a_name_that_is_a_word_of_the_reason_stays_and_is_named(database, tmp_path):
    fill(database)
    for name in ("restore", "wren"):
        store(database, [decide("c-1", name)])
    backup = back_up(database, tmp_path / "backup.db")
    for name in ("restore", "wren"):
        erase_name(database, IN_RAMPS, name)
    applied = apply_erasures(backup, ADA, load_rows(database), LATER)
    assert (applied.cases, applied.names, find_traces(backup, "wren")) == (0, 1, [])
    assert applied.text.splitlines()[1].startswith("restore was erased, but stays: the reason has")
    backup.close()


@on_sqlite
def test_only_an_admin_of_all_rollouts_applies_erasures(database):
    fill(database)
    with pytest.raises(NotAllowedError):
        apply_erasures(database, Caller("bo"), [], LATER)


def back_up(database, file):
    with database.begin_read():
        pass
    database.close()
    source = Path(database.engine.url.database)
    copyfile(source, file)
    for wal in source.parent.glob(f"{source.name}-wal"):
        copyfile(wal, file.with_name(f"{file.name}-wal"))
    return Database(f"sqlite:///{file}")
