"""The main navigation: entries that the visitor may open, with pending counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from api.console.page.page_context import HOME, Visitor
from api.priority_threads import NARROWING_PAGES
from rollout.core.scope.permissions import Permission
from rollout.services.reviews.review_queue import count_pending_reviews
from rollout.store.database.errors import StoreError


@dataclass(frozen=True, slots=True)
class NavigationEntry:
    """One entry; `current` on its own page, `waiting` the pending count or None."""

    name: str
    href: str
    current: bool
    waiting: int | None = None


def _can_read(visitor: Visitor) -> bool:
    return visitor.has_permission_somewhere(Permission.READ)


def _can_review(visitor: Visitor) -> bool:
    return visitor.has_permission_somewhere(Permission.REVIEW)


def _allow_all(_visitor: Visitor) -> bool:
    return True


def _count_reviews(visitor: Visitor) -> int:
    return sum(count_pending_reviews(visitor.service, visitor.caller, visitor.at).values())


def _count_open_incidents(visitor: Visitor) -> int:
    """Return the number of open incidents that the visitor may read."""
    count = 0
    for cached_rollout in visitor.service.state_cache.load_all():
        rollout_name = cached_rollout.state.rollout.name
        for incident in cached_rollout.state.scope.open_incidents.values():
            if incident.cell is None:
                count += visitor.caller.has_permission_somewhere(Permission.READ, rollout_name)
            else:
                count += visitor.has_permission(Permission.READ, rollout_name, incident.cell.site)
    return count


PENDING_COUNTERS: Final[Mapping[str, Callable[[Visitor], int]]] = {
    "Review": _count_reviews,
    "Incidents": _count_open_incidents,
}
ENTRY_RULES: Final[tuple[tuple[str, str, Callable[[Visitor], bool]], ...]] = (
    ("Overview", "/", _allow_all),
    ("Review", "/review", _can_review),
    ("Divergences", "/divergences", _can_read),
    ("Incidents", "/incidents", _can_read),
    ("Reports", "/reports", _can_read),
    ("Ledger", "/ledger", _can_read),
    ("Settings", "/settings", _allow_all),
)


EXTRA_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "/review": ("/adjudication",),
    "/divergences": ("/cause",),
}
"""Paths that belong to an entry with another name."""


def build_navigation(visitor: Visitor, path: str) -> tuple[NavigationEntry, ...]:
    """Return the entries of the pages that the visitor may open."""
    return tuple(
        NavigationEntry(
            name,
            HOME + entry_path,
            current=_is_current(entry_path, path),
            waiting=_count_pending(name, visitor, path),
        )
        for name, entry_path, is_allowed in ENTRY_RULES
        if is_allowed(visitor)
    )


def _count_pending(name: str, visitor: Visitor, path: str) -> int | None:
    """Return the pending count of an entry, or None.

    Pages for stopping load no counts, and a database failure never breaks a page.
    """
    count_pending = PENDING_COUNTERS.get(name)
    if count_pending is None or path.endswith(NARROWING_PAGES):
        return None
    try:
        return count_pending(visitor) or None
    except StoreError:
        return None


def _is_current(entry_path: str, path: str) -> bool:
    if entry_path == "/":
        is_rollout_page = path.startswith(f"{HOME}/rollouts")
        return path == f"{HOME}/" or (is_rollout_page and not _belongs_elsewhere(path))
    return path.startswith(HOME + entry_path) or any(
        f"{prefix}/" in f"{path}/" for prefix in (entry_path, *EXTRA_PATHS.get(entry_path, ()))
    )


def _belongs_elsewhere(path: str) -> bool:
    return any(_is_current(entry_path, path) for _, entry_path, _ in ENTRY_RULES[1:])
