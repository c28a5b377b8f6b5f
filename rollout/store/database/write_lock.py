"""The queue of writers within one process: urgent ones first, then in order of arrival.

SQLite lets one transaction write and has the others poll, so a frequent writer overtakes the rest:
a stop could wait for as long as records arrive, or behind a queue of large batches. Users'
commands are short and therefore go first. PostgreSQL queues writers itself, row by row.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock

from rollout.store.database.errors import DatabaseBusyError


class WriteLock:
    """A lock granted in order of arrival, to urgent writers first."""

    def __init__(self, timeout: float) -> None:
        """Create a free lock; `timeout` is in seconds."""
        self._timeout = timeout
        self._mutex = Lock()
        self._urgent_queue: deque[Event] = deque()
        self._normal_queue: deque[Event] = deque()
        self._is_taken = False

    @contextmanager
    def hold(self, *, is_urgent: bool = False) -> Iterator[None]:
        """Acquire the lock until the end of the block.

        Raises:
            DatabaseBusyError: the lock was not free in time; nothing was done.
        """
        self._acquire(self._urgent_queue if is_urgent else self._normal_queue)
        try:
            yield
        finally:
            self._release()

    def _acquire(self, queue: deque[Event]) -> None:
        with self._mutex:
            if not self._is_taken:
                self._is_taken = True
                return
            turn = Event()
            queue.append(turn)
        if not turn.wait(self._timeout):
            self._cancel_wait(turn, queue)

    def _cancel_wait(self, turn: Event, queue: deque[Event]) -> None:
        with self._mutex:
            if turn.is_set():  # granted after the time-out
                return
            queue.remove(turn)
        raise DatabaseBusyError("the database is busy with other writers; nothing was done, retry")

    def _release(self) -> None:
        with self._mutex:
            queue = self._urgent_queue or self._normal_queue
            if queue:
                queue.popleft().set()
            else:
                self._is_taken = False
