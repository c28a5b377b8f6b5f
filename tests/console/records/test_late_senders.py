"""A cell of which hardly a unit counts says what its sender looks like, and which policy fits."""

import re
from datetime import timedelta

import numpy as np
import pytest

from benchmarks.senders import START, Sending, SentCases, at_once, send_nightly, write_policy
from rollout.data.ledger.ledger import Accounts
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from tests.live.test_live import ANA
from tests.live.test_live_senders import ROLES, list_sent, send_as_received

pytestmark = pytest.mark.slow

DAYS, WEEKS = 3, 21


def show_cell(database, browser, sending, days=DAYS):
    """Return the page of a cell after some days of a way to send."""
    cases = SentCases.draw(1, sending.truth, cells=1, days=days)
    sending.change(cases)
    cases.episode = np.arange(len(cases.cell)) if sending.unit == "episode" else None
    with database.begin_write() as transaction:
        for name in ROLES:
            Accounts(transaction).add_id(name)
    apply_policy(
        database,
        write_policy(sending, cells=1, tick="3h"),
        ANA,
        START,
        salt=bytes(32),
        service_salt=bytes(32),
    )
    end = START + timedelta(days=days + 2)
    send_as_received(database, list_sent(cases))(0, end)
    Ticker(database, "senders", "one").tick(end)
    return browser.as_("ada").page("/rollouts/senders/cells/c00/always")


@pytest.mark.parametrize("unit", ["case", "episode"])
def test_cell_of_a_nightly_sender_names_the_set_up_and_the_lines_that_fit(database, browser, unit):
    page = show_cell(database, browser, Sending("nightly", 0.98, send_nightly, unit=unit))
    assert "came after the first decision and are no evidence" in page
    assert "It looks like a device or a batch that sends once a day" in page
    (line,) = re.findall(r"<code>(sources: {vouched: .*?)</code>", page)
    assert line == "sources: {vouched: [{account: box, within: 2d}]}"


def test_cell_whose_predictions_come_in_time_says_nothing_of_late_ones(database, browser):
    page = show_cell(database, browser, Sending("at once", 0.98, at_once))
    assert "counted" in page
    assert "after the first decision" not in page


@pytest.mark.slow
def test_cell_names_a_week_without_cases_its_cost_and_what_to_do(database, browser):
    def go_offline(cases):
        is_offline = (cases.occurred >= 8) & (cases.occurred < 15)
        cases.received = cases.predicted = np.where(is_offline, 15, cases.received)

    page = show_cell(database, browser, Sending("offline", 0.98, go_offline), days=WEEKS)
    (line,) = re.findall(r"No case from c00 between .*?</p>", page)
    assert "and Tue 17 Mar 2026 00:00; " in line
    assert "units of that time are missing; begin the next attempt or vouch within 8d." in line
    assert "after the first decision" not in page
