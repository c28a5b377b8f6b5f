"""Open incidents by command, and count those for which there is no room."""

from threading import Lock
from typing import Final

from rollout.core.scope.commands import OpenIncident
from rollout.core.scope.incidents import is_over_limit
from rollout.services.engine.command_handler import execute_command
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.store.database.session import Database
from rollout.store.ledger.unopened_incidents import UnopenedIncidents

MAX_COUNTED: Final = 10_000  # repeats that are told apart; then they are told apart anew


class IncidentOpener:
    """Opens incidents, or counts each one that is over the limit.

    Clients and heartbeats repeat themselves each second. A repeat is counted once by this process;
    another replica, and this one after a restart, count it again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counted: set[tuple[str, str, str]] = set()
        self._lock = Lock()

    def open_or_count(self, rollout_name: str, command: OpenIncident, repeat_key: str) -> None:
        """Open an incident, unless it is open; count it if too many others are.

        `repeat_key` is the same in all repeats of an incident of this kind.

        Raises:
            RefusalError: there is no such rollout.
            StoreError: it could not be stored.
        """
        key = (rollout_name, command.kind, repeat_key)
        is_opened = bool(execute_command(self._database, rollout_name, lambda _: command))
        with self._lock:
            if is_opened:
                self._counted.discard(key)
            elif key not in self._counted and self._count(rollout_name, command):
                if len(self._counted) >= MAX_COUNTED:
                    self._counted.clear()
                self._counted.add(key)

    def _count(self, rollout_name: str, command: OpenIncident) -> bool:
        """Count the incident if it is over the limit; return whether it is."""
        with self._database.begin_read() as transaction:
            state = load_rollout_state(transaction, rollout_name)
        if not is_over_limit(command, state.scope):
            return False
        with self._database.begin_write() as transaction:
            UnopenedIncidents(transaction, state.rollout).add(command.kind, {command.cell: 1})
        return True
