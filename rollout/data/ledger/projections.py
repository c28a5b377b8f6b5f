"""Proposals and incidents as tables, projected from the ledger and written with it; model versions.

Lists read these tables; decisions read the ledger. Incidents of one rollout, or of all, come newest
first.

Facts on model versions: first use and training data.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    false,
    func,
    insert,
    or_,
    select,
    true,
    update,
)

from rollout.data.database.append_failures import UnreadableRowsError
from rollout.data.database.bulk import fetch_rows, insert_once, upsert_sums
from rollout.data.database.rollouts import Rollout, RolloutRepository
from rollout.data.database.session import Repository, Transaction
from rollout.data.tables.record_tables import decode_instant, encode_instant, predictions
from rollout.data.tables.tables import (
    incidents,
    ledger,
    ledger_texts,
    proposals,
    rollouts,
    unopened_incidents,
    versions,
)
from rollout.engine.decide.scope import OfKind
from rollout.engine.events import LedgerEvent
from rollout.engine.ledger.ledger import LedgerText, read_body
from rollout.kernel.calendar.instants import MICROSECOND, Cell
from rollout.kernel.facts import StoredAlarm, Trigger, parse_facts
from rollout.kernel.words import say_cause

LISTS: Final = MappingProxyType({"proposals": proposals, "incidents": incidents})


def update_projections(
    transaction: Transaction, rollout: Rollout, events: Iterable[LedgerEvent], first_revision: int
) -> None:
    """Write the row changes of events; the first has `first_revision`."""
    for revision, event in enumerate(events, start=first_revision):
        change = event.change_list(revision)
        if change is None:
            continue
        table = LISTS[change.list_name]
        key_values = {"rollout": rollout.number, get_name_column(table): change.id}
        if change.is_new:
            transaction.execute(insert(table).values(**key_values, **change.values))
        else:
            conditions = (table.c[name] == value for name, value in key_values.items())
            transaction.execute(update(table).where(*conditions).values(**change.values))


def get_name_column(table: Table) -> str:
    """Return the column that names a row: the key after the rollout."""
    return list(table.primary_key)[1].name


@dataclass(frozen=True, slots=True)
class ListedProposal(OfKind):
    """A proposal of one rollout; `raised_in` and `closed_in` are revisions."""

    id: str
    kind: str
    state: str
    raised_in: int
    closed_in: int | None
    closed_at: datetime | None
    site: str
    window: str


class ProposalStore:
    """The proposals of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._own = proposals.c.rollout == rollout.number

    def list_page(
        self, *, states: Sequence[str] = (), before: int | None = None, limit: int = 100
    ) -> list[ListedProposal]:
        """Return proposals, newest first.

        `states` are open, applied, rejected, void and expired; () selects all. `before` is the
        revision at which the previous page ended.
        """
        query = select(proposals).where(self._own).order_by(proposals.c.raised_revision.desc())
        if states:
            query = query.where(proposals.c.state.in_(states))
        if before is not None:
            query = query.where(proposals.c.raised_revision < before)
        return [_build_proposal(row) for row in self._transaction.execute(query.limit(limit))]

    def find(self, proposal_id: str) -> ListedProposal | None:
        """Return the proposal with this id, or None."""
        query = select(proposals).where(self._own, proposals.c.proposal == proposal_id)
        return self._transaction.find(query, _build_proposal)


def _build_proposal(row: Row[Any]) -> ListedProposal:
    return ListedProposal(
        id=row.proposal,
        kind=row.kind,
        state=row.state,
        raised_in=row.raised_revision,
        closed_in=row.closed_revision,
        closed_at=row.closed_at,
        site=row.site or "",
        window=row.window or "",
    )


class UnopenedIncidents(RolloutRepository):
    """The numbers of one rollout, by kind and cell; they only grow."""

    def add(self, kind: str, numbers: Mapping[Cell | None, int]) -> None:
        """Add to the numbers of some cells; None means no cell."""
        rows = [
            (
                self._rollout.number,
                kind,
                "" if cell is None else cell.site,
                "" if cell is None else cell.window,
                number,
            )
            for cell, number in numbers.items()
        ]
        upsert_sums(self._transaction, unopened_incidents, sorted(rows), "number")

    def load_numbers(self) -> Mapping[tuple[str, str, str], int]:
        """Return the numbers by kind, site and window; both are "" without a cell."""
        query = select(unopened_incidents).where(
            unopened_incidents.c.rollout == self._rollout.number
        )
        return {
            (row.kind, row.site, row.window): row.number for row in self._transaction.execute(query)
        }


@dataclass(frozen=True, slots=True)
class ReadableSite:
    """A site that a user may read; "" means all."""

    rollout: str = ""
    site: str = ""


@dataclass(frozen=True, slots=True)
class IncidentCursor:
    """The last incident of a page: its time, rollout number and revision."""

    at: datetime
    rollout: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedIncident:
    """An incident of one rollout.

    `revision` is of the entry that opened it; `site` "" means no cell.
    """

    id: str
    kind: str
    guard: str
    site: str
    window: str
    version: str
    opened_at: datetime
    revision: int
    acknowledged_at: datetime | None
    acknowledged_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRow(ListedIncident):
    """An incident of any rollout with its ledger entry's texts."""

    rollout: str
    did: str
    reason: str
    cursor: IncidentCursor


class AllIncidents(Repository):
    """The incidents of all rollouts."""

    def list_page(
        self,
        readable_sites: Collection[ReadableSite],
        *,
        acknowledged: bool,
        before: IncidentCursor | None = None,
        limit: int,
    ) -> list[IncidentRow]:
        """Return incidents of the readable sites, newest first.

        Incidents without a site are readable with any site of the rollout. `acknowledged` selects
        the acknowledged or the open ones; `before` is the end of the previous page.
        """
        query = (
            _select_with_ledger_row()
            .where(or_(false(), *map(_is_readable, readable_sites)), _has_state(acknowledged))
            .order_by(*(column.desc() for column in PAGE_ORDER))
            .limit(limit)
        )
        if before is not None:
            query = query.where(_is_after(before))
        return [_build_row(row) for row in self._transaction.execute(query)]


def _select_with_ledger_row() -> Select[Any]:
    """Return the query of incidents with their opening ledger rows."""
    columns = (rollouts.c.name, ledger.c.body, ledger.c.kind.label("row_kind"))
    is_opening_row = (
        ledger.c.rollout == incidents.c.rollout,
        ledger.c.revision == incidents.c.opened_revision,
    )
    is_reason = (
        ledger_texts.c.rollout == incidents.c.rollout,
        ledger_texts.c.revision == incidents.c.opened_revision,
        ledger_texts.c.field == "reason",
    )
    return (
        select(incidents, *columns, ledger_texts.c.salt, ledger_texts.c.text)
        .join(rollouts, rollouts.c.id == incidents.c.rollout)
        .join(ledger, and_(*is_opening_row))
        .join(ledger_texts, and_(*is_reason), isouter=True)
    )


def _has_state(acknowledged: bool) -> ColumnElement[bool]:
    acknowledged_at = incidents.c.acknowledged_at
    return acknowledged_at.is_not(None) if acknowledged else acknowledged_at.is_(None)


PAGE_ORDER = (incidents.c.opened_at, incidents.c.rollout, incidents.c.opened_revision)


def _is_readable(readable: ReadableSite) -> ColumnElement[bool]:
    is_rollout = true() if not readable.rollout else rollouts.c.name == readable.rollout
    if not readable.site:
        return and_(is_rollout)
    return and_(is_rollout, or_(incidents.c.site == readable.site, incidents.c.site.is_(None)))


def _is_after(cursor: IncidentCursor) -> ColumnElement[bool]:
    at, rollout, revision = PAGE_ORDER
    return or_(
        at < cursor.at,
        and_(at == cursor.at, rollout < cursor.rollout),
        and_(at == cursor.at, rollout == cursor.rollout, revision < cursor.revision),
    )


def _build_row(row: Row[Any]) -> IncidentRow:
    texts = {} if row.text is None else {"reason": LedgerText(row.salt, row.text)}
    body = read_body(row.row_kind, json.loads(row.body), texts)
    alarms = (parse_facts(StoredAlarm, alarm) for alarm in body.get("alarms", ()))
    trigger = parse_facts(Trigger, body["trigger"]) if "trigger" in body else None
    return IncidentRow(
        **_read_columns(row),
        rollout=row.name,
        did=body["effect"],
        reason=say_cause(body["reason"], trigger, alarms, body["about"], row.version),
        cursor=IncidentCursor(row.opened_at, row.rollout, row.opened_revision),
    )


class IncidentStore:
    """The incidents of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._own = incidents.c.rollout == rollout.number

    def list_page(
        self, *, acknowledged: bool | None = None, before: int | None = None, limit: int = 100
    ) -> list[ListedIncident]:
        """Return incidents, newest first.

        `acknowledged` selects the acknowledged or the open ones; `before` is the revision at which
        the previous page ended.
        """
        query = select(incidents).where(self._own).order_by(incidents.c.opened_revision.desc())
        if acknowledged is not None:
            query = query.where(_has_state(acknowledged))
        if before is not None:
            query = query.where(incidents.c.opened_revision < before)
        return [_build_incident(row) for row in self._transaction.execute(query.limit(limit))]

    def find(self, incident_id: str) -> ListedIncident | None:
        """Return the incident with this id, or None."""
        query = select(incidents).where(self._own, incidents.c.incident == incident_id)
        return self._transaction.find(query, _build_incident)


def _build_incident(row: Row[Any]) -> ListedIncident:
    return ListedIncident(**_read_columns(row))


def _read_columns(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.incident,
        "kind": row.kind,
        "guard": row.guard,
        "site": row.site or "",
        "window": row.window or "",
        "version": row.version,
        "opened_at": row.opened_at,
        "revision": row.opened_revision,
        "acknowledged_at": row.acknowledged_at,
        "acknowledged_by": row.acknowledged_by or "",
    }


FIRST_USED: Final = "first_used_at"  # in the details of a version's first row
_NAMES: Final = (
    select(versions.c.version).where(versions.c.rollout == bindparam("rollout")).distinct()
)


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """Facts on a version; `trained_until` is its last training case."""

    version: str
    source: str
    trained_until: datetime | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """Return the SHA-256 of its weights and pre-processing, "" if none was declared."""
        return str(self.about.get("content", ""))


def build_version_info(
    version: str,
    source: str,
    contents: Mapping[str, str],
    trained_until: datetime | None = None,
) -> VersionInfo:
    """Return a version's first facts, with its content if `contents` has one."""
    about = {"content": contents[version]} if version in contents else {}
    return VersionInfo(version, source, trained_until, about)


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """The last facts on a version.

    Attributes:
        first_seen_at: its first use, as its first record states it.
        declared_at: when the service received its content, after that of other names with it;
            without one, its first facts.
    """

    first_seen_at: datetime
    info: VersionInfo
    declared_at: datetime


class VersionStore(RolloutRepository):
    """The versions of one rollout."""

    def record_info(
        self, info: VersionInfo, *, at: datetime, first_used_at: datetime | None = None
    ) -> bool:
        """Store facts that differ from the last ones; return whether they do.

        Earlier facts stay, so that the facts behind older evidence can be read later.

        Args:
            at: when they were received, by the service's clock.
            first_used_at: a new version's first use, where that is another time.
        """
        stored_versions = self.list_all()
        stored = stored_versions.get(info.version)
        if stored is not None and stored.info == info:
            return False
        if stored is None or not stored.info.content:
            at = _find_receipt(stored_versions, info, at)
        revision = select(func.coalesce(func.max(versions.c.revision), 0) + 1).where(
            versions.c.rollout == self._rollout.number, versions.c.version == info.version
        )
        row = {
            "version": info.version,
            "source": info.source,
            "trained_until": info.trained_until,
            "details": dict(info.about)
            | ({} if first_used_at is None else {FIRST_USED: encode_instant(first_used_at)}),
            "rollout": self._rollout.number,
            "revision": revision.scalar_subquery(),
            "recorded_at": at,
        }
        return insert_once(self._transaction, versions, row)

    def has_predictions(self, names: Collection[str], *, until: datetime | None = None) -> bool:
        """Return whether a prediction under one of some names is stored, received by `until`."""
        query = select(predictions.c.version).where(
            predictions.c.rollout == self._rollout.number, predictions.c.version.in_(names)
        )
        if until is not None:
            query = query.where(predictions.c.received_at <= until)
        return self._transaction.execute(query.limit(1)).first() is not None

    def list_names(self) -> set[str]:
        """Return the names of all versions; each batch of records may ask."""
        rows = fetch_rows(self._transaction, _NAMES, {"rollout": self._rollout.number})
        return {name for (name,) in rows}

    def list_all(self) -> dict[str, StoredVersion]:
        """Return all versions by name, in the order of their first facts.

        Raises:
            UnreadableRowsError: their details are damaged.
        """
        query = (
            select(versions)
            .where(versions.c.rollout == self._rollout.number)
            .order_by(versions.c.revision, versions.c.recorded_at, versions.c.version)
        )
        stored_versions: dict[str, StoredVersion] = {}
        try:
            rows = self._transaction.execute(query).all()
        except ValueError as error:
            raise UnreadableRowsError(
                f"the details of a version are damaged ({error}): restore the database from a"
                " backup"
            ) from error
        for row in rows:
            stored_versions[row.version] = _add_facts(stored_versions.get(row.version), row)
        return stored_versions

    def list_training_cutoffs(self) -> dict[str, list[datetime | None]]:
        """Return by version each training cutoff that was stored, in order."""
        query = (
            select(versions.c.version, versions.c.trained_until)
            .where(versions.c.rollout == self._rollout.number)
            .order_by(versions.c.version, versions.c.revision)
        )
        ends_by_version: dict[str, list[datetime | None]] = {}
        for row in self._transaction.execute(query):
            ends = ends_by_version.setdefault(row.version, [])
            if row.trained_until != (ends[-1] if ends else None):
                ends.append(row.trained_until)
        return ends_by_version


def _find_receipt(
    stored_versions: Mapping[str, StoredVersion], info: VersionInfo, at: datetime
) -> datetime:
    """Return when a content was received: after other names of it, which are stored already.

    A writer that waited for others, or whose clock is slow, would otherwise make its name the first
    one after units of another were counted.
    """
    names = stored_versions.items() if info.content else ()
    others = (s for name, s in names if name != info.version and s.info.content == info.content)
    return max((at, *(other.declared_at + MICROSECOND for other in others)))


def _add_facts(stored: StoredVersion | None, row: Row[Any]) -> StoredVersion:
    """Return a version with the facts of its next row."""
    about = {name: value for name, value in row.details.items() if name != FIRST_USED}
    info = VersionInfo(row.version, row.source, row.trained_until, about)
    if stored is None:
        first_used = row.details.get(FIRST_USED)
        first_seen_at = row.recorded_at if first_used is None else decode_instant(first_used)
        return StoredVersion(first_seen_at, info, row.recorded_at)
    declared_at = stored.declared_at if stored.info.content else row.recorded_at
    return StoredVersion(stored.first_seen_at, info, declared_at)
