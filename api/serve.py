"""`rollout serve`: run one replica of the service until it is stopped."""

import gc
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import typer
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.http_protocol import MAX_HEAD_BYTES
from api.ledger.routes import EventStreams, get_streams
from api.limits import build_protocol, read_connection_limits
from api.metrics import build_log_config
from api.oidc import CALLBACK_PATH, IdentityProvider, OpenIdClient, is_secure
from rollout import faults
from rollout.data.database.append_failures import StoreError, UnsafeDatabaseError
from rollout.data.database.migrations import (
    check_schema_current,
    find_missing_triggers,
    find_unsafe_settings,
)
from rollout.data.database.session import Database
from rollout.features.access.authentication import Authenticator
from rollout.features.access.hashing_process import HashingProcess
from rollout.features.access.sign_in import SignIn
from rollout.features.access.users import create_first_link
from rollout.features.ledger.ledger_reader import announce_key, describe_weakness
from rollout.features.uploads.upload_runs import delete_abandoned_uploads
from rollout.kernel.channels import load_channels, warn_if_readable_by_others
from rollout.kernel.errors import RefusalError, format_install
from rollout.live.autonomy import MEBIBYTE
from rollout.live.checkpoint_keys import open_checkpoint_targets
from rollout.live.clock import SystemClock
from rollout.live.service import Service, build_service
from rollout.live.stop_latches import LatchFolder
from rollout.live.work.user_runs import return_freed_memory
from rollout.settings import Settings, read_settings
from rollout.worker.jobs import JobScheduler, TickWorker

SHUTDOWN_SECONDS = 60  # for open requests on shutdown; the largest body of records takes about 30
TRANSACTION_SECONDS = 5  # for transactions of requests that were cut off then
KEEP_ALIVE_SECONDS = 75  # longer than the polling interval of clients
OPENID_PACKAGES = ("authlib", "joserfc", "httpx2")
LOOPBACK_OF_WILDCARD = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - a name for links
ACCEPT_LOSS_OPTION = "--accept-lost-records"
FIRST_ADMIN_TEXT = """\
There are no users yet. To become the first admin, open this link within 24 hours (it works once)
  {address}/console/set-password?token={token}
and choose a name and a password. Or run on this machine
  rollout users first-admin NAME
"""


def serve(host: str, port: int, *, accept_lost_records: bool = False) -> None:
    """Run the service until it is stopped.

    Raises:
        RefusalError: the database or a setting is invalid; the message has the remedy.
    """
    return_freed_memory()  # before there are threads
    try:
        settings = resolve_public_url(read_settings(os.environ), host, port)
        with open_service(settings, accept_lost_records=accept_lost_records) as service:
            run_server(service, settings, host, port)
    except StoreError as error:
        raise RefusalError(str(error)) from error


@contextmanager
def open_service(settings: Settings, *, accept_lost_records: bool = False) -> Iterator[Service]:
    """Open the database and check that it is safe to use.

    Raises:
        StoreError: the database is not safe; the message has the remedy.
        ValueError: the channels file is invalid.
    """
    channels = load_channels(settings.channels_file, settings.public_url)
    if warning := warn_if_readable_by_others(settings.channels_file):
        typer.echo(warning, err=True)
    if settings.checkpoint_channel and settings.checkpoint_channel not in channels.shared_names:
        raise ValueError(
            f"ROLLOUT_CHECKPOINT_CHANNEL={settings.checkpoint_channel} is no channel for reports in"
            " the file of ROLLOUT_CHANNELS_FILE"
        )
    database, hasher = Database(settings.database_url), HashingProcess()
    try:
        check_schema_current(database)
        check_database_safety(database, accept_lost_records=accept_lost_records)
        clock = SystemClock()
        authenticator = Authenticator(
            database, clock, requires_second_factor=settings.require_second_factor
        )
        service = build_service(
            database,
            authenticator,
            clock,
            channels=channels,
            secret_key_file=settings.secret_key_file,
        )
        service.autonomy.latches.open_folder(LatchFolder(Path(settings.latch_folder)))
        delete_abandoned_uploads()
        checkpoints = open_checkpoint_targets(settings, creates_key=True)
        service.autonomy.require_writes(int(settings.disk_reserve * MEBIBYTE))
        sign_in = SignIn(database, clock, secrets.token_bytes, hasher, service.sign_in.codes)
        yield replace(
            service,
            checkpoints=checkpoints,
            sign_in=sign_in,
            requires_second_factor=settings.require_second_factor,
        )
    finally:
        hasher.close()
        database.wait_until_unused(TRANSACTION_SECONDS)
        database.close()


def check_database_safety(database: Database, *, accept_lost_records: bool) -> None:
    """Refuse a database that could lose or change records, and fault injection.

    Raises:
        UnsafeDatabaseError: the message names what is wrong.
    """
    if faults.has_actions():
        raise UnsafeDatabaseError(
            "fault injection is installed in this process: it is for tests only, start another one"
        )
    with database.begin_read() as transaction:
        missing = find_missing_triggers(transaction)
        unsafe_settings = find_unsafe_settings(transaction)
    if missing:
        raise UnsafeDatabaseError(
            f"triggers are missing: {', '.join(missing)}; run `rollout doctor`"
        )
    if unsafe_settings and not accept_lost_records:
        setting_names = ", ".join(unsafe_settings)
        raise UnsafeDatabaseError(
            f"{setting_names} is off, so records could be lost; turn it on, or start with"
            f" {ACCEPT_LOSS_OPTION}"
        )


def resolve_public_url(settings: Settings, host: str, port: int) -> Settings:
    """Return the settings with a URL for links: the configured one, or the bound address.

    Links never follow a request's Host header, which the client chooses.

    >>> resolve_public_url(Settings(), "0.0.0.0", 9000).public_url
    'http://127.0.0.1:9000'
    """
    if settings.public_url:
        return settings
    name = LOOPBACK_OF_WILDCARD.get(host, f"[{host}]" if ":" in host else host)
    return replace(settings, public_url=f"http://{name}:{port}")


def run_server(service: Service, settings: Settings, host: str, port: int) -> None:
    """Run the server until SIGINT or SIGTERM."""
    signal.signal(signal.SIGTERM, _exit_normally)
    app = create_app(service, build_provider(settings), request_rate=settings.request_rate)
    owner = f"{os.getpid()}-{secrets.token_hex(4)}"
    scheduler = JobScheduler(
        service,
        owner,
        interval=settings.poll_interval,
        observe_tick=app.state.process_metrics.observe_tick,
        tick_worker=TickWorker(service.database, owner),
        sending_jobs=[job(service) for job in app.state.sending_jobs],
    )
    config = build_server_config(app, settings, host, port)
    announce_key(service)
    if service.checkpoints.fault:
        typer.echo(describe_weakness(service.checkpoints), err=True)
    print_first_link(service, settings.public_url)
    scheduler.start()
    try:
        typer.echo(f"rollout is serving on http://{host}:{port} (Ctrl-C to stop)", err=True)
        gc.freeze()  # scanning imported objects took a quarter of ingest time
        StreamAwareServer(config, get_streams(app)).run()
    finally:
        scheduler.stop()


def build_server_config(app: FastAPI, settings: Settings, host: str, port: int) -> uvicorn.Config:
    """Return the server's configuration; forwarded addresses count only from trusted proxies."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=build_protocol(read_connection_limits(settings.trusted_proxies)),
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,  # its own is a quarter
        log_config=build_log_config(settings.log_format),
        access_log=False,  # api.metrics writes one, without addresses and paths
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
    )


def _exit_normally(_signal: int, _frame: FrameType | None) -> None:
    """Exit with 0: uvicorn raises the signal again after it has answered all open requests.

    The default action would end the process before the database is closed.
    """
    raise SystemExit(0)


def build_provider(settings: Settings, transport: object = None) -> IdentityProvider | None:
    """Return the provider that the settings name, or None.

    Args:
        settings: `oidc_issuer`, `oidc_client_id`, `oidc_client_secret`, `public_url`.
        transport: an httpx2 transport; by default the network.

    Raises:
        RefusalError: a setting or a package is missing; the message names it.
    """
    client_settings = (settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret)
    if not any(client_settings):
        return None
    if not all(client_settings):
        raise RefusalError(
            "OIDC takes ROLLOUT_OIDC_ISSUER, _CLIENT_ID and _CLIENT_SECRET: all or none"
        )
    if not is_secure(settings.oidc_issuer):
        raise RefusalError(f"ROLLOUT_OIDC_ISSUER={settings.oidc_issuer}: write it with https://")
    if missing := [name for name in OPENID_PACKAGES if find_spec(name) is None]:
        raise RefusalError(f"OpenID Connect needs {', '.join(missing)}: {format_install('oidc')}")
    redirect_uri = settings.public_url.rstrip("/") + CALLBACK_PATH
    provider: IdentityProvider = import_module("api.oidc_provider").AuthlibProvider(
        OpenIdClient(*client_settings, redirect_uri, tuple(settings.oidc_acr_values.split())),
        transport,
    )
    return provider


class StreamAwareServer(uvicorn.Server):
    """A server that ends its event streams on shutdown instead of waiting for them."""

    def __init__(self, config: uvicorn.Config, streams: EventStreams) -> None:
        super().__init__(config)
        self._streams = streams

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End the streams, then stop as usual."""
        self._streams.close()
        super().handle_exit(sig, frame)


def print_first_link(service: Service, address: str) -> None:
    """Print the one-time link for the first admin, if there are no users."""
    token = create_first_link(service.database, service.clock.now(), service.entropy(32).hex())
    if token is not None:
        typer.echo(FIRST_ADMIN_TEXT.format(address=address, token=token), err=True)
