"""What the engine is shown of one version in one cell, at any slot.

A sight is made for one state and one timeline; when either changes a new one is made. It reads
the same counts at a slot whether every slot is looked at or only the ones that matter.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from math import log
from typing import Protocol

import numpy as np

from rollout.core.calendar.sites import Cell
from rollout.core.policy.cell_evidence import Known
from rollout.core.policy.gates import risk_of, scaled_levels, scaled_line
from rollout.core.policy.measures import DETECTED, Condition
from rollout.core.policy.policy import Guard, Policy
from rollout.core.scope.scope import CellState
from rollout.core.statistics.gate_thresholds import gate_line, log_e_cost_path, log_e_parity_path
from rollout.tally.count_windows import Span
from rollout.tally.guard_series import GuardPath, detector_path, share_path, silence_path
from rollout.tally.slots import slot_after, slot_before
from rollout.tally.stage_history import Shares, Timeline
from rollout.tally.unit_arrays import Bools, CellRows, Ints, Kinds, Rows


class Feeds(Protocol):
    """Records that guards look at beside verdicts: answers, silence and harm."""

    def answers(self, cell: Cell, version: str, guard: Guard) -> tuple[Ints, Ints, Bools]:
        """Return (slot, occurred, bad) of each answer, or harm, that the guard looks at."""
        ...

    def heard(self, site: str) -> Ints:
        """Return the slots in which anything came from the site."""
        ...

    @property
    def until(self) -> int:
        """Return the last slot in which anything came from anywhere."""
        ...


_WITH_NOTHING = np.array([-(2**62)])  # before all slots: a gate is read there too


@dataclass(frozen=True)
class GatePath:
    """Whether a gate is met, and has turned, from each slot until the next.

    Most gates that are looked at have no proposal open: `turned` is read when it is asked for.
    """

    slots: Ints
    met: Bools
    read_turned: Callable[[], Bools]

    @cached_property
    def turned(self) -> Bools:
        """Return where the gate has turned."""
        return self.read_turned()

    def next(self, which: Bools, slot: int) -> int | None:
        """Return the first slot from `slot` on at which `which` holds, None if there is none."""
        position = int(np.searchsorted(self.slots, slot, side="right")) - 1
        if position >= 0 and which[position]:
            return slot
        later_positions = np.flatnonzero(which[position + 1 :])
        return int(self.slots[position + 1 + later_positions[0]]) if len(later_positions) else None


@dataclass(frozen=True)
class Sight:
    """One version in one cell under one state.

    Attributes:
        cell, version, rows, kinds, policy: what is looked at, by which rules.
        state: grants, attempt and when the stage last changed.
        first_seen: when the version was first seen; a state that never changed begins there.
        timeline: the cell's stages, which decided what was shown.
        shares, band_of: the policy's shares, and the band of each row's draw.
        feeds: what guards look at beside verdicts.
    """

    cell: Cell
    version: str
    rows: CellRows
    kinds: Kinds
    policy: Policy
    state: CellState
    first_seen: datetime
    timeline: Timeline
    shares: Shares
    band_of: Callable[[Rows], Ints]
    feeds: Feeds

    def known(self, slot: int) -> Known:
        """Return everything that a decision about the cell looks at."""
        return Known(
            attempt=self.attempt.at(slot),
            entered=self.entered.at(slot),
            spans={stage: window.at(slot) for stage, window in self.spans.items()},
            guards={
                guard_id: series.at(slot, self.policy.tick)
                for guard_id, series in self.guard_paths.items()
            },
        )

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """Return every condition that some gate of the cell asks for."""
        stage_levels = range(1, len(self.policy.rungs))
        return tuple(
            dict.fromkeys(
                c for level in stage_levels for c in self.policy.required(level, self.cell)
            )
        )

    def _since(self, at: datetime) -> int:
        """Return the first slot whose units count from `at` on."""
        tick = self.policy.tick
        return slot_before(at, tick) if at == self.first_seen else slot_after(at, tick)

    @cached_property
    def _gate(self) -> Rows:
        """Return the gate rows of this attempt that the engine was shown."""
        rows = self._shown(self.rows.gate)
        if self.state.attempt == 1:
            return rows
        return rows.where(rows.occurred >= self._since(self.state.attempt_since))

    def _shown(self, rows: Rows) -> Rows:
        if not self.timeline.ever_left_shadow:
            return rows
        return rows.where(self.band_of(rows) < self.shares.seen[self.timeline.at(rows.occurred)])

    def _span(self, since: datetime) -> Span:
        rows = self._gate
        is_kept = rows.where(rows.occurred >= self._since(since))
        return Span(is_kept, self.kinds, self.conditions)

    @cached_property
    def attempt(self) -> Span:
        """Return all evidence of the attempt."""
        return Span(self._gate, self.kinds, self.conditions)

    @cached_property
    def entered(self) -> Span:
        """Return the evidence since the cell entered its stage."""
        return self._span(self.state.changed_at)

    @cached_property
    def spans(self) -> dict[str, Span]:
        """Return the evidence within the span of each grant."""
        return {grant.stage: self._span(grant.since) for grant in self.state.grants}

    def gate_path(self, rung: int, since: Span) -> GatePath:
        """Return where the gate to `rung` is met, its minimum counted in `since`."""
        key = (rung, since is self.attempt)
        if key not in self._paths:
            self._paths[key] = self._gate_path(rung, since)
        return self._paths[key]

    @cached_property
    def _paths(self) -> dict[tuple[int, bool | None], GatePath]:
        return {}

    def _gate_path(self, rung: int, since: Span) -> GatePath:
        gate = self.policy.gate(rung, self.cell)
        assert gate is not None  # noqa: S101 - the caller asks only for gates that exist
        slots = np.union1d(_WITH_NOTHING, np.union1d(self.attempt.slots, since.slots))
        attempt_positions, minimum_positions = self.attempt.places(slots), since.places(slots)
        risk = risk_of(gate, self.state.attempt)
        minimum = gate.minimum
        judged_counts = since.closed[minimum_positions] - since.missing[minimum_positions]
        holds = (judged_counts >= minimum.units) & (
            since.reviewers[minimum_positions] >= minimum.reviewers
        )
        holds &= since.days[minimum_positions] >= minimum.days
        closed_counts, missing_counts = (
            self.attempt.closed[attempt_positions],
            self.attempt.missing[attempt_positions],
        )
        holds &= missing_counts <= self.policy.evidence.missing_at_most * closed_counts
        conditions = self.policy.required(rung, self.cell)
        is_met = self._all_reach(conditions, self.attempt, attempt_positions, holds, risk)
        compute_not_turned = partial(
            self._all_reach, conditions, self.attempt, attempt_positions, holds, 1.0
        )
        return GatePath(slots, is_met, lambda: ~compute_not_turned())

    def _all_reach(
        self, asked: Iterable[Condition], span: Span, places: Ints, holds: Bools, risk: float
    ) -> Bools:
        """Return where the gate's minimum holds and every condition reaches its line."""
        result = holds.copy()
        for condition in asked:
            if not result.any():
                break
            result[result] = self._reaches(condition, span.counts(condition)[places[result]], risk)
        return result

    def renewal_path(self, rung: int) -> GatePath:
        """Return where the grant of `rung` may be renewed on its own span's evidence."""
        if (rung, None) not in self._paths:
            self._paths[rung, None] = self._renewal_path(rung)
        return self._paths[rung, None]

    def _renewal_path(self, rung: int) -> GatePath:
        gate, window = self.policy.gate(rung, self.cell), self.spans[self.policy.rungs[rung]]
        assert gate is not None  # noqa: S101 - a grant stands on a gate
        slots = np.union1d(_WITH_NOTHING, window.slots)
        positions = window.places(slots)
        judged_counts = window.closed[positions] - window.missing[positions]
        is_met = (judged_counts >= max(gate.minimum.units, 1)) & (
            window.reviewers[positions] >= gate.minimum.reviewers
        )
        is_met = self._all_reach(
            self.policy.required(rung, self.cell), window, positions, is_met, 1.0
        )
        return GatePath(slots, is_met, lambda: ~is_met)

    def _reaches(self, condition: Condition, counts: Ints, risk: float) -> Bools:
        """Return whether log E reaches ln(1/risk) at each row of cumulated counts."""
        if condition.measure == "cost":
            levels, threshold = scaled_levels(self.policy), scaled_line(condition, self.policy)
            return log_e_cost_path(counts, levels=levels, at_most=threshold) >= -log(risk)
        if condition.measure == "parity":
            return log_e_parity_path(counts, margin=-condition.line) >= -log(risk)
        return gate_line(condition.line, risk).met_at(counts[:, 0], counts[:, 1])

    @cached_property
    def guard_paths(self) -> dict[str, GuardPath]:
        """Return what each guard reads; none where the version holds nothing."""
        if not self.state.grants:
            return {}
        guards = self.policy.guards_of(self.cell)
        return {guard.id: self._guard_path(guard) for guard in guards}

    def _guard_path(self, guard: Guard) -> GuardPath:
        measure = guard.condition.measure
        if measure in DETECTED:
            rows = self._assisted if measure == "override" else self._shown(self.rows.guard)
            return detector_path(guard, self._since_change(rows, guard), self.kinds, self.policy)
        if measure == "heartbeat":
            slots_with_records = self.feeds.heard(self.cell.site)
            return silence_path(guard, slots_with_records, self.feeds.until, self.policy)
        if measure in {"missing", "unaudited"}:
            rows = self._closed(measure)
            return share_path(guard, rows.slot, self.kinds.missing[rows.kind], self.policy)
        answer_slots, occurred_slots, is_bad = self.feeds.answers(self.cell, self.version, guard)
        since = self._harm_since(guard) if measure == "harm" else self.state.changed_at
        is_kept = occurred_slots >= self._since(since)
        return share_path(guard, answer_slots[is_kept], is_bad[is_kept], self.policy)

    def _harm_since(self, guard: Guard) -> datetime:
        """Return when the cell left shadow, or harm last narrowed it: no case narrows twice."""
        left_shadow_at, last_alarm = (
            self.state.grants[0].held_since,
            self.state.alarms.get(guard.id),
        )
        return (
            left_shadow_at
            if last_alarm is None or guard.then == "report"
            else max(left_shadow_at, last_alarm)
        )

    @property
    def _assisted(self) -> Rows:
        """Return the units of which a person saw the proposal, by stage and draw."""
        rows = self.rows.assisted
        stage_levels = self.timeline.at(rows.occurred)
        is_confirmed = (stage_levels > 0) & ~self.shares.decides[stage_levels]
        return rows.where(is_confirmed & (self.band_of(rows) >= self.shares.blind[stage_levels]))

    def _since_change(self, rows: Rows, guard: Guard) -> Rows:
        """Return the rows since the stage changed, and since the guard last gave alarm."""
        is_kept = rows.occurred >= self._since(self.state.changed_at)
        last_alarm = self.state.alarms.get(guard.id)
        if last_alarm is not None:
            is_kept &= rows.slot > slot_before(last_alarm, self.policy.tick)
        return rows.where(is_kept)

    def _closed(self, measure: str) -> Rows:
        """Return the closed units since the stage changed; of audits alone for `unaudited`."""
        rows = self._shown(self.rows.gate)
        is_kept = self.kinds.whole[rows.kind]
        is_kept &= rows.occurred >= self._since(self.state.changed_at)
        if measure == "unaudited":
            stage_levels = self.timeline.at(rows.occurred)
            is_kept &= self.shares.decides[stage_levels] & (
                self.band_of(rows) >= self.shares.blind[stage_levels]
            )
        return rows.where(is_kept)
