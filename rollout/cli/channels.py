"""`rollout channels`: list the channels that reports are sent to, and test one.

Addresses are secret and stand only in the file that ROLLOUT_CHANNELS_FILE names.
"""

import json
import os
import secrets
from collections.abc import Mapping
from typing import Annotated

import typer

from rollout.cli.errors import refusals
from rollout.core.errors import Refusal
from rollout.services.delivery.sending import Message, send
from rollout.services.support.channels import Channels, channels_of, readable_by_others

FILE = "ROLLOUT_CHANNELS_FILE"
TITLE = "rollout: test message"
BODY = "A test of this channel: reports of **rollout** arrive here."
NONE = f"no channel is configured; set {FILE} to a file with a line `name: url` for each channel"

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """List and test the channels that reports are sent to.

    Channels are read from the file that ROLLOUT_CHANNELS_FILE names, on this host.

    Example: `rollout channels test rangers`
    """


@app.command("list")
def list_channels(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON and nothing else")] = False,
) -> None:
    """List channels by name and kind, without their secrets.

    Example: `rollout channels list`
    """
    with refusals():
        configured_channels = _channels()
        warn_of_readers(os.environ)
    masked_urls = {name: configured_channels.masked(name) for name in configured_channels.names}
    if as_json:
        typer.echo(json.dumps(masked_urls))
        return
    typer.echo(
        "\n".join(f"{name}: {masked_url}" for name, masked_url in masked_urls.items()) or NONE
    )


@app.command("test")
def test_channel(
    name: Annotated[
        str, typer.Argument(help="name of the channel, as in the policy", metavar="NAME")
    ],
) -> None:
    """Send a test message to a channel. If that fails, exit 2 and print the error.

    Example: `rollout channels test rangers`
    """
    with refusals(stopped="the message may have been sent"):
        configured_channels = _channels()
        if name not in configured_channels.urls:
            names = ", ".join(configured_channels.names) or "none"
            raise Refusal(f"channel {name} is not in the file {FILE}; its channels: {names}")
        key = f"test-{secrets.token_hex(4)}"
        error = send(Message(configured_channels.urls[name], TITLE, BODY, key))
        if error:
            raise Refusal(f"{name} ({configured_channels.masked(name)}): {error}")
    typer.echo(
        f"{name} ({configured_channels.masked(name)}) accepted the message; check that it arrived"
    )


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
