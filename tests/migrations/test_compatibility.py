"""Which programs work on the tables stands in the database; new forms wait until one is left."""

from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta

import pytest
from sqlalchemy import select

from rollout.data.database import migrations
from rollout.data.database.append_failures import SchemaMismatchError, UnreadableRowsError
from rollout.data.database.migrations import (
    PREDECESSORS_GONE_AFTER,
    UnfinishedUpgradeError,
    check_revision_known,
    check_schema_current,
    finish_upgrade,
    is_finished,
    list_revisions,
    load_current_revision,
    record_heartbeat,
    settle_upgrade,
    upgrade,
)
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.data.tables.tables import damages
from rollout.engine.decide.commands import Actor
from rollout.engine.events.rollouts import RecordEvent
from rollout.engine.ledger import forms
from rollout.engine.ledger.ledger import ACCOUNT_FIELDS, ALL_EVENT_TYPES, TEXT_FIELDS
from rollout.features.process.health_checks import run_health_checks
from rollout.live.autonomy import Autonomy
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.state_cache import StateCache
from tests.api.test_shell import POLICY
from tests.factories import HOUR, MINUTE, NOON
from tests.migrations.further import FURTHER, HEAD, TEXT, copy_migrations, go_back

REPLACE = "replace this program by the newer one"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeatherNoted(RecordEvent):
    weather: str


@pytest.fixture
def newer(tmp_path, monkeypatch):
    """Upgrade by the next program; the test goes on as the program before."""

    def run(url, text=TEXT):
        folder = tmp_path / "next"
        copy = copy_migrations(folder, text=text)
        with monkeypatch.context() as patch:
            patch.setattr(migrations, "find_migrations_folder", lambda: copy)
            upgrade(url)
        return copy

    return run


@pytest.fixture
def bears(current):
    with closing(Database(current)) as database:
        apply_policy(database, POLICY, Actor("zoe"), NOON)
        yield database


def finish(database):
    with database.begin_write() as transaction:
        finish_upgrade(transaction)


def read_finished(database):
    with database.begin_read() as transaction:
        return is_finished(list_revisions(transaction.connection))


def test_the_program_before_works_on_tables_that_admit_it(current, newer):
    newer(current)
    with closing(Database(current)) as database:
        check_schema_current(database)
        check_revision_known(database)
        upgrade(current)  # which would else call them an earlier commit's
        assert load_current_revision(current) == FURTHER
        (_, schema, *_) = run_health_checks(database)
        assert schema.faults == ()
        assert "run `rollout db upgrade --finish`" in schema.notes[0]


def test_once_the_upgrade_is_finished_no_older_program_works(current, newer):
    newer(current)
    with closing(Database(current)) as database:
        finish(database)
        for refuse in (check_schema_current, check_revision_known, lambda _: upgrade(current)):
            with pytest.raises(SchemaMismatchError, match=REPLACE):
                refuse(database)


def test_a_revision_that_admits_nobody_refuses_the_program_before_at_once(current, newer):
    newer(current, TEXT.replace('oldest_program = "{head}"', 'oldest_program = "{further}"'))
    with (
        closing(Database(current)) as database,
        pytest.raises(SchemaMismatchError, match=REPLACE),
    ):
        check_schema_current(database)


def test_a_revision_that_does_not_say_whom_it_admits_changes_nothing(current, newer):
    with pytest.raises(AttributeError, match="oldest_program"):
        newer(current, TEXT.replace('oldest_program = "{head}"\n', ""))
    assert load_current_revision(current) == HEAD
    with closing(Database(current)) as database:
        check_schema_current(database)
        assert read_finished(database)


def test_an_undone_revision_is_forgotten(current, newer, monkeypatch):
    copy = newer(current)
    monkeypatch.setattr(migrations, "find_migrations_folder", lambda: copy)
    go_back(current)
    with closing(Database(current)) as database, database.begin_read() as transaction:
        (only,) = list_revisions(transaction.connection)
    assert only == (HEAD, HEAD)


@pytest.mark.parametrize("age", [timedelta(0), PREDECESSORS_GONE_AFTER])
def test_an_upgrade_is_finished_when_no_predecessor_writes_any_more(current, newer, age):
    newer(current)
    with closing(Database(current)) as database:
        with database.begin_write() as transaction:
            record_heartbeat(transaction, "first", HEAD, NOON - age)
            record_heartbeat(transaction, "second", FURTHER, NOON)
            settle_upgrade(transaction, FURTHER, NOON)
        assert not read_finished(database)
        with database.begin_write() as transaction:
            settle_upgrade(transaction, HEAD, NOON + HOUR)  # an older one finishes nothing
        assert not read_finished(database)
        with database.begin_write() as transaction:
            settle_upgrade(transaction, FURTHER, NOON + PREDECESSORS_GONE_AFTER + MINUTE)
        assert read_finished(database)


def test_a_replica_that_was_replaced_gives_up_at_its_next_heartbeat(current, newer):
    with closing(Database(current)) as database:
        autonomy = Autonomy(database, ManualClock(NOON))
        autonomy.require_writes(reserve=0)
        autonomy.write_heartbeat("first")
        assert autonomy.find_doubt("bears") == ""
        newer(current)
        autonomy.write_heartbeat("first")
        assert autonomy.find_doubt("bears") == ""
        finish(database)
        with pytest.raises(SchemaMismatchError, match=REPLACE):
            autonomy.write_heartbeat("first")
        assert "no confirmed write" in autonomy.find_doubt("bears")


@pytest.mark.parametrize("form", ["PolicyApplied", "PolicyApplied.number"])
def test_a_form_that_the_program_before_cannot_read_waits(bears, current, newer, monkeypatch, form):
    monkeypatch.setattr(forms, "NEWER_FORMS", frozenset({form}))
    newer(current)
    with pytest.raises(UnfinishedUpgradeError, match=rf"{form}`.*--finish"):
        apply_policy(bears, POLICY.replace("95%", "96%"), Actor("zoe"), NOON + HOUR)
    finish(bears)
    apply_policy(bears, POLICY.replace("95%", "96%"), Actor("zoe"), NOON + HOUR)


def test_an_entry_without_a_newer_field_does_not_wait(bears, current, newer, monkeypatch):
    monkeypatch.setattr(forms, "NEWER_FORMS", frozenset({"PolicyApplied.former"}))
    newer(current)
    apply_policy(bears, POLICY.replace("95%", "96%"), Actor("zoe"), NOON + HOUR)


@pytest.mark.parametrize("is_newer", [True, False])
def test_what_only_a_newer_program_can_read_is_no_damage(
    bears, current, newer, monkeypatch, is_newer
):
    """On tables of its own a program knows all kinds: another one is damage."""
    if is_newer:
        newer(current)
    cache = StateCache(bears, ManualClock(NOON))
    cache.load_rollout("ramps")
    state = cache.load_rollout("ramps").state
    with monkeypatch.context() as patch, bears.begin_write() as transaction:
        for kinds, value in (
            (ALL_EVENT_TYPES, WeatherNoted),
            (TEXT_FIELDS, {}),
            (ACCOUNT_FIELDS, {}),
        ):
            patch.setitem(kinds, "WeatherNoted", value)
        event = WeatherNoted(at=NOON, by="zoe", weather="rain")
        Ledger(transaction, state.rollout).append([event], after=state.scope.revision)
    fresh_cache = StateCache(bears, ManualClock(NOON))
    expected = SchemaMismatchError if is_newer else UnreadableRowsError
    with pytest.raises(expected, match="newer program" if is_newer else "can't be read"):
        fresh_cache.load_rollout("ramps")
    assert bool(fresh_cache._latches.damages) is not is_newer
    with bears.begin_read() as transaction:
        assert transaction.execute(select(damages)).all() == []
