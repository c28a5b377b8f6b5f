"""An action sent before its case is judged by its permit, and again when the case is known."""

import pytest

from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.assignment import Permit
from rollout.engine.events import IncidentAcknowledged, IncidentOpened
from rollout.features.records.ingest import store_asked_cases
from rollout.kernel.errors import StaleRevisionError
from rollout.kernel.facts import CORRECTED_CASE, ENDED_PERMIT, FORBIDDEN, LATER_CASE, Trigger
from rollout.kernel.words import say_cause
from rollout.live.rollout_state import load_rollout_state
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
from tests.data.databases import on_sqlite
from tests.factories import DAY, HOUR, MINUTE, NOON
from tests.features import bear_field as field

__all__ = ["steady"]
FOGGY = field.POLICY.replace("windows: [", "windows: [{id: fog, when: {fog: [yes]}}, ").replace(
    "yes", '"yes"'
)
PREDICTED = {"answers": {"alarm": "bear"}, "confidence": 0.99}
BLIND, MODELS = field.keys(0.5)[0], field.keys(0.5, below=False)[0]

CASE_CAME_LATER = Trigger(FORBIDDEN, {"later": LATER_CASE})
CASE_CORRECTED_LATER = Trigger(FORBIDDEN, {"later": CORRECTED_CASE})


def autonomous(database, policy=field.POLICY):
    """Let the model decide by day at the creek and the lake, and people at the dale."""
    field.set_up_field(database, policy=policy)
    field.widen(database, ("creek", "day"), ("lake", "day"))


def opened(database):
    """Return every incident that was ever opened."""
    with database.begin_read() as transaction:
        events = Ledger(transaction, load_rollout_state(transaction, "bears").rollout).list_events()
        return [event for event in events if isinstance(event, IncidentOpened)]


def incidents(database):
    """Return of every incident whom it is about, where, and why."""
    found = opened(database)
    assert {event.kind for event in found} <= {"unauthorized"}
    return [(event.about, str(event.cell), event.trigger) for event in found]


def acknowledge(database, number=1):
    seen = IncidentAcknowledged(at=NOON, by="bo", incident=f"I-{number}", note="")
    field.append(database, seen)


def acted(client, permit=None, key="c1", **more):
    """Ask about the creek, or bring a permit, and tell of prediction and action alone."""
    permit = permit or request_permit(client, key)
    _, answer = send(client, prediction(key, confidence=0.99), action(permit, key, **more))
    assert answer["status"] == "accepted"
    assert not answer["reason"].startswith("unpermitted")


def test_a_case_that_is_elsewhere_than_was_asked_is_an_incident(client, database):
    autonomous(database)
    acted(client)
    assert send(client, case(site="dale"))[0]["status"] == "accepted"
    assert incidents(database) == [("c1", "dale · day", CASE_CAME_LATER)]
    assert permissions(client) == ["authorized"]  # what was kept stays as it was


def test_a_case_that_is_where_was_asked_is_none(client, database):
    autonomous(database)
    acted(client)
    send(client, case())
    assert incidents(database) == []


@pytest.mark.parametrize(
    ("policy", "told", "later"),
    [
        (field.POLICY, {}, [case(at=NOON - 10 * HOUR)]),
        (FOGGY, {"attributes": {"fog": "no"}}, [case(attributes={"fog": "yes"})]),
        (BURSTS, {"episode": MODELS}, [case(episode=BLIND)]),
    ],
    ids=["at night", "in fog", "in a burst of people's"],
)
def test_so_is_one_in_another_window_or_burst(client, database, policy, told, later):
    autonomous(database, policy)
    permit = request_permit(client, **told)
    acted(client, permit)
    send(client, *later)
    assert [(about, why) for about, _, why in incidents(database)] == [("c1", CASE_CAME_LATER)]


@pytest.mark.parametrize(
    ("policy", "told", "later"),
    [
        (FOGGY, {"attributes": {"fog": "no"}}, [case(attributes={"fog": "no"})]),
        (BURSTS, {"episode": MODELS}, [case(episode=MODELS)]),
        (FLOORED, {"confidence": 0.99}, [prediction(confidence=0.99), case()]),
        (FLOORED, {"confidence": 0.99}, [case()]),
    ],
)
def test_what_is_recorded_as_it_was_asked_is_none(client, database, policy, told, later):
    autonomous(database, policy)
    acted(client, request_permit(client, **told))
    send(client, *later)
    assert incidents(database) == []


@pytest.mark.parametrize(("site", "opened"), [("dale", 1), ("creek", 0)])
def test_a_lease_is_held_to_the_cell_of_its_revision(client, database, clock, site, opened):
    autonomous(database)
    permit = request_permit(client)
    field.stop(database, ("creek", "day"), at=NOON + SECOND)
    clock.advance(30 * SECOND)
    acted(client, permit, at=NOON + 20 * SECOND)
    send(client, case(site=site))
    assert permissions(client) == ["authorized_within_lease"]
    assert len(incidents(database)) == opened


def test_a_stop_after_the_action_is_no_fault_of_the_action(client, database, clock):
    autonomous(database)
    acted(client, at=NOON + SECOND)
    field.stop(database, ("creek", "day"), at=NOON + 10 * SECOND)
    clock.advance(DAY)
    send(client, case())
    assert incidents(database) == []


def test_nor_is_one_before_it_that_nobody_could_know(client, database, clock):
    autonomous(database)
    acted(client, at=NOON + 5 * SECOND)  # the box's clock is ahead
    field.stop(database, ("creek", "day"), at=NOON + SECOND)
    clock.advance(MINUTE)
    send(client, case())
    assert incidents(database) == []


@pytest.mark.parametrize("is_marked", [False, True], ids=["before a tick", "after a tick"])
@pytest.mark.parametrize("is_first", [False, True], ids=["case later", "case first"])
def test_nor_is_the_end_of_a_grant_by_a_clock_ahead(client, database, clock, is_marked, is_first):
    field.set_up_field(database)
    field.widen(database, ("creek", "day"), lasts=DAY + 30 * SECOND)
    permit, other_permit = request_permit(client), request_permit(client, "c2")
    if is_marked:
        field.stop(database, ("lake", "day"), at=NOON + 31 * SECOND)
    clock.advance(HOUR)
    sent = [case()] * is_first
    send(client, *sent, prediction(), action(permit, at=NOON + 33 * SECOND))
    send(client, case(attributes={"fog": "no"}, revision=2))
    assert incidents(database) == []
    send(client, prediction("c2"), action(other_permit, "c2", at=NOON + 36 * SECOND))
    assert [about for about, _, _ in incidents(database)] == ["c2"]


def test_nor_is_a_clock_that_is_behind(client, database, clock):
    field.set_up_field(database)
    field.widen(database, ("creek", "day"), at=NOON + SECOND)
    clock.advance(2 * SECOND)
    permit = request_permit(client)
    field.stop(database, ("lake", "day"), at=NOON + 3 * SECOND)
    clock.advance(2 * SECOND)
    acted(client, permit, at=NOON)  # before anything was granted
    send(client, case())
    assert permissions(client) == ["authorized_within_lease"]
    assert incidents(database) == []


def test_sending_the_case_again_opens_nothing_more(client, database):
    autonomous(database)
    acted(client)
    send(client, case(site="dale"))
    acknowledge(database)
    assert send(client, case(site="dale"))[0]["status"] == "duplicate"
    assert send(client, case(site="moon"))[0]["status"] == "conflict"
    assert len(incidents(database)) == 1


@pytest.mark.parametrize("seen", [False, True], ids=["open", "acknowledged"])
def test_a_corrected_case_is_judged_again_and_told_once(client, database, seen):
    autonomous(database)
    acted(client)
    send(client, case())
    send(client, case(site="dale", revision=2))
    assert incidents(database) == [("c1", "dale · day", CASE_CORRECTED_LATER)]
    if seen:
        acknowledge(database)
    send(client, case(revision=3))
    send(client, case(site="dale", revision=4))
    assert len(incidents(database)) == 1


def test_a_later_action_about_a_case_that_was_told_of_is_told_too(client, database, clock):
    autonomous(database)
    acted(client)
    send(client, case(site="dale"))
    acknowledge(database)
    clock.advance(SECOND)
    send(client, case(revision=2))
    acted(client, revision=2)
    send(client, case(site="dale", revision=3))
    assert incidents(database) == [
        ("c1", "dale · day", CASE_CAME_LATER),
        ("c1", "dale · day", CASE_CORRECTED_LATER),
    ]


def test_what_was_told_is_not_told_again_beside_something_new(client, database, clock):
    autonomous(database)
    acted(client)
    send(client, case(site="dale"))
    acknowledge(database)
    clock.advance(SECOND)
    acted(client, request_permit(client, "c2"), key="c2")
    send(client, case(site="dale", revision=2, media={"picture": "a.jpg"}), case("c2", "dale"))
    assert [about for about, _, _ in incidents(database)] == ["c1", "c2"]


def test_a_correction_that_moves_nothing_is_none(client, database):
    autonomous(database, FLOORED)
    acted(client, request_permit(client, confidence=0.99))
    send(client, case())
    send(client, case(revision=2, media={"picture": "a.jpg"}))
    assert incidents(database) == []


def test_a_permit_of_long_ago_permits_nothing(client, database, clock, service):
    autonomous(database)
    with database.begin_read() as transaction:
        revision = load_rollout_state(transaction, "bears").scope.revision
    permit = Permit("model", revision, NOON, 12 * HOUR)  # the lake's whole lease
    field.stop(database, ("lake", "day"), at=NOON + SECOND)
    clock.advance(14 * HOUR)
    signed = service.permit_signer.sign(permit, "bears", "c1", "v1")
    send(client, case(), prediction(), action(signed, at=NOON + 13 * HOUR))
    assert permissions(client) == ["unauthorized"]
    assert incidents(database) == [("c1", "creek · day", Trigger(ENDED_PERMIT, {}))]


def test_a_snapshots_action_stays_in_lease_where_its_case_was_corrected(client, database, clock):
    autonomous(database)
    body = client.by("ingest").get(f"{BEARS}/scope").json()
    (permit,) = [site["permit"] for site in body["sites"] if site["site"] == "lake"]
    field.stop(database, ("lake", "day"), at=NOON + MINUTE)
    clock.advance(3 * HOUR)
    when = NOON + 2 * HOUR
    send(client, case(site="lake", at=when), prediction(), action(permit, at=when))
    assert permissions(client) == ["authorized_within_lease"]
    send(client, case(site="lake", at=when, attributes={"fog": "no"}, revision=2))
    assert incidents(database) == []
    send(client, case(site="dale", at=when, revision=3))
    assert incidents(database) == [("c1", "dale · day", CASE_CORRECTED_LATER)]


@pytest.mark.parametrize(("site", "opened"), [("dale", 1), ("creek", 0)])
def test_a_case_that_comes_with_a_question_is_looked_at_too(client, database, site, opened):
    autonomous(database)
    acted(client)
    question = field.question("c1", site, prediction=PREDICTED)
    for _ in range(2):
        told = client.by("ingest").post(f"{BEARS}/assignments", json=question).json()
        assert told["recorded"]["status"] in {"accepted", "duplicate"}
    assert [about for about, _, _ in incidents(database)] == ["c1"] * opened


def test_a_question_is_kept_though_others_came_first(client, database, monkeypatch):
    autonomous(database)
    acted(client)
    tries = []

    def late(*given):
        kept = store_asked_cases(*given)
        tries.append(kept)
        if len(tries) == 1:
            raise StaleRevisionError("somebody stopped it")
        return kept

    monkeypatch.setattr("rollout.features.assignments.question_records.store_asked_cases", late)
    question = field.question("c1", "dale", prediction=PREDICTED)
    told = client.by("ingest").post(f"{BEARS}/assignments", json=question).json()
    assert (told["recorded"]["status"], len(tries)) == ("duplicate", 2)
    assert len(incidents(database)) == 1


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [("creek", "dale", [("c1", "dale · day", CASE_CAME_LATER)]), ("dale", "lake", [])],
)
def test_of_several_cases_in_one_batch_the_newest_counts(client, database, first, then, told):
    autonomous(database)
    acted(client)
    send(client, case(site=then, revision=2), case(site=first))
    assert incidents(database) == told


def test_of_several_cases_that_come_with_an_action_the_newest_counts(client, database):
    autonomous(database)
    permit = request_permit(client)
    send(client, case(), case(site="dale", revision=2), prediction(), action(permit))
    assert permissions(client) == ["unauthorized"]
    assert incidents(database) == [("c1", "dale · day", Trigger(FORBIDDEN, {}))]


def test_who_acts_once_more_without_a_permit_hides_nothing(client, database):
    autonomous(database)
    acted(client)
    send(client, action(None, revision=2))
    acknowledge(database)
    send(client, case(site="dale"))
    assert [why for _, _, why in incidents(database)][1:] == [CASE_CAME_LATER]


def test_what_was_no_permission_is_told_but_once_and_a_person_needs_none(client, database):
    autonomous(database)
    send(client, action(None), action(None, "c2", by="person"))
    acknowledge(database)
    send(client, case(site="dale"), case("c2", "dale"))
    assert [about for about, _, _ in incidents(database)] == ["c1"]


def test_many_actions_are_told_in_one_append_and_say_nothing_of_what_was_done(
    client, database, monkeypatch
):
    autonomous(database)
    for n in range(3):
        permit = request_permit(client, f"c{n}")
        acted(client, permit, key=f"c{n}")
        acted(client, permit, key=f"c{n}", revision=2, at=NOON - SECOND)
    reads = []
    monkeypatch.setattr(
        "rollout.features.records.unauthorized_actions.load_rollout_state",
        lambda *a: (reads.append(a), load_rollout_state(*a))[1],
    )
    send(client, *(case(f"c{n}", "dale") for n in range(3)), action(None, "c9"))
    assert [about for about, _, _ in incidents(database)] == ["c9", "c0", "c1", "c2"]
    assert len(reads) == 1
    last = opened(database)[-1]
    assert last.cause_text == f"v1 acted on c2: {say_cause('', CASE_CAME_LATER)}"
    assert "siren" not in str(last)


@on_sqlite
def test_nothing_is_read_for_new_cases_nor_for_what_is_said_of_known_ones(
    client, database, monkeypatch
):
    autonomous(database)
    monkeypatch.setattr("rollout.features.records.unauthorized_actions.ActionStore", None)
    permit = request_permit(client)
    items = [case("c2"), prediction("c2"), case(), prediction(), action(permit)]
    more = [case("c3"), prediction(version="v2"), action(permit, lever="gate")]
    for sent in (items, more, items):
        assert {i["status"] for i in send(client, *sent)} <= {"accepted", "duplicate"}
