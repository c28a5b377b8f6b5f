"""Send one message to one address, in a process of its own: `python -m` this module.

Apprise takes 48 MiB once it has sent something, and waits as long as the other side trickles. In a
process that ends neither is the service's: it is given a message on standard input, as JSON, and
says on standard output whether it was sent. Nothing secret stands in its arguments.

The address was given by whoever owns the machine; what answers there may be anybody's. So nobody is
followed elsewhere, where the report and the address' own headers would go, and an answer that does
not end takes no more than `MEMORY`.
"""

import json
import logging
import os
import sys
import tempfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

ABSENT = "Apprise is not installed here: pip install 'rollout-controller[deliver]'"
UNREADABLE = "the address is none that Apprise can read; `rollout channels` says how to write one"
KEY = "Idempotency-Key"
FILE = "report.html"
MEMORY = 2**30  # bytes that the process may take, of which it needs a tenth


def main() -> None:
    """Send what stands on standard input."""
    _take_little()
    message = json.load(sys.stdin)
    sys.stdout.write(json.dumps({"error": sent(message)}))


def _take_little() -> None:
    """Let the process take no more than `MEMORY`, where the system can see to that."""
    if os.name == "posix":
        resource: Any = import_module("resource")
        with suppress(ValueError, OSError):  # it is less already, or this system has no such limit
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _stay() -> None:
    """Follow nobody who answers with another address."""
    requests: Any = import_module("requests")
    requests.Session.get_redirect_target = lambda _session, _answer: None


def sent(message: dict[str, Any]) -> str:
    """Send a message; return "", or what it failed of.

    Args:
        message: `url`, `title`, `body` (Markdown), `key`, and `page` (HTML, "" for none).
    """
    try:
        apprise: Any = import_module("apprise")
    except ImportError:
        return ABSENT
    _stay()
    with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as log_capture:
        address = apprise.Apprise.instantiate(message["url"])
        if address is None:
            return UNREADABLE
        _prepare(address, message["key"])
        with tempfile.TemporaryDirectory() as folder:
            is_sent = address.notify(
                title=message["title"],
                body=message["body"],
                body_format=apprise.NotifyFormat.MARKDOWN,
                attach=_attached(address, message["page"], folder),
            )
        log_lines = log_capture.getvalue().split("\n")
    return (
        "" if is_sent else "; ".join(filter(None, log_lines)) or "it was refused without a reason"
    )


def _prepare(address: Any, key: str) -> None:
    """Give webhooks the key by which they know a repeat; cut what is too long for a chat."""
    if isinstance(getattr(address, "headers", None), dict) and not _is_mail(address):
        address.headers = {**address.headers, KEY: key}
    address.overflow_mode = "split"


def _is_mail(address: Any) -> bool:
    return type(address).__name__ == "NotifyEmail"


def _attached(address: Any, page: str, folder: str) -> list[str] | None:
    """Return the page as a file, where the channel takes files."""
    if not (page and address.attachment_support):
        return None
    file = Path(folder) / FILE
    file.write_text(page, encoding="utf-8")
    return [str(file)]


if __name__ == "__main__":
    main()
