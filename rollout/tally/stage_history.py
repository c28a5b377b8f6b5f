"""The stages of a cell by slot, which determine the decisions its engine receives."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rollout.core.policy.policy import Policy
from rollout.tally.unit_arrays import BoolArray, IntArray


@dataclass(frozen=True, slots=True)
class StageHistory:
    """The stage levels of a cell's acting version, and its confidence floors.

    `stage_levels[i]`, `versions[i]` and `floors[i]` hold from `slots[i]` on; shadow before the
    first. A floor is "" under a policy without several.
    """

    slots: tuple[int, ...] = ()
    stage_levels: tuple[int, ...] = ()
    versions: tuple[str, ...] = ()
    floors: tuple[str, ...] = ()

    def extend(
        self, slot: int, stage_level: int, version: str = "", floor: str = ""
    ) -> "StageHistory":
        """Return the history with `stage_level`, of `version` at `floor`, from `slot` on."""
        version, floor = (version, floor) if stage_level else ("", "")
        if (stage_level, version, floor) == self._last:
            return self
        if self.slots and self.slots[-1] == slot:
            earlier = StageHistory(
                self.slots[:-1], self.stage_levels[:-1], self.versions[:-1], self.floors[:-1]
            )
            return earlier.extend(slot, stage_level, version, floor)
        return StageHistory(
            (*self.slots, slot),
            (*self.stage_levels, stage_level),
            (*self.versions, version),
            (*self.floors, floor),
        )

    @property
    def _last(self) -> tuple[int, str, str]:
        if not self.slots:
            return (0, "", "")
        return self.stage_levels[-1], self.versions[-1], self.floors[-1]

    def find_floors(self, slots: IntArray) -> NDArray[np.float64]:
        """Return the acting confidence floor in each slot; 0 in shadow and without floors."""
        floors = np.array([0.0, *(float(floor or 0) for floor in self.floors)])
        return floors[np.searchsorted(np.array(self.slots, dtype=np.int64), slots, side="right")]

    def find_levels(self, slots: IntArray) -> IntArray:
        """Return the stage level in each slot."""
        if not self.slots:
            return np.zeros(len(slots), dtype=np.int64)
        return self._select_at(self.stage_levels, slots)

    def find_own_levels(self, version: str, slots: IntArray) -> IntArray:
        """Return the stage level in each slot; 0 where another version acted."""
        if not self.slots:
            return np.zeros(len(slots), dtype=np.int64)
        own_levels = (
            level if acting == version else 0
            for level, acting in zip(self.stage_levels, self.versions, strict=True)
        )
        return self._select_at(tuple(own_levels), slots)

    def _select_at(self, stage_levels: tuple[int, ...], slots: IntArray) -> IntArray:
        levels = np.array((0, *stage_levels), dtype=np.int64)
        return levels[np.searchsorted(np.array(self.slots), slots, side="right")]

    @property
    def ever_left_shadow(self) -> bool:
        """Return whether the cell was ever above shadow."""
        return any(self.stage_levels)


@dataclass(frozen=True)
class StageShares:
    """The numbers of reviewed and of blind buckets, by stage level.

    `model_shares` is the probability of the model's arm, NaN where a stage has no two arms.
    `reviewed_shares` are the shares of `reviewed_buckets`; `stage_ids` are names, shadow first.
    """

    reviewed_buckets: IntArray
    blind_buckets: IntArray
    model_decides: BoolArray
    bucket_edges: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    model_shares: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    reviewed_shares: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    stage_ids: tuple[str, ...] = ()


def build_stage_shares(policy: Policy) -> StageShares:
    """Return the policy's shares as arrays over its stage levels."""
    stage_levels = range(len(policy.stage_ids))
    return StageShares(
        reviewed_buckets=np.array(
            [policy.count_reviewed_buckets(stage_level) for stage_level in stage_levels],
            dtype=np.int64,
        ),
        blind_buckets=np.array(
            [policy.count_blind_buckets(stage_level) for stage_level in stage_levels],
            dtype=np.int64,
        ),
        model_decides=np.array(
            [r > 0 and policy.get_stage(r).model_decides for r in stage_levels], dtype=bool
        ),
        bucket_edges=np.array(policy.bucket_edges),
        model_shares=np.array(
            [np.nan, *(stage.model_share or np.nan for stage in policy.stages)], dtype=np.float64
        ),
        reviewed_shares=np.array([1.0, *(stage.reviewed_share for stage in policy.stages)]),
        stage_ids=policy.stage_ids,
    )


def find_buckets(shares: StageShares, sampling_values: NDArray[np.float64]) -> IntArray:
    """Return the bucket of each sampling value: how many edges it reaches."""
    return np.searchsorted(shares.bucket_edges, sampling_values, side="right").astype(np.int64)
