from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.files.text_formats import SiteZones, convert_to_instants, parse_times

VIENNA = "Europe/Vienna"


def placed(*texts, zone=VIENNA):
    times = parse_times(pl.Series(texts, dtype=pl.String))
    return convert_to_instants(times, pl.Series([0] * len(texts), dtype=pl.Int32), [zone])


def instant(text, zone=VIENNA):
    return placed(text, zone=zone)["at"][0]


def fault(text):
    return parse_times(pl.Series([text]))["fault"][0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2027-05-03T14:05:09", datetime(2027, 5, 3, 12, 5, 9, tzinfo=UTC)),
        ("2027-01-03 14:05:09", datetime(2027, 1, 3, 13, 5, 9, tzinfo=UTC)),
        ("2027-05-03T14:05", datetime(2027, 5, 3, 12, 5, tzinfo=UTC)),
        ("2027-05-03t14:05:09z", datetime(2027, 5, 3, 14, 5, 9, tzinfo=UTC)),
        (" 2027-05-03T14:05:09+05:30 ", datetime(2027, 5, 3, 8, 35, 9, tzinfo=UTC)),
        ("2027-05-03T14:05-0330", datetime(2027, 5, 3, 17, 35, tzinfo=UTC)),
        ("2027-05-03T14:05:09.25+02", datetime(2027, 5, 3, 12, 5, 9, 250000, tzinfo=UTC)),
        ("2027-05-03T14:05:09,1234567Z", datetime(2027, 5, 3, 14, 5, 9, 123456, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_in_each_form(text, expected):
    assert instant(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2019-02-29T14:05:09",
        "2019-13-01T14:05:09",
        "2019-02-28T24:00:00",
        "2019-02-28T14:60",
        "2019-02-28T14:05:60",
        "2019-02-28T14:05:09+25:00",
        "2019-02-28T14:05:09+01:60",
        "0000-02-28T14:05:09",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_a_time_that_does_not_exist_is_impossible(text):
    assert fault(text) == "impossible-time"
    assert instant(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("2019-02-28", "1551362709", "28.02.2019 14:05", "14:05:09", "x", "+2019-2-8T14:05:09"),
        *("2019-02-28T14:05:09.٣Z", "2019-02-28T14:05:09+٠2:00", "٢٠١٩-02-28T14:05:09"),
    ],
)
def test_another_form_is_unreadable(text):
    assert fault(text) == "unreadable-time"
    assert instant(text) is None


def test_the_hour_is_as_written_even_of_a_day_that_does_not_exist():
    texts = ["2019-02-29T14:05:09", "2019-02-28T23:05Z", "2019-02-28T24:05:09", "x", None]
    assert parse_times(pl.Series(texts))["hour"].to_list() == [14, 23, None, None, None]


def test_no_text_is_no_time_and_no_fault():
    for texts in ([None], [None, "2019-02-28T14:05"], []):
        times = parse_times(pl.Series(texts, dtype=pl.String))
        assert times.height == len(texts)
        assert times["fault"].null_count() == len(texts)


def test_of_the_autumn_hour_the_earlier_instant_is_taken_and_noted():
    rows = placed("2021-10-31T02:30:00", "2021-10-31T02:30:00+01:00")
    assert rows["at"][0] == datetime(2021, 10, 31, 0, 30, tzinfo=UTC)
    assert rows["at"][1] == datetime(2021, 10, 31, 1, 30, tzinfo=UTC)
    assert rows["note"].to_list() == ["ambiguous-time", None]


def test_a_time_in_the_spring_gap_is_read_by_the_offset_before_it_and_noted():
    rows = placed("2021-03-28T02:30:00", "2021-03-28T03:30:00")
    assert rows["at"][0] == rows["at"][1] == datetime(2021, 3, 28, 1, 30, tzinfo=UTC)
    assert rows["note"].to_list() == ["gap-time", None]


def test_a_day_that_a_zone_left_out_is_read_by_the_offset_before_it():
    assert instant("2011-12-30T12:00:00", "Pacific/Apia") == datetime(
        2011, 12, 30, 22, 0, tzinfo=UTC
    )


@given(st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1)))  # noqa: DTZ001 - local times
def test_local_times_are_placed_as_python_places_them(local):
    local = local.replace(microsecond=0)
    expected = local.replace(tzinfo=ZoneInfo(VIENNA), fold=0).astimezone(UTC)
    assert instant(local.isoformat()) == expected


@given(st.datetimes(datetime(1900, 1, 1)), st.integers(-1439, 1439))  # noqa: DTZ001 - local times
def test_times_with_an_offset_are_read_as_python_reads_them(local, minutes):
    local = local.replace(year=min(local.year, 9000))
    sign, off = "-" if minutes < 0 else "+", abs(minutes)
    text = f"{local.isoformat()}{sign}{off // 60:02}:{off % 60:02}"
    assert instant(text) == (local - timedelta(minutes=minutes)).replace(tzinfo=UTC)


def test_each_site_has_its_zone_and_the_others_the_default():
    zones = SiteZones({"46.10": "America/Denver", "7": VIENNA}, "UTC")
    places = zones.find_zone_indices(pl.Series(["7", "46.1", "46.10", None]))
    assert [zones.names[at] for at in places] == [VIENNA, "UTC", "America/Denver", "UTC"]
    times = parse_times(pl.Series(["2027-05-03T12:00:00"] * 4))
    hours = convert_to_instants(times, places, zones.names)["at"].dt.hour().to_list()
    assert hours == [10, 12, 18, 12]


@pytest.mark.parametrize("zone", ["Europe/Wien", "", "../etc"])
def test_an_unknown_zone_is_refused(zone):
    with pytest.raises(ValueError, match="write one as Europe/Vienna"):
        SiteZones({}, zone)
