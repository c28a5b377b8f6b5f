"""Cases are placed in the windows of their own sites, at a cost that hardly grows with sites."""

import polars as pl
import pytest

from rollout.engine.evidence.case_placement import place_cases
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
