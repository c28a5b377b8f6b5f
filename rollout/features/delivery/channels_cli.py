"""`rollout channels`: list the channels that reports are sent to, and test one.

Addresses are secret and stored only in the file that ROLLOUT_CHANNELS_FILE names.
"""

import json
import os
import secrets
from collections.abc import Mapping
from typing import Annotated

import typer

from rollout.features.delivery.sender import ChannelMessage, send_in_process
from rollout.kernel.channels import Channels, load_channels, warn_if_readable_by_others
from rollout.kernel.errors import RefusalError
from rollout.terminal.remote import JsonFlag, print_refusals

CHANNELS_VARIABLE = "ROLLOUT_CHANNELS_FILE"
TEST_TITLE = "rollout: test message"
TEST_BODY = "A test of this channel: reports of **rollout** arrive here."
NO_CHANNELS_TEXT = (
    f"no channel is configured; set {CHANNELS_VARIABLE} to a file with a line `name: url` for each"
    " channel"
)

app = typer.Typer(no_args_is_help=True)


@app.callback()
def describe_commands() -> None:
    """List and test the channels that reports are sent to.

    Channels are read from the file that ROLLOUT_CHANNELS_FILE names, on this host.

    Example: `rollout channels test rangers`
    """


@app.command("list")
def list_channels(
    as_json: JsonFlag = False,
) -> None:
    """List channels by name and kind, without their secrets.

    Example: `rollout channels list`
    """
    with print_refusals():
        configured_channels = _load_channels()
        warn_of_file_readers(os.environ)
    masked_urls = {name: configured_channels.mask_url(name) for name in configured_channels.names}
    if as_json:
        typer.echo(json.dumps(masked_urls))
        return
    typer.echo(
        "\n".join(f"{name}: {masked_url}" for name, masked_url in masked_urls.items())
        or NO_CHANNELS_TEXT
    )


@app.command("test")
def try_channel(
    name: Annotated[
        str, typer.Argument(help="name of the channel, as in the policy", metavar="NAME")
    ],
    to: Annotated[
        str, typer.Option(help="address of a user, for a channel with {address}", metavar="ADDRESS")
    ] = "",
) -> None:
    """Send a test message to a channel. If that fails, exit 2 and print the error.

    Example: `rollout channels test rangers`

    For a channel of users: `rollout channels test mail --to ana@example.org`
    """
    with print_refusals(interrupted_text="the message may have been sent"):
        configured_channels = _load_channels()
        if name not in configured_channels.urls:
            names = ", ".join(configured_channels.names) or "none"
            raise RefusalError(
                f"channel {name} is not in the file {CHANNELS_VARIABLE}; its channels: {names}"
            )
        key = f"test-{secrets.token_hex(4)}"
        url = _find_url(configured_channels, name, to)
        error = send_in_process(ChannelMessage(url, TEST_TITLE, TEST_BODY, key))
        if error:
            raise RefusalError(f"{name} ({configured_channels.mask_url(name)}): {error}")
    typer.echo(
        f"{name} ({configured_channels.mask_url(name)}) accepted the message; check that it arrived"
    )


def _find_url(channels: Channels, name: str, address: str) -> str:
    """Return the URL of a channel, with an address exactly if it is a channel of users."""
    if name not in channels.personal_names:
        if address:
            raise RefusalError(f"{name} has no {{address}} in its URL; leave --to out")
        return channels.urls[name]
    if fault := channels.find_address_fault(name, address):
        raise RefusalError(f"{fault}: add --to ADDRESS")
    return channels.build_personal_url(name, address)


def list_configured_names() -> tuple[str, ...] | None:
    """Return the names of configured channels for reports, or None without a channels file.

    Raises:
        ValueError: the file is not a valid channels file.
    """
    return _load_channels().shared_names if os.environ.get(CHANNELS_VARIABLE) else None


def warn_of_file_readers(environment: Mapping[str, str]) -> None:
    """Warn on standard error if others can read the channels file."""
    warning = warn_if_readable_by_others(environment.get(CHANNELS_VARIABLE, ""))
    if warning:
        typer.echo(warning, err=True)


def _load_channels() -> Channels:
    return load_channels(os.environ.get(CHANNELS_VARIABLE, ""), "")
