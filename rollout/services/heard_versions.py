"""Versions that are heard of for the first time, by what they said."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from weakref import WeakKeyDictionary

from rollout.core.decider import MOST_OPEN_VERSIONS
from rollout.core.sent import CASES, PREDICTIONS, AnyRecord
from rollout.services.standing import Standing
from rollout.store.session import Database, Transaction
from rollout.store.versions import VersionFacts, Versions

SOURCE = "records"
_known: WeakKeyDictionary[Database, dict[int, frozenset[str]]] = WeakKeyDictionary()
"""By rollout's number the versions that are known to stand in the table: they never leave it."""


def told_of(
    transaction: Transaction,
    database: Database,
    stood: Standing,
    records: Sequence[AnyRecord],
    at: datetime,
) -> Mapping[str, str]:
    """Tell of the versions that are new.

    Args:
        transaction: the writing one.
        database: whose it is.
        stood: how the rollout stands.
        records: that came in together.
        at: now.

    Returns:
        The versions that may not be used, each with its reason: too many are open.
    """
    said = {record.version for record in records if isinstance(record, PREDICTIONS)}
    memory = _known.setdefault(database, {})
    if said <= stood.versions.keys() or said <= memory.get(stood.rollout.number, frozenset()):
        return {}
    versions = Versions(transaction, stood.rollout)
    known = versions.all()
    memory[stood.rollout.number] = frozenset(known)
    retired = {name for name, one in stood.scope.versions.items() if one.retired}
    room = max(MOST_OPEN_VERSIONS - len(known.keys() - retired), 0)
    new = sorted(_first_said(records, said - known.keys(), at).items(), key=_by_time)
    for version, first in new[:room]:
        versions.tell(VersionFacts(version, SOURCE), at=first)
    fault = f"{MOST_OPEN_VERSIONS} versions are open; retire one before {{}} is used"
    return {version: fault.format(version) for version, _ in new[room:]}


def _first_said(
    records: Sequence[AnyRecord], versions: Collection[str], at: datetime
) -> Mapping[str, datetime]:
    """Return when each version was first heard of, as a replay of these records would say."""
    occurred = {r.key: r.occurred_at for r in records if isinstance(r, CASES)}
    found = dict.fromkeys(versions, at)
    for record in records:
        if isinstance(record, PREDICTIONS) and record.version in found:
            said = record.at or occurred.get(record.key, at)
            found[record.version] = min(found[record.version], said)
    return found


def _by_time(told: tuple[str, datetime]) -> tuple[datetime, str]:
    return told[1], told[0]
