"""Writers of one process take turns: commands first, each in the order in which they came.

SQLite lets one write at a time and has the others look again after a while: who comes often
overtakes who waits, and a stop could wait behind an unlucky streak for as long as records stream
in. Behind a queue of large batches it would wait as long: so people's commands, which are short,
come before all of them. PostgreSQL queues writers by itself, row by row.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock

from rollout.store.database.errors import DatabaseBusy


class Turns:
    """A lock that is given in the order of asking, to those first who must not wait."""

    def __init__(self, seconds: float) -> None:
        """Free.

        Args:
            seconds: after which who waits gives up.
        """
        self._seconds = seconds
        self._guard = Lock()
        self._first: deque[Event] = deque()
        self._waiting: deque[Event] = deque()
        self._taken = False

    @contextmanager
    def turn(self, *, first: bool = False) -> Iterator[None]:
        """Wait for one's turn, and have it until the end of the block.

        Args:
            first: before all who did not say so.

        Raises:
            DatabaseBusy: it took too long; nothing was done.
        """
        self._take(self._first if first else self._waiting)
        try:
            yield
        finally:
            self._pass_on()

    def _take(self, queue: deque[Event]) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            own_turn = Event()
            queue.append(own_turn)
        if not own_turn.wait(self._seconds):
            self._give_up(own_turn, queue)

    def _give_up(self, mine: Event, queue: deque[Event]) -> None:
        with self._guard:
            if mine.is_set():  # it came just now
                return
            queue.remove(mine)
        raise DatabaseBusy("others are writing for too long; nothing was done, ask again")

    def _pass_on(self) -> None:
        with self._guard:
            queue = self._first or self._waiting
            if queue:
                queue.popleft().set()
            else:
                self._taken = False
