"""The texts of notifications: a question, the evidence in one line, and the address of a page.

The address is plain text and needs a sign-in. Mail scanners open links, and browsers preview them:
none does anything, also with a session.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from rollout.reports.text.formatting import format_quantity
from rollout.services.incidents.incidents import MARKUP_REPLACEMENTS

CONSOLE_PATH: Final = "/console"
MAX_READINGS: Final = 3  # in one line
MAX_NAME_LENGTH: Final = 80
HIDDEN_EVIDENCE: Final = "not shown here, because you may be asked for a blind review there"


@dataclass(frozen=True, slots=True)
class MessageText:
    """A notification in words; `path` is of a console page, "" for none."""

    subject: str
    question: str
    evidence: str
    path: str

    def format_body(self, public_url: str) -> str:
        """Return the text of the message as Markdown; the address is no link."""
        address = f"{public_url.rstrip('/')}{CONSOLE_PATH}{self.path}" if self.path else ""
        return "\n\n".join(part for part in (self.question, self.evidence, address) if part)


def describe_code(code: str) -> MessageText:
    """Return the test message with the code that confirms a channel."""
    return MessageText(
        subject="rollout: Confirm this address",
        question="Did you choose this address for notifications of rollout?",
        evidence=f"Then type the code {code[:4]} {code[4:]} in the console under Settings,"
        " Notifications. Otherwise ignore this message: nothing else is sent.",
        path="",
    )


def remove_markup(text: str) -> str:
    """Return text without markup: it may come from a client."""
    return " ".join(text.translate(MARKUP_REPLACEMENTS).split())


def format_name(text: str) -> str:
    """Return a name as code, which no chat turns into a link."""
    return f"`{remove_markup(text)[:MAX_NAME_LENGTH]}`"


def build_path(*parts: str) -> str:
    """Return the path of a page of the console."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def join_first(texts: Sequence[str], noun: str) -> str:
    """Return the first texts in one line, with the number of the others."""
    more_count = len(texts) - MAX_READINGS
    rest = format_quantity(more_count, f"more {noun}") if noun else f"{more_count} more"
    more = [f"{rest} on the page"] if more_count > 0 else []
    return "; ".join([*texts[:MAX_READINGS], *more])
