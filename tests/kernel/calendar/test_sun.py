"""Times of the sun against a formula of its own (NOAA's short one, good to about a minute)."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import acos, cos, degrees, pi, radians, sin, tan

import pytest

from rollout.kernel.calendar.instants import Site
from rollout.kernel.calendar.opening_hours import (
    compute_sun_offset,
    compute_sun_year,
    follows_sun,
    is_open,
    list_open_spans,
    replace_sun_events,
)

PLACES = [
    Site("creek", "America/Denver", coordinates=(40.34, -105.57)),
    Site("lisbon", "Europe/Lisbon", coordinates=(38.72, -9.14)),
    Site("halifax", "America/Halifax", coordinates=(44.65, -63.57)),
    Site("hobart", "Australia/Hobart", coordinates=(-42.88, 147.33)),
    Site("nagoya", "Asia/Tokyo", coordinates=(35.18, 136.91)),
    Site("paris", "Europe/Paris", coordinates=(48.85, 2.35)),
    Site("quito", "America/Guayaquil", coordinates=(-0.18, -78.47)),
    Site("oslo", "Europe/Oslo", coordinates=(59.91, 10.75)),
    Site("kiritimati", "Pacific/Kiritimati", coordinates=(1.87, -157.4)),
]
TOLERANCE = timedelta(minutes=4)


def sun_at_zenith(day: datetime, place: tuple[float, float], zenith: float, side: int) -> datetime:
    """UTC of the sun's passage through `zenith` degrees, side −1 in the morning, 1 at night."""
    latitude, longitude = radians(place[0]), place[1]
    g = 2 * pi / 365.25 * (day.timetuple().tm_yday - 1 + (12 - longitude / 15) / 24 - 0.5)
    equation = 229.18 * (
        0.000075
        + 0.001868 * cos(g)
        - 0.032077 * sin(g)
        - 0.014615 * cos(2 * g)
        - 0.040849 * sin(2 * g)
    )
    declination = (
        0.006918
        - 0.399912 * cos(g)
        + 0.070257 * sin(g)
        - 0.006758 * cos(2 * g)
        + 0.000907 * sin(2 * g)
        - 0.002697 * cos(3 * g)
        + 0.00148 * sin(3 * g)
    )
    height = cos(radians(zenith)) / (cos(latitude) * cos(declination))
    angle = degrees(acos(height - tan(latitude) * tan(declination)))
    return day + timedelta(minutes=720 - 4 * longitude - equation + side * 4 * angle)


def year_of_spans(hours: str, site: Site) -> list[tuple[datetime, datetime]]:
    return list_open_spans(
        hours, site, datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 12, 30, tzinfo=UTC)
    )[1:-1]


def nearest(at: datetime, place: tuple[float, float], zenith: float, side: int) -> timedelta:
    day = at.replace(hour=0, minute=0)
    around = (day + timedelta(days=shift) for shift in (-1, 0, 1))
    return min(abs(at - sun_at_zenith(noon, place, zenith, side)) for noon in around)


@pytest.mark.parametrize("site", PLACES, ids=lambda site: site.id)
@pytest.mark.parametrize(
    ("hours", "zenith"), [("sunrise-sunset", 90.833), ("dawn-dusk", 96.0)], ids=["sun", "twilight"]
)
def test_the_day_begins_and_ends_with_the_sun(site, hours, zenith):
    spans = year_of_spans(hours, site)
    if (site.id, hours) == ("oslo", "dawn-dusk"):  # midsummer is tested as a light night below
        spans = [span for span in spans if not 4 < span[0].month < 9]
    assert len(spans) > 200
    assert all(nearest(rise, site.coordinates, zenith, -1) < TOLERANCE for rise, _ in spans)
    assert all(nearest(sets, site.coordinates, zenith, 1) < TOLERANCE for _, sets in spans)


@pytest.mark.parametrize("site", PLACES, ids=lambda site: site.id)
def test_each_night_ends_with_the_sun_of_its_own_morning(site):
    for sets, rises in year_of_spans("sunset-sunrise", site):
        assert nearest(sets, site.coordinates, 90.833, 1) < TOLERANCE
        assert nearest(rises, site.coordinates, 90.833, -1) < TOLERANCE


@pytest.mark.parametrize("site", PLACES, ids=lambda site: site.id)
def test_night_is_what_day_leaves_also_when_the_clocks_change(site):
    days, nights = year_of_spans("sunrise-sunset", site), year_of_spans("sunset-sunrise", site)
    edges = sorted({at for span in days + nights for at in span})
    inside = [at for at in edges if max(days[0][0], nights[0][0]) <= at <= days[-1][1]]
    assert {(a, b) for a, b in pairwise(inside)} <= {*days, *nights}


def test_an_hour_after_sunset_is_an_hour_long():
    spans = year_of_spans("sunset-(sunset+01:00)", PLACES[0])
    assert {closes - opens for opens, closes in spans} == {timedelta(hours=1)}
    sunsets = {sets for _, sets in year_of_spans(DAY, PLACES[0])}
    assert len(sunsets & {opens for opens, _ in spans}) >= len(sunsets) - 1


DAY = "sunrise-sunset"
TROMSO = Site("tromso", "Europe/Oslo", coordinates=(69.65, 18.96))
HALLEY = Site("halley", "Antarctica/Palmer", coordinates=(-75.6, -26.2))


@pytest.mark.parametrize(
    ("site", "month", "up"), [(TROMSO, 6, 1), (TROMSO, 12, 0), (HALLEY, 6, 0), (HALLEY, 12, 1)]
)
def test_the_midnight_sun_and_the_polar_night_are_right_to_a_few_minutes_a_day(site, month, up):
    start = datetime(2024, month, 15, tzinfo=UTC)
    end = start + timedelta(days=10)
    light = sum((b - a for a, b in list_open_spans(DAY, site, start, end)), timedelta())
    dark = sum((b - a for a, b in list_open_spans("sunset-sunrise", site, start, end)), timedelta())
    assert light + dark == end - start
    assert abs(light - up * (end - start)) <= 10 * timedelta(minutes=3)


def test_twilight_lasts_all_night_in_a_northern_midsummer():
    midnight = datetime(2024, 6, 21, 22, 30, tzinfo=UTC)
    assert is_open(
        "dawn-dusk", Site("tampere", "Europe/Helsinki", coordinates=(61.5, 23.8)), midnight
    )


def test_a_sun_event_at_midnight_utc_is_not_lost():
    # Denver's sunset passes 00:00 UTC in January: the minutes of two of its days then touch.
    january = [
        minutes["sunset"] for minutes in compute_sun_year("America/Denver", (40.34, -105.57), 2024)
    ]
    assert all(0 <= b - a <= 2 for a, b in pairwise(january[5:60]))


def test_words_in_comments_are_left_alone():
    assert not follows_sun('Mo-Fr 09:00-17:00 "closed after sunset"')
    assert follows_sun("Mo-Fr 09:00-SUNSET")
    minutes = {"sunrise": 395, "sunset": 1427}
    hours = 'Mo (sunrise - 00:35)-Sunset,sunset-(sunset+01:00) "at sunset"'
    assert replace_sun_events(hours, minutes) == 'Mo 06:00-23:47,23:47-00:47 "at sunset"'


def test_the_offset_of_a_zone_from_its_sun_is_taken_in_standard_time():
    assert compute_sun_offset(PLACES[1]) == pytest.approx(9.14 / 15)
    assert compute_sun_offset(PLACES[8]) == pytest.approx(14 + 157.4 / 15 - 24)
    assert compute_sun_offset(Site("nowhere", "UTC")) is None
