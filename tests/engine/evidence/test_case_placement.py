"""Cases are placed in the windows of their own sites, at a cost that hardly grows with sites."""

from dataclasses import replace

import polars as pl
import pytest

from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.evidence.frames import NAMED_PLACE_SCHEMA
from rollout.kernel.calendar.instants import Site, Window
from rollout.kernel.calendar.windows import find_window
from tests.engine.evidence.histories import SALT, a_policy, cases, hour, records

ZONES = ("UTC", "Europe/Vienna", "Pacific/Chatham", "America/New_York")
WINDOWS = (Window("wet", "06:00-20:00", {"w": ("wet",)}), Window("day", "06:00-18:00"))


def build_policy(count):
    sites = tuple(Site(f"s{n}", ZONES[n % len(ZONES)]) for n in range(count))
    return a_policy(sites=sites, windows=WINDOWS)


def build_cases(count):
    """Return 48 cases, an hour apart, of `count` sites in turn."""
    weather = ("wet", "dry", None)
    rows = [(f"c-{n}", n + 0.5, {"site": f"s{n % count}", "w": weather[n % 3]}) for n in range(48)]
    return records(cases(*rows, attributes=("w",)))


def test_each_case_has_the_window_of_its_own_site():
    policy = build_policy(len(ZONES))
    placed = place_cases(build_cases(len(ZONES)), policy, SALT).cases
    assert placed.height == 48
    for row in placed.iter_rows(named=True):
        number = int(row["case_key"].removeprefix("c-"))
        site = policy.sites_by_id[row["site"]]
        attributes = {"w": row["attribute:w"]}
        assert row["window"] == find_window(site, WINDOWS, hour(number + 0.5), attributes)
    assert set(placed["window"]) == {"wet", "day", "other"}


@pytest.mark.parametrize(
    ("place", "received", "is_caseless"),
    [
        ({}, 13, False),  # after its grace, but before the decision: as the unit counts then
        ({}, 14, False),
        ({}, 14.1, True),
        ({"may_move": False}, 14.1, False),
        ({"site": "s1"}, 10, True),
        ({"site": "s1", "may_move": False}, 10, False),
        ({"occurred_at": hour(20)}, 10, True),  # in another window
        ({"occurred_at": hour(20), "has_time": False}, 10, False),
        ({"site": "unknown"}, 10, False),
    ],
)
def test_a_decision_places_a_case_that_comes_after_it_or_lies_elsewhere(
    place, received, is_caseless
):
    usual = {"case_key": "a", "site": "s0", "occurred_at": hour(10), "received_at": hour(14)}
    row = {**usual, "has_time": True, "may_move": True, **place}
    history = replace(
        records(
            cases(("a", 10, {"site": "s0", "received": received, "w": "dry"}), attributes=("w",))
        ),
        named_places=pl.DataFrame([row], schema=NAMED_PLACE_SCHEMA),
    )
    (case,) = place_cases(history, build_policy(2), SALT).cases.iter_rows(named=True)
    assert case["caseless"] == is_caseless


@pytest.mark.parametrize("count", [2, 24])
def test_frames_are_built_as_often_for_many_sites_as_for_few(monkeypatch, count):
    built, with_columns = [], pl.DataFrame.with_columns
    monkeypatch.setattr(
        pl.DataFrame,
        "with_columns",
        lambda frame, *args, **kwargs: built.append(frame) or with_columns(frame, *args, **kwargs),
    )
    place_cases(build_cases(count), build_policy(count), SALT)
    assert len(built) < 10
