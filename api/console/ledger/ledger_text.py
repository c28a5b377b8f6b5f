"""Ledger entries in words."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any, Final
from zoneinfo import ZoneInfo

from api.console.page.time_format import format_day
from rollout.core.ledger.ledger import parse_event
from rollout.core.scope.events import ENGINE
from rollout.reports.text.access_event_text import describe_access_event
from rollout.reports.text.event_describer import ZonedEventDescriber
from rollout.reports.text.event_kinds import find_tone
from rollout.reports.text.event_text import describe_event
from rollout.services.ledger.ledger_reader import LedgerEntry, LedgerPage

ENGINE_NAME: Final = "the engine"


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One ledger entry in words.

    Attributes:
        revision, at, kind, hash: as stored.
        zone: timezone of its time; "" for the visitor's.
        text: what happened; `reason`: what was typed as its reason, unless the text has it.
        location: cell and version, "" if it concerns none.
        by: the actor.
        proposal, incident: ids for links, or "".
        tone: `wider`, `narrower` or "".
    """

    revision: int
    at: datetime
    kind: str
    hash: str
    zone: str
    text: str
    reason: str
    location: str
    by: str
    proposal: str
    incident: str
    tone: str


def describe_ledger_page(page: LedgerPage) -> tuple[LedgerLine, ...]:
    """Describe the entries of a page, in their order."""
    if page.policy is None:
        return tuple(_describe_access_entry(entry) for entry in page.items)
    return describe_ledger_entries(page.items, ZonedEventDescriber(page.policy, page.cited))


def describe_ledger_entries(
    entries: Iterable[LedgerEntry], describer: ZonedEventDescriber
) -> tuple[LedgerLine, ...]:
    """Describe entries of a rollout's ledger, in their order."""
    return tuple(_describe_entry(entry, describer) for entry in entries)


def format_actor(actor: str) -> str:
    """Return the display name of an actor.

    >>> format_actor("bo"), format_actor("policy")
    ('bo', 'the engine')
    """
    return ENGINE_NAME if actor == ENGINE else actor


def parse_actor(typed: str) -> str:
    """Return the actor's name for a typed display name.

    >>> parse_actor(" The engine "), parse_actor("bo")
    ('policy', 'bo')
    """
    name = typed.strip()
    return ENGINE if name.lower() in {ENGINE_NAME, "engine"} else name


def _describe_entry(entry: LedgerEntry, describer: ZonedEventDescriber) -> LedgerLine:
    def describe(event: Any) -> str:
        return describe_event(entry.row.revision, event, describer).text

    event: Any = parse_event(entry.row)
    description = describe_event(entry.row.revision, event, describer)
    cell, tone = describer.find_cell(event), find_tone(description.kind)
    text = description.text
    if cell is not None and tone and description.version:  # the location names it
        text = describe(replace(event, version="")).lstrip(": ")
    parts = (description.site, description.window, description.version)
    return LedgerLine(
        revision=description.revision,
        at=description.at,
        kind=description.kind,
        hash=entry.hash,
        zone=describer.find_zone(cell),
        text=text,
        reason=find_typed_reason(event, describe),
        location=" · ".join(part for part in parts if part) if cell is not None else "",
        by=format_actor(description.by),
        proposal=str(entry.row.fields.get("proposal") or ""),
        incident=str(entry.row.fields.get("incident") or ""),
        tone=tone,
    )


def find_typed_reason(event: Any, describe: Callable[[Any], str]) -> str:
    """Return the reason that a user typed, or "" if there is none or the event's text has it."""
    reason = getattr(event, "reason", "")
    if event.by == ENGINE or not isinstance(reason, str) or not reason:
        return ""
    return reason if describe(replace(event, reason="")) == describe(event) else ""


def group_by_day(
    lines: Iterable[LedgerLine], timezone: str, now: datetime
) -> tuple[tuple[str, tuple[LedgerLine, ...]], ...]:
    """Return the lines of each day in a timezone, with the day in words."""
    zone = ZoneInfo(timezone)
    days = groupby(lines, lambda line: line.at.astimezone(zone).date())
    return tuple((format_day(day, now.astimezone(zone).date()), tuple(each)) for day, each in days)


def _describe_access_entry(entry: LedgerEntry) -> LedgerLine:
    event = parse_event(entry.row)
    return LedgerLine(
        revision=entry.row.revision,
        at=event.at,
        kind=entry.row.kind,
        hash=entry.hash,
        zone="",
        text=describe_access_event(event),
        reason=find_typed_reason(event, describe_access_event),
        location="",
        by=format_actor(event.by),
        proposal="",
        incident="",
        tone="",
    )
