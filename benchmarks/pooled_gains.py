"""How often a gate on a pooled gain opens for a model without gain, by seeded simulation.

    PYTHONPATH=. python benchmarks/pooled_gains.py --runs 2000

Four cells count together. The gate is read after each slot of four units, one of each cell, by the
rule that the engine uses: evidence, arms as they were drawn, outcomes missing. On average over the
cells the model brings exactly what people bring, so each opening is a false one.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from rollout.core.policy.gain_readings import is_gain_met
from rollout.core.policy.outcomes import DECIDES, GAIN, GainCondition, OutcomeRule
from rollout.core.statistics.gain import ArmUnits, merge_arms
from rollout.reports.statistics.intervals import compute_upper_bound

RISK, SLOTS, SEED = 0.05, 750, 16  # fixed before the first run
PROFIT = OutcomeRule("profit", 0, 1, "", True, timedelta(days=1), 0.05)
CONDITION = GainCondition(GAIN, 0.0, at_least=True, outcome=PROFIT, arm=DECIDES, pool="rollout")


@dataclass(frozen=True)
class PoolScene:
    """Four cells: what people bring, what the model brings beyond, and its share of units.

    Attributes:
        means: mean outcome of the people in each cell.
        effects: of the model in each cell, 0 on average.
        shares: of the model in each third of the time, by cell.
        spread: standard deviation of an outcome; 0 where it is 0 or 1.
        swing: how far the means of all cells move up and down over the time.
        missing: share of outcomes that never arrive, in both arms alike.
    """

    name: str
    means: tuple[float, ...] = (0.5,) * 4
    effects: tuple[float, ...] = (0.0,) * 4
    shares: tuple[tuple[float, ...], ...] = ((0.5,) * 3,) * 4
    spread: float = 0.2
    swing: float = 0.0
    missing: float = 0.0


MIXED = ((0.1,) * 3, (0.3,) * 3, (0.5,) * 3, (0.9,) * 3)
RISING = ((0.1, 0.5, 0.9), (0.1, 0.1, 0.5), (0.1, 0.1, 0.1), (0.5, 0.9, 0.9))
SCENES = (
    PoolScene("alike"),
    PoolScene("other means and shares", (0.2, 0.4, 0.6, 0.8), shares=MIXED),
    PoolScene("the same, right or wrong", (0.2, 0.4, 0.6, 0.8), shares=MIXED, spread=0.0),
    PoolScene("two gain what two lose", effects=(0.15, -0.15, 0.15, -0.15)),
    PoolScene("cells open one by one, swinging", shares=RISING, swing=0.25),
    PoolScene("2 % missing", shares=MIXED, missing=0.02),
)


def draw_pool(scene: PoolScene, rng: np.random.Generator) -> ArmUnits:
    """Return the units of the scene's cells as a pool has them."""
    return merge_arms([_draw_cell(scene, cell, rng) for cell in range(len(scene.means))])


def _draw_cell(scene: PoolScene, cell: int, rng: np.random.Generator) -> ArmUnits:
    slots = np.arange(SLOTS)
    shares = np.repeat(scene.shares[cell], SLOTS // 3)
    is_model = rng.random(SLOTS) < shares
    swing = scene.swing * np.sin(slots * 4 * np.pi / SLOTS)
    means = scene.means[cell] + swing + scene.effects[cell] * is_model
    if scene.spread:
        width = scene.spread * np.sqrt(3)  # uniform, so that no mean moves at an end of the range
        scores = means + rng.uniform(-width, width, SLOTS)
        scores = np.clip(scores, 0.0, 1.0)
    else:
        scores = (rng.random(SLOTS) < means).astype(np.float64)
    known_shares = (rng.random(SLOTS) >= scene.missing).astype(np.float64)
    return ArmUnits(slots, scores * known_shares, is_model, shares, known_shares)


def count_openings(scene: PoolScene, runs: int) -> int:
    """Return in how many runs the gate ever opens."""
    return sum(_iterate_openings(scene, runs))


def _iterate_openings(scene: PoolScene, runs: int) -> Iterator[bool]:
    rng, slots = np.random.default_rng(SEED), np.arange(SLOTS)
    for _ in range(runs):
        units = draw_pool(scene, rng)
        yield bool(is_gain_met(CONDITION, units, slots, RISK).any())


def main() -> None:
    """Print a row for each scene."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000, help="runs of each scene")
    runs = parser.parse_args().runs
    print("scene | runs | opened | share | 95 % upper bound")
    for scene in SCENES:
        opened = count_openings(scene, runs)
        bound = compute_upper_bound(opened, runs)
        print(f"{scene.name} | {runs:,} | {opened} | {opened / runs:.4f} | {bound:.4f}")


if __name__ == "__main__":
    main()
