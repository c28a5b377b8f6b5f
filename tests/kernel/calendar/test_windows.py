"""What is refused and warned of in a policy's hours, and the share of the year they take."""

from pathlib import Path

import pytest
import yaml

from rollout.kernel.calendar.instants import Site, Window
from rollout.kernel.calendar.opening_hours import has_holidays
from rollout.kernel.calendar.windows import (
    compute_year_shares,
    find_hours_errors,
    list_hours_warnings,
)

CREEK = Site("creek", "America/Denver", "US", (40.34, -105.57))
POLICIES = Path(__file__).parents[4] / "shared" / "policies"


def faults(hours: str, *, place=True, country=True, **more) -> list[str]:
    return find_hours_errors(hours, has_coordinates=place, has_country=country, **more)


@pytest.mark.parametrize(
    "hours",
    [
        "24/7",
        "Mo-Sa 06:00-18:00",
        "18:00-06:00",
        "sunset-(sunset+01:00)",
        "Mo-Fr 08:00-16:00; PH off",
        "Dec 24-26; PH",
        "Nov 20-Dec 31",
        "PH",
        "Feb 29",
        "Jan 31-Apr 30 10:31-18:00",
        "Jun 10:31-18:00",
        'Mo-Fr 09:00-17:00 "PH and SH by appointment"',
        "PH off, Mo-Fr 08:00-16:00",
    ],
)
def test_good_hours_have_no_fault(hours):
    assert faults(hours) == []
    assert faults(hours, site=CREEK) == []


@pytest.mark.parametrize(
    ("hours", "place"),
    [
        ("Mo-Fr 9-17", " from '9-17' on"),
        ("bla", ""),
        ("", ""),
        ("Mon-Fri 08:00-10:00", " from 'n-Fri 08:00-10:00' on"),
    ],
)
def test_hours_that_cannot_be_read_are_refused_from_where_on(hours, place):
    (fault,) = faults(hours)
    assert fault.startswith(f"{hours!r} can't be read{place}; write OpenStreetMap")


@pytest.mark.parametrize("hours", ["sunrise-sunset", "Mo-Fr 09:00-(Sunset-01:00)", "dawn-dusk"])
def test_hours_that_follow_the_sun_need_a_place(hours):
    (fault,) = faults(hours, place=False)
    assert "give each site `place: [lat, lon]`" in fault


def test_public_holidays_need_a_country_that_is_known():
    (fault,) = faults("Mo-Fr; PH off", country=False)
    assert "give `country: FR`" in fault
    (fault,) = faults("Mo-Fr; PH off", site=Site("s", "UTC", "Norway"))
    assert "'Norway'" in fault
    assert [has_holidays(code) for code in ("NO", "no", "XX", "")] == [True, False, False, False]


@pytest.mark.parametrize("hours", ["SH", "Mo-Fr 08:00-16:00; SH off", "PH,SH off; Mo-Fr"])
def test_school_holidays_are_not_known(hours):
    assert any("(`SH`) are not known" in fault for fault in faults(hours))


@pytest.mark.parametrize("hours", ["PH off; Mo-Fr 08:00-16:00", "PH closed ;24/7"])
def test_holidays_taken_off_first_are_refused(hours):
    (fault,) = faults(hours)
    assert "write `; PH off` last" in fault


@pytest.mark.parametrize("hours", ["Feb 30", "Jun 20-31 10:00-12:00", "Dec 24-26,Apr 31-May 2"])
def test_days_that_do_not_exist_are_refused(hours):
    (fault,) = faults(hours)
    assert "has no day" in fault


@pytest.mark.parametrize("hours", ["off", "2020 Jan", "Mo-Fr unknown", "PH off", "24/7 off"])
def test_hours_that_never_open_in_five_years_are_refused(hours):
    (fault,) = faults(hours)
    assert fault.startswith("never open from 2024 to 2028")


def test_the_five_years_can_be_moved():
    assert faults("2031 Jan", first_year=2030) == []
    assert faults("2031 Jan") != []


def test_a_night_from_sunset_to_sunrise_is_warned_of():
    windows = [Window("day", "sunrise-sunset"), Window("night", "Mo-Su sunset - (sunrise-00:30)")]
    ((window, warning),) = list_hours_warnings(CREEK, [windows[0], windows[1], Window("rest")])
    assert window == "night"
    assert "`24/7` last" in warning


def test_a_place_far_from_the_sun_of_its_zone_is_warned_of():
    swapped_sign = Site("creek", "America/Denver", "US", (40.34, 105.57))
    ((window, warning),) = list_hours_warnings(swapped_sign, [Window("always")])
    assert warning.startswith("America/Denver is 10.0 h ahead of the sun")
    assert "place: [latitude, longitude]" in warning
    assert not window


def test_a_small_gap_is_warned_of_and_a_large_one_is_meant():
    gap = [Window("day", "06:00-18:00"), Window("night", "18:00-05:55")]
    ((_, warning),) = list_hours_warnings(CREEK, gap)
    assert warning.startswith("30.5 hours of a year are in no window")
    assert list_hours_warnings(CREEK, [Window("day", "Mo-Sa 06:00-18:00")]) == []
    assert list_hours_warnings(CREEK, [*gap, Window("rest", "24/7")]) == []


def test_shares_of_a_year_add_up():
    windows = [Window("day", "sunrise-sunset"), Window("dusk", "sunset-(sunset+01:00)")]
    shares = compute_year_shares(CREEK, windows)
    assert list(shares) == ["day", "dusk", "other"]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["day"] == pytest.approx(0.508, abs=0.002)
    assert shares["dusk"] == pytest.approx(1 / 24)
    assert compute_year_shares(CREEK, []) == {"other": 1.0}


def hours_in(policy: str) -> list[str]:
    parsed = yaml.safe_load((POLICIES / policy).read_text(encoding="utf-8"))
    rows = [*parsed.get("windows", []), *parsed.get("freezes", [])]
    return [str(row["hours"]) for row in rows if "hours" in row]


@pytest.mark.skipif(not POLICIES.is_dir(), reason="../shared/policies is not here")
def test_the_hours_of_every_worked_policy_are_free_of_faults():
    hours = [each for policy in POLICIES.glob("*.yaml") for each in hours_in(policy.name)]
    assert len(hours) >= 15
    assert {each: faults(each) for each in hours if faults(each)} == {}
