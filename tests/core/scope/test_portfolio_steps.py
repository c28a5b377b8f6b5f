"""Portfolios in decisions: what opens together, what waits, and what keeps its place."""

import json
from dataclasses import replace
from math import log

import pytest

from rollout.core.calendar.sites import Cell, Site
from rollout.core.errors import NotEligibleError, PolicyRefusedError
from rollout.core.policy.policy import Minimum, Waves
from rollout.core.scope.commands import AddVersion, ApplyPolicy, ProposeTakeover, RejectProposal
from rollout.core.scope.events import (
    Narrowed,
    PolicyApplied,
    ProposalRaised,
    ProposalVoided,
    RolloutCreated,
    TakenOver,
    Widened,
)
from rollout.core.scope.portfolio_steps import compute_place
from rollout.core.scope.projection import apply_events
from rollout.core.scope.proposal_holds import list_proposal_holds
from rollout.core.scope.proposals import compute_gate_hash
from rollout.core.scope.scope import Scope
from rollout.core.statistics.evidence import compute_log_e
from rollout.store.ledger.scopes import from_plain, to_plain
from tests.factories import (
    ANA,
    BETWEEN,
    BO,
    CREEK,
    CY,
    DAN,
    DAY,
    MET,
    NOON,
    QUALITY,
    TO_AUTONOMOUS,
    TO_SUPERVISED,
    TURNED,
    RolloutDriver,
    alarm,
    build_evidence,
    counted,
    hashed,
    policy,
)

SITES = tuple(Site(name, "UTC") for name in ("creek", "lake", "pond", "moor"))
LAKE, POND, MOOR = (Cell(name, "day") for name in ("lake", "pond", "moor"))
SHARE = 0.382793384  # of a year's first attempt
K = 8  # four sites, two windows
LISTED = replace(
    TO_SUPERVISED, approvals=("operator",), minimum=Minimum(50, 1, 1), has_portfolio=True
)


def find_least(opened):
    """Return the least agreements without an error that open `opened` of the list's cells."""
    return next(
        n
        for n in range(1000)
        if compute_log_e(n, 0, at_least=0.95) >= log(K / opened / (0.05 * SHARE)) + 2e-6
    )


ALONE, TWO, THREE, ALL = (build_evidence(counted(find_least(k))) for k in (1, 2, 3, K))


def listed_policy(*, to_autonomous=TO_AUTONOMOUS, listed=LISTED, **changes):
    gates = (listed, to_autonomous)
    made = policy(**{"sites": SITES, "gates": gates, "slices": ("listed",), **changes})
    return replace(hashed(made), hash=hashed(made).hash + str(listed.has_portfolio))


class ListDriver(RolloutDriver):
    """A rollout on rules 2 from its start."""

    def __init__(self, first=None, *versions):
        self.policy = listed_policy() if first is None else first
        self.policies, self.events, self.at = {self.policy.hash: self.policy}, [], NOON
        created = RolloutCreated(at=NOON, by="policy", salt_hash="0" * 64, rules=2)
        self.scope = apply_events([created], Scope())
        self.do(ApplyPolicy(at=NOON, by=ANA, policy=self.policy))
        for version in versions or ("v1",):
            self.do(AddVersion(at=NOON, version=version))

    def approve_all(self):
        for proposal in list(self.scope.proposals.values()):
            if not proposal.is_approved:
                self.approve(proposal, BO)


def list_cells(events, kind=ProposalRaised):
    return [event.cell for event in events if isinstance(event, kind)]


def list_places(rollout):
    return [place.cell for places in rollout.scope.portfolios.values() for place in places]


def test_a_cell_opens_by_itself_only_with_the_evidence_of_one_in_all():
    rollout = ListDriver()
    assert find_least(1) > find_least(2) > find_least(K)
    assert list_cells(rollout.tick({CREEK: TWO})) == []
    assert list_cells(rollout.tick({CREEK: ALONE})) == [CREEK]


def test_two_cells_open_together_and_name_the_list_and_their_rank():
    rollout = ListDriver()
    events = rollout.tick({CREEK: TWO, LAKE: build_evidence(counted(find_least(2) + 9))})
    first, second = (event for event in events if isinstance(event, ProposalRaised))
    assert [first.cell, second.cell] == [LAKE, CREEK]
    assert first.portfolio == second.portfolio
    assert first.portfolio.startswith("supervised ")
    assert first.portfolio.endswith(" 2027")
    assert {event.portfolio_cells for event in (first, second)} == {K}
    assert [event.portfolio_rank for event in (first, second)] == [1, 2]
    assert [event.portfolio_opened for event in (first, second)] == [2, 2]
    line = f"portfolio of 8 cells, false share 5 %: rank 2 of 2, log E·α {second.portfolio_score}"
    assert second.readings[-1] == f"{line} of {log(4):.6f}"


def test_cells_without_data_count_in_the_list_and_never_open():
    rollout = ListDriver()
    four = {CREEK: ALL, LAKE: ALL, POND: ALL, MOOR: ALL}
    assert list_cells(rollout.tick(four)) == []  # all four nights have none
    assert rollout.policy.find_portfolio(1, CREEK).size == K


def test_a_cell_below_its_minimum_helps_nobody():
    rollout = ListDriver(listed_policy(listed=replace(LISTED, minimum=Minimum(500, 1, 1))))
    assert list_cells(rollout.tick({CREEK: TWO, LAKE: TWO})) == []
    many = build_evidence(counted(500))
    assert list_cells(rollout.tick({CREEK: many, LAKE: TWO})) == [CREEK]


def test_a_rejection_voids_the_proposal_that_rested_on_it():
    rollout = ListDriver()
    rollout.tick({CREEK: TWO, LAKE: TWO})
    rollout.do(RejectProposal(at=rollout.at, by=BO, proposal=rollout.open(cell=LAKE).id))
    events = rollout.tick({CREEK: TWO, LAKE: TWO})
    (voided,) = (event for event in events if isinstance(event, ProposalVoided))
    assert voided.reason == (
        "its portfolio has changed: it opens 0 of 8 cells, and on this evidence 2 are needed"
    )
    assert list_cells(rollout.tick({CREEK: ALONE})) == [CREEK]


def test_an_approved_cell_waits_until_enough_are_approved_with_it():
    rollout = ListDriver()
    rollout.tick({CREEK: TWO, LAKE: TWO})
    rollout.approve(rollout.open(cell=CREEK), BO)
    (hold,) = list_proposal_holds(rollout.scope, rollout.policy, rollout.open(cell=CREEK), NOON)
    assert hold.kind == "portfolio"
    assert hold.reason == "2 of the portfolio's 8 cells must be widened or approved with it; 0 are"
    assert list_cells(rollout.tick({CREEK: TWO, LAKE: TWO}), Widened) == []
    rollout.approve(rollout.open(cell=LAKE), BO)
    proposals = [rollout.open(cell=cell) for cell in (CREEK, LAKE)]
    assert not any(
        list_proposal_holds(rollout.scope, rollout.policy, p, rollout.at) for p in proposals
    )
    assert list_cells(rollout.tick({CREEK: TWO, LAKE: TWO}), Widened) == [CREEK, LAKE]


def test_an_approved_cell_that_is_stopped_does_not_count_for_others():
    rollout = ListDriver()
    rollout.tick({CREEK: TWO, LAKE: TWO})
    rollout.approve_all()
    rollout.stop(LAKE)
    assert list_cells(rollout.tick({CREEK: TWO, LAKE: TWO}), Widened) == []


def open_two(rollout):
    rollout.tick({CREEK: TWO, LAKE: TWO})
    rollout.approve_all()
    assert list_cells(rollout.tick({CREEK: TWO, LAKE: TWO}), Widened) == [CREEK, LAKE]


def test_widened_cells_keep_their_place_with_the_value_at_their_opening():
    rollout = ListDriver()
    open_two(rollout)
    assert list_cells(rollout.tick({CREEK: BETWEEN, LAKE: TURNED, POND: THREE})) == [POND]


def test_a_guard_narrows_at_once_and_the_place_stays():
    rollout = ListDriver()
    open_two(rollout)
    events = rollout.tick({LAKE: alarm(QUALITY, of=TWO), POND: THREE})
    assert list_cells(events, Narrowed) == [LAKE]
    assert list_cells(events) == [POND]
    rollout.approve_all()
    assert list_cells(rollout.tick({POND: THREE}), Widened) == [POND]
    assert list_places(rollout) == [CREEK, LAKE, POND]


def test_a_narrowed_cell_that_opens_again_in_its_attempt_takes_no_second_place():
    rollout = ListDriver()
    open_two(rollout)
    rollout.narrow("shadow", LAKE)
    assert list_cells(rollout.tick({LAKE: THREE, POND: ALL})) == []  # two have places, not three
    assert list_cells(rollout.tick({LAKE: TWO})) == [LAKE]
    rollout.approve_all()
    assert list_cells(rollout.tick({LAKE: TWO}), Widened) == [LAKE]
    assert list_places(rollout) == [CREEK, LAKE]


@pytest.mark.parametrize(
    "changes",
    [
        {"sites": SITES[:3]},
        {"sites": (*SITES, Site("brook", "UTC"))},
        {"listed": replace(LISTED, risk=0.04)},
        {"listed": replace(LISTED, require=(replace(LISTED.require[0], line=0.96),))},
    ],
)
def test_another_list_asks_of_new_evidence_and_counts_no_earlier_place(changes):
    rollout = ListDriver()
    open_two(rollout)
    new = listed_policy(**changes)
    rollout.edit(new)
    for proposal in list(rollout.scope.proposals.values()):
        rollout.approve(proposal, BO, CY)
    rollout.tick()
    assert rollout.policy.hash == new.hash
    (applied,) = [e for e in rollout.events[-3:] if isinstance(e, PolicyApplied)]
    assert set(applied.restarted) >= {CREEK, LAKE, POND}
    assert rollout.stage(CREEK) == "supervised"  # what is widened stays
    assert rollout.scope.get_cell_state(POND, "v1").attempt == 2
    assert list_cells(rollout.tick({POND: THREE})) == []


def test_a_risk_becomes_a_list_with_new_evidence_and_its_gate_another():
    rollout = ListDriver(listed_policy(listed=replace(LISTED, has_portfolio=False)))
    rollout.tick({POND: BETWEEN})
    before = compute_gate_hash(rollout.policy, 1, POND)
    rollout.edit(listed_policy())
    assert rollout.scope.get_cell_state(POND, "v1").attempt == 2
    assert compute_gate_hash(rollout.policy, 1, POND) != before


def test_a_new_attempt_is_a_new_question_with_its_own_part_of_the_share():
    rollout = ListDriver()
    open_two(rollout)
    restarting = alarm(QUALITY, of=TWO)
    rollout.tick({LAKE: restarting})
    state = rollout.scope.get_cell_state(LAKE, "v1")
    assert state.attempt == 2
    assert list_cells(rollout.tick({LAKE: THREE})) == []  # less of the share is left for it
    assert rollout.scope.get_cell_state(LAKE, "v1").risk_share < SHARE
    assert list_cells(rollout.tick({LAKE: MET})) == [LAKE]
    rollout.approve_all()
    rollout.tick({LAKE: MET})
    assert list_places(rollout) == [CREEK, LAKE, LAKE]


def test_attempts_of_another_year_are_another_list():
    rollout = ListDriver()
    open_two(rollout)
    rollout.after(250 * DAY)
    assert list_cells(rollout.tick({POND: THREE})) == []  # this year's list has widened none
    (raised,) = (e for e in rollout.tick({POND: ALONE}) if isinstance(e, ProposalRaised))
    assert raised.portfolio.endswith(" 2028")
    assert raised.portfolio_opened == 1


def test_a_takeover_that_an_operator_proposes_needs_the_list_too():
    rollout = ListDriver(listed_policy(takeover="supervised"), "v1", "v2")
    open_two(rollout)
    rollout.tick({CREEK: BETWEEN}, "v2")
    parts = {"at": rollout.at, "by": BO, "cell": CREEK, "version": "v2", "to": "supervised"}
    weak = build_evidence(counted(125))
    with pytest.raises(NotEligibleError, match="opens 2 of 8 cells, and on this evidence 6 are"):
        rollout.do(ProposeTakeover(**parts, evidence={(CREEK, "v2"): weak}))
    rollout.do(ProposeTakeover(**parts, evidence={(CREEK, "v2"): MET}))
    raised = rollout.open("takeover")
    assert raised.place.version == "v2"
    rollout.approve(raised, DAN)
    rollout.tick(v2=MET)
    assert isinstance(rollout.events[-1], TakenOver)
    assert [place.version for place in rollout.scope.portfolios[raised.place.portfolio]] == [
        "v1",
        "v1",
        "v2",
    ]


def test_places_and_scores_of_a_stored_scope_are_those_of_the_ledger():
    rollout = ListDriver()
    open_two(rollout)
    rollout.tick({POND: THREE})
    assert rollout.open().place is not None
    stored = json.loads(json.dumps(to_plain(rollout.scope)))
    assert from_plain(Scope, stored) == rollout.scope
    assert from_plain(Scope, stored).portfolios == rollout.scope.portfolios


def test_rollouts_without_numbered_attempts_have_no_portfolio():
    rollout = RolloutDriver(policy())
    with pytest.raises(PolicyRefusedError, match="the rollout is on counting rules 1; propose"):
        rollout.edit(listed_policy())


def test_a_later_wave_that_is_held_counts_for_nobody():
    sites = tuple(replace(site, wave=2) if site.id == "lake" else site for site in SITES)
    rollout = ListDriver(listed_policy(sites=sites, waves=Waves("supervised", hold=7 * DAY)))
    assert list_cells(rollout.tick({CREEK: TWO, LAKE: TWO})) == []
    assert list_cells(rollout.tick({CREEK: TWO, POND: TWO})) == [CREEK, POND]


def test_without_a_portfolio_there_is_no_place_and_the_gates_hash_is_as_ever():
    rollout = ListDriver(listed_policy(listed=replace(LISTED, has_portfolio=False)))
    events = rollout.tick({CREEK: MET})
    (raised,) = (event for event in events if isinstance(event, ProposalRaised))
    assert raised.portfolio == ""
    assert rollout.open().place is None
    assert compute_place(rollout.scope, rollout.policy, (CREEK, "v1"), 1, None) is None
    assert compute_gate_hash(policy(), 1, CREEK) == "e684966abf47d43a"
