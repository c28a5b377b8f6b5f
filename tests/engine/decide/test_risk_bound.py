"""However versions and cells are renamed or restarted: a cell never gets more risk."""

from collections import defaultdict
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.decide.commands import Tick
from rollout.engine.events import AttemptsBegan, PolicyApplied, ProposalRaised
from rollout.kernel.calendar.instants import Cell, Site, Window
from rollout.kernel.policy.policy import EvidenceRules
from tests.engine.decide.test_attempts import YearDriver
from tests.factories import BETWEEN, BO, CY, policy
from tests.properties import examples

VERSIONS = ("v1", "v2", "v3", "v4", "v5")
SITES = ("creek", "river", "brook")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("restart"), st.sampled_from([1, 2, 3])),
        st.tuples(st.just("rename"), st.sampled_from(SITES)),
        st.tuples(st.just("plan"), st.sampled_from([0, 3, 12])),
        st.tuples(st.just("riskier"), st.just(0.01)),
        st.tuples(st.just("wait"), st.sampled_from([1, 40, 200])),
    ),
    min_size=6,
    max_size=30,
)


class History:
    """A rollout of one cell that is edited at will; `spent` is the risk by cell and year."""

    def __init__(self):
        self.site, self.was, self.grace, self.releases, self.risk = "creek", "", 1, 0, 0.01
        self.rollout = YearDriver(self.build_policy(), *VERSIONS)
        self.spent = defaultdict(list)

    def build_policy(self):
        gates = tuple(replace(gate, risk=self.risk) for gate in policy().gates)
        return policy(
            sites=(Site(self.site, "UTC", was=self.was),),
            windows=(Window("day", "08:00-20:00"),),
            evidence=EvidenceRules(releases=self.releases, grace=timedelta(hours=self.grace)),
            gates=gates,
        )

    def edit(self):
        raised = self.rollout.edit(self.build_policy())
        for event in raised:
            if isinstance(event, ProposalRaised) and event.kind == "policy":
                self.rollout.approve(event, BO, CY)
        applied = [*raised, *self.rollout.tick()]
        assert not raised or any(isinstance(event, PolicyApplied) for event in applied)

    def take(self, step, value):
        match step:
            case "restart" if value != self.grace:  # it changes what a record means
                self.grace = value
                self.edit()
            case "rename" if value != self.site:
                self.site, self.was = value, self.site
                self.edit()
            case "plan":
                self.releases = value
                self.edit()
            case "riskier":
                self.risk += value
                self.edit()
            case "wait":
                self.rollout.after(timedelta(days=value))

    def count(self):
        self.rollout.after(timedelta(hours=1))
        evidence = {(Cell(self.site, "day"), version): BETWEEN for version in VERSIONS}
        tick = Tick(at=self.rollout.at, evidence=evidence, slot=self.rollout.at)
        for event in self.rollout.do(tick):
            if isinstance(event, AttemptsBegan):
                for year, share in zip(event.years, event.shares, strict=True):
                    self.spent["under any name", year].append(float(share))
                    self.spent[self.site, year].append(float(share))


@pytest.mark.slow
@examples(given(STEPS), fast=15, whole=80)
def test_no_history_gives_a_cell_more_than_its_years_risk(steps):
    history = History()
    for step, value in steps:
        history.take(step, value)
        history.count()
    for key, shares in history.spent.items():
        assert sum(shares) <= 1 + 1e-12, (key, shares)
