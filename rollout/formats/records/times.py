"""Read times from text and convert them to instants in a time zone.

The form is ISO 8601 with date and time of day: `T` or a space between them, seconds and their
fraction optional, an offset (`Z`, `+02:00`, `+0200`, `+02`) optional. Dates alone and numbers of
seconds are rejected. A time without offset is local to its site's zone. In the repeated hour of
the autumn change the earlier instant is used; a time in the gap of the spring change is read with
the offset before it (02:30 is the instant of 03:30). Both get a note.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

import polars as pl

from rollout.core.records.row_remarks import RemarkReason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rollout.tally.frames import Schema

TIME_PATTERN = (
    r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?"
    r"(?:[Zz]|[+-]\d{2}(?::?\d{2})?)?$"
)
OFFSET_PATTERN = r"([Zz]|[+-]\d{2}(?::?\d{2})?)$"
TIMES_SCHEMA: Schema = {
    "local": pl.Datetime("us"),
    "offset": pl.Int32(),
    "hour": pl.Int8(),
    "fault": pl.String(),
}
LAST_HOUR = 23
FIRST_YEAR, LAST_YEAR = 2, 9998
"""Years in which no offset leads out of the range of `datetime`."""


@dataclass(frozen=True, slots=True)
class SiteZones:
    """Time zones by site; unknown sites have `default`.

    Raises:
        ValueError: a name is not in the time zone database.
    """

    by_site: Mapping[str, str]
    default: str

    def __post_init__(self) -> None:
        for name in self.names:
            try:
                ZoneInfo(name)
            except (KeyError, OSError, ValueError) as error:
                raise ValueError(f"no time zone {name!r}; write one as Europe/Vienna") from error

    @property
    def names(self) -> tuple[str, ...]:
        """Zones in use, the default first."""
        return tuple(dict.fromkeys([self.default, *self.by_site.values()]))

    def find_zone_indices(self, sites: pl.Series) -> pl.Series:
        """Return the index in `names` of each site's zone."""
        index = {name: position for position, name in enumerate(self.names)}
        index_by_site = {site: index[name] for site, name in self.by_site.items()}
        if not index_by_site:
            return pl.zeros(sites.len(), pl.Int32, eager=True)
        return sites.replace_strict(index_by_site, default=0, return_dtype=pl.Int32)


def parse_times(texts: pl.Series) -> pl.DataFrame:
    """Parse texts to `local`, `offset` (minutes or null), `hour` and `fault`.

    A null text is null in all columns. `hour` is as written, even for a date that does not exist;
    `fault` is a `RemarkReason` or null.
    """
    if texts.null_count() == texts.len():
        return pl.DataFrame(schema=TIMES_SCHEMA).clear(texts.len())
    times = pl.DataFrame({"text": texts.str.strip_chars()}).select(
        "text", formed=pl.col("text").str.contains(TIME_PATTERN)
    )
    is_plain = pl.col("text").str.len_bytes() == len("2019-02-28T14:05:09")
    parsed = None
    if times.select((is_plain | ~pl.col("formed")).all()).item():
        local = _parse_plain(pl.col("text"))
        parsed = times.with_columns(local=local, offset=pl.lit(None, pl.Int32))
    if parsed is None or parsed.select((pl.col("formed") & pl.col("local").is_null()).any()).item():
        parsed = _parse_general(times)
    hour = pl.col("text").str.slice(11, 2).cast(pl.Int8, strict=False)
    exists = pl.col("local").dt.year().is_between(FIRST_YEAR, LAST_YEAR)
    return parsed.select(
        local=pl.when(pl.col("formed") & exists).then("local"),
        offset=pl.when("formed").then("offset"),
        hour=pl.when(pl.col("formed") & (hour <= LAST_HOUR)).then(hour),
        fault=pl.when(~pl.col("formed"))
        .then(pl.lit(RemarkReason.UNREADABLE_TIME.value))
        .when(pl.col("formed") & ~exists.fill_null(value=False))
        .then(pl.lit(RemarkReason.IMPOSSIBLE_TIME.value)),
    )


def convert_to_instants(
    times: pl.DataFrame, zone_indices: pl.Series, names: Sequence[str]
) -> pl.DataFrame:
    """Convert results of `parse_times` to `at` (UTC) and `note` (`RemarkReason` or null).

    `zone_indices` has the index in `names` of each row's zone.
    """
    with_offset = pl.col("local") - pl.duration(minutes="offset")
    rows = times.select("local", at=with_offset.dt.replace_time_zone("UTC"), place=zone_indices)
    is_local = rows["local"].is_not_null() & rows["at"].is_null()
    at, note = rows["at"], pl.repeat(None, rows.height, dtype=pl.String, eager=True)
    for zone_index in rows["place"].filter(is_local).unique().sort():
        in_zone = is_local & (rows["place"] == zone_index)
        zone_instants, zone_notes = _localize(
            rows["local"].zip_with(in_zone, _build_nulls(rows["local"])), names[zone_index]
        )
        at, note = zone_instants.zip_with(in_zone, at), zone_notes.zip_with(in_zone, note)
    return pl.DataFrame({"at": at, "note": note})


def _localize(local: pl.Series, zone: str) -> tuple[pl.Series, pl.Series]:
    """Return instants and notes for local times in one zone."""
    at, latest = _to_utc(local, zone, "earliest"), _to_utc(local, zone, "latest")
    times = pl.DataFrame({"local": local, "at": at, "latest": latest})
    note = times.select(
        pl.when(pl.col("at").is_null() & pl.col("local").is_not_null())
        .then(pl.lit(RemarkReason.GAP_TIME.value))
        .when(pl.col("at") != pl.col("latest"))
        .then(pl.lit(RemarkReason.AMBIGUOUS_TIME.value))
    ).to_series()
    if (note == RemarkReason.GAP_TIME.value).any():
        # 25 hours earlier the offset is the one before the gap, even if the gap is a whole day,
        # as in Samoa in December 2011.
        day = timedelta(hours=25)
        at = at.zip_with(at.is_not_null(), _to_utc(local - day, zone, "latest") + day)
    return at, note


def _build_nulls(series: pl.Series) -> pl.Series:
    return pl.repeat(None, series.len(), dtype=series.dtype, eager=True)


def _to_utc(local: pl.Series, zone: str, ambiguous: Literal["earliest", "latest"]) -> pl.Series:
    localized = local.dt.replace_time_zone(zone, ambiguous=ambiguous, non_existent="null")
    return localized.dt.convert_time_zone("UTC")


def _parse_plain(text: pl.Expr) -> pl.Expr:
    """Parse the plain form; other texts are null."""
    local = text.str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False, time_unit="us")
    # Polars would read second 60 as the next minute.
    return pl.when(text.str.slice(17, 2) < "60").then(local)


def _parse_general(times: pl.DataFrame) -> pl.DataFrame:
    """Parse every form: date to second as plain text, then fraction and offset."""
    parsed = times.with_columns(
        local=_parse_plain(_trim_to_second(times)),
        suffix=pl.col("text").str.extract(OFFSET_PATTERN),
    )
    if times["text"].str.contains("[.,]").any():
        digits = pl.col("text").str.extract(r"[.,](\d+)").str.pad_end(6, "0").str.slice(0, 6)
        fraction = pl.duration(microseconds=digits.cast(pl.Int64, strict=False).fill_null(0))
        parsed = parsed.with_columns(local=pl.col("local") + fraction)
    minutes = {suffix: _parse_offset(suffix) for suffix in parsed["suffix"].unique().drop_nulls()}
    parsed = parsed.with_columns(
        offset=pl.col("suffix").replace_strict(minutes, default=None, return_dtype=pl.Int32)
    )
    is_invalid = pl.col("suffix").is_not_null() & pl.col("offset").is_null()
    return parsed.with_columns(local=pl.when(~is_invalid).then("local"))


def _trim_to_second(times: pl.DataFrame) -> pl.Expr:
    """Return date to second of each text in the plain form."""
    text = pl.col("text")
    has_second = text.str.slice(16, 1) == ":"
    is_plain = (text.str.slice(10, 1) == "T") & has_second
    if times.select((is_plain | ~pl.col("formed")).all()).item():
        return text.str.slice(0, 19)
    second = pl.when(has_second).then(text.str.slice(16, 3)).otherwise(pl.lit(":00"))
    return pl.concat_str(text.str.slice(0, 10), pl.lit("T"), text.str.slice(11, 5), second)


def _parse_offset(suffix: str) -> int | None:
    """Return the minutes of `Z`, `+02`, `+0200` or `+02:00`; None if out of range."""
    if suffix in ("Z", "z"):
        return 0
    hours, minutes = int(suffix[1:3]), int(suffix[3:].removeprefix(":") or 0)
    if hours > LAST_HOUR or minutes >= 60:
        return None
    return (60 * hours + minutes) * (-1 if suffix[0] == "-" else 1)
