"""Guard inputs from a history beside decisions: predictions, harm, signs of life."""

from functools import cached_property

import numpy as np
import polars as pl

from rollout.engine.evidence.case_placement import PICK, PlacedHistory
from rollout.engine.evidence.frames import VALUE_PREFIX, RecordFrames
from rollout.engine.evidence.outcome_buffer import OutcomeUnits, build_empty_outcomes
from rollout.engine.evidence.outcome_resolution import (
    list_harms,
    resolve_outcome_units,
    to_outcome_units,
)
from rollout.engine.evidence.site_series import (
    EMPTY_VOTES,
    NO_SIGNS,
    AnswerRecords,
    SiteSigns,
    SiteVotes,
    build_case_signs,
)
from rollout.engine.evidence.stage_history import build_stage_shares, find_buckets
from rollout.kernel.arrays import Bools, Ints
from rollout.kernel.calendar.instants import Cell, count_micros
from rollout.kernel.measures import Watch
from rollout.kernel.policy.policy import Guard, Policy
from rollout.kernel.statistics.sampling import compute_sampling_values
from rollout.kernel.units import OutcomeRule

GuardAnswers = tuple[Ints, Ints, Bools]
EMPTY_OUTCOMES = build_empty_outcomes()
STAGE = "stage"  # purpose of the sampling values that divide units at a stage
MINUTE_MICROS = 60_000_000
ANSWER_COLUMNS = (
    "site",
    "window",
    "version",
    "case_key",
    "slot",
    "occurred",
    "minute",
    "unit",
    "draw",
    "bad",
)


class HistoryFeeds:
    """Guard inputs of a recorded history, computed at first use."""

    def __init__(self, records: RecordFrames, history: PlacedHistory, policy: Policy) -> None:
        self._records = records
        self._salt = history.salt
        self._cases = history.cases.select(
            "case_key", "site", "window", "occurred_us", "effective_us", "unit"
        )
        self._tick = count_micros(policy.tick)
        self._policy = policy
        self._answers_by_guard: dict[str, dict[tuple[object, ...], GuardAnswers]] = {}
        self._history = history
        self._outcomes_by_id: dict[str, dict[tuple[object, ...], OutcomeUnits]] = {}
        self._votes_by_guard: dict[str, dict[tuple[object, ...], SiteVotes]] = {}

    def read_votes(self, site: str, version: str, guard: Guard) -> SiteVotes:
        """Return a site's answers, one per unit and minute."""
        votes = self._votes_by_guard.get(guard.id)
        if votes is None:
            parts = self.list_answers(guard).partition_by(
                "site", "version", as_dict=True, include_key=False
            )
            votes = self._votes_by_guard[guard.id] = {
                key: SiteVotes(
                    *AnswerRecords(
                        part["slot"].to_numpy().astype(np.int64),
                        part["minute"].to_numpy().astype(np.int64),
                        part["unit"].hash().to_numpy(),
                        part["draw"].to_numpy(),
                        part["bad"].to_numpy().astype(bool),
                    ).select_votes()
                )
                for key, part in parts.items()
            }
        return votes.get((site, version), EMPTY_VOTES)

    def read_answers(self, cell: Cell, version: str, guard: Guard) -> GuardAnswers:
        """Return (slot, occurred, bad) of the guard's predictions or harms."""
        answers_by_cell = self._answers_by_guard.get(guard.id)
        if answers_by_cell is None:
            answers_by_cell = self._answers_by_guard[guard.id] = self._split_by_cell(guard)
        key = (cell.site, cell.window, version if guard.condition.measure.has_version else "")
        empty = np.empty(0, dtype=np.int64)
        return answers_by_cell.get(key, (empty, empty, np.empty(0, dtype=bool)))

    def read_outcomes(self, cell: Cell, version: str, outcome: OutcomeRule) -> OutcomeUnits:
        """Return a version's units in a cell with the value of an outcome."""
        units = self._outcomes_by_id.get(outcome.id)
        if units is None:
            parts = self._list_outcomes(outcome).partition_by(
                "site", "window", "version", as_dict=True, include_key=False
            )
            units = self._outcomes_by_id[outcome.id] = {
                key: to_outcome_units(part) for key, part in parts.items()
            }
        return units.get((cell.site, cell.window, version), EMPTY_OUTCOMES)

    def _list_outcomes(self, outcome: OutcomeRule) -> pl.DataFrame:
        units = resolve_outcome_units(self._records, self._history, self._policy, outcome)
        values = compute_sampling_values(self._salt, STAGE, units["unit"])
        buckets = find_buckets(build_stage_shares(self._policy), values)
        return units.with_columns(bucket=pl.Series(buckets, dtype=pl.Int64))

    def _split_by_cell(self, guard: Guard) -> dict[tuple[object, ...], GuardAnswers]:
        parts = self.list_answers(guard).partition_by(
            "site", "window", "version", as_dict=True, include_key=False
        )
        return {
            key: (
                part["slot"].to_numpy().astype(np.int64),
                part["occurred"].to_numpy().astype(np.int64),
                part["bad"].to_numpy().astype(bool),
            )
            for key, part in parts.items()
        }

    def list_answers(self, guard: Guard) -> pl.DataFrame:
        """Return a guard's inputs: cell, version, case, slot, occurred, minute, unit, draw, bad.

        Harm has no version: it is "". Ordered by slot.
        """
        is_harm = guard.condition.measure.watch is Watch.HARMS
        frame = self._list_harms(guard) if is_harm else self._list_predictions(guard)
        occurred = pl.col("effective_us" if is_harm else "occurred_us") // self._tick
        known_slot = -(-pl.coalesce("at", "occurred_us") // self._tick)
        answers = frame.join(self._cases, on="case_key").with_columns(
            slot=pl.max_horizontal(known_slot, occurred + 1),
            occurred=occurred,
            minute=pl.col("occurred_us") // MINUTE_MICROS,
        )
        if guard.condition.measure.is_of_site:
            answers = answers.with_columns(
                draw=pl.Series(
                    compute_sampling_values(self._salt, PICK, answers["case_key"]),
                    dtype=pl.Float64,
                )
            )
        if is_harm:  # several reports of a case count once a slot
            answers = answers.unique(["case_key", "slot"], keep="first", maintain_order=True)
        return answers.select(
            pl.col(column for column in ANSWER_COLUMNS if column in answers.columns)
        ).sort("slot", maintain_order=True)

    def _list_predictions(self, guard: Guard) -> pl.DataFrame:
        """Return each prediction with whether it counts against the guard.

        It counts when it became known: its sender could date it back behind the guard's span.
        """
        frame = self._records.predictions.with_columns(
            at=pl.max_horizontal(pl.col("at", "known_at").dt.epoch("us"))
        )
        if guard.condition.measure.reads_latency:
            bad = pl.col("latency_ms") > pl.lit(guard.condition.threshold) * 1000
            return frame.drop_nulls("latency_ms").with_columns(bad=bad)
        is_failed = [pl.col(VALUE_PREFIX + lever.id).is_null() for lever in self._policy.levers]
        return frame.with_columns(bad=pl.any_horizontal(is_failed))

    def _list_harms(self, guard: Guard) -> pl.DataFrame:
        label = guard.condition.label
        has_harm = pl.col("harm").is_not_null() if label is None else pl.col("harm") == label
        return (
            list_harms(self._records, self._cases)
            .filter(has_harm)
            .with_columns(
                at=pl.col("at").dt.epoch("us"), bad=pl.lit(value=True), version=pl.lit("")
            )
        )

    def read_signs(self, site: str) -> SiteSigns:
        """Return the instants of the site's cases; records hold no other signs of life."""
        return self._signs_by_site.get(site, NO_SIGNS)

    @cached_property
    def _signs_by_site(self) -> dict[str, SiteSigns]:
        parts = self._cases.partition_by("site", as_dict=True, include_key=False)
        return {
            str(site): build_case_signs(
                part["occurred_us"].to_numpy(), part["unit"].hash().to_numpy()
            )
            for (site,), part in parts.items()
        }

    def list_cases(self) -> pl.DataFrame:
        """Return case_key, site, window, times and unit of each placed case."""
        return self._cases

    @cached_property
    def last_slot(self) -> int:
        """Return the last slot with any record."""
        return max(
            (int(slots[-1]) for slots in self.slots_by_site.values() if len(slots)), default=0
        )

    @cached_property
    def slots_by_site(self) -> dict[str, Ints]:
        """Return by site the slots with records, ascending, distinct."""
        record_frames = [
            frame.select("case_key", at=pl.col("at").dt.epoch("us"))
            for frame in (
                self._records.predictions,
                self._records.decisions,
                self._records.outcomes,
            )
        ]
        case_frame = self._cases.select("case_key", at="occurred_us")
        slot = -(-pl.coalesce("at", "occurred_us") // self._tick)
        parts = (
            pl.concat([case_frame, *record_frames])
            .join(self._cases, on="case_key")
            .select("site", slot=slot)
            .unique()
            .sort("slot")
            .partition_by("site", as_dict=True, include_key=False)
        )
        return {str(site): part["slot"].to_numpy() for (site,), part in parts.items()}
