"""Portfolios: a list of cells whose gate bounds the share of wrong widenings in the list.

Such a gate has no risk of its own. Of the list's K cells the k with the most evidence are widened,
each at K/(k·false share) or more (`rollout.core.statistics.e_bh`). K counts all cells that the gate
fits: those without data too, whatever limits or pauses hold them. With several confidence floors
the question is a cell at a floor, so that J floors make K·J of them. A list with other cells,
floors, conditions or share is another portfolio, whose questions are asked of new evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import floor, log

from rollout.core.calendar.sites import Cell
from rollout.core.policy.measures import Condition

SCORE_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Portfolio:
    """The cells of one gate with a false share.

    `digest` names the list: it covers the stage, the share, the cells and their conditions, and
    several confidence floors. `floors` is the number J of these, 0 with one.
    """

    stage: str
    false_share: float
    cells: tuple[Cell, ...]
    digest: str
    floors: int = 0

    @property
    def size(self) -> int:
        """Return the number of the list's questions: each cell, at each confidence floor."""
        return len(self.cells) * max(1, self.floors)

    def get_name(self, year: int) -> str:
        """Return the name of the list of attempts that begin in a year, as the ledger has it.

        Attempts share a cell's risk within a calendar year, so each year has a list of its own.
        """
        return f"{self.stage} {self.digest} {year}"


def build_portfolio(
    stage: str,
    false_share: float,
    conditions_by_cell: Sequence[tuple[Cell, tuple[Condition, ...]]],
    floors: tuple[float, ...] = (),
) -> Portfolio:
    """Return the portfolio of cells with the conditions that each must meet.

    `floors` are several confidence floors, () with one.
    """
    rows = [
        (str(cell), [(str(condition), condition.line) for condition in conditions])
        for cell, conditions in sorted(conditions_by_cell, key=lambda pair: pair[0])
    ]
    covered = (stage, false_share, rows, *([floors] if floors else []))
    digest = sha256(repr(covered).encode()).hexdigest()[:12]
    cells = tuple(cell for cell, _ in conditions_by_cell)
    return Portfolio(stage, false_share, cells, digest, len(floors))


def describe_portfolio_promise(portfolio: Portfolio) -> str:
    """Return what a portfolio's gate promises.

    >>> describe_portfolio_promise(Portfolio("supervised", 0.05, (), "3f2a")).partition("share")[0]
    'Of the widenings to supervised in this list of 0 cells the '
    """
    count, floors = len(portfolio.cells), portfolio.floors
    cells = "1 cell" if count == 1 else f"{count:,} cells"
    cells += f", each at {floors} confidence floors," * bool(floors)
    floors_text = " A cell that is widened to a lower floor counts at both." * bool(floors)
    return (
        f"Of the widenings to {portfolio.stage} in this list of {cells} the share of wrong ones is,"
        f" at every look and in expectation, at most {portfolio.false_share * 100:g} % for the"
        f" attempts that begin in a year; cells without data count in the list.{floors_text}"
    )


def name_questions(*, has_floors: bool) -> str:
    """Return what the numbers of a list count."""
    return "pairs of cell and floor" if has_floors else "cells"


def format_score(log_score: float) -> str:
    """Return ln(α·E) as the ledger stores it, rounded down; of a met gate it is at least 0.

    >>> format_score(2.9957329), format_score(-1e-9)
    ('2.995732', '0.000000')
    """
    scale = 10**SCORE_DIGITS
    return f"{max(0, floor(log_score * scale)) / scale:.{SCORE_DIGITS}f}"


@dataclass(frozen=True, slots=True)
class PortfolioRank:
    """The place of a proposal in its portfolio at the look that raised it.

    Attributes:
        name: of the list.
        cells: number K of its cells.
        false_share: what the list's gate bounds.
        opened: number k of questions that are widened, proposed or opened by the same look.
        rank: of the proposal's score among theirs, from 1.
        score: ln(α·E), as text; α is the attempt's part of the false share.
        floors: number J of several confidence floors at which each cell is asked, 0 with one.
    """

    name: str
    cells: int
    false_share: float
    opened: int
    rank: int
    score: str
    floors: int = 0

    def format(self) -> str:
        """Return the rank as the line that a proposal lists.

        >>> PortfolioRank("supervised 3f2a 2027", 200, 0.05, 14, 3, "3.912023").format()
        'portfolio of 200 cells, false share 5 %: rank 3 of 14, log E·α 3.912023 of 2.659260'
        """
        size = self.cells * max(1, self.floors)
        floors = f" at {self.floors} confidence floors ({size} pairs)" * bool(self.floors)
        return (
            f"portfolio of {self.cells} cells{floors}, false share {self.false_share * 100:g} %:"
            f" rank {self.rank} of {self.opened}, log E·α {self.score} of"
            f" {log(size / self.opened):.6f}"
        )
