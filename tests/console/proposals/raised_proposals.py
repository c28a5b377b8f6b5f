"""Proposals of the bears and their pages, as tests look at them."""

import re

from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.commands import AddVersion
from rollout.live.rollout_state import execute_command
from tests.factories import NOON

LIST = "/rollouts/bears/proposals"
XSS = "<script>alert(1)</script>\"'"


def rows(service, kind):
    with service.database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("bears")
        return list(Ledger(transaction, rollout).list_rows(kinds=(kind,)))


def heading(page):
    return re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)[1]


def add_version(service, version):
    execute_command(service.database, "bears", lambda _: AddVersion(at=NOON, version=version))
