"""What a widening rests on, in a few words: a gain first, then agreement."""

import pytest

from rollout.engine.events import ProposalRaised, Widened
from rollout.engine.words.event_text import describe_events
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.facts import StoredReading, to_facts
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.populations import BothArms
from rollout.kernel.units import OutcomeRule
from tests.factories import DAY, NOON
from tests.features.bear_field import POLICY

MARGIN = OutcomeRule("margin", -20, 60, DAY, "EUR", missing_at_most=0.05)
GAIN = Condition(MEASURES["gain"], 0.0, population=BothArms(MARGIN))
AGREED = StoredReading(to_facts(Condition(MEASURES["agreement"], 0.95)), (412, 3), "5.1", "0.05")
GAINED = StoredReading(to_facts(GAIN), (310, 300, 2), "3.1", "0.05", "5.1", "1.2")


@pytest.mark.parametrize(
    ("readings", "ending"),
    [
        ((AGREED,), ", 412 of 415 agree"),
        ((AGREED, GAINED), ", gain +5.1 EUR a unit so far, at least +1.2 EUR at every look"),
    ],
)
def test_widening_is_told_by_its_gain_if_it_has_one(readings, ending):
    fields = {"at": NOON, "by": "policy", "cell": Cell("creek", "day"), "version": "v1"}
    raised = ProposalRaised(
        **fields,
        proposal="P-1",
        kind="widening",
        expires_at=NOON + DAY,
        needs=(),
        evidence_hash="",
        to_stage="supervised",
        readings=readings,
    )
    widened = Widened(**fields, to_stage="supervised", until=NOON + DAY, proposal="P-1")
    *_, described = describe_events(parse_policy(POLICY), [raised, widened], NOON, NOON)
    assert described.short_text == f"v1 widened to supervised{ending}"
