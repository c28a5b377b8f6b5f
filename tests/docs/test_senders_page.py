"""The tables of what senders can do are the program's rows, and hold what the page says."""

import re

from benchmarks.senders import TABLES
from tests.docs.pages import text_of

ROW = re.compile(r"^  (.+?) +(\d\.\d\d) +(\d\.\d{3}) +(–|\d+\.\d)$", re.MULTILINE)
PAGE = "docs/concepts/senders.md"
CHANCE = 0.0191
HONEST_AND_LATE = {"offline for a week, 50 hours": 0.15}  # a good model


def read_rows():
    return {
        name: (float(truth), float(raised)) for name, truth, raised, _ in ROW.findall(text_of(PAGE))
    }


def test_page_has_each_row_of_the_program():
    rows = [sending for sendings in TABLES.values() for sending in sendings]
    assert list(read_rows()) == [sending.name for sending in rows]
    assert [truth for truth, _ in read_rows().values()] == [sending.truth for sending in rows]


def test_good_models_open_and_no_sender_does_more_often_than_by_chance():
    rows = read_rows()
    assert all(rows[sending.name][1] >= 0.97 for sending in TABLES["good model"])
    for sending in TABLES["should not open"]:
        assert rows[sending.name][1] <= HONEST_AND_LATE.get(sending.name, CHANCE)
