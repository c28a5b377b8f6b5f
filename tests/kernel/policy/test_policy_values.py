"""The policy as values: selectors, costs, gates, ceilings, freezes, bands."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from rollout.kernel.calendar.instants import OTHER_WINDOW, Cell, Site, format_duration
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.policy import Freeze, Gate, Limit, Policy, Stage, Where, matches_pattern
from rollout.kernel.units import CostRule, Lever, Margin, Number
from tests.factories import (
    AGREEMENT,
    AUTONOMOUS,
    CREEK,
    CREEK_NIGHT,
    HARM,
    LAKE,
    NOON,
    QUALITY,
    SUPERVISED,
    TO_AUTONOMOUS,
    TO_SUPERVISED,
    policy,
)

MOMENT = timedelta(microseconds=1)

# Selectors


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("creek", "creek", True),
        ("creek", "creek-2", False),
        ("gate-*", "gate-c", True),
        ("gate-*", "gate-", True),
        ("*", "anything", True),
        ("*-north", "gate-north", True),
        ("*-north", "gate-north-2", False),
        ("46.1", "4601", False),
        ("a*c", "abbc", True),
        ("[ab]", "a", False),
        ("CREEK", "creek", False),
    ],
)
def test_only_a_star_is_special_in_a_pattern(pattern, name, fits):
    assert matches_pattern(pattern, name) is fits


def test_a_row_that_names_nothing_speaks_of_every_cell():
    assert Where().fits(CREEK)
    assert Where(sites=("creek",)).fits(CREEK_NIGHT)
    assert not Where(sites=("creek",)).fits(LAKE)
    assert not Where(sites=("creek",), windows=("night",)).fits(CREEK)


# Levers and costs

BEAR = Lever(
    "alarm",
    labels=("bear", "fox", "none"),
    actions=("siren", "nothing", "nothing"),
    costs=(CostRule(20.0, did="nothing", right="siren"), CostRule(1.0)),
)
DOSE = Lever(
    "dose",
    number=Number("ml", 0, 100, Margin(0.1, relative=True)),
    costs=(
        CostRule(9.0, under=Margin(20.0)),
        CostRule(4.0, over=Margin(0.5, relative=True)),
        CostRule(1.0, off=Margin(5.0)),
    ),
)


@pytest.mark.parametrize(
    ("did", "right", "cost"),
    [
        ("siren", "siren", 0.0),
        ("nothing", "siren", 20.0),
        ("siren", "nothing", 1.0),
        ("dance", "siren", 1.0),
    ],
)
def test_the_first_cost_row_that_fits_counts_and_the_same_action_is_free(did, right, cost):
    assert BEAR.compute_cost(did, right) == cost


def test_without_a_row_a_wrong_action_costs_the_most():
    bare = Lever("alarm", labels=("a", "b"), actions=("x", "y"), costs=(CostRule(3.0, did="x"),))
    assert (bare.compute_cost("x", "y"), bare.compute_cost("y", "x")) == (3.0, 3.0)


def test_a_label_that_is_not_the_levers_leads_to_no_action():
    assert (BEAR.find_action("fox"), BEAR.find_action("moose")) == ("nothing", None)


@pytest.mark.parametrize(
    ("model", "person", "cost"),
    [
        (50, 50, 0.0),
        (55, 50, 0.0),  # at the tolerance, which is a share of the person's number
        (45, 50, 0.0),
        (56, 50, 1.0),
        (75, 50, 1.0),  # a row says strictly more
        (76, 50, 4.0),
        (30, 50, 1.0),
        (29, 50, 9.0),
        (2, 1, 4.0),
        (0.9, 0, 4.0),
    ],
)
def test_a_number_costs_by_how_far_it_lies_from_the_persons(model, person, cost):
    assert DOSE.compute_number_cost(model, person) == cost


def test_a_distance_without_a_row_is_free():
    near = Lever("dose", number=DOSE.number, costs=(CostRule(9.0, under=Margin(20.0)),))
    assert near.compute_number_cost(90, 50) == 0.0


def test_costs_of_several_levers_add_up():
    both = policy(levers=(BEAR, DOSE))
    assert both.largest_cost == 29.0
    assert both.cost_levels == (0, 1, 2, 4, 5, 9, 10, 20, 21, 24, 29)


def test_more_than_64_levels_become_64_steps():
    fine = tuple(CostRule(float(n), did="siren") for n in range(1, 100))
    many = policy(levers=(Lever("alarm", labels=("a",), actions=("x",), costs=fine),))
    assert (len(many.cost_levels), many.cost_levels[0], many.cost_levels[-1]) == (64, 0.0, 99.0)


def test_one_lever_is_the_whole_and_of_several_a_star_stands_for_all():
    assert policy().whole_unit_lever == "alarm"
    assert policy(levers=(BEAR, DOSE)).whole_unit_lever == "*"


# Ladder and gates


def test_rung_zero_is_shadow():
    assert policy().stage_ids == ("shadow", "supervised", "autonomous")
    assert (policy().get_stage(1), policy().get_stage(2)) == (SUPERVISED, AUTONOMOUS)
    assert (SUPERVISED.model_decides, AUTONOMOUS.model_decides) == (False, True)


def test_every_site_in_every_window_is_a_cell_and_other_is_none():
    assert len(policy().cells) == 4
    assert Cell("creek", OTHER_WINDOW) not in policy().cell_set


def test_the_first_gate_that_fits_counts():
    night = Gate("supervised", (AGREEMENT,), 0.01, where=Where(windows=("night",)))
    asked = policy(gates=(night, TO_SUPERVISED, TO_AUTONOMOUS))
    assert (asked.find_gate(1, CREEK), asked.find_gate(1, CREEK_NIGHT)) == (TO_SUPERVISED, night)
    assert asked.find_gate(0, CREEK) is None


def test_a_gate_asks_for_its_own_conditions_before_those_below_and_for_none_twice():
    own = Condition(MEASURES["recall"], 0.8, label="bear")
    upper = Gate("autonomous", (own, AGREEMENT), 0.01)
    asked = policy(gates=(TO_SUPERVISED, upper))
    assert asked.list_conditions(2, CREEK) == (own, AGREEMENT)
    assert asked.list_conditions(1, CREEK) == (AGREEMENT,)
    assert asked.list_conditions(0, CREEK) == ()


# Ceilings and freezes


@pytest.mark.parametrize(
    ("limits", "rung"),
    [
        ((), 2),
        ((Limit(never_above="supervised"),), 1),
        ((Limit(never_above="shadow"),), 0),
        ((Limit(never_above="supervised", where=Where(sites=("lake",))),), 2),
        ((Limit(never_above="supervised"), Limit(never_above="shadow")), 0),
        ((Limit(ends=date(2027, 5, 31)),), 0),
        ((Limit(ends=date(2027, 6, 1)),), 2),
        ((Limit(never_above="supervised", ends=date(2027, 6, 1)),), 1),
    ],
)
def test_the_lowest_limit_that_fits_is_the_ceiling(limits, rung):
    assert policy(limits=limits).compute_ceiling(CREEK, NOON) == rung


@pytest.mark.parametrize("cell", [Cell("moon", "day"), Cell("creek", OTHER_WINDOW)])
def test_an_unknown_cell_has_the_ceiling_of_shadow(cell):
    assert policy().compute_ceiling(cell, NOON) == 0


def test_a_trial_ends_with_the_last_day_of_the_sites_own_clock():
    sites = (Site("creek", "America/Denver"), Site("lake", "UTC"))
    trial = policy(sites=sites, limits=(Limit(ends=date(2027, 6, 1)),))
    midnight = datetime(2027, 6, 2, 6, tzinfo=UTC)
    assert trial.compute_ceiling(CREEK, midnight - MOMENT) == 2
    assert trial.compute_ceiling(CREEK, midnight) == 0
    assert trial.compute_ceiling(LAKE, midnight - 6 * timedelta(hours=1)) == 0


def test_a_freeze_holds_in_its_hours_by_the_sites_clock_where_it_fits():
    sites = (Site("creek", "America/Denver"), Site("lake", "UTC"))
    freeze = Freeze("Jun 02", "fair", Where(sites=("creek",)))
    frozen = policy(sites=sites, freezes=(freeze,))
    at = datetime(2027, 6, 3, 5, tzinfo=UTC)  # 23:00 of 2 June at the creek
    assert frozen.find_freeze(CREEK, at) == freeze
    assert frozen.find_freeze(LAKE, at - timedelta(days=1)) is None
    assert frozen.find_freeze(CREEK, at + timedelta(hours=1)) is None


# Bands


def staged(*stages: Stage) -> Policy:
    return policy(stages=stages, gates=())


SHARED = staged(Stage("supervised", blind=0.5), Stage("autonomous", blind=0.2, audit=0.25))


def test_bands_are_cut_where_some_stage_treats_draws_otherwise():
    assert SHARED.blind_edges == (0.2, 0.5)
    assert SHARED.audit_edges == (0.25,)


def test_audits_are_a_share_of_what_the_model_decides():
    assert Stage("a", blind=0.2, audit=0.25).reviewed_share == pytest.approx(0.4)
    assert Stage("s", blind=0.5).reviewed_share == 0.5


# The rest


@pytest.mark.parametrize(
    ("takeover", "floor"), [("same-stage", None), ("shadow", 0), ("autonomous", 2)]
)
def test_a_takeover_goes_down_to_a_rung_or_not_at_all(takeover, floor):
    assert policy(takeover=takeover).takeover_floor == floor


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(days=14), "14d"),
        (timedelta(hours=12), "12h"),
        (timedelta(minutes=15), "15m"),
        (timedelta(seconds=20), "20s"),
        (timedelta(milliseconds=300), "0.3s"),
        (timedelta(0), "0s"),
    ],
)
def test_a_span_is_said_in_its_largest_whole_unit(span, text):
    assert format_duration(span) == text


def test_a_guard_has_an_id_of_its_condition_and_its_span():
    assert QUALITY.id == "agreement>=0.93"
    assert HARM.id == "harm<=0.0/604800s"


def test_a_policys_hash_is_no_part_of_what_it_says():
    assert replace(policy(), hash="x") == policy()
    assert policy(lease=MOMENT) != policy()


def test_a_number_on_the_edge_of_its_tolerance_agrees_in_binary_too():
    lever = Lever(
        "price",
        number=Number("EUR", 0.0, 99.0, Margin(0.05)),
        costs=(CostRule(4.0, over=Margin(0.05)),),
    )
    assert lever.compute_number_cost(10.05, 10.0) == 0.0
    assert lever.compute_number_cost(10.0501, 10.0) == 4.0
