"""The schedule over HTTP, and the address for calendar programs."""

import pytest

from tests.api.bears import V1, founded, widened
from tests.factories import NOON

CALENDAR = "/v1/me/calendar"


@pytest.fixture
def bears(database):
    founded(database, NOON)


def test_the_schedule_names_entries_with_time_and_text(client, database, bears):
    widened(database, NOON)
    found = client.get(f"{V1}/schedule", params={"days": 92}).json()
    (grant,) = [item for item in found["items"] if item["kind"] == "grant"]
    assert (grant["sites"], grant["window"], grant["subject"]) == (["creek"], "day", "supervised")
    assert client.get(f"{V1}/schedule", params={"days": 93}).status_code == 422


def test_a_service_account_has_no_address(client, bears):
    refused = client.by("ingest").post(CALENDAR)
    assert refused.status_code == 422
    assert "a program reads schedules with its key" in refused.json()["detail"]
