"""Portfolios under several confidence floors: each cell is a question at each floor."""

from dataclasses import replace
from itertools import product
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.core.calendar.sites import Cell
from rollout.core.errors import NotEligibleError
from rollout.core.policy.cell_evidence import GuardReading
from rollout.core.policy.confidence_floors import compute_gate_risk
from rollout.core.policy.policy import EvidenceRules
from rollout.core.policy.portfolios import build_portfolio
from rollout.core.scope.commands import ProposeTakeover, RejectProposal
from rollout.core.scope.events import (
    Narrowed,
    ProposalRaised,
    ProposalVoided,
    TakenOver,
    Widened,
)
from rollout.core.scope.portfolio_steps import find_openings
from rollout.core.scope.proposal_holds import list_proposal_holds
from rollout.core.scope.scope import PortfolioPlace, Scope
from rollout.core.statistics.evidence import compute_log_e
from tests.core.scope.test_portfolio_steps import (
    LAKE,
    LISTED,
    MOOR,
    POND,
    SHARE,
    ListDriver,
    list_cells,
    listed_policy,
)
from tests.factories import (
    BO,
    CREEK,
    CY,
    DAN,
    QUALITY,
    TO_AUTONOMOUS,
    build_evidence,
    counted,
)

RULES = EvidenceRules(higher_floors=(0.8, 0.9))
SIZE = 24  # eight cells at three floors


def find_least(opened, size=SIZE, risk=0.05, line=0.95):
    """Return the least agreements without an error that open `opened` of the list's questions."""
    needed = log(size / opened / (risk * SHARE)) + 2e-6
    return next(n for n in range(2000) if compute_log_e(n, 0, at_least=line) >= needed)


ONE, TWO, THREE, ALL = (find_least(opened) for opened in (1, 2, 3, SIZE))


def at_floors(*agreed, calm=(), alarm=False):
    """Return evidence with so many agreements from each floor on, lowest first; 0 is a bad one."""
    floors = tuple(
        build_evidence(
            counted(n) if n else counted(80, 40),
            guards={QUALITY.id: GuardReading(is_alarm=False, is_calm=i in calm)},
        )
        for i, n in enumerate(agreed)
    )
    guards = {QUALITY.id: GuardReading(is_alarm=True, value="9", records=9)} if alarm else {}
    return replace(floors[0], guards=guards, floors=floors)


def floored(**changes):
    return ListDriver(listed_policy(evidence=RULES, **changes))


def list_opened(events, kind=ProposalRaised):
    return [
        (event.cell, (event.floors if kind is ProposalRaised else event.confidence_floors)[0])
        for event in events
        if isinstance(event, kind)
    ]


def list_places(rollout):
    return [(p.cell, p.floor) for places in rollout.scope.portfolios.values() for p in places]


def open_at(rollout, evidence_by_cell):
    """Raise, approve and apply what opens; return what was widened."""
    rollout.tick(evidence_by_cell)
    rollout.approve_all()
    return list_opened(rollout.tick(evidence_by_cell), Widened)


def test_each_cell_at_each_floor_is_a_question_of_the_list():
    rollout = floored()
    portfolio = rollout.policy.find_portfolio(1, CREEK)
    assert (len(portfolio.cells), portfolio.floors, portfolio.size) == (8, 3, SIZE)
    # the number of floors is in the size of the list, and doesn't divide the risk once more
    assert compute_gate_risk(rollout.policy, rollout.policy.gates[0], SHARE) == 0.05 * SHARE
    assert compute_gate_risk(rollout.policy, rollout.policy.gates[1], 0.3) == 0.01 * 0.3 / 3
    assert list_opened(rollout.tick({CREEK: at_floors(ONE - 1, ONE - 1, 0)})) == []
    (raised,) = (
        e for e in rollout.tick({CREEK: at_floors(0, ONE, 0)}) if isinstance(e, ProposalRaised)
    )
    assert (raised.cell, raised.floors) == (CREEK, ("0.8",))
    assert (raised.portfolio_cells, raised.portfolio_floors) == (8, 3)
    assert (raised.portfolio_opened, raised.portfolio_rank) == (1, 1)
    score = compute_log_e(ONE, 0, at_least=0.95) + log(0.05 * SHARE)
    assert 0 <= score - float(raised.portfolio_score) < 2e-6
    rank = f"false share 5 %: rank 1 of 1, log E·α {raised.portfolio_score}"
    assert raised.readings[-2:] == (
        "cases of confidence 0.8 or more",
        f"portfolio of 8 cells at 3 confidence floors (24 pairs), {rank} of {log(SIZE):.6f}",
    )


def test_of_the_floors_that_the_list_opens_the_lowest_is_proposed():
    rollout = floored()
    creek = at_floors(0, TWO, ONE)
    assert list_opened(rollout.tick({CREEK: creek})) == [(CREEK, "0.9")]
    rollout = floored()
    together = rollout.tick({CREEK: creek, LAKE: at_floors(TWO, 0, 0)})
    assert sorted(list_opened(together)) == [(CREEK, "0.8"), (LAKE, "0")]
    assert {e.portfolio_opened for e in together if isinstance(e, ProposalRaised)} == {2}


def test_a_cell_counts_once_however_many_of_its_floors_are_met():
    rollout = floored()
    assert list_opened(rollout.tick({CREEK: at_floors(THREE, THREE, THREE)})) == []
    assert list_opened(rollout.tick({CREEK: at_floors(TWO, TWO, TWO)})) == []


def test_a_widened_cell_has_no_place_at_its_stricter_floors():
    rollout = floored()
    both = {CREEK: at_floors(0, ONE, ONE + 50)}
    assert open_at(rollout, both) == [(CREEK, "0.8")]
    assert rollout.scope.get_cell_state(CREEK, "v1").grants[-1].floors == ("0.8", "0.9")
    assert list_places(rollout) == [(CREEK, "0.8")]
    assert list_opened(rollout.tick({LAKE: at_floors(0, 0, THREE)})) == []
    assert list_opened(rollout.tick({LAKE: at_floors(0, 0, TWO)})) == [(LAKE, "0.9")]


def test_stricter_floors_are_kept_for_alarms_where_the_list_would_open_them_too():
    for strict, kept in ((ONE - 1, ("0.8",)), (ONE, ("0.8", "0.9")), (ALL, ("0.8",))):
        rollout = floored()
        (raised,) = (
            event
            for event in rollout.tick({CREEK: at_floors(0, ONE, strict)})
            if isinstance(event, ProposalRaised)
        )
        assert raised.floors == kept


def test_a_lower_floor_of_a_widened_cell_takes_a_further_place():
    rollout = floored()
    assert open_at(rollout, {CREEK: at_floors(0, 0, ONE)}) == [(CREEK, "0.9")]
    assert list_opened(rollout.tick({CREEK: at_floors(0, THREE, ONE)})) == []
    assert open_at(rollout, {CREEK: at_floors(0, TWO, ONE)}) == [(CREEK, "0.8")]
    assert list_places(rollout) == [(CREEK, "0.9"), (CREEK, "0.8")]
    # the third question of the list, of another cell
    assert list_opened(rollout.tick({POND: at_floors(0, 0, THREE)})) == [(POND, "0.9")]


def test_an_alarm_raises_the_floor_whatever_the_list_opens():
    rollout = floored()
    open_at(rollout, {CREEK: at_floors(0, ONE, ONE)})
    places = list_places(rollout)
    events = rollout.tick({CREEK: at_floors(0, 0, 0, calm={2}, alarm=True)})
    (narrowed,) = (event for event in events if isinstance(event, Narrowed))
    assert narrowed.confidence_floor == "0.9"
    assert list_places(rollout) == places
    # the next attempt asks for the lower floor as a question of its own
    assert list_opened(rollout.tick({CREEK: at_floors(0, TWO, TWO)})) == []
    assert open_at(rollout, {CREEK: at_floors(0, 230, 230)}) == [(CREEK, "0.8")]
    assert list_places(rollout) == [*places, (CREEK, "0.8")]


def test_a_narrowed_cell_takes_no_second_place_at_its_floor_but_one_at_another():
    rollout = floored()
    open_at(rollout, {CREEK: at_floors(0, ONE, 0), LAKE: at_floors(0, ONE, 0)})
    rollout.narrow("shadow", CREEK)
    # at its own floor it is one of two; at another one of three
    assert list_opened(rollout.tick({CREEK: at_floors(0, THREE, 0)})) == []
    (raised,) = (
        event
        for event in rollout.tick({CREEK: at_floors(0, TWO, THREE)})
        if isinstance(event, ProposalRaised)
    )
    assert (raised.floors[0], raised.portfolio_opened) == ("0.8", 2)
    rollout.approve_all()
    rollout.tick({CREEK: at_floors(0, TWO, 0)})
    assert list_places(rollout) == [(CREEK, "0.8"), (LAKE, "0.8")]
    rollout.narrow("shadow", CREEK)
    assert open_at(rollout, {CREEK: at_floors(0, 0, THREE)}) == [(CREEK, "0.9")]
    assert list_places(rollout)[2:] == [(CREEK, "0.9")]


def test_an_approved_floor_waits_for_enough_others_and_is_voided_without_them():
    rollout = floored()
    both = {CREEK: at_floors(TWO, 0, 0), LAKE: at_floors(0, 0, TWO)}
    rollout.tick(both)
    creek = rollout.open(cell=CREEK)
    rollout.approve(creek, BO)
    (hold,) = list_proposal_holds(
        rollout.scope, rollout.policy, rollout.open(cell=CREEK), rollout.at
    )
    assert hold.reason == (
        "2 of the portfolio's 24 pairs of cell and floor must be widened or approved with it; 0 are"
    )
    assert list_opened(rollout.tick(both), Widened) == []
    rollout.do(RejectProposal(at=rollout.at, by=BO, proposal=rollout.open(cell=LAKE).id))
    (voided,) = (e for e in rollout.tick(both) if isinstance(e, ProposalVoided))
    assert voided.reason == (
        "its portfolio has changed: it opens 0 of 24 pairs of cell and floor, and on this evidence"
        " 2 are needed"
    )


def test_the_next_stage_is_asked_first_and_else_a_lower_floor_of_the_held_one():
    above = replace(TO_AUTONOMOUS, approvals=("operator",), has_portfolio=True)
    rollout = floored(to_autonomous=above)
    open_at(rollout, {CREEK: at_floors(0, 0, ONE)})
    lone = find_least(1, risk=0.01, line=0.97)
    two = find_least(2, risk=0.01, line=0.97)
    assert two > TWO
    # the upper list opens it only with another cell; meanwhile its stage gets a lower floor
    (raised,) = (
        event
        for event in rollout.tick({CREEK: at_floors(0, TWO, two)})
        if isinstance(event, ProposalRaised)
    )
    assert (raised.to_stage, raised.floors[0]) == ("supervised", "0.8")
    rollout.do(RejectProposal(at=rollout.at, by=BO, proposal=raised.proposal))
    rollout.after(rollout.policy.after_rejection)
    (raised,) = (
        event
        for event in rollout.tick({CREEK: at_floors(0, TWO, lone)})
        if isinstance(event, ProposalRaised)
    )
    assert (raised.to_stage, raised.floors[0]) == ("autonomous", "0.9")


def test_a_lower_floor_with_a_risk_of_its_own_waits_only_for_the_upper_list():
    listed = replace(LISTED, has_portfolio=False)
    above = replace(TO_AUTONOMOUS, approvals=("operator",), has_portfolio=True)
    two, lone = (find_least(k, risk=0.01, line=0.97) for k in (2, 1))
    found = []
    for strict in (two, lone):
        rollout = floored(listed=listed, to_autonomous=above)
        assert open_at(rollout, {CREEK: at_floors(0, 0, 200)}) == [(CREEK, "0.9")]
        events = rollout.tick({CREEK: at_floors(0, 200, strict)})
        (raised,) = (event for event in events if isinstance(event, ProposalRaised))
        found.append((raised.to_stage, raised.floors[0], raised.portfolio_floors))
    assert found == [("supervised", "0.8", 0), ("autonomous", "0.9", 3)]


def test_a_takeover_takes_the_place_of_its_floor():
    rollout = ListDriver(listed_policy(evidence=RULES, takeover="supervised"), "v1", "v2")
    open_at(rollout, {CREEK: at_floors(0, ONE, 0)})
    rollout.tick({CREEK: at_floors(9, 9, 9)}, "v2")
    parts = {"at": rollout.at, "by": BO, "cell": CREEK, "version": "v2", "to": "supervised"}
    with pytest.raises(NotEligibleError, match="opens 1 of 24 pairs of cell and floor, and on"):
        rollout.do(ProposeTakeover(**parts, evidence={(CREEK, "v2"): at_floors(0, 160, 0)}))
    rollout.do(ProposeTakeover(**parts, evidence={(CREEK, "v2"): at_floors(0, 2000, 0)}))
    rollout.approve(rollout.open("takeover"), DAN)
    rollout.tick({CREEK: at_floors(0, 2000, 0)}, "v2")
    assert isinstance(rollout.events[-1], TakenOver)
    assert list_places(rollout) == [(CREEK, "0.8"), (CREEK, "0.8")]


def test_the_order_of_cells_changes_nothing():
    evidence = {
        CREEK: at_floors(0, TWO, THREE),
        LAKE: at_floors(TWO, 0, ONE),
        POND: at_floors(0, 0, THREE),
        MOOR: at_floors(ALL, ALL, ALL),
    }
    raised = [
        list_opened(floored().tick({cell: evidence[cell] for cell in cells}))
        for cells in (list(evidence), list(evidence)[::-1])
    ]
    assert raised[0] == raised[1]
    assert len(raised[0]) == 3


def test_the_floors_are_part_of_the_list_and_one_alone_is_not():
    rows = [(CREEK, LISTED.require)]
    one, two, other = (
        build_portfolio("supervised", 0.05, rows, floors) for floors in ((), (0.0, 0.8), (0.0, 0.9))
    )
    assert len({one.digest, two.digest, other.digest}) == 3
    assert one == build_portfolio("supervised", 0.05, rows)
    assert (one.size, two.size) == (1, 2)


@pytest.mark.parametrize("higher", [(0.9,), (0.8, 0.97), ()])
def test_other_floors_ask_anew_in_shadow_and_count_no_earlier_place(higher):
    rollout = floored()
    open_at(rollout, {CREEK: at_floors(0, ONE, 0), LAKE: at_floors(0, ONE, 0)})
    rollout.tick({POND: at_floors(0, 0, THREE)})
    proposal = rollout.open(cell=POND)
    rollout.edit(listed_policy(evidence=EvidenceRules(higher_floors=higher)))
    rollout.approve(rollout.open("policy"), BO, CY)
    rollout.tick()
    assert rollout.policy.evidence.higher_floors == higher
    assert proposal.id not in rollout.scope.proposals
    assert not rollout.scope.get_cell_state(CREEK, "v1").grants
    evidence = at_floors(0, THREE, THREE) if higher else build_evidence(counted(THREE))
    assert list_cells(rollout.tick({POND: evidence})) == []


# The rule itself, against all sets of questions with one of each cell at most.

SCORES = st.floats(-1, 5).map(lambda score: round(score, 2))
CELLS = [Cell(f"c{n}", "day") for n in range(5)]


def place(cell, floor, score, size):
    return PortfolioPlace("list", size, cell, "v1", 1, score, floor)


def open_by_trial(rivals, size, placed):
    """Return the most that any choice of one question of each cell opens."""
    best = placed
    for chosen in product(*([None, *row] for row in rivals)):
        scores = [score for score in chosen if score is not None]
        total = placed + len(scores)
        if scores and all(score >= log(size / total) for score in scores):
            best = max(best, total)
    return best


@given(
    st.lists(st.lists(SCORES, min_size=1, max_size=3), min_size=1, max_size=5),
    st.integers(0, 3),
    st.integers(0, 9),
)
def test_openings_are_the_most_that_any_choice_gives_at_the_lowest_floors(rivals, placed, more):
    size = 15 + more
    taken = tuple(place(Cell(f"t{n}", "day"), "0", 9.0, size) for n in range(placed))
    places = [
        place(CELLS[n], str(i), score, size)
        for n, row in enumerate(rivals)
        for i, score in enumerate(row)
    ]
    opened, found = find_openings(Scope(portfolios={"list": taken}), places)
    assert opened == open_by_trial(rivals, size, placed) == placed + len(found)
    for n, row in enumerate(rivals):
        met = [str(i) for i, score in enumerate(row) if opened and score >= log(size / opened)]
        assert [p.floor for p in found if p.cell == CELLS[n]] == met[:1]


@given(
    st.lists(st.lists(SCORES, min_size=3, max_size=3), min_size=1, max_size=5),
    st.sets(st.tuples(st.integers(0, 4), st.integers(0, 2))),
)
def test_with_places_of_their_own_all_opened_are_enough_for_their_number(rivals, placed):
    size = 18
    taken = tuple(place(CELLS[n], str(i), 9.0, size) for n, i in placed)
    places = [
        place(CELLS[n], str(i), score, size)
        for n, row in enumerate(rivals)
        for i, score in enumerate(row)
    ]
    opened, found = find_openings(Scope(portfolios={"list": taken}), places)
    questions = {p.question for p in (*taken, *found)}
    assert opened == len(questions)
    assert all(p.score >= log(size / opened) for p in found)
    assert len({p.cell for p in found}) == len(found)


@pytest.mark.parametrize(
    ("scores", "opened"),
    [
        ((2.5, 2.5), []),  # its own floor would need to be enough alone, 2.89
        ((2.5, 3.0), ["1"]),
        ((3.0, 3.0), ["0"]),
        ((2.0, 2.5), ["1"]),  # as a second question 2.19 is enough
    ],
)
def test_a_floor_with_a_place_adds_no_question(scores, opened):
    size = 18
    taken = (place(CELLS[0], "0", 9.0, size),)
    places = [place(CELLS[0], str(i), score, size) for i, score in enumerate(scores)]
    total, found = find_openings(Scope(portfolios={"list": taken}), places)
    assert [p.floor for p in found] == opened
    assert total == 1 + (opened == ["1"])
