"""The rows of units and the records that each guard of a cell reads, and its readings.

What guards and gates read besides decisions.

Units of both arms of one version in a cell.

A gain weighs each unit by the probability of the model's arm that it had.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, assert_never

from rollout.engine.evidence.guard_series import (
    compute_detector_series,
    compute_drift_series,
    compute_gain_series,
    compute_share_series,
    compute_slice_series,
)
from rollout.engine.evidence.outcome_buffer import (
    SOURCE_FAULTS,
    UNRECORDED,
    OutcomeUnits,
    build_arms,
    count_staged,
)
from rollout.engine.evidence.site_series import (
    SiteSigns,
    SiteVotes,
    compute_cell_silences,
    compute_episode_series,
)
from rollout.engine.evidence.slots import FIRST_SLOT, find_slot_before
from rollout.kernel.measures import Condition, Watch
from rollout.kernel.policy.cell_evidence import names_slices

if TYPE_CHECKING:
    from datetime import datetime

    from rollout.engine.evidence.evidence_view import EvidenceView
    from rollout.engine.evidence.guard_series import GuardSeries
    from rollout.engine.evidence.stage_history import StageHistory, StageShares
    from rollout.engine.evidence.unit_arrays import BoolArray, IntArray, UnitArrays
    from rollout.kernel.calendar.sites import Cell
    from rollout.kernel.policy.policy import Guard
    from rollout.kernel.statistics.gain import ArmUnits
    from rollout.kernel.units import OutcomeRule


class GuardEvidence:
    """What the guards of a cell read of a view: since the stage's change, or the last alarm.

    Rows that several guards share are selected once.
    """

    def __init__(self, view: EvidenceView) -> None:
        self._view, self._cell, self._state = view, view.cell, view.state
        self._policy, self._shares = view.policy, view.shares
        self._unit_classes, self._stage_history = view.unit_classes, view.stage_history
        self._feeds = view.feeds
        # overrides or not, and since when
        self._detector_rows: dict[tuple[bool, int, int], UnitArrays] = {}

    def compute_series(self, guard: Guard) -> GuardSeries:
        """Return the readings of one guard."""
        if names_slices(guard.condition):
            return self._compute_stream_series(guard)
        match guard.condition.measure.watch:
            case Watch.UNITS | Watch.LABELS | Watch.OUTCOMES:
                return self._compute_quality_series(guard)
            case Watch.RECORDS:
                return self._compute_episode_series(guard)
            case Watch.SIGNS:
                return self._compute_silence_series(guard)
            case Watch.HARMS:
                return self._compute_harm_series(guard)
            case watch:
                assert_never(watch)

    def _compute_harm_series(self, guard: Guard) -> GuardSeries:
        """Return the harms over the guard's span."""
        answer_slots, occurred_slots, is_bad = self._feeds.read_answers(
            self._cell, self._view.version, guard
        )
        is_kept = occurred_slots >= self._view.find_first_slot(self._find_harm_start(guard))
        return compute_share_series(guard, answer_slots[is_kept], is_bad[is_kept], self._policy)

    def _compute_stream_series(self, guard: Guard) -> GuardSeries:
        """Return the readings of a guard on slices or drift.

        Drift reads decided units too: closed ones would be known only after the grace.
        """
        rows, condition = self._select_detector_rows(guard), guard.condition
        if condition.measure.watch is Watch.UNITS and condition.population.attribute:
            return compute_slice_series(guard, condition, rows, self._unit_classes)
        start = self._state.find_detector_start(guard.id)
        before = self._visible_rows
        # by slot: a unit that was decided later was not known when the cell entered its stage
        is_reference = before.slot <= find_slot_before(start.changed_at, self._policy.tick)
        if self._state.attempt > 1:
            is_reference &= before.occurred >= self._view.find_first_slot(start.attempt_since)
        return compute_drift_series(guard, rows, before.select(is_reference), self._unit_classes)

    def _compute_quality_series(self, guard: Guard) -> GuardSeries:
        if guard.condition.population.has_gain:
            return compute_gain_series(guard, self._select_watched_arms(guard, guard.condition))
        rows = self._select_detector_rows(guard)
        return compute_detector_series(guard, rows, self._unit_classes, self._policy)

    def _compute_episode_series(self, guard: Guard) -> GuardSeries:
        measure = guard.condition.measure
        last_alarm = self._state.last_alarms.get(guard.id)
        restarted = None
        if last_alarm is not None and guard.narrows:
            restarted = find_slot_before(last_alarm, self._policy.tick)
        per_day = self._policy.expect.units_per_day
        if measure.is_of_site:
            votes = self._feeds.read_votes(self._cell.site, self._view.version, guard)
            per_day = None if per_day is None else per_day * len(self._policy.windows)
            return votes.compute_series(guard, self._policy, per_day, restarted)
        rows = self._select_closed(audits=measure.reads_audits)
        if measure.reads_audits and per_day is not None:
            per_day *= max(stage.audit or 0.0 for stage in self._policy.stages)
        return compute_episode_series(
            guard,
            rows.slot,
            self._unit_classes.is_missing[rows.unit_class],
            self._policy,
            expected_per_day=per_day,
            restarted=restarted,
        )

    def _compute_silence_series(self, guard: Guard) -> GuardSeries:
        signs, site = (
            self._feeds.read_signs(self._cell.site),
            self._policy.sites_by_id[self._cell.site],
        )
        return compute_cell_silences(
            guard,
            signs,
            site,
            self._policy,
            self._cell.window,
            self._feeds.last_slot,
        )

    def _find_harm_start(self, guard: Guard) -> datetime:
        """Return when harm last narrowed the cell, or it left shadow: no case narrows twice."""
        left_shadow_at = self._state.grants[0].held_evidence_start
        last_alarm = self._state.last_alarms.get(guard.id)
        if last_alarm is None or guard.then == "report":
            return left_shadow_at
        return max(left_shadow_at, last_alarm)

    def _select_assisted(self, rows: UnitArrays) -> UnitArrays:
        """Return the units whose reviewer saw the proposal, by stage and bucket."""
        if self._unit_classes.has_values:
            rows = rows.select(self._view.find_familiar(rows))
        stage_levels = self._stage_history.find_levels(rows.occurred)
        is_confirmed = (stage_levels > 0) & ~self._shares.model_decides[stage_levels]
        return rows.select(
            is_confirmed
            & (
                self._view.find_buckets_at(rows, stage_levels)
                >= self._shares.blind_buckets[stage_levels]
            )
        )

    def _select_watched_arms(self, guard: Guard, condition: Condition) -> ArmUnits:
        """Return both arms since the stage's change and the guard's last alarm."""
        first_slot = self._view.find_first_slot(self._state.changed_at)
        last_alarm, after_slot = self._state.last_alarms.get(guard.id), FIRST_SLOT
        if last_alarm is not None:
            after_slot = find_slot_before(last_alarm, self._policy.tick)
        return self._view.arm_reader.read_watched(
            condition.population.outcome, first_slot, after_slot
        )

    def _select_detector_rows(self, guard: Guard) -> UnitArrays:
        """Return a guard's rows since the stage's change and its last alarm."""
        reads_assisted = guard.condition.measure.reads_assisted
        has_episodes = names_slices(guard.condition)  # that last until recovery, unless they narrow
        find_start = self._state.find_detector_start
        since = find_start(guard.id).changed_at if has_episodes else self._state.changed_at
        last_alarm, after_slot = self._state.last_alarms.get(guard.id), FIRST_SLOT
        if last_alarm is not None and (guard.narrows or not has_episodes):
            after_slot = find_slot_before(last_alarm, self._policy.tick)
        first_slot = self._view.find_first_slot(since)
        key = (reads_assisted, first_slot, after_slot)
        if key not in self._detector_rows:
            rows = self._view.rows.assisted if reads_assisted else self._view.rows.guard
            rows = rows.select_since(first_slot, after_slot)
            select = self._select_assisted if reads_assisted else self._view.select_visible
            self._detector_rows[key] = select(rows)
        return self._detector_rows[key]

    def _select_closed(self, *, audits: bool) -> UnitArrays:
        """Return the closed units since the stage's change, or the audits among them."""
        since = self._view.find_first_slot(self._state.changed_at)
        rows = self._view.select_visible(self._view.rows.gate.select_since(since))
        is_kept = self._unit_classes.is_whole_unit[rows.unit_class]
        if audits:
            stage_levels = self._stage_history.find_levels(rows.occurred)
            is_kept &= self._shares.model_decides[stage_levels] & (
                self._view.find_buckets_at(rows, stage_levels)
                >= self._shares.blind_buckets[stage_levels]
            )
        return rows.select(is_kept)

    @cached_property
    def _visible_rows(self) -> UnitArrays:
        return self._view.select_visible(self._view.rows.guard)


class GuardFeeds(Protocol):
    """Records that guards read besides decisions: answers, arrivals and harm."""

    def read_answers(
        self, cell: Cell, version: str, guard: Guard
    ) -> tuple[IntArray, IntArray, BoolArray]:
        """Return slot, occurred slot and badness of a guard's answers.

        For guards of harm these are outcomes instead.
        """

    def read_votes(self, site: str, version: str, guard: Guard) -> SiteVotes:
        """Return a site's answers, one per unit and minute."""

    def read_outcomes(self, cell: Cell, version: str, outcome: OutcomeRule) -> OutcomeUnits:
        """Return a version's units in a cell with the value of an outcome."""

    def read_signs(self, site: str) -> SiteSigns:
        """Return the instants of the site's cases and signs of life."""

    @property
    def last_slot(self) -> int:
        """Return the last slot in which any site sent anything."""


@dataclass(frozen=True)
class ArmReader:
    """Reads a version's units of both arms in a cell."""

    cell: Cell
    version: str
    stage_history: StageHistory
    shares: StageShares
    feeds: GuardFeeds

    def read_units(self, outcome: OutcomeRule, arm: str, first_slot: int) -> ArmUnits:
        """Return the units as evidence, by slots of occurrence."""
        rows = self.feeds.read_outcomes(self.cell, self.version, outcome).drop_unsourced_values()
        return self._build_arms(rows.select(rows.occurred >= first_slot), arm)

    def read_watched(self, outcome: OutcomeRule, first_slot: int, after_slot: int) -> ArmUnits:
        """Return the units for guards, by slots of occurrence and of counting.

        Values of no source of evidence are among them: they may narrow.
        """
        rows = self.feeds.read_outcomes(self.cell, self.version, outcome)
        is_watched = (rows.occurred >= first_slot) & (rows.slot > after_slot)
        return self._build_arms(rows.select(is_watched), "")

    def _build_arms(self, rows: OutcomeUnits, arm: str) -> ArmUnits:
        stage_levels = self.stage_history.find_own_levels(self.version, rows.occurred)
        return build_arms(rows, stage_levels, self.shares, arm)

    def count_staged(self, outcome: OutcomeRule, arm: str) -> int:
        """Return how many units were at stages with two arms, whether or not in one."""
        rows = self.feeds.read_outcomes(self.cell, self.version, outcome)
        stage_levels = self.stage_history.find_own_levels(self.version, rows.occurred)
        return count_staged(stage_levels, self.shares, arm)

    def count_source_faults(self, outcome: OutcomeRule, arm: str) -> dict[str, int]:
        """Return by reason the units at stages with two arms whose values don't count."""
        rows = self.feeds.read_outcomes(self.cell, self.version, outcome)
        numbers = enumerate(SOURCE_FAULTS[1:], 1)
        parts = {fault: rows.select(rows.source_fault == number) for number, fault in numbers}
        find_levels = self.stage_history.find_own_levels
        counts = {
            fault: count_staged(find_levels(self.version, part.occurred), self.shares, arm)
            for fault, part in parts.items()
        }
        return {fault: count for fault, count in counts.items() if count}

    def has_recorded_arms(self, outcome: OutcomeRule) -> bool:
        """Return whether the records say which arm a unit was in; without, the stage says it."""
        rows = self.feeds.read_outcomes(self.cell, self.version, outcome)
        return not bool((rows.drawn_arm == UNRECORDED).any())
