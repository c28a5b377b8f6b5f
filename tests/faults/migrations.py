"""Migrations that break off at a statement: all or nothing was done; once more, and all is.

From nothing to the newest tables, and to these from the first ones that were ever released.
"""

from dataclasses import dataclass

from rollout import faults
from rollout.store.database.append_only_checks import find_missing_triggers
from rollout.store.database.errors import StoreError
from rollout.store.database.migrations import (
    find_drift,
    find_head_revision,
    load_current_revision,
    upgrade,
)
from rollout.store.database.session import Database
from tests.faults import kinds
from tests.faults.forks import Died, Fork
from tests.faults.kinds import Arm, Injected

FIRST = "0004"  # the tables that others may have: every later revision is a step from there
ACTS = {"kill": kinds.kill, "raise": kinds.raises}


@dataclass(frozen=True)
class MigrationTrial:
    """The making of all tables, or of those after a revision, breaks off at a statement."""

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
    for difference in find_drift(url):
        yield f"the schema differs: {difference}"
    database = Database(url)
    with database.begin_read() as transaction:
        for name in find_missing_triggers(transaction):
            yield f"the trigger {name} is missing"
    database.close()


def made(copies, since):
    """Return a database of its own with the tables of a revision, None for none."""
    url = copies.empty()
    if since is not None:
        upgrade(url, since)
    return url


def statements(copies, since):
    """Return how many statements make all tables that a database lacks."""
    url = made(copies, since)
    passed = []
    with faults.install_action(passed.append):
        upgrade(url)
    copies.drop(url)
    return passed.count("migration.step")


def migration_trials(copies, *, full):
    """Yield a trial of each statement; in the short form of some of those from nothing on."""
    stride = 1 if full else 23
    for since in (None, FIRST) if full else (None,):
        answer = Fork(lambda _, since=since: statements(copies, since)).answer()
        for kind in ACTS:
            for hit in range(0, answer, stride):
                yield MigrationTrial(hit, kind, since)
