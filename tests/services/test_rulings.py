"""Instants as numbers: what a ruling is looked up by."""

from datetime import UTC, timedelta, timezone
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from rollout.services.rulings import _seconds

OFFSETS = st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m)))
ZONES = st.one_of(st.just(UTC), OFFSETS, st.sampled_from(["Europe/Zurich"]).map(ZoneInfo))


@given(st.datetimes(timezones=ZONES))
def test_the_seconds_of_an_instant_are_those_of_its_timestamp(at):
    assert abs(_seconds(at) - at.timestamp()) < 1e-4
