"""What stands on top of every report: who has to do something, and where the model goes wrong."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.features.reports.figures.drift import NewValue
from rollout.features.reports.figures.evidence_facts import OpenProposal
from rollout.features.reports.figures.slices import DivergentSlice
from rollout.features.reports.pages.html_report import (
    find_confusions,
    render_html_report,
    slice_kinds,
)
from rollout.features.reports.pages.report_tiles import build_cell_rows
from rollout.features.reports.pages.summary import describe_results
from tests.features.reports.conftest import NOON
from tests.page_text import collapse_space

WAITS = "widening to supervised (P-3) needs 1 more approval; open until Mon 9 Mar 12:00 CET"
PROPOSAL = OpenProposal(
    "creek", "day", "v1", "widening", "supervised", "P-3", needed=1, until="Mon 9 Mar 12:00 CET"
)


def found(name, kind, follows="cases"):
    return DivergentSlice(
        names=((kind, name),), name=name, summary="", n=120, differ=41, share=41 / 120, low=0.26,
        high=0.43, method="exact", elsewhere=0.03, at_least=0.17, p=1e-9, same_units_as=(),
        model_right=2, human_right=30, wrong_side=follows,
    )  # fmt: skip


def with_slices(facts, *slices):
    (search,) = facts.slice_searches
    return replace(facts, slice_searches=(replace(search, slices=slices),))


def told(facts, start, view=None):
    return [line for line in describe_results(facts, view) if line.startswith(start)]


def test_slices_are_named_with_counts_and_with_whose_fault_they_are(facts):
    slices = (found("scanner worn", "scanner"), found("person ana", "person", "person"))
    (line,) = told(with_slices(facts, *slices), "v1 differs")
    agree = "outcomes or second reviewers mostly agree with"
    assert f"scanner worn (41 of 120, 34.2\xa0% against 3.0\xa0%; {agree} humans)" in line
    assert line.endswith(f"; {agree} the model).")


def test_labels_and_what_comes_after_the_first_three_stay_in_their_table(facts):
    many = [found(f"camera {n}", "camera") for n in range(4)]
    (line,) = told(with_slices(facts, found("called bear", "label"), *many), "v1 differs")
    assert "camera 2" in line
    assert "camera 3" not in line
    assert "called bear" not in line
    assert told(with_slices(facts, found("called bear", "label")), "v1 differs") == []


def test_a_proposal_that_waits_for_people_comes_first(facts):
    first, *rest = facts.evidence
    waiting = replace(first, next_step=WAITS, proposal=PROPOSAL)
    lines = describe_results(replace(facts, evidence=(waiting, *rest)))
    assert lines[0] == f"{first.site} · {first.window}: v1: {WAITS}."
    assert not any("more approval" in line for line in describe_results(facts))


def test_proposals_beyond_three_are_counted(facts):
    waiting = replace(facts.evidence[0], next_step=WAITS, proposal=PROPOSAL)
    lines = describe_results(replace(facts, evidence=(waiting,) * 5))
    assert lines[3] == "2 more proposals in the table below."


def test_a_value_that_came_after_shadow_is_named_with_its_share(facts):
    new = NewValue("creek", "form", "new", 40, 90, "creek-7", NOON + timedelta(days=1), "")
    (line,) = told(replace(facts, drift=replace(facts.drift, new_values=(new,))), "creek had")
    assert "form “new” in shadow; since then 40 of 90 cases have it" in line
    assert "Tue 3 Mar 12:00" in line


def test_an_operator_reads_less_on_top_than_an_engineer(facts):
    told_less = with_slices(facts, found("scanner worn", "scanner"))
    assert set(describe_results(told_less, "operator")) < set(describe_results(told_less))
    assert not told(told_less, "v1 ", "operator")


@pytest.mark.parametrize("count", [1, 5])
def test_the_first_cases_of_each_kind_are_open_and_the_rest_is_behind(facts, count):
    (losses,) = facts.losses
    first, rest = slice_kinds(losses.top, 0, count), slice_kinds(losses.top, count)
    assert sorted(first + rest, key=repr) == sorted(losses.top, key=repr)
    assert {row.kind for row in first} == {row.kind for row in losses.top}
    assert max(sum(r.kind == row.kind for r in first) for row in first) <= count


def test_what_is_taken_for_what_is_told_in_words(facts):
    (figures,) = facts.agreements
    pair = find_confusions(figures.label_matrix, 1)[0]
    page = collapse_space(render_html_report(facts, "engineer"))
    assert f"{pair.human} as {pair.model} ({pair.times} of {pair.human_total})" in page


def test_cells_that_are_held_back_are_told_before_all_else_and_once_each(facts):
    held = "suspended until the guard is within its threshold again: latency at most 1 s"
    first, *rest = (
        replace(e, next_step=held, withheld="suspended") if e is facts.evidence[0] else e
        for e in facts.evidence
    )
    other = replace(first, version="v0", acting=not first.acting)
    waiting = replace(first, window="night", next_step=WAITS, proposal=PROPOSAL)
    lines = describe_results(replace(facts, evidence=(first, other, waiting, *rest)))
    assert lines[0] == f"{first.site} · {first.window} is {held}."
    assert WAITS in lines[1]


def test_the_page_says_of_each_cell_what_its_row_has(facts):
    rows = list(build_cell_rows(facts))
    page = render_html_report(facts, "operator")
    assert [row.cell for row in rows] == [
        "creek · day", "creek · night", "meadow · day", "meadow · night"
    ]  # fmt: skip
    told = rows[2]
    assert (told.estimate, told.units, told.bound) == ("100\xa0%", 1, "≥ 2.7\xa0%")
    assert f'<td data-label="Agreement" class="n">{told.estimate}' in page


def test_narrowings_that_no_quality_guard_explains_are_results_too(facts):
    lines = describe_results(replace(facts, hindsights=()))
    assert any(
        line.startswith("creek · day, Fri 6 Mar 12:00: v1 narrowed to supervised") for line in lines
    )
    assert "No guard narrowed a cell." not in lines
    narrowed = [event for event in facts.events if event.kind == "Narrowed"]
    many = replace(facts, hindsights=(), events=(*facts.events, *narrowed))
    assert "1 more narrowing in the timeline." in describe_results(many)
    suspended = [replace(event, kind="Suspended") for event in narrowed]
    lines = describe_results(replace(facts, hindsights=(), events=tuple(suspended)))
    assert "No guard narrowed a cell." in lines
    assert not any("tripped" in line for line in lines)
    none = replace(facts, hindsights=(), events=())
    assert "No guard narrowed a cell." in describe_results(none)
