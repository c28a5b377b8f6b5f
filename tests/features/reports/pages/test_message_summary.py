"""The short text of a report: what it is about, whether it may change, and its results."""

from dataclasses import replace

import pytest

from rollout.features.reports.pages import html_report
from rollout.features.reports.pages.html_report import format_page
from rollout.features.reports.pages.summary import describe_report, describe_results
from rollout.features.reports.pages.text_report import (
    escape_markdown,
    render_message_summary,
    render_text_report,
)


def edited(facts, **changed):
    return replace(facts, report_version=replace(facts.report_version, live=True, **changed))


def test_a_message_and_the_terminal_say_the_same(facts):
    told = render_message_summary(facts).splitlines()
    shown = " ".join(render_text_report(facts).split())
    lines = [*describe_report(facts), *describe_results(facts)]
    assert [line.removeprefix("- ") for line in told if line] == [*map(escape_markdown, lines)]
    assert all(" ".join(line.split()) in shown for line in lines)


def test_a_message_to_operators_is_silent_on_agreement_as_their_page_is(facts, monkeypatch):
    monkeypatch.setattr(html_report, "parse_report_facts", lambda _: facts)
    everybody, operators = (format_page({}, "summary", view) for view in (None, "operator"))
    left_out = set(everybody.splitlines()) - set(operators.splitlines())
    assert any("agrees with humans" in line for line in left_out), left_out
    assert not any("agrees with humans" in line for line in operators.splitlines()), operators
    assert set(operators.splitlines()) < set(everybody.splitlines())


def test_names_that_look_like_markup_are_text(facts):
    named = replace(facts, identity=replace(facts.identity, rollout="<img> [x](http://x) @all"))
    title = render_message_summary(named).splitlines()[0]
    assert title.startswith("\\<img\\> \\[x\\](http://x) \\@all, ")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"state": "final"}, "Version 1, FINAL: all cases of the span are closed."),
        ({"state": "provisional", "uncounted_units": 1}, "PROVISIONAL: 1 unit is still open."),
    ],
)
def test_a_services_report_says_whether_it_may_still_change(facts, changed, says):
    assert says in render_message_summary(edited(facts, **changed))
    assert "Version" not in render_message_summary(facts)
