"""Incidents as they can be listed, the newest first."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, false, or_, select, true

from rollout.core.ledger.ledger import read_body
from rollout.core.ledger.ledger_texts import LedgerText
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import incidents, ledger, ledger_texts, rollouts


@dataclass(frozen=True, slots=True)
class Readable:
    """A part of what somebody may read; "" stands for every rollout, and for every site."""

    rollout: str = ""
    site: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of the list ended: an incident's instant, rollout number and revision."""

    at: datetime
    rollout: int
    revision: int


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """One incident of one rollout with what its ledger row says of it; `site` "" is of none."""

    rollout: str
    id: str
    kind: str
    site: str
    window: str
    version: str
    did: str
    reason: str
    opened_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str
    place: Place


class AllIncidents:
    """Every incident that was ever opened, whosoever's."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def page(
        self,
        readable: Collection[Readable],
        *,
        acknowledged: bool,
        before: Place | None = None,
        limit: int,
    ) -> list[IncidentRow]:
        """Return incidents, the newest first.

        Args:
            readable: only what one of these reaches; incidents of no site belong to all of them.
            acknowledged: only those that somebody has seen, or only the open ones.
            before: where the page before ended.
            limit: how many at most.
        """
        acknowledged_at = incidents.c.acknowledged_at
        query = (
            select(
                incidents,
                rollouts.c.name,
                ledger.c.body,
                ledger.c.form,
                ledger.c.kind.label("row_kind"),
                ledger_texts.c.salt,
                ledger_texts.c.text,
            )
            .join(rollouts, rollouts.c.id == incidents.c.rollout)
            .join(
                ledger,
                and_(
                    ledger.c.rollout == incidents.c.rollout,
                    ledger.c.revision == incidents.c.opened_revision,
                ),
            )
            .join(
                ledger_texts,
                and_(
                    ledger_texts.c.rollout == incidents.c.rollout,
                    ledger_texts.c.revision == incidents.c.opened_revision,
                    ledger_texts.c.field == "reason",
                ),
                isouter=True,
            )
            .where(or_(false(), *map(_reached, readable)))
            .where(acknowledged_at.is_not(None) if acknowledged else acknowledged_at.is_(None))
            .order_by(*(column.desc() for column in ORDER))
            .limit(limit)
        )
        if before is not None:
            query = query.where(_after(before))
        return [_row(row) for row in self._transaction.execute(query)]


ORDER = (incidents.c.opened_at, incidents.c.rollout, incidents.c.opened_revision)


def _reached(part: Readable) -> ColumnElement[bool]:
    rollout = true() if not part.rollout else rollouts.c.name == part.rollout
    if not part.site:
        return and_(rollout)
    return and_(rollout, or_(incidents.c.site == part.site, incidents.c.site.is_(None)))


def _after(place: Place) -> ColumnElement[bool]:
    at, rollout, revision = ORDER
    return or_(
        at < place.at,
        and_(at == place.at, rollout < place.rollout),
        and_(at == place.at, rollout == place.rollout, revision < place.revision),
    )


def _row(found: Row[Any]) -> IncidentRow:
    texts = {} if found.text is None else {"reason": LedgerText(found.salt, found.text)}
    body = read_body(found.row_kind, found.form, json.loads(found.body), texts)
    return IncidentRow(
        rollout=found.name,
        id=found.incident,
        kind=found.kind,
        site=found.site or "",
        window=found.window or "",
        version=found.version,
        did=body["effect"],
        reason=body["reason"],
        opened_at=found.opened_at,
        acknowledged_at=found.acknowledged_at,
        acknowledged_by=found.acknowledged_by or "",
        place=Place(found.opened_at, found.rollout, found.opened_revision),
    )


@dataclass(frozen=True, slots=True)
class ListedIncident:
    """One incident's row. `opened_in` is a revision; `site` "" is about no cell."""

    id: str
    kind: str
    guard: str
    site: str
    window: str
    version: str
    opened_at: datetime
    opened_in: int
    acknowledged_at: datetime | None
    acknowledged_by: str


class Incidents:
    """Every incident that was ever opened in one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._own = incidents.c.rollout == rollout.number

    def page(
        self, *, acknowledged: bool | None = None, before: int | None = None, limit: int = 100
    ) -> list[ListedIncident]:
        """Return incidents, the newest first.

        Args:
            acknowledged: only those that somebody has acknowledged, or only the open ones.
            before: the revision that the page before ended at.
            limit: how many at most.
        """
        query = select(incidents).where(self._own).order_by(incidents.c.opened_revision.desc())
        if acknowledged is not None:
            acknowledged_at = incidents.c.acknowledged_at
            query = query.where(
                acknowledged_at.is_not(None) if acknowledged else acknowledged_at.is_(None)
            )
        if before is not None:
            query = query.where(incidents.c.opened_revision < before)
        return [_listed(row) for row in self._transaction.execute(query.limit(limit))]

    def find(self, incident: str) -> ListedIncident | None:
        """Return the incident of that id, None where none was ever opened."""
        query = select(incidents).where(self._own, incidents.c.incident == incident)
        row = self._transaction.execute(query).one_or_none()
        return None if row is None else _listed(row)


def _listed(row: Row[Any]) -> ListedIncident:
    return ListedIncident(
        id=row.incident,
        kind=row.kind,
        guard=row.guard,
        site=row.site or "",
        window=row.window or "",
        version=row.version,
        opened_at=row.opened_at,
        opened_in=row.opened_revision,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by or "",
    )
