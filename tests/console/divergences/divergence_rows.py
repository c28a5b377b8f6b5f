"""The list of divergences as a page holds it: its rows, and the fields of its form."""

import re

from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.scopes import TickSlots
from rollout.kernel.calendar.instants import find_slot_before, to_instant
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.console.told_cases import CLOSED
from tests.data.snapshots import filled_once

HERE = "/rollouts/bears/divergences"


def rows(page):
    """Return the keys of the list in its order."""
    return re.findall(r'scope="row"><a href="/console/rollouts/bears/cases/([^"]+)"', page)


def row_of(page, key):
    """Return the number of a case's row in the form."""
    return rows(page).index(key)


def fields(page, **chosen):
    """Return the fields of the form with choices for rows: `missed=("relabel", "none", "why")`."""
    hidden = re.findall(
        r'<input type="hidden" name="(case-\d+|version|lever)" value="([^"]*)">', page
    )
    rows = dict(hidden)
    for key, (choice, label, reason) in chosen.items():
        n = row_of(page, key.replace("_", "-"))
        rows |= {f"choice-{n}": choice, f"label-{n}": label, f"reason-{n}": reason}
    return rows


@filled_once
def count(database, *, at=CLOSED):
    """Count what has closed, in every rollout, as a tick does: in the next slot that is free."""
    with database.begin_read() as transaction:
        names = [rollout.name for rollout in Rollouts(transaction).list_all()]
    for name in names:
        with database.begin_read() as transaction:
            state = load_rollout_state(transaction, name)
            last = TickSlots(transaction, state.rollout).load_last_done()
        tick = state.policy.tick
        slot = max(find_slot_before(at, tick), 0 if last is None else last + 1)
        Ticker(database, name, "counting").tick(to_instant(slot, tick))
