"""Units with the value of an outcome as arrays, their arms, and the service's buffer of them.

An arm holds the units that the sampling alone gave to it. The buffer grows slot by slot.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import nan
from typing import TYPE_CHECKING, NamedTuple

from rollout.kernel.arrays import Bools, Floats, Ints, np
from rollout.kernel.calendar.instants import Cell, CellVersion
from rollout.kernel.policy.evidence_sources import NOT_NAMED, OWN_EPISODE_PREDICTION, OWN_PREDICTION
from rollout.kernel.statistics.gain import ArmUnits
from rollout.kernel.units import DECIDES, OutcomeRule, group_pairs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rollout.engine.evidence.stage_history import StageShares

UNRECORDED, NOT_ASKED, DRAWN_PEOPLE, DRAWN_MODEL = -2, -1, 0, 1
"""Arms: of a history that records none, of a unit without an answer, and those of answers."""
ANY_SHARE = nan  # of files, which have the arm alone
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

    slot: Ints
    occurred: Ints
    bucket: Ints
    score: Floats
    known_share: Floats
    drawn_arm: Ints
    drawn_share: Floats
    source_fault: Ints

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.slot)

    def drop_unsourced_values(self) -> OutcomeUnits:
        """Return the units, with a value of no source of evidence as a missing one."""
        is_sourced = self.source_fault == 0
        if is_sourced.all():
            return self
        scores, shares = self.score * is_sourced, self.known_share * is_sourced
        return replace(self, score=scores, known_share=shares)

    def select(self, is_kept: Bools) -> OutcomeUnits:
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


def build_arms(rows: OutcomeUnits, stage_levels: Ints, shares: StageShares, arm: str) -> ArmUnits:
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


def count_staged(stage_levels: Ints, shares: StageShares, arm: str) -> int:
    """Return how many units a stage with two arms had, whether or not they are in one."""
    return int(_find_staged(stage_levels, shares, arm).sum())


def _find_staged(stage_levels: Ints, shares: StageShares, arm: str) -> Bools:
    """Return which units were at a stage with two arms."""
    is_staged: Bools = ~np.isnan(shares.model_shares[stage_levels])
    if arm:
        is_staged &= shares.model_decides[stage_levels] == (arm == DECIDES)
    return is_staged


def _find_answered_as_drawn(
    rows: OutcomeUnits, stage_levels: Ints, shares: StageShares, is_model: Bools
) -> Bools:
    """Return which units the stage's sampling alone assigned, by what was stored with them.

    Another stage at the instant of the question has another share, in either arm. A unit without an
    answer, or with one that no sampling value gave, is in the arm of its own: who loses answers, or
    has people decide by what is sent, would else choose what is compared.
    """
    model_shares = shares.model_shares[stage_levels]
    expected = np.where(is_model, model_shares, 1 - model_shares)
    is_same_arm = rows.drawn_arm == np.where(is_model, DRAWN_MODEL, DRAWN_PEOPLE)
    is_same_share = np.abs(rows.drawn_share - expected) < SHARE_TOLERANCE
    is_as_drawn = is_same_arm & (is_same_share | np.isnan(rows.drawn_share))
    has_no_answer = (rows.drawn_arm == UNRECORDED) | (rows.drawn_arm == NOT_ASKED)
    result: Bools = has_no_answer | is_as_drawn | (rows.drawn_share == 1)
    return result


OutcomeKey = tuple[Cell, str, str, str]  # cell, version, outcome, definition


NO_SHARE = "None"


class CountedOutcome(NamedTuple):
    """A counted unit with an outcome, as the store holds it and digests cover it.

    Attributes:
        unit, case_id: numbers of the unit and of its first case.
        slot, occurred: slot of the count, slot of the first case.
        definition: range, direction and deadline of the outcome when it was counted.
        bucket: bucket of the unit's sampling value.
        drawn: decider, exposure and share, as stored with the question or by an offline client; an
            import has no share; None without an answer.
        score: mean score of the cases with a value; 0 without any.
        known_share: share of the cases with a value.
        record_hashes: of the records behind it, sorted and joined.
        sources: of its values, kinds and ids of accounts, sorted; None before they were stored.
        source_fault: why it is no evidence to widen; None means evidence.
    """

    unit: int
    version: str
    outcome: str
    case_id: int
    slot: int
    occurred: int
    site: str
    window: str
    definition: str
    bucket: int
    drawn: str | None
    score: float
    known_share: float
    record_hashes: bytes
    sources: str | None = None
    source_fault: str | None = None

    @property
    def text(self) -> bytes:
        """Return the line that digests cover; lines without sources are as they were."""
        values = tuple(self)
        if self.sources is None and self.source_fault is None:
            values = values[:-2]
        return f"outcome {values!a}\n".encode()


class OutcomeBuffer:
    """Counted outcomes by cell, version and outcome."""

    def __init__(self) -> None:
        self._units: dict[OutcomeKey, OutcomeUnits] = {}
        self.row_count = 0

    def add(self, lines: Iterable[CountedOutcome]) -> set[CellVersion]:
        """Add units of later slots, in order; return the cells and versions that grew."""
        groups = group_pairs(
            ((Cell(line.site, line.window), line.version, line.outcome, line.definition), line)
            for line in lines
        )
        for key, group in groups.items():
            earlier_units = self._units.get(key, build_empty_outcomes())
            self._units[key] = join_outcomes(earlier_units, _build_units(group))
            self.row_count += len(group)
        return {(cell, version) for cell, version, _, _ in groups}

    def list_keys(self) -> set[CellVersion]:
        """Return the cells and versions with units."""
        return {(cell, version) for cell, version, _, _ in self._units}

    def list_units(self) -> Iterator[tuple[OutcomeKey, OutcomeUnits]]:
        """Yield the units of each cell, version, outcome and definition."""
        return iter(self._units.items())

    def restore(self, units: Mapping[OutcomeKey, OutcomeUnits]) -> None:
        """Fill this empty buffer with what another one held."""
        self._units = dict(units)
        self.row_count = sum(map(len, self._units.values()))

    def read_outcomes(self, cell: Cell, version: str, outcome: OutcomeRule) -> OutcomeUnits:
        """Return the units that were counted as the outcome is defined now."""
        units = self._units.get((cell, version, outcome.id, outcome.definition))
        return build_empty_outcomes() if units is None else units


def _build_units(lines: list[CountedOutcome]) -> OutcomeUnits:
    drawn = [_parse_drawn(line.drawn) for line in lines]
    return OutcomeUnits(
        slot=np.array([line.slot for line in lines], dtype=np.int64),
        occurred=np.array([line.occurred for line in lines], dtype=np.int64),
        bucket=np.array([line.bucket for line in lines], dtype=np.int64),
        score=np.array([line.score for line in lines], dtype=np.float64),
        known_share=np.array([line.known_share for line in lines], dtype=np.float64),
        drawn_arm=np.array([arm for arm, _ in drawn], dtype=np.int64),
        drawn_share=np.array([share for _, share in drawn], dtype=np.float64),
        source_fault=np.array(
            [SOURCE_FAULTS.index(line.source_fault or "") for line in lines], dtype=np.int64
        ),
    )


def _parse_drawn(drawn: str | None) -> tuple[int, float]:
    """Return the arm and the share of a stored answer."""
    if drawn is None:
        return NOT_ASKED, ANY_SHARE
    decider, exposure, share = drawn.split()
    is_model = decider == "model" or exposure == "assisted"
    return (DRAWN_MODEL if is_model else DRAWN_PEOPLE), (
        ANY_SHARE if share == NO_SHARE else float(share)
    )
