"""What is known of model versions: when one was first seen, what it was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from rollout.store.database.bulk import insert_once
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import versions


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What somebody said of a version. `trained_until`: its training cases reach so far."""

    version: str
    source: str
    trained_until: datetime | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """The last that was said of a version, and when it was first seen."""

    first_seen_at: datetime
    facts: VersionFacts


class Versions:
    """The versions of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def tell(self, facts: VersionFacts, *, at: datetime) -> bool:
        """Keep what is said of a version, unless just that was said last; say if it is new.

        Earlier facts stay: what evidence was read under can be seen afterwards.
        """
        stored = self.all().get(facts.version)
        if stored is not None and stored.facts == facts:
            return False
        revision = select(func.coalesce(func.max(versions.c.revision), 0) + 1).where(
            versions.c.rollout == self._rollout.number, versions.c.version == facts.version
        )
        row = {
            "version": facts.version,
            "source": facts.source,
            "trained_until": facts.trained_until,
            "details": facts.about,
            "rollout": self._rollout.number,
            "revision": revision.scalar_subquery(),
            "recorded_at": at,
        }
        return insert_once(self._transaction, versions, row)

    def all(self) -> dict[str, KnownVersion]:
        """Return every version by its name, in the order in which they were first seen."""
        query = (
            select(versions)
            .where(versions.c.rollout == self._rollout.number)
            .order_by(versions.c.revision, versions.c.recorded_at, versions.c.version)
        )
        stored_versions: dict[str, KnownVersion] = {}
        for row in self._transaction.execute(query):
            first_seen_at = (
                stored_versions[row.version].first_seen_at
                if row.version in stored_versions
                else row.recorded_at
            )
            info = VersionFacts(row.version, row.source, row.trained_until, row.details)
            stored_versions[row.version] = KnownVersion(first_seen_at, info)
        return stored_versions
