"""`rollout channels`: where reports go, with everything secret left out; and a message to try one.

What a channel leads to stands in the file that ROLLOUT_CHANNELS names, on this machine alone.
"""

import json
import os
import secrets
from collections.abc import Mapping
from typing import Annotated

import typer

from rollout.cli.refusing import refusals
from rollout.core.errors import Refusal
from rollout.services.channels import Channels, channels_of, readable_by_others
from rollout.services.sending import Message, send

FILE = "ROLLOUT_CHANNELS"
TITLE = "rollout: a message to try this channel"
BODY = "Somebody tried whether reports of **rollout** arrive here. They do."
NONE = f"no channel is configured: name a file of `name: url` by {FILE}"

app = typer.Typer(no_args_is_help=True, help="Where reports go, and whether they arrive there.")


@app.callback()
def group() -> None:
    """Where reports go: the channels of the file that ROLLOUT_CHANNELS names, on this machine."""


@app.command("list")
def list_channels(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, nothing else")] = False,
) -> None:
    """List the channels by name, with the kind of each and nothing that is secret.

    Example: `rollout channels list`
    """
    with refusals():
        found = _channels()
        warn_of_readers(os.environ)
    shown = {name: found.masked(name) for name in found.names}
    if as_json:
        typer.echo(json.dumps(shown))
        return
    typer.echo("\n".join(f"{name}: {where}" for name, where in shown.items()) or NONE)


@app.command("test")
def test_channel(
    name: Annotated[str, typer.Argument(help="as policies name it", metavar="NAME")],
) -> None:
    """Send a message to a channel now, once; exit 2 says what it failed of.

    Example: `rollout channels test rangers`
    """
    with refusals(stopped="whether it was sent is not known"):
        found = _channels()
        if name not in found.urls:
            there = ", ".join(found.names) or "none"
            raise Refusal(f"no channel {name} in the file that {FILE} names; there: {there}")
        key = f"test-{secrets.token_hex(4)}"
        error = send(Message(found.urls[name], TITLE, BODY, key))
        if error:
            raise Refusal(f"{name} ({found.masked(name)}): {error}")
    typer.echo(f"{name} ({found.masked(name)}) took it; look whether it arrived")


def configured() -> tuple[str, ...] | None:
    """Return the names of the channels that are configured here; None where no file is named.

    Raises:
        ValueError: the file is none of channels.
    """
    return _channels().names if os.environ.get(FILE) else None


def warn_of_readers(environment: Mapping[str, str]) -> None:
    """Say on standard error where others may read the file of channels."""
    warning = readable_by_others(environment.get(FILE, ""))
    if warning:
        typer.echo(warning, err=True)


def _channels() -> Channels:
    return channels_of(os.environ.get(FILE, ""), "")
