"""Send one message to one address, in a process of its own with a timeout.

The process runs this module by `python -m`. Apprise keeps 48 MiB after its first message and waits
as long as the receiver trickles data; a separate process keeps both out of the service. The message
is read from standard input as JSON and the result is written to standard output, so that no secret
is in the arguments.

The receiver may be hostile. Redirects are refused, because they would get the report and the
address' headers. Memory is limited to `MAX_MEMORY`, because a response may be endless.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from rollout.kernel.channels import remove_secrets
from rollout.kernel.errors import format_install
from rollout.settings import PREFIX

APPRISE_MISSING = f"Apprise is not installed here: {format_install('deliver')}"
UNREADABLE_ADDRESS = (
    "the address is none that Apprise can read; `rollout channels` says how to write one"
)
KEY_HEADER = "Idempotency-Key"
REPORT_FILE = "report.html"
MAX_MEMORY = 2**30  # bytes; the process needs a tenth


def main() -> None:
    """Send the message on standard input."""
    _limit_memory()
    sys.stdout.write(json.dumps({"error": send_message(json.load(sys.stdin))}))


def _limit_memory() -> None:
    """Limit the memory of the process to `MAX_MEMORY`, if the system can."""
    if os.name == "posix":
        resource: Any = import_module("resource")
        with suppress(ValueError, OSError):  # the limit is lower already, or the system has none
            resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))


def _disable_redirects() -> None:
    """Refuse redirects of all requests."""
    requests: Any = import_module("requests")
    requests.Session.get_redirect_target = lambda _session, _answer: None


def send_message(message: dict[str, Any]) -> str:
    """Send a message; return "" or the error.

    Args:
        message: `url`, `title`, `body` (Markdown), `key`, and `page` (HTML, "" for none).
    """
    try:
        apprise: Any = import_module("apprise")
    except ImportError:
        return APPRISE_MISSING
    _disable_redirects()
    with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as log_capture:
        address = apprise.Apprise.instantiate(message["url"])
        if address is None:
            return UNREADABLE_ADDRESS
        _prepare_address(address, message["key"])
        with tempfile.TemporaryDirectory() as folder:
            is_sent = address.notify(
                title=message["title"],
                body=message["body"],
                body_format=apprise.NotifyFormat.MARKDOWN,
                attach=_write_attachment(address, message["page"], folder),
            )
        log_lines = log_capture.getvalue().split("\n")
    return (
        "" if is_sent else "; ".join(filter(None, log_lines)) or "it was refused without a reason"
    )


def _prepare_address(address: Any, key: str) -> None:
    """Add the key to webhooks, and truncate texts too long for a chat."""
    is_mail = type(address).__name__ == "NotifyEmail"
    if isinstance(getattr(address, "headers", None), dict) and not is_mail:
        address.headers = {**address.headers, KEY_HEADER: key}
    address.overflow_mode = "split"


def _write_attachment(address: Any, html: str, folder: str) -> list[str] | None:
    """Write the page to a file, or return None if the channel takes no files."""
    if not (html and address.attachment_support):
        return None
    file = Path(folder) / REPORT_FILE
    file.write_text(html, encoding="utf-8")
    return [str(file)]


if __name__ == "__main__":
    main()


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
            # proxies and certificates, no own settings
            env={name: v for name, v in os.environ.items() if not name.startswith(PREFIX)},
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
    text = " ".join(_parse_error(process.stdout, process.returncode).split())
    return remove_secrets(text, message.url)[:MAX_ERROR_LENGTH]


def _parse_error(output: str, exit_code: int) -> str:
    try:
        return str(json.loads(output)["error"])
    except (ValueError, KeyError, TypeError):
        return f"the process that sends broke off ({exit_code})"
