"""`rollout serve`: one replica of the service."""

from typing import Annotated

import typer

from rollout.cli.entry import entry
from rollout.cli.refusing import refusals


def serve(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on", min=1, max=65535)] = 8000,
    accept_lost_records: Annotated[
        bool,
        typer.Option(
            "--accept-lost-records", help="run on a database that may lose what it acknowledged"
        ),
    ] = False,
) -> None:
    """Run the service on ROLLOUT_DATABASE_URL, by default the file rollout.db in this folder.

    Any number of replicas may run on one PostgreSQL. Ctrl-C or SIGTERM stops it: what it has
    begun is finished; what it has not is done by another replica, or after the next start.

    Also read: ROLLOUT_PUBLIC_URL (http://127.0.0.1:8000), ROLLOUT_WAKE (1 second) and
    ROLLOUT_OIDC_ISSUER, _CLIENT_ID, _CLIENT_SECRET; docs/service.md says what each is for.

    Example: `rollout db upgrade && rollout serve --port 8000`
    """
    with refusals(stopped="what was begun is finished"):
        entry("serve")(host, port, accept_lost_records=accept_lost_records)
