"""The engineer's figures as they stand on the page."""

import re
import sys
from dataclasses import replace

import pytest

from rollout.features.reports.figures.calibration import NO_CONFIDENCES
from rollout.features.reports.figures.drift import Drift
from rollout.features.reports.figures.facts import LatencyQuantile
from rollout.features.reports.figures.slices import DivergentSlice
from rollout.features.reports.pages.html_report import render_html_report
from tests.page_text import collapse_space


@pytest.fixture
def bare(facts, monkeypatch):
    """Return the facts, where nothing can draw: tables have to say it all."""
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    return facts


def section(facts, heading):
    """Return the text of a section, from its heading to the next of the same rank or above."""
    page = collapse_space(render_html_report(facts, view="engineer")).replace("\u00a0", " ")
    after = page[page.index(heading) :]
    after = re.split(r"<h[234]", after)[0]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", after))


@pytest.fixture(scope="module")
def page(facts):
    return render_html_report(facts, view="engineer")


@pytest.mark.parametrize(
    "heading",
    [
        "Slices",
        "Confidence",
        "Drift",
        "Latency",
        "Cases to look at again",
    ],
)
def test_every_figure_has_its_section(page, heading):
    assert page.count(f"<h3>{heading}</h3>") == 1


def test_every_chart_stands_beside_a_table_of_the_same(page):
    for chart, table in (("cal0-title", "Reliability of v1"), ("risk0-title", "Risk and coverage")):
        assert page.index(f'id="{chart}"') < page.index(f'aria-label="{table}')


def test_a_slice_is_told_with_counts_interval_rest_and_whose_fault_it_is(bare):
    found = DivergentSlice(
        names=(("scanner", "worn"),), name="scanner worn at creek · day", summary="",
        n=120, differ=41, share=41 / 120, low=0.258, high=0.434, method="exact",
        elsewhere=0.03, at_least=0.17, p=1e-9, same_units_as=("person ana",), model_right=2,
        human_right=30, wrong_side="cases",
    )  # fmt: skip
    (search,) = bare.slice_searches
    text = section(replace(bare, slice_searches=(replace(search, slices=(found,)),)), "v1: slices")
    assert "scanner worn at creek · day nearly the same units: person ana" in text
    assert "34.2 % 41 of 120 units 25.8 % to 43.4 % 3.0 % 17.0 in 100 under 1 in 1,000,000" in text
    assert "with the model in 2, with humans in 30 mostly with humans" in text


def test_no_slice_is_said_in_words(bare):
    (search,) = bare.slice_searches
    none = section(replace(bare, slice_searches=(replace(search, slices=()),)), "v1: slices")
    assert "No slice stands out" in none
    empty = replace(search, n=0, differ=0, slices=())
    nothing = section(replace(bare, slice_searches=(empty,)), "v1: slices")
    assert "no data: no blind decision" in nothing


def test_missing_confidences_are_said_and_no_figure_is_shown(bare):
    people, *_ = bare.calibrations
    mute = replace(people, missing_data=NO_CONFIDENCES, n=0, bins=(), curve=(), ece=None)
    text = section(replace(bare, calibrations=(mute,)), "v1 against humans")
    assert f"no data: {NO_CONFIDENCES}" in text
    assert "calibration error" not in text


def test_what_changed_stands_open_and_the_rest_is_folded(bare):
    days = bare.identity.first.date()
    changed = Drift(
        site="creek", feature="attribute", name="form", version=None, measure="total variation",
        distance=0.5, by_chance=0.1, p=0.0002, differs=True, first=(days, days), last=(days, days),
        n_first=66, n_last=60, summary="new: 0 % → 50 %",
    )  # fmt: skip
    drifts = replace(bare.drift, changes=(changed, replace(changed, name="sky", differs=False)))
    page = render_html_report(replace(bare, drift=drifts), view="engineer")
    inside = page[page.index("<summary>1 comparison") : page.index("Values never seen in shadow")]
    assert "creek, sky" in inside
    assert "creek, form" not in inside
    assert page.index("creek, form") < page.index("<summary>1 comparison")


def test_an_interval_without_an_end_says_unknown(bare):
    slow = LatencyQuantile(7.0, 7.0, None, 1, "too few answers for an interval", 50)
    (first, *_) = bare.latencies
    timed = replace(first, timed=1, quantiles=(slow, slow, slow))
    text = section(replace(bare, latencies=(timed,)), "Latency</h3>")
    assert "7 7 to unknown" in text


def test_losses_show_every_answer_of_people(bare):
    (losses,) = bare.losses
    first = replace(losses.top[0], votes=(("bear", 2), ("no-bear", 1)), outcome=None)
    other = replace(losses.top[0], outcome="bear")
    for top, has_outcomes in (((first,), False), ((first, other), True)):
        shown = replace(bare, losses=(replace(losses, top=top),))
        text = section(shown, "v1: cases to look at")
        assert "bear (2 ×) , no-bear (1 ×)" in text
        assert ("no data" in text, "Outcome Loss" in text) == (has_outcomes, has_outcomes)
