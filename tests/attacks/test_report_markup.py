"""What clients and policies call things is text on every page of a report, and no markup."""

import csv
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.data.records.records import RecordStore
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.features.reports.archive import format_report, load_report
from rollout.features.reports.builder import ReportOptions, create_report
from rollout.features.reports.inputs.divergence_columns import escape_cell, unescape_cell
from rollout.features.reports.inputs.divergences import escape_frame
from rollout.features.reviews.requested_reviews import seed_gold_case
from rollout.live.evidence.unit_counting import queue_new_cases
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.factories import DAY, HOUR, NOON
from tests.features.reports.test_builder import VIEWER

pytestmark = pytest.mark.slow

EVE = Caller(
    "eve", role_assignments=(AssignedRole("viewer", "bears"), AssignedRole("reviewer", "bears"))
)
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
    apply_policy(
        database, POLICY, Actor("zoe"), NOON - 2 * DAY, salt=bytes(32), service_salt=bytes(32)
    )
    with database.begin_write() as transaction:
        stood = load_rollout_state(transaction, "bears")
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
        kept = RecordStore(transaction, stood.rollout).store(records, received_at=NOON)
        queue_new_cases(transaction, stood, kept, NOON)
    Ticker(database, "bears", "one").tick(NOON + 2 * DAY)
    return create_report(database, "bears", "week", ReportOptions(), NOON + 2 * DAY).number


@pytest.mark.slow
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_no_name_is_markup_on_a_page_or_in_a_summary(database, report):
    shown = load_report(database, VIEWER, "bears", report, NOON + 2 * DAY)
    for view in ("operator", "engineer", "auditor", None):
        page = format_report(shown, "html", view).decode()
        assert "alert(1)" in page
        assert not re.search(r"<(script|img)\b", page, re.IGNORECASE)
        assert not re.search(r"(href|src)=.javascript", page, re.IGNORECASE)
        assert not re.search(r"<[a-z]+[^>]* on\w+=", re.sub(r'"[^"]*"', '""', page))
    text = format_report(shown, "summary").decode()
    assert "alert(1)" in text
    assert not re.search(r"(?<!\\)<(script|img)", text)
    assert not re.search(r"(?<!\\)\]\(", text)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_no_cell_of_the_table_is_a_formula(database, report):
    """A table is opened in spreadsheets: what begins with = + - @ is computed there."""
    shown = load_report(database, VIEWER, "bears", report, NOON + 2 * DAY)
    table = format_report(shown, "csv").decode()
    assert "alert(1)" in table
    assert not re.search(r'(^|,)"?[=@]', table, re.MULTILINE)
    assert f"'=4{EVIL}" in {row["case_key"] for row in csv.DictReader(table.splitlines())}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_key_that_is_a_formula_is_kept_back_like_any_other(database, report):
    """The table has no key: the reviewer of the case is not given its row."""
    key, at = f"=4{EVIL}", NOON + 3 * DAY
    with database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "bears")
    admin = Caller("dan", role_assignments=(AssignedRole("admin", "bears"),))
    seed_gold_case(database, admin, stood, key, {"alarm": BEAR}, reviewer_count=1, at=at)
    hers = load_report(database, EVE, "bears", report, at)
    assert hers.withheld_cases == 1
    assert "=4" in load_report(database, VIEWER, "bears", report, at).divergences
    assert "=4" not in hers.divergences


@given(st.text(alphabet="'=+-@\t\r\n\uff0b\uff0d\uff1d\uff20.e15a", max_size=8))
def test_what_was_said_is_read_out_of_a_cell_again(said):
    cell = escape_cell(said)
    assert unescape_cell(cell) == said
    assert not re.match(r"[=@\t\r\n\uff0b\uff0d\uff1d\uff20]", cell)
    assert escape_frame(pl.DataFrame({"a": [said]}))["a"].to_list() == [cell]
    if cell[:1] in {"+", "-"}:
        float(cell)
