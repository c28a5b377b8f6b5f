"""A rollout whose ledger was made under rules 1: the plan of rules 2, and how they are applied."""

from datetime import UTC, datetime, timedelta

import pytest

from rollout.cli.status_text import format_proposal_details
from rollout.core.policy.evidence_sources import NOT_NAMED, OWN_PREDICTION
from rollout.core.scope.commands import Actor
from rollout.core.scope.events import (
    AttemptsBegan,
    GrantExpired,
    Narrowed,
    ProposalRaised,
    RulesApplied,
    Widened,
)
from rollout.core.scope.permissions import AssignedRole
from rollout.formats.policy.reader import parse_policy
from rollout.services.engine.policy_application import apply_policy
from rollout.services.engine.proposal_recount import find_reading_faults
from rollout.services.engine.retention import purge_old_records
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.engine.ticks import Ticker
from rollout.services.proposals.rule_losses import find_source_fault
from rollout.store.counting.counted_decisions import list_counted_decisions
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.projection_check import find_differences
from tests.attacks.test_invented_decisions import (
    NAMED,
    POLICY,
    SELF_NAMED,
    cases_with_predictions,
    decisions,
)
from tests.factories import DAY, NOON

RULES = "/v1/rollouts/ramps/rules"
PROPOSALS = "/v1/rollouts/ramps/proposals"


@pytest.fixture(autouse=True)
def _old_ramps(database, door, monkeypatch):
    monkeypatch.setattr(
        "rollout.services.engine.state_cache.measure_clock_skew", lambda *_: timedelta(0)
    )
    with monkeypatch.context() as before_rules:  # as a program wrote it that had no numbers
        before_rules.setattr("rollout.services.engine.policy_application.CURRENT_RULES", 0)
        text = POLICY % NAMED + "retention: {cases: 30d}\n"
        apply_policy(database, text, Actor("zoe"), NOON - DAY, salt=bytes(32))
    door.let_in("camera", AssignedRole("ingest"), machine=True)
    door.let_in("people", AssignedRole("ingest-decisions"), machine=True)


def send(client, account, *items):
    return client.by(account).post("/v1/rollouts/ramps/records", json=[*items]).json()["items"]


def count(client, database, clock):
    """Send decisions, half of them of the camera itself, and count them; return the events."""
    send(client, "camera", *cases_with_predictions(), *list(decisions())[::2])
    send(client, "people", *list(decisions())[1::2])
    return Ticker(database, "ramps", "one").tick(clock.now() + timedelta(hours=2))


def state_of(database):
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, "ramps")


def propose(client, **more):
    cited = client.by("viewer").get(RULES).json()["evidence_hash"]
    return client.by("admin").post(RULES, json={"evidence_hash": cited, **more})


def approve(client, proposal, name="operator"):
    body = {"evidence_hash": proposal["evidence_hash"]}
    return client.by(name).post(f"{PROPOSALS}/{proposal['proposal']}/approvals", json=body)


@pytest.mark.slow
def test_rules_2_are_planned_proposed_approved_and_hold_from_then_on(client, database, clock):
    (raised,) = [e for e in count(client, database, clock) if isinstance(e, ProposalRaised)]
    scope = state_of(database).scope
    assert scope.rules == 1
    plan = client.by("viewer").get(RULES).json()
    (effect,) = plan["effects"]
    assert (effect["cells"], effect["counted_units"]) == (["ramp-a · always"], 80)
    assert [(s["source"], s["reason"], s["units"]) for s in effect["sources"]] == [
        ("camera", NOT_NAMED, 40)
    ]
    assert effect["proposals"] == [raised.proposal]
    assert "40" in effect["next_step_without"]
    assert "no way back" in plan["text"]
    assert plan["guards"] == ["unaudited at most 10 % over 7d"]
    assert "GUARDS that test shares: unaudited at most 10 % over 7d" in plan["text"]

    answer = propose(client)
    assert answer.status_code == 201
    assert answer.json()["required_approvals"] == ["operator"]
    assert propose(client).status_code == 200  # safe to repeat
    details = client.by("viewer").get(f"{PROPOSALS}/{answer.json()['proposal']}").json()
    assert any("40 from camera" in line for line in details["readings"])
    assert "u-" not in format_proposal_details(details, is_caller_known=False)
    assert approve(client, answer.json()).json()["text"] == (
        "the last approval: it is applied at once"
    )

    after = state_of(database).scope
    assert (after.rules, after.cells[next(iter(after.cells))].attempt) == (2, 1)
    assert list(after.proposals) == []
    voided = client.by("viewer").get(f"{PROPOSALS}/{raised.proposal}").json()
    assert voided["state"] == "void"
    assert "40 from camera would be no evidence" in voided["closed_reason"]
    assert client.by("viewer").get(RULES).json()["text"].endswith("nothing to apply")
    refused = propose(client)
    assert refused.status_code == 422
    assert "the newest" in refused.json()["detail"]
    with database.begin_read() as transaction:
        events = list(Ledger(transaction, state_of(database).rollout).list_events())
        assert find_differences(transaction, state_of(database).rollout) == {}
        assert list(find_reading_faults(transaction, state_of(database))) == []
    assert sum(isinstance(event, RulesApplied) for event in events) == 1
    (row,) = send(client, "camera", {**next(decisions()), "key": "c1", "reviewer": "late"})
    assert NOT_NAMED in row["reason"]


def test_a_named_account_loses_the_cases_that_it_also_predicted(client, database, clock):
    count(client, database, clock)
    named = parse_policy(POLICY % SELF_NAMED)
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "ramps").rollout
        counted = list(list_counted_decisions(transaction, rollout))
    reasons = [find_source_fault(named, "camera", decision) for decision in counted]
    assert sorted(reasons) == [""] * 40 + [OWN_PREDICTION] * 40


@pytest.mark.slow
def test_units_without_a_stored_decision_are_said_and_not_judged(client, database, clock):
    count(client, database, clock)
    assert client.by("viewer").get(RULES).json()["unknown_units"] == 0
    assert purge_old_records(database, "ramps", NOON + 31 * DAY)
    plan = client.by("viewer").get(RULES).json()
    assert (plan["unknown_units"], plan["effects"]) == (80, [])
    assert "the sender of 80 counted units is not known" in plan["text"]


def test_a_new_proposal_states_its_sources_and_what_was_counted_stays(client, database, clock):
    count(client, database, clock)
    approve(client, propose(client).json())
    events = Ticker(database, "ramps", "one").tick(clock.now() + timedelta(hours=3))
    (again,) = [event for event in events if isinstance(event, ProposalRaised)]
    (details,) = client.by("viewer").get(PROPOSALS).json()["items"]
    assert details["id"] == again.proposal
    assert {s["source"]: s["decisions"] for s in details["sources"]} == {"camera": 40, "people": 40}


@pytest.mark.slow
def test_a_running_attempt_keeps_its_risk_and_the_next_one_has_the_years_first(
    client, database, clock
):
    (raised, *_) = [e for e in count(client, database, clock) if isinstance(e, ProposalRaised)]
    assert raised.readings[0].endswith("(risk 0.05)")
    approve(client, propose(client).json())
    events = Ticker(database, "ramps", "one").tick(clock.now() + timedelta(hours=3))
    assert not [event for event in events if isinstance(event, AttemptsBegan)]
    (again,) = [event for event in events if isinstance(event, ProposalRaised)]
    assert (again.readings, again.attempt) == (raised.readings, 0)

    send_new_version(client, clock)
    events = Ticker(database, "ramps", "one").tick(clock.now() + timedelta(hours=6))
    (began,) = [event for event in events if isinstance(event, AttemptsBegan)]
    assert (began.versions, began.years, began.numbers) == (("v2",), (NOON.year,), (1,))
    (cell,), scope = began.cells, state_of(database).scope
    assert scope.get_cell_state(cell, "v1").risk_share == 1
    assert scope.get_cell_state(cell, "v2").risk_share == pytest.approx(0.382793384)
    with database.begin_read() as transaction:
        assert find_differences(transaction, state_of(database).rollout) == {}


def test_a_running_rollout_keeps_its_grants_when_rules_2_are_applied(client, database, clock):
    (raised,) = [e for e in count(client, database, clock) if isinstance(e, ProposalRaised)]
    proposal = {"proposal": raised.proposal, "evidence_hash": raised.evidence_hash}
    statuses = [approve(client, proposal, name).status_code for name in ("operator", "bo")]
    assert statuses == [200, 200]
    ticker = Ticker(database, "ramps", "one")
    clock.advance(timedelta(hours=3))
    (widened,) = [e for e in ticker.tick(clock.now()) if isinstance(e, Widened)]
    question = {"site": "ramp-a", "at": clock.now().isoformat(), "version": "v1"}
    path, asked = "/v1/rollouts/ramps/assignments", [{**question, "key": f"k{n}"} for n in range(9)]
    before = client.by("camera").post(path, json={"questions": asked}).json()["answers"]
    grants = state_of(database).scope.get_cell_state(widened.cell, "v1").grants
    approve(client, propose(client).json())
    after = state_of(database).scope
    assert (after.rules, after.get_cell_state(widened.cell, "v1").grants) == (2, grants)
    clock.advance(timedelta(hours=1))
    events = ticker.tick(clock.now())
    assert not [e for e in events if isinstance(e, AttemptsBegan | Narrowed | GrantExpired)]
    asked = [{**one, "at": clock.now().isoformat()} for one in asked]
    answers = client.by("camera").post(path, json={"questions": asked}).json()["answers"]
    kept = ("key", "decider", "stage", "exposure", "share")
    assert [[a[k] for k in kept] for a in answers] == [[a[k] for k in kept] for a in before]
    assert {answer["stage"] for answer in answers} == {"supervised"}


def test_attempts_are_numbered_by_the_year_of_their_site(client, database, clock):
    zone = "sites: [{id: ramp-a, timezone: Pacific/Auckland}]"
    text = POLICY.replace("rollout: ramps", "rollout: nz").replace("sites: [ramp-a]", zone) % NAMED
    apply_policy(database, text, Actor("zoe"), NOON, salt=bytes(32))
    ticker, began = Ticker(database, "nz", "one"), []
    for version, hour in (("v1", 5), ("v2", 8), ("v3", 11)):  # midnight there is 11:00 UTC
        at = datetime(NOON.year, 12, 31, hour, 5, tzinfo=UTC)
        clock.advance(at - clock.now())
        case = {"key": version, "occurred_at": at.isoformat(), "site": "ramp-a"}
        answer = {"key": version, "answers": {"parcel": "sound"}}
        items = [{"kind": "case", **case}, {"kind": "prediction", "version": version, **answer}]
        client.by("camera").post("/v1/rollouts/nz/records", json=items)
        events = ticker.tick(at + timedelta(hours=2))
        began += [(*e.versions, *e.years, *e.numbers) for e in events if type(e) is AttemptsBegan]
    years = (NOON.year, NOON.year + 1)
    assert began == [("v1", years[0], 1), ("v2", years[0], 2), ("v3", years[1], 1)]


def send_new_version(client, clock):
    """Send cases of a second version, with decisions of people."""
    for keys in (("e0",), ("e1", "e2", "e3")):
        at = clock.now().isoformat()
        cases = [{"kind": "case", "key": k, "site": "ramp-a", "occurred_at": at} for k in keys]
        answers = {"answers": {"parcel": "sound"}}
        answered = [{"kind": "prediction", "key": k, "version": "v2", **answers} for k in keys]
        send(client, "camera", *cases, *answered)
        decided = {"reviewer": "r1", "exposure": "blind", "submitted_at": at, **answers}
        send(client, "people", *({"kind": "decision", "key": k, **decided} for k in keys))
        clock.advance(timedelta(hours=1))


def test_a_plan_of_the_policy_warns_that_its_sources_have_no_effect_yet(client):
    def list_warnings():
        warnings = client.by("viewer").post("/v1/plan", content=POLICY % NAMED).json()["warnings"]
        return [text for text in warnings if text.startswith("evidence.sources")]

    (warning,) = list_warnings()
    assert "ramps is on counting rules 1" in warning
    assert "`rollout rules plan ramps`" in warning
    approve(client, propose(client).json())
    assert list_warnings() == []


def test_the_hash_of_another_plan_is_refused(client, database, clock):
    count(client, database, clock)
    refused = client.by("admin").post(RULES, json={"evidence_hash": "0" * 64})
    assert (refused.status_code, refused.json()["code"]) == (409, "evidence-changed")
    assert state_of(database).scope.rules == 1


def test_who_is_admin_and_operator_needs_another_user(client):
    cited = client.by("ana").get(RULES).json()["evidence_hash"]
    proposal = client.by("ana").post(RULES, json={"evidence_hash": cited}).json()
    refused = approve(client, proposal, "ana")
    assert refused.status_code == 403
    assert "ask another user" in refused.json()["detail"]
    assert approve(client, proposal, "bo").status_code == 200
