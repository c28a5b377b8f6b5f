"""Units added slot by slot equal units built at once, at the cost of the new ones."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from rollout.engine.evidence.guard_evidence import CountWindow
from rollout.engine.evidence.tallied_units import build_units
from rollout.engine.evidence.unit_buffer import UnitBuffer, find_cost_level
from rollout.kernel.calendar.instants import Cell, Site
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.policy import Guard
from rollout.kernel.populations import EachValue
from tests.engine.evidence.histories import a_policy
from tests.engine.evidence.stored_units import build_stored_units

POLICY = a_policy(sites=(Site("creek", "UTC"), Site("lake", "UTC")))
CREEK = Cell("creek", "always")
LEVELS = POLICY.cost_levels
KIND = {"lever": "alarm", "second": "(missing)", "excluded": None, "attempt": 1}


def unit(slot, **more):
    """Return a counted unit as the store gives it."""
    row = {
        "track": "gate",
        "version": "v1",
        "site": "creek",
        "window": "always",
        "definition": "now",
        "unit": f"u{slot}",
        "slot": slot,
        "occurred": slot - 1,
        "day": slot // 24,
        "bucket": slot % 3,
        "reviewer": f"r{slot % 2}",
        "predicted": "bear",
        "decided": ("bear", "fox")[slot % 2],
        "level": slot % len(LEVELS),
    }
    return KIND | row | more


def frame(*rows):
    return pl.DataFrame(rows, schema_overrides={"excluded": pl.String})


def kept(*parts, meanings=None, policy=POLICY):
    units = UnitBuffer(policy, lambda _cell: meanings or {"now": LEVELS})
    for part in parts:
        units.add(build_stored_units(part))
    return units


def plain(units, cell, track="gate"):
    """Return the rows of a cell with their numbers looked up."""
    rows = getattr(cell, track)
    kinds = [units.unit_classes.classes[number] for number in rows.unit_class]
    return list(
        zip(rows.slot.tolist(), rows.occurred.tolist(), rows.day.tolist(), kinds, strict=True)
    )


ROWS = [
    unit(slot, version=version, site=site, track=track)
    for slot in range(1, 9)
    for version in ("v1", "v2")
    for site in ("creek", "lake")
    for track in ("gate", "guard")
]


def test_one_person_is_one_reviewer_in_any_spelling_live_and_replayed():
    names = ["ana", "Ana", "bo", " ANA ", None]
    rows = [unit(slot, reviewer=name) for slot, name in enumerate(names, start=1)]
    live, replayed = kept(rows[:2], rows[2:]), build_units(frame(*rows), POLICY)
    for units, cell in (
        (live, live.get_rows((CREEK, "v1"))),
        (replayed, replayed.cells[CREEK, "v1"]),
    ):
        window = CountWindow(cell.gate, units.unit_classes, ())
        assert window.reviewer_counts.tolist() == [0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("cut", [0, 8, 40, len(ROWS)])
def test_units_added_in_parts_are_those_gathered_at_once(cut):
    found, expected = kept(ROWS[:cut], ROWS[cut:]), build_units(frame(*ROWS), POLICY)
    assert set(found) == set(expected.cells)
    for key in expected.cells:
        for track in ("gate", "guard"):
            mine = plain(found, found.get_rows(key), track)
            assert mine == plain(expected, expected.cells[key], track)


LEVER_ROWS = [
    unit(4 + number // 20, unit=f"u{97 * number % 60}", occurred=7 * number % 4)
    | {
        "lever": lever,
        "predicted": ("bear", "fox")[number % 2],
        "decided": ("bear", "fox", "(missing)")[number % 3],
        "attribute_values": (None, "", '[["wet"]]')[number % 3],
        "slices": (None, "", '{"lens":"a","plate":"x"}', '{"lens":"b","plate":"y"}')[number % 4],
        "band": (None, 0, 1)[number % 3],
    }
    for number in range(60)
    for lever in ("alarm", "gate", "*")
]


@pytest.mark.parametrize("cut", [0, 60, 180])
def test_units_of_several_levers_keep_their_values_and_order(cut):
    by_lens = Condition(MEASURES["agreement"], 0.9, population=EachValue("lens"))
    parts, policy = (
        (LEVER_ROWS[:cut], LEVER_ROWS[cut:]),
        a_policy(guards=(Guard(by_lens, "report"),)),
    )
    found = kept(*parts, policy=policy)
    expected = build_units(frame(*LEVER_ROWS), policy)
    rows = plain(found, found.get_rows((CREEK, "v1")))
    assert rows == plain(expected, expected.cells[CREEK, "v1"])
    assert len(rows) == len(LEVER_ROWS)
    kinds = {kind for *_, kind in rows}
    assert {kind.band for kind in kinds} == {0, 1}
    assert {kind.slices for kind in kinds} == {"", '{"lens":"a"}', '{"lens":"b"}'}
    assert {kind.attribute_values for kind in kinds} == {"", '[["wet"]]'}


def test_what_grew_is_told_and_nothing_else_has_grown():
    units = kept(ROWS)
    before = {key: len(units.get_rows(key).gate) for key in units}
    lake = (Cell("lake", "always"), "v1")
    assert units.add(build_stored_units([unit(9, site="lake")])) == {lake}
    after = {key: len(units.get_rows(key).gate) for key in units}
    assert after == before | {lake: before[lake] + 1}


def test_people_keep_their_numbers():
    units = kept(
        [unit(1, reviewer="zoe")],
        [unit(2, reviewer="ana")],
        [unit(3, reviewer="zoe")],
    )
    assert units.get_rows((CREEK, "v1")).gate.reviewer.tolist() == [0, 1, 0]
    together = kept([unit(slot, reviewer=name) for slot, name in enumerate("zyxwv")])
    assert together.reviewers == list("vwxyz")
    nobody = kept([unit(1, reviewer=None)])
    assert nobody.get_rows((CREEK, "v1")).gate.reviewer.tolist() == [-1]


def test_a_unit_whose_key_was_purged_keeps_its_band():
    keyed, purged = kept(ROWS), kept([{**row, "unit": "#"} for row in ROWS])
    bands = [units.get_rows((CREEK, "v1")).gate.unit for units in (keyed, purged)]
    assert np.array_equal(*bands)
    assert bands[0].tolist() == [slot % 3 for slot in range(1, 9)]


def test_units_that_meant_something_else_are_left_out():
    assert not set(kept([unit(1, definition="before")]))
    assert not set(kept([unit(1, site="gone")]))


def test_a_level_keeps_its_cost_when_levels_were_added_below_it():
    levels = {"before": (0.0, 1.0, 5.0), "now": (0.0, 1.0, 3.0, 5.0)}
    policy = replace(POLICY)
    policy.__dict__["cost_levels"] = levels["now"]
    units = kept(
        [unit(1, definition="before", level=2)],
        [unit(2, definition="now", level=2)],
        meanings=levels,
        policy=policy,
    )
    costs = [levels["now"][kind.level] for *_, kind in plain(units, units.get_rows((CREEK, "v1")))]
    assert costs == [5.0, 3.0]


def test_a_cost_between_two_levels_counts_as_the_higher():
    assert find_cost_level(2.0, (0.0, 1.0, 3.0)) == 2
    assert find_cost_level(9.0, (0.0, 1.0, 3.0)) == 2
    assert find_cost_level(0.0, (0.0, 1.0, 3.0)) == 0
