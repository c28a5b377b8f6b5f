"""Writers of one process take turns, in the order in which they came.

SQLite lets one write at a time and has the others look again after a while: who comes often
overtakes who waits, and a stop could wait behind an unlucky streak for as long as records stream
in. PostgreSQL queues writers by itself.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock

from rollout.store.errors import DatabaseBusy


class Turns:
    """A lock that is given in the order of asking."""

    def __init__(self, seconds: float) -> None:
        """Free.

        Args:
            seconds: after which who waits gives up.
        """
        self._seconds = seconds
        self._guard = Lock()
        self._waiting: deque[Event] = deque()
        self._taken = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for one's turn, and have it until the end of the block.

        Raises:
            DatabaseBusy: it took too long; nothing was done.
        """
        self._take()
        try:
            yield
        finally:
            self._pass_on()

    def _take(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            mine = Event()
            self._waiting.append(mine)
        if not mine.wait(self._seconds):
            self._give_up(mine)

    def _give_up(self, mine: Event) -> None:
        with self._guard:
            if mine.is_set():  # it came just now
                return
            self._waiting.remove(mine)
        raise DatabaseBusy("others are writing for too long; nothing was done, ask again")

    def _pass_on(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False
