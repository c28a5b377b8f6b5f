from dataclasses import replace

import pytest

from rollout.reports.pages.text_report import render_text_report


def test_the_story_is_told_the_same_way(facts, snapshot):
    assert render_text_report(facts) == snapshot


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(facts, width):
    assert max(map(len, render_text_report(facts, width).splitlines())) <= width


def test_a_replay_says_that_nobody_allowed_it(facts):
    assert "simulated" in render_text_report(facts)
    real = replace(facts, identity=replace(facts.identity, simulated=False))
    assert "simulated" not in render_text_report(real)


def test_long_timelines_are_cut_and_say_so(facts):
    widened = [h for h in facts.timeline if h.kind == "Widened"]
    long = replace(facts, timeline=tuple(widened[:1] * 50))
    assert "... and 10 more events, in report.html" in render_text_report(long)
