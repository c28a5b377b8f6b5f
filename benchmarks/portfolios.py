"""What a portfolio's list gains and costs beside a risk for each cell, by seeded simulation.

    PYTHONPATH=. python benchmarks/portfolios.py --runs 1000

200 cells, read after each 20 records up to 2,000, threshold 95 %, α 5 % in one attempt. Good cells
agree in 98.5 %; all others exactly at the threshold, so that each of their openings is wrong.

With `--floors` 50 cells have four confidence floors each, which is as many questions, after each 40
records up to 4,000, a quarter of them between two floors. Good cells agree by band in 85, 97, 98.5
and 99.5 %, so in 95, 98.3, 99 and 99.5 % from each floor on: opened at the lowest one they are
wrong too. All others agree in 95 % everywhere. A cell opens at the lowest floor that it may, later
at lower ones; each is a widening.
"""

import argparse
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from rollout.core.statistics.e_bh import count_openings
from rollout.core.statistics.truncated_beta import compute_log_mixture

CELLS, EVERY, RECORDS, SEED = 200, 20, 2_000, 20  # fixed before the first run
THRESHOLD, RISK, GOOD = 0.95, 0.05, 0.985
GOOD_SHARES = (0.5, 0.1, 0.0)
FLOORED_CELLS, FLOORED_EVERY = 50, 40
GOOD_BANDS = np.array([0.85, 0.97, 0.985, 0.995])  # from the lowest floor on they are at .95
FLOORS = len(GOOD_BANDS)
RULES = ("each cell at 5 %", "portfolio", "each cell at 5 %/200")
NEVER = RECORDS // EVERY

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def draw_log_scores(good_cells: int, cells: int, rng: np.random.Generator) -> Floats:
    """Return ln(α·E) of each cell at each look, the good cells first; shape (cells, looks)."""
    rates = np.where(np.arange(cells) < good_cells, GOOD, THRESHOLD)
    agreed = rng.binomial(EVERY, rates[:, None], (cells, NEVER)).cumsum(axis=1)
    disagreed = EVERY * np.arange(1, NEVER + 1) - agreed
    return log(RISK) + compute_log_mixture(agreed, disagreed, threshold=THRESHOLD)


def find_openings(log_scores: Floats, required: float) -> Ints:
    """Return the look at which each cell opens by itself, `NEVER` if none."""
    is_met = log_scores >= required
    return np.where(is_met.any(axis=1), is_met.argmax(axis=1), NEVER)


def find_listed_openings(log_scores: Floats) -> Ints:
    """Return the look at which the list opens each cell, `NEVER` if none."""
    size, looks = log_scores.shape
    openings = np.full(size, NEVER)
    for look in range(looks):
        closed = np.flatnonzero(openings == NEVER)
        placed = size - len(closed)
        opened = count_openings(log_scores[closed, look].tolist(), size, placed)
        if opened > placed:
            met = log_scores[closed, look] >= log(size / opened)
            openings[closed[met]] = look
    return openings


def draw_floor_scores(good_cells: int, cells: int, rng: np.random.Generator) -> Floats:
    """Return ln(α·E) of each cell at each floor and look; shape (cells, floors, looks)."""
    is_good = np.arange(cells)[:, None] < good_cells
    rates = np.where(is_good, GOOD_BANDS, THRESHOLD)[:, None, :]
    counts = rng.multinomial(FLOORED_EVERY, np.full(FLOORS, 1 / FLOORS), (cells, NEVER))
    agreed = rng.binomial(counts, rates).cumsum(axis=1)
    disagreed = counts.cumsum(axis=1) - agreed
    above = (part[..., ::-1].cumsum(axis=2)[..., ::-1] for part in (agreed, disagreed))
    log_e = compute_log_mixture(*above, threshold=THRESHOLD)
    return log(RISK) + np.moveaxis(log_e, 2, 1)


def find_floor_openings(log_scores: Floats, required: float | None) -> Ints:
    """Return the look at which each cell opens at each floor, `NEVER` if at none.

    `required` is what each needs by itself, None in a list of all of them.
    """
    cells, floors, looks = log_scores.shape
    openings, acting = np.full((cells, floors), NEVER), np.full(cells, floors)
    is_lower = np.arange(floors)[None, :]
    for look in range(looks):
        scores = np.where(is_lower < acting[:, None], log_scores[:, :, look], -np.inf)
        limit = _find_limit(scores, (openings < NEVER).sum()) if required is None else required
        is_met = scores >= limit
        opened = np.flatnonzero(is_met.any(axis=1))
        acting[opened] = is_met[opened].argmax(axis=1)
        openings[opened, acting[opened]] = look
    return openings


def _find_limit(scores: Floats, placed: int) -> float:
    """Return what a list asks of each of its questions at one look; one of each cell counts."""
    opened = count_openings(scores.max(axis=1).tolist(), scores.size, int(placed))
    return log(scores.size / opened) if opened else np.inf


@dataclass(frozen=True)
class RuleFigures:
    """Means over runs of one rule, with the standard error of the false share.

    Attributes:
        false_share: wrong openings among all, 0 where nothing opened.
        any_wrong: share of runs with a wrong opening.
        wrong: wrong openings.
        records: records of a good cell until it opens; all of them where it doesn't.
        opened: share of the good cells that open.
    """

    false_share: float
    error: float
    any_wrong: float
    wrong: float
    records: float
    opened: float


def simulate(good_share: float, runs: int, cells: int = CELLS) -> dict[str, RuleFigures]:
    """Return the figures of each rule at one share of good cells."""
    rng, good_cells = np.random.default_rng(SEED), round(good_share * cells)
    looks: dict[str, list[Ints]] = {rule: [] for rule in RULES}
    for _ in range(runs):
        log_scores = draw_log_scores(good_cells, cells, rng)
        looks[RULES[0]].append(find_openings(log_scores, 0.0))
        looks[RULES[1]].append(find_listed_openings(log_scores))
        looks[RULES[2]].append(find_openings(log_scores, log(cells)))
    return {rule: _summarize(np.array(openings), good_cells) for rule, openings in looks.items()}


def simulate_floors(
    good_share: float, runs: int, cells: int = FLOORED_CELLS
) -> dict[str, RuleFigures]:
    """Return the figures of each rule with confidence floors; records are until the first opens."""
    rng, good_cells = np.random.default_rng(SEED), round(good_share * cells)
    limits = dict(zip(RULES, (log(FLOORS), None, log(cells * FLOORS)), strict=True))
    openings: dict[str, list[Ints]] = {rule: [] for rule in RULES}
    for _ in range(runs):
        log_scores = draw_floor_scores(good_cells, cells, rng)
        for rule, limit in limits.items():
            openings[rule].append(find_floor_openings(log_scores, limit))
    return {
        rule: _summarize_floors(np.array(looks), good_cells) for rule, looks in openings.items()
    }


def _summarize_floors(openings: Ints, good_cells: int) -> RuleFigures:
    is_open = openings < NEVER
    wrong = is_open[:, good_cells:].sum(axis=(1, 2)) + is_open[:, :good_cells, 0].sum(axis=1)
    firsts = openings[:, :good_cells].min(axis=2)
    return _build_figures(wrong, is_open.sum(axis=(1, 2)), firsts, FLOORED_EVERY)


def _summarize(openings: Ints, good_cells: int) -> RuleFigures:
    is_open = openings < NEVER
    wrong = is_open[:, good_cells:].sum(axis=1)
    return _build_figures(wrong, is_open.sum(axis=1), openings[:, :good_cells], EVERY)


def _build_figures(wrong: Ints, opened: Ints, good: Ints, every: int) -> RuleFigures:
    """Return figures of runs: openings that are wrong, all openings, looks of good cells'."""
    shares = wrong / np.maximum(1, opened)
    records = np.minimum(good + 1, NEVER) * every
    good_cells = good.shape[1]
    return RuleFigures(
        false_share=float(shares.mean()),
        error=float(shares.std() / np.sqrt(len(shares))),
        any_wrong=float((wrong > 0).mean()),
        wrong=float(wrong.mean()),
        records=float(records.mean()) if good_cells else float("nan"),
        opened=float((good < NEVER).mean()) if good_cells else float("nan"),
    )


def main() -> None:
    """Print a table for each share of good cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--floors", action="store_true")
    arguments = parser.parse_args()
    runs, simulate_rules = arguments.runs, simulate_floors if arguments.floors else simulate
    print("| good | rule | false share | runs with a wrong one | wrong | records | good opened |")
    print("|---|---|---|---|---|---|---|")
    for good_share in GOOD_SHARES:
        for rule, figures in simulate_rules(good_share, runs).items():
            print(
                f"| {good_share:.0%} | {rule} | {figures.false_share:.2%} (± {figures.error:.2%})"
                f" | {figures.any_wrong:.1%} | {figures.wrong:.2f} | {figures.records:.0f}"
                f" | {figures.opened:.1%} |"
            )


if __name__ == "__main__":
    main()
