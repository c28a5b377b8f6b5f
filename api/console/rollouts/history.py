"""Rows of the history timeline."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from api.console.page.text import add_full_stop
from api.console.rollouts.as_of import format_link_time
from rollout.core.policy.policy import Policy
from rollout.reports.text.event_kinds import SCOPE_KINDS, find_tone
from rollout.reports.text.event_text import EventDescription
from rollout.reports.text.formatting import format_cell_name


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One row of the history.

    Attributes:
        at, zone: time and its timezone.
        tone: `wider`, `narrower` or "".
        cell: its cell, or "".
        text: the event in words.
        link_time: its instant for links, "" if the map did not change.
        revision: its ledger revision.
    """

    at: datetime
    zone: str
    tone: str
    cell: str
    text: str
    link_time: str
    revision: int


def build_history_entries(
    items: Iterable[EventDescription], policy: Policy
) -> tuple[HistoryEntry, ...]:
    """Return the rows of the timeline, in the given order."""
    return tuple(_build_entry(item, policy) for item in items)


def _build_entry(item: EventDescription, policy: Policy) -> HistoryEntry:
    return HistoryEntry(
        at=item.at,
        zone=policy.get_timezone(item.site or ""),
        tone=find_tone(item.kind),
        cell=format_cell_name(item.site, item.window),
        text=add_full_stop(item.text),
        link_time=format_link_time(item.at) if item.kind in SCOPE_KINDS else "",
        revision=item.revision,
    )
