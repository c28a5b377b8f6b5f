"""One replica in a process of its own: `python replica.py OWNER`; says each slot that it did.

What it says stands outside the database, where no unique key could hide a slot done twice.
"""

import os
import signal
import sys
import time

from rollout.data.database.session import Database
from rollout.features.access.authentication import Authenticator
from rollout.live.clock import SystemClock
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from rollout.worker.jobs import JobScheduler


def main(owner: str) -> None:
    tick = Ticker.tick

    def tick_aloud(self: Ticker, at, **more):
        events = tick(self, at, **more)
        if events is not None:
            os.write(1, f"{self._rollout_name} {at.isoformat()}\n".encode())
        return events

    Ticker.tick = tick_aloud
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    database, clock = Database(os.environ["ROLLOUT_DATABASE_URL"]), SystemClock()
    waking = JobScheduler(
        build_service(database, Authenticator(database, clock), clock), owner, interval=0.1
    )
    waking.start()
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1])
