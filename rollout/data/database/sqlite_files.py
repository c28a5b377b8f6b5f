"""Files of SQLite databases: copy one while it is in use, put a copy in its place.

A database in use has a second file, `….db-wal`, with the newest commits. A copy of the first file
alone lacks them, or is damaged. SQLite's online back-up reads both, page by page, in one state.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import make_url

from rollout.data.database.append_failures import DatabaseInUseError, StoreError

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


def replace_database(target: Path, new_file: Path) -> None:
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
