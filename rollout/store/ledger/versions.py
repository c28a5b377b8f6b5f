"""Facts on model versions: first use and training data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from rollout.store.database.bulk import insert_once
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.record_tables import predictions
from rollout.store.tables.tables import versions


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


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """The last facts on a version, and when it was first seen."""

    first_seen_at: datetime
    info: VersionInfo


class VersionStore:
    """The versions of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def record_info(self, info: VersionInfo, *, at: datetime) -> bool:
        """Store facts that differ from the last ones; return whether they do.

        Earlier facts stay, so that the facts behind older evidence can be read later.
        """
        stored = self.list_all().get(info.version)
        if stored is not None and stored.info == info:
            return False
        revision = select(func.coalesce(func.max(versions.c.revision), 0) + 1).where(
            versions.c.rollout == self._rollout.number, versions.c.version == info.version
        )
        row = {
            "version": info.version,
            "source": info.source,
            "trained_until": info.trained_until,
            "details": info.about,
            "rollout": self._rollout.number,
            "revision": revision.scalar_subquery(),
            "recorded_at": at,
        }
        return insert_once(self._transaction, versions, row)

    def has_predictions(self, version: str) -> bool:
        """Return whether a prediction of the version is stored."""
        query = select(predictions.c.version).where(
            predictions.c.rollout == self._rollout.number, predictions.c.version == version
        )
        return self._transaction.execute(query.limit(1)).first() is not None

    def list_all(self) -> dict[str, StoredVersion]:
        """Return all versions by name, in the order of their first facts."""
        query = (
            select(versions)
            .where(versions.c.rollout == self._rollout.number)
            .order_by(versions.c.revision, versions.c.recorded_at, versions.c.version)
        )
        stored_versions: dict[str, StoredVersion] = {}
        for row in self._transaction.execute(query):
            first_seen_at = (
                stored_versions[row.version].first_seen_at
                if row.version in stored_versions
                else row.recorded_at
            )
            info = VersionInfo(row.version, row.source, row.trained_until, row.details)
            stored_versions[row.version] = StoredVersion(first_seen_at, info)
        return stored_versions
