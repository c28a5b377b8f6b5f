"""What speaks against a version anywhere voids, holds and precedes its proposals everywhere."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.engine.decide.approvals import build_track_record
from rollout.engine.decide.commands import (
    AcknowledgeIncident,
    Actor,
    ApproveProposal,
    OpenIncident,
    Tick,
)
from rollout.engine.decide.incident_kinds import name_late
from rollout.engine.decide.proposals import list_proposal_holds
from rollout.engine.events import FactsConfirmed, ProposalRaised, ProposalVoided, Widened
from rollout.kernel.errors import EvidenceChangedError, NotEligibleError
from rollout.kernel.policy.cell_evidence import GuardReading
from tests.factories import (
    BO,
    CREEK,
    CY,
    DAN,
    DAY,
    HARM,
    HEARTBEAT,
    HOUR,
    LAKE,
    LAKE_NIGHT,
    MET,
    NOON,
    NOTHING,
    QUALITY,
    RolloutDriver,
    alarm,
    kinds,
    policy,
    supervised,
)

CELL_HARM = replace(HARM, reach="cell")
EVE = Actor("eve")


def acknowledge(rollout, incident="I-1"):
    rollout.do(AcknowledgeIncident(at=rollout.at, by=BO, incident=incident))


def hold_kinds(rollout, proposal):
    current = rollout.scope.proposals[proposal.id]
    holds = list_proposal_holds(rollout.scope, rollout.policy, current, rollout.at)
    return [hold.kind for hold in holds]


def confirm(rollout, proposal, by):
    evidence = rollout.scope.proposals[proposal.id].evidence_hash
    command = ApproveProposal(at=rollout.at, by=by, proposal=proposal.id, evidence_hash=evidence)
    return rollout.do(command)


def test_narrowing_next_door_voids_open_proposal_until_its_incident_is_acknowledged():
    rollout = supervised()
    hill = rollout.raised(LAKE)
    rollout.approve(hill, BO)
    events = rollout.tick({CREEK: alarm(QUALITY), LAKE: MET})
    (voided,) = (event for event in events if isinstance(event, ProposalVoided))
    assert (voided.proposal, voided.incidents) == (hill.id, ("I-1",))
    assert voided.describe_closing(None) == "I-1 spoke against v1 after it was raised"
    assert rollout.tick({LAKE: MET}) == ()
    acknowledge(rollout)
    (raised,) = rollout.tick({LAKE: MET})
    assert isinstance(raised, ProposalRaised)
    assert raised.incidents == ("I-1",)
    assert raised.evidence_hash != hill.evidence_hash


def test_facts_of_another_version_or_an_older_month_leave_a_proposal_alone():
    rollout = supervised(policy(), "v1", "v2")
    other = rollout.raised(LAKE, "v2")
    rollout.tick({CREEK: alarm(QUALITY)})
    assert not rollout.scope.proposals[other.id].unconfirmed
    rollout.after(31 * DAY).tick({LAKE: MET}, "v2")
    acknowledge(rollout)
    rollout.tick({LAKE: MET})
    raised = [event for event in rollout.events if isinstance(event, ProposalRaised)]
    assert raised[-1].incidents == ()


def test_approved_proposal_is_held_until_one_approver_confirms():
    rollout = supervised()
    hill = rollout.raised(LAKE)
    rollout.approve(hill, BO, DAN)
    # the narrowing comes before the next tick may apply it
    assert kinds(rollout.tick({CREEK: alarm(QUALITY), LAKE: MET})) == ["Narrowed", "IncidentOpened"]
    assert hold_kinds(rollout, hill) == ["facts"]
    with pytest.raises(EvidenceChangedError, match="read it again"):
        rollout.do(
            ApproveProposal(
                at=rollout.at, by=BO, proposal=hill.id, evidence_hash=hill.evidence_hash
            )
        )
    with pytest.raises(NotEligibleError):
        confirm(rollout, hill, CY)  # of no group that was asked
    (confirmed,) = confirm(rollout, hill, BO)
    assert isinstance(confirmed, FactsConfirmed)
    assert confirmed.incidents == ("I-1",)
    assert confirm(rollout, hill, BO) == ()  # a repeat
    assert isinstance(rollout.tick({LAKE: MET})[0], Widened)


def test_stranger_to_the_approvals_may_confirm_and_repeat():
    rollout = supervised()
    hill = rollout.raised(LAKE)
    rollout.approve(hill, BO, DAN)
    rollout.tick({CREEK: alarm(QUALITY), LAKE: MET})
    assert kinds(confirm(rollout, hill, EVE)) == ["FactsConfirmed"]
    assert confirm(rollout, hill, EVE) == ()


def test_second_fact_within_a_day_holds_instead_of_voiding():
    rollout = RolloutDriver(policy(waves=None))
    rollout.widen(CREEK)
    rollout.widen(LAKE_NIGHT)
    first = rollout.raised(LAKE)
    rollout.tick({CREEK: alarm(QUALITY)})
    assert first.id not in rollout.scope.proposals
    acknowledge(rollout)
    rollout.tick({LAKE: MET})
    second = rollout.open(cell=LAKE)
    rollout.after(22 * HOUR).tick({LAKE_NIGHT: alarm(QUALITY)})
    assert rollout.scope.proposals[second.id].unconfirmed == ("I-2",)
    rollout.after(4 * HOUR).tick()  # what held does not void later
    rollout.approve(second, BO)  # who reads it anew confirms and approves at once
    assert not rollout.scope.proposals[second.id].unconfirmed
    rollout.approve(second, DAN)
    assert isinstance(rollout.tick()[0], Widened)


def test_facts_void_again_after_a_day():
    rollout = RolloutDriver(policy(waves=None))
    rollout.widen(CREEK)
    rollout.widen(LAKE_NIGHT)
    rollout.raised(LAKE)
    rollout.tick({CREEK: alarm(QUALITY)})
    acknowledge(rollout)
    rollout.tick({LAKE: MET})
    second = rollout.open(cell=LAKE)
    rollout.after(DAY).tick({LAKE_NIGHT: alarm(QUALITY)})
    assert second.id not in rollout.scope.proposals


def test_passes_that_only_narrow_hold_what_is_approved():
    rollout = supervised()
    hill = rollout.raised(LAKE)
    rollout.approve(hill, BO, DAN)
    rollout.after(HOUR)
    evidence = {(CREEK, "v1"): alarm(QUALITY), (LAKE, "v1"): MET}
    events = rollout.do(Tick(at=rollout.at, evidence=evidence, narrow_only=True))
    assert kinds(events) == ["Narrowed", "IncidentOpened"]
    assert hold_kinds(rollout, hill) == ["facts"]


def test_harm_holds_other_versions_elsewhere_until_acknowledged():
    rollout = supervised(policy(guards=(QUALITY, CELL_HARM)), "v1", "v2")
    hill = rollout.raised(LAKE, "v2")
    rollout.approve(hill, BO, DAN)
    assert "Widened" not in kinds(rollout.tick({CREEK: alarm(CELL_HARM)}))
    assert hold_kinds(rollout, hill) == ["harm"]
    assert rollout.tick({LAKE: MET}, "v2") == ()
    acknowledge(rollout)
    assert isinstance(rollout.tick({LAKE: MET}, "v2")[0], Widened)


def test_harm_of_one_site_holds_no_other_version_elsewhere():
    harm = replace(CELL_HARM, holds="site")
    rollout = supervised(policy(guards=(QUALITY, harm)), "v1", "v2")
    rollout.approve(rollout.raised(LAKE, "v2"), BO, DAN)
    assert "Widened" in kinds(rollout.tick({CREEK: alarm(harm)}))
    assert rollout.scope.open_incidents["I-1"].holds == "site"


def test_harm_holds_its_version_everywhere_even_if_it_says_site():
    rollout = supervised(policy(guards=(QUALITY, replace(CELL_HARM, holds="site"))))
    hill = rollout.raised(LAKE)
    rollout.approve(hill, BO, DAN)
    rollout.tick({CREEK: alarm(CELL_HARM)})
    confirm(rollout, hill, BO)
    assert hold_kinds(rollout, hill) == ["harm"]
    acknowledge(rollout)
    assert isinstance(rollout.tick({LAKE: MET})[0], Widened)


def test_harm_elsewhere_of_the_version_that_acts_holds_the_end_of_its_stop():
    rollout = supervised(policy(guards=(QUALITY, replace(CELL_HARM, holds="site"))))
    rollout.widen(LAKE)
    rollout.stop(CREEK)
    rollout.ask_resume()
    resume = rollout.open("resume")
    rollout.approve(resume, DAN, EVE)
    assert "Resumed" not in kinds(rollout.tick({LAKE: alarm(CELL_HARM)}))
    assert hold_kinds(rollout, resume) == ["harm"]
    acknowledge(rollout)
    assert kinds(rollout.tick()) == ["Resumed"]


def test_a_takeover_tells_what_spoke_against_the_version_that_it_replaces():
    rollout = supervised(policy(), "v1", "v2")
    rollout.widen(LAKE)
    rollout.tick({LAKE: alarm(QUALITY)})
    (raised,) = rollout.tick(v2=MET)
    assert (raised.kind, raised.incidents) == ("takeover", ("I-1",))


def test_track_record_lists_facts_of_all_cells_and_unauthorized_actions_of_one_site():
    rollout = supervised()
    rollout.tick({CREEK: alarm(HEARTBEAT)})
    rollout.tick({CREEK: alarm(QUALITY)})
    acknowledge(rollout, "I-2")
    for version, cell in (("v1", CREEK), ("v1", LAKE_NIGHT), ("v0", LAKE)):
        acted = {"cell": cell, "version": version, "about": str(cell)}
        rollout.do(OpenIncident(at=rollout.at, kind="unauthorized", **acted))
    record = build_track_record(
        "v1",
        rollout.events,
        ["mistaken", "few", "familiar"],
        site="lake",
        since=NOON - timedelta(days=30),
        until=rollout.at,
    )
    assert [(fact.kind, fact.cell, fact.incident) for fact in record.facts] == [
        ("unauthorized", LAKE_NIGHT, "I-4"),
        ("quality", CREEK, "I-2"),
        ("suspended", CREEK, ""),
    ]
    assert record.facts[1].acknowledged_at == rollout.at
    assert (record.values_met, record.values_mistaken) == (3, 1)
    assert [fact.incident for fact in record.list_facts("quality")] == ["I-2"]


def test_a_track_record_begins_with_its_first_instant_and_ends_with_its_last():
    rollout = supervised()
    rollout.tick({CREEK: alarm(QUALITY)})
    instant = timedelta(microseconds=1)
    counts = [
        len(build_track_record("v1", rollout.events, (), site="", since=since, until=until).facts)
        for since, until in (
            (rollout.at, rollout.at),
            (rollout.at + instant, rollout.at + DAY),
            (NOON, rollout.at - instant),
        )
    ]
    assert counts == [1, 0, 0]


def test_a_late_harm_where_nothing_is_granted_holds_its_version_and_narrows_nothing():
    harm = replace(CELL_HARM, reach="rollout", then="shadow")
    rollout = supervised(policy(guards=(QUALITY, harm)), "v1", "v2")
    rollout.narrow()
    hill = rollout.raised(LAKE)
    rollout.approve(hill, BO, DAN)
    reading = GuardReading(is_alarm=True, value=1, records=1)
    late = {CREEK: replace(NOTHING, guards={name_late(harm.id): reading})}
    assert kinds(rollout.tick(late)) == ["IncidentOpened"]
    assert hold_kinds(rollout, hill) == ["facts", "harm"]
    assert kinds(rollout.tick(late)) == []  # told already, until somebody has read it
    acknowledge(rollout)
    again = rollout.tick(late)
    assert [(e.effect, e.version, e.cell, e.fact) for e in again] == [("late", "v1", CREEK, "harm")]
