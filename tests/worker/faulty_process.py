"""A process of ticks in which each tick does what its argument says, until a file is deleted."""

import os
import sys
import time
from pathlib import Path

from rollout.services.engine.ticks import Ticker
from rollout.store.database.errors import DatabaseBusyError
from rollout.worker import tick_process


def raise_busy(_ticker):
    raise DatabaseBusyError("the disk is full")


def find_damage(ticker):
    ticker._database.damage_signs.text = "page 3 is broken"


def die(_ticker):
    os._exit(9)


def wait(_ticker):
    time.sleep(60)


FAULTS = {"fail": raise_busy, "damage": find_damage, "die": die, "wait": wait}


def main(fault: str, mark: str) -> None:
    tick = Ticker.tick

    def tick_faultily(self, at, **more):
        if Path(mark).exists():
            FAULTS[fault](self)
        return tick(self, at, **more)

    Ticker.tick = tick_faultily
    tick_process.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
