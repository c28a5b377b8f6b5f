"""Which attribute values a version met: on a cell's page and beside a proposal."""

from dataclasses import replace
from pathlib import Path

import pytest

from api.cells import pages as rollout_page
from api.cells.value_table import build_value_tables, list_gate_slices
from api.proposals import pages as proposal_page
from rollout.engine.decide.commands import Actor
from rollout.engine.evidence.gate_series import UnfamiliarUnits, ValueCounts, ValueSeries
from rollout.features.cells.cell_table import (
    CellValuesSummary,
    load_cell_values,
    read_closed_values,
)
from rollout.features.records.record_import import import_records
from rollout.kernel.calendar.instants import to_instant
from rollout.kernel.policy.familiarity import FAMILIAR, FEW, MISTAKEN, ValueReading
from rollout.kernel.policy_files.reader import load_policy, parse_policy
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from tests.api import bears
from tests.engine.evidence.test_value_series import CLASSES, FORM, build_rows
from tests.engine.evidence.test_value_series import RULE as RULE_OF_FORMS
from tests.engine.slots.stories import a_history
from tests.factories import DAY, NOON
from tests.live.test_live import BY_CASE, replayed
from tests.live.test_live_familiar import RULE, STORY, with_forms

TEXT = BY_CASE.replace("evidence: {", RULE)
FORMS = [
    ValueCounts(("form", form), ValueReading(status, 20, agreed), met, to_humans=met // 2)
    for form, status, agreed, met in (
        ("old", FAMILIAR, 20, 3000),
        ("new", MISTAKEN, 14, 156),
        ("torn", FEW, 20, 20),
    )
]
SUMMARY = CellValuesSummary("v1", UnfamiliarUnits(3176, 88, ("form", "new"), 78), tuple(FORMS))


@pytest.mark.parametrize(
    ("is_blind", "mistaken", "statuses"),
    [
        (
            False,
            ["0 of 20", "6 of 20", "0 of 20"],
            ["familiar", "differs too often", "judged too rarely"],
        ),
        (True, ["–"] * 3, ["familiar", "not familiar", "not familiar"]),
    ],
)
def test_a_row_for_each_value_without_mistakes_for_a_blind_reviewer(is_blind, mistaken, statuses):
    table, missing = build_value_tables({"v1": SUMMARY}, ["v1", "v2"], is_blind=is_blind)
    assert missing is None
    assert [row.value for row in table.rows] == ["form=old", "form=new", "form=torn"]
    assert [row.met for row in table.rows] == ["3,000", "156", "20"]
    assert [row.to_humans for row in table.rows] == ["1,500", "78", "10"]
    assert [row.mistaken for row in table.rows] == mistaken
    assert [row.status for row in table.rows] == statuses
    assert [("blind review" in note) for note in table.notes] == [True] * is_blind


def test_mistakes_are_counted_once_nobody_may_still_review_the_unit():
    """Else a count of one would tell a later reviewer how the model answered an open case."""
    mistaken, right = 1, 0
    units = [(3, mistaken), (3, right), (3, mistaken), (9, mistaken)]
    series = ValueSeries(build_rows(units), CLASSES, RULE_OF_FORMS, 0.6)
    newest = series.read_at(12)[FORM]
    assert (newest.judged, newest.agreed, newest.status) == (4, 1, MISTAKEN)
    for slot, counts in ((5, (3, 1)), (2, (0, 0)), (9, (4, 1))):
        shown = read_closed_values(series, slot)[FORM]
        assert (shown.judged, shown.agreed) == counts
        assert shown.status == newest.status


@pytest.mark.parametrize(("sliced", "said"), [(("form",), True), (("age",), False), ((), False)])
def test_an_unfamiliar_value_that_holds_a_gate_by_slice_is_said_to(sliced, said):
    (table,) = build_value_tables({"v1": SUMMARY}, ["v1"], is_blind=False, sliced=sliced)
    assert any("that form can hold the gate" in note for note in table.notes) == said
    familiar = replace(SUMMARY, values=SUMMARY.values[:1])
    (table,) = build_value_tables({"v1": familiar}, ["v1"], is_blind=False, sliced=sliced)
    assert table.notes == ()


def test_the_attributes_of_a_cells_slice_conditions_are_listed():
    policy = load_policy(Path(__file__).parents[3] / "examples/skin/policy.yaml")
    assert {list_gate_slices(policy, cell) for cell in policy.cells} == {("tone",)}


def test_values_beyond_twenty_are_counted():
    many = replace(SUMMARY, values=tuple(FORMS[:1] * 23))
    (table,) = build_value_tables({"v1": many}, ["v1"], is_blind=False)
    assert len(table.rows) == 20
    assert table.notes == ("3 more values met less often.",)


@pytest.mark.slow
def test_the_table_is_on_the_cells_page_and_the_share_on_the_proposals(
    browser, database, monkeypatch
):
    bears.tick(database, NOON)
    summaries = {"v1": SUMMARY}
    monkeypatch.setattr(rollout_page, "load_cell_values", lambda *_: summaries)
    monkeypatch.setattr(proposal_page, "load_cell_values", lambda *_: summaries)
    cell_page = browser.as_("vic").page("/rollouts/bears/cells/creek/day")
    assert 'aria-label="Attribute values of v1"' in cell_page
    assert 'scope="row">form=new</th>' in cell_page
    assert "differs too often" in cell_page
    for page in (cell_page, browser.page("/rollouts/bears/proposals/P-1")):
        assert "In the last 30 days 88 of 3,176 units here" in page


@pytest.mark.simulation
def test_counted_units_give_the_table(service, database):
    policy = parse_policy(TEXT)
    history = with_forms(a_history(STORY, policy))
    slots, _ = replayed(history, policy, None)
    first, last = to_instant(slots[0], policy.tick), to_instant(slots[-20], policy.tick)
    apply_policy(database, TEXT, Actor("zoe"), first, salt=bytes(32), service_salt=bytes(32))
    import_records(database, "story", history, first)
    Ticker(database, "story", "one").tick(last)
    state = service.state_cache.reload_rollout("story").state
    by_cell = [load_cell_values(service, state, cell, last) for cell in state.policy.cells]
    summaries = [summary for values in by_cell for summary in values.values()]
    assert summaries
    for summary in summaries:
        assert 0 < summary.recent.unfamiliar <= summary.recent.units
        assert {count.value[0] for count in summary.values} == {"form", "size"}
        assert all(count.to_humans == 0 for count in summary.values), "in shadow humans decide all"
    later = load_cell_values(service, state, state.policy.cells[0], last + 40 * DAY)
    assert {summary.recent.units for summary in later.values()} == {0}
    before = load_cell_values(service, state, state.policy.cells[0], first)
    judged = [
        sum(count.reading.judged for summary in values.values() for count in summary.values)
        for values in (before, later)
    ]
    assert judged[0] == 0 < judged[1], "what was judged since may still be reviewed"
