"""A chart from a compiled form is the chart that Vega-Lite draws alone."""

from dataclasses import replace

import pytest

from rollout.engine.words.formatting import format_day
from rollout.features.reports.inputs.inputs import ActionFrequencyChange
from rollout.features.reports.pages import number_charts
from rollout.features.reports.pages.charts import draw_action_chart, draw_charts, draw_figure_charts
from rollout.features.reports.pages.number_charts import compile_chart
from rollout.kernel.statistics.intervals import PairedChange

vl_convert = pytest.importorskip("vl_convert")

SPEC = {
    "$schema": number_charts.SCHEMA,
    "config": number_charts.CONFIG,
    "width": 100,
    "height": 50,
    "layer": [
        {
            "mark": "line",
            "encoding": {
                "x": {"field": "at", "type": "temporal", "scale": {"type": "utc"}},
                "y": {"field": "share", "type": "quantitative", "scale": {"domain": [0, 1]}},
            },
        },
        {
            "mark": "rule",
            "data": number_charts.SINGLE_ROW_DATA,
            "encoding": {"y": {"datum": 0.5, "type": "quantitative"}},
        },
    ],
}


def build_spec(points, domain, threshold):
    line, rule = SPEC["layer"]
    y = {**line["encoding"]["y"], "scale": {"domain": domain}}
    layer = [
        {**line, "encoding": {**line["encoding"], "y": y}},
        {**rule, "encoding": {"y": {"datum": threshold, "type": "quantitative"}}},
    ]
    rows = [{"at": at * 86_400_000, "share": share} for at, share in points]
    return {**SPEC, "data": {"values": rows}, "layer": layer}


@pytest.mark.parametrize(
    ("points", "domain", "threshold"),
    [
        ([(0, 0.2), (1, 0.8), (9, 0.7)], [0.1, 0.9], 0.95),
        ([(0, -3.0), (400, 12.5)], [-4, 20], 0),
        ([(0, 1e-9)], [0.0, 1e-8], 5e-9),
    ],
)
def test_a_filled_form_is_drawn_as_its_specification(points, domain, threshold):
    spec = build_spec(points, domain, threshold)
    filled = vl_convert.vega_to_svg(compile_chart(spec, vl_convert.vegalite_to_vega))
    plain = vl_convert.vegalite_to_svg(spec)
    assert number_charts.finish_svg(filled, "p", "", "") == number_charts.finish_svg(
        plain, "p", "", ""
    )


def test_the_charts_of_a_report_are_drawn_as_specified(facts, monkeypatch):
    filled = draw_charts(facts), draw_figure_charts(facts)

    def draw_plain(spec, prefix, title, description):
        full_spec = {
            "$schema": number_charts.SCHEMA,
            "config": number_charts.CONFIG,
            "padding": number_charts.PADDING,
            **spec,
        }
        drawing = vl_convert.vegalite_to_svg(full_spec)
        return number_charts.finish_svg(drawing, prefix, title, description)

    for module in ("charts", "number_charts"):
        monkeypatch.setattr(f"rollout.features.reports.pages.{module}.draw_svg", draw_plain)
    assert (draw_charts(facts), draw_figure_charts(facts)) == filled


def test_a_chart_names_its_gate_and_the_risk_of_it(facts):
    """Seen: one chart of two gates with the same condition, named by the last of them."""
    first = next(path for row in facts.evidence for path in row.path if path.bound)
    second = replace(first, to="autonomous", risk=0.0125)
    evidence = replace(facts.evidence[0], path=(replace(first, to="supervised", risk=0.05), second))
    shown = draw_charts(replace(facts, evidence=(evidence,))).evidence
    since = format_day(first.at[0], facts.identity.zones[evidence.site])
    assert [chart.condition for chart in shown] == [
        f"gate to supervised: {first.condition}, risk 5.00\N{NO-BREAK SPACE}%, since {since}",
        f"gate to autonomous: {first.condition}, risk 1.25\N{NO-BREAK SPACE}%, since {since}",
    ]


def test_charts_of_one_form_are_compiled_once():
    compiled_forms = []

    def compile_form(form):
        compiled_forms.append(form)
        return vl_convert.vegalite_to_vega(form)

    for threshold in (0.5, 0.75, 0.9):
        spec = build_spec([(0, threshold), (1, 0.3)], [threshold / 2, 1], threshold)
        compile_chart(spec, compile_form)
    assert len(compiled_forms) == 1


def test_numbers_at_an_axis_are_not_measured_and_long_names_are_still_cut():
    change = PairedChange(3, 1, 90, 2.2, -1.0, 5.4, "exact")
    long, short = (
        ActionFrequencyChange("v1", "alarm", action, 3, 1, change, 0.1)
        for action in ("sound the alarm of the whole valley at once", "rest")
    )
    drawing = draw_action_chart([long, short], prefix="a0")
    assert "sound the alarm of the wh" in drawing
    assert "…</text>" in drawing
    assert "at once</text>" not in drawing
    assert number_charts.CONFIG["axis"]["labelLimit"] == 0
