"""A backup is put in the file's place under a running service: it answers from what is there."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from rollout.data.database.session import Database
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.stops import stops as stopping
from rollout.live.rollout_state import NoSuchRolloutError
from rollout.live.service import build_service
from tests.data.databases import on_sqlite
from tests.factories import NOON
from tests.features import bear_field as field

pytestmark = on_sqlite
WHO = Caller("ana", role_assignments=(AssignedRole("operator"),))
ALL = stopping.StopTarget(is_everything=True)


def path_of(url):
    return Path(url.removeprefix("sqlite:///"))


def put_back(url, backup):
    """Put a copy in the file's place, as `cp backup new && mv new file` does."""
    for end in ("-wal", "-shm"):
        Path(f"{path_of(url)}{end}").unlink(missing_ok=True)
    backup.replace(path_of(url))


@pytest.fixture
def backup(url, database, tmp_path):
    """Return a copy from before the bears were stopped."""
    field.autonomous(database)
    with closing(database.engine.raw_connection()) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    copy = tmp_path / "backup.db"
    shutil.copy(path_of(url), copy)
    return copy


def held(database):
    stops = stopping.load_stops
    service = build_service(database, None, entropy=bytes)
    return len(
        stops(
            service, Caller("eve", role_assignments=(AssignedRole("viewer"),)), "bears", at=NOON
        ).items
    )


def test_a_stop_after_a_file_was_put_back_is_seen_by_who_was_there_before(url, database, backup):
    assert held(database) == 0
    put_back(url, backup)
    other = Database(url)
    stopping.stop_cells(other, WHO, "bears", ALL, at=NOON)
    other.close()
    assert held(database) == 1


def test_what_is_written_after_a_file_was_put_back_is_in_the_file(url, database, backup):
    stopping.stop_cells(database, WHO, "bears", ALL, at=NOON)
    put_back(url, backup)
    assert held(database) == 0
    stopping.stop_cells(database, WHO, "bears", ALL, at=NOON)
    other = Database(url)
    assert held(other) == 1
    other.close()


def test_a_replica_that_knows_the_lost_stop_stops_every_cell(url, database, backup, monkeypatch):
    monkeypatch.setattr(
        "rollout.live.state_cache.measure_clock_skew", lambda *_: type(NOON - NOON)(0)
    )
    service = build_service(database, None, entropy=bytes)
    stopping.stop_cells(database, WHO, "bears", ALL, at=NOON)
    assert len(service.state_cache.reload_rollout("bears").state.scope.stops) == 1
    put_back(url, backup)
    state = service.state_cache.reload_rollout("bears").state
    assert state.scope.era == 2
    assert all(state.scope.is_stopped(cell) for cell in state.policy.cells)


def test_names_of_rollouts_that_are_not_there_leave_nothing_behind(database):
    service = build_service(database, None, entropy=bytes)
    for number in range(20):
        with pytest.raises(NoSuchRolloutError):
            service.state_cache.load_rollout(f"no-{number}")
    assert not service.state_cache._locks
