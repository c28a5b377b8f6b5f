"""The schedule over HTTP."""

import pytest

from tests.api.bears import V1, founded, widened
from tests.factories import DAY, NOON


@pytest.fixture
def bears(database):
    founded(database, NOON)


def test_the_schedule_names_entries_with_time_and_text(client, database, bears):
    widened(database, NOON)
    found = client.get(f"{V1}/schedule", params={"days": 92}).json()
    (grant,) = [item for item in found["items"] if item["kind"] == "grant"]
    assert (grant["sites"], grant["window"], grant["subject"]) == (["creek"], "day", "supervised")
    assert client.get(f"{V1}/schedule", params={"days": 93}).status_code == 422


def test_a_drill_moves_the_next_one_by_thirty_days(client, database, bears, clock):
    widened(database, NOON)

    def list_drills():
        items = client.get(f"{V1}/schedule").json()["items"]
        return [(item["text"], item["at"]) for item in items if item["kind"] == "drill"]

    assert list_drills() == [("First stop drill is due at creek", "2027-06-01T12:15:00Z")]
    for is_drill, window in ((False, "night"), (True, "day")):
        cells = [{"site": "creek", "window": window}]
        body = {"cells": cells, "reason": "practice", "drill": is_drill}
        assert client.by("bo").post(f"{V1}/stops", json=body).status_code == 201
        assert list_drills()[0][0].startswith("First") != is_drill
    assert list_drills() == [("Stop drill is due at creek", "2027-07-01T12:00:00Z")]
    clock.advance(31 * DAY)
    assert list_drills() == [("Stop drill is overdue at creek", "2027-07-02T12:15:00Z")]
