"""The scope over HTTP: salt and lease for who may draw, the past for who reads."""

from datetime import timedelta
from hashlib import sha256

import pytest

from api.cells.routes import ScopeSnapshot
from rollout.data.records.incoming_cases import SiteSignStore
from rollout.data.tables.record_tables import encode_instant
from rollout.engine.decide.assignment_table import IssuedHead, sign_head
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.assignments.assignments import LOCAL
from rollout.live.rollout_state import load_rollout_state
from tests.api.assignments.autonomous_bears import bears, clocks_agree
from tests.api.test_shell import problem_of
from tests.data.databases import on_sqlite
from tests.factories import DAY, HOUR, MINUTE, NOON
from tests.features import bear_field as field

__all__ = ["bears", "clocks_agree"]

URL = "/v1/rollouts/bears/scope"


def read(client, by="ingest", **asked):
    answer = client.by(by).get(URL, params=asked)
    assert answer.status_code == 200, answer.text
    return ScopeSnapshot.model_validate_json(answer.content, extra="forbid")


def test_a_machine_that_may_ask_gets_salt_leases_and_permits(client, service, bears):
    told = read(client)
    assert told.salt == field.SALT.hex()
    assert {s.site: s.lease for s in told.sites} == {"creek": 60.0, "lake": 43_200.0, "dale": 60.0}
    lake = service.permit_signer.read_permit(told.sites[1].permit, "bears", "lake")
    assert (lake.decider, lake.revision, lake.issued_at, lake.lease) == (
        LOCAL,
        told.revision,
        NOON,
        12 * HOUR,
    )
    assert service.permit_signer.read_permit(told.sites[1].permit, "bears", "creek") is None
    assert told.issued_at == NOON


def test_a_fetched_lease_is_no_sign_of_life(client, database, bears):
    read(client, site="creek")
    with database.begin_read() as transaction:
        signs = SiteSignStore(transaction, load_rollout_state(transaction, "bears").rollout)
        assert signs.load_heartbeats("creek") == []
    heartbeat = {"kind": "heartbeat", "site": "creek", "at": NOON.isoformat()}
    answer = client.by("ingest").post("/v1/rollouts/bears/records", json=[heartbeat])
    assert answer.status_code < 300, answer.text
    with database.begin_read() as transaction:
        signs = SiteSignStore(transaction, load_rollout_state(transaction, "bears").rollout)
        assert signs.load_heartbeats("creek") == [encode_instant(NOON)]


def test_a_viewer_gets_neither_salt_nor_permit(client, bears):
    told = read(client, by="viewer")
    assert told.salt is None
    assert {(s.lease, s.permit) for s in told.sites} == {(None, None)}
    assert [c.site for c in told.cells] == ["creek", "dale", "lake"]


@on_sqlite
def test_the_salt_is_for_who_may_draw_at_all_sites_that_are_asked(client, door, bears):
    rights = [AssignedRole("ingest", "bears", "creek"), AssignedRole("viewer", "bears", "lake")]
    door.let_in("box", *rights, machine=True)
    assert read(client, by="box", site="creek").salt is not None
    assert read(client, by="box", site=["creek", "lake"]).salt is None
    assert [s.site for s in read(client, by="box").sites] == ["creek", "lake"]
    assert problem_of(client.get(URL, params={"site": "dale"})) == (403, "not-allowed")
    assert problem_of(client.by("reviewer").get(URL)) == (403, "not-allowed")


@on_sqlite
def test_only_what_was_asked_about_is_told(client, bears):
    told = read(client, site=["lake"])
    assert ({s.site for s in told.sites}, {c.site for c in told.cells}) == ({"lake"}, {"lake"})
    assert problem_of(client.get(URL, params={"site": "moon"})) == (404, "unknown-site")
    assert problem_of(client.get("/v1/rollouts/none/scope")) == (404, "unknown-rollout")


def test_the_policy_comes_with_its_text_and_hash(client, bears):
    told = read(client)
    assert told.policy.text == field.POLICY
    assert told.policy.hash == sha256(field.POLICY.encode()).hexdigest()


def test_a_stop_is_in_the_next_snapshot(client, database, clock, bears):
    before = read(client)
    field.stop(database, ("creek", "day"), ("lake", "day"))
    clock.advance(timedelta(seconds=0.5))
    told = read(client, site="creek")
    assert told.revision == before.revision + 1
    assert [[c.site for c in stop.cells] for stop in told.stops] == [["creek"]]
    assert read(client, site="dale").stops == []  # not even its name


def test_an_unchanged_scope_is_not_sent_again(client, database, clock, bears):
    first = client.by("ingest").get(URL)
    tag = first.headers["etag"]
    clock.advance(timedelta(seconds=3))
    same = client.get(URL, headers={"If-None-Match": f'"x", {tag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert client.get(URL, params={"site": "lake"}).headers["etag"] != tag
    assert client.by("viewer").get(URL).headers["etag"] != tag
    field.stop(database, ("creek", "day"))
    clock.advance(timedelta(seconds=1))
    assert client.by("ingest").get(URL, headers={"If-None-Match": tag}).status_code == 200


def test_any_instant_of_the_past_can_be_read(client, database, bears):
    field.stop(database, ("creek", "day"), at=NOON)
    hour_ago = read(client, at=(NOON - HOUR).isoformat())
    assert (hour_ago.stops, hour_ago.salt, hour_ago.issued_at) == ([], None, None)
    assert {(s.lease, s.permit) for s in hour_ago.sites} == {(None, None)}
    assert len(hour_ago.cells) == 3
    now = read(client, at=NOON.isoformat())
    assert len(now.stops) == 1
    assert (now.revision, now.hash) == (read(client).revision, read(client).hash)
    before = read(client, at=(NOON - 2 * DAY).isoformat())
    assert (before.revision, before.policy, before.sites, before.hash) == (0, None, [], "")


@on_sqlite
@pytest.mark.parametrize(
    "asked", [{"at": "2027-06-01T12:00:00"}, {"at": "noon"}, {"ledger_revision": -1}, {"x": 1}]
)
def test_a_question_of_another_form_is_a_problem(client, bears, asked):
    assert problem_of(client.by("ingest").get(URL, params=asked)) == (422, "malformed")


def test_a_ledger_that_was_set_back_is_found_and_nothing_is_leased(client, bears):
    told = read(client)
    assert read(client, ledger_revision=told.revision, ledger_hash=told.hash).salt is not None
    lost = {"ledger_revision": told.revision + 1, "ledger_hash": "f" * 64}
    assert problem_of(client.get(URL, params=lost)) == (409, "ledger-rolled-back")
    assert read(client).era == 1  # without a code it is this client's matter


@on_sqlite
@pytest.mark.parametrize(("who", "opened"), [("ingest", 1), ("viewer", 0)])
def test_a_made_up_head_opens_an_incident_only_if_its_sender_may_ask_who_decides(
    client, database, bears, who, opened
):
    lost = {"ledger_revision": read(client).revision + 1, "ledger_hash": "f" * 64}
    for _ in range(2):
        answer = client.by(who).get(URL, params=lost)
        assert problem_of(answer) == (409, "ledger-rolled-back")
    with database.begin_read() as transaction:
        incidents = load_rollout_state(transaction, "bears").scope.open_incidents.values()
    assert [i.kind for i in incidents] == ["ledger_rolled_back"] * opened


@on_sqlite
def test_a_lost_head_with_its_code_stops_everybody_whoever_brings_it(client, service, bears):
    key = service.permit_signer.load_signing_key()
    head = IssuedHead("bears", 1, read(client).revision + 1, "f" * 64)
    lost = {"ledger_revision": head.revision, "ledger_hash": head.hash}
    lost["ledger_code"] = sign_head(head, key.secret, key.number)
    answer = client.by("viewer").get(URL, params=lost)
    assert problem_of(answer) == (409, "ledger-rolled-back")
    assert (read(client).era, len(read(client).stops)) == (2, 1)


def test_a_snapshots_head_comes_back_with_its_code_and_stops_everybody_if_it_is_lost(
    client, service, clock, bears
):
    told = read(client)
    sent = {"ledger_revision": told.revision, "ledger_hash": told.hash}
    assert read(client, **sent, ledger_code=told.head_code).stops == []
    key = service.permit_signer.load_signing_key()
    head = IssuedHead("bears", 1, told.revision + 1, "f" * 64)
    lost = {"ledger_revision": head.revision, "ledger_hash": head.hash}
    lost["ledger_code"] = sign_head(head, key.secret, key.number)
    assert problem_of(client.get(URL, params=lost)) == (409, "ledger-rolled-back")
    later = read(client)
    assert (later.era, len(later.stops)) == (2, 1)
    assert {site.permit.split(".")[3] for site in later.sites} == {f"2-{later.revision}"}
    assert read(client, **lost).era == 2


@on_sqlite
def test_a_replica_whose_clock_is_off_leases_nothing(client, monkeypatch, bears):
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: 6 * MINUTE)
    assert problem_of(client.by("ingest").get(URL)) == (503, "clock-skew")
    assert read(client, by="viewer").revision > 0


@pytest.mark.slow
@on_sqlite
def test_the_operation_has_an_example_of_its_form(client):
    described = client.get("/openapi.json").json()
    example = described["components"]["schemas"]["ScopeSnapshot"]["example"]
    assert ScopeSnapshot.model_validate(example).issued_at == NOON
