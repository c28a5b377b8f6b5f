"""Run commands on a service over HTTP, or on the local database."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python

from rollout.cli.errors import print_refusals
from rollout.cli.remote import KEY_VARIABLE, SERVER_VARIABLE, request_json
from rollout.core.errors import RefusalError
from rollout.core.scope.permissions import VIEWER, AssignedRole, Caller
from rollout.services.access.authentication import Authenticator
from rollout.services.access.users import load_local_caller
from rollout.services.engine.latch_files import LatchFolder
from rollout.services.engine.service import Service, build_service
from rollout.services.support.clock import SystemClock
from rollout.settings import read_settings
from rollout.store.database.errors import StoreError
from rollout.store.database.migrations import check_schema_current, find_schema_revision
from rollout.store.database.session import Database

DATABASE_VARIABLE = "ROLLOUT_DATABASE_URL"
DEFAULT_DATABASE_URL = "sqlite:///rollout.db"
LATCH_VARIABLE = "ROLLOUT_LATCH_FOLDER"
DEFAULT_LATCH_FOLDER = "rollout-stops"
FACTOR_VARIABLE = "ROLLOUT_REQUIRE_SECOND_FACTOR"
LOCAL_READER = Caller("local reader", role_assignments=(AssignedRole(VIEWER),))

RolloutName = Annotated[str, typer.Argument(help="name of the rollout", metavar="ROLLOUT")]
ActorName = Annotated[
    str, typer.Option(help="acting user, local database only (a service takes it from the API key)")
]
GroupNames = Annotated[
    list[str] | None,
    typer.Option(help="act for this group only (repeatable; default: all groups of the user)"),
]
PastInstant = Annotated[
    str | None, typer.Option(help="act as of this past time, as 2027-06-01T12:00Z (default: now)")
]
ReasonText = Annotated[str, typer.Option(help="reason, stored in the ledger (optional)")]


@dataclass(frozen=True, slots=True)
class LocalContext:
    """Service, caller and time of a command on the local database."""

    service: Service
    caller: Caller
    at: datetime

    @property
    def database(self) -> Database:
        """Return the database."""
        return self.service.database


@dataclass(frozen=True, slots=True)
class CommandRequest:
    """A request of a command, for a service or for the local database.

    Attributes:
        run_locally: calls the same service function as the route, with the same result.
        body: sent as JSON.
        text: sent unchanged.
        params: query parameters.
    """

    method: str
    path: str
    run_locally: Callable[[LocalContext], Any]
    body: Any = None
    text: str | None = None
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RequestRunner:
    """Sends requests to a service, or runs them on the local database.

    Attributes:
        server: URL of a service, or None for the local database.
        by: acting user on the local database; "" for reading only.
        groups: groups that the user acts for.
        at: text of the option `--at`.
    """

    server: str | None = None
    by: str = ""
    groups: tuple[str, ...] = ()
    at: str | None = None

    def run(self, *requests: CommandRequest) -> list[Any]:
        """Return the answers as plain values; print a refusal and exit."""
        with print_refusals(), convert_store_errors():
            if self.server:
                self._check_no_local_options()
                return [_send_request(self.server, request) for request in requests]
            at = parse_instant(self.at)
            with connect_database() as database:
                context = LocalContext(
                    build_local_service(database), self._load_caller(database), at
                )
                return [to_jsonable_python(request.run_locally(context)) for request in requests]

    def _check_no_local_options(self) -> None:
        local_options = {"--by": self.by, "--group": self.groups, "--at": self.at}
        used_options = [option for option, value in local_options.items() if value]
        if used_options:
            raise RefusalError(
                f"{', '.join(used_options)} works on the local database only: a service takes the"
                f" user from {KEY_VARIABLE} and the time from its clock; leave it out"
            )

    def _load_caller(self, database: Database) -> Caller:
        return load_local_caller(database, self.by, self.groups) if self.by else LOCAL_READER


def build_runner(
    server: str | None, by: str, groups: list[str] | None = None, at: str | None = None
) -> RequestRunner:
    """Return a runner for changes; the local database requires an acting user."""
    with print_refusals():
        if not (server or by):
            raise ValueError(
                f"no acting user; add --by NAME, or name a service by --server or {SERVER_VARIABLE}"
            )
    return RequestRunner(server, by, tuple(groups or ()), at)


def _send_request(server: str, request: CommandRequest) -> Any:
    return request_json(
        server,
        request.method,
        request.path,
        body=request.body,
        text=request.text,
        params=request.params or None,
    )


@contextmanager
def open_database() -> Iterator[Database]:
    """Open the local database; print a refusal and exit."""
    with print_refusals(), convert_store_errors(), connect_database() as database:
        yield database


@contextmanager
def open_unchecked_database() -> Iterator[Database]:
    """Open the local database, which must exist, without a check of its tables."""
    with print_refusals(), convert_store_errors():
        url = os.environ.get(DATABASE_VARIABLE, DEFAULT_DATABASE_URL)
        _require_sqlite_file(url)
        database = Database(url)
        try:
            find_schema_revision(database)  # raises if the database can't be opened
            yield database
        finally:
            database.close()


def _require_sqlite_file(url: str) -> None:
    """Raise an error if an SQLite file is missing: opening would create an empty one."""
    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and path.parent.is_dir() and not path.exists():
        raise RefusalError(
            f"{path}: no such database; set {DATABASE_VARIABLE}, or run `rollout db upgrade` to"
            " create it"
        )


@contextmanager
def connect_database() -> Iterator[Database]:
    """Open the database in ROLLOUT_DATABASE_URL, which must exist; its tables must be current."""
    url = os.environ.get(DATABASE_VARIABLE, DEFAULT_DATABASE_URL)
    _require_sqlite_file(url)
    database = Database(url)
    try:
        check_schema_current(database)
        yield database
    finally:
        database.close()


def build_local_service(database: Database) -> Service:
    """Return a service on the local database, like a replica.

    A stop that the database can't take is left in the folder that replicas look into.
    """
    clock = SystemClock()
    service = build_service(database, Authenticator(database, clock), clock)
    service.autonomy.latches.folder = LatchFolder(
        Path(os.environ.get(LATCH_VARIABLE, DEFAULT_LATCH_FOLDER))
    )
    return service


def is_second_factor_required() -> bool:
    """Return the setting of second factors in this process's environment.

    Other settings are not read: a faulty one must not keep an admin from removing a user.
    """
    variables = (
        {FACTOR_VARIABLE: os.environ[FACTOR_VARIABLE]} if FACTOR_VARIABLE in os.environ else {}
    )
    return read_settings(variables).require_second_factor


@contextmanager
def convert_store_errors() -> Iterator[None]:
    """Convert errors of the store to refusals, which commands print."""
    try:
        yield
    except StoreError as error:
        raise RefusalError(str(error)) from error


def parse_instant(text: str | None) -> datetime:
    """Return the time of `--at`, by default now.

    Raises:
        ValueError: the text is not a time, has no offset, or is in the future.
    """
    now = datetime.now(UTC)
    if text is None:
        return now
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--at {text} is no time; write it as 2027-06-01T12:00Z") from None
    if at.tzinfo is None:
        raise ValueError(f"--at {text} has no offset; add one, Z for UTC")
    if at > now:
        raise ValueError(f"--at {text} is in the future; name a past time, or leave it out")
    return at
