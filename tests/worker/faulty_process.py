"""A process in which ticks and checks do what its argument says, until a file is deleted."""

import logging
import os
import sys
import time
from pathlib import Path

from rollout.data.database.append_failures import DatabaseBusyError
from rollout.engine.ledger import forms
from rollout.engine.ledger.ledger import ALL_EVENT_TYPES
from rollout.live.tick_passes import Ticker, TickScheduler
from rollout.worker import tick_process


def raise_busy(_ticker):
    raise DatabaseBusyError("the disk is full")


def find_damage(ticker):
    ticker._database.damage_signs.text = "page 3 is broken"


def die(_ticker):
    os._exit(9)


def wait(_ticker):
    time.sleep(60)


def log_error(_ticker):
    try:
        raise ValueError("the decision of case secret-case by ana")  # noqa: TRY301
    except ValueError as error:
        logging.getLogger("rollout.scheduler").exception("it failed: %s", error)  # noqa: TRY401
        raise


def write_newer_kinds(_ticker):
    forms.NEWER_FORMS = frozenset(ALL_EVENT_TYPES)


FAULTS = {
    "fail": raise_busy,
    "damage": find_damage,
    "die": die,
    "wait": wait,
    "log": log_error,
    "newer": write_newer_kinds,
}


def main(fault: str, mark: str) -> None:
    tick = Ticker.tick

    def tick_faultily(self, at, **more):
        if Path(mark).exists():
            FAULTS[fault](self)
        return tick(self, at, **more)

    check = TickScheduler.sample_evidence

    def check_faultily(self, at):
        if Path(mark).exists():
            FAULTS[fault](self)
        return check(self, at)

    Ticker.tick, TickScheduler.sample_evidence = tick_faultily, check_faultily
    tick_process.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
