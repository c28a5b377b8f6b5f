"""The incidents of every rollout that somebody may read, in one list."""

from dataclasses import dataclass

from rollout.core.rights import MAY, Act, Caller
from rollout.store.all_incidents import AllIncidents, IncidentRow, Place, Readable
from rollout.store.session import Database

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
    rights = [right for right in caller.rights if right.role in MAY[Act.READ]]
    readable = {Readable(right.rollout, right.site) for right in rights}
    with database.reading() as transaction:
        rows = AllIncidents(transaction).page(
            readable, acknowledged=acknowledged, before=before, limit=limit + 1
        )
    some = tuple(rows[:limit])
    return IncidentRows(some, some[-1].place if len(rows) > limit else None)
