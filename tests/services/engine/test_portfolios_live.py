"""A portfolio on a database: what replay decides on the same records; recounts find each rank."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.core.scope.events import Narrowed, ProposalRaised, Widened
from rollout.core.scope.projection import apply_events
from rollout.formats.policy.reader import parse_policy
from rollout.services.engine import proposal_recount
from rollout.services.engine.proposal_recount import _check_places as check_places
from tests.chance import list_unsealed_events
from tests.core.scope.test_portfolio_steps import POND, TWO, ListDriver
from tests.factories import CREEK, DAY
from tests.replay.stories import Story, a_history
from tests.services.engine.test_live import decide_live_and_replayed, find_evidence_faults
from tests.services.engine.test_live_floors import with_confidence

pytestmark = pytest.mark.simulation
TEXT = """
rollout: story
timezone: UTC
levers: [{id: alarm, labels: [bear, fox, none]}]
sites: [s0, s1, s2, s3, s4]
stages: [{id: supervised, blind: 50%, lasts: 60h}]
evidence: {unit: case, grace: 1h, missing_at_most: 50%, outside: blind, releases: 2}
gates:
  - to: supervised
    portfolio: {false_share: 20%}
    minimum: {units: 20, days: 1}
    approvals: [operator]
    require: [{measure: agreement, at_least: 52%}]
guards:
  - {measure: agreement, at_least: 35%, false_alarm_every: 10}
tick: 1h
"""
STORY = Story(
    seed=3, slots=120, busy=3, late=0.15, missing=0.03, quiet=True, versions=2, on_grid=False
)


FLOORED = TEXT
for old, new in {
    "evidence: {": "evidence: {confidence_floors: [0%, 50%, 70%, 90%], ",
    "units: 20": "units: 10",
    "at_least: 52%": "at_least: 70%",
    "at_least: 35%, false_alarm_every: 10": "at_least: 75%, false_alarm_every: 20",
}.items():
    assert old in FLOORED
    FLOORED = FLOORED.replace(old, new)


def decide_twice(database, story=STORY, text=TEXT, change=lambda history: history):
    """Return the events of a live rollout and of a replay on the same records."""
    history = change(a_history(story, parse_policy(text)))
    return decide_live_and_replayed(database, text, history, timedelta(minutes=20))


@pytest.mark.parametrize(
    ("url", "slots", "kind"),
    [("sqlite", 120, "Narrowed"), ("postgresql", 80, "TakenOver")],
    indirect=["url"],
)
def test_live_and_replay_decide_alike_in_a_portfolio(database, slots, kind, monkeypatch):
    found, expected = decide_twice(database, replace(STORY, slots=slots))
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert any(type(event).__name__ == kind for event in expected)
    assert len({event.cell for event in expected if isinstance(event, Widened)}) > 1
    raised = [e for e in expected if isinstance(e, ProposalRaised) and e.portfolio]
    assert {event.portfolio_cells for event in raised} == {5}
    assert max(event.portfolio_opened for event in raised) > 1
    assert find_evidence_faults(database) == []
    # a rank that the list doesn't give is found
    rank = proposal_recount.rank_place
    monkeypatch.setattr(
        proposal_recount, "rank_place", lambda *parts: replace(rank(*parts), opened=4)
    )
    assert any("portfolio of 5 cells" in fault for fault in find_evidence_faults(database))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_live_and_replay_decide_alike_in_a_portfolio_with_floors(database, monkeypatch):
    story = replace(STORY, busy=4)
    found, expected = decide_twice(database, story, FLOORED, with_confidence)
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    raised = [e for e in expected if isinstance(e, ProposalRaised) and e.portfolio]
    assert {(event.portfolio_cells, event.portfolio_floors) for event in raised} == {(5, 4)}
    assert max(event.portfolio_opened for event in raised) > 5  # more than there are cells
    widened = [event for event in expected if isinstance(event, Widened)]
    assert len({event.confidence_floors[0] for event in widened}) == 4
    assert any(len(event.confidence_floors) > 1 for event in widened)
    by_cell = Counter(event.cell for event in widened)
    assert max(by_cell.values()) > 1
    assert any(isinstance(event, Narrowed) for event in expected)
    assert find_evidence_faults(database) == []
    # ranks, scores and kept floors that the list doesn't give are found
    for name, forged, fault in (
        ("rank_place", lambda rank: replace(rank, opened=19), "at 4 confidence floors (20 pairs)"),
        ("compute_place", lambda place: replace(place, score=place.score + 1), "log E·α"),
        ("list_met_floors", lambda floors: floors[:1], "it opens the confidence floors"),
    ):
        function = getattr(proposal_recount, name)
        with monkeypatch.context() as patch:
            patch.setattr(
                proposal_recount,
                name,
                lambda *parts, function=function, forged=forged: forged(function(*parts)),
            )
            assert any(fault in text for text in find_evidence_faults(database)), name


def test_a_widening_that_waited_for_no_other_cell_is_found():
    """`doctor --rebuild` calls it with each tick; a ledger of the engine has no such widening."""
    rollout = ListDriver()
    rollout.tick({CREEK: TWO, POND: TWO})
    before, widened = rollout.scope, []
    for cell in (CREEK, POND):
        proposal = rollout.open(cell=cell).id
        widened.append(
            Widened(
                at=rollout.at,
                by="policy",
                cell=cell,
                version="v1",
                to_stage="supervised",
                until=rollout.at + DAY,
                proposal=proposal,
            )
        )
    alone, both = widened[:1], widened
    (fault,) = check_places(tuple(alone), before, apply_events(alone, before))
    assert fault == (
        "the widening of creek · day by P-1 needs its portfolio: it opens 1 of 8 cells, and on this"
        " evidence 2 are needed"
    )
    assert list(check_places(tuple(both), before, apply_events(both, before))) == []
