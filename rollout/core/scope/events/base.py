"""The base of all events, and the marks of their fields."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from rollout.core.calendar.sites import Cell
from rollout.core.scope.scope_builder import ScopeBuilder

ENGINE: Final = "policy"
"""Name of the engine as an actor in the ledger."""
OMITTED_WHEN_EMPTY: Final = "omitted when empty"
"""Marks a field that rows omit while it is empty, as they do with every field to come."""
FREE_TEXT: Final = "free text"
"""Marks a field with typed text or a case's key: a row holds its salted hash, not the text.

Its value is True, or the only incident `kind` in which it does.
"""
ACCOUNT: Final = "account"
"""Marks a field that holds an account: True, or each `kind` of the event in which it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEvent(ABC):
    """An event; `slot` is the slot of a tick's evidence.

    What a reader asks of an event, a method or flag here answers for all kinds.
    """

    at: datetime
    by: str
    slot: datetime | None = None

    @abstractmethod
    def apply(self, builder: ScopeBuilder) -> None:
        """Change the scope as the event says; never refuse it."""

    def compute_effective_time(self, previous: datetime | None) -> datetime:
        """Return from when it holds for units; `previous` is that of the event before.

        A tick writes later than its slot began, but its evidence ends there: units of the slot
        belong to what it decided. Where a user acted in between, it holds from that action on. An
        event that a clock behind wrote holds no earlier than the one before.
        """
        since = self.slot or self.at
        return since if previous is None else max(previous, since)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEvent(LedgerEvent):
    """An event of one version in one cell."""

    cell: Cell
    version: str


EventT = TypeVar("EventT", bound=LedgerEvent)


def build_registry(*kinds: type[EventT]) -> dict[str, type[EventT]]:
    """Return kinds of events by name.

    Raises:
        TypeError: a kind lacks a method that each needs.
    """
    for kind in kinds:
        if missing := kind.__abstractmethods__:
            raise TypeError(f"{kind.__name__} lacks {', '.join(sorted(missing))}")
    return {kind.__name__: kind for kind in kinds}
