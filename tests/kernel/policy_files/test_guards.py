import pytest

from rollout.kernel.calendar.instants import Cell
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.policy import Guard, Policy, Where
from rollout.kernel.policy_files.conditions import build_selectors, widen_condition
from rollout.kernel.policy_files.reader import parse_policy

BASE = """
rollout: bear-alarm
timezone: UTC
levers:
  - id: alarm
    labels: [bear, no-bear]
    costs: [{did: no-bear, cost: 20}, {cost: 1}]
sites: [creek, meadow]
windows: [{id: day, hours: "06:00-18:00"}, {id: night, hours: 24/7}]
evidence: {unit: case}
"""
GATE = "gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]\n"
ALONE = "stages: [{id: supervised, blind: 50%}]\n"


def added(text: str) -> tuple[Guard, ...]:
    return tuple(guard for guard in policy(text).guards if guard.added)


def policy(text: str) -> Policy:
    return parse_policy(BASE + text)


def test_what_a_gate_requires_is_watched_at_a_wider_line():
    guards = added(GATE + ALONE)
    assert guards == (Guard(Condition(MEASURES["agreement"], 0.93), "one-stage", added=True),)


def test_a_guard_of_the_file_is_enough():
    assert added(GATE + ALONE + "guards: [{measure: agreement, at_least: 50%}]\n") == ()


def test_a_guard_that_only_reports_is_not():
    report = "guards: [{measure: agreement, at_least: 50%, then: report}]\n"
    assert len(added(GATE + ALONE + report)) == 1


def test_cells_that_the_files_guard_leaves_out_get_one():
    guards = added(GATE + ALONE + "guards: [{measure: agreement, at_least: 50%, sites: [creek]}]\n")
    assert [guard.where for guard in guards] == [Where(sites=("meadow",))]


def test_of_two_gates_the_loosest_line_counts():
    gates = """
gates:
  - {to: supervised, windows: [day], require: [{measure: cost, at_most: 0.1}]}
  - {to: supervised, require: [{measure: cost, at_most: 0.2}]}
"""
    assert [str(guard.condition) for guard in added(gates + ALONE)] == ["cost at most 0.28"]


def test_only_cells_with_such_a_gate_are_watched():
    gates = """
gates:
  - {to: supervised, windows: [day], require: [{measure: recall, label: bear, at_least: 90%}]}
  - {to: supervised, require: [{measure: agreement, at_least: 95%}]}
"""
    recall, agreement = added(gates + ALONE)
    assert (recall.where, str(recall.condition)) == (
        Where(windows=("day",)),
        "recall of bear at least 86 %",
    )
    assert agreement.where == Where(windows=("night",))


def test_audits_without_decisions_are_guarded():
    last = added(GATE)[-1]
    assert (last.condition, last.then) == (Condition(MEASURES["unaudited"], 0.1), "one-stage")
    assert policy(GATE).guards[-1].over is not None


@pytest.mark.parametrize(
    ("condition", "line"),
    [
        (Condition(MEASURES["cost"], 0.1), 0.14),
        (Condition(MEASURES["agreement"], 0.1), 0.05),
        (Condition(MEASURES["cost"], 18.0), 19.0),
    ],
)
def test_a_guard_can_always_still_alarm(condition, line):
    assert widen_condition(condition, 20.0).threshold == pytest.approx(line)


def test_any_set_of_cells_can_be_selected():
    known = policy(GATE)
    wanted = {Cell("creek", "day"), Cell("creek", "night"), Cell("meadow", "night")}
    rows = build_selectors(known, sorted(wanted))
    assert {cell for cell in known.cells if any(row.fits(cell) for row in rows)} == wanted
