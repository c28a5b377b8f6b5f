"""Replay two files under a policy: read, place, count, decide; writing stands in `writing`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl

from rollout.core.policy.policy import Policy
from rollout.formats.policy.reader import read_policy
from rollout.formats.records.column_map import DEFAULT, columns_from_flags, read_columns
from rollout.formats.records.files import Sources, read_records
from rollout.formats.records.rejected_rows import RecordFault
from rollout.replay.engine import Course, Replay, Replayed
from rollout.replay.record_feed import HistoryFeeds
from rollout.tally.case_placement import NO_EPISODE, UNKNOWN_SITE, History, place
from rollout.tally.frames import UNREADABLE, Records, RowCount
from rollout.tally.unit_arrays import gather
from rollout.tally.units import resolve

FEW = 5  # sites that are named
REMARK = ("file", "line", "column", "reason", "detail")

Progress = Callable[[str, int, int], None]  # what is being done, how far, of how much


class NothingToReplayError(ValueError):
    """No record can be evidence; the text says where they were lost."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to replay and how.

    Attributes:
        policy: the policy's file.
        sources: the records' files.
        columns: a file that says what the records' columns are called.
        mapped: the same as flags, `predictions.case_key=image`; they win over the file.
        course: salt, simulated approvals, skipping.
        trained_until: by version, up to when its training cases reach: no evidence before.
        strict: stop at the first row that can't be read.
    """

    policy: Path
    sources: Sources
    columns: Path | None = None
    mapped: tuple[str, ...] = ()
    course: Course = field(default_factory=Course)
    trained_until: Mapping[str, datetime] = field(default_factory=dict)
    strict: bool = False


@dataclass(frozen=True)
class ReplayedFiles:
    """A replay with everything that a report is made of."""

    order: Order
    policy: Policy
    records: Records
    history: History
    units: pl.DataFrame
    replayed: Replayed


def replay(order: Order, progress: Progress | None = None) -> ReplayedFiles:
    """Read the files of `order` and replay them.

    Raises:
        PolicyFaults: the policy is refused; its text has one line for each fault.
        RecordFault: a row can't be read, and `strict` was asked for.
        NothingToReplayError: no record lies at a site of the policy, at a time, in a unit.
    """
    policy = read_policy(order.policy)
    records = records_of(order, policy, progress)
    _refuse_unknown_versions(order, records)
    return replay_records(order, policy, records, progress)


def _refuse_unknown_versions(order: Order, records: Records) -> None:
    """Raise ValueError where `trained_until` names no version: misspelt, it would guard nothing."""
    known_versions = sorted(records.predictions["version"].unique())
    for version in order.trained_until:
        if version not in known_versions:
            raise ValueError(
                f"--trained-until {version}: no prediction is by {version}; there are"
                f" {', '.join(known_versions)}"
            )


def records_of(order: Order, policy: Policy, progress: Progress | None = None) -> Records:
    """Read the records of `order`, their times in the zones of the policy's sites."""
    levers = [lever.id for lever in policy.levers]
    base_columns = DEFAULT if order.columns is None else read_columns(order.columns, levers=levers)
    return read_records(
        order.sources,
        levers=levers,
        zones={site.id: site.timezone for site in policy.sites},
        default_zone=policy.timezone,
        columns=columns_from_flags(order.mapped, levers=levers, base=base_columns),
        strict=order.strict,
        progress=progress,
    )


def replay_records(
    order: Order, policy: Policy, records: Records, progress: Progress | None = None
) -> ReplayedFiles:
    """Replay records that were read already."""
    history = place(records, policy, order.course.salt, order.trained_until)
    units = resolve(history.placed, policy).collect("polars").to_native()
    unit_arrays = gather(units, policy)
    if not unit_arrays.cells:
        raise NothingToReplayError(_nothing(history, units, records))
    engine = Replay(
        unit_arrays,
        policy,
        HistoryFeeds(records, history, policy),
        first_seen(records, history),
        order.course,
    )
    report_progress = (
        None if progress is None else lambda done, total: progress("deciding", done, total)
    )
    return ReplayedFiles(order, policy, records, history, units, engine.run(report_progress))


def first_seen(records: Records, history: History) -> dict[str, datetime]:
    """Return when each version's first prediction came in; at its case's time where it has none."""
    cases = history.cases.select("case_key", "occurred_at")
    timed_predictions = records.predictions.join(cases, on="case_key")
    first_predictions = timed_predictions.group_by("version").agg(
        pl.coalesce("at", "occurred_at").min().alias("at")
    )
    return dict(first_predictions.sort("at", "version").iter_rows())


def _nothing(history: History, units: pl.DataFrame, records: Records) -> str:
    """Say where all records were lost: file by file, case by case, with examples."""
    excluded = units.drop_nulls("excluded").group_by("excluded").len().sort("excluded")
    lost_counts = {
        **{
            f"cases: {excluded_reason}": lost_count
            for excluded_reason, lost_count in history.left_out.items()
        },
        **dict(excluded.rows()),
    }
    lines = [
        "nothing to replay: no prediction can be evidence",
        *(_read(count) for count in records.read.values()),
        *(f"{count} {reason}" for reason, count in lost_counts.items() if count),
        *_examples(records),
        *_hints(history, records),
    ]
    return "\n  ".join(lines)


def _read(count: RowCount) -> str:
    rejected_text = ", ".join(
        f"{rejected_count} {reason}" for reason, rejected_count in count.set_aside.items()
    )
    return f"{count.file}: {count.rows} rows read, {count.used} used" + (
        rejected_text and f"; {rejected_text}"
    )


def _examples(records: Records) -> Iterator[str]:
    """Yield the first row of each reason for which rows can't be read."""
    remarks = pl.concat([records.set_aside, records.notes])
    unreadable_rows = remarks.filter(
        pl.col("reason").is_in([reason.value for reason in UNREADABLE])
    )
    for row in unreadable_rows.unique("reason", keep="first", maintain_order=True).iter_rows(
        named=True
    ):
        yield str(RecordFault(*(row[name] for name in REMARK)))


def _hints(history: History, records: Records) -> Iterator[str]:
    if history.left_out.get(UNKNOWN_SITE):
        sites = records.cases["site"].drop_nulls().unique().sort().head(FEW)
        yield f"sites in the files: {', '.join(sites)}; compare `sites:` of the policy"
    if history.left_out.get(NO_EPISODE):
        yield "no case names its episode: write `evidence.episode_span`, or `unit: case`"
