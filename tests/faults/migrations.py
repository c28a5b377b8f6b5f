"""Migrations that break off at a statement: all or nothing was done; once more, and all is.

From nothing to the program's tables, and from these by a synthetic migration to the next ones.
"""

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass

from rollout import faults
from rollout.data.database import migrations
from rollout.data.database.append_failures import StoreError
from rollout.data.database.migrations import (
    find_head_revision,
    find_missing_triggers,
    load_current_revision,
    upgrade,
)
from rollout.data.database.session import Database
from tests.faults import kinds
from tests.faults.forks import Died, Fork
from tests.faults.kinds import Arm, Injected
from tests.migrations.drift import find_drift
from tests.migrations.further import DRIFT, FURTHER, HEAD, copy_migrations

ACTS = {"kill": kinds.kill, "raise": kinds.raises}


@dataclass(frozen=True)
class MigrationTrial:
    """The making of all tables, or of the next ones from these, breaks off at a statement."""

    hit: int
    kind: str
    since: str | None = None
    path: str = "migrate"
    point: str = "migration.step"
    always: bool = False

    def __str__(self):
        return f"migrate from {self.since} · statement {self.hit} · {self.kind}"

    def run(self, copies):
        """Run it on a database of its own; return what is wrong."""
        url = made(copies, self.since)
        try:
            with steps_after(self.since):
                return list(self._wrong(url))
        finally:
            copies.drop(url)

    def _wrong(self, url):
        answer = Fork(lambda _: self._broken_off(url)).answer()
        if not isinstance(answer, Died) and answer != "raised":
            yield f"statement {self.hit} was never reached"
        if load_current_revision(url) not in {self.since, find_head_revision()}:
            yield f"it broke off at {load_current_revision(url)}: neither nothing nor all"
        upgrade(url)
        yield from whole_schema(url)

    def _broken_off(self, url):
        try:
            with faults.install_action(Arm(self.hit, ACTS[self.kind])):
                upgrade(url)
        except (Injected, StoreError):
            return "raised"
        return "done"


def whole_schema(url):
    """Yield what of the tables or triggers is not as the program has them."""
    if load_current_revision(url) != find_head_revision():
        yield f"the schema is at {load_current_revision(url)}, not {find_head_revision()}"
    differences = [kind for kind, *_ in find_drift(url)]
    if differences != (DRIFT if find_head_revision() == FURTHER else []):
        yield f"the schema differs: {differences}"
    database = Database(url)
    with database.begin_read() as transaction:
        for name in find_missing_triggers(transaction):
            yield f"the trigger {name} is missing"
    database.close()


@contextmanager
def steps_after(since):
    """Use the next program's migrations in the block if a database has this one's tables."""
    if since is None:
        yield
        return
    with tempfile.TemporaryDirectory() as folder, further_in(folder):
        yield


@contextmanager
def further_in(folder):
    """Write the next program's migrations into a folder and use them in the block."""
    present, copy = migrations.find_migrations_folder, copy_migrations(folder)
    migrations.find_migrations_folder = lambda: copy
    try:
        yield
    finally:
        migrations.find_migrations_folder = present


def made(copies, since):
    """Return a database of its own with this program's tables, or with none."""
    return copies.empty() if since is None else copies.fresh()


def statements(copies, since):
    """Return how many statements make all tables that a database lacks."""
    url = made(copies, since)
    passed = []
    with steps_after(since), faults.install_action(passed.append):
        upgrade(url)
    copies.drop(url)
    return passed.count("migration.step")


def migration_trials(copies, *, full):
    """Yield a trial of each statement; in the short form of some of those from nothing on."""
    stride = 1 if full else 23
    for since in (None, HEAD) if full else (None,):
        answer = Fork(lambda _, since=since: statements(copies, since)).answer()
        for kind in ACTS:
            for hit in range(0, answer, stride):
                yield MigrationTrial(hit, kind, since)
