"""Every pair whose labels or actions differ, the dearest first."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from rollout.core.policy.measures import WHOLE
from rollout.core.policy.policy import Policy
from rollout.reports.inputs.pairs import Pairs, about_of
from rollout.reports.inputs.pictures import MediaOf, no_media, picture_of
from rollout.reports.inputs.table_cells import as_texts
from rollout.tally.frames import ATTRIBUTE

TOP = 20
PICTURED = 5  # of these, the ones whose pictures may stand in the report
COLUMNS = (
    "case_key", "version", "lever", "site", "window", "occurred_at", "occurred_local", "human",
    "model", "human_action", "model_action", "cost", "confidence", "outcome",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Divergence:
    """One case on which a version and people differ.

    `local` is the time at the site; where the case has no usable time, the time as written.
    `about` has the case's attributes, those that were given. `picture` is a web link, or of the
    first five a small picture itself, as `data:` address; None where the case has neither.
    """

    case_key: str
    version: str
    lever: str
    site: str
    window: str | None
    at: datetime | None
    local: str
    human: str
    model: str
    human_action: str
    model_action: str
    cost: float
    confidence: float | None
    outcome: str | None
    about: tuple[tuple[str, str], ...]
    picture: str | None = None


@dataclass(frozen=True, slots=True)
class Divergences:
    """How many pairs differ, how many of them in what is done, and the dearest.

    `outcome_known` counts those with an outcome; `model_right` and `people_right` whom it proved
    right. All three are None without outcomes.
    """

    count: int
    in_action: int
    outcome_known: int | None
    model_right: int | None
    people_right: int | None
    top: tuple[Divergence, ...]


def divergence_frame(pairs: Pairs, policy: Policy) -> pl.DataFrame:
    """Return all divergences with the columns of `divergences.csv`, the dearest first.

    After `COLUMNS` stand the cases' attributes, `attribute:camera`.

    Among equally dear ones those come first of which the model was surest, then by case.
    """
    differing = pairs.frame.filter(~pl.col("agrees") & (pl.col("lever") != WHOLE))
    zones = {site.id: site.timezone for site in policy.sites}
    at = pl.from_epoch("t", time_unit="us").dt.replace_time_zone("UTC")
    timed = differing.with_columns(occurred_at=at)
    parts = [
        part.with_columns(occurred_local=_local(zones.get(str(site), policy.timezone)))
        for (site,), part in timed.partition_by("site", as_dict=True).items()
    ]
    frame = pl.concat(parts) if parts else timed.with_columns(occurred_local="occurred_text")
    attributes = [name for name in frame.columns if name.startswith(ATTRIBUTE)]
    return frame.select(*COLUMNS, *attributes).sort(
        "cost", "confidence", "case_key", "version", "lever",
        descending=[True, True, False, False, False], nulls_last=True,
    )  # fmt: skip


def _local(zone: str) -> pl.Expr:
    local_time = (
        pl.col("occurred_at").dt.convert_time_zone(zone).dt.strftime("%Y-%m-%dT%H:%M:%S%:z")
    )
    return pl.coalesce(local_time, "occurred_text")


def divergences_of(frame: pl.DataFrame, media: MediaOf = no_media) -> Divergences:
    """Return the counts and the dearest ones of `divergence_frame`, these with their pictures."""
    with_outcome = frame.filter(pl.col("outcome").is_not_null())
    outcomes = None if with_outcome.is_empty() else with_outcome
    return Divergences(
        count=frame.height,
        in_action=frame.filter(pl.col("human_action") != pl.col("model_action")).height,
        outcome_known=None if outcomes is None else outcomes.height,
        model_right=_right(outcomes, "model"),
        people_right=_right(outcomes, "human"),
        top=tuple(_pictured(frame.head(TOP), media)),
    )


def _right(judged: pl.DataFrame | None, side: str) -> int | None:
    return None if judged is None else judged.filter(pl.col(side) == pl.col("outcome")).height


def _pictured(frame: pl.DataFrame, media: MediaOf) -> Iterator[Divergence]:
    references_by_case = media(frame["case_key"].unique().to_list())
    for index, row in enumerate(frame.iter_rows(named=True)):
        references = references_by_case.get(row["case_key"], ())
        yield _divergence(row, picture_of(references, embeds=index < PICTURED))


def _divergence(row: dict[str, object], picture: str | None) -> Divergence:
    values = {name: row[name] for name in COLUMNS if not name.startswith("occurred")}
    times = {"at": row["occurred_at"], "local": row["occurred_local"]}
    return Divergence(**values, **times, about=about_of(row), picture=picture)  # type: ignore[arg-type]


def csv_of(frame: pl.DataFrame) -> bytes:
    """Return the rows as CSV: UTF-8 with a header, instants in UTC, no text that is a formula."""
    instants = pl.col("occurred_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return as_texts(frame.with_columns(occurred_at=instants)).write_csv().encode()
