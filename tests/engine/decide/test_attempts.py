"""Attempts of a cell are numbered over all versions, a year at a time, and share the risk."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest

from rollout.engine.decide.commands import AddVersion, ProposeTakeover, Tick
from rollout.engine.decide.guards import describe_cell_attempt, foresee_attempt
from rollout.engine.decide.projection import apply_events
from rollout.engine.events import AttemptsBegan, Narrowed
from rollout.kernel.calendar.instants import Site
from rollout.kernel.errors import NotEligibleError
from rollout.kernel.policy.gates import compute_yearly_share
from rollout.kernel.policy.policy import EvidenceRules
from tests.factories import (
    BETWEEN,
    BO,
    CREEK,
    CY,
    DAY,
    HOUR,
    LAKE,
    MET,
    NOON,
    NOTHING,
    QUALITY,
    RolloutDriver,
    build_evidence,
    counted,
    policy,
)

CONTENT = "ab" * 32
MISSING = build_evidence(counted(0, missing=3))


class YearDriver(RolloutDriver):
    """A rollout whose clock is set by date."""

    def count(self, at, *versions, cell=CREEK, evidence=BETWEEN):
        """Tick at an instant with evidence of versions in a cell; return what began."""
        self.at = at
        keys = {(cell, version): evidence for version in versions}
        events = self.do(Tick(at=at, evidence=keys, slot=at))
        return [
            list(zip(event.versions, event.years, event.numbers, strict=True))
            for event in events
            if isinstance(event, AttemptsBegan)
        ]

    def see(self, version, content=""):
        """See a version for the first time."""
        self.do(AddVersion(at=self.at, version=version, content=content))

    def state(self, version="v1", cell=CREEK):
        """Return a version's state in a cell."""
        return self.scope.get_cell_state(cell, version)


def on(month, day, year=2027):
    return datetime(year, month, day, 12, tzinfo=UTC)


def test_attempts_are_numbered_as_the_specification_says():
    rollout = YearDriver(at=on(1, 1))
    assert rollout.count(on(1, 3), "v1") == [[("v1", 2027, 1)]]
    rollout.do(Tick(at=on(3, 8), evidence={(CREEK, "v1"): MET}))
    rollout.scope = apply_events(
        [
            Narrowed(
                at=on(3, 9),
                by="policy",
                cell=CREEK,
                version="v1",
                from_stage="shadow",
                to_stage="shadow",
                reason="",
                guard=QUALITY.id,
                restart=True,
            )
        ],
        rollout.scope,
    )
    assert not rollout.state().has_begun
    assert rollout.count(on(3, 10), "v1") == [[("v1", 2027, 2)]]
    rollout.at = on(4, 1)
    rollout.see("v2")
    rollout.see("v3", CONTENT)
    assert rollout.count(on(5, 2), "v1", "v3") == [[("v3", 2027, 3)]]
    rollout.see("v3b", CONTENT)
    assert rollout.count(on(6, 1), rollout.scope.get_first_name("v3b")) == []
    assert rollout.state("v3").number == 3, "v3b has v3's content: still attempt 3"
    assert rollout.count(on(12, 30), "v2") == [[("v2", 2027, 4)]]
    rollout.see("v4")
    assert rollout.count(on(1, 1, 2028), "v4", "v2") == [[("v4", 2028, 1)]]
    assert rollout.state("v2").number == 4, "a running attempt is never renumbered"
    assert rollout.state("v2").risk_share == compute_yearly_share(4)


def test_an_attempt_is_described_by_the_ledgers_number():
    """A restart without a unit is none: the next number is that of the cell's year."""
    rollout = YearDriver(None, "v1", "v2", at=on(1, 1))

    def describe(version):
        return describe_cell_attempt(rollout.scope, policy(), CREEK, version, rollout.at)

    rollout.count(on(1, 3), "v2")
    assert describe("v2") == "attempt 1 of the year in this cell"
    following = "no attempt yet; the next would be number {} of the year in this cell"
    assert describe("v1") == following.format(2)
    restart = Narrowed(
        at=on(3, 9), by="policy", cell=CREEK, version="v1", from_stage="shadow",
        to_stage="shadow", reason="", guard=QUALITY.id, restart=True,
    )  # fmt: skip
    rollout.scope = apply_events([restart, restart], rollout.scope)
    assert describe("v1") == following.format(2)
    rollout.at = on(1, 2, 2028)
    assert describe("v1") == following.format(1)
    versions = dict(rollout.scope.versions)
    retired = versions | {"v1": replace(versions["v1"], retired_at=NOON)}
    rollout.scope = replace(rollout.scope, versions=retired)
    assert describe("v1") == "no attempt: v1 is retired"


def test_versions_that_begin_in_one_slot_are_numbered_in_the_order_of_their_first_use():
    rollout = YearDriver(None, "vz", "va")
    assert rollout.count(NOON + HOUR, "va", "vz") == [[("vz", 2027, 1), ("va", 2027, 2)]]


def test_the_starts_of_one_tick_are_one_event():
    rollout = YearDriver()
    evidence = {(cell, "v1"): BETWEEN for cell in (LAKE, CREEK)}
    events = rollout.do(Tick(at=NOON + HOUR, evidence=evidence))
    (began,) = (event for event in events if isinstance(event, AttemptsBegan))
    assert began.cells == (CREEK, LAKE)
    assert began.numbers == (1, 1)
    assert began.shares == (repr(compute_yearly_share(1)),) * 2


@pytest.mark.parametrize("evidence", [NOTHING])
def test_a_version_without_evidence_costs_nothing(evidence):
    rollout = YearDriver()
    assert rollout.count(NOON + HOUR, "v1", evidence=evidence) == []
    assert rollout.count(NOON + DAY, "v1", cell=LAKE) == [[("v1", 2027, 1)]]
    assert not rollout.state().has_begun, "evidence in another cell begins nothing here"


def test_a_missing_decision_counts_against_the_model_and_so_begins_an_attempt():
    assert YearDriver().count(NOON + HOUR, "v1", evidence=MISSING) == [[("v1", 2027, 1)]]


def test_a_retired_version_begins_nothing():
    rollout = YearDriver(None, "v1", "v2")
    rollout.retire("v1")
    assert rollout.count(NOON + HOUR, "v1", "v2") == [[("v2", 2027, 1)]]


@pytest.mark.parametrize(
    ("zone", "year"), [("UTC", 2027), ("Pacific/Auckland", 2028), ("America/New_York", 2027)]
)
def test_the_year_is_the_sites(zone, year):
    rollout = YearDriver(policy(sites=(Site("creek", zone), Site("lake", "UTC", wave=2))))
    assert rollout.count(datetime(2027, 12, 31, 12, tzinfo=UTC), "v1") == [[("v1", year, 1)]]


def test_the_slot_decides_the_year_and_not_when_it_was_judged():
    rollout = YearDriver()
    late = datetime(2028, 1, 3, tzinfo=UTC)
    slot = datetime(2027, 12, 31, 23, tzinfo=UTC)
    events = rollout.do(Tick(at=late, slot=slot, evidence={(CREEK, "v1"): BETWEEN}))
    assert next(e.years for e in events if isinstance(e, AttemptsBegan)) == (2027,)


def test_a_later_version_needs_more_records():
    """245 of 248 open attempt 1 and no later one."""
    rollout = YearDriver(None, "v1", "v2")
    enough = build_evidence(counted(245, 3))
    rollout.count(NOON + HOUR, "v1", "v2", evidence=enough)
    (proposal,) = rollout.scope.proposals.values()
    assert proposal.version == "v1"
    raised = next(e for e in rollout.events if getattr(e, "proposal", "") == proposal.id)
    assert raised.attempt == 1
    assert float(raised.risk_weight) == pytest.approx(0.382793384)
    assert float(raised.readings[0].risk) == pytest.approx(0.0191397, abs=1e-7)


def test_what_would_be_needed_is_shown_for_the_next_number():
    rollout = YearDriver(None, "v1", "v2")
    assert rollout.state("v2").risk_share == compute_yearly_share(1)
    rollout.count(NOON + HOUR, "v1")
    assert rollout.state("v2").risk_share == compute_yearly_share(2)


def test_no_takeover_is_proposed_on_units_whose_attempt_has_no_number_yet():
    """Else several versions could use the same share."""
    rollout = YearDriver(None, "v1", "v2")
    rollout.widen()
    ask = ProposeTakeover(
        at=rollout.at,
        by=BO,
        cell=CREEK,
        version="v2",
        to="supervised",
        evidence={(CREEK, "v2"): MET},
    )
    with pytest.raises(NotEligibleError, match="the next tick numbers its attempt"):
        rollout.do(ask)
    rollout.count(rollout.at + HOUR, "v2")
    (raised,) = rollout.do(replace(ask, at=rollout.at))
    assert (raised.attempt, raised.risk_weight) == (2, repr(compute_yearly_share(2)))


def test_a_year_that_has_ended_begins_no_second_time():
    rollout = YearDriver(None, "v1", "v2", "v3", "v4", at=on(12, 1))
    assert rollout.count(on(12, 2), "v1") == [[("v1", 2027, 1)]]
    assert rollout.count(on(1, 2, 2028), "v2") == [[("v2", 2028, 1)]]
    rollout.scope = replace(rollout.scope, at=on(12, 3))  # as after a corrected clock
    assert rollout.count(on(12, 4), "v3") == [[("v3", 2028, 2)]]
    assert rollout.count(on(1, 3, 2028), "v4") == [[("v4", 2028, 3)]]


def test_a_zone_that_is_moved_over_new_year_brings_no_second_year():
    def build(zone):
        return policy(sites=(Site("creek", zone), Site("lake", "UTC", wave=2)))

    rollout = YearDriver(build("Pacific/Auckland"), "v1", "v2")
    noon = datetime(2027, 12, 31, 12, tzinfo=UTC)
    assert rollout.count(noon, "v1") == [[("v1", 2028, 1)]]
    rollout.approve(*rollout.edit(build("Pacific/Honolulu")), BO, CY)
    rollout.tick()
    assert rollout.policy == build("Pacific/Honolulu")
    assert rollout.count(noon + HOUR, "v2") == [[("v2", 2028, 2)]]


def test_a_planned_number_of_releases_holds_for_the_whole_year():
    planned = policy(evidence=EvidenceRules(releases=4))
    rollout = YearDriver(planned, "v1", "v2", "v3")
    rollout.count(NOON + HOUR, "v1")
    assert rollout.state("v1").risk_share == pytest.approx(0.2)
    rollout.policy = policy()
    rollout.count(NOON + DAY, "v2")
    assert rollout.state("v2").risk_share == pytest.approx(0.2), "a begun year keeps its plan"
    rollout.count(on(1, 2, 2028), "v3")
    assert rollout.state("v3").risk_share == compute_yearly_share(1)


# Before the first unit


@pytest.mark.parametrize(("releases", "share"), [(0, compute_yearly_share(1)), (4, 0.2)])
def test_the_share_shown_before_the_first_attempt_of_a_year_knows_its_plan(releases, share):
    rollout = YearDriver(policy(evidence=EvidenceRules(releases=releases)))
    foresee = partial(foresee_attempt, rollout.scope, rollout.policy, CREEK, "v1")
    assert foresee(NOON).risk_share == share


def test_the_share_shown_in_a_new_year_is_that_of_its_first_attempt():
    rollout = YearDriver()
    rollout.count(NOON + HOUR, "v1")
    rollout.see("v2")
    shown = [
        foresee_attempt(rollout.scope, rollout.policy, CREEK, "v2", at).risk_share
        for at in (on(12, 31), on(1, 1, 2028))
    ]
    assert shown == [compute_yearly_share(2), compute_yearly_share(1)]
    running = foresee_attempt(rollout.scope, rollout.policy, CREEK, "v1", on(1, 1, 2028))
    assert running == rollout.state("v1"), "a running attempt keeps its share"
