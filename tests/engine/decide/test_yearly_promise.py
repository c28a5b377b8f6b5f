"""Whatever happens in whatever order, a cell's attempts of a year share at most the whole risk."""

from collections import Counter
from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.decide.commands import AddVersion, Tick
from rollout.engine.decide.projection import apply_events
from rollout.engine.events import AttemptsBegan, ClockCorrected, ProposalRaised, RolloutCreated
from rollout.kernel.calendar.instants import Site
from rollout.kernel.errors import ProposalClosedError
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.policy import EvidenceRules, Policy
from tests.engine.decide.test_attempts import YearDriver, on
from tests.factories import (
    BETWEEN,
    BO,
    CREEK,
    CY,
    DAN,
    DAY,
    HOUR,
    LAKE,
    MET,
    QUALITY,
    alarm,
    gates,
    policy,
)
from tests.properties import examples

pytestmark = pytest.mark.slow

CELLS = (CREEK, LAKE)
LOWER = Condition(MEASURES["agreement"], 0.9)
EDITS = {
    "back": policy(),
    "more risk": policy(gates=gates(supervised={"risk": 0.2})),
    "less risk": policy(gates=gates(supervised={"risk": 0.01})),
    "lower threshold": policy(gates=gates(supervised={"require": (LOWER,)})),
    "no gate": policy(gates=gates()[1:]),
    "no lake": policy(sites=(Site("creek", "UTC"),)),
    "another zone": policy(sites=(Site("creek", "Pacific/Auckland"), Site("lake", "UTC", wave=2))),
    "another grace": policy(evidence=EvidenceRules(grace=HOUR)),
    "a plan": policy(evidence=EvidenceRules(releases=4)),
}


class RetryingDriver(YearDriver):
    """A rollout in which somebody tries everything to get another try."""

    def __init__(self, first: Policy | None = None) -> None:
        super().__init__(first, at=on(12, 20, 2026))
        self.events.append(RolloutCreated(at=self.at, by="policy", salt_hash="0" * 64))
        self.scope = apply_events(self.events)
        self.number = 1

    def release(self) -> None:
        """Use a new version; retire the oldest open one of three."""
        self.number += 1
        self.do(AddVersion(at=self.at, version=f"v{self.number}"))
        if self.number > 3:
            self.retire(f"v{self.number - 3}")

    def tick_slot(self, evidence, behind: timedelta) -> None:
        """Tick a slot that lies behind the clock."""
        self.after(DAY)
        slot = self.at - behind
        self.do(Tick(at=slot, slot=slot, evidence=evidence, pending_policies=self.policies))

    def change_policy(self, new: Policy) -> None:
        """Apply an edit, approved if it needs that."""
        raised = [event for event in self.edit(new) if isinstance(event, ProposalRaised)]
        self.approve_all(raised)
        self.after(HOUR).do(Tick(at=self.at, pending_policies=self.policies))

    def approve_all(self, raised) -> None:
        """Approve what is still open, by a user for each need."""
        for proposal in raised:
            people = {"operator": [BO, DAN], "safety": [CY]}
            if proposal.proposal in self.scope.proposals:
                with suppress(ProposalClosedError):  # the tick was late, it has expired
                    self.approve(proposal.proposal, *[people[g].pop() for g in proposal.needs])

    def correct_clock(self, back: timedelta) -> None:
        """Set the ledger's time back."""
        to = self.at - back
        event = ClockCorrected(at=to, by="policy", previous_time=self.scope.at)
        self.events.append(event)
        self.scope = apply_events([event], self.scope)
        self.at = to

    def act(self, act: str, cell, place: int) -> None:
        """Do one thing to a cell and the version at a place among the newest three."""
        version = f"v{max(1, self.number - place)}"
        key = (cell, version)
        before = len(self.events)
        if act in EDITS:
            self.change_policy(EDITS[act])
        elif act == "release":
            self.release()
        elif act == "another try":
            self.release()
            self.tick_slot({(cell, f"v{self.number}"): BETWEEN}, timedelta())
        elif act == "restart of the process":
            self.scope = apply_events(self.events)
        elif act == "weeks":
            self.after(20 * DAY)
        elif act == "half a year":
            self.after(180 * DAY)
        elif act == "clock set back":
            self.correct_clock(40 * DAY)
        else:
            evidence, behind = TICKS[act]
            self.tick_slot({key: evidence}, behind)
        raised = [e for e in self.events[before:] if isinstance(e, ProposalRaised)]
        self.approve_all(raised)


TICKS = {
    "units": (BETWEEN, timedelta()),
    "enough units": (MET, timedelta()),
    "late units": (BETWEEN, 30 * DAY),
    "alarm": (alarm(QUALITY), timedelta()),
}
ACTS = (
    *TICKS,
    *EDITS,
    *["release", "restart of the process", "half a year"],
    *["another try", "weeks", "clock set back"] * 4,
)


def list_attempts(events):
    """Return cell, version, year, number and share of each attempt that began."""
    return [
        attempt
        for event in events
        if isinstance(event, AttemptsBegan)
        for attempt in zip(
            event.cells, event.versions, event.years, event.numbers, event.shares, strict=True
        )
    ]


def list_running(scope):
    """Return number and share of each running attempt, by cell, version and start."""
    return {
        (cell, version, state.attempt): (state.number, state.risk_share)
        for (cell, version), state in scope.cells.items()
        if state.has_begun
    }


steps = st.tuples(st.sampled_from(ACTS), st.sampled_from(CELLS), st.integers(0, 2))


@examples(given(st.lists(steps, min_size=30, max_size=40)), fast=10, whole=100)
def test_a_cells_attempts_of_a_year_never_get_more_than_the_whole_risk(acts):
    rollout = RetryingDriver()
    running = {}
    for act in acts:
        rollout.act(*act)
        now = list_running(rollout.scope)
        assert all(now[key] == kept for key, kept in running.items() if key in now)
        running |= now
    spent, numbers = Counter(), Counter()
    for cell, _, year, number, share in list_attempts(rollout.events):
        numbers[cell, year] += 1
        assert number == numbers[cell, year]
        spent[cell, year] += float(share)
    assert all(share <= 1 for share in spent.values())
    assert apply_events(rollout.events) == rollout.scope
    for event in rollout.events:
        if isinstance(event, ProposalRaised) and event.kind == "widening":
            assert (event.attempt, float(event.risk_weight)) in running.values()


def test_the_tries_above_begin_many_attempts():
    rollout = RetryingDriver()
    for act in ("units", "release", "units", "more risk", "units", "another grace", "units") * 3:
        rollout.act(act, CREEK, 0)
    years = Counter(year for _, _, year, _, _ in list_attempts(rollout.events))
    assert years[2026] >= 6
