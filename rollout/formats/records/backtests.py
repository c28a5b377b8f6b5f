"""Backtests: files whose cases were predicted after they were decided."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from rollout.formats.records.questions import PredictedAfterwards
from rollout.tally.frames import INSTANT
from rollout.tally.late_senders import BACKTEST, find_late_senders

if TYPE_CHECKING:
    from rollout.formats.records.file_choices import FileChoices
    from rollout.tally.frames import RecordFrames


def find_backtest_question(
    file: str, records: RecordFrames, choices: FileChoices
) -> PredictedAfterwards | None:
    """Return a question if a file of predictions looks like a backtest, and no option says it."""
    if choices.backtest is not None:
        return None
    late = find_late_senders(records)
    if late is None or late.set_up != BACKTEST:
        return None
    return PredictedAfterwards(file=file, decided=late.decided, late=late.late)


def count_backtest(records: RecordFrames, choices: FileChoices) -> RecordFrames:
    """Return the records; those of a backtest count as predicted when their cases occurred.

    Nobody can tell from files whether the model saw the decisions: who says `--backtest` vouches.
    """
    late = find_late_senders(records) if choices.backtest else None
    if late is None:
        return records
    # without a time of its own a prediction has that of its case
    untimed = pl.lit(None, INSTANT)
    predictions = records.predictions.with_columns(at=untimed, received_at=untimed)
    return replace(records, predictions=predictions, backtest=late.late)
