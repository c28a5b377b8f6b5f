"""`rollout serve`: one replica of the service, until it is told to stop."""

import gc
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer
import uvicorn

from api.app import create
from api.oidc import configured
from api.routers.events import Streams, streams_of
from rollout import faults
from rollout.core.errors import Refusal
from rollout.scheduler.jobs import Waking
from rollout.services.access.authentication import Door
from rollout.services.access.users import first_link
from rollout.services.engine.service import Service, service_on
from rollout.services.support.channels import channels_of, readable_by_others
from rollout.services.support.clock import SystemClock
from rollout.settings import Settings, read_settings
from rollout.store.database.append_only_checks import forgetful_settings, missing_triggers
from rollout.store.database.errors import StoreError, UnsafeDatabase
from rollout.store.database.migrations import require_current
from rollout.store.database.session import Database

GRACE = 5  # seconds for open requests and streams when it is told to stop
KEEP_ALIVE = 75  # seconds: a client that asks rarely must not meet a connection just closed
FORGETFUL = "--accept-lost-records"
FIRST = """\
There are no users yet. To become the first admin, open this link within 24 hours (it works once)
  {address}/console/come-in?token={token}
and choose a name and a password. Or run on this machine
  rollout users first-admin NAME
"""


def serve(host: str, port: int, *, accept_lost_records: bool = False) -> None:
    """Serve until told to stop.

    Raises:
        Refusal: the database or a setting is not right; says what to do.
    """
    try:
        settings = read_settings(os.environ)
        with opened(settings, accept_lost_records=accept_lost_records) as service:
            run(service, settings, host, port)
    except StoreError as error:
        raise Refusal(str(error)) from error


@contextmanager
def opened(settings: Settings, *, accept_lost_records: bool = False) -> Iterator[Service]:
    """Open the database and check that it can be trusted.

    Raises:
        StoreError: it can't; says what to do.
        ValueError: the file of channels is none; says what would be right.
    """
    channels = channels_of(settings.channels_file, settings.public_url)
    if warning := readable_by_others(settings.channels_file):
        typer.echo(warning, err=True)
    database = Database(settings.database_url)
    try:
        require_current(database)
        check_safe(database, accept_lost_records=accept_lost_records)
        clock = SystemClock()
        yield service_on(database, Door(database, clock), clock, channels=channels)
    finally:
        database.close()


def check_safe(database: Database, *, accept_lost_records: bool) -> None:
    """Refuse a database that would lose or change what it acknowledged, and a process with faults.

    Raises:
        UnsafeDatabase: says what is wrong.
    """
    if faults.installed():
        raise UnsafeDatabase(
            "fault injection is installed in this process: it is for tests only, start another one"
        )
    with database.reading() as transaction:
        missing = missing_triggers(transaction)
        unsafe_settings = forgetful_settings(transaction)
    if missing:
        raise UnsafeDatabase(f"triggers are missing: {', '.join(missing)}; run `rollout doctor`")
    if unsafe_settings and not accept_lost_records:
        setting_names = ", ".join(unsafe_settings)
        raise UnsafeDatabase(
            f"{setting_names} is off, so records could be lost; turn it on, or start with"
            f" {FORGETFUL}"
        )


def run(service: Service, settings: Settings, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM."""
    scheduler = Waking(
        service, owner=f"{os.getpid()}-{secrets.token_hex(4)}", every=settings.poll_interval
    )
    app = create(service, configured(settings))
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=KEEP_ALIVE,
        server_header=False,
    )
    say_first_link(service, f"http://{host}:{port}")
    scheduler.start()
    try:
        typer.echo(f"rollout is serving on http://{host}:{port} (Ctrl-C to stop)", err=True)
        gc.freeze()  # what was imported stays: looking through it cost a quarter of ingest
        Server(config, streams_of(app)).run()
    finally:
        scheduler.stop()


class Server(uvicorn.Server):
    """A server whose event streams end when it is told to stop, instead of being waited for."""

    def __init__(self, config: uvicorn.Config, streams: Streams) -> None:
        super().__init__(config)
        self._streams = streams

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Let streams end, then stop as always."""
        self._streams.close()
        super().handle_exit(sig, frame)


def say_first_link(service: Service, address: str) -> None:
    """Print the one-time token by which the first person comes in, if there is nobody yet."""
    token = first_link(service.database, service.clock.now(), service.entropy(32).hex())
    if token is not None:
        typer.echo(FIRST.format(address=address, token=token), err=True)
