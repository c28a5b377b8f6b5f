"""Timelines in a report: the cells with events, with the figures of their evidence."""

from html import unescape

from rollout.engine.words.event_kinds import CELL_KINDS
from rollout.features.reports.figures import cell_timeline
from rollout.features.reports.pages.html_report import render_html_report
from rollout.features.reports.pages.timeline_chart import DECIDED_UNITS_TEXT, describe_timeline


def test_cells_with_events_have_a_timeline_in_the_policys_order(told):
    _, facts = told
    drawn = [(timeline.site, timeline.window) for timeline in facts.cell_timelines]
    moved = {(e.site, e.window) for e in facts.events if e.kind in CELL_KINDS and e.site}
    assert drawn
    assert drawn == [(c.site, c.window) for c in facts.stages if (c.site, c.window) in moved]


def test_a_timeline_ends_with_the_figures_of_the_evidence(told):
    _, facts = told
    compared = 0
    for timeline in facts.cell_timelines:
        versions = {version.version: version for version in timeline.versions}
        for evidence in facts.evidence:
            if (evidence.site, evidence.window) != (timeline.site, timeline.window):
                continue
            paths = [path for path in evidence.path if path.measure == timeline.measure]
            points = versions[evidence.version].points
            assert sum(point.judged for point in points) >= evidence.decided_units
            bounds = [point.bound for point in points if point.bound is not None]
            if paths and bounds:
                assert abs(bounds[-1] - paths[-1].bound[-1]) < 1e-6
                compared += 1
        assert {stage.decider for stage in timeline.stages} - {"human"}
    assert compared


def test_a_page_says_which_units_the_figures_of_a_timeline_are_of(told):
    """Seen: 238 units decided by humans beside 231 decided units of a version."""
    _, facts = told
    timeline = facts.cell_timelines[0]
    version = timeline.versions[0]
    judged = sum(point.judged for point in version.points)
    text = describe_timeline(timeline).replace(",", "")
    assert f"{version.version}: {judged} decided units" in text
    assert DECIDED_UNITS_TEXT in unescape(render_html_report(facts, "engineer"))


def test_only_the_cells_with_most_events_are_drawn(told, monkeypatch):
    inputs, facts = told
    monkeypatch.setattr(cell_timeline, "MAX_TIMELINES", 1)
    (only,) = cell_timeline.compute_cell_timelines(inputs, {})
    assert len(only.marks) == max(len(timeline.marks) for timeline in facts.cell_timelines)
