"""Copies of databases in use: files of SQLite databases, dumps of PostgreSQL databases.

A database of SQLite in use has a second file, `….db-wal`, with the newest commits. A copy of the
first file alone lacks them, or is damaged. SQLite's online back-up reads both, page by page, in one
state.

A dump by `pg_dump` is loaded into a new database beside the old one, which takes its place by a
rename: until then the old one is whole, and PostgreSQL refuses to rename a database that is in use.
"""

import os
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from rollout.data.database.append_failures import (
    BackupRoleError,
    DatabaseInUseError,
    MissingToolError,
    StoreError,
)

COPY_SUFFIX = ".new"
SIDE_FILES = ("-wal", "-shm")
PRIVATE_MODE = 0o600  # the file holds the secrets that sign permits


def is_sqlite_url(url: str) -> bool:
    """Return whether a URL names an SQLite database."""
    return make_url(url).get_backend_name() == "sqlite"


def find_database_file(url: str) -> Path:
    """Return the file of an SQLite database's URL."""
    return Path(str(make_url(url).database))


def copy_database(source: Path, target: Path) -> None:
    """Write a copy of a database, in use or not, as one file, and flush it to the disk.

    Raises:
        StoreError: the source can't be read, is damaged, or the target can't be written.
    """
    new_file = target.with_name(target.name + COPY_SUFFIX)
    try:
        remove_database(new_file)
        new_file.touch(PRIVATE_MODE)
        _copy_pages(source, new_file)
        _flush(new_file)
        new_file.replace(target)
        _flush(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"{source} could not be copied to {target}: {error}; check both files and the disk"
        ) from error
    finally:
        remove_database(new_file)


def _copy_pages(source: Path, target: Path) -> None:
    uri = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as read, closing(sqlite3.connect(target)) as copy:
        read.backup(copy)
        copy.execute("pragma journal_mode=delete")  # one file, without a WAL beside it
        problems = [row[0] for row in copy.execute("pragma integrity_check(5)")]
    if problems != ["ok"]:
        raise sqlite3.DatabaseError(f"{source} is damaged: {'; '.join(problems)}")


def merge_wal(path: Path) -> None:
    """Move the commits of the WAL into the database's file, and remove the WAL.

    A damaged file stays as it is; whoever reads it next finds the damage.

    Raises:
        DatabaseInUseError: another process has it open.
        StoreError: the file can't be opened.
    """
    try:
        with closing(sqlite3.connect(path, timeout=0)) as connection:
            connection.execute("pragma journal_mode=delete")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise StoreError(f"{path} can't be opened: {error}") from error
        raise DatabaseInUseError(
            f"{path} is in use; stop every replica and command that has it open, then repeat"
        ) from error
    except sqlite3.DatabaseError:
        return


def replace_file(target: Path, new_file: Path) -> None:
    """Put a copy in the place of a database that nobody has open."""
    if target.exists():
        new_file.chmod(target.stat().st_mode & 0o777)
    for suffix in SIDE_FILES:  # of a damaged file; they would be read with the new one
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    new_file.replace(target)
    _flush(target.parent)


def remove_database(path: Path) -> None:
    """Remove a database's files, if they exist."""
    for suffix in ("", *SIDE_FILES):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


NEW_SUFFIX: Final = "_restoring"
OLD_SUFFIX: Final = "_replaced"
MAINTENANCE_DATABASE: Final = "postgres"
COUNT_SESSIONS: Final = (  # an autovacuum worker ends when its database is renamed
    "select count(*) from pg_stat_activity where datname = %s and backend_type = 'client backend'"
)
FIND_DATABASE: Final = "select 1 from pg_database where datname = %s"
MAY_READ_ALL: Final = (
    "select current_user, pg_has_role(current_user, 'pg_read_all_data', 'usage') or exists (select"
    " from pg_class where relname = 'ledger' and pg_has_role(current_user, relowner, 'usage'))"
)
LEAVE_SECONDS: Final = 2.0
"""How long a session that was closed may still be listed."""
POLL_SECONDS: Final = 0.05


def dump_database(url: str, target: Path) -> None:
    """Write a dump of a database, in use or not, with `pg_dump`.

    Raises:
        BackupRoleError: the role may not read all of it.
        MissingToolError: there is no `pg_dump`; the message is the command to run.
        StoreError: it failed.
    """
    _check_reader(url)
    new_file = target.with_name(target.name + ".new")
    try:
        new_file.unlink(missing_ok=True)
        new_file.touch(0o600)
        _run_tool(url, "pg_dump", "--format=custom", f"--file={new_file}")
        new_file.replace(target)
    finally:
        new_file.unlink(missing_ok=True)


def _check_reader(url: str) -> None:
    """Raise an error unless the role may read all that `pg_dump` reads."""
    with _connect_server(url, str(make_url(url).database)) as connection:
        role, may_read = connection.exec_driver_sql(MAY_READ_ALL).one()
    if not may_read:
        raise BackupRoleError(
            f"{role} may not read all of the database, as a dump has to: back up as the owner of"
            " the tables, or as a role that got `rollout db grant ROLE --backup`"
        )


def load_dump(url: str, source: Path) -> str:
    """Load a dump into a new database beside the one of `url`; return its URL.

    Raises:
        MissingToolError: there is no `pg_restore`.
        StoreError: the dump can't be loaded, or the role can't create databases.
    """
    new_url = make_url(url).set(database=f"{make_url(url).database}{NEW_SUFFIX}")
    drop_database(_format_url(new_url))
    with _connect_server(url) as connection:
        quote = connection.dialect.identifier_preparer.quote
        connection.exec_driver_sql(
            f"create database {quote(str(new_url.database))} template template0"
        )
    options = ("--exit-on-error", "--no-owner", "--no-privileges")
    try:
        _run_tool(_format_url(new_url), "pg_restore", *options, source=source)
    except StoreError:
        drop_database(_format_url(new_url))
        raise
    return _format_url(new_url)


def check_unused(url: str) -> None:
    """Raise an error if a session has the database open.

    Raises:
        DatabaseInUseError: replicas or other programs are connected.
    """
    name = str(make_url(url).database)
    with _connect_server(url) as connection:
        last_look = monotonic() + LEAVE_SECONDS
        while (
            sessions := int(connection.exec_driver_sql(COUNT_SESSIONS, (name,)).scalar_one())
        ) and monotonic() < last_look:
            sleep(POLL_SECONDS)
    if sessions:
        raise DatabaseInUseError(
            f"{name} is in use by {sessions} sessions; stop every replica and command that has it "
            "open, then repeat"
        )


def has_database(url: str) -> bool:
    """Return whether the server has a URL's database."""
    with _connect_server(url) as connection:
        return _find_name(connection, str(make_url(url).database))


def _find_name(connection: Connection, name: str) -> bool:
    return connection.exec_driver_sql(FIND_DATABASE, (name,)).first() is not None


def replace_database(url: str, new_url: str) -> None:
    """Rename a new database to the name of an old one, if there is one, and drop the old one.

    Both renames are one transaction: whenever this ends, a database has the name.
    """
    old_name, new_name = str(make_url(url).database), str(make_url(new_url).database)
    with _connect_server(url) as connection:
        quote = connection.dialect.identifier_preparer.quote
        replaced_name = f"{old_name}{OLD_SUFFIX}"
        rename = f"alter database {quote(new_name)} rename to {quote(old_name)}"
        if not _find_name(connection, old_name):
            connection.exec_driver_sql(rename)
            return
        connection.exec_driver_sql(f"drop database if exists {quote(replaced_name)}")
        put_away = f"alter database {quote(old_name)} rename to {quote(replaced_name)}"
        connection.exec_driver_sql("begin")
        connection.exec_driver_sql(put_away)
        connection.exec_driver_sql(rename)
        connection.exec_driver_sql("commit")
        connection.exec_driver_sql(f"drop database {quote(replaced_name)}")


def drop_database(url: str) -> None:
    """Drop a database, if it exists."""
    with _connect_server(url) as connection:
        name = connection.dialect.identifier_preparer.quote(str(make_url(url).database))
        connection.exec_driver_sql(f"drop database if exists {name}")


@contextmanager
def _connect_server(url: str, name: str = MAINTENANCE_DATABASE) -> Iterator[Connection]:
    server_url = make_url(url).set(drivername="postgresql+psycopg", database=name)
    engine = create_engine(server_url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        cause = " ".join(str(error.orig).split())
        raise StoreError(f"PostgreSQL refused: {cause}") from error
    finally:
        engine.dispose()


def _format_url(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _run_tool(url: str, tool: str, *options: str, source: Path | None = None) -> None:
    """Run a tool of PostgreSQL; the password is not among its arguments."""
    parsed = make_url(url)
    # `set` ignores None, and a masked password would take the place of PGPASSWORD and passfile
    address = parsed.set(drivername="postgresql")._replace(password=None).render_as_string()
    arguments = [tool, *options, f"--dbname={address}", *([] if source is None else [str(source)])]
    program = shutil.which(tool)
    if program is None:
        raise MissingToolError(
            f"{tool} is not installed here; run this where it is: {shlex.join(arguments)}"
        )
    secrets = {} if parsed.password is None else {"PGPASSWORD": str(parsed.password)}
    result = subprocess.run(  # noqa: S603 - no shell; the arguments are ours
        [program, *arguments[1:]],
        env=os.environ | secrets,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise StoreError(f"{tool} failed: {' '.join(result.stderr.split()) or 'without a message'}")
