"""The main navigation: the entries that a person may open, with what waits behind them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from api.console.page.page_context import HOME, Visitor
from api.priority_threads import NARROWING_PAGES
from rollout.core.scope.permissions import Act
from rollout.services.reviews.review_queue import review_counts
from rollout.store.database.errors import StoreError


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; `current` on its own page, `waiting` says how many things, None where none do."""

    name: str
    href: str
    current: bool
    waiting: int | None = None


def _reads(visitor: Visitor) -> bool:
    return visitor.may_somewhere(Act.READ)


def _reviews(visitor: Visitor) -> bool:
    return visitor.may_somewhere(Act.REVIEW)


def _anybody(_visitor: Visitor) -> bool:
    return True


def _reviews_waiting(visitor: Visitor) -> int:
    return sum(review_counts(visitor.service, visitor.caller, visitor.at).values())


def _incidents_open(visitor: Visitor) -> int:
    """Return how many incidents nobody has acknowledged, of those that the visitor may read."""
    count = 0
    for cached_rollout in visitor.service.watch.everything():
        rollout_name = cached_rollout.standing.rollout.name
        for incident in cached_rollout.standing.scope.open_incidents.values():
            if incident.cell is None:
                count += visitor.caller.may_somewhere(Act.READ, rollout_name)
            else:
                count += visitor.may(Act.READ, rollout_name, incident.cell.site)
    return count


WAITING: Final[Mapping[str, Callable[[Visitor], int]]] = {
    "Review": _reviews_waiting,
    "Incidents": _incidents_open,
}
ENTRIES: Final[tuple[tuple[str, str, Callable[[Visitor], bool]], ...]] = (
    ("Overview", "/", _anybody),
    ("Review", "/review", _reviews),
    ("Divergences", "/divergences", _reads),
    ("Incidents", "/incidents", _reads),
    ("Reports", "/reports", _reads),
    ("Ledger", "/ledger", _reads),
    ("Settings", "/settings", _anybody),
)


ALSO: Final[Mapping[str, tuple[str, ...]]] = {"/review": ("/adjudication",)}
"""Pages that belong to an entry of another name."""


def navigation(visitor: Visitor, path: str) -> tuple[Entry, ...]:
    """Return the entries of the pages that the visitor may open; others are absent."""
    return tuple(
        Entry(
            name,
            HOME + entry_path,
            current=_at(entry_path, path),
            waiting=_waiting(name, visitor, path),
        )
        for name, entry_path, is_allowed in ENTRIES
        if is_allowed(visitor)
    )


def _waiting(name: str, visitor: Visitor, path: str) -> int | None:
    """Return what waits behind an entry, None where nothing does: no number is the good case.

    The pages by which somebody stops ask nothing that they don't need, and a database that can't
    be asked takes no page away.
    """
    count_pending = WAITING.get(name)
    if count_pending is None or path.endswith(NARROWING_PAGES):
        return None
    try:
        return count_pending(visitor) or None
    except StoreError:
        return None


def _at(entry: str, path: str) -> bool:
    if entry == "/":
        is_rollout_page = path.startswith(f"{HOME}/rollouts")
        return path == f"{HOME}/" or (is_rollout_page and not _elsewhere(path))
    return path.startswith(HOME + entry) or any(
        f"{prefix}/" in f"{path}/" for prefix in (entry, *ALSO.get(entry, ()))
    )


def _elsewhere(path: str) -> bool:
    return any(_at(entry_path, path) for _, entry_path, _ in ENTRIES[1:])
