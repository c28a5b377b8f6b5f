"""What senders look like whose cases or predictions come after the first decision."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING, Final

from rollout.core.calendar.instants import format_duration
from rollout.core.late_modules import LateModule

if TYPE_CHECKING:
    import polars as pl

    from rollout.tally.frames import RecordFrames
else:
    pl = LateModule("polars")

MIN_LATE: Final = 0.01  # share of decided predictions below which nothing is proposed
LAST_DELAY: Final = 0.999
RACE, FAILED_NIGHT = timedelta(minutes=5), timedelta(hours=24)
NIGHT_DELAY: Final = timedelta(hours=30)  # a night's round, with hours to spare
RACES = "services that race each other by seconds"
NIGHTS = "a device or a batch that sends once a day"
OFFLINE = "devices that were offline for days"
BACKTEST = "a backtest: all cases were predicted after the last decision"


@dataclass(frozen=True, slots=True)
class LateSenders:
    """Decided predictions that came after their first decision, or whose cases did.

    Attributes:
        late, decided: predictions; those of cases with a decision.
        set_up: what the delays look like.
        within_seconds: the time after a case that would have covered them, with room for a failed
            night; None for a backtest, which no time covers.
    """

    late: int
    decided: int
    set_up: str
    within_seconds: int | None

    @property
    def policy_lines(self) -> tuple[str, ...]:
        """Return the two lines under `evidence` that vouch for the sender; () for a backtest."""
        if self.within_seconds is None:
            return ()
        within = format_duration(timedelta(seconds=self.within_seconds))
        return (f"grace: {within}", f"sources: {{vouched: [{{account: NAME, within: {within}}}]}}")


def find_late_senders(records: RecordFrames) -> LateSenders | None:
    """Return what late cases and predictions look like; None if hardly any came late."""
    decided_at = pl.coalesce(pl.min_horizontal("at", "received_at"))
    decisions = records.decisions.select("case_key", decided=decided_at).drop_nulls()
    first_decisions = decisions.group_by("case_key").agg(pl.col("decided").min())
    cases = records.cases.select("case_key", "occurred_at", case_at="received_at")
    sent_at = pl.max_horizontal("case_at", pl.coalesce("received_at", "at"))
    sent = (
        records.predictions.join(cases, on="case_key")
        .join(first_decisions, on="case_key")
        .select("occurred_at", "decided", sent=sent_at)
        .drop_nulls()
    )
    late = sent.filter(pl.col("sent") > pl.col("decided"))
    if late.height <= MIN_LATE * sent.height:
        return None
    delays = late.select(
        after_case=(pl.col("sent") - pl.col("occurred_at")).dt.total_seconds(),
        after_decision=(pl.col("sent") - pl.col("decided")).dt.total_seconds(),
    )
    after_case, after_decision = (
        timedelta(seconds=delays[name].quantile(LAST_DELAY, interpolation="higher") or 0)
        for name in delays.columns
    )
    last_decided, first_sent = sent["decided"].max(), sent["sent"].min()
    if first_sent is not None and first_sent > last_decided:  # type: ignore[operator]
        return LateSenders(late.height, sent.height, BACKTEST, None)
    if after_decision <= RACE:
        set_up, within = RACES, max(RACE, _round_up(after_case))
    else:
        set_up = NIGHTS if after_case <= NIGHT_DELAY else OFFLINE
        within = _round_up(after_case) + FAILED_NIGHT
    return LateSenders(late.height, sent.height, set_up, int(within.total_seconds()))


def _round_up(delay: timedelta) -> timedelta:
    """Return a delay in whole hours, one under five minutes as it is."""
    return delay if delay <= RACE else timedelta(hours=ceil(delay / timedelta(hours=1)))
