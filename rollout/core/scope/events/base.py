"""The base of all events, and the marks of their fields."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rollout.core.calendar.sites import Cell

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
class LedgerEvent:
    """An event; `slot` is the slot of a tick's evidence."""

    at: datetime
    by: str
    slot: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEvent(LedgerEvent):
    """An event of one version in one cell."""

    cell: Cell
    version: str
