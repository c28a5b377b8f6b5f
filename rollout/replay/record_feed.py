"""What a history holds for guards beside verdicts: answers, harm, and when a site was heard."""

from functools import cached_property

import numpy as np
import polars as pl

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Guard, Policy
from rollout.tally.case_placement import History
from rollout.tally.frames import VALUE, Records
from rollout.tally.slots import micros
from rollout.tally.unit_arrays import Bools, Ints

Answers = tuple[Ints, Ints, Bools]


class HistoryFeeds:
    """Feeds of a recorded history, each frame made when a guard first asks for it."""

    def __init__(self, records: Records, history: History, policy: Policy) -> None:
        self._records = records
        self._cases = history.cases.select("case_key", "site", "window", "t")
        self._tick = micros(policy.tick)
        self._policy = policy
        self._parts: dict[str, dict[tuple[object, ...], Answers]] = {}

    def answers(self, cell: Cell, version: str, guard: Guard) -> Answers:
        """Return (slot, occurred, bad) of each answer, or harm, that the guard looks at."""
        answers_by_cell = self._parts.get(guard.id)
        if answers_by_cell is None:
            answers_by_cell = self._parts[guard.id] = self._split(guard)
        key = (cell.site, cell.window, version)
        if guard.condition.measure == "harm":
            key = (cell.site, cell.window, "")
        empty = np.empty(0, dtype=np.int64)
        return answers_by_cell.get(key, (empty, empty, np.empty(0, dtype=bool)))

    def _split(self, guard: Guard) -> dict[tuple[object, ...], Answers]:
        parts = self.seen(guard).partition_by("site", "window", "version", as_dict=True)
        return {key: _arrays(part) for key, part in parts.items()}

    def seen(self, guard: Guard) -> pl.DataFrame:
        """Return what a guard looks at, a row each: where, version, case, slot, occurred, bad.

        Harm is of no version: its version is empty. Ordered by slot.
        """
        frame = self._harms(guard) if guard.condition.measure == "harm" else self._said(guard)
        occurred = pl.col("t") // self._tick
        known_slot = -(-pl.coalesce("at", "t") // self._tick)
        answers = frame.join(self._cases, on="case_key").with_columns(
            slot=pl.max_horizontal(known_slot, occurred + 1), occurred=occurred
        )
        columns = ("site", "window", "version", "case_key", "slot", "occurred", "bad")
        return answers.select(columns).sort("slot", maintain_order=True)

    def _said(self, guard: Guard) -> pl.DataFrame:
        """Return each prediction with whether it speaks against the guard's line."""
        threshold = pl.lit(guard.condition.line)
        frame = self._records.predictions.with_columns(at=pl.col("at").dt.epoch("us"))
        if guard.condition.measure == "latency_p95":
            timed_predictions = frame.filter(pl.col("latency_ms").is_not_null())
            return timed_predictions.with_columns(bad=pl.col("latency_ms") > threshold * 1000)
        is_failed = [pl.col(VALUE + lever.id).is_null() for lever in self._policy.levers]
        return frame.with_columns(bad=pl.any_horizontal(is_failed))

    def _harms(self, guard: Guard) -> pl.DataFrame:
        label = guard.condition.label
        has_harm = pl.col("harm").is_not_null() if label is None else pl.col("harm") == label
        return self._records.outcomes.filter(has_harm).with_columns(
            at=pl.col("at").dt.epoch("us"), bad=pl.lit(value=True), version=pl.lit("")
        )

    def heard(self, site: str) -> Ints:
        """Return the slots in which anything came from the site, ascending, each once."""
        return self.heard_at.get(site, np.empty(0, dtype=np.int64))

    @cached_property
    def until(self) -> int:
        """Return the last slot in which anything came from anywhere."""
        return max((int(slots[-1]) for slots in self.heard_at.values() if len(slots)), default=0)

    @cached_property
    def heard_at(self) -> dict[str, Ints]:
        """Return by site the slots in which anything came from it, ascending, each once."""
        record_frames = [
            frame.select("case_key", at=pl.col("at").dt.epoch("us"))
            for frame in (
                self._records.predictions,
                self._records.decisions,
                self._records.outcomes,
            )
        ]
        case_frame = self._cases.select("case_key", at="t")
        frames = pl.concat([case_frame, *record_frames]).join(self._cases, on="case_key")
        slots = frames.select("site", slot=-(-pl.coalesce("at", "t") // self._tick)).unique()
        parts = slots.sort("slot").partition_by("site", as_dict=True)
        return {str(site): part["slot"].to_numpy() for (site,), part in parts.items()}


def _arrays(part: pl.DataFrame) -> Answers:
    return (
        part["slot"].to_numpy().astype(np.int64),
        part["occurred"].to_numpy().astype(np.int64),
        part["bad"].to_numpy().astype(bool),
    )
