"""What people are told when incidents open: all that opened since the last time, in one note."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from rollout.core.events import IncidentOpened
from rollout.core.policy import Policy
from rollout.reports.words import spans_in_words
from rollout.store.incidents import Incidents, ListedIncident
from rollout.store.ledger import Ledger
from rollout.store.rollouts import Rollout
from rollout.store.session import Transaction

MOST = 50  # incidents that one note is about
MOST_TOLD = 10  # of them that it tells one by one
LONGEST = 200  # letters of a reason
UNMARKED = str.maketrans({"`": "'", "<": "‹", ">": "›", "\n": " ", "\r": " "})


@dataclass(frozen=True, slots=True)
class Note:
    """One note of several incidents.

    Attributes:
        mark: the revision of the newest of them.
        subject: one line.
        lead: Markdown, an incident a line.
    """

    mark: int
    subject: str
    lead: str


def note_of(transaction: Transaction, rollout: Rollout, after: int | None) -> Note | None:
    """Return the note of all incidents opened after a revision; None where none was.

    Args:
        transaction: reads the database.
        rollout: whose incidents.
        after: up to where people were told; None for never: then only those that are open still.
    """
    acknowledged = False if after is None else None
    page = Incidents(transaction, rollout).page(acknowledged=acknowledged, limit=MOST)
    found = [row for row in page if row.opened_in > (after or 0)]
    if not found:
        return None
    ledger = Ledger(transaction, rollout)
    lines = [_line(ledger, row) for row in islice(reversed(found), MOST_TOLD)]
    if len(found) > MOST_TOLD:
        lines.append(f"- and {len(found) - MOST_TOLD} more")
    return Note(found[0].opened_in, _subject(found), "\n".join(lines))


def channels_told(policy: Policy) -> tuple[str, ...]:
    """Return who is told of incidents: every channel that the policy sends a report to, once."""
    return tuple(dict.fromkeys(channel for plan in policy.reports for channel in plan.to))


def _subject(found: Sequence[ListedIncident]) -> str:
    several = f"{len(found)} incidents" if len(found) > 1 else f"incident {found[0].id}"
    kinds = ", ".join(dict.fromkeys(row.kind for row in reversed(found)))
    return f"{several}: {kinds}"


def _line(ledger: Ledger, row: ListedIncident) -> str:
    (opened,) = ledger.events(after=row.opened_in - 1, until=row.opened_in)
    assert isinstance(opened, IncidentOpened)  # noqa: S101 - the table says so
    place = unmarked(f"{row.site} · {row.window} {row.version}".rstrip())
    where = f" at `{place}`" if row.site else ""
    reason = unmarked(spans_in_words(opened.reason))
    return f"- {row.id} {row.kind}{where}, {opened.effect}: `{reason}`"


def unmarked(text: str) -> str:
    """Return text that no chat reads as markup: what a box sent may stand in a reason.

    >>> unmarked("[win](https://example.org)`<b>")
    "[win](https://example.org)'‹b›"
    """
    return text.translate(UNMARKED)[:LONGEST]
