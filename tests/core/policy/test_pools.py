"""Cells whose units count together, and what their merged units say."""

import numpy as np
import pytest

from rollout.core.calendar.sites import Cell
from rollout.core.policy.pools import list_pooled_cells, list_sharing_cells
from rollout.core.scope.policy_diff import list_looser_rules
from rollout.core.statistics.gain import ArmUnits, compute_gain_log_e, merge_arms
from rollout.formats.policy.reader import InvalidPolicyError, parse_policy
from rollout.reports.figures.report_identity import describe_promises
from tests.replay.pricing import POLICY

GATE = "{measure: gain, of: profit, at_least: 0}"
FLOOR = "{measure: agreement, at_least: 40%}"
WINDOWS = "windows: [{id: day, hours: '06:00-18:00'}, {id: night, hours: '18:00-06:00'}]\n"


def build_text(pool, *, sites="[shop, kiosk]", floor=f", {FLOOR}", windows=WINDOWS):
    pooled = GATE.replace("}", f", pool: {pool}}}") + floor
    return POLICY.replace(GATE, pooled).replace("sites: [shop]\n", f"sites: {sites}\n{windows}")


@pytest.mark.parametrize(
    ("pool", "cells"), [("cell", "shop/day"), ("site", "shop/day shop/night"), ("rollout", "")]
)
def test_a_pool_has_all_cells_of_the_site_or_rollout(pool, cells):
    policy = parse_policy(build_text(pool))
    cell = Cell("shop", "day")
    expected = {Cell(*name.split("/")) for name in cells.split()} or set(policy.cells)
    assert set(list_pooled_cells(policy, cell, pool)) == expected
    assert list_sharing_cells(policy, [cell]) == expected
    assert not list_sharing_cells(policy, [])


def test_merged_cells_say_what_their_units_say_in_one_series():
    """The figure is that of a published vector: 60 units at 10 %, then 60 at 90 %."""

    def build_cell(share, slots):
        return ArmUnits(
            slots,
            np.tile([0.7, 0.5], 30),
            np.tile([True, False], 30),
            np.full(60, share),
            np.ones(60),
        )

    early, late = build_cell(0.1, np.arange(60)), build_cell(0.9, np.arange(60, 120))
    for parts in ((early, late), (late, early)):
        units = merge_arms(parts)
        assert units.slots.tolist() == list(range(120))
        assert compute_gain_log_e(units, at_least=0.0) == pytest.approx(9.821543274, abs=1e-8)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            build_text("site", floor=""),
            "the average over the site says nothing of one cell; also require another",
        ),
        (
            build_text("site", floor="").replace("at_least: -1", "at_least: -1, pool: site"),
            "a guard watches each cell by itself; leave it out",
        ),
        (POLICY.replace("40%", "40%, pool: site"), "pool: does not apply to agreement"),
    ],
)
def test_a_pool_without_a_floor_or_elsewhere_is_refused(text, fault):
    with pytest.raises(InvalidPolicyError) as refusal:
        parse_policy(text)
    assert any(fault in line for line in refusal.value.faults), refusal.value.faults


def test_a_pool_keeps_guards_on_each_cell_and_says_what_it_does_not_promise():
    policy = parse_policy(build_text("site"))
    condition = policy.gates[1].require[0]
    assert str(condition) == "gain of profit over all cells of the site at least 0 EUR"
    guards = [g.condition for g in policy.guards if g.condition.measure == "gain"]
    assert [guard.pool for guard in guards] == ["cell"]
    promise = describe_promises(policy, 2)[1]
    assert promise.endswith(
        " Over all cells of the site, a gain is the average of their units, and promises nothing of"
        " one cell."
    )


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("cell", "site", "half no longer asks for gain of profit at least 0 EUR"),
        (
            "rollout",
            "site",
            "half no longer asks for gain of profit over all cells of the rollout at least 0 EUR",
        ),
    ],
)
def test_another_pool_is_looser_either_way(old, new, sentence):
    first, second = parse_policy(build_text(old)), parse_policy(build_text(new))
    assert sentence in list_looser_rules(first, second)
    assert list_looser_rules(second, first)


DAYS_ALONE = "windows: [{id: day, hours: '06:00-18:00'}]\n"


@pytest.mark.parametrize(
    ("pool", "change", "cells"),
    [
        ("rollout", {"sites": "[shop]"}, "kiosk · day, kiosk · night"),
        ("site", {"sites": "[shop]"}, ""),
        ("site", {"windows": DAYS_ALONE}, "shop · night, kiosk · night"),
    ],
)
def test_a_pool_that_loses_cells_is_looser(pool, change, cells):
    old, new = parse_policy(build_text(pool)), parse_policy(build_text(pool, **change))
    lost = [s for s in list_looser_rules(old, new) if "no longer counts the units of" in s]
    assert [sentence.rsplit(" of ", 1)[1] for sentence in lost] == [cells] * bool(cells)
