"""The main navigation: the entries that a person may open, with what waits behind them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from api.console.visitor import HOME, Visitor
from rollout.core.rights import Act


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


ENTRIES: Final[tuple[tuple[str, str, Callable[[Visitor], bool]], ...]] = (
    ("Overview", "/", _anybody),
    ("Review", "/review", _reviews),
    ("Divergences", "/divergences", _reads),
    ("Incidents", "/incidents", _reads),
    ("Reports", "/reports", _reads),
    ("Ledger", "/ledger", _reads),
    ("Settings", "/settings", _anybody),
)


def navigation(visitor: Visitor, path: str) -> tuple[Entry, ...]:
    """Return the entries of the pages that the visitor may open; others are absent."""
    return tuple(
        Entry(name, HOME + at, current=_at(at, path))
        for name, at, opens in ENTRIES
        if opens(visitor)
    )


def _at(entry: str, path: str) -> bool:
    if entry == "/":
        rollouts = path.startswith(f"{HOME}/rollouts")
        return path == f"{HOME}/" or (rollouts and not _elsewhere(path))
    return path.startswith(HOME + entry) or f"{entry}/" in f"{path}/"


def _elsewhere(path: str) -> bool:
    return any(f"{at}/" in f"{path}/" for _, at, _ in ENTRIES[1:])
