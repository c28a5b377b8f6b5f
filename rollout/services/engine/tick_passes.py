"""One process's passes over all rollouts: due ticks, and the checks of evidence after them."""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from zlib import crc32

from rollout.services.engine.evidence_check import sample_evidence
from rollout.services.engine.held_evidence_check import CHECK_INTERVAL
from rollout.services.engine.tick_results import STORAGE_RETRY_DELAY, TickPass
from rollout.services.engine.ticks import Ticker
from rollout.store.database.append_failures import TICK, is_storage_failure
from rollout.store.database.errors import DatabaseUnavailableError
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database

RETRY_DELAY = timedelta(minutes=1)  # after a failed tick
TURN_SECONDS = 1.0
"""After so long a rollout that is counting lets the others tick; a page is counted to its end."""
log = logging.getLogger("rollout.scheduler")


class TickScheduler:
    """One process's tickers of all rollouts.

    Attributes:
        next_due: when each rollout's next tick is due; one that is missing is due.
    """

    def __init__(
        self,
        database: Database,
        owner: str,
        announce: Callable[[str], object] = lambda _rollout_name: None,
    ) -> None:
        """Build it; `owner` differs for each process, `announce` gets what it begins with."""
        self._database, self._owner, self._announce = database, owner, announce
        self._tickers: dict[str, Ticker] = {}
        self.next_due: dict[str, datetime] = {}
        self._next_check: dict[str, datetime] = {}

    def run_due_ticks(
        self,
        at: datetime,
        *,
        narrow_only: bool = False,
        get_time: Callable[[], datetime] | None = None,
    ) -> TickPass:
        """Run every due tick that no other process has claimed.

        Rollouts take turns: one that counts for long goes on when the others had theirs. An error
        in one rollout delays no other: it is retried after a minute. Processes begin at different
        rollouts, and the database gives each slot to one of them. A check before a slot is due
        costs one query. If clocks disagree, `at` is the earliest and `narrow_only` is set.
        `get_time` returns the time anew for each rollout, since a pass over many takes a while, in
        which a user's command could seem to be ahead of the clock.

        Raises:
            DatabaseUnavailableError: the database does not respond; the pass ends.
        """
        events_by_rollout, errors, seconds_by_rollout = {}, {}, {}
        for rollout_name in self._iterate_turns():
            at = at if get_time is None else max(at, get_time())
            if at < self.next_due.get(rollout_name, at):
                continue
            ticker = self._tickers.setdefault(
                rollout_name, Ticker(self._database, rollout_name, self._owner)
            )
            self._announce(rollout_name)
            started_at = time.monotonic()
            try:
                with self._database.append_failures.watch(rollout_name, TICK) as attempt:
                    ends_at = started_at + TURN_SECONDS
                    events = ticker.tick(
                        at,
                        narrow_only=narrow_only,
                        get_time=get_time,
                        has_time=partial(_is_before, ends_at),
                    )
                    attempt.is_appended = events is not None
            except DatabaseUnavailableError:
                raise  # true of all rollouts; each is tried again in the next pass
            except Exception as error:  # noqa: BLE001 - returned to the caller, which logs it
                errors[rollout_name] = error
                is_passing = is_storage_failure(error)
                self.next_due[rollout_name] = at + (
                    STORAGE_RETRY_DELAY if is_passing else RETRY_DELAY
                )
            else:
                self.next_due[rollout_name] = (
                    at if ticker.is_counting else ticker.get_next_slot_time(at)
                )
                if events is not None:
                    events_by_rollout[rollout_name] = events
                    seconds_by_rollout[rollout_name] = time.monotonic() - started_at
        self._check_evidence(at)
        return TickPass(events_by_rollout, errors, seconds_by_rollout)

    def sample_evidence(self, at: datetime) -> dict[str, str]:
        """Check a sample of each rollout's evidence; say by rollout what differs."""
        reports = sample_evidence(self._database, at)
        return {name: report.summarize() for name, report in reports.items()}

    def _check_evidence(self, at: datetime) -> None:
        """Compare some evidence of each rollout with the counted units, when it is time."""
        for rollout_name, ticker in self._tickers.items():
            if at < self._next_check.get(rollout_name, at):
                continue
            self._next_check[rollout_name] = at + CHECK_INTERVAL
            self._announce(rollout_name)
            try:
                differences = ticker.check_evidence(at)
            except DatabaseUnavailableError:
                return  # the pass's ticks were run; the next pass meets the outage
            except Exception:
                log.exception("evidence of %s could not be compared", rollout_name)
            else:
                if differences:
                    log.error("evidence of %s was changed, see its incident", rollout_name)

    def _iterate_turns(self) -> Iterator[str]:
        """Yield all rollouts, and again as long as one is counting."""
        is_counting = True
        while is_counting:
            rollout_names = self._load_rollout_names()
            yield from rollout_names
            tickers = map(self._tickers.get, rollout_names)
            is_counting = any(ticker is not None and ticker.is_counting for ticker in tickers)

    def _load_rollout_names(self) -> tuple[str, ...]:
        with self._database.begin_read() as transaction:
            rollout_names = [rollout.name for rollout in Rollouts(transaction).list_all()]
        first_index = crc32(self._owner.encode()) % max(len(rollout_names), 1)
        return (*rollout_names[first_index:], *rollout_names[:first_index])


def _is_before(ends_at: float) -> bool:
    """Return whether a reading of the monotonic clock is still to come."""
    return time.monotonic() < ends_at
