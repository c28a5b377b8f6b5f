"""A restore applies the erasures of the newest exported ledgers that it is given."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from rollout.data.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Accounts, Ledger
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.events import VersionFirstUsed
from rollout.engine.ledger.access_events import UserErased
from rollout.engine.ledger.ledger import build_ledger, build_row, verify_lines
from rollout.features.access.access_state import find_access_ledger_faults
from rollout.features.access.keys import create_key, load_keys
from rollout.features.access.users import (
    AccountUpdate,
    create_account,
    load_accounts,
    load_local_caller,
    update_account,
)
from rollout.features.erasure.erasure import erase_case, erase_name
from tests.data.databases import on_sqlite
from tests.factories import NOON
from tests.features.backups.test_backups import back_up, bears, database, rollout, url
from tests.features.erasure.test_case_erasure import build_records
from tests.features.erasure.test_name_erasure import ADA, LATER, REQUEST, fill, store
from tests.features.erasure.traces import find_traces
from tests.features.houses import chance

__all__ = ["bears", "database", "rollout", "url"]

IN_RAMPS = replace(REQUEST, rollout="ramps")
YAN = replace(ADA, name="yan")
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
        ada = load_local_caller(database, "ada")
        create_account(database, ada, "box", at=NOON, is_service_account=True)
        update_account(database, ada, "ada", AccountUpdate(email="ada@example.org"), at=NOON)
        create_key(database, ada, "ada", random_bytes=chance(), at=NOON)
    return back_up(rollout, tmp_path)


@pytest.mark.slow
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


def find_head(file, back=1):
    """Return revision and hash of an entry, counted from the end."""
    row = list(verify_lines(file.read_text("utf-8").splitlines()))[-back]
    return f"{row.revision}:{row.hash}"


@on_sqlite
def test_a_kept_head_shows_which_export_is_the_one(rollout, url, backup, tmp_path):
    erase(url)
    ramps, access = export(url, tmp_path, "newest")
    lose(url)
    words = ("--ledger", str(ramps), "--ledger", str(access))
    done = rollout(
        "db", "restore", str(backup), *LOST, *words, "--head", find_head(ramps, 2).upper()
    )
    assert done.exit_code == 0, done.output
    of_ramps, of_access = done.stdout.splitlines()[:2]
    revision, hashed = find_head(ramps).split(":")
    assert of_ramps == (
        f"{ramps}: ramps up to entry {revision}, hash {hashed}; it has the head"
        f" {find_head(ramps, 2)}"
    )
    assert "exports are not signed: compare it with a head kept elsewhere" in of_access
    assert find_head(access).replace(":", ", hash ") in of_access


@pytest.mark.slow
@on_sqlite
@pytest.mark.parametrize(
    ("head", "because"),
    [
        ("1:" + "0" * 64, "no entry 1 has the hash " + "0" * 64),
        ("99:" + "0" * 64, "the export is older than this head, or was rewritten"),
        ("abc", "--head abc is no head; write REVISION:HASH"),
        ("0:" + "0" * 64, "is no head"),
    ],
)
def test_an_export_without_the_kept_head_replaces_nothing(
    rollout, url, backup, tmp_path, head, because
):
    erase(url)
    ramps, _ = export(url, tmp_path, "newest")
    before = find_words(url)
    words = ("--ledger", str(ramps), "--head", head)
    refused = rollout("db", "restore", str(backup), *LOST, *words)
    assert refused.exit_code == 2, refused.output
    assert because in refused.stderr
    assert find_words(url) == before
    refused = rollout("erase", "again", str(ramps), "--by", "ada", "--head", head)
    assert because in refused.stderr


@on_sqlite
def test_a_backup_without_users_has_no_access_ledger_and_is_continued(
    rollout, url, bears, tmp_path
):
    backup, file = back_up(rollout, tmp_path), tmp_path / "bears.jsonl"
    file.write_text(rollout("ledger", "export", "bears").stdout, "utf-8")
    lose(url)
    done = rollout("db", "restore", str(backup), *LOST, "--ledger", str(file))
    assert done.exit_code == 0, done.output
    assert f"{file}: bears up to entry" in done.stdout


@on_sqlite
def test_a_head_needs_an_export(rollout, url, backup):
    refused = rollout("db", "restore", str(backup), *LOST, "--head", "1:" + "0" * 64)
    assert "name the export, too: --ledger FILE" in refused.stderr


@pytest.mark.slow
def test_the_only_admin_of_the_backup_who_was_erased_stays_and_is_named(
    rollout, url, backup, tmp_path
):
    with closing(Database(url)) as database:
        ada = load_local_caller(database, "ada")
        create_account(database, ada, "zoe", at=NOON, role_assignments=[AssignedRole("admin")])
        erase_name(database, REQUEST, "rosalind")
        erase_name(database, replace(REQUEST, caller=replace(ada, name="zoe")), "ada")
    _, access = export(url, tmp_path, "newest")
    lose(url)
    done = rollout("db", "restore", str(backup), *LOST, "--ledger", str(access))
    assert done.exit_code == 0, done.output
    assert "0 cases and 1 name erased again" in done.stdout
    assert "ada was erased, but stays the last admin, without any way to sign in" in done.stdout
    assert find_words(url)[:1] == ["kestrel"]  # rosalind is gone
    with closing(Database(url)) as database:
        (member, *_) = load_accounts(database, ADA)
        assert (member.name, member.rights) == ("ada", (AssignedRole("admin"),))
        assert (member.has_password, member.email, member.disabled_at) == (False, "", None)
        assert [key.holder for key in load_keys(database, ADA) if key.revoked_at is None] == []
        assert find_access_ledger_faults(database) == ()
    for words in (
        ("users", "add", "yan", "--role", "admin", "--by", "ada"),
        ("erase", "name", "ada", "--by", "yan", "--reason", "asked"),
    ):
        done = rollout(*words)
        assert done.exit_code == 0, done.output
    with closing(Database(url)) as database:
        assert find_traces(database, "ada@") == find_traces(database, '"ada"') == []
        assert "ada" not in [account.name for account in load_accounts(database, YAN)]


def test_an_erased_service_account_stays_and_is_named(rollout, url, backup, tmp_path):
    """No program erases one, but an export's author may say so."""
    _, access = export(url, tmp_path, "equal")
    rows = list(verify_lines(access.read_text("utf-8").splitlines()))
    ids = {}
    with closing(Database(url)) as database, database.begin_read() as transaction:
        ids = Accounts(transaction).find_ids(["box", "rosalind"])
    for name in ("box", "rosalind"):
        event = UserErased(at=LATER, by="ada", user=ids[name])
        last = rows[-1]
        rows.append(
            build_row(last.rollout, last.revision + 1, event, last.hash, salts=lambda *_: b"salt")
        )
    access.write_text("".join(f"{row.format()}\n" for row in rows), "utf-8")
    lose(url)
    done = rollout("db", "restore", str(backup), *LOST, "--ledger", str(access))
    assert done.exit_code == 0, done.output
    assert "0 cases and 1 name erased again" in done.stdout
    assert "box was erased, but stays: box is a service account; disable it" in done.stdout


WRONG_EXPORTS = [
    ("older", "the backup knows more"),
    ("changed", "its hash is not that of its content"),
    ("another", "it is another ledger, or one of the two was rewritten"),
    ("unknown", "is the ledger of wolves, which the backup lacks (its rollouts: ramps)"),
    ("empty", "is empty; export the newest ledger"),
    ("binary", "can't decode byte"),
    ("missing", "no such file"),
    ("shape", "its `keys` has a wrong type"),
    ("field", "it lacks `name_hash`"),
    ("name", "its `rollout` has a wrong type"),
]


@on_sqlite
def test_an_export_that_does_not_continue_the_backup_replaces_nothing(
    rollout, url, backup, tmp_path
):
    erase(url)
    ramps, _ = export(url, tmp_path, "newest")
    newest, before = ramps.read_bytes(), find_words(url)
    for content, because in WRONG_EXPORTS:
        ramps.write_bytes(newest)
        write_wrong_export(ramps, content)
        refused = rollout("db", "restore", str(backup), *LOST, "--ledger", str(ramps))
        assert refused.exit_code == 2, (content, refused.output)
        assert because in refused.stderr, content
        assert find_words(url) == before, content
        assert not list(tmp_path.glob("*.restoring*")), content


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
        case "shape" | "field":  # well chained, by whoever wrote it
            rows = list(verify_lines(lines))
            kind, name = {"shape": ("CasesErased", "keys"), "field": ("NameErased", "name_hash")}[
                content
            ]
            erased = next(row for row in rows if row.kind == kind)
            body = {**erased.body, name: "kestrel"}
            if content == "field":
                del body[name]
            rows = [*rows[: erased.revision - 1], replace(erased, body=body)]
            file.write_text("".join(f"{row.format()}\n" for row in rows), "utf-8")
        case "name":
            (row, *_) = verify_lines(lines)
            file.write_text(replace(row, rollout=["ramps"]).format(), "utf-8")
        case "empty":
            file.write_text("", "utf-8")
        case "binary":
            file.write_bytes(b"\xff\xfe")
        case "missing":
            file.unlink()
