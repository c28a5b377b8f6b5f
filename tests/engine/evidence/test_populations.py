"""Planted cases are a population of their own: no natural figure or event counts them."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.events import ProposalRaised, Widened
from rollout.engine.evidence.case_placement import split_populations
from rollout.engine.evidence.unit_arrays import UnitArrays, UnitClasses
from rollout.engine.files.files import RecordPaths
from rollout.engine.slots.options import ReplayOptions
from rollout.features.replay.replay import build_replay_inputs, replay_records
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.evidence_facts import compute_planted_recall
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.pages.html_report import render_html_report
from rollout.features.reports.pages.json_report import render_json_report
from rollout.features.reports.pages.text_report import render_text_report
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.policy import EvidenceRules, Guard, Minimum
from rollout.kernel.populations import PlantedUnits
from rollout.kernel.units import FAILED, MISSING, Lever, UnitClass
from rollout.kernel.words import say_reading
from tests.engine.evidence.histories import (
    AGREEMENT,
    HOUR,
    a_gate,
    a_policy,
    cases,
    decisions,
    outcomes,
    predictions,
    records,
)
from tests.properties import examples

RECALL = Condition(MEASURES["recall"], 0.6, label="bear", population=PlantedUnits())
HERE = Path(__file__)
LABELS = ("bear", "fox", "none")
WATCHFUL = (
    Guard(Condition(MEASURES["failures"], 0.05), "suspend", over=6 * HOUR),
    Guard(Condition(MEASURES["latency_p95"], 1.0), "suspend", over=6 * HOUR),
    Guard(Condition(MEASURES["heartbeat"], 7200.0), "suspend"),
    Guard(Condition(MEASURES["harm"], 0), "shadow", over=24 * HOUR),
    Guard(Condition(MEASURES["drift"], 0.02), "report", false_alarm_every=10),
    Guard(Condition(MEASURES["missing"], 0.05), "report", over=24 * HOUR),
    Guard(AGREEMENT, "one-stage", false_alarm_every=10),
)
NATURAL = tuple((f"n{i}", 1 + i * 0.4, LABELS[i % 3], LABELS[i % 3], None) for i in range(60))


def build_history(*rows):
    """Return records of (key, hour, predicted, decided, harm), of which p… are planted."""
    history = records(
        cases(*((key, at, {"episode": f"e{int(at)}"}) for key, at, *_ in rows)),
        predictions(
            *((key, said, {"latency": 9_000 if key[0] == "p" else 10}) for key, _, said, *_ in rows)
        ),
        decisions(*((key, right, {"at": at + 0.1}) for key, at, _, right, _ in rows if right)),
        outcomes(*((key, harm, at + 0.2) for key, at, *_, harm in rows if harm)),
    )
    return split_populations(history, {key for key, *_ in rows if key[0] == "p"})


def replay(policy, *rows):
    options = ReplayOptions(approval_delay=timedelta(0))
    request = ReplayRequest(HERE, RecordPaths(HERE, HERE), options=options)
    return replay_records(request, policy, build_history(*rows))


def build_policy(unit="case", *require):
    minimum = Minimum(units=5, days=1, reviewers=1)
    gate = a_gate("supervised", *(require or (AGREEMENT,)), minimum=minimum, risk=0.2)
    return a_policy(
        gates=(gate,),
        guards=WATCHFUL,
        evidence=EvidenceRules(grace=2 * HOUR, outside="blind", unit=unit),
    )


@pytest.mark.slow
def test_a_gate_waits_for_planted_cases_and_says_so():
    policy = build_policy("case", AGREEMENT, RECALL)
    planted = tuple((f"p{i}", 20 + i / 10, "bear", "bear", None) for i in range(9))
    wrong = tuple((f"p{i}", 20 + i / 10, "fox", "bear", None) for i in range(9))
    assert not any(isinstance(e, ProposalRaised) for e in replay(policy, *NATURAL).result.events)
    assert not any(
        isinstance(e, ProposalRaised) for e in replay(policy, *NATURAL, *wrong).result.events
    )
    silent = tuple((f"ps{i}", 20 + i / 10, "fox", None, None) for i in range(9))
    unanswered = replay(policy, *NATURAL, *planted, *silent).result.events
    assert not any(isinstance(event, ProposalRaised) for event in unanswered)
    events = replay(policy, *NATURAL, *planted).result.events
    raised = next(event for event in events if isinstance(event, ProposalRaised))
    assert say_reading(raised.readings[1]).startswith(
        "recall of bear of planted cases at least 60 %: "
    )
    assert any(isinstance(event, Widened) for event in events)


SETS = Lever("logos", ("a", "b"), many=True)
ONE = Lever("alarm", LABELS)


@pytest.mark.parametrize("lever", [ONE, SETS], ids=["label", "set"])
@pytest.mark.parametrize("measure", ["recall", "agreement"])
def test_a_missing_decision_on_a_planted_case_never_helps(measure, lever):
    answers = ("a", "b", "a;b") if lever.many else LABELS
    label = lever.labels[0] if measure == "recall" else None
    condition = Condition(
        MEASURES[measure], 0.9, label=label, lever=lever.id, population=PlantedUnits()
    )
    classes = [
        UnitClass(lever.id, predicted, decided)
        for predicted in (*answers, FAILED)
        for decided in (MISSING, *answers)
    ]
    counts = UnitClasses(tuple(classes), a_policy(levers=(lever,))).get_class_counts(condition)
    gains = (counts[:, 0] - counts[:, 1]).reshape(len(answers) + 1, -1)
    assert (gains[:, :1] <= gains[:, 1:]).all()
    assert gains[-1, 0] == -1


def test_the_report_counts_units_without_a_decision_as_gates_do():
    pairs = [("bear", "bear"), ("fox", "bear"), ("fox", MISSING), ("bear", MISSING)]
    unit_classes = UnitClasses(
        tuple(UnitClass("alarm", *pair) for pair in pairs), a_policy(levers=(ONE,))
    )
    numbers = np.arange(len(pairs))
    rows = UnitArrays(*(numbers * 0, numbers, numbers, numbers, numbers, numbers))
    view = SimpleNamespace(
        planted_rows=rows, gate_rows=rows, unit_classes=unit_classes, policy=unit_classes.policy,
        conditions=(),
    )  # fmt: skip
    (recall,) = compute_planted_recall(view, 0)
    assert (recall.label, recall.planted.count, recall.planted.n) == ("bear", 1, 3)
    assert (recall.missing, recall.natural.count, recall.natural.n) == (1, 1, 2)
    view.conditions = (replace(RECALL, label="none"),)
    assert [(r.label, r.missing) for r in compute_planted_recall(view, 0)][1:] == [("none", 2)]


@pytest.mark.slow
def test_a_planted_case_is_in_no_natural_unit_and_in_one_planted_one():
    done = replay(build_policy(), *NATURAL, ("p1", 9.0, "bear", "bear", "damage"))
    assert "p1" not in {*done.units["case_key"], *done.history.cases["case_key"]}
    ((_, rows),) = done.result.units.cells.items()
    assert (len(rows.planted), len(rows.gate)) == (1, len(NATURAL))


PLANTED = st.tuples(
    st.floats(2, 30, allow_nan=False), st.sampled_from([*LABELS, None]),
    st.sampled_from([*LABELS, None]), st.sampled_from(["damage", None]),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["case", "episode"])
@examples(given(st.lists(PLANTED, min_size=1, max_size=30)), fast=2, whole=40)
def test_any_number_of_planted_cases_changes_no_natural_unit_or_event(unit, drawn):
    policy = build_policy(unit)
    planted = [(f"p{i}", *row) for i, row in enumerate(drawn)]
    alone, beside = replay(policy, *NATURAL), replay(policy, *NATURAL, *planted)
    assert beside.result.events == alone.result.events
    assert sorted(map(repr, beside.units.rows())) == sorted(map(repr, alone.units.rows()))
    assert beside.records.cases.equals(alone.records.cases)
    assert beside.records.planted is not None
    assert beside.records.planted.cases.height == len(planted)


@pytest.mark.simulation  # two whole reports
def test_the_report_shows_planted_recall_apart_and_no_other_figure_moves():
    planted = [(f"p{i}", 2.0 + i / 20, "fox" if i else "bear", "bear", "damage") for i in range(8)]
    alone, beside, live = (
        compute_report_facts(replace(build_replay_inputs(replayed), is_simulated=is_simulated))
        for rows, is_simulated in (((), True), (planted, True), (planted, False))
        for replayed in [replay(build_policy(), *NATURAL, *rows)]
    )
    assert live.planted_cases == 0  # there the count would tell that a new case is planted
    (recall,) = beside.evidence[0].planted
    assert (recall.label, recall.planted.count, recall.planted.n) == ("bear", 1, 8)
    assert recall.natural.count == recall.natural.n > 5
    cleared = tuple(replace(facts, planted=()) for facts in beside.evidence)
    natural = replace(beside, evidence=cleared, planted_cases=0)
    assert render_json_report(natural) == render_json_report(alone)
    assert "\n8 planted cases, not in these figures\n" in render_text_report(beside)
    assert "planted" not in render_text_report(alone)
    page = render_html_report(beside)
    assert "Of planted cases" in page
    assert "<p>8 planted cases, not in these figures.</p>" in page
    assert "Of planted cases" not in render_html_report(alone)
