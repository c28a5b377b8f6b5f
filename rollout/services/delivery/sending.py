"""One message to one channel, by Apprise in a process that is ended when it takes too long."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from rollout.services.support.channels import without_secrets
from rollout.settings import PREFIX

PATIENCE = 30.0  # seconds for one message, with the start of its process
LONGEST = 300  # letters of an error that are kept
SENDER = (
    sys.executable,
    "-P",
    "-m",
    "rollout.services.delivery.sender",
)  # -P: no module of this folder


@dataclass(frozen=True, slots=True)
class Message:
    """What a channel is given.

    Attributes:
        url: the channel's address, secret.
        title: one line.
        body: Markdown.
        key: the same for every try of one delivery.
        page: the report as HTML, for channels that take files; "" for none.
    """

    url: str = field(repr=False)
    title: str
    body: str
    key: str
    page: str = ""


Send = Callable[[Message], str]
"""Sends a message and returns "", or what it failed of, without any secret."""


def send(message: Message, patience: float = PATIENCE) -> str:
    """Send a message; return "", or what it failed of, without any secret.

    Args:
        message: what is sent.
        patience: seconds after which it is ended. Whether it arrived is then not known.
    """
    try:
        process = subprocess.run(  # noqa: S603 - our own program; the message goes by its input
            SENDER,
            input=json.dumps(asdict(message)),
            env=_environment(),
            capture_output=True,
            check=False,
            text=True,
            encoding="utf-8",
            timeout=patience,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {patience:g} s; it may have arrived"
    except OSError as error:
        return f"no process could be started: {error.strerror}"
    return _plain(_error(process.stdout, process.returncode), message.url)


def _error(said: str, code: int) -> str:
    try:
        return str(json.loads(said)["error"])
    except (ValueError, KeyError, TypeError):
        return f"the process that sends broke off ({code})"


def _plain(error: str, url: str) -> str:
    """Return an error in one line, cut, with nothing in it that the address keeps secret."""
    return without_secrets(" ".join(error.split()), url)[:LONGEST]


def _environment() -> dict[str, str]:
    """Return what the process may see: proxies and certificates, none of our own settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
