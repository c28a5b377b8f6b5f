"""Decisions that a client invents: from no named source, or beside its own predictions."""

from datetime import timedelta

import pytest

from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.events import ProposalRaised
from rollout.features.cells.cli import format_proposal_details
from rollout.kernel.policy.evidence_sources import NOT_NAMED, OWN_PREDICTION
from rollout.live.evidence.unit_counting import open_stored_history
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.factories import DAY, MINUTE, NOON

pytestmark = pytest.mark.slow

CASES = 80
POLICY = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a]
evidence: {unit: case, grace: 1h%s}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 80%%}],
     minimum: {units: 50, days: 0}}
"""
NAMED = ", sources: {accounts: [{account: people, reviewers: [r*]}]}"
SELF_NAMED = ", sources: {accounts: [{account: camera, reviewers: ['*']}]}"


@pytest.fixture(autouse=True)
def _two_accounts(door, monkeypatch):
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))
    door.let_in("camera", AssignedRole("ingest"), machine=True)
    door.let_in("people", AssignedRole("ingest-decisions"), machine=True)


def begin(database, sources=""):
    apply_policy(
        database, POLICY % sources, Actor("zoe"), NOON - DAY, salt=bytes(32), service_salt=bytes(32)
    )


def send(client, account, *items):
    path = "/v1/rollouts/ramps/records"
    return client.by(account).post(path, json=[*items]).json()["items"]


def cases_with_predictions():
    for n in range(CASES):
        at = (NOON - (CASES - n) * MINUTE / 2).isoformat()
        yield {"kind": "case", "key": f"c{n}", "site": "ramp-a", "occurred_at": at}
        answers = {"parcel": "sound"}
        yield {"kind": "prediction", "key": f"c{n}", "version": "v1", "answers": answers}


def decisions(reviewer="r{}", answer="sound", **more):
    for n in range(CASES):
        yield {
            "kind": "decision",
            "key": f"c{n}",
            "reviewer": reviewer.format(n % 4),
            "answers": {"parcel": answer},
            "exposure": "blind",
            "submitted_at": NOON.isoformat(),
            **more,
        }


def proposals(database, clock):
    """Tick until every case is closed; return the proposals that are raised."""
    at = clock.now() + timedelta(hours=2)
    events = Ticker(database, "ramps", "one").tick(at)
    return [event for event in events if isinstance(event, ProposalRaised)]


def reasons(database):
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "ramps")
        records = open_stored_history(transaction, state).load_records()
    return records.decisions.height, set(records.unsourced_decisions["reason"])


def test_two_accounts_of_which_one_is_named_are_evidence(client, database, clock):
    begin(database, NAMED)
    send(client, "camera", *cases_with_predictions())
    assert {row["status"] for row in send(client, "people", *decisions())} == {"accepted"}
    assert reasons(database) == (CASES, set())
    assert len(proposals(database, clock)) == 1


def test_one_key_that_the_policy_does_not_name_is_no_evidence(client, database, clock):
    begin(database)
    rows = send(client, "camera", *cases_with_predictions(), *decisions())
    assert {row["status"] for row in rows} == {"accepted"}
    assert NOT_NAMED in rows[-1]["reason"]
    assert reasons(database) == (0, {NOT_NAMED})
    assert proposals(database, clock) == []


def test_one_key_that_the_policy_names_is_no_evidence_of_its_own_predictions(
    client, database, clock
):
    begin(database, SELF_NAMED)
    send(client, "camera", *cases_with_predictions(), *decisions())
    assert reasons(database) == (0, {OWN_PREDICTION})
    assert proposals(database, clock) == []


def test_a_prediction_sent_after_the_decisions_changes_nothing(client, database, clock):
    begin(database, SELF_NAMED)
    records = list(cases_with_predictions())
    send(client, "camera", *records[::2], *decisions())
    send(client, "camera", *records[1::2])
    assert reasons(database) == (0, {OWN_PREDICTION})
    assert proposals(database, clock) == []


def test_an_account_speaks_only_for_the_reviewers_that_the_policy_names(client, database, clock):
    begin(database, NAMED)
    send(client, "camera", *cases_with_predictions())
    send(client, "people", *decisions(reviewer="invented-{}"))
    assert reasons(database) == (0, {NOT_NAMED})
    assert proposals(database, clock) == []


def test_a_decision_of_no_source_replaces_none_of_a_source(client, database, clock):
    begin(database, NAMED)
    send(client, "camera", *cases_with_predictions())
    send(client, "people", *decisions())
    send(client, "camera", *decisions(answer="damaged", revision=2))
    assert reasons(database) == (CASES, {NOT_NAMED})
    assert len(proposals(database, clock)) == 1


@pytest.mark.parametrize("kind", ["prediction", "outcome"])
def test_an_account_for_decisions_can_send_nothing_else(client, database, kind):
    begin(database, NAMED)
    item = {"kind": kind, "key": "c0", "answers": {"parcel": "sound"}}
    item |= {"version": "v1"} if kind == "prediction" else {"at": NOON.isoformat()}
    (row,) = send(client, "people", item)
    assert row["status"] == "rejected"
    assert f"people may not send {kind}s; it needs the role ingest" in row["reason"]


def test_a_proposal_states_its_sources(client, database, clock, door):
    begin(database, NAMED)
    send(client, "camera", *cases_with_predictions())
    send(client, "people", *decisions())
    proposals(database, clock)
    door.let_in("vic", AssignedRole("viewer"))
    (proposal,) = client.by("vic").get("/v1/rollouts/ramps/proposals").json()["items"]
    assert proposal["sources"] == [{"source": "people", "decisions": CASES, "reviewers": 4}]
    text = "80 of 80 decisions: service account people for 4 reviewers"
    assert text in format_proposal_details(proposal, is_caller_known=False)


def test_a_proposal_says_which_units_could_have_been_predicted_with_the_answer(
    client, database, clock, door
):
    vouched = f"{NAMED[:-1]}, vouched: [{{account: camera, within: 1h}}]}}"
    begin(database, vouched)
    items = list(cases_with_predictions())
    send(client, "camera", *items[:2])  # begins the attempt
    cases = [
        item | {"occurred_at": (NOON + n * MINUTE / 2).isoformat()}
        for n, item in enumerate(items[2::2], start=1)
    ]
    predictions = items[3::2]
    clock.advance(40 * MINUTE)
    send(client, "camera", *cases, *predictions[:19])
    clock.advance(MINUTE)
    send(client, "people", *decisions(submitted_at=clock.now().isoformat()))
    clock.advance(MINUTE)
    send(client, "camera", *predictions[19:])
    assert len(proposals(database, clock)) == 1
    door.let_in("vic", AssignedRole("viewer"))
    (proposal,) = client.by("vic").get("/v1/rollouts/ramps/proposals").json()["items"]
    (units,) = proposal["vouched"]
    assert units == {
        "account": "camera",
        "units": CASES - 20,
        "counted": CASES,
        "within_seconds": 3600,
        "vouched_by": ["zoe"],
    }
    text = (
        "60 of 80 units from camera, which could have seen the answer (vouched for by zoe,"
        " within 1h)"
    )
    assert text in format_proposal_details(proposal, is_caller_known=False)
