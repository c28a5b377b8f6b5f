"""Full disk, read-only disk, corrupt pages: a stop under each is obeyed, also after a restart.

The faults are real: a small tmpfs that is full or mounted read-only, and overwritten pages of the
ledger. Each case proves first that its fault is there.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

import rollout
from rollout.data.database.migrations import upgrade
from rollout.data.database.session import Database
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.process.health_checks import (
    NotCleanError,
    clear_checked_damage,
    run_health_checks,
)
from rollout.live.clock import ManualClock
from rollout.live.stop_latches import LatchFolder
from tests.api.assignments.test_autonomy import Replica, events, stored
from tests.api.conftest import Doorkeeper
from tests.factories import NOON
from tests.features import bear_field as field

pytestmark = pytest.mark.faults
RESERVE = 64 * 1024
ADMIN = Caller("ada", role_assignments=(AssignedRole("admin"),))
NAMESPACE = ["unshare", "--mount", "--user", "--map-root-user"]


def start(url, folder=None):
    """Return a replica that has just started."""
    made = Replica(Database(url), Doorkeeper(), ManualClock(NOON), LatchFolder(folder))
    made.service.autonomy.require_writes(RESERVE)
    return made


def start_answering(url, folder):
    made = start(url, folder)
    made.beat()
    assert (made.decider(), made.decider("lake")) == ("model", "model")
    return made


def is_all_human(replica):
    return (replica.decider(), replica.decider("lake")) == ("human", "human")


def stop_under_fault(replica, url, folder):
    """Stop; nothing comes back in this process nor in the next one while the fault lasts."""
    answer = replica.stop()
    assert answer.status_code == 503, answer.text
    for _ in range(2):
        assert is_all_human(replica)
        replica.beat()
        replica.pass_time()
    assert replica.readiness().status_code == 503
    again = start(url, folder)
    assert is_all_human(again)
    again.beat()
    assert is_all_human(again)
    return again


def check_healed(replica, url, folder):
    """The stop reaches the ledger and other replicas, and only then the rest comes back."""
    assert is_all_human(replica)
    replica.beat()
    replica.pass_time()
    replica.beat()
    assert (replica.decider(), replica.decider("lake")) == ("human", "model")
    assert len(events(replica.service.database, "Stopped")) == 1
    assert list(folder.iterdir()) == []
    other = start(url)
    other.beat()
    assert (other.decider(), other.decider("lake")) == ("human", "model")


def fill_volume(volume, database):
    """Fill a volume and the free pages of its database; prove that it is full."""
    space = b"x" * (shutil.disk_usage(volume).free + 4096)
    with pytest.raises(OSError, match="No space"):
        (volume / "filler").write_bytes(space)
    with pytest.raises(Exception, match=r"full|I/O"):
        fill_pages(database)


def fill_pages(database):
    statement = text("insert into replica_heartbeats values (:owner, 0, 'p')")
    rows = [{"owner": f"{number}" + "x" * 2_000} for number in range(10_000)]
    with database.begin_write() as transaction:
        transaction.execute(statement, rows)


def mount(volume, *options):
    words = ["mount", *options, str(volume)]
    subprocess.run(words, check=True)


def run_full(volume, kept):
    url = f"sqlite:///{volume / 'rollout.db'}"
    replica = start_answering(url, kept)
    fill_volume(volume, replica.service.database)
    again = stop_under_fault(replica, url, kept)
    replica.service.database.close()  # the process that ended
    (volume / "filler").unlink()
    check_healed(again, url, kept)


def run_read_only(volume, kept):
    url = f"sqlite:///{volume / 'rollout.db'}"
    replica = start_answering(url, kept)
    replica.service.database.close()  # no volume with open files becomes read-only
    mount(volume, "-o", "remount,ro")
    with pytest.raises(OSError, match="Read-only"):
        (volume / "x").write_bytes(b"x")
    again = stop_under_fault(replica, url, kept)
    for one in (replica, again):
        one.service.database.close()
    mount(volume, "-o", "remount,rw")
    check_healed(again, url, kept)


def run_in_namespace(case, folder):
    """Mount a small tmpfs that only this process sees, and run a case on it."""
    volume = folder / "volume"
    volume.mkdir()
    mount(volume, "-t", "tmpfs", "-o", "size=6m", "tmpfs")
    shutil.copy(folder / "rollout.db", volume)
    {"full": run_full, "read-only": run_read_only}[case](volume, folder / "kept")


@pytest.fixture
def filled(tmp_path):
    url = f"sqlite:///{tmp_path / 'rollout.db'}"
    upgrade(url)
    with closing(Database(url)) as database:
        field.autonomous_by_proposals(database)
    (tmp_path / "kept").mkdir()
    return url


@pytest.mark.parametrize("case", ["full", "read-only"])
def test_a_stop_on_a_failing_disk_is_obeyed_until_and_after_a_restart(case, filled, tmp_path):
    probe = [*NAMESPACE, "true"] if shutil.which("unshare") else ["false"]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here (unshare --mount --user is refused)")
    script = (
        "from pathlib import Path; from tests.faults.test_real_disks import run_in_namespace;"
        f" run_in_namespace({case!r}, Path({str(tmp_path)!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(rollout.__file__).parents[1])}
    words = [*NAMESPACE, sys.executable, "-c", script]
    done = subprocess.run(words, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def corrupt_ledger(file):
    """Overwrite the first page of the ledger's table, prove that reading fails, return the page."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
        (size,) = connection.execute("pragma page_size").fetchone()
        query = "select rootpage from sqlite_master where name = 'ledger'"
        (page,) = connection.execute(query).fetchone()
    with file.open("r+b") as content:
        content.seek(place := (page - 1) * size)
        original = content.read(size)
        content.seek(place)
        content.write(b"\xff" * size)
    with (
        closing(sqlite3.connect(file)) as connection,
        pytest.raises(sqlite3.DatabaseError, match="malformed"),
    ):
        connection.execute("select count(body) from ledger").fetchall()
    return place, original


def repair_ledger(file, place, original):
    """Put an overwritten page back."""
    with file.open("r+b") as content:
        content.seek(place)
        content.write(original)


def clear_damage(url, at):
    with closing(Database(url)) as database:
        return clear_checked_damage(database, ADMIN, "disk replaced", at=at)


def test_a_stop_on_corrupt_pages_is_obeyed_until_an_admin_clears_the_damage(filled, tmp_path):
    file, kept = tmp_path / "rollout.db", tmp_path / "kept"
    replica = start_answering(filled, kept)
    replica.service.database.close()  # its connections hold pages in memory
    page = corrupt_ledger(file)
    assert replica.decider() == "model"  # nobody has met the pages yet
    answer = replica.stop()
    assert answer.status_code == 503, answer.text
    assert is_all_human(replica)
    replica.beat()
    assert [damage.rollout for damage in stored(replica.service.database).damages] == ["bears"]
    replica.pass_time()
    assert is_all_human(replica)
    other = start(filled)  # without the files: it reads the table
    other.beat()
    assert is_all_human(other)
    faults = [fault for check in run_health_checks(Database(filled)) for fault in check.faults]
    assert any("can't be read" in fault for fault in faults)
    with pytest.raises(NotCleanError, match="faults remain"):
        clear_damage(filled, replica.clock.at)
    for one in (replica, other):
        one.service.database.close()
    repair_ledger(file, *page)
    for one in (replica, other, start(filled)):
        one.beat()
        assert is_all_human(one), "repaired pages alone give nothing back"
    assert clear_damage(filled, replica.clock.at) == ("bears",)
    check_healed(replica, filled, kept)
