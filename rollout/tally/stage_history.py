"""Which stage a cell stood on, slot by slot, and so which verdicts its engine was given."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rollout.core.policy.policy import Policy
from rollout.tally.unit_arrays import Bools, Ints


@dataclass(frozen=True, slots=True)
class Timeline:
    """Rungs of one cell's acting version. `rungs[i]` holds from `slots[i]` on; before: shadow."""

    slots: tuple[int, ...] = ()
    rungs: tuple[int, ...] = ()

    def after(self, slot: int, rung: int) -> "Timeline":
        """Return the timeline with `rung` from `slot` on; itself where nothing changes."""
        if rung == (self.rungs[-1] if self.rungs else 0):
            return self
        if self.slots and self.slots[-1] == slot:
            return Timeline(self.slots[:-1], self.rungs[:-1]).after(slot, rung)
        return Timeline((*self.slots, slot), (*self.rungs, rung))

    def at(self, occurred: Ints) -> Ints:
        """Return the rung in each slot."""
        if not self.slots:
            return np.zeros(len(occurred), dtype=np.int64)
        stage_levels = np.array((0, *self.rungs), dtype=np.int64)
        return stage_levels[np.searchsorted(np.array(self.slots), occurred, side="right")]

    @property
    def ever_left_shadow(self) -> bool:
        """Say whether any verdict was withheld at any time."""
        return any(self.rungs)


@dataclass(frozen=True)
class Shares:
    """Per rung how many bands get a blind verdict, and how many of these people decide unseen."""

    seen: Ints
    blind: Ints
    decides: Bools
    cuts: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


def shares_of(policy: Policy) -> Shares:
    """Return the policy's shares as arrays over its rungs."""
    stage_levels = range(len(policy.rungs))
    return Shares(
        seen=np.array(
            [policy.seen_bands(stage_level) for stage_level in stage_levels], dtype=np.int64
        ),
        blind=np.array(
            [policy.blind_bands(stage_level) for stage_level in stage_levels], dtype=np.int64
        ),
        decides=np.array(
            [r > 0 and policy.stage(r).model_decides for r in stage_levels], dtype=bool
        ),
        cuts=np.array(policy.cuts),
    )


def bands(shares: Shares, draws: NDArray[np.float64]) -> Ints:
    """Return for each draw how many of the policy's cuts lie at or below it."""
    return np.searchsorted(shares.cuts, draws, side="right").astype(np.int64)
