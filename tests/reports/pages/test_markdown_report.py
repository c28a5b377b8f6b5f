"""The Markdown summary: short, in tables, and nobody's words are taken for markup."""

from dataclasses import replace

import pytest

from rollout.reports.figures.report_version import FigureChange
from rollout.reports.pages.markdown_report import MAX_DIVERGENCES, render_markdown_report


def rows_of(text, title):
    """Return the cells of the table under a title, its head left out."""
    _, _, rest = text.partition(f"## {title}")
    lines = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def edited(facts, **changed):
    return replace(facts, report_version=replace(facts.report_version, live=True, **changed))


def test_every_cell_has_a_row_with_its_stage_and_interval(facts):
    rows = rows_of(render_markdown_report(facts), "Cells")
    assert len(rows) == len(facts.stages)
    assert {row[1] for row in rows} == {cell.stage for cell in facts.stages}
    empty = [row for row in rows if row[5] == "0"]
    assert all(row[3:5] == ["no data", "no data"] for row in empty)


def test_the_five_dearest_divergences_are_named(facts):
    rows = rows_of(render_markdown_report(facts), "Costliest of")
    assert len(rows) == MAX_DIVERGENCES
    named = [row[0].replace("\\", "") for row in rows]
    assert named == [one.case_key for one in facts.divergences.top[:MAX_DIVERGENCES]]


def test_labels_that_look_like_markup_are_text(facts):
    top = tuple(
        replace(one, case_key="a|b", human="<img src=x>", model="[x](http://x) @all")
        for one in facts.divergences.top
    )
    text = render_markdown_report(replace(facts, divergences=replace(facts.divergences, top=top)))
    assert "a\\|b" in text
    assert "<img" not in text.replace("\\<img", "")
    assert "\\[x\\](http" in text
    assert "\\@all" in text


def test_without_divergences_it_says_so(facts):
    none = replace(facts.divergences, count=0, top=())
    assert "None: model and humans agree" in render_markdown_report(
        replace(facts, divergences=none)
    )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"state": "final"}, "**FINAL**: all cases of the span are closed"),
        ({"state": "provisional", "uncounted_units": 1}, "**PROVISIONAL**: 1 unit is still open"),
    ],
)
def test_it_says_whether_it_may_still_change(facts, changed, says):
    assert says in render_markdown_report(edited(facts, **changed))
    assert "A replay of recorded history." in render_markdown_report(facts)


def test_what_changed_since_the_last_version_is_listed_and_the_rest_counted(facts):
    changed = tuple(FigureChange(f"rows[{number}].n", "1", None) for number in range(12))
    text = render_markdown_report(edited(facts, version=3, changed=changed, more_changed=5))
    rows = rows_of(text, "What changed since version 2: 17 figures")
    assert len(rows) == 10
    assert rows[0] == ["rows\\[0\\].n", "1", "no data"]
    assert "… and 7 more, in the report itself." in text
