"""A lying client: it asks about one thing, does another, and brings back a permit that is real."""

from rollout.core.scope.commands import Actor
from rollout.services.engine.policy_application import apply_policy
from tests.api.bears import approved
from tests.api.field_box import (
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
from tests.factories import DAY, MINUTE, NOON
from tests.services import bear_field as field

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


def test_an_action_dated_ahead_of_a_stop_is_none_before_the_stop(client, database):
    autonomous(database)
    (answer,) = send(client, action(request_permit(client), at=NOON + DAY))
    assert answer["status"] == "rejected"


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
