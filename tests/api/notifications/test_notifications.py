"""Notification settings over HTTP."""

import pytest

from tests.api.conftest import client, clock, door
from tests.factories import NOON
from tests.features.notifications.mailing_list import (
    add_users,
    build_notified_service,
    build_user,
)

__all__ = ["client", "clock", "door"]
PATH = "/v1/me/notifications"
MAIL = f"{PATH}/channels/mail"
CHANNEL = {
    "channel": "mail",
    "address": "olga@example.org",
    "kinds": ["proposals", "incidents"],
    "configured": True,
    "last_state": "waiting",
    "last_error": "",
}


@pytest.fixture
def service(database, door, clock):
    add_users(database)
    olga = build_user("olga")
    door.let_in("olga", *olga.role_assignments)
    return build_notified_service(database, door, clock)


def test_a_user_chooses_a_channel_confirms_it_and_deletes_it(client):
    client.by("olga")
    body = {"address": "olga@example.org", "kinds": ["incidents", "proposals"]}
    answer = client.put(MAIL, json=body)
    assert answer.json() == {
        "timezone": "UTC",
        "quiet_from": "",
        "quiet_until": "",
        "channels": [{**CHANNEL, "confirmed_at": None}],
        "available": ["hook", "mail"],
    }
    wrong = client.post(f"{MAIL}/confirmation", json={"code": "1"})
    assert wrong.json()["detail"] == "this code is wrong; type the newest one that arrived"
    assert client.post(f"{MAIL}/code").status_code == 200
    answer = client.post(f"{MAIL}/confirmation", json={"code": "00000000"})
    assert answer.json()["channels"][0]["confirmed_at"] == NOON.isoformat().replace("+00:00", "Z")
    times = {"timezone": "Europe/Vienna", "quiet_from": "22:00", "quiet_until": "07:00"}
    assert client.put(PATH, json=times).json().items() >= times.items()
    assert client.delete(MAIL).json()["channels"] == []
    assert client.delete(MAIL).json()["channels"] == []
    assert client.get(PATH).json()["channels"] == []


def test_an_unknown_kind_or_channel_is_refused(client):
    client.by("olga")
    unknown = client.put(MAIL, json={"address": "olga@example.org", "kinds": ["gossip"]})
    assert unknown.status_code == 422
    nowhere = client.put(f"{PATH}/channels/fax", json={"address": "olga", "kinds": []})
    assert nowhere.status_code == 422
    assert "there is no channel fax for users; there are hook, mail" in nowhere.json()["detail"]


def test_a_service_account_has_none(client):
    refused = client.by("ingest").get(PATH)
    assert refused.status_code == 422
    assert "only users are notified" in refused.json()["detail"]
