"""A draft against the policy in force: as two replays, and unknown where nobody answered."""

import random
import re
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.evidence.case_placement import split_populations
from rollout.features.reports.figures.methods import build_model_cases, compute_cell_costs
from rollout.features.reports.inputs.inputs import (
    HUMAN,
    MODEL,
    assign_deciders,
    compute_stage_histories,
)
from rollout.features.what_if import comparison
from rollout.features.what_if.comparison import (
    DRAW_COUNT,
    WhatIfInputs,
    WhatIfTotals,
    compare_policies,
    describe_ranges,
    describe_result,
    format_figure,
    list_cells,
    list_figures,
    list_made_up_salts,
    merge_stages,
)
from rollout.features.what_if.replayed_policy import (
    WhatIfFigures,
    WhatIfRecords,
    check_comparable,
    compute_figures,
    replay_policy,
)
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import parse_policy
from tests.features.reports.conftest import BEARS, NOON, Case, inputs_of, records_of, story
from tests.properties import examples

SALT = bytes(range(32))
AUDITS, UNITS = "audit: 30%", "units: 40"
DRAFT = BEARS.replace(AUDITS, "audit: 60%").replace(UNITS, "units: 20")
DAY = timedelta(days=1)
one_draw = pytest.mark.usefixtures("_one_draw")
"""At tests of what doesn't come from the other draws, ten replays of each policy."""


@pytest.fixture
def _one_draw(monkeypatch):
    monkeypatch.setattr(comparison, "DRAW_COUNT", 1)


def compared(records, draft=DRAFT, **more):
    given_records = WhatIfRecords(records, **more)
    inputs = WhatIfInputs(BEARS, draft, given_records, SALT, NOON - DAY, NOON + 6 * DAY, 7)
    return compare_policies(inputs)


def cell_of(cells, site="creek"):
    return next(cell for cell in cells if (cell.site, cell.window) == (site, "day"))


def stages_of(cell):
    return [(part.stage, part.version, part.since) for part in cell.intervals]


@pytest.mark.slow
def test_each_side_is_a_replay_of_the_same_records():
    cases = story()
    result = compared(records_of(cases))
    for text, side in ((BEARS, "current"), (DRAFT, "draft")):
        inputs = inputs_of(cases, parse_policy(text), SALT)
        stages = {(c.site, c.window): stages_of(c) for c in compute_stage_histories(inputs)}
        costs = compute_cell_costs(build_model_cases(inputs, assign_deciders(inputs)))
        (price,) = [row.cost for row in costs if (row.site, row.window) == ("creek", "day")]
        found = getattr(cell_of(result.cells), side)
        assert stages_of(found) == stages["creek", "day"]
        assert found.figures.model == price.cases > 0
        assert (found.figures.wrong, found.figures.cost) == (price.wrong.count, price.cost)
        assert not found.figures.is_estimated
        assert getattr(result, side).figures.model == price.cases
        assert getattr(result, side).is_sure
    assert result.draft.figures != result.current.figures
    assert (result.revision, result.cases) == (7, len(cases))
    assert len(set(result.salts)) == 1 + DRAW_COUNT >= 1 + 10
    assert SALT not in list_made_up_salts()
    assert result.known_draws == DRAW_COUNT
    assert result.draft.model_range.least < result.draft.model_range.most
    assert {change.section for change in result.changes} == {"stages", "gates"}
    both = next(change for change in result.changes if change.section == "gates")
    assert both.totals.figures.model != result.draft.figures.model


@pytest.mark.slow
@one_draw
def test_the_words_say_what_opens_and_narrows_at_other_times():
    """The draft needs three times the units; the model breaks on the fifth morning."""
    slower = DRAFT.replace("units: 20, days: 1}}\n  - {to", "units: 120, days: 1}}\n  - {to")
    row = next(
        row
        for row in list_cells(compared(records_of(story()), slower))
        if row.name.startswith("creek ")
    )
    opened, narrowed = row.changes[0], row.changes[-1]
    assert re.fullmatch(r"Supervised \d+ hours later: from .* instead of .*\.", opened)
    assert re.fullmatch(r"First narrowed .* Mar 2026 .* instead of .*\.", narrowed)
    same = list_cells(compared(records_of(story()), BEARS))
    assert {row.changes for row in same if row.name.startswith("creek ")} == {
        ("Opens and narrows at the same times.",),
        ("Stays in shadow.",),
    }
    assert {row.effect for row in same} == {"same"}


@pytest.mark.slow
@one_draw
def test_a_change_that_cant_stand_alone_is_named_without_figures():
    gone = BEARS.replace("  - {to: autonomous", "  #- {to: autonomous").replace(
        "     minimum: {units: 20", "     #minimum: {units: 20"
    )
    draft = gone.replace(", {id: autonomous, audit: 30%}", "")
    changes = {
        change.section: change.totals for change in compared(records_of(story()), draft).changes
    }
    assert set(changes) == {"stages", "gates"}
    assert changes["stages"] is None, "a gate would open a stage that is not there"


@pytest.mark.slow
@one_draw
def test_a_cell_whose_answers_nobody_gave_is_unknown_and_no_disagreement():
    cases = [case if n < 200 else replace(case, human=None) for n, case in enumerate(story())]
    cases = [replace(case, outcome=None) for case in cases]
    result = compared(records_of(cases))
    pair = cell_of(result.cells)
    assert pair.effect == "unknown"
    for side in (pair.current, pair.draft):
        assert (side.figures, side.is_sure) == (None, False)
        assert cases[200].at <= side.unknown.at < cases[300].at
        assert side.answered == 200
        assert side.unknown.missing > 0.05 * side.unknown.needed
    assert result.draft.figures.model == 0
    assert result.draft.answered < result.draft.needed
    row = next(row for row in list_cells(result) if row.name == "creek · day")
    start = pair.draft.unknown
    assert (
        f": {start.missing} of the {start.needed} answers needed until then do not"
        in row.changes[1]
    )


@pytest.mark.slow
@one_draw
def test_one_of_the_first_units_without_an_answer_leaves_the_cell_known():
    """Seen: a cell unknown from its first hour on, though humans answered 99 % of its cases."""
    cases = [replace(case, outcome=None) for case in story()]
    cases[2] = replace(cases[2], human=None)
    pair = cell_of(compared(records_of(cases)).cells)
    assert (pair.current.unknown, pair.draft.unknown) == (None, None)
    assert pair.draft.missing == 1
    assert pair.draft.figures.model > 0
    assert not pair.draft.is_sure


def test_figures_of_cases_without_an_answer_are_estimated_by_their_shares():
    bears, cases = parse_policy(BEARS), [replace(case, outcome=None) for case in story()]
    whole = cell_of(replay_policy(bears, WhatIfRecords(records_of(cases)), SALT))
    kept, shares = record_under(cases, bears, SALT)
    part = cell_of(replay_policy(bears, WhatIfRecords(records_of(kept), shares=shares), SALT))
    assert (part.figures.is_estimated, part.is_sure, whole.is_sure) == (True, False, True)
    assert stages_of(part) == stages_of(whole)
    assert part.figures.known < part.figures.model == whole.figures.model
    assert part.figures.wrong == pytest.approx(8 * 159 / 46), "8 of 46 audits stand for 159"
    assert abs(part.figures.wrong - whole.figures.wrong) < 0.5 * whole.figures.wrong


@pytest.mark.slow
def test_without_ranges_the_reason_and_the_cells_are_named(monkeypatch):
    """Seen: empty ranges on records of a rollout that audits 30 %, and no reason."""
    monkeypatch.setattr(comparison, "DRAW_COUNT", 2)
    cases = [replace(case, outcome=None) for case in story()]
    kept, shares = record_under(cases, parse_policy(BEARS), SALT)
    result = compared(records_of(kept), BEARS.replace(AUDITS, "audit: 25%"), shares=shares)
    assert (result.known_draws, result.unknown_in_draws) == (0, ("creek · day",))
    assert cell_of(result.cells).current.unknown is None
    assert describe_ranges(result) == (
        "No ranges are given: each of 2 other random draws audits other cases, and too many of"
        " those have no human answer. This happens in creek · day."
    )
    assert {row.current_range for row in list_figures(result)} == {""}
    some = replace(result, known_draws=1, unknown_in_draws=("a", "b", "c", "d", "e"))
    assert "in 1 more, too many audited cases" in describe_ranges(some)
    assert "This happens in a, b, c and 2 more." in describe_ranges(some)
    none = describe_ranges(replace(result, unknown_in_draws=()))
    assert none == "No ranges are given, since no cell can be known under both policies."


@pytest.mark.parametrize(
    ("name", "value", "is_sure", "is_estimated", "text"),
    [
        ("model", 874, True, False, "874"),
        ("model", 874, False, False, "about 874"),
        ("model", 0, True, False, "0"),
        ("model", 0, False, True, "probably 0"),
        ("wrong", 0.0, False, True, "none in 48 known"),
        ("wrong", 0.0, False, False, "probably 0"),
        ("wrong", 0.4, False, True, "probably less than 1"),
        ("cost", 0.4, True, False, "less than 1"),
        ("cost", 0.6, False, True, "about 1"),
        ("cost", None, False, True, "unknown"),
    ],
)
def test_a_figure_near_zero_says_what_is_known(name, value, is_sure, is_estimated, text):
    """Seen: "about 0" for no divergence among the judged cases, and for a cell in shadow."""
    figures = WhatIfFigures(1, 2, 48, 3.0, 3.0, is_estimated)
    totals = WhatIfTotals(replace(figures, **{name: value}), 1, 1, is_sure)
    assert format_figure(name, totals) == text


@pytest.mark.slow
@one_draw
def test_a_difference_below_one_is_not_called_none():
    result = compared(records_of(story()))
    figures = replace(result.current.figures, cost=result.draft.figures.cost - 0.3)
    rows = list_figures(replace(result, current=replace(result.current, figures=figures)))
    assert [row.difference for row in rows if row.name.startswith("Cost")] == ["less than 1"]


def test_a_rarer_audit_stands_for_more_cases():
    """Four cases, audited at 20 % and at 80 %: the first audit weighs four times the second."""
    rows = pl.DataFrame(
        {
            "decider": [MODEL] * 4,
            "audited": [True, False, True, False],
            "known": [True, False, True, False],
            "by_outcome": [False] * 4,
            "wrong": [True, None, False, None],
            "cost": [20.0, None, 0.0, None],
            "share": [0.2, 0.2, 0.8, 0.8],
        }
    )
    figures = compute_figures(rows)
    assert (figures.wrong, figures.cost) == (pytest.approx(3.2), pytest.approx(64))
    assert (figures.model, figures.human, figures.known) == (4, 2, 2)


def test_a_known_outcome_stands_for_itself_alone():
    bears = parse_policy(BEARS)
    kept, shares = record_under(story(), bears, SALT)
    kept = [case if n % 3 else replace(case, outcome=None) for n, case in enumerate(kept)]
    figures = cell_of(
        replay_policy(bears, WhatIfRecords(records_of(kept), shares=shares), SALT)
    ).figures
    whole = cell_of(replay_policy(bears, WhatIfRecords(records_of(story())), SALT)).figures
    assert figures.is_estimated
    assert abs(figures.wrong - whole.wrong) < whole.wrong / 4


def test_policies_with_other_levers_or_with_outcomes_are_not_compared():
    other = BEARS.replace("id: alarm", "id: siren")
    with pytest.raises(RefusalError, match=r"in force: alarm, in the draft: siren"):
        compared(records_of(story()), other)


def test_a_draft_with_other_labels_is_not_compared():
    other = BEARS.replace("labels: [bear, no-bear]", "labels: [wolf, no-bear]")
    other = other.replace("bear: sound-alarm", "wolf: sound-alarm")
    with pytest.raises(RefusalError, match="changes the labels or the number of alarm"):
        check_comparable(parse_policy(BEARS), parse_policy(other))


@pytest.mark.slow
@one_draw
@pytest.mark.parametrize("cells", ["brook, meadow", "creek, meadow, brook"])
def test_the_first_sentence_is_of_cells_that_both_policies_have(cells):
    """Seen: 0 cases instead of 0 for a renamed site in which the model decides 171."""
    both = [*story(), *[replace(case, key=f"{case.key}b", site="brook") for case in story()]]
    result = compared(records_of(both), BEARS.replace("creek, meadow", cells))
    known = [cell for cell in result.cells if None not in (cell.current, cell.draft)]
    sentence = describe_result(result)
    assert len(known) < len(result.cells)
    assert f"In the {len(known)} of {len(result.cells)} cells that can be known" in sentence


def test_a_new_stage_stands_below_the_next_that_both_have():
    assert merge_stages(("shadow", "autonomous"), ("shadow", "pilot", "autonomous")) == (
        *("shadow", "pilot", "autonomous"),
    )


@pytest.mark.slow
@one_draw
def test_planted_cases_that_nobody_answered_leave_nothing_sure():
    """Seen: 0 cases instead of 171 without "about", since an unanswered one counts as missed."""
    require = "require: [{measure: agreement, at_least: 80%}"
    planted_recall = "{measure: recall, label: bear, of: planted, at_least: 60%}"
    draft = BEARS.replace(f"{require}], risk: 6.25%", f"{require}, {planted_recall}], risk: 6.25%")
    assert draft != BEARS
    planted = [
        replace(case, key=f"p{case.key}", human=None, model={"v1": "bear"}, outcome=None)
        for case in story()[::3]
    ]
    records = split_populations(records_of([*story(), *planted]), {case.key for case in planted})
    assert not compared(records, draft).draft.is_sure


def record_under(cases, policy: Policy, salt):
    """Return the cases with the answers that a rollout asks for, and the shares of these."""
    decided = assign_deciders(inputs_of(cases, policy, salt))
    asked = set(decided.filter((decided["decider"] == HUMAN) | decided["audited"])["case_key"])
    levels = range(1, len(policy.stage_ids))
    share = {0: 1.0} | {level: policy.get_stage(level).reviewed_share for level in levels}
    return (
        [case if case.key in asked else replace(case, human=None) for case in cases],
        decided.select("case_key", share=decided["rung"].replace_strict(share)),
    )


def when(number):
    """Return the time of a case: 130 a day, five minutes apart."""
    day, nth = divmod(number, 130)
    return NOON.replace(hour=5, minute=30) + timedelta(days=day, minutes=5 * nth)


def build_history(seed, errors, change, *, has_outcomes):
    """Return two days at two sites: a share of errors, and a case from which it is another."""
    chance = random.Random(seed)  # noqa: S311 - a story, no secret
    cases = []
    for number in range(260):
        at = NOON.replace(hour=5, minute=30) + timedelta(
            minutes=5 * (number % 130), days=number // 130
        )
        right = chance.choice(("bear", "no-bear"))
        is_wrong = chance.random() < errors[number >= change]
        site = "creek" if number % 4 else "meadow"
        wrong = "no-bear" if right == "bear" else "bear"
        cases.append(
            Case(f"c{number:03}", at, site=site, human=[(chance.choice(("ana", "bo")), right)],
                 model={"v1": wrong if is_wrong else right},
                 outcome=right if has_outcomes else None)
        )  # fmt: skip
    return cases


HISTORIES = st.builds(
    build_history,
    st.integers(0, 99),
    st.tuples(st.sampled_from([0, 0.05, 0.1]), st.sampled_from([0.05, 0.4, 0.9])),
    st.integers(40, 240),
    has_outcomes=st.booleans(),
)
QUICK = BEARS.replace(UNITS, "units: 20").replace("units: 20, days: 1", "units: 15, days: 1")


def write_draft(audit, blind, units, least, missing):
    """Return a policy with these numbers; all are percents but the units."""
    return (
        QUICK.replace(AUDITS, f"audit: {audit}%")
        .replace("blind: 50%", f"blind: {blind}%")
        .replace("units: 15", f"units: {units}")
        .replace("at_least: 80%", f"at_least: {least}%")
        .replace("grace: 1h", f"grace: 1h, missing_at_most: {missing}%")
    )


drafts = st.builds(
    write_draft,
    st.sampled_from([10, 30, 80]),
    st.sampled_from([20, 50, 90]),
    st.sampled_from([10, 15, 30]),
    st.sampled_from([60, 80]),
    st.sampled_from([0, 20, 50]),
)
salts = st.integers(0, 20).map(lambda number: number.to_bytes(32, "big"))
FIRST = QUICK.replace("grace: 1h", "grace: 1h, missing_at_most: 50%")
MANY = [
    Case(f"c{n:03}", when(n), human="bear", model={"v1": "bear"}, outcome="bear")
    for n in range(260)
]


@pytest.mark.slow
@examples(
    given(HISTORIES, drafts, drafts, salts, salts, st.sampled_from([0, 0.02])),
    fast=6,
    whole=60,
)
def test_no_figure_is_sure_where_the_answers_that_are_missing_would_give_another(
    cases, in_force, draft, salt, other_salt, silence
):
    """The records lack what the rollout did not ask for, and some answers that nobody gave."""
    compare_with_whole(cases, in_force, draft, salt, other_salt, silence)


def test_no_figure_is_sure_where_an_unknown_alarm_of_another_cell_would_hold_a_widening():
    """The creek's first answer is missing; with it the creek widens, and its alarm holds others."""
    cases = build_history(53, (0, 0.9), 85, has_outcomes=False)
    in_force, draft = write_draft(80, 90, 15, 80, 20), write_draft(80, 20, 10, 60, 0)
    salt, other_salt = (number.to_bytes(32, "big") for number in (18, 6))
    part, whole = compare_with_whole(cases, in_force, draft, salt, other_salt, silence=0.02)
    (creek, *_), (_, _, meadow, _) = part, part
    assert creek.unknown is not None
    assert (meadow.missing, meadow.is_sure) == (0, False)
    assert stages_of(meadow) != stages_of(whole[2])


@pytest.mark.slow
def test_figures_are_sure_where_all_needed_answers_exist_and_only_there():
    part, whole = compare_with_whole(MANY, FIRST, FIRST, SALT, SALT)
    found, right = cell_of(part), cell_of(whole)
    assert (found.is_sure, found.missing) == (True, 0)
    assert found.answered < right.answered == len(MANY)
    assert found.figures.model > 0
    part, _ = compare_with_whole(MANY, FIRST, FIRST.replace(AUDITS, "audit: 90%"), SALT, SALT)
    assert not cell_of(part).is_sure


def compare_with_whole(cases, in_force, draft, salt, other_salt, silence=0):
    """Replay a draft over what a policy in force leaves of cases, and over all their answers."""
    kept, shares = record_under(cases, parse_policy(in_force), salt)
    chance = random.Random(len(in_force))  # noqa: S311 - a story, no secret
    kept = [replace(c, human=None) if chance.random() < silence else c for c in kept]
    policy = parse_policy(draft)
    part = replay_policy(policy, WhatIfRecords(records_of(kept), shares=shares), other_salt)
    whole = replay_policy(policy, WhatIfRecords(records_of(cases)), other_salt)
    for found, right in zip(part, whole, strict=True):
        if found.is_sure:
            assert stages_of(found) == stages_of(right)
            assert found.figures == right.figures
        if found.unknown is not None:
            assert found.figures is None
    return part, whole
