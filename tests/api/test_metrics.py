"""Gauges of the whole service at /metrics; those of a rollout are tested with what they count."""

from rollout.features.access.keys import create_key
from rollout.features.access.users import create_account, create_first_admin
from tests.factories import NOON
from tests.features.houses import ADA, chance

NAME = "rollout_key_expiry_seconds"


def test_monitoring_reads_when_the_first_service_account_is_without_a_key(client, database):
    def read_lines():
        lines = client.by("viewer").get("/metrics").text.splitlines()
        return [line for line in lines if line.startswith(NAME)]

    create_first_admin(database, "ada", at=NOON)
    create_account(database, ADA, "box", at=NOON, is_service_account=True)
    assert read_lines() == []
    create_key(database, ADA, "box", random_bytes=chance(), at=NOON)
    assert read_lines() == [f"{NAME} {365 * 86400.0}"]
