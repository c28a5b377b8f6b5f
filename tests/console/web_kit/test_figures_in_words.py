"""Readings, alarms and charts in words: results with their unit and their attempt."""

import math
import re
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest

from api.proposals.path_chart import build_path_charts
from api.web_kit.figures import list_brief_grounds
from rollout.kernel.facts import EvidenceSeries, StoredReading
from tests.factories import NOON, policy


def test_a_cost_is_a_mean_with_its_unit_and_a_share_is_a_count():
    bears = policy()
    counts = [1043, *range(5, 5 * len(bears.cost_levels), 5)]
    mean = sum(n * c for n, c in zip(counts, bears.cost_levels, strict=True)) / sum(counts)
    facts = [{"measure": "cost", "threshold": "2.0"}, {"measure": "agreement", "threshold": "0.92"}]
    readings = [
        StoredReading(condition, units, "12.3", "0.01")
        for condition, units in zip(facts, (tuple(counts), (1041, 51)), strict=True)
    ]
    assert list_brief_grounds(readings, ["", "", "of 3 cells"], bears) == [
        f"cost at most 2: mean {mean:.3f} points over {sum(counts):,} units",
        "agreement at least 92 %: 1,041 of 1,092",
        "of 3 cells",
    ]


@pytest.mark.parametrize(
    ("now", "ending"), [(1, "supervised"), (2, "(an earlier attempt, which has ended)")]
)
def test_a_chart_of_an_earlier_attempt_names_it(now, ending):
    path = EvidenceSeries(
        condition="agreement at least 92 %", name="agreement", unit="", measure="agreement",
        at_least=True, threshold=0.92, to="supervised", attempt=1, risk=0.05,
        at=(NOON, NOON + timedelta(hours=1)), n=(10, 20), estimate=(1.0, 1.0), bound=(0.5, 0.7),
    )  # fmt: skip
    facts = SimpleNamespace(version="v1", attempt=now, path=(path,))
    (chart,) = build_path_charts([facts], "UTC")
    assert chart.title.endswith(ending)


@pytest.mark.parametrize("bound", [0.925, 0.915, 0.93, 0.97])
def test_the_name_of_a_threshold_lies_over_no_line(bound):
    hours = range(200)
    path = EvidenceSeries(
        condition="agreement at least 92 %", name="agreement", unit="", measure="agreement",
        at_least=True, threshold=0.92, to="supervised", attempt=1, risk=0.05,
        at=tuple(NOON + timedelta(hours=n) for n in hours), n=tuple(range(1, 201)),
        estimate=(0.96,) * 200, bound=tuple(bound + 0.004 * math.sin(n / 9) for n in hours),
    )  # fmt: skip
    (chart,) = build_path_charts([SimpleNamespace(version="v1", attempt=1, path=(path,))], "UTC")
    for svg in (chart.wide, chart.narrow):
        x, y = re.search(r'class="t-strong g-name" x="([\d.]+)" y="([\d.]+)">', svg).groups()
        left, right = float(x), float(x) + 7.4 * len("threshold 92 %")
        (gate,) = re.findall(r'class="g-gate"[^>]* y1="([\d.]+)"', svg)
        assert 0 < min(abs(float(y) - float(gate)), abs(float(y) - 10 - float(gate))) < 8
        for css in ("g-est", "g-low"):
            points = list_points(re.search(rf'class="{css}" d="([^"]*)"', svg)[1])
            near = [level for at, level in points if left <= at <= right]
            assert near
            assert not any(float(y) - 10 < level < float(y) + 3 for level in near)


def list_points(steps):
    """Return the corners of a path in steps."""
    x, y, points = 0.0, 0.0, []
    for letter, one, other in re.findall(r"([MHV])([\d.]+)(?: ([\d.]+))?", steps):
        x = float(one) if letter in "MH" else x
        y = float(other) if letter == "M" else float(one) if letter == "V" else y
        points.append((x, y))
    return points


def test_a_chart_cuts_off_what_lies_outside_and_says_so():
    path = EvidenceSeries(
        condition="agreement at least 92 %", name="agreement", unit="", measure="agreement",
        at_least=True, threshold=0.92, to="supervised", attempt=1, risk=0.05,
        at=(NOON, NOON + timedelta(hours=1)), n=(10, 20), estimate=(1.0, 1.0), bound=(0.0, 0.93),
    )  # fmt: skip
    (chart,) = build_path_charts([SimpleNamespace(version="v1", attempt=1, path=(path,))], "UTC")
    bound = re.search(r'class="g-low" d="M([0-9.]+) ([0-9.]+)', chart.wide)
    assert float(bound[2]) > 250  # below the drawing, where the clip hides it
    assert 'clip-path="url(#w0-0-c)"' in chart.wide
    assert "The first evaluations lie outside the drawing." in chart.text
    ruler = chart.wide.replace("\xa0", " ")
    assert re.findall(r'text-anchor="end">([^<]*%)<', ruler) == [
        "85 %",
        "90 %",
        "95 %",
        "100 %",
    ]
    inside = replace(path, bound=(0.9, 0.93))
    (chart,) = build_path_charts([SimpleNamespace(version="v1", attempt=1, path=(inside,))], "UTC")
    assert "outside" not in chart.text
