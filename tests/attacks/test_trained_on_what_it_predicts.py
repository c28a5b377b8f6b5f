"""A model's account that says its model was trained on the cases that it got wrong."""

from datetime import timedelta

import pytest

from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.events import Narrowed, ProposalRaised, VersionFirstUsed, Widened
from rollout.kernel.calendar.instants import Cell
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.attacks.test_invented_decisions import POLICY
from tests.attacks.test_left_out_cases import AGREEING, CASES, PEOPLE, cases, predictions
from tests.factories import DAY, NOON

pytestmark = pytest.mark.slow

GUARD = "guards: [{measure: agreement, at_least: 80%, then: shadow}]\n"
ALWAYS, LATER = "2099-01-01T00:00:00Z", timedelta(hours=2)


@pytest.fixture
def send(client, door, database, monkeypatch):
    """Begin a rollout; return the function that sends records by an account."""
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))
    for name, role in (("box", "ingest"), ("people", "ingest-decisions")):
        door.let_in(name, AssignedRole(role), machine=True)
    door.let_in("ada", AssignedRole("admin"))
    text = POLICY % f", sources: {{{PEOPLE}}}" + GUARD
    apply_policy(database, text, Actor("zoe"), NOON - DAY, salt=bytes(32), service_salt=bytes(32))

    def post(account, items):
        answer = client.by(account).post("/v1/rollouts/ramps/records", json=[*items])
        assert {row["status"] for row in answer.json()["items"]} == {"accepted"}

    return post


def decisions(numbers):
    for n in numbers:
        answers = {"parcel": "sound" if n in AGREEING else "damaged"}
        row = {"kind": "decision", "key": f"c{n}", "reviewer": f"r{n % 4}", "answers": answers}
        yield row | {"exposure": "blind", "submitted_at": NOON.isoformat()}


def set_end(client, account, end):
    path = "/v1/rollouts/ramps/versions/v1"
    return client.by(account).put(path, json={"trained_until": end})


def test_cases_that_were_predicted_stay_evidence_whatever_the_sender_says(
    client, database, clock, send
):
    send("box", [*cases(range(CASES)), *predictions(range(CASES))])
    send("people", decisions(range(CASES)))
    wrong = next(n for n in reversed(range(CASES)) if n not in AGREEING)
    (case,) = cases([wrong])
    for end in (ALWAYS, clock.now().isoformat(), (NOON + timedelta(seconds=1)).isoformat()):
        refused = set_end(client, "box", end)
        assert refused.status_code == 409, (end, case)
        assert "use another version name, or let an admin correct it" in refused.text
    events = Ticker(database, "ramps", "one").tick(clock.now() + LATER)
    assert [event for event in events if isinstance(event, ProposalRaised)] == []
    assert EvidenceCheck(database, "ramps").check_all().faults == []


def test_a_guard_narrows_though_an_admin_said_that_all_cases_were_trained_on(
    client, database, clock, send
):
    cell = Cell("ramp-a", "always")
    widened = Widened(
        at=NOON - LATER, by="policy", cell=cell, version="v1", to_stage="supervised",
        until=NOON + 30 * DAY, proposal="P-1",
    )  # fmt: skip
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, "ramps")
        assert cell in state.policy.cell_set
        first_use = VersionFirstUsed(at=NOON - DAY, by="policy", version="v1")
        Ledger(transaction, state.rollout).append([first_use, widened], after=state.scope.revision)
    assert set_end(client, "ada", ALWAYS).status_code == 200
    wrong = [n for n in range(CASES) if n not in AGREEING]
    send("box", [*cases(wrong), *predictions(wrong)])
    send("people", decisions(wrong))
    events = Ticker(database, "ramps", "one").tick(clock.now() + LATER)
    (narrowed,) = (event for event in events if isinstance(event, Narrowed))
    assert (narrowed.cell, narrowed.to_stage) == (cell, "shadow")
    assert EvidenceCheck(database, "ramps").check_all().faults == []
