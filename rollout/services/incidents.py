"""Incidents: what tripped, what it did, who has seen it."""

from dataclasses import dataclass
from datetime import datetime

from rollout.core.commands import Acknowledge
from rollout.core.errors import UnknownIncident
from rollout.core.events import IncidentAcknowledged, IncidentOpened
from rollout.core.ledger import event_of
from rollout.core.rights import Act, Caller, require
from rollout.services.acting import CommandResult, act
from rollout.services.service import Service
from rollout.services.standing import Standing, standing
from rollout.store.incidents import Incidents, ListedIncident
from rollout.store.ledger import Ledger
from rollout.store.session import Database, Transaction


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
    stood = service.watch.confirmed(name).standing
    with service.database.reading() as transaction:
        rows = Incidents(transaction, stood.rollout).page(
            acknowledged=acknowledged, before=before, limit=limit
        )
        seen = [row for row in rows if not row.site or caller.may(Act.READ, name, row.site)]
        items = tuple(_incident(transaction, stood, row) for row in seen)
    return IncidentPage(items, rows[-1].opened_in if len(rows) == limit else None)


def incident_of(service: Service, caller: Caller, name: str, incident: str) -> IncidentStatus:
    """Return one incident.

    Raises:
        UnknownIncident: none of that id was ever opened.
        NotAllowed: it is of a site that the caller may not read.
    """
    require(caller, Act.READ, name)
    stood = service.watch.confirmed(name).standing
    with service.database.reading() as transaction:
        row = _find(transaction, stood, incident)
        require(caller, Act.READ, name, (row.site,) if row.site else ())
        return _incident(transaction, stood, row)


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
        there = ", ".join(stood.scope.open_incidents) or "none"
        raise UnknownIncident(f"there is no incident {incident}; open ones: {there}")
    return row


def _incident(transaction: Transaction, stood: Standing, row: ListedIncident) -> IncidentStatus:
    ledger = Ledger(transaction, stood.rollout)
    (opened,) = ledger.events(after=row.opened_in - 1, until=row.opened_in)
    assert isinstance(opened, IncidentOpened)  # noqa: S101 - the table says so
    return IncidentStatus(
        id=row.id,
        kind=row.kind,
        opened_at=row.opened_at,
        site=row.site,
        window=row.window,
        version=row.version,
        guard=row.guard,
        effect=opened.effect,
        reason=opened.reason,
        about=opened.about,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
        note=_note(ledger, row),
        revision=row.opened_in,
    )


def _note(ledger: Ledger, row: ListedIncident) -> str:
    """Return what was said when it was acknowledged."""
    if row.acknowledged_at is None:
        return ""
    for later in ledger.rows(after=row.opened_in):
        if later.event_kind == IncidentAcknowledged.__name__ and later.fields["incident"] == row.id:
            event = event_of(later)
            assert isinstance(event, IncidentAcknowledged)  # noqa: S101 - its row says so
            return event.note
    return ""
