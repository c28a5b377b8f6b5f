"""Send a message in a separate process with a timeout."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from rollout.kernel.channels import remove_secrets
from rollout.settings import PREFIX

SEND_TIMEOUT = 30.0  # seconds, with the start of the process
MAX_ERROR_LENGTH = 300  # characters
SENDER_COMMAND = (
    sys.executable,
    "-P",
    "-m",
    "rollout.features.delivery.sender",
)  # -P: no module of this folder


@dataclass(frozen=True, slots=True)
class ChannelMessage:
    """A message for a channel.

    Attributes:
        url: address of the channel, secret.
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


MessageSender = Callable[[ChannelMessage], str]
"""Sends a message; returns "" or the error without secrets."""


def send_in_process(message: ChannelMessage, timeout: float = SEND_TIMEOUT) -> str:
    """Send a message; return "" or the error without secrets.

    Args:
        timeout: seconds. After a timeout it is unknown whether the message arrived.
    """
    try:
        process = subprocess.run(  # noqa: S603 - our own program; the message goes by its input
            SENDER_COMMAND,
            input=json.dumps(asdict(message)),
            env=_build_environment(),
            capture_output=True,
            check=False,
            text=True,
            encoding="utf-8",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:g} s; it may have arrived"
    except OSError as error:
        return f"no process could be started: {error.strerror}"
    return _clean_error(_parse_error(process.stdout, process.returncode), message.url)


def _parse_error(output: str, exit_code: int) -> str:
    try:
        return str(json.loads(output)["error"])
    except (ValueError, KeyError, TypeError):
        return f"the process that sends broke off ({exit_code})"


def _clean_error(error: str, url: str) -> str:
    """Return an error in one line, truncated and without the address' secrets."""
    return remove_secrets(" ".join(error.split()), url)[:MAX_ERROR_LENGTH]


def _build_environment() -> dict[str, str]:
    """Return the process environment: proxies and certificates, no own settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
