"""`rollout users export`: print what is stored about a user or reviewer."""

import json
from typing import Annotated

import typer

from rollout.cli.errors import print_refusals
from rollout.cli.local_database import open_database
from rollout.cli.remote import ServerUrl, build_path, request_lines
from rollout.cli.rollout_options import ActorName
from rollout.services.access.users import load_local_caller
from rollout.services.erasure.user_export import iterate_user_data


def export_user(
    name: Annotated[str, typer.Argument(help="a user's or reviewer's name", metavar="NAME")],
    by: ActorName = "",
    server: ServerUrl = None,
) -> None:
    """Export what is stored about a user or reviewer, one JSON object per line.

    Example: `rollout users export rosalind --by ana`
    """
    if server:
        for line in request_lines(server, build_user_path(name, "data")):
            typer.echo(line)
        return
    if not by:
        with print_refusals():
            raise ValueError("no acting user; add --by NAME, or name a service by --server")
    with open_database() as database:
        for row in iterate_user_data(database, load_local_caller(database, by), name):
            typer.echo(json.dumps(row, ensure_ascii=False))


def build_user_path(name: str, part: str) -> str:
    """Return the path of a part of a user."""
    return build_path(name, part).replace("/v1/rollouts/", "/v1/users/", 1)
