"""Incidents: what tripped, what it did, who has seen it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from rollout.core.errors import UnknownIncident
from rollout.core.ledger.ledger import event_of
from rollout.core.policy.policy import Policy
from rollout.core.scope.commands import Acknowledge
from rollout.core.scope.events import IncidentAcknowledged, IncidentOpened
from rollout.core.scope.permissions import MAY, Act, Caller, require
from rollout.reports.text.formatting import spans_in_words
from rollout.services.engine.command_results import CommandResult, act
from rollout.services.engine.rollout_state import Standing, standing
from rollout.services.engine.service import Service
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.incidents import (
    AllIncidents,
    IncidentRow,
    Incidents,
    ListedIncident,
    Place,
    Readable,
)
from rollout.store.ledger.ledger import Ledger

__all__ = [
    "IncidentRow",
    "IncidentRows",
    "Place",
    "all_incidents",
]


@dataclass(frozen=True, slots=True)
class IncidentRows:
    """Some incidents, the newest first; `before` is where the next page goes on, None at the end.

    `before` is the place of the last of them.
    """

    items: tuple[IncidentRow, ...]
    before: Place | None


def all_incidents(
    database: Database,
    caller: Caller,
    *,
    acknowledged: bool,
    before: Place | None = None,
    limit: int = 50,
) -> IncidentRows:
    """Return incidents at the sites that the caller may read; none for who may read nothing.

    Args:
        database: where they are.
        caller: who asks.
        acknowledged: those that somebody has seen, or those that are open.
        before: where the page before ended.
        limit: how many at most.
    """
    read_assignments = [
        role_assignment
        for role_assignment in caller.rights
        if role_assignment.role in MAY[Act.READ]
    ]
    readable_sites = {
        Readable(role_assignment.rollout, role_assignment.site)
        for role_assignment in read_assignments
    }
    with database.reading() as transaction:
        rows = AllIncidents(transaction).page(
            readable_sites, acknowledged=acknowledged, before=before, limit=limit + 1
        )
    page = tuple(rows[:limit])
    return IncidentRows(page, page[-1].place if len(rows) > limit else None)


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
    new_incidents = [row for row in page if row.opened_in > (after or 0)]
    if not new_incidents:
        return None
    ledger = Ledger(transaction, rollout)
    lines = [_line(ledger, row) for row in islice(reversed(new_incidents), MOST_TOLD)]
    if len(new_incidents) > MOST_TOLD:
        lines.append(f"- and {len(new_incidents) - MOST_TOLD} more")
    return Note(new_incidents[0].opened_in, _subject(new_incidents), "\n".join(lines))


def channels_told(policy: Policy) -> tuple[str, ...]:
    """Return who is told of incidents: every channel that the policy sends a report to, once."""
    return tuple(
        dict.fromkeys(channel for report_plan in policy.reports for channel in report_plan.to)
    )


def _subject(found: Sequence[ListedIncident]) -> str:
    count_text = f"{len(found)} incidents" if len(found) > 1 else f"incident {found[0].id}"
    kinds = ", ".join(dict.fromkeys(row.kind for row in reversed(found)))
    return f"{count_text}: {kinds}"


def _line(ledger: Ledger, row: ListedIncident) -> str:
    (event,) = ledger.events(after=row.opened_in - 1, until=row.opened_in)
    assert isinstance(event, IncidentOpened)  # noqa: S101 - the table says so
    place_text = unmarked(f"{row.site} · {row.window} {row.version}".rstrip())
    location = f" at `{place_text}`" if row.site else ""
    reason = unmarked(spans_in_words(event.reason))
    return f"- {row.id} {row.kind}{location}, {event.effect}: `{reason}`"


def unmarked(text: str) -> str:
    """Return text that no chat reads as markup: what a box sent may stand in a reason.

    >>> unmarked("[win](https://example.org)`<b>")
    "[win](https://example.org)'‹b›"
    """
    return text.translate(UNMARKED)[:LONGEST]


@dataclass(frozen=True, slots=True)
class IncidentStatus:
    """Something that a person has to look at, with what it did.

    `about` names the case or client where the service says which; `note` is of whoever
    acknowledged it. Site, window, version and guard are "" where it is of none.
    """

    id: str
    kind: str
    opened_at: datetime
    site: str
    window: str
    version: str
    guard: str
    effect: str
    reason: str
    about: str
    acknowledged_at: datetime | None
    acknowledged_by: str
    note: str
    revision: int


@dataclass(frozen=True, slots=True)
class IncidentPage:
    """Some incidents, the newest first; `before` is where the next page goes on, None at the end.

    `before` is a revision.
    """

    items: tuple[IncidentStatus, ...]
    before: int | None


def incidents_of(
    service: Service,
    caller: Caller,
    name: str,
    *,
    acknowledged: bool | None = False,
    before: int | None = None,
    limit: int = 50,
) -> IncidentPage:
    """Return incidents at sites that the caller may read, by default those that are open.

    Args:
        service: the replica that is asked.
        caller: who asks.
        name: of the rollout.
        acknowledged: only the open ones, only the others, or, by None, all.
        before: where the page before ended.
        limit: how many at most.
    """
    require(caller, Act.READ, name)
    state = service.watch.confirmed(name).standing
    with service.database.reading() as transaction:
        rows = Incidents(transaction, state.rollout).page(
            acknowledged=acknowledged, before=before, limit=limit
        )
        readable_rows = [
            row for row in rows if not row.site or caller.may(Act.READ, name, row.site)
        ]
        items = tuple(_incident(transaction, state, row) for row in readable_rows)
    return IncidentPage(items, rows[-1].opened_in if len(rows) == limit else None)


def incident_of(service: Service, caller: Caller, name: str, incident: str) -> IncidentStatus:
    """Return one incident.

    Raises:
        UnknownIncident: none of that id was ever opened.
        NotAllowed: it is of a site that the caller may not read.
    """
    require(caller, Act.READ, name)
    state = service.watch.confirmed(name).standing
    with service.database.reading() as transaction:
        row = _find(transaction, state, incident)
        require(caller, Act.READ, name, (row.site,) if row.site else ())
        return _incident(transaction, state, row)


def acknowledge(
    database: Database,
    caller: Caller,
    name: str,
    incident: str,
    *,
    at: datetime,
    note: str = "",
) -> CommandResult:
    """Say that an incident was seen; acknowledged already, it stays so.

    Raises:
        UnknownIncident: none of that id was ever opened.
        NotAllowed: the caller is no operator at its site.
    """
    require(caller, Act.OPERATE, name)
    with database.reading() as transaction:
        row = _find(transaction, standing(transaction, name), incident)
    sites = (row.site,) if row.site else ()
    require(caller, Act.OPERATE, name, sites)
    by = caller.person(name, sites)
    command = Acknowledge(at=at, by=by, incident=incident, note=note)
    return act(database, caller, name, lambda _: command)


def _find(transaction: Transaction, stood: Standing, incident: str) -> ListedIncident:
    row = Incidents(transaction, stood.rollout).find(incident)
    if row is None:
        open_ids = ", ".join(stood.scope.open_incidents) or "none"
        raise UnknownIncident(f"there is no incident {incident}; open ones: {open_ids}")
    return row


def _incident(transaction: Transaction, stood: Standing, row: ListedIncident) -> IncidentStatus:
    ledger = Ledger(transaction, stood.rollout)
    (event,) = ledger.events(after=row.opened_in - 1, until=row.opened_in)
    assert isinstance(event, IncidentOpened)  # noqa: S101 - the table says so
    return IncidentStatus(
        id=row.id,
        kind=row.kind,
        opened_at=row.opened_at,
        site=row.site,
        window=row.window,
        version=row.version,
        guard=row.guard,
        effect=event.effect,
        reason=event.reason,
        about=event.about,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
        note=_note(ledger, row),
        revision=row.opened_in,
    )


def _note(ledger: Ledger, row: ListedIncident) -> str:
    """Return what was said when it was acknowledged."""
    if row.acknowledged_at is None:
        return ""
    for ledger_row in ledger.rows(after=row.opened_in):
        if (
            ledger_row.event_kind == IncidentAcknowledged.__name__
            and ledger_row.fields["incident"] == row.id
        ):
            event = event_of(ledger_row)
            assert isinstance(event, IncidentAcknowledged)  # noqa: S101 - its row says so
            return event.note
    return ""
