"""What a command asks: of a service over HTTP, or of the local database by the same services."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python

from rollout.cli.errors import refusals
from rollout.cli.remote import KEY, SERVER, ask_server
from rollout.core.errors import Refusal
from rollout.core.scope.permissions import VIEWER, Caller, Right
from rollout.services.access.authentication import Door
from rollout.services.access.users import local_caller
from rollout.services.engine.service import Service, service_on
from rollout.services.support.clock import SystemClock
from rollout.store.database.errors import StoreError
from rollout.store.database.migrations import found_in, require_current
from rollout.store.database.session import Database

URL = "ROLLOUT_DATABASE_URL"
DEFAULT = "sqlite:///rollout.db"
WHOEVER = Caller("whoever can read the database", rights=(Right(VIEWER),))

Name = Annotated[str, typer.Argument(help="name of the rollout", metavar="ROLLOUT")]
By = Annotated[
    str, typer.Option(help="acting user, local database only (a service takes it from the API key)")
]
Group = Annotated[
    list[str] | None,
    typer.Option(help="act for this group only (repeatable; default: all groups of the user)"),
]
At = Annotated[
    str | None, typer.Option(help="act as of this past time, as 2027-06-01T12:00Z (default: now)")
]
Reason = Annotated[str, typer.Option(help="reason, stored in the ledger (optional)")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON and nothing else")]


@dataclass(frozen=True, slots=True)
class Here:
    """What is asked on the local database: by whom, and when."""

    service: Service
    caller: Caller
    at: datetime

    @property
    def database(self) -> Database:
        """Return the database."""
        return self.service.database


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that is asked, in both ways. `here` gives what the answer over HTTP holds.

    Attributes:
        method, path: of HTTP.
        here: asks the service function that the route asks.
        body: sent as JSON.
        text: sent as it stands.
        params: of the query.
    """

    method: str
    path: str
    here: Callable[[Here], Any]
    body: Any = None
    text: str | None = None
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, where, and when.

    Attributes:
        server: the URL of a service; without one the local database is asked.
        by, groups: who asks on the local database, "" for somebody who only reads.
        at: as `--at` gives it.
    """

    server: str | None = None
    by: str = ""
    groups: tuple[str, ...] = ()
    at: str | None = None

    def answer(self, *questions: Question) -> list[Any]:
        """Return the answers as plain values; a refusal is printed, and the command leaves."""
        with refusals(), sentences():
            if self.server:
                self._refuse_local()
                return [_over_http(self.server, request) for request in questions]
            at = instant_of(self.at)
            with database_of() as database:
                context = Here(service_of(database), self._caller(database), at)
                return [to_jsonable_python(request.here(context)) for request in questions]

    def _refuse_local(self) -> None:
        local_options = {"--by": self.by, "--group": self.groups, "--at": self.at}
        used_options = [option for option, value in local_options.items() if value]
        if used_options:
            raise Refusal(
                f"{', '.join(used_options)} works on the local database only: a service takes the"
                f" user from {KEY} and the time from its clock; leave it out"
            )

    def _caller(self, database: Database) -> Caller:
        return local_caller(database, self.by, self.groups) if self.by else WHOEVER


def person(
    server: str | None, by: str, groups: list[str] | None = None, at: str | None = None
) -> Asker:
    """Return somebody who changes something: on the local database they say who they are."""
    with refusals():
        if not (server or by):
            raise ValueError(
                f"no acting user; add --by NAME, or name a service by --server or {SERVER}"
            )
    return Asker(server, by, tuple(groups or ()), at)


def _over_http(server: str, question: Question) -> Any:
    return ask_server(
        server,
        question.method,
        question.path,
        body=question.body,
        text=question.text,
        params=question.params or None,
    )


@contextmanager
def opened() -> Iterator[Database]:
    """Open the local database; what is refused is printed, and the command leaves."""
    with refusals(), sentences(), database_of() as database:
        yield database


@contextmanager
def unchecked() -> Iterator[Database]:
    """Open the local database whatever tables it has, for whoever checks them itself."""
    with refusals(), sentences():
        database = Database(os.environ.get(URL, DEFAULT))
        try:
            found_in(database)  # it can be opened
            yield database
        finally:
            database.close()


@contextmanager
def database_of() -> Iterator[Database]:
    """Open the database that ROLLOUT_DATABASE_URL names, if its tables are this program's."""
    database = Database(os.environ.get(URL, DEFAULT))
    try:
        require_current(database)
        yield database
    finally:
        database.close()


def service_of(database: Database) -> Service:
    """Return what reads the local database as a replica of the service would."""
    clock = SystemClock()
    return service_on(database, Door(database, clock), clock)


@contextmanager
def sentences() -> Iterator[None]:
    """Give what the store refuses to whoever prints refusals."""
    try:
        yield
    except StoreError as error:
        raise Refusal(str(error)) from error


def instant_of(text: str | None) -> datetime:
    """Read `--at`; nothing means now.

    Raises:
        ValueError: it is no time, has no offset, or lies ahead: what happens then is not known.
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
