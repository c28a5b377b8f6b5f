"""The history of a cell by slot: its stages, and the attribute values familiar to a version.

The stages determine the decisions that the cell's engine receives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rollout.engine.events import LedgerEvent
from rollout.engine.evidence.unit_arrays import UnitArrays, UnitClasses
from rollout.kernel.arrays import Bools, Floats, Ints
from rollout.kernel.calendar.instants import CellVersion
from rollout.kernel.policy.familiarity import FAMILIAR, AttributeValue
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.sampling import AUDIT, SAMPLING_PURPOSE, compute_sampling_values


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

    def find_floors(self, slots: Ints) -> Floats:
        """Return the acting confidence floor in each slot; 0 in shadow and without floors."""
        floors = np.array([0.0, *(float(floor or 0) for floor in self.floors)])
        return floors[np.searchsorted(np.array(self.slots, dtype=np.int64), slots, side="right")]

    def find_levels(self, slots: Ints) -> Ints:
        """Return the stage level in each slot."""
        if not self.slots:
            return np.zeros(len(slots), dtype=np.int64)
        return self._select_at(self.stage_levels, slots)

    def find_own_levels(self, version: str, slots: Ints) -> Ints:
        """Return the stage level in each slot; 0 where another version acted."""
        if not self.slots:
            return np.zeros(len(slots), dtype=np.int64)
        own_levels = (
            level if acting == version else 0
            for level, acting in zip(self.stage_levels, self.versions, strict=True)
        )
        return self._select_at(tuple(own_levels), slots)

    def _select_at(self, stage_levels: tuple[int, ...], slots: Ints) -> Ints:
        levels = np.array((0, *stage_levels), dtype=np.int64)
        return levels[np.searchsorted(np.array(self.slots), slots, side="right")]

    @property
    def ever_left_shadow(self) -> bool:
        """Return whether the cell was ever above shadow."""
        return any(self.stage_levels)


@dataclass(frozen=True)
class StageShares:
    """Which buckets each stage level has decided blind or audited.

    A bucket is the number of blind edges that a unit's decider draw reaches, times `audit_sizes`,
    plus the number of audit edges that its audit draw reaches.

    Attributes:
        blind_buckets: below it humans decide blind.
        audited_buckets: of the others, how many audit places are audited.
        audit_sizes: one more than the audit edges of the policy.
        model_shares: probability of the model's arm, NaN where a stage has no two arms.
        reviewed_shares: share of units that are decided blind or audited.
        stage_ids: names, shadow first.
    """

    blind_buckets: Ints
    audited_buckets: Ints
    audit_sizes: Ints
    model_decides: Bools
    blind_edges: Floats = field(default_factory=lambda: np.empty(0))
    audit_edges: Floats = field(default_factory=lambda: np.empty(0))
    model_shares: Floats = field(default_factory=lambda: np.empty(0))
    reviewed_shares: Floats = field(default_factory=lambda: np.empty(0))
    stage_ids: tuple[str, ...] = ()

    def find_reviewed(self, buckets: Ints, stage_levels: Ints) -> Bools:
        """Return which buckets are decided blind or audited at their stage levels."""
        audit_places = buckets % self.audit_sizes[stage_levels]
        is_audited: Bools = audit_places < self.audited_buckets[stage_levels]
        return is_audited | (buckets < self.blind_buckets[stage_levels])


def build_stage_shares(policy: Policy) -> StageShares:
    """Return the policy's shares as arrays over its stage levels."""
    stage_levels = range(len(policy.stage_ids))
    blind_edges, audit_edges = np.array(policy.blind_edges), np.array(policy.audit_edges)
    audit_size = len(audit_edges) + 1
    blind_shares = np.array([1.0, *(stage.blind for stage in policy.stages)])
    audit_shares = np.array([0.0, *(stage.audit or 0.0 for stage in policy.stages)])
    return StageShares(
        blind_buckets=_count_reached(blind_edges, blind_shares, in_shadow=len(blind_edges) + 1)
        * audit_size,
        audited_buckets=_count_reached(audit_edges, audit_shares, in_shadow=0),
        audit_sizes=np.full(len(policy.stage_ids), audit_size, dtype=np.int64),
        model_decides=np.array(
            [r > 0 and policy.get_stage(r).model_decides for r in stage_levels], dtype=bool
        ),
        blind_edges=blind_edges,
        audit_edges=audit_edges,
        model_shares=np.array(
            [np.nan, *(stage.model_share or np.nan for stage in policy.stages)], dtype=np.float64
        ),
        reviewed_shares=np.array([1.0, *(stage.reviewed_share for stage in policy.stages)]),
        stage_ids=policy.stage_ids,
    )


def _count_reached(edges: Floats, values: Floats, in_shadow: int | None = None) -> Ints:
    """Return how many edges each value reaches; the first value may be that of shadow."""
    counts = np.searchsorted(edges, values, side="right").astype(np.int64)
    if in_shadow is not None:
        counts[0] = in_shadow
    return counts


def find_buckets(
    shares: StageShares,
    decider_draws: Floats,
    audit_draws: Floats | None = None,
) -> Ints:
    """Return the bucket of each unit's draws; without draws of audits their first place."""
    buckets = _count_reached(shares.blind_edges, decider_draws) * (len(shares.audit_edges) + 1)
    if audit_draws is None:
        return buckets
    return buckets + _count_reached(shares.audit_edges, audit_draws)


def draw_buckets(shares: StageShares, salt: bytes, audit_salt: bytes, keys: Sequence[str]) -> Ints:
    """Return the bucket of each unit, drawn as far as the shares differ."""
    draws = [
        compute_sampling_values(own_salt, purpose, keys) if len(edges) else np.zeros(len(keys))
        for own_salt, purpose, edges in (
            (salt, SAMPLING_PURPOSE, shares.blind_edges),
            (audit_salt, AUDIT, shares.audit_edges),
        )
    ]
    return find_buckets(shares, *draws)


@dataclass(frozen=True, slots=True)
class FamiliarHistory:
    """The statuses of a version's values in a cell, as recorded.

    `slots[value]` are those in which the value turned: familiar from the first on, not from the
    second, and so on.

    Attributes:
        slots: by value, ascending.
        statuses: the last recorded status of each value.
    """

    slots: Mapping[AttributeValue, tuple[int, ...]] = field(default_factory=dict)
    statuses: Mapping[AttributeValue, str] = field(default_factory=dict)

    def extend(self, slot: int, statuses: Mapping[AttributeValue, str]) -> "FamiliarHistory":
        """Return the history with statuses that hold from `slot` on."""
        slots = dict(self.slots)
        for value, status in statuses.items():
            turns = slots.get(value, ())
            if (len(turns) % 2 == 1) != (status == FAMILIAR):
                slots[value] = (*turns, max((slot, *turns[-1:])))
        return FamiliarHistory(slots, {**self.statuses, **statuses})

    def find_familiar(self, value: AttributeValue, occurred: Ints) -> Bools:
        """Return in which slots a value was familiar."""
        turns = np.array(self.slots.get(value, ()), dtype=np.int64)
        is_odd: Bools = np.searchsorted(turns, occurred, side="right") % 2 == 1
        return is_odd


NO_HISTORY = FamiliarHistory()


class FamiliarHistories(dict[CellVersion, FamiliarHistory]):
    """The histories of all cells and versions; empty for others."""

    def __missing__(self, key: CellVersion) -> FamiliarHistory:
        """Return the empty history."""
        return NO_HISTORY

    def add_event(self, event: LedgerEvent, slot: int) -> None:
        """Add the next event of the ledger, which holds from a slot on."""
        statuses: dict[CellVersion, dict[AttributeValue, str]] = {}
        for key, value, status, _ in event.list_statuses():
            statuses.setdefault(key, {})[value] = status
        for key, cell_statuses in statuses.items():
            self[key] = self[key].extend(slot, cell_statuses)


def find_familiar_units(
    rows: UnitArrays, unit_classes: UnitClasses, history: FamiliarHistory
) -> Bools:
    """Return which units were familiar when they occurred: all values of all their cases.

    Units that were counted without attribute values, under a policy that did not ask for them, are.
    """
    is_familiar = np.ones(len(rows), dtype=bool)
    if not unit_classes.has_values:
        return is_familiar
    for unit_class in np.unique(rows.unit_class).tolist():
        values = frozenset().union(*unit_classes.values_by_class[unit_class])
        if values:
            places = np.flatnonzero(rows.unit_class == unit_class)
            for value in values:
                is_familiar[places] &= history.find_familiar(value, rows.occurred[places])
    return is_familiar
