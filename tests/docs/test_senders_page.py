"""The tables of what senders can do are the program's rows, and hold what the page says."""

import re

from benchmarks import gain_senders, served_senders
from benchmarks.senders import TABLES
from tests.docs.pages import text_of

ROW = re.compile(r"^  (.+?) +(\d\.\d\d) +(\d\.\d{3}) +(–|\d+\.\d)$", re.MULTILINE)
PAGE = "docs/concepts/senders.md"
CHANCE = 0.0191
SERVED, LOSING = served_senders.SENDINGS, gain_senders.SENDINGS
MORE = {
    "offline for a week, 50 hours": 0.15,  # a good model
    "ten edits, 20 questions seen": 0.05,  # the risk of a year
    "5 % of bad units unsure": 0.1,  # which no arithmetic finds
    "10 % of bad units unsure": 0.6,
}


def read_rows():
    return {
        name: (float(truth), float(raised)) for name, truth, raised, _ in ROW.findall(text_of(PAGE))
    }


def test_page_has_each_row_of_the_program():
    rows = [sending for sendings in (*TABLES.values(), SERVED) for sending in sendings]
    truths = [sending.truth for sending in rows] + [sending.effect for sending in LOSING]
    assert list(read_rows()) == [sending.name for sending in (*rows, *LOSING)]
    assert [truth for truth, _ in read_rows().values()] == truths


def test_good_models_open_and_no_sender_does_more_often_than_by_chance():
    rows = read_rows()
    assert all(rows[sending.name][1] >= 0.97 for sending in TABLES["good model"])
    for sending in (*TABLES["should not open"], *SERVED, *LOSING):
        assert rows[sending.name][1] <= MORE.get(sending.name, CHANCE)
