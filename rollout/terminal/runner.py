"""Commands run on a service over HTTP, or on the local database.

A command on the local database has a service of its own process, like a replica.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from rollout.data.database.session import Database
from rollout.engine.decide.permissions import VIEWER, AssignedRole, Caller
from rollout.features.access.authentication import Authenticator
from rollout.features.access.users import load_local_caller
from rollout.kernel.errors import RefusalError
from rollout.live.clock import SystemClock
from rollout.live.service import Service, build_service
from rollout.live.stop_latches import LatchFolder
from rollout.terminal.local_database import connect_database, convert_store_errors
from rollout.terminal.remote import (
    KEY_VARIABLE,
    SERVER_VARIABLE,
    format_command_result,
    parse_instant,
    print_answer,
    print_refusals,
    request_all_pages,
    request_json,
)

NO_LIMIT = 1_000_000  # a local list needs no pages
LOCAL_READER = Caller("local reader", role_assignments=(AssignedRole(VIEWER),))


@dataclass(frozen=True, slots=True)
class LocalContext:
    """Database, caller and time of a command on the local database."""

    database: Database
    caller: Caller
    at: datetime


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
                caller = (
                    load_local_caller(database, self.by, self.groups) if self.by else LOCAL_READER
                )
                context = LocalContext(database, caller, at)
                return [to_jsonable_python(request.run_locally(context)) for request in requests]

    def send(
        self, method: str, path: str, run_locally: Callable[[LocalContext], Any], body: Any = None
    ) -> Any:
        """Return the answer to one request."""
        (answer,) = self.run(CommandRequest(method, path, run_locally, body))
        return answer

    def _check_no_local_options(self) -> None:
        local_options = {"--by": self.by, "--group": self.groups, "--at": self.at}
        used_options = [option for option, value in local_options.items() if value]
        if used_options:
            raise RefusalError(
                f"{', '.join(used_options)} works on the local database only: a service takes the"
                f" user from {KEY_VARIABLE} and the time from its clock; leave it out"
            )


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


def change_rollout(
    runner: RequestRunner,
    path: str,
    run_locally: Callable[[LocalContext], Any],
    body: Any = None,
    *,
    as_json: bool,
) -> None:
    """Change a rollout by a command, and print the result."""
    result = runner.send("POST", path, run_locally, body)
    print_answer(result, format_command_result(result), as_json=as_json)


def _send_request(server: str, request: CommandRequest) -> Any:
    return request_json(
        server,
        request.method,
        request.path,
        body=request.body,
        text=request.text,
        params=request.params or None,
    )


def list_items(
    server: str | None,
    path: str,
    params: dict[str, Any],
    at: str | None,
    run_locally: Callable[[LocalContext], Any],
) -> list[Any]:
    """Return all items of a list; a service sends them in pages, the database in one."""
    if server:
        with print_refusals():
            return request_all_pages(server, path, params)
    return list(RequestRunner(at=at).send("GET", path, lambda context: run_locally(context).items))


LATCH_VARIABLE = "ROLLOUT_LATCH_FOLDER"


DEFAULT_LATCH_FOLDER = "rollout-stops"


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
