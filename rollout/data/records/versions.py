"""Model versions: names, contents, when each came into use, and training cutoffs."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Row,
    bindparam,
    func,
    select,
)

from rollout.data.database.append_failures import UnreadableRowsError
from rollout.data.database.bulk import fetch_rows, insert_once
from rollout.data.database.rollouts import Rollout, RolloutRepository, match_cases
from rollout.data.database.session import Transaction
from rollout.data.tables.record_tables import (
    actions,
    decode_instant,
    encode_instant,
    predictions,
)
from rollout.data.tables.tables import versions
from rollout.kernel.calendar.instants import MICROSECOND, NEVER

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
        return {
            name
            for (name,) in fetch_rows(self._transaction, _NAMES, {"rollout": self._rollout.number})
        }

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


PredictionKey = tuple[int, str]


Receipt = tuple[int, int]  # in microseconds


BEFORE_ALL = -(2**63)  # of a prediction without a time of its own


def find_first_receipts(rows: Iterable[Row[Any]]) -> dict[PredictionKey, Receipt]:
    """Return when the first revision of each prediction was received, and its own time."""
    receipts: dict[PredictionKey, Receipt] = {}
    for row in rows:
        own_time = BEFORE_ALL if row.at is None else row.at
        key, receipt = (row.case_id, row.version), (row.received_at, own_time)
        receipts[key] = min(receipts.get(key, receipt), receipt)
    return receipts


def drop_later_corrections(
    transaction: Transaction, rollout: Rollout, rows: Sequence[Row[Any]]
) -> Sequence[Row[Any]]:
    """Return predictions without corrections received after their version acted on the case.

    A version is judged by the answer that it acted by, and by no better one.
    """
    receipts = find_first_receipts(rows)
    names, times = (actions.c.case_id, actions.c.version), (actions.c.at, actions.c.received_at)
    query = (
        select(*names, *(func.min(at, type_=BigInteger) for at in times))
        .where(*match_cases(transaction, rollout, actions, {key[0] for key in receipts}))
        .where(actions.c.by == "model")
        .group_by(*names)
    )
    acted_at = {row[:2]: min(row[2:]) for row in map(tuple, transaction.execute(query))}
    return [
        row
        for row in rows
        if row.received_at
        <= max(receipts[key := (row.case_id, row.version)][0], acted_at.get(key, NEVER))
    ]


def select_first_received(
    rows: Collection[Row[Any]],
    receipts: Mapping[PredictionKey, Receipt],
    first_names: Mapping[str, str],
) -> list[Row[Any]]:
    """Return one prediction a case and version, of all its names the one received first.

    Of several that came in one batch it is the first by its time, as in a replay of files, then
    that of the version's first name, then of its older one. A sender could otherwise choose among
    answers after the human decision.
    """
    places = {name: place for place, name in enumerate(first_names, start=1)}
    selected: dict[PredictionKey, Row[Any]] = {}
    for row in sorted(
        rows,
        key=lambda row: (receipts[row.case_id, row.version], places.get(row.version, 0)),
    ):
        selected.setdefault((row.case_id, first_names.get(row.version, row.version)), row)
    row_ids = {id(row) for row in selected.values()}
    return [row for row in rows if id(row) in row_ids]
