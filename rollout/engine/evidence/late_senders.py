"""What senders look like whose cases or predictions come after the first decision."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from statistics import median
from typing import TYPE_CHECKING, Final

from rollout.kernel.arrays import pl
from rollout.kernel.calendar.instants import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rollout.engine.evidence.frames import RecordFrames

MIN_LATE: Final = 0.01  # share of decided predictions below which nothing is proposed
LAST_DELAY: Final = 0.999
RACE, FAILED_NIGHT = timedelta(minutes=5), timedelta(hours=24)
NIGHT_DELAY: Final = timedelta(hours=30)  # a night's round, with hours to spare
SHORTEST_SPELL: Final = timedelta(days=2)
LONGEST_OFFLINE: Final = timedelta(days=30)  # most cases later than this were predicted afterwards
RACES = "services that race each other by seconds, or desks whose clocks differ"
NIGHTS = "a device or a batch that sends once a day"
OFFLINE = "devices that were offline for days"
BACKTEST = "a backtest: cases predicted long after they were decided"
CLOCKS = "decisions dated before their cases, as of another time zone or of a clock that is wrong"


@dataclass(frozen=True, slots=True)
class LateSenders:
    """Decided predictions that came after their first decision, or whose cases did.

    Attributes:
        late, decided: predictions; those of cases with a decision.
        set_up: what the delays look like.
        within_seconds: the time after a case that would have covered them, with room for a failed
            night; None for a backtest and for wrong clocks, which no time covers.
        account: who sent them; "" where files don't say.
    """

    late: int
    decided: int
    set_up: str
    within_seconds: int | None
    account: str = ""

    @property
    def policy_lines(self) -> tuple[str, ...]:
        """Return the two lines under `evidence` that vouch for the sender; () if none help."""
        if self.within_seconds is None:
            return ()
        within = format_duration(timedelta(seconds=self.within_seconds))
        sender = f"account: {self.account or 'NAME'}"
        return (f"grace: {within}", f"sources: {{vouched: [{{{sender}, within: {within}}}]}}")


@dataclass(frozen=True, slots=True)
class SilentSpell:
    """A time in which no case of a site was received, though people decided some.

    Attributes:
        site, since, until: of the site's last case before it, and of the first one after it.
        missing: cases of that time that came after they were decided.
        within_seconds: the time after a case that would have covered them, with room for a failed
            night.
    """

    site: str
    since: datetime
    until: datetime
    missing: int
    within_seconds: int


def find_silent_spells(sent: pl.DataFrame) -> tuple[SilentSpell, ...]:
    """Return the spells of sites without a case, oldest first.

    A spell lasts two days, and three times as long as is usual between receipts of the site.

    Args:
        sent: of each case `site`, `occurred_at`, `received_at`, `known_at` (null where that is its
            receipt) and `decided`, its first decision.
    """
    received = sent.drop_nulls("received_at")
    times = received.select("site", since="received_at").unique().sort("site", "since")
    gap = pl.col("until") - pl.col("since")
    gaps = (
        times.with_columns(until=pl.col("since").shift(-1).over("site"))
        .drop_nulls()
        .filter(gap > SHORTEST_SPELL, gap > 3 * gap.median().over("site"))
    )
    missing = received.join(gaps, on="site").filter(
        pl.col("occurred_at").is_between("since", "until"),
        pl.col("received_at") >= pl.col("until"),
        pl.coalesce("known_at", "received_at") > pl.col("decided"),
    )
    delay = (pl.col("received_at") - pl.col("occurred_at")).max()
    spells = missing.group_by("site", "since", "until").agg(pl.len(), delay=delay)
    return tuple(
        SilentSpell(site, since, until, count, int(_cover_spell(delay).total_seconds()))
        for site, since, until, count, delay in spells.sort("since", "site").iter_rows()
    )


def _cover_spell(delay: timedelta) -> timedelta:
    return timedelta(days=ceil(delay / FAILED_NIGHT)) + FAILED_NIGHT


def build_sent_cases(site: str, rows: Iterable[tuple[int, int, int, int | None]]) -> pl.DataFrame:
    """Return a site's cases as `find_silent_spells` wants them.

    The rows have the columns in microseconds: occurred, received, known and decided.
    """
    columns = ("occurred_at", "received_at", "known_at", "decided")
    frame = pl.DataFrame(list(rows), dict.fromkeys(columns, pl.Int64), orient="row")
    instants = pl.col(columns).cast(pl.Datetime("us", "UTC"))
    return frame.with_columns(instants, site=pl.lit(site))


def find_costly_spells(records: RecordFrames, late: LateSenders | None) -> tuple[SilentSpell, ...]:
    """Return the silent spells of records; () if most of their predictions come late anyway."""
    if late is not None and 2 * late.late > late.decided:
        return ()
    decided_at = pl.min_horizontal("at", "received_at").min()
    decisions = records.decisions.group_by("case_key").agg(decided=decided_at)
    columns = ("site", "occurred_at", "received_at", "known_at", "case_key")
    cases = records.cases.select(columns).join(decisions, on="case_key", how="left")
    return find_silent_spells(cases)


@dataclass(frozen=True, slots=True)
class LateCounts:
    """Of predictions with a decision how many came late; those of parts of a history add up.

    Attributes:
        sent: predictions of decided cases.
        late: of these those that came after the first decision, or whose case did.
        misdated: of these those on cases that were decided before they occurred.
        offline: of these those that came more than `LONGEST_OFFLINE` after their case.
        first_sent, last_decided: the earliest of the predictions, the latest first decision; None
            without any.
    """

    sent: int = 0
    late: int = 0
    misdated: int = 0
    offline: int = 0
    first_sent: datetime | None = None
    last_decided: datetime | None = None

    def add(self, other: LateCounts) -> LateCounts:
        """Return the counts of both parts."""
        firsts = [at for at in (self.first_sent, other.first_sent) if at is not None]
        lasts = [at for at in (self.last_decided, other.last_decided) if at is not None]
        return LateCounts(
            self.sent + other.sent,
            self.late + other.late,
            self.misdated + other.misdated,
            self.offline + other.offline,
            min(firsts, default=None),
            max(lasts, default=None),
        )

    @property
    def is_negligible(self) -> bool:
        """Return whether so few came late that nothing is proposed."""
        return self.late <= MIN_LATE * self.sent

    @property
    def are_misdated(self) -> bool:
        """Return whether most of them say that a clock is wrong."""
        return 2 * self.misdated > self.late

    @property
    def is_backtest(self) -> bool:
        """Return whether the predictions were made after the decisions."""
        if self.is_negligible or self.are_misdated or not (self.first_sent and self.last_decided):
            return False
        return self.first_sent > self.last_decided or 2 * self.offline > self.late


def count_late(records: RecordFrames) -> LateCounts:
    """Count the predictions that came after the first decision on their case."""
    sent = _list_sent(records)
    late = sent.filter(pl.col("sent") > pl.col("decided"))
    delay = pl.col("sent") - pl.col("occurred_at")
    is_misdated = pl.col("decided") < pl.col("occurred_at")
    sums = late.select(is_misdated.sum(), (delay > LONGEST_OFFLINE).sum().alias("offline"))
    ends = sent.select(pl.col("sent").min(), pl.col("decided").max())
    return LateCounts(sent.height, late.height, *sums.row(0), *ends.row(0))


def _list_sent(records: RecordFrames) -> pl.DataFrame:
    """Return of predictions of decided cases when each occurred, was decided, and was sent."""
    decided_at = pl.coalesce(pl.min_horizontal("at", "received_at"))
    decisions = records.decisions.select("case_key", decided=decided_at).drop_nulls()
    first_decisions = decisions.group_by("case_key").agg(pl.col("decided").min())
    cases = records.cases.select("case_key", "occurred_at", case_at="received_at")
    sent_at = pl.max_horizontal("case_at", pl.coalesce("received_at", "at", "occurred_at"))
    return (
        records.predictions.join(cases, on="case_key")
        .join(first_decisions, on="case_key")
        .select("occurred_at", "decided", sent=sent_at)
        .drop_nulls()
    )


def find_late_senders(records: RecordFrames) -> LateSenders | None:
    """Return what late cases and predictions look like; None if hardly any came late."""
    counts = count_late(records)
    if counts.is_negligible:
        return None
    if counts.are_misdated:
        return LateSenders(counts.late, counts.sent, CLOCKS, None)
    late = _list_sent(records).filter(pl.col("sent") > pl.col("decided"))
    after_case, after_decision = (
        (late["sent"] - late[name]).dt.total_microseconds() for name in ("occurred_at", "decided")
    )
    last, last_after_decision = (
        timedelta(microseconds=delays.quantile(LAST_DELAY, interpolation="higher") or 0)
        for delays in (after_case, after_decision)
    )
    return _recognise(
        counts.late, counts.sent, last, last_after_decision, is_backtest=counts.is_backtest
    )


def recognise_senders(
    delays: Sequence[tuple[int, int]], decided: int, account: str = ""
) -> LateSenders:
    """Return what one account's late records look like.

    `delays` are those of records that came after the first decision on their case: how long after
    the case and after the decision, in microseconds. `decided` is how many cases were decided.
    """
    times = [delay for delay, _ in delays]
    summary = (max(times), max(delay for _, delay in delays), median(times))
    after_case, after_decision, middle = (timedelta(microseconds=delay) for delay in summary)
    is_backtest = middle > LONGEST_OFFLINE
    return _recognise(
        len(delays), decided, after_case, after_decision, account, is_backtest=is_backtest
    )


def _recognise(
    late: int,
    decided: int,
    after_case: timedelta,
    after_decision: timedelta,
    account: str = "",
    *,
    is_backtest: bool,
) -> LateSenders:
    """Return the set-up of delays, of which the last after case and decision are known."""
    if is_backtest:
        return LateSenders(late, decided, BACKTEST, None, account)
    if after_decision <= RACE:
        set_up, within = RACES, max(RACE, _round_up(after_case))
    else:
        set_up = NIGHTS if after_case <= NIGHT_DELAY else OFFLINE
        within = _round_up(after_case) + FAILED_NIGHT
    return LateSenders(late, decided, set_up, int(within.total_seconds()), account)


def _round_up(delay: timedelta) -> timedelta:
    """Return a delay in whole hours, one under five minutes as it is."""
    return delay if delay <= RACE else timedelta(hours=ceil(delay / timedelta(hours=1)))
