"""A restore applies the erasures of the newest exported ledgers that it is given."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from rollout.core.ledger.ledger import build_ledger
from rollout.core.scope.events import VersionFirstUsed
from rollout.services.erasure.case_erasure import erase_case
from rollout.services.erasure.name_erasure import erase_name
from rollout.store.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger
from tests.factories import NOON
from tests.services.backups.test_backups import back_up, rollout, url
from tests.services.erasure.test_case_erasure import build_records
from tests.services.erasure.test_name_erasure import REQUEST, fill, store
from tests.services.erasure.traces import find_traces
from tests.store.databases import on_sqlite

__all__ = ["rollout", "url"]

IN_RAMPS = replace(REQUEST, rollout="ramps")
LOST = ("--by", "ada", "--reason", "the disk failed", "--discard-newer")


def export(url, folder, name):
    """Write both ledgers to files; return the rollout's and the access ledger's."""
    with closing(Database(url)) as database, database.begin_read() as transaction:
        owners = {"ramps": Rollouts(transaction).find("ramps"), "access": ACCESS_CHAIN}
        files = [folder / f"{name}-{owner}.jsonl" for owner in owners]
        for file, owner in zip(files, owners.values(), strict=True):
            lines = Ledger(transaction, owner).list_lines()
            file.write_text("".join(f"{line.rstrip()}\n" for line in lines), "utf-8")
    return files


def erase(url):
    with closing(Database(url)) as database:
        erase_case(database, IN_RAMPS, "kestrel")
        erase_name(database, REQUEST, "rosalind")


def lose(url):
    """Delete the database, or all that stands in it."""
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).unlink()
        return
    with closing(Database(url)) as database, database.begin_write() as transaction:
        transaction.execute(text("drop schema public cascade"))
        transaction.execute(text("create schema public"))


def find_words(url):
    with closing(Database(url)) as database:
        return [word for word in ("rosalind", "kestrel", "gull-1") if find_traces(database, word)]


@pytest.fixture
def backup(url, rollout, tmp_path):
    with closing(Database(url)) as database:
        fill(database)
        store(database, [*build_records("kestrel"), *build_records("gull-1")])
    return back_up(rollout, tmp_path)


def test_a_restore_erases_what_the_newest_ledgers_say_was_erased(rollout, url, backup, tmp_path):
    erase(url)
    ramps, access = export(url, tmp_path, "newest")
    lose(url)
    done = rollout("db", "restore", str(backup), *LOST)
    assert done.exit_code == 0, done.output
    assert find_words(url) == ["rosalind", "kestrel", "gull-1"]  # nobody knows of the erasures
    lose(url)
    words = ("--ledger", str(ramps), "--ledger", str(access))
    done = rollout("db", "restore", str(backup), *LOST, *words)
    assert done.exit_code == 0, done.output
    assert "1 case and 1 name erased again" in done.stdout
    assert find_words(url) == ["gull-1"]


def test_the_ledgers_of_the_backup_itself_are_no_older_ones(rollout, url, backup, tmp_path):
    files = export(url, tmp_path, "equal")
    words = [word for file in files for word in ("--ledger", str(file))]
    done = rollout("db", "restore", str(backup), *LOST, *words)
    assert done.exit_code == 0, done.output
    assert "0 cases and 0 names erased again" in done.stdout


@on_sqlite
@pytest.mark.parametrize(
    ("content", "because"),
    [
        ("older", "the backup knows more"),
        ("changed", "its hash is not that of its content"),
        ("another", "it is another ledger, or one of the two was rewritten"),
        ("unknown", "is the ledger of wolves, which the backup lacks (its rollouts: ramps)"),
        ("empty", "is empty; export the newest ledger"),
        ("binary", "can't decode byte"),
        ("missing", "no such file"),
    ],
)
def test_an_export_that_does_not_continue_the_backup_replaces_nothing(
    rollout, url, backup, tmp_path, content, because
):
    erase(url)
    ramps, _ = export(url, tmp_path, "newest")
    write_wrong_export(ramps, content)
    before = find_words(url)
    refused = rollout("db", "restore", str(backup), *LOST, "--ledger", str(ramps))
    assert refused.exit_code == 2, refused.output
    assert because in refused.stderr
    assert find_words(url) == before
    assert not list(tmp_path.glob("*.restoring*"))


def write_wrong_export(file, content):
    lines = file.read_text("utf-8").splitlines(keepends=True)
    match content:
        case "older":
            (stop,) = [n for n, line in enumerate(lines) if '"S-2"' in line]  # the backup's last
            file.write_text("".join(lines[:stop]), "utf-8")
        case "changed":
            file.write_text("".join(lines).replace("S-2", "S-3"), "utf-8")
        case "another" | "unknown":
            name = "ramps" if content == "another" else "wolves"
            events = [VersionFirstUsed(at=NOON, by="policy", version=f"v{n}") for n in range(20)]
            rows = build_ledger(name, events, lambda *_: b"salt")
            file.write_text("".join(f"{row.format()}\n" for row in rows), "utf-8")
        case "empty":
            file.write_text("", "utf-8")
        case "binary":
            file.write_bytes(b"\xff\xfe")
        case "missing":
            file.unlink()
