"""A list of cells says of a condition with records what a cell's own page says."""

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from api.cells.cell_gates import describe_cell
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.cells.cell_table import load_cell_page
from rollout.features.cells.cells import load_cell
from rollout.kernel.calendar.instants import to_instant
from rollout.kernel.policy_files.reader import parse_policy
from rollout.terminal.runner import build_local_service
from tests.engine.slots.stories import Story, a_history
from tests.live.test_live import BY_CASE, all_at_first, live

ZOE = Caller("zoe", role_assignments=(AssignedRole("admin"),))
GATE = "require: [{measure: agreement, at_least: 50%}]"
LOW_GATE = "require: [{measure: agreement, at_least: 12%}]"
STORY = Story(seed=3, slots=60, busy=1, late=0, missing=0, quiet=False, versions=1, on_grid=False)


@pytest.mark.slow
def test_an_undecided_unit_is_no_verdict_on_a_low_threshold(database):
    assert GATE in BY_CASE
    text = BY_CASE.replace(GATE, LOW_GATE)
    policy, whole = parse_policy(text), a_history(STORY, parse_policy(text))
    keys = whole.cases["case_key"].to_list()[:2]
    history = replace(
        whole,
        cases=whole.cases.filter(pl.col("case_key").is_in(keys)),
        predictions=whole.predictions.filter(pl.col("case_key").is_in(keys)),
        decisions=whole.decisions.clear(),
        outcomes=whole.outcomes.clear(),
    )
    tick = policy.tick.total_seconds()
    first = int(whole.cases["occurred_at"].min().timestamp() // tick)
    slots, delay = range(first, first + 70, 10), timedelta(minutes=20)  # two cases, few ticks
    live(database, text, slots, delay, before_slot=all_at_first(database, "story", history))
    service, at = build_local_service(database), to_instant(slots[-1], policy.tick)
    page = load_cell_page(service, ZOE, "story", at=at)
    undecided = [row for row in page.rows if any(e.undecided_units for e in row.evidence)]
    assert undecided
    for row in undecided:
        own = load_cell(service, ZOE, "story", row.cell, at=at)
        listed = [facts.gate.conditions for facts in row.evidence]
        assert listed == [facts.gate.conditions for facts in own.evidence]
        description = describe_cell(
            page.state.policy, page.state.scope, row, page.recent_changes, at, str
        )
        sentences = " ".join(sentence.text.unescape() for sentence in description.sentences)
        assert "Needs at least" in sentences
        assert "never be met" not in sentences
