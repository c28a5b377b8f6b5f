"""What boxes and policies call things is text on every page of a report, and no markup."""

import csv
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.core.records.records import Case, Decision, Prediction
from rollout.core.scope.commands import Person
from rollout.core.scope.permissions import Caller, Right
from rollout.reports.inputs.table_cells import as_text, as_texts, said_in
from rollout.services.engine.policy_application import apply
from rollout.services.engine.rollout_state import standing
from rollout.services.engine.ticks import Ticker
from rollout.services.engine.unit_counting import queue
from rollout.services.records.review_tasks import seed
from rollout.services.reports.archive import report_of, written
from rollout.services.reports.builder import Asked, make_report
from rollout.store.records.records import Records
from tests.factories import DAY, HOUR, NOON
from tests.services.reports.test_builder import VIEWER

EVE = Caller("eve", rights=(Right("viewer", "bears"), Right("reviewer", "bears")))
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
LINK = "[win](javascript:alert(3))"
POLICY = f"""
rollout: bears
timezone: UTC
levers:
  - id: alarm
    labels: ['bear{EVIL}', 'none{LINK}']
sites: ['creek{EVIL}', 'lake{LINK}']
slices: [light]
evidence: {{unit: case, outside: blind}}
gates:
  - {{to: supervised, require: [{{measure: agreement, at_least: 95%}}]}}
"""
BEAR, NONE = f"bear{EVIL}", f"none{LINK}"


@pytest.fixture
def report(database):
    """Return the number of a report in which every name is an attack."""
    apply(database, POLICY, Person("zoe"), NOON - 2 * DAY, salt=bytes(32))
    with database.writing() as transaction:
        stood = standing(transaction, "bears")
        (window,) = {cell.window for cell in stood.policy.cells}
        records = []
        for number in range(30):
            key, at = f"={number}{EVIL}", NOON - DAY + number * HOUR / 4
            site = f"creek{EVIL}" if number % 2 else f"lake{LINK}"
            records += [
                Case(
                    key=key,
                    site=site,
                    occurred_at=at,
                    window=window,
                    attributes={"light": EVIL if number % 3 else LINK, EVIL: EVIL},
                    media={"still": "javascript:alert(4)"},
                ),
                Prediction(
                    key=key,
                    version=f"v1{EVIL}",
                    answers={"alarm": BEAR if number % 4 else NONE},
                    confidence=0.9,
                    latency_ms=3.0,
                    error=None,
                    at=at,
                ),
                Decision(
                    key=key,
                    reviewer=f"ana{EVIL}",
                    answers={"alarm": BEAR},
                    claims="blind",
                    exposure="blind",
                    submitted_at=at + HOUR,
                    note=EVIL,
                ),
            ]
        kept = Records(transaction, stood.rollout).keep(records, received_at=NOON)
        queue(transaction, stood, set(kept.case_ids.values()), NOON)
    Ticker(database, "bears", "one").tick(NOON + 2 * DAY)
    return make_report(database, "bears", "week", Asked(), NOON + 2 * DAY).number


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_no_name_is_markup_on_a_page_or_in_a_summary(database, report):
    shown = report_of(database, VIEWER, "bears", report, NOON + 2 * DAY)
    for view in ("operator", "engineer", "auditor", None):
        page = written(shown, "html", view).decode()
        assert "alert(1)" in page
        assert not re.search(r"<(script|img)\b", page, re.IGNORECASE)
        assert not re.search(r"(href|src)=.javascript", page, re.IGNORECASE)
        assert not re.search(r"<[a-z]+[^>]* on\w+=", re.sub(r'"[^"]*"', '""', page))
    text = written(shown, "markdown").decode()
    assert "alert(1)" in text
    assert not re.search(r"(?<!\\)<(script|img)", text)
    assert not re.search(r"(?<!\\)\]\(", text)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_no_cell_of_the_table_is_a_formula(database, report):
    """A table is opened in spreadsheets: what begins with = + - @ is computed there."""
    shown = report_of(database, VIEWER, "bears", report, NOON + 2 * DAY)
    table = written(shown, "csv").decode()
    assert "alert(1)" in table
    assert not re.search(r'(^|,)"?[=@]', table, re.MULTILINE)
    assert f"'=4{EVIL}" in {row["case_key"] for row in csv.DictReader(table.splitlines())}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_key_that_is_a_formula_is_kept_back_like_any_other(database, report):
    """What stands in the table is not the key: whoever judges the case now is not given its row."""
    key, at = f"=4{EVIL}", NOON + 3 * DAY
    with database.reading() as transaction:
        stood = standing(transaction, "bears")
    admin = Caller("dan", rights=(Right("admin", "bears"),))
    seed(database, admin, stood, key, {"alarm": BEAR}, people=1, at=at)
    hers = report_of(database, EVE, "bears", report, at)
    assert hers.kept_back == 1
    assert "=4" in report_of(database, VIEWER, "bears", report, at).divergences
    assert "=4" not in hers.divergences


@given(st.text(alphabet="'=+-@\t\r.e15a", max_size=8))
def test_what_was_said_is_read_out_of_a_cell_again(said):
    cell = as_text(said)
    assert said_in(cell) == said
    assert not re.match(r"[=@\t\r]", cell)
    assert as_texts(pl.DataFrame({"a": [said]}))["a"].to_list() == [cell]
    if cell[:1] in {"+", "-"}:
        float(cell)
