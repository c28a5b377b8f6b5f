"""The mail room's story in the terminal, and what plain rules would have done."""

import re
from dataclasses import replace
from unittest.mock import Mock

import pytest

from rollout.engine.words.formatting import format_percent
from rollout.features.demo.catalog import MAIL_ROOM, find_example
from rollout.features.demo.story import (
    BLOCKS_RULE,
    CELL_RULE,
    CONFIDENCE_RULE,
    LINE_WIDTH,
    ROLLOUT_RULE,
    compute_plain_rules,
    describe_condition,
    play_example,
)
from rollout.features.reports.inputs import inputs, pairs
from rollout.kernel.calendar.instants import Cell
from tests.examples.plays import play_example_story

pytestmark = pytest.mark.simulation


@pytest.fixture(scope="module")
def story():
    return play_example_story(find_example(MAIL_ROOM))


def test_story_report_and_divergences_share_their_pairs_and_cases(monkeypatch):
    build_lever_pairs, levers = pairs._build_lever_pairs, []
    case_facts = Mock(wraps=inputs.build_case_frame)

    def count_lever_pairs(records, lever):
        levers.append(lever.id)
        return build_lever_pairs(records, lever)

    monkeypatch.setattr(pairs, "_build_lever_pairs", count_lever_pairs)
    monkeypatch.setattr(inputs, "build_case_frame", case_facts)
    play_example(find_example("bears"))
    assert levers == ["alarm"]
    assert case_facts.call_count == 1


def test_the_story_reads_well(story, snapshot):
    text = story.describe()
    assert max(map(len, text.splitlines())) <= LINE_WIDTH
    assert re.findall(r"^(\d) ", text, re.MULTILINE) == list("12345")
    assert text == snapshot


def test_a_condition_within_its_threshold_needs_more_evidence(story):
    gate = next(evidence.gate for evidence in story.facts.evidence if evidence.gate)
    counts = {"n": 1_498, "counts": (1_430, 68), "estimate": 0.955, "threshold": 0.95, "met": False}
    kind = {"condition": "agreement at least 95 %", "measure": "agreement", "at_least": True}
    near = replace(gate.conditions[0], **kind, **counts)
    beyond = replace(near, condition="agreement at least 97 %", threshold=0.97)
    figure = f"1,430 of 1,498 ({format_percent(0.955)}) so far"
    assert describe_condition(near) == (
        f"the gate needs more evidence for agreement at least 95 %: {figure}"
    )
    assert describe_condition(beyond) == f"the gate needs agreement at least 97 %: {figure}"


def test_no_sentence_says_that_the_confidence_rule_opens_a_cell(story):
    held = " ".join(story.describe().split("HELD")[1].split("NARROWED")[0].split())
    assert f"on: {CONFIDENCE_RULE}" in held
    assert "open" not in held
    assert "(clerks in the history: 1 of 429)" in held, "a figure has its denominator"


def test_plain_rules_would_have_opened_the_held_cell_and_misrouted_hundreds(story):
    results = {result.rule: result.model_cost for result in story.compute_plain_rules("v1")}
    assert list(results) == [CELL_RULE, BLOCKS_RULE, ROLLOUT_RULE, CONFIDENCE_RULE]
    for rule in (CELL_RULE, BLOCKS_RULE, ROLLOUT_RULE):
        assert results[rule].wrong_action.count > 300
        assert results[rule].human_wrong_action < 40
        assert results[rule].cost > results[rule].human_cost
    sure = results[CONFIDENCE_RULE]
    assert 0 < sure.wrong_action.count < sure.known_cases < 600


def test_a_rule_that_never_opens_a_cell_lets_the_model_decide_nothing(story):
    first, *_ = compute_plain_rules(story.inputs, Cell("halifax", "night"), "v1", 1.0)
    cost = first.model_cost
    assert (first.opened_at, cost.cases, cost.wrong_action.count, cost.cost) == (None, 0, 0, None)


def test_suspensions_are_counted_beside_narrowings(story):
    """Seen: cells of bears fall to shadow twice, and the count of narrowings says nothing of it."""
    narrowing = next(event for event in story.facts.events if event.kind == "Narrowed")
    suspension = replace(narrowing, kind="Suspended")
    timeline = (*story.facts.events, suspension, suspension)
    suspended = replace(story, facts=replace(story.facts, events=timeline))
    assert next(story._describe_narrowing()) == "NARROWED automatically: 2 times"
    assert next(suspended._describe_narrowing()) == (
        "NARROWED automatically: 2 times, suspended 2 times"
    )
