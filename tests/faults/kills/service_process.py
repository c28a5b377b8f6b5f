"""What a forked child does: it runs the real service or a real command, and marks its actions."""

import logging
import os
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from time import monotonic

import api.app
import api.serve
from rollout import faults
from rollout.cli import tables
from rollout.cli.main import COMMANDS, app
from rollout.features.backups import cli
from rollout.features.reports import archive
from rollout.worker.jobs import TickWorker
from tests.faults.kills.broken_services import MUTANTS
from tests.faults.migrations import further_in, whole_schema
from tests.migrations.further import go_back

ROOT = Path(__file__).parents[3]
ACTION_HEADER = b"x-kill-action"
"""Names the action of a request that may be killed."""
LATE_MODULES = (
    *{f"api.{name.partition(':')[0]}" for name in (*api.app.ROUTERS, *api.app.OPTIONAL_PARTS)},
    "alembic.command",
    "psycopg",
    "rollout.features.reports.archive",
    "rollout.features.reports.builder",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.lifespan.on",
)


@dataclass(frozen=True)
class ProcessOrder:
    """What a child has to run.

    Attributes:
        marks: the number of its region on the board.
        tick_marks: that of its process of ticks, for a replica.
        environment: settings of the program.
        folder: its working directory.
        port: where to serve; None for a command.
        words: the command.
        mutant: how the service is broken, or "".
    """

    marks: int
    environment: dict[str, str]
    folder: str
    port: int | None = None
    tick_marks: int | None = None
    words: tuple[str, ...] = ()
    mutant: str = ""


def warm_up():
    """Import all that a child needs, without using it."""
    for name in LATE_MODULES:
        import_module(name)
    # a campaign asks for more reports, and again sooner after a kill, than people may
    archive.MAX_REPORTS_PER_HOUR, archive.ALIVE_FOR = 10**6, timedelta()
    for entry in COMMANDS.values():
        import_module(f"rollout.{entry.source.partition(':')[0]}")


def build_runner(board):
    """Return the function that a child runs with its order."""

    def run(order):
        os.chdir(order.folder)
        logging.disable(logging.NOTSET)  # the campaign is silent, its children write their logs
        os.environ.update(order.environment)
        log = os.open(f"log-{order.marks}", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        marks = board.region(order.marks)
        with ExitStack() as stack:
            if order.port is None:
                _run_command(order, marks, stack)
            else:
                _mark_ticks(board.path, order.tick_marks)
                _run_service(order, marks, stack)

    return run


def _run_service(order, marks, stack):
    build = api.serve.create_app

    @wraps(build)
    def build_marked(*arguments, **options):
        made = build(*arguments, **options)
        made.add_middleware(RequestMarks, marks=marks)
        if order.mutant:
            MUTANTS[order.mutant][0](made)
        # after the check of `serve`, which refuses a process with actions
        stack.enter_context(faults.install_action(marks.set_point))
        return made

    api.serve.create_app = build_marked
    api.serve.serve("127.0.0.1", order.port)


def _mark_ticks(path, number):
    """Let the service start its process of ticks with marks of its own."""
    command = (sys.executable, "-m", "tests.faults.kills.tick_marks", path, str(number))
    os.environ["PYTHONPATH"] = str(ROOT)
    api.serve.TickWorker = partial(TickWorker, command=command)


def _run_command(order, marks, stack):
    stack.enter_context(faults.install_action(marks.set_point))
    if order.words[0] in TASKS:
        TASKS[order.words[0]](os.environ["ROLLOUT_DATABASE_URL"])
        return
    if order.words == ("db", "upgrade"):
        stack.enter_context(_next_migrations())
    tables.upgrade = _mark_calls(tables.upgrade, marks, "migrate")
    cli.back_up = _mark_calls(cli.back_up, marks, "backup")
    app(args=list(order.words), prog_name="rollout")


@contextmanager
def _next_migrations():
    with tempfile.TemporaryDirectory() as folder, further_in(folder):
        yield


def _check_next_schema(url):
    """Exit with 1 if tables or triggers are not as the next program has them."""
    with _next_migrations():
        faults_of_schema = list(whole_schema(url))
    sys.exit("\n".join(faults_of_schema) if faults_of_schema else 0)


def _go_back(url):
    with _next_migrations():
        go_back(url)


TASKS = {"check-next-schema": _check_next_schema, "go-back": _go_back}
"""What a child does besides the commands of the program."""


def _mark_calls(function, marks, action):
    @wraps(function)
    def call(*arguments):
        with marks.inside(action):
            return function(*arguments)

    return call


class RequestMarks:
    """Marks requests with the header from their first byte until just before the last one."""

    def __init__(self, app, marks):
        self.app, self.marks = app, marks

    async def __call__(self, scope, receive, send):
        """Handle a request."""
        action = dict(scope.get("headers", ())).get(ACTION_HEADER, b"").decode()
        if not action:
            await self.app(scope, receive, send)
            return
        started_at, ended = monotonic(), []

        def end():
            if not ended:
                ended.append(action)
                self.marks.end(action, monotonic() - started_at)

        async def send_marked(message):
            if message["type"] == "http.response.body" and not message.get("more_body"):
                end()
            await send(message)

        self.marks.begin(action)
        try:
            await self.app(scope, receive, send_marked)
        finally:
            end()
