"""Cleaning: the list's order, and what choices do to agreement, said apart."""

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from rollout.engine.records.reviews import (
    DROP,
    KEEP,
    RELABEL,
    CleaningChoice,
    InvalidChoiceError,
    InvalidDecisionError,
    check_choice,
    find_final_choices,
)
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.figures.label_issues import (
    build_item_rows,
    build_work_list,
    compute_cleaning,
)
from rollout.features.reports.inputs import losses
from rollout.features.reports.inputs.losses import CONFIDENT_DIFFERENT
from rollout.features.reports.inputs.pairs import build_pairs
from rollout.features.reports.pages.html_report import render_html_report
from tests.features.reports.conftest import NOON, Case

MINUTE = timedelta(minutes=1)
ALL_SITES = {"", "creek", "meadow"}.__contains__


def cases():
    """Return twenty cases: four false bears, four missed ones, which cost more, all else alike."""
    said = ["bear"] * 4 + ["no-bear"] * 4 + ["no-bear"] * 12
    right = ["no-bear"] * 4 + ["bear"] * 4 + ["no-bear"] * 12
    return [
        Case(f"c{n:02}", NOON + n * MINUTE, human=right[n], model={"v1": said[n]})
        for n in range(20)
    ]


def choice(key, what, label=None):
    return CleaningChoice(key=key, lever="alarm", choice=what, label=label, by="mia", at=NOON)


CHOICES = (
    choice("c00", RELABEL, "bear"),
    choice("c01", RELABEL, "bear"),
    choice("c01", KEEP),  # thought better of it
    choice("c02", DROP),
    choice("c08", RELABEL, "bear"),
    choice("gone", DROP),
)


def cleaned(replay_of, choices):
    inputs = replace(replay_of(cases()), choices=choices)
    return compute_cleaning(inputs, build_pairs(inputs.records, inputs.cases, inputs.policy))


def test_agreement_is_said_before_and_after(replay_of):
    (one,) = cleaned(replay_of, CHOICES).headlines
    assert (one.before.count, one.before.n) == (12, 20)
    assert (one.after.count, one.after.n) == (12, 19)  # one more, one fewer, one left out
    assert (one.relabelled, one.dropped, one.kept, one.relabelled_to_model) == (2, 1, 1, 1)
    assert one.after.method.startswith("Clopper–Pearson")


def test_where_nobody_chose_nothing_is_said(replay_of):
    assert cleaned(replay_of, ()).headlines == ()
    assert not cleaned(replay_of, ()).has_choices
    assert cleaned(replay_of, (choice("gone", DROP),)).headlines == ()


@pytest.mark.slow
def test_choices_change_no_figure_but_their_own(replay_of):
    inputs = replay_of(cases())
    before, after = (
        compute_report_facts(inputs),
        compute_report_facts(replace(inputs, choices=CHOICES)),
    )
    assert after.cleaning != before.cleaning
    assert after.feedback_loops != before.feedback_loops  # whose labels the training rows have
    same = {"cleaning": before.cleaning, "feedback_loops": before.feedback_loops}
    assert replace(after, **same) == before
    page = render_html_report(after)
    assert "After (not evidence)" in page
    assert "no gate uses them" in page


def test_the_list_begins_with_what_costs_most(replay_of):
    inputs = replay_of(cases())
    found = build_work_list(
        inputs.records, inputs.cases, inputs.policy, find_final_choices(CHOICES)
    )
    assert [item.loss.case_key for item in found[:5]] == ["c04", "c05", "c06", "c07", "c00"]
    rows = list(build_item_rows(found))
    assert (rows[0]["choice"], rows[0]["cost"]) == (None, 20.0)
    assert (rows[4]["choice"], rows[4]["label"]) == (RELABEL, "bear")
    assert len({item.name for item in found}) == len(found) == 8


def build_list(replay_of, choices=CHOICES):
    inputs = replay_of(cases())
    final = find_final_choices(choices)
    return build_work_list(inputs.records, inputs.cases, inputs.policy, final)


def test_only_the_issues_of_a_page_are_built(replay_of, monkeypatch):
    """Of a million cases 128,000 became objects, half of the time, to show a hundred."""
    built, build = [], losses._build_loss

    def note(row, *args):
        built.append(row["case_key"])
        return build(row, *args)

    monkeypatch.setattr(losses, "_build_loss", note)
    issues = build_list(replay_of)
    readable = issues.select_sites(ALL_SITES).select_chosen(has_choice=False)
    assert (len(readable), readable.count_kinds()) == (5, {CONFIDENT_DIFFERENT: 5})
    start = readable.find_place_after(issues[0].name)
    assert built == ["c04"]
    assert [issue.loss.case_key for issue in readable[start : start + 2]] == ["c05", "c06"]
    assert built == ["c04", "c05", "c06"]
    assert list(issues) == list(issues[:]) == [issues[place] for place in range(8)]
    assert issues[-1] == issues[7]
    with pytest.raises(IndexError):
        issues[8]


def test_the_list_has_the_sites_and_choices_that_are_asked_for(replay_of):
    issues = build_list(replay_of)
    creek = issues.select_sites(lambda site: site == "creek")
    assert creek.case_keys == issues.case_keys
    assert not issues.select_sites(lambda site: site != "creek")
    assert issues.select_chosen(has_choice=True).case_keys == ["c00", "c01", "c02"]
    assert [issue.choice for issue in issues.select_chosen(has_choice=False)] == [None] * 5
    assert build_list(replay_of, ()).select_chosen(has_choice=True).case_keys == []


def test_a_case_without_a_site_is_listed_for_who_may_read_all_sites(replay_of):
    inputs = replay_of(cases())
    records = replace(
        inputs.records, cases=inputs.records.cases.filter(pl.col("case_key") != "c04")
    )
    issues = build_work_list(records, inputs.cases, inputs.policy, {})
    assert issues[0].loss.site is None
    assert "c04" not in issues.select_sites(bool).case_keys
    assert "c04" in issues.select_sites(ALL_SITES).case_keys


def test_the_place_after_an_unknown_issue_is_the_first(replay_of):
    issues = build_list(replay_of)
    names = [issue.name for issue in issues]
    assert [issues.find_place_after(name) for name in names] == list(range(1, 9))
    assert (issues.find_place_after(None), issues.find_place_after("none")) == (0, 0)


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (("alarm", "burn", None), "burn is no choice; write relabel, drop, keep"),
        (("lid", DROP, None), "no lever lid; there is alarm"),
        (("alarm", RELABEL, None), "relabel needs the new label"),
        (("alarm", KEEP, "bear"), "keep takes no label"),
        (("alarm", DROP, None, "x" * 1_001), "a reason has at most 1000 characters"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(bears, wish, says):
    with pytest.raises(InvalidChoiceError, match=says):
        check_choice(bears, *wish)


def test_a_label_that_the_lever_has_not_is_refused(bears):
    with pytest.raises(InvalidDecisionError, match="one of bear, no-bear"):
        check_choice(bears, "alarm", RELABEL, "wolf")
    check_choice(bears, "alarm", RELABEL, "bear", "ears")
