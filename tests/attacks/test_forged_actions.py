"""A lying client: it asks about one thing, does another, and brings back a permit that is real."""

from datetime import datetime

import pytest

from rollout.engine.decide.commands import Actor
from rollout.engine.events import Resumed
from rollout.live.policy_application import apply_policy
from tests.api.bears import approved
from tests.api.field_box import (
    BEARS,
    BURSTS,
    FLOORED,
    SECOND,
    action,
    case,
    permissions,
    prediction,
    request_permit,
    send,
    steady,
)
from tests.factories import DAY, HOUR, MINUTE, NOON
from tests.features import bear_field as field

__all__ = ["steady"]


def autonomous(database, policy=field.POLICY):
    field.set_up_field(database, policy=policy)
    field.widen(database, ("creek", "day"))


def test_a_permit_asked_for_at_one_site_permits_nothing_at_another(client, database):
    autonomous(database)
    permit = request_permit(client)
    send(client, case(site="dale"), prediction(), action(permit))
    assert permissions(client) == ["unauthorized"]


def test_nor_does_a_lease_that_was_asked_for_at_one_site_lead_to_another(client, database, clock):
    autonomous(database)
    permit = request_permit(client)
    field.stop(database, ("lake", "day"), at=NOON + SECOND)  # any later row of the ledger will do
    clock.advance(30 * SECOND)
    send(client, case(site="dale"), prediction(), action(permit, at=NOON + 20 * SECOND))
    assert permissions(client) == ["unauthorized"]


def test_who_asks_surely_and_records_a_doubt_has_no_permission(client, database):
    autonomous(database, FLOORED)
    permit = request_permit(client, confidence=0.99)
    assert permit is not None
    send(client, case(), prediction(confidence=0.3), action(permit))
    assert permissions(client) == ["unauthorized"]


def test_who_asks_surely_and_is_as_sure_when_it_is_recorded_has_permission(client, database):
    autonomous(database, FLOORED)
    permit = request_permit(client, confidence=0.99)
    send(client, case(), prediction(confidence=0.99), action(permit))
    assert permissions(client) == ["authorized"]


def bursts():
    """Return a burst whose cases are people's, and one whose cases are the model's."""
    return field.keys(0.5)[0], field.keys(0.5, below=False)[0]


def test_a_burst_that_is_named_for_its_draw_alone_permits_nothing_in_another(client, database):
    blind, models = bursts()
    autonomous(database, BURSTS)
    permit = request_permit(client, episode=models)
    assert permit is not None
    assert request_permit(client, "c2", episode=blind) is None
    send(client, case(episode=blind), prediction(), action(permit))
    send(
        client,
        case("c2", episode=models),
        prediction("c2"),
        action(request_permit(client, "c2", episode=models), "c2"),
    )
    assert (permissions(client), permissions(client, "c2")) == (["unauthorized"], ["authorized"])


def test_a_permit_does_one_action_and_a_correction_is_judged_once_more(client, database, clock):
    autonomous(database)
    permit = request_permit(client)
    send(client, case(), prediction())
    items = send(client, action(permit), action(permit), action(permit, at=NOON + SECOND))
    assert [i["status"] for i in items] == ["accepted", "duplicate", "conflict"]
    assert permissions(client) == ["authorized"]
    field.stop(database, ("creek", "day"), at=NOON + SECOND)
    clock.advance(10 * MINUTE)
    send(client, action(permit, at=NOON + 5 * MINUTE, revision=2))
    assert "unauthorized" in permissions(client)


AHEAD = NOON + 280 * SECOND


def list_incidents(client):
    items = client.by("viewer").get(f"{BEARS}/incidents").json()["items"]
    return sorted((item["kind"], item["about"]) for item in items)


@pytest.mark.parametrize("stated", [AHEAD, NOON + 365 * DAY], ids=["minutes", "a year"])
def test_an_action_dated_ahead_is_stored_and_judged_when_it_came(client, database, stated):
    autonomous(database)
    for key in ("c1", "c2"):
        done = action(request_permit(client, key), key, at=stated)
        (*_, answer) = send(client, case(key), prediction(key), done)
        assert answer["status"] == "accepted"
        assert permissions(client, key) == ["authorized"]
    assert list_incidents(client) == [("sender_clock", "ingest")]
    (first,) = client.by("viewer").get(f"{BEARS}/cases/c1").json()["actions"]
    assert datetime.fromisoformat(first["at"]) == stated


def test_an_action_dated_ahead_of_a_stops_end_is_judged_before_it(client, database, clock):
    autonomous(database)
    permits = {key: request_permit(client, key) for key in ("c1", "c2")}
    field.stop(database, ("creek", "day"), at=NOON + SECOND)
    for key, minutes in (("c1", 2), ("c2", 4)):
        clock.advance(2 * MINUTE)
        done = action(permits[key], key, at=NOON + minutes * MINUTE + 280 * SECOND)
        send(client, case(key), prediction(key), done)
        assert permissions(client, key) == ["unauthorized"]
        resumed = Resumed(at=NOON + 3 * MINUTE, by="policy", stop="S-1", proposal="P-9")
        field.append(database, resumed)  # from then on the scope allows it, the permit doesn't
    incidents = [("sender_clock", "ingest"), ("unauthorized", "c1"), ("unauthorized", "c2")]
    assert list_incidents(client) == incidents


def test_a_permit_ends_with_its_lease_though_nothing_was_stopped(client, database, clock):
    autonomous(database)
    permit = request_permit(client)
    clock.advance(10 * MINUTE)
    late = action(permit, at=NOON + MINUTE + 6 * SECOND)
    (*_, answer) = send(client, case(), prediction(), late)
    assert answer["reason"] == "unpermitted: its permit had ended"
    assert list_incidents(client) == [("unauthorized", "c1")]


def test_a_case_that_comes_later_is_judged_when_the_action_came(client, database, clock):
    autonomous(database)
    send(client, prediction(), action(request_permit(client), at=AHEAD))
    field.stop(database, ("creek", "day"), at=NOON + 10 * SECOND)
    clock.advance(10 * MINUTE)
    send(client, case())
    assert list_incidents(client) == [("sender_clock", "ingest")]


def test_who_sends_an_hour_later_what_was_done_within_the_lease_did_right(client, database, clock):
    autonomous(database)
    permit = request_permit(client)
    field.stop(database, ("creek", "day"), at=NOON + 30 * SECOND)
    clock.advance(HOUR)
    send(client, case(), prediction(), action(permit, at=NOON + 20 * SECOND))
    assert permissions(client) == ["authorized"]
    assert list_incidents(client) == []


def test_a_clock_within_the_tolerance_opens_nothing(client, database):
    autonomous(database)
    permit = request_permit(client)
    send(client, case(), prediction(), action(permit, at=NOON + 5 * SECOND))
    assert (permissions(client), list_incidents(client)) == (["authorized"], [])


def test_a_replica_whose_clock_is_behind_accuses_nobody(client, database, clock):
    autonomous(database)
    clock.advance(2 * SECOND)
    field.widen(database, ("lake", "day"), at=NOON + 2 * SECOND)
    permit = request_permit(client, site="lake")
    clock.advance(-2 * SECOND)
    done = action(permit, at=NOON + 3 * SECOND)
    send(client, case(site="lake"), prediction(), done)
    assert (permissions(client), list_incidents(client)) == (["authorized"], [])


def test_a_policy_that_calls_the_hours_otherwise_takes_no_lease_back(client, database, clock):
    autonomous(database)
    permit = request_permit(client)
    apply_policy(
        database,
        field.POLICY.replace("id: day", "id: light, was: day"),
        Actor("zoe"),
        NOON + SECOND,
    )
    approved(database, NOON + SECOND)
    clock.advance(30 * SECOND)
    assert request_permit(client) is None
    send(client, case(), prediction(), action(permit, at=NOON + 20 * SECOND))
    assert permissions(client) == ["authorized_within_lease"]
