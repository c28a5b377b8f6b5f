"""How many incidents were counted instead of opened, for each kind and cell."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rollout.core.calendar.sites import Cell
from rollout.core.scope.events import UNFAMILIAR
from rollout.core.scope.familiar_values import count_unopened_values
from rollout.core.scope.scope import Scope
from rollout.services.engine.service import Service
from rollout.store.ledger.incidents import IncidentRow
from rollout.store.ledger.unopened_incidents import UnopenedIncidents


@dataclass(frozen=True, slots=True, order=True)
class UnopenedNumber:
    """Incidents of one kind in one cell that are not opened; site and window may be "".

    Unfamiliar values are counted for each version.
    """

    rollout: str
    kind: str
    site: str
    window: str
    version: str
    number: int


def load_unopened_numbers(
    service: Service, rows: Iterable[IncidentRow]
) -> tuple[UnopenedNumber, ...]:
    """Return the numbers of the kinds and cells of incidents, each once, those above 0."""
    keys = {
        (row.rollout, row.kind, row.site, row.window, row.version if row.kind == UNFAMILIAR else "")
        for row in rows
    }
    numbers: list[UnopenedNumber] = []
    for rollout_name in sorted({key[0] for key in keys}):
        state = service.state_cache.load_rollout(rollout_name).state
        with service.database.begin_read() as transaction:
            stored = UnopenedIncidents(transaction, state.rollout).load_numbers()
        numbers += [
            UnopenedNumber(*key, number)
            for key in keys
            if key[0] == rollout_name and (number := count_unopened(state.scope, stored, *key[1:]))
        ]
    return tuple(sorted(numbers))


def count_unopened(
    scope: Scope,
    stored: Mapping[tuple[str, str, str], int],
    kind: str,
    site: str,
    window: str,
    version: str,
) -> int:
    """Return the number of a kind and cell; unfamiliar values are counted in the scope."""
    if kind == UNFAMILIAR:
        return count_unopened_values(scope, Cell(site, window), version)
    return stored.get((kind, site, window), 0)
