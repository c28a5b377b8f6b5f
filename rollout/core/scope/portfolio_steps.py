"""Portfolios in a decision: which questions a list opens, and which proposals it holds back.

Proposals count with the score on which they were raised. They are raised beside all open ones of
their list, and applied beside those alone that are widened or applied with them: so the false share
is that of the widened cells, whatever users approve or reject. Under several confidence floors a
cell has a question at each. One of them is raised: the lowest that its list opens.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import inf, log
from typing import NamedTuple

from rollout.core.calendar.sites import Cell
from rollout.core.policy.gates import GateReading
from rollout.core.policy.policy import Policy
from rollout.core.policy.portfolios import (
    SCORE_DIGITS,
    PortfolioRank,
    format_score,
    name_questions,
)
from rollout.core.scope.scope import PortfolioPlace, ProposalState, Scope
from rollout.core.statistics.e_bh import compute_required_openings, count_openings


class Openings(NamedTuple):
    """How many questions a list opens in all, and those of the asked ones among them."""

    opened: int
    places: tuple[PortfolioPlace, ...]


def find_openings(scope: Scope, places: Sequence[PortfolioPlace]) -> Openings:
    """Return which questions of one list are opened, beside those that have a place there.

    A question that has a place already is opened again only on what it has now, but counts once. Of
    an attempt's questions the first that is opened counts alone, the others stay closed: those of a
    cell at its confidence floors, in the order in which they may open.
    """
    if not places:
        return Openings(0, ())
    taken, size = scope.portfolios.get(places[0].portfolio, ()), places[0].size
    taken_questions = {place.question for place in taken}
    places_by_attempt: dict[object, list[PortfolioPlace]] = defaultdict(list)
    for place in places:
        places_by_attempt[place.cell, place.version, place.attempt].append(place)
    best_scores = (
        max((p.score for p in rivals if p.question not in taken_questions), default=-inf)
        for rivals in places_by_attempt.values()
    )
    # an opened question that has a place already adds none, so fewer may be opened than could be
    for count in range(count_openings([*best_scores], size, len(taken)), 0, -1):
        required = log(size / count)
        firsts = (
            next((place for place in rivals if place.score >= required), None)
            for rivals in places_by_attempt.values()
        )
        opened = tuple(place for place in firsts if place is not None)
        total = len(taken) + sum(place.question not in taken_questions for place in opened)
        if total >= count:
            return Openings(total, opened)
    return Openings(0, ())


def compute_place(
    scope: Scope, policy: Policy, key: tuple[Cell, str], stage_level: int, reading: GateReading
) -> PortfolioPlace | None:
    """Return the place that a met gate would take in its portfolio, None without one.

    Under several confidence floors it is that of the floor at which the gate was read.
    """
    (cell, version), portfolio = key, policy.find_portfolio(stage_level, key[0])
    if portfolio is None:
        return None
    state = scope.get_cell_state(cell, version)
    return PortfolioPlace(
        portfolio=portfolio.get_name(state.year),
        size=portfolio.size,
        cell=cell,
        version=version,
        attempt=state.attempt,
        score=compute_score(reading, policy),
        floor=next(iter(reading.floors), ""),
    )


def compute_score(reading: GateReading, policy: Policy) -> float:
    """Return ln(α·E) of the condition with the least, as the ledger stores it.

    0 or more is what a gate alone asks for.
    """
    log_score = min(part.compute_log_e(policy) + log(part.risk) for part in reading.readings)
    return float(format_score(log_score))


def stands_alone(policy: Policy, cell: Cell, stage_level: int, reading: GateReading) -> bool:
    """Return whether a met gate opens whatever else its portfolio opens; True without one."""
    portfolio = policy.find_portfolio(stage_level, cell)
    if portfolio is None:
        return True
    return count_openings((compute_score(reading, policy),), portfolio.size) == 1


def list_open_places(scope: Scope, portfolio: str) -> list[PortfolioPlace]:
    """Return the places that a list's open proposals would take."""
    places = (proposal.place for proposal in scope.proposals.values())
    return [place for place in places if place is not None and place.portfolio == portfolio]


def rank_place(
    scope: Scope, policy: Policy, place: PortfolioPlace, stage_level: int, openings: Openings
) -> PortfolioRank:
    """Return an opened place's rank among those that are widened, proposed or opened with it."""
    taken = scope.portfolios.get(place.portfolio, ())
    scores = {other.question: other.score for other in (*taken, *openings.places)}
    scores[place.question] = place.score
    rank = 1 + sum(score > place.score for score in scores.values())
    portfolio = policy.find_portfolio(stage_level, place.cell)
    assert portfolio is not None  # noqa: S101 - it gave the place
    return PortfolioRank(
        name=place.portfolio,
        cells=len(portfolio.cells),
        false_share=portfolio.false_share,
        opened=openings.opened,
        rank=rank,
        score=f"{place.score:.{SCORE_DIGITS}f}",
        floors=portfolio.floors,
    )


def list_stale_proposals(scope: Scope) -> list[tuple[ProposalState, str]]:
    """Return the open proposals that their list would no longer raise, with the reason."""
    proposals_by_list = defaultdict(list)
    for proposal in scope.proposals.values():
        if proposal.place is not None:
            proposals_by_list[proposal.place.portfolio].append((proposal, proposal.place))
    stale = []
    for pairs in proposals_by_list.values():
        openings = find_openings(scope, [place for _, place in pairs])
        stale += [
            (proposal, f"its portfolio has changed: {describe_shortage(place, openings.opened)}")
            for proposal, place in pairs
            if place not in openings.places
        ]
    return stale


def describe_shortage(place: PortfolioPlace, opened: int) -> str:
    """Return how many questions a list must open for a place to be among them."""
    required = compute_required_openings(place.score, place.size)
    questions = name_questions(has_floors=bool(place.floor))
    return (
        f"it opens {opened} of {place.size} {questions}, and on this evidence {required} are needed"
    )


def select_applicable(scope: Scope, proposals: Iterable[ProposalState]) -> list[ProposalState]:
    """Return which of the proposals that nothing else holds back their lists let be applied.

    Of several proposals for a cell the first counts: applied, it voids the others.
    """
    first_by_cell: dict[Cell, tuple[ProposalState, PortfolioPlace]] = {}
    for proposal in proposals:
        if proposal.place is not None:
            first_by_cell.setdefault(proposal.place.cell, (proposal, proposal.place))
    places_by_list = defaultdict(list)
    for _, place in first_by_cell.values():
        places_by_list[place.portfolio].append(place)
    opened = {
        place for places in places_by_list.values() for place in find_openings(scope, places).places
    }
    return [proposal for proposal, place in first_by_cell.values() if place in opened]
