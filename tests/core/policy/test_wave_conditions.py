"""Gates over a wave: readings by hand, and how often ten sites open against a published table."""

from dataclasses import replace
from functools import cache
from math import log

import numpy as np
import pytest

from rollout.core.calendar.sites import Cell
from rollout.core.policy.cell_evidence import EvidenceCounts
from rollout.core.policy.gates import read_gate, read_renewal
from rollout.core.policy.pools import list_counted_cells
from rollout.core.policy.wave_conditions import (
    SiteCounts,
    WaveCondition,
    are_waves_met,
    has_wave_turned,
    is_wave_met,
)
from rollout.core.statistics.evidence import compute_log_e
from rollout.formats.policy.reader import parse_policy

CONDITION = WaveCondition("agreement", 0.95, at_least=True, each_line=0.90)
RISK = 0.05
POLICY = parse_policy("""
rollout: bears
timezone: UTC
levers: [{id: alarm, labels: [bear, none]}]
sites: [creek, lodge, {id: far, wave: 2}]
windows: [{id: day, hours: "06:00-18:00"}, {id: night}]
stages: [{id: supervised, blind: 20%}]
evidence: {unit: case}
waves: {stage: supervised}
gates:
  - to: supervised
    minimum: {units: 0, days: 0, reviewers: 0}
    require: [{measure: agreement, at_least: 95%, pool: wave, each_at_least: 90%}]
""")
CREEK = Cell("creek", "day")


def build_counts(*parts):
    return tuple(SiteCounts(site, agreed, disagreed) for site, agreed, disagreed in parts)


@pytest.mark.parametrize(
    ("parts", "is_met", "has_turned"),
    [
        ([("creek", 200, 0), ("lodge", 100, 1)], True, False),
        ([("creek", 200, 0)], True, False),
        ([("creek", 200, 0), ("lodge", 0, 0)], False, False),  # a cell without data holds the list
        ([("creek", 900, 0), ("lodge", 25, 5)], False, True),  # whatever the average says
        ([("creek", 900, 0), ("lodge", 20, 0)], False, False),  # too few to tell
        ([("creek", 190, 10), ("lodge", 190, 12)], False, True),  # no average above the threshold
        ([], False, False),
    ],
)
def test_the_sum_and_each_cell_must_be_enough(parts, is_met, has_turned):
    counts = build_counts(*parts)
    assert is_wave_met(CONDITION, counts, RISK) is is_met
    rows = np.array([[part[1:] for part in counts]], dtype=np.int64).reshape(1, len(counts), 2)
    assert are_waves_met(CONDITION, rows, RISK).tolist() == [is_met]
    assert has_wave_turned(CONDITION, counts) is has_turned


def read(counts, read_by=read_gate):
    evidence = EvidenceCounts(closed=9, days=9, reviewers=9, waves={CONDITION.key: counts})
    if read_by is read_renewal:
        return read_renewal(POLICY, CREEK, 1, evidence)
    return read_gate(POLICY, CREEK, 1, 1.0, evidence, evidence)


def test_a_reading_lists_each_site_and_the_least_log_e():
    counts = build_counts(("creek", 200, 0), ("lodge", 100, 4))
    (reading,) = read(counts).readings
    least = compute_log_e(100, 4, at_least=0.90)
    assert least < compute_log_e(300, 4, at_least=0.95)
    assert reading.format(POLICY) == (
        "agreement over all cells of the wave at least 95 %, in each cell at least 90 %:"
        f" 300 of 304, log E {least:.6f} of {log(20):.6f} over sites creek 200+0 lodge 100+4"
        " (risk 0.05)"
    )
    assert reading.is_met is (least >= log(20))


def test_a_renewal_is_judged_by_the_same_rule_and_needs_a_unit_in_each_cell():
    good, silent, bad = (
        build_counts(("creek", 100, 1), ("lodge", *lodge)) for lodge in ((9, 0), (0, 0), (3, 4))
    )
    assert read(good, read_renewal).is_met
    assert not read(silent, read_renewal).is_met
    assert not read(silent, read_renewal).has_turned
    assert read(bad, read_renewal).has_turned


def test_the_list_is_the_cells_of_the_wave_and_window():
    assert list_counted_cells(POLICY, CREEK, "supervised") == (CREEK, Cell("lodge", "day"))
    far = Cell("far", "night")
    assert list_counted_cells(POLICY, far, "supervised") == (far,)


# Ten sites, looks after each 10 records of a site


@cache
def simulate(*shares, condition=CONDITION, runs=300, records=1500, step=10):
    """Return the share of runs that open, and the median records of a site where most do."""
    generator = np.random.default_rng(97)
    opened = np.full(runs, np.inf)
    for run in range(runs):
        draws = generator.random((records // step, step, len(shares))) < np.array(shares)
        agreed = draws.sum(axis=1).cumsum(axis=0)
        seen = step * np.arange(1, len(agreed) + 1)[:, None]
        met = are_waves_met(condition, np.stack([agreed, seen - agreed], axis=2), RISK)
        if met.any():
            opened[run] = step * (1 + met.argmax())
    return float(np.isfinite(opened).mean()), float(np.median(opened))


def test_ten_sites_open_as_the_published_table_says():
    alike = simulate(*[0.985] * 10)
    assert alike[0] == 1.0
    assert alike[1] == pytest.approx(130, abs=20)
    by_itself = simulate(*[0.985] * 10, condition=replace(CONDITION, each_line=0.95))
    assert by_itself[0] == 1.0
    assert by_itself[1] == pytest.approx(480, abs=60)
    weak = simulate(*[0.985] * 9, 0.94)  # it opens although one cell is below the threshold
    assert weak[0] > 0.97  # within 1,500 records of a site
    assert weak[1] == pytest.approx(360, abs=60)
    assert simulate(*[0.99] * 9, 0.85)[0] == 0


def test_a_list_that_misses_a_threshold_opens_at_most_at_the_risk():
    at_threshold, one_at_its_own = (
        simulate(*shares, runs=1000, records=600) for shares in ([0.95] * 10, [0.99] * 9 + [0.90])
    )
    assert at_threshold[0] < RISK
    assert one_at_its_own[0] < RISK
