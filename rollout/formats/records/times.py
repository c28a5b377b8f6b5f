"""Times as files write them: read from text, and placed in a zone.

The form is ISO 8601 with date and time of day: `T` or a space between them, seconds and their
fraction optional, an offset (`Z`, `+02:00`, `+0200`, `+02`) optional. A date alone has no hour and
is refused, as are numbers of seconds. A time without offset is local to its site's zone. Of the
hour that the autumn change holds twice the earlier instant is meant; a time that the spring
change leaves out is read by the offset before it, as a clock that nobody put forward would show
it (02:30 is the instant which others call 03:30). Both are noted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

import polars as pl

from rollout.tally.frames import Reason, Schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORM = (
    r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?"
    r"(?:[Zz]|[+-]\d{2}(?::?\d{2})?)?$"
)
OFFSET = r"([Zz]|[+-]\d{2}(?::?\d{2})?)$"
TIMES_SCHEMA: Schema = {
    "local": pl.Datetime("us"),
    "offset": pl.Int32(),
    "hour": pl.Int8(),
    "fault": pl.String(),
}
LAST_HOUR = 23
FIRST_YEAR, LAST_YEAR = 2, 9998
"""No offset leads from these years out of what Python's datetime holds."""


@dataclass(frozen=True, slots=True)
class Zones:
    """The zone of each site; other sites, and records of no known site, have `default`.

    Raises:
        ValueError: a name is no zone of the time zone database.
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
        """Return the zones in use, the default one first."""
        return tuple(dict.fromkeys([self.default, *self.by_site.values()]))

    def places(self, sites: pl.Series) -> pl.Series:
        """Return for each site the index of its zone in `names`."""
        index = {name: position for position, name in enumerate(self.names)}
        index_by_site = {site: index[name] for site, name in self.by_site.items()}
        if not index_by_site:
            return pl.zeros(sites.len(), pl.Int32, eager=True)
        return sites.replace_strict(index_by_site, default=0, return_dtype=pl.Int32)


def read_times(written: pl.Series) -> pl.DataFrame:
    """Read texts into `local`, `offset` (minutes, null = none), `hour` and `fault`.

    A null text has null throughout. `hour` is the hour of the day as written, also of a date
    that does not exist; `fault` is a Reason or null.
    """
    if written.null_count() == written.len():
        return pl.DataFrame(schema=TIMES_SCHEMA).clear(written.len())
    times = pl.DataFrame({"text": written.str.strip_chars()}).select(
        "text", formed=pl.col("text").str.contains(FORM)
    )
    is_plain = pl.col("text").str.len_bytes() == len("2019-02-28T14:05:09")
    parsed = times.with_columns(local=_datetime(pl.col("text")), offset=pl.lit(None, pl.Int32))
    if parsed.select((pl.col("formed") & (~is_plain | pl.col("local").is_null())).any()).item():
        parsed = _general(times)
    hour = pl.col("text").str.slice(11, 2).cast(pl.Int8, strict=False)
    exists = pl.col("local").dt.year().is_between(FIRST_YEAR, LAST_YEAR)
    return parsed.select(
        local=pl.when(pl.col("formed") & exists).then("local"),
        offset=pl.when("formed").then("offset"),
        hour=pl.when(pl.col("formed") & (hour <= LAST_HOUR)).then(hour),
        fault=pl.when(~pl.col("formed"))
        .then(pl.lit(Reason.UNREADABLE_TIME.value))
        .when(pl.col("formed") & ~exists.fill_null(value=False))
        .then(pl.lit(Reason.IMPOSSIBLE_TIME.value)),
    )


def instants(times: pl.DataFrame, places: pl.Series, names: Sequence[str]) -> pl.DataFrame:
    """Place in zones what `read_times` returned: `at` (UTC) and `note` (a Reason or null).

    Args:
        times: as `read_times` returns them.
        places: for each row the index of its zone in `names`.
        names: zones of the time zone database.
    """
    with_offset = pl.col("local") - pl.duration(minutes="offset")
    rows = times.select("local", at=with_offset.dt.replace_time_zone("UTC"), place=places)
    is_local = rows["local"].is_not_null() & rows["at"].is_null()
    at, note = rows["at"], pl.repeat(None, rows.height, dtype=pl.String, eager=True)
    for zone_index in rows["place"].filter(is_local).unique().sort():
        in_zone = is_local & (rows["place"] == zone_index)
        zone_instants, zone_notes = _placed(
            rows["local"].zip_with(in_zone, _nulls(rows["local"])), names[zone_index]
        )
        at, note = zone_instants.zip_with(in_zone, at), zone_notes.zip_with(in_zone, note)
    return pl.DataFrame({"at": at, "note": note})


def _placed(local: pl.Series, zone: str) -> tuple[pl.Series, pl.Series]:
    """Return instants and notes of local times of one zone."""
    at, latest = _utc(local, zone, "earliest"), _utc(local, zone, "latest")
    times = pl.DataFrame({"local": local, "at": at, "latest": latest})
    note = times.select(
        pl.when(pl.col("at").is_null() & pl.col("local").is_not_null())
        .then(pl.lit(Reason.GAP_TIME.value))
        .when(pl.col("at") != pl.col("latest"))
        .then(pl.lit(Reason.AMBIGUOUS_TIME.value))
    ).to_series()
    if (note == Reason.GAP_TIME.value).any():
        # A day before a gap the offset is the one before it, even where a whole day was left
        # out, as in Samoa in December 2011.
        day = timedelta(hours=25)
        at = at.zip_with(at.is_not_null(), _utc(local - day, zone, "latest") + day)
    return at, note


def _nulls(like: pl.Series) -> pl.Series:
    return pl.repeat(None, like.len(), dtype=like.dtype, eager=True)


def _utc(local: pl.Series, zone: str, ambiguous: Literal["earliest", "latest"]) -> pl.Series:
    localized = local.dt.replace_time_zone(zone, ambiguous=ambiguous, non_existent="null")
    return localized.dt.convert_time_zone("UTC")


def _datetime(text: pl.Expr) -> pl.Expr:
    """Read the plain form; what is of another form, or no time, is null."""
    local = text.str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False, time_unit="us")
    # A sixtieth second would be taken for the next minute.
    return pl.when(text.str.slice(17, 2) < "60").then(local)


def _general(times: pl.DataFrame) -> pl.DataFrame:
    """Read every form: bring date, hour, minute and second into the plain one, add the rest."""
    parsed = times.with_columns(
        local=_datetime(_to_the_second(times)),
        suffix=pl.col("text").str.extract(OFFSET),
    )
    if times["text"].str.contains("[.,]").any():
        digits = pl.col("text").str.extract(r"[.,](\d+)").str.pad_end(6, "0").str.slice(0, 6)
        fraction = pl.duration(microseconds=digits.cast(pl.Int64, strict=False).fill_null(0))
        parsed = parsed.with_columns(local=pl.col("local") + fraction)
    minutes = {suffix: _offset(suffix) for suffix in parsed["suffix"].unique().drop_nulls()}
    parsed = parsed.with_columns(
        offset=pl.col("suffix").replace_strict(minutes, default=None, return_dtype=pl.Int32)
    )
    is_invalid = pl.col("suffix").is_not_null() & pl.col("offset").is_null()
    return parsed.with_columns(local=pl.when(~is_invalid).then("local"))


def _to_the_second(times: pl.DataFrame) -> pl.Expr:
    """Return the part of the text that the plain form has, in that form."""
    text = pl.col("text")
    has_second = text.str.slice(16, 1) == ":"
    is_plain = (text.str.slice(10, 1) == "T") & has_second
    if times.select((is_plain | ~pl.col("formed")).all()).item():
        return text.str.slice(0, 19)
    second = pl.when(has_second).then(text.str.slice(16, 3)).otherwise(pl.lit(":00"))
    return pl.concat_str(text.str.slice(0, 10), pl.lit("T"), text.str.slice(11, 5), second)


def _offset(suffix: str) -> int | None:
    """Return the minutes of `Z`, `+02`, `+0200` or `+02:00`; None where no clock is that far."""
    if suffix in ("Z", "z"):
        return 0
    hours, minutes = int(suffix[1:3]), int(suffix[3:].removeprefix(":") or 0)
    if hours > LAST_HOUR or minutes >= 60:
        return None
    return (60 * hours + minutes) * (-1 if suffix[0] == "-" else 1)
