"""Attribute values that acting versions meet for the first time, by site and tick.

A tick records a value once it has a few judged units where the version acts. Until it is familiar
humans decide its cases.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from typing import Final
from weakref import WeakKeyDictionary

from rollout.core.ledger.ledger import parse_event
from rollout.core.policy.familiarity import FEW
from rollout.core.scope.events import FamiliarityChanged
from rollout.core.scope.new_values import NewAttributeValue, list_new_values
from rollout.core.scope.scope import Scope
from rollout.services.engine.rollout_state import RolloutState
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger

__all__ = ["NewAttributeValue", "is_still_new", "list_new_values", "load_new_values"]

MAX_VALUE_AGE: Final = timedelta(days=7)
"""Older ones are not sent, as after a long outage."""


def is_still_new(value: NewAttributeValue, scope: Scope) -> bool:
    """Return whether the version still acts there and is not familiar with the value."""
    statuses = scope.get_cell_values(value.cell, value.version).statuses
    return statuses.get(value.value) == FEW and scope.get_holder(value.cell) == value.version


@dataclass(frozen=True, slots=True)
class _ReadValues:
    """What was read of a rollout's ledger up to a revision of an era."""

    era: int
    revision: int
    values: tuple[NewAttributeValue, ...]


_cache: WeakKeyDictionary[Database, dict[str, _ReadValues]] = WeakKeyDictionary()
_lock = Lock()


def load_new_values(
    database: Database, state: RolloutState, at: datetime
) -> tuple[NewAttributeValue, ...]:
    """Return the values of the last days that are still new; () without the policy's rule.

    Later calls read only what is new in the ledger.
    """
    if state.policy.evidence.familiar is None:
        return ()
    name, scope = state.rollout.name, state.scope
    with _lock:
        cached = _cache.setdefault(database, {}).get(name)
    if cached is None or cached.era != scope.era or cached.revision > scope.revision:
        cached = None
    with database.begin_read() as transaction:
        ledger = Ledger(transaction, state.rollout)
        after = ledger.find_revision_at(at - MAX_VALUE_AGE) if cached is None else cached.revision
        kinds = (FamiliarityChanged.__name__,)
        rows = list(ledger.list_rows(after=after, until=scope.revision, kinds=kinds))
    values = (*(() if cached is None else cached.values), *list_new_values(map(parse_event, rows)))
    recent = tuple(value for value in values if value.at > at - MAX_VALUE_AGE)
    with _lock:
        _cache[database][name] = _ReadValues(scope.era, scope.revision, recent)
    return tuple(value for value in recent if is_still_new(value, scope))
