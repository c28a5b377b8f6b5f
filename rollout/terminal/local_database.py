"""The local database of commands: opened from ROLLOUT_DATABASE_URL, checked, closed."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from rollout.data.database.append_failures import StoreError
from rollout.data.database.migrations import check_schema_current, find_schema_revision
from rollout.data.database.session import Database
from rollout.kernel.errors import RefusalError
from rollout.terminal.remote import print_refusals

DATABASE_VARIABLE = "ROLLOUT_DATABASE_URL"


DEFAULT_DATABASE_URL = "sqlite:///rollout.db"


@contextmanager
def open_database() -> Iterator[Database]:
    """Open the local database; print a refusal and exit."""
    with print_refusals(), convert_store_errors(), connect_database() as database:
        yield database


@contextmanager
def open_unchecked_database() -> Iterator[Database]:
    """Open the local database, which must exist, without a check of its tables."""
    # reading the revision raises if the database can't be opened
    with print_refusals(), convert_store_errors(), _connect(find_schema_revision) as database:
        yield database


def _require_sqlite_file(url: str) -> None:
    """Raise an error if an SQLite file is missing: opening would create an empty one."""
    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and path.parent.is_dir() and not path.exists():
        raise RefusalError(
            f"{path}: no such database; set {DATABASE_VARIABLE}, or run `rollout db upgrade` to"
            " create it"
        )


def connect_database() -> AbstractContextManager[Database]:
    """Open the database in ROLLOUT_DATABASE_URL, which must exist; its tables must be current."""
    return _connect(check_schema_current)


@contextmanager
def _connect(check: Callable[[Database], object]) -> Iterator[Database]:
    """Open the database in ROLLOUT_DATABASE_URL, which must exist and pass a check."""
    url = os.environ.get(DATABASE_VARIABLE, DEFAULT_DATABASE_URL)
    _require_sqlite_file(url)
    with closing(Database(url)) as database:
        check(database)
        yield database


@contextmanager
def convert_store_errors() -> Iterator[None]:
    """Convert errors of the store to refusals, which commands print."""
    try:
        yield
    except StoreError as error:
        raise RefusalError(str(error)) from error
