"""Familiar values in decisions: who decides a case, and what a tick records."""

from dataclasses import replace

from rollout.engine.decide.assignment import CaseQuestion, decide_assignment
from rollout.engine.decide.commands import AcknowledgeIncident
from rollout.engine.decide.incidents import MAX_OPEN_INCIDENTS, count_unopened_values
from rollout.engine.decide.projection import apply_events
from rollout.kernel.policy.cell_evidence import VersionEvidence
from rollout.kernel.policy.familiarity import (
    FAMILIAR,
    FEW,
    MISTAKEN,
    FamiliarAttribute,
    FamiliarityRule,
    ValueReading,
)
from rollout.kernel.policy.policy import EvidenceRules
from tests.factories import BO, CREEK, RolloutDriver, autonomous, kinds, policy

RULE = FamiliarityRule((FamiliarAttribute(("form",)),))
FAMILIAR_ONLY = policy(evidence=EvidenceRules(familiar=RULE))
OLD, NEW = ("form", "old"), ("form", "new")


def read(**statuses: str) -> VersionEvidence:
    """Return evidence with a reading of each form."""
    agreed = {FAMILIAR: 20, MISTAKEN: 14, FEW: 5}
    readings = {
        ("form", form): ValueReading(status, 5 if status == FEW else 20, agreed[status], today=9)
        for form, status in statuses.items()
    }
    return VersionEvidence(values=readings)


def ask(rollout: RolloutDriver, form: str | None, site: str = "creek"):
    """Return who decides a case with a form."""
    attributes = None if form is None else {"form": form}
    question = CaseQuestion(site, rollout.at, "v1", "k", attributes=attributes)
    return decide_assignment(rollout.scope, rollout.policy, bytes(32), question, now=rollout.at)


def test_a_human_decides_an_unfamiliar_case_unseen_at_every_stage():
    rollout = autonomous(FAMILIAR_ONLY)
    for form in ("old", None):
        answer = ask(rollout, form)
        assert (answer.decider, answer.exposure, answer.stage) == ("human", "blind", "autonomous")
        assert answer.reason == f"unfamiliar: form={form or '(none)'}"
    rollout.tick({CREEK: read(old=FAMILIAR)})
    assert ask(rollout, "old").decider == "model"
    assert ask(rollout, "new").reason == "unfamiliar: form=new"
    assert ask(rollout, "old", "lake").decider == "human"  # each cell has its own values


def test_a_tick_records_a_change_once_and_the_ledger_gives_it_back():
    rollout = autonomous(FAMILIAR_ONLY)
    assert kinds(rollout.tick({CREEK: read(old=FAMILIAR)})) == ["FamiliarityChanged"]
    assert rollout.tick({CREEK: read(old=FAMILIAR)}) == ()
    (event,) = rollout.tick({CREEK: read(old=FEW)})
    assert (event.values, event.statuses, event.judged, event.agreed) == (
        ("old",), ("few",), (5,), (5,),
    )  # fmt: skip
    assert ask(rollout, "old").decider == "human"
    assert apply_events(rollout.events) == rollout.scope


def test_a_mistaken_value_opens_one_incident_in_a_cell():
    rollout = autonomous(FAMILIAR_ONLY)
    events = rollout.tick({CREEK: read(old=FAMILIAR, new=MISTAKEN)})
    assert kinds(events) == ["FamiliarityChanged", "IncidentOpened", "FamiliarityChanged"]
    assert events[1].cause_text == "unfamiliar: form=new, 9 units judged today, 14 of 20 agree"
    assert (events[1].kind, events[1].about, events[1].cell) == ("unfamiliar", "form=new", CREEK)
    rollout.tick({CREEK: read(new=FAMILIAR)})
    assert kinds(rollout.tick({CREEK: read(new=MISTAKEN)})) == ["FamiliarityChanged"]


def test_values_over_the_limit_of_open_incidents_are_counted_and_open_once_there_is_room():
    rollout = autonomous(FAMILIAR_ONLY)
    values = {f"n{number:02}": MISTAKEN for number in range(MAX_OPEN_INCIDENTS + 3)}
    events = rollout.tick({CREEK: read(**values)})
    assert kinds(events).count("IncidentOpened") == MAX_OPEN_INCIDENTS
    assert count_unopened_values(rollout.scope, CREEK, "v1") == 3
    assert rollout.tick({CREEK: read(**values)}) == ()
    for incident in list(rollout.scope.open_incidents)[:2]:
        rollout.do(AcknowledgeIncident(at=rollout.at, by=BO, incident=incident))
    abouts = [event.about for event in rollout.tick({CREEK: read(**values)})]
    assert abouts == ["form=n50", "form=n51"]
    assert count_unopened_values(rollout.scope, CREEK, "v1") == 1
    rollout.narrow()
    assert count_unopened_values(rollout.scope, CREEK, "v1") == 0


def test_in_shadow_nobody_is_told():
    rollout = RolloutDriver(FAMILIAR_ONLY, "v1")
    assert kinds(rollout.tick({CREEK: read(new=MISTAKEN, old=FEW)})) == ["FamiliarityChanged"]
    assert NEW in rollout.scope.get_cell_values(CREEK, "v1").statuses
    assert OLD not in rollout.scope.get_cell_values(CREEK, "v1").statuses


def test_a_value_whose_units_no_longer_count_ceases_to_be_familiar():
    rollout = autonomous(FAMILIAR_ONLY)
    rollout.tick({CREEK: read(old=FAMILIAR)})
    (event,) = rollout.tick({CREEK: VersionEvidence()})
    assert (event.values, event.statuses, event.judged) == (("old",), ("few",), (0,))


def test_a_clock_that_is_behind_makes_nothing_familiar_but_still_drops_values():
    rollout = autonomous(FAMILIAR_ONLY)
    rollout.tick({CREEK: read(old=FAMILIAR)})
    rollout.scope = replace(rollout.scope, at=rollout.at.replace(year=rollout.at.year + 1))
    rollout.tick({CREEK: read(old=FEW, new=FAMILIAR)})
    statuses = rollout.scope.get_cell_values(CREEK, "v1").statuses
    assert dict(statuses) == {OLD: FEW}


def test_without_the_rule_attributes_play_no_part():
    assert ask(autonomous(), None).decider == "model"
