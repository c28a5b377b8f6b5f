"""A model's account that sends only the cases in which its model agrees."""

from datetime import timedelta

import pytest

from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.events import ProposalRaised
from rollout.features.cells.cli import format_proposal_details
from rollout.features.records.decision_places import NO_PLACE
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from tests.attacks.test_invented_decisions import POLICY
from tests.factories import DAY, MINUTE, NOON

pytestmark = pytest.mark.slow

CASES = 160
PEOPLE = "accounts: [{account: people, reviewers: [r*]}]"
AGREEING = [n for n in range(CASES) if n % 5 < 3]  # the model is right in 60 %
BY_CAMERA = "for gates cases count from camera alone (`evidence.sources.cases`)"


@pytest.fixture
def rollout(client, door, database, clock, monkeypatch):
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))
    for name, role in (("box", "ingest"), ("camera", "ingest"), ("people", "ingest-decisions")):
        door.let_in(name, AssignedRole(role), machine=True)

    def begin(sources):
        text = POLICY % f", sources: {{{sources}}}"
        apply_policy(
            database, text, Actor("zoe"), NOON - DAY, salt=bytes(32), service_salt=bytes(32)
        )

    def send(account, items):
        path = "/v1/rollouts/ramps/records"
        return client.by(account).post(path, json=[*items]).json()["items"]

    def propose():
        at = clock.now() + timedelta(hours=2)
        events = Ticker(database, "ramps", "one").tick(at)
        assert EvidenceCheck(database, "ramps").check_all().faults == []
        return [event for event in events if isinstance(event, ProposalRaised)]

    return begin, send, propose


def cases(numbers):
    for n in numbers:
        at = (NOON - (CASES - n) * MINUTE / 4).isoformat()
        yield {"kind": "case", "key": f"c{n}", "site": "ramp-a", "occurred_at": at}


def predictions(numbers):
    for n in numbers:
        answers = {"parcel": "sound"}
        yield {"kind": "prediction", "key": f"c{n}", "version": "v1", "answers": answers}


def decisions(numbers, **more):
    for n in numbers:
        yield {
            "kind": "decision",
            "key": f"c{n}",
            "reviewer": f"r{n % 4}",
            "answers": {"parcel": "sound" if n in AGREEING else "damaged"},
            "exposure": "blind",
            "submitted_at": NOON.isoformat(),
            **more,
        }


def test_who_alone_registers_cases_opens_a_gate(rollout):
    begin, send, propose = rollout
    begin(PEOPLE)
    send("box", [*cases(AGREEING), *predictions(AGREEING)])
    send("people", decisions(AGREEING))  # people see what was sent
    assert len(propose()) == 1


def test_a_proposal_says_that_the_models_account_registered_its_cases(rollout, client, door):
    begin, send, propose = rollout
    begin(PEOPLE)
    send("box", [*cases(AGREEING), *predictions(AGREEING[:-2])])
    send("camera", [*cases(AGREEING), *predictions(AGREEING[-2:]), *cases([3, 4])])
    send("people", decisions([*AGREEING, 3, 4]))
    propose()
    door.let_in("vic", AssignedRole("viewer"))
    (proposal,) = client.by("vic").get("/v1/rollouts/ramps/proposals").json()["items"]
    assert proposal["registered"] == [
        {"source": "box", "units": 96, "own": 94},
        {"source": "camera", "units": 2, "own": 0},
    ]
    details = format_proposal_details(proposal, is_caller_known=False)
    assert "cases registered by: box 96, camera 2; of them 94 by the account that also" in details


def test_a_plan_warns_of_an_account_that_registers_what_it_predicts(rollout, client, door):
    begin, send, _ = rollout
    begin(PEOPLE)
    send("box", [*cases(AGREEING), *predictions(AGREEING[:-2])])
    send("camera", [*predictions(AGREEING[-2:]), *cases([3, 4])])
    door.let_in("vic", AssignedRole("viewer"))

    def warn(sources):
        text = POLICY % f", sources: {{{sources}}}"
        headers = {"Content-Type": "application/yaml"}
        plan = client.by("vic").post("/v1/plan", content=text, headers=headers).json()
        return [each for each in plan["warnings"] if each.startswith("evidence.sources.cases")]

    (warning,) = warn(PEOPLE)
    assert warning == (
        "evidence.sources.cases: box registered 96 of the newest 98 cases and predicted 94 of them:"
        " it can leave out those that its model would get wrong; let another account register:"
        " `sources: {cases: [camera]}`"
    )
    assert warn(f"{PEOPLE}, cases: [camera]") == []


def test_a_camera_that_registers_all_cases_holds_it(rollout):
    begin, send, propose = rollout
    begin(f"{PEOPLE}, cases: [camera]")
    send("box", [*cases(AGREEING), *predictions(AGREEING)])
    send("camera", cases(range(CASES)))
    send("people", decisions(range(CASES)))
    assert propose() == []


@pytest.mark.parametrize("place", [{}, {"site": "ramp-a"}])
def test_a_camera_that_sends_nothing_holds_it(rollout, place):
    begin, send, propose = rollout
    begin(f"{PEOPLE}, cases: [camera]")
    rows = send("box", [*cases(AGREEING), *predictions(AGREEING)])
    note = f"kept, counted by guards only: {BY_CAMERA}"
    assert [row["reason"] for row in rows] == [note] * len(AGREEING) + [""] * len(AGREEING)
    rows = send("people", decisions(AGREEING, **place))
    expected = ("accepted", "") if place else ("rejected", f"{NO_PLACE}; {BY_CAMERA}")
    assert {(row["status"], row["reason"]) for row in rows} == {expected}
    assert propose() == []


def test_a_question_says_that_its_case_counts_for_guards_only(rollout, client):
    begin, _, _ = rollout
    begin(f"{PEOPLE}, cases: [camera]")
    question = {
        "site": "ramp-a",
        "at": NOON.isoformat(),
        "key": "c1",
        "version": "v1",
        "prediction": {"answers": {"parcel": "sound"}},
    }
    path = "/v1/rollouts/ramps/assignments"
    (answer,) = client.by("box").post(path, json={"questions": [question]}).json()["answers"]
    note = f"kept, counted by guards only: {BY_CAMERA}"
    assert answer["recorded"] == {"status": "accepted", "reason": note}
