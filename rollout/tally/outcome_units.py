"""Units with the value of an outcome as arrays, and the arms that the sampling gave them to."""

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from rollout.core.policy.evidence_sources import (
    NOT_NAMED,
    OWN_EPISODE_PREDICTION,
    OWN_PREDICTION,
)
from rollout.core.statistics.gain import ArmUnits
from rollout.kernel.outcomes import DECIDES
from rollout.tally.stage_history import StageShares
from rollout.tally.unit_arrays import BoolArray, IntArray

Floats = NDArray[np.float64]
UNRECORDED, NOT_ASKED, DRAWN_PEOPLE, DRAWN_MODEL = -2, -1, 0, 1
"""Arms: of a history that records none, of a unit without an answer, and those of answers."""
ANY_SHARE = np.nan  # of files, which have the arm alone
SOURCE_FAULTS = ("", NOT_NAMED, OWN_PREDICTION, OWN_EPISODE_PREDICTION)
"""Why a unit with a value is no evidence to widen, by number; "" is evidence."""
SHARE_TOLERANCE = 1e-9  # shares are sums and products of the policy's


@dataclass(frozen=True)
class OutcomeUnits:
    """Units of one version in one cell with one outcome, ascending by slot.

    Attributes:
        slot: when the unit is counted.
        occurred: the slot at or before the unit's first case.
        bucket: bucket of the unit's sampling value.
        score: mean score of the cases with a value; 0 without any.
        known_share: share of the cases with a value.
        drawn_arm: arm that the stored answer gave the unit; `NOT_ASKED` without one.
        drawn_share: share of units with that answer, as stored with it; `ANY_SHARE` without one.
        source_fault: number of the reason in `SOURCE_FAULTS`.
    """

    slot: IntArray
    occurred: IntArray
    bucket: IntArray
    score: Floats
    known_share: Floats
    drawn_arm: IntArray
    drawn_share: Floats
    source_fault: IntArray

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.slot)

    def drop_unsourced_values(self) -> "OutcomeUnits":
        """Return the units, with a value of no source of evidence as a missing one."""
        is_sourced = self.source_fault == 0
        if is_sourced.all():
            return self
        scores, shares = self.score * is_sourced, self.known_share * is_sourced
        return replace(self, score=scores, known_share=shares)

    def select(self, is_kept: BoolArray) -> "OutcomeUnits":
        """Return some of the units."""
        return OutcomeUnits(*(getattr(self, item.name)[is_kept] for item in fields(self)))


def build_empty_outcomes() -> OutcomeUnits:
    """Return no units."""
    whole, real = np.empty(0, dtype=np.int64), np.empty(0)
    return OutcomeUnits(whole, whole, whole, real, real, whole, real, whole)


def join_outcomes(earlier: OutcomeUnits, later: OutcomeUnits) -> OutcomeUnits:
    """Return the units of both."""
    pairs = ((getattr(earlier, item.name), getattr(later, item.name)) for item in fields(earlier))
    return OutcomeUnits(*map(np.concatenate, pairs))


def build_arms(
    rows: OutcomeUnits, stage_levels: IntArray, shares: StageShares, arm: str
) -> ArmUnits:
    """Return the units that the sampling value alone gave to one of two arms.

    Args:
        rows: units of a version in a cell.
        stage_levels: the version's stage at each unit; 0 where it did not act.
        shares: the policy's shares by stage level.
        arm: `decides` or `proposes`; "" for both.
    """
    model_shares = shares.model_shares[stage_levels]
    is_model = rows.bucket >= shares.blind_buckets[stage_levels]
    is_kept = _find_staged(stage_levels, shares, arm)
    is_kept &= _find_answered_as_drawn(rows, stage_levels, shares, is_model)
    kept_rows = rows.select(is_kept)
    return ArmUnits(
        slots=kept_rows.slot,
        scores=kept_rows.score,
        is_model=is_model[is_kept],
        shares=model_shares[is_kept],
        known_shares=kept_rows.known_share,
    )


def count_staged(stage_levels: IntArray, shares: StageShares, arm: str) -> int:
    """Return how many units a stage with two arms had, whether or not they are in one."""
    return int(_find_staged(stage_levels, shares, arm).sum())


def _find_staged(stage_levels: IntArray, shares: StageShares, arm: str) -> BoolArray:
    """Return which units were at a stage with two arms."""
    is_staged: BoolArray = ~np.isnan(shares.model_shares[stage_levels])
    if arm:
        is_staged &= shares.model_decides[stage_levels] == (arm == DECIDES)
    return is_staged


def _find_answered_as_drawn(
    rows: OutcomeUnits, stage_levels: IntArray, shares: StageShares, is_model: BoolArray
) -> BoolArray:
    """Return which units the stage's sampling alone assigned, by what was stored with them.

    A stop, a confidence floor or another stage at the instant of the question has another answer or
    share, in either arm. A unit without an answer is in the arm of its sampling value: who loses
    answers would else choose what is compared.
    """
    model_shares = shares.model_shares[stage_levels]
    expected = np.where(is_model, model_shares, 1 - model_shares)
    is_same_arm = rows.drawn_arm == np.where(is_model, DRAWN_MODEL, DRAWN_PEOPLE)
    is_same_share = np.abs(rows.drawn_share - expected) < SHARE_TOLERANCE
    is_as_drawn = is_same_arm & (is_same_share | np.isnan(rows.drawn_share))
    has_no_answer = (rows.drawn_arm == UNRECORDED) | (rows.drawn_arm == NOT_ASKED)
    result: BoolArray = has_no_answer | is_as_drawn
    return result
