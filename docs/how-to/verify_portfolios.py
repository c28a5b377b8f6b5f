"""Recompute from an exported ledger which widenings its portfolios allowed.

    python verify_portfolios.py ledger.jsonl

A portfolio is a list of cells of which a gate widens those with the most evidence together. Each
open question, an attempt of a version in a cell, at a confidence floor if there are several, has a
score: ln E of the condition with the least evidence, plus ln of the list's false share times the
attempt's share of the year. Of K questions any k may be widened that have scores of ln(K/k) or more
(e-BH). A widened question keeps its place and score. Rows of one slot, a tick, count together.

It reads the ledger with verify_ledger.py, which must lie beside it, and finds what that file finds
too. A ledger has no counted units: E is taken from the readings that users approved. That a
proposal names no portfolio although its gate has one can't be seen. Exit codes as of that file.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil, exp, log
from pathlib import Path
from typing import Any

from verify_ledger import (
    ACCESS_LEDGER,
    BrokenChainError,
    ExportedRow,
    RecomputedState,
    UnreadableError,
    read_rows,
)

ROUNDING = 1e-5  # scores and ln E have six digits, the false share has six that count
PLACE = re.compile(
    r"(?P<terms>portfolio of (?P<cells>\d+) cells.*, false share (?P<percent>\S+) %):"
    r" rank (?P<rank>\d+) of (?P<opened>\d+), log E·α (?P<score>\d+\.\d+) of (?P<needed>\S+)"
)
LOG_E = re.compile(r"log E (\S+) of ")

Question = tuple[str, str, str, int, str]  # site, window, version, attempt, confidence floor


@dataclass(frozen=True)
class ProposalInPortfolio:
    """A proposal of a list of cells, as its row says; the score is recomputed."""

    name: str
    portfolio: str
    question: Question
    score: float
    rank: int
    opened: int


@dataclass
class CellPortfolio:
    """A list of cells: its terms as proposals say them, and the scores of widened questions."""

    terms: str
    size: int
    scores: dict[Question, float] = field(default_factory=dict)

    def count_needed(self, score: float) -> int:
        """Return how many questions must open for one of this score to be among them."""
        return ceil(self.size * exp(-score))


class RecomputedPortfolios(RecomputedState):
    """What the rows so far allow, and which of them their portfolios don't."""

    def __init__(self, rows: Iterable[ExportedRow]) -> None:
        """Apply the rows of a ledger from its first one."""
        self.portfolios: dict[str, CellPortfolio] = {}
        self.listed: dict[str, ProposalInPortfolio] = {}  # by proposal
        self.shares: dict[
            tuple[str, str, str, int], float
        ] = {}  # by attempt of a version in a cell
        self.slot: int | None = None
        self.tick_rows: list[tuple[ExportedRow, ProposalInPortfolio]] = []
        super().__init__(rows)
        self.check_tick()

    def apply_row(self, row: ExportedRow) -> None:
        """Change the state as a row says, and note what the rows before don't allow."""
        if row.slot is None or row.slot != self.slot:
            self.check_tick()
        self.slot = row.slot
        super().apply_row(row)
        try:
            self._apply_listed_row(row, row.body)
        except (KeyError, TypeError, ValueError) as error:
            self.note_if(True, f"has a place in a portfolio that can't be recomputed: {error}")

    def _apply_listed_row(self, row: ExportedRow, body: dict[str, Any]) -> None:
        if row.kind == "AttemptsBegan":
            for place, version, share in zip(
                body["cells"], body["versions"], body["shares"], strict=True
            ):
                self.shares[self._find_attempt(place, version)] = float(share)
        elif row.kind == "ProposalRaised" and body.get("portfolio"):
            proposal = self.listed[body["proposal"]] = self._read_proposal(body)
            self.tick_rows.append((row, proposal))
        elif row.kind in {"Widened", "TakenOver"} and body["proposal"] in self.listed:
            proposal = self.listed[body["proposal"]]
            scores = self.portfolios[proposal.portfolio].scores
            scores.setdefault(proposal.question, proposal.score)
            self.tick_rows.append((row, proposal))

    def _find_attempt(self, place: dict[str, Any], version: str) -> tuple[str, str, str, int]:
        attempt = self.get_cell(place, version).attempt
        return place["site"], place["window"], version, attempt

    def _read_proposal(self, body: dict[str, Any]) -> ProposalInPortfolio:
        """Return a proposal's place; note what its readings and attempt don't give."""
        name, line = body["portfolio"], body["readings"][-1]
        match = PLACE.fullmatch(line)
        if match is None:
            raise ValueError(f"its last reading is {line!r}")
        fields = {key: body[f"portfolio_{key}"] for key in ("cells", "rank", "opened", "score")}
        read = {key: match[key] for key in fields}
        is_other = read != {key: str(value) for key, value in fields.items()}
        self.note_if(is_other, f"says {fields} of its portfolio, and {line!r} to users")
        size = int(match["cells"]) * (body.get("portfolio_floors") or 1)
        portfolio = self.portfolios.setdefault(name, CellPortfolio(match["terms"], size))
        is_other = (portfolio.terms, portfolio.size) != (match["terms"], size)
        self.note_if(is_other, f"has a {match['terms']}, and {name} was a {portfolio.terms}")
        attempt = self._find_attempt(body, body["version"])
        stage, _, year = name.split()
        of_year = self.get_cell(body).of_year
        is_other = stage != body["to_stage"] or year != of_year.rpartition(" ")[2]
        self.note_if(is_other, f"is for {body['to_stage']} in attempt {of_year}, but of {name}")
        return ProposalInPortfolio(
            name=body["proposal"],
            portfolio=name,
            question=(*attempt, body.get("confidence_floor", "")),
            score=self._compute_score(body["readings"], match, self.shares[attempt]),
            rank=int(match["rank"]),
            opened=int(match["opened"]),
        )

    def _compute_score(self, readings: list[str], match: re.Match[str], share: float) -> float:
        """Return the score that readings give; the claimed one if it is the same, rounded."""
        log_es = [float(text) for line in readings for text in LOG_E.findall(line)]
        score = max(0.0, min(log_es) + log(float(match["percent"]) / 100 * share))
        claimed = float(match["score"])
        if abs(claimed - score) < ROUNDING:
            return claimed
        self.note_if(
            True, f"has the score {claimed} in its portfolio; its readings give {score:.6f}"
        )
        return score

    def check_tick(self) -> None:
        """Note what the rows of the last tick claim that their portfolios don't give."""
        for row, proposal in self.tick_rows:
            portfolio = self.portfolios[proposal.portfolio]
            find_problems = (
                self._find_wrong_place if row.kind == "ProposalRaised" else _find_shortage
            )
            for problem in find_problems(portfolio, proposal):
                self.differences.append(f"row {row.revision}: {row.kind} {problem}")
        self.tick_rows = []

    def _find_wrong_place(
        self, portfolio: CellPortfolio, proposal: ProposalInPortfolio
    ) -> Iterator[str]:
        """Yield how a proposal's place differs from that among all widened and open questions."""
        self.listed = {k: p for k, p in self.listed.items() if self.proposals[k].is_open}
        enough = {
            p.question: p.score
            for p in self.listed.values()
            if p.portfolio == proposal.portfolio
            and portfolio.count_needed(p.score) <= proposal.opened
        }
        if proposal.question not in enough:
            needed = portfolio.count_needed(proposal.score)
            yield (
                f"needs {needed} of {portfolio.size} in its portfolio; it opens {proposal.opened}"
            )
        scores = portfolio.scores | enough
        if len(scores) != proposal.opened:
            yield (
                f"opens {proposal.opened} of {portfolio.size} in its portfolio; {len(scores)} have"
                " the evidence"
            )
        rank = 1 + sum(score > proposal.score for score in scores.values())
        if rank != proposal.rank:
            yield f"has rank {proposal.rank} in its portfolio; by its score it is {rank}"


def _find_shortage(portfolio: CellPortfolio, proposal: ProposalInPortfolio) -> Iterator[str]:
    """Yield a sentence if a widened question needs more than all that are widened."""
    needed, widened = portfolio.count_needed(proposal.score), len(portfolio.scores)
    if widened < needed:
        yield (
            f"by {proposal.name} needs {needed} of {portfolio.size} in its portfolio; {widened} are"
            " widened"
        )


def main(arguments: list[str] | None = None) -> int:
    """Print what was found; return 0, or 1 if something differs, or 2 without a ledger."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("ledger", type=Path, help="exported ledger of a rollout, one row per line")
    path = parser.parse_args(arguments).ledger
    try:
        with path.open("rb") as lines:
            rows = list(read_rows(lines))
        state = RecomputedPortfolios(row for row in rows if row.rollout != ACCESS_LEDGER)
    except BrokenChainError as error:
        print(f"{path}: {error}")
        return 1
    except (UnreadableError, OSError, ValueError) as error:
        print(f"{path}: can't be verified: {error}", file=sys.stderr)
        return 2
    print(f"{len(state.differences) or 'no'} differences")
    for problem in state.differences:
        print("  " + "".join(c if c.isprintable() else repr(c)[1:-1] for c in problem))
    for name, portfolio in sorted(state.portfolios.items()):
        print(f"{name}: {portfolio.terms}; {len(portfolio.scores)} widened")
    return 1 if state.differences else 0


if __name__ == "__main__":
    sys.exit(main())
