"""`rollout serve`: run one replica of the service."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Annotated

import typer

from rollout.kernel.errors import format_install
from rollout.terminal.remote import print_refusals

COMMAND_GROUP = "rollout.commands"


def serve(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on", min=1, max=65535)] = 8000,
    accept_lost_records: Annotated[
        bool,
        typer.Option(
            "--accept-lost-records", help="accept a database that can lose acknowledged records"
        ),
    ] = False,
) -> None:
    """Run the service: API, console and ticks, on the database in ROLLOUT_DATABASE_URL.

    The default database is the file rollout.db in this folder. Run `rollout db upgrade` first, and
    again after each upgrade of the program. Any number of replicas can run on
    one PostgreSQL. Ctrl-C or SIGTERM stops a replica: it finishes the work that it has begun, and
    another replica, or the next start, does the rest.

    Other settings: ROLLOUT_PUBLIC_URL, ROLLOUT_POLL_INTERVAL, ROLLOUT_CHANNELS_FILE and
    ROLLOUT_OIDC_ISSUER, _CLIENT_ID, _CLIENT_SECRET; see docs/reference/settings.md.

    Example: `rollout serve --port 8000`
    """
    with print_refusals(interrupted_text="all work that had begun is finished"):
        load_service_command("serve")(host, port, accept_lost_records=accept_lost_records)


def load_service_command(name: str) -> Callable[..., None]:
    """Return a command of the installed service.

    Raises:
        ValueError: the service is not installed.
    """
    commands = list(entry_points(group=COMMAND_GROUP, name=name))
    try:
        (command,) = (entry_point.load() for entry_point in commands)
    except (ImportError, ValueError) as error:
        error_text = f"`{name}` needs the service: {format_install('server,demo')}"
        raise ValueError(f"{error_text} ({error})") from None
    typed_command: Callable[..., None] = command
    return typed_command
