"""Which programs work on a database's tables: it says so itself, as none knows those after it.

A program is named by the revision of the tables that it was written for. Each migration stores its
revision with the oldest program that works on its tables. While an older one may, the newest writes
nothing that the older one can't read; the upgrade is finished once the newest is the oldest one.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import Connection, delete, insert, inspect, select, update

from rollout.core.errors import RefusalError
from rollout.store.database.errors import SchemaMismatchError
from rollout.store.database.replica_heartbeats import find_predecessors
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import schema_revisions

PREDECESSORS_GONE_AFTER: Final = timedelta(hours=1)
"""How long no replica of another program has written when an upgrade is finished by itself."""


class UnfinishedUpgradeError(RefusalError):
    """What an older program that may still run could not read."""

    code = "upgrade-unfinished"


class SchemaRevision(NamedTuple):
    """A revision of the tables, and the revision of the oldest program that works on them."""

    revision: str
    oldest_program: str


def list_revisions(connection: Connection) -> Sequence[SchemaRevision]:
    """Return the revisions of the tables, newest last; none of a database without that table."""
    if not inspect(connection).has_table(schema_revisions.name):
        return ()
    return _read_revisions(connection)


def _read_revisions(connection: Connection) -> Sequence[SchemaRevision]:
    columns = (schema_revisions.c.revision, schema_revisions.c.oldest_program)
    query = select(*columns).order_by(schema_revisions.c.id)
    return [SchemaRevision(*row) for row in connection.execute(query)]


def add_revision(connection: Connection, revision: str, oldest_program: str) -> None:
    """Store that a migration was run."""
    values = {"revision": revision, "oldest_program": oldest_program}
    connection.execute(insert(schema_revisions).values(values))


def remove_revision(connection: Connection, revision: str) -> None:
    """Store that a migration was undone."""
    connection.execute(delete(schema_revisions).where(schema_revisions.c.revision == revision))


def is_admitted(revisions: Sequence[SchemaRevision], program: str) -> bool:
    """Return whether a program works on the tables, by what their newest revision says.

    >>> first, second = SchemaRevision("a", "a"), SchemaRevision("b", "a")
    >>> is_admitted([first, second], "a"), is_admitted([first, second], "c")
    (True, False)
    >>> is_admitted([first, SchemaRevision("b", "b")], "a"), is_admitted([], "a")
    (False, False)
    """
    names = [row.revision for row in revisions]
    if program not in names:
        return False
    return names.index(program) >= names.index(revisions[-1].oldest_program)


def is_finished(revisions: Sequence[SchemaRevision]) -> bool:
    """Return whether no older program may work on the tables."""
    return not revisions or revisions[-1].oldest_program == revisions[-1].revision


def require_finished(transaction: Transaction, content: str) -> None:
    """Refuse what the program before could not read, while it may still run.

    Raises:
        UnfinishedUpgradeError: it may; the text says what to do.
    """
    if not is_finished(_read_revisions(transaction.connection)):
        raise UnfinishedUpgradeError(
            f"{content} can't be read by the program before, whose replicas may still run: replace"
            " them, then run `rollout db upgrade --finish`"
        )


def finish_upgrade(transaction: Transaction) -> None:
    """Let no program work on the tables but the newest one; the way back is a restore."""
    newest = _read_revisions(transaction.connection)[-1]
    transaction.execute(
        update(schema_revisions)
        .where(schema_revisions.c.revision == newest.revision)
        .values(oldest_program=newest.revision)
    )


def settle_upgrade(transaction: Transaction, program: str, at: datetime) -> None:
    """Finish an upgrade whose predecessors are gone; refuse a program that has been replaced.

    Raises:
        SchemaMismatchError: a newer program has finished its upgrade.
    """
    revisions = _read_revisions(transaction.connection)
    if not is_admitted(revisions, program):
        raise SchemaMismatchError(describe_newer(revisions[-1].revision))
    is_newest = revisions[-1].revision == program
    since = at - PREDECESSORS_GONE_AFTER
    if (
        is_newest
        and not is_finished(revisions)
        and not find_predecessors(transaction, program, since)
    ):
        finish_upgrade(transaction)


def describe_newer(revision: str) -> str:
    """Return what to do where a newer program has finished its upgrade."""
    return (
        f"the tables are at {revision}, whose upgrade is finished: replace this program by the"
        " newer one"
    )
