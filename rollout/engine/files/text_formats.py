"""How a file writes numbers, times and labels: recognized from its texts, and read.

A time is read in the form of ISO 8601 with date and time of day: `T` or a space between them,
seconds and their fraction optional, an offset (`Z`, `+02:00`, `+0200`, `+02`) optional. Digits are
ASCII alone; the class for digits has others too, of which casts make nothing or an error. Times in
other forms that the file is known to use are rewritten to it first; else dates alone and numbers of
seconds are rejected. A time without offset is local to its site's zone. In the repeated hour of the
autumn change the earlier instant is used; a time in the gap of the spring change is read with the
offset before it (02:30 is the instant of 03:30). Both get a note.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, cast
from zoneinfo import ZoneInfo

import polars as pl

from rollout.engine.files.questions import (
    CertainConfidences,
    CompactTimes,
    DayOrder,
    DecimalQuestion,
    MixedConfidences,
    OtherScale,
    ReadingQuestion,
    SignedConfidences,
    UnsureLabel,
)
from rollout.engine.records.records import RemarkReason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from rollout.engine.evidence.frames import Schema


TIME_PATTERN = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?"
    r"(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?$"
)
OFFSET_PATTERN = r"([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)$"
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
            rows["local"].zip_with(in_zone, build_nulls(rows["local"])), names[zone_index]
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


def build_nulls(series: pl.Series) -> pl.Series:
    """Return as many nulls of the same type."""
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
        digits = pl.col("text").str.extract(r"[.,]([0-9]+)").str.pad_end(6, "0").str.slice(0, 6)
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


_COMMA = r"^[+-]?[0-9]+,[0-9]+\s*%?$"
_POINT = r"^[+-]?[0-9]*\.[0-9]+\s*%?$"
_GROUPS_BY_POINT = r"^[+-]?[0-9]{1,3}(?:\.[0-9]{3})+$"
_GROUPED_COMMA = r"^[+-]?[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+$"
_PLAIN = r"^\+?[0-9]+(?:\.[0-9]+)?$"
_SIGNED = r"^\+?[0-9]+(?:[.,][0-9]+)?\s*%$"
MIN_PERCENT_SHARE = 0.9
"""Share of confidences above 1 from which they are in percent."""
MIN_PERCENT = 50
"""Percentages of which none is higher may be another scale, such as 1 to 5."""


def rewrite_decimals(texts: pl.Series, decimal: str | None) -> pl.Series:
    """Return numbers with a decimal point; other texts stay.

    >>> rewrite_decimals(pl.Series(["0,5", "1.200,5", "1.200", "-"]), ",").to_list()
    ['0.5', '1200.5', '1200', '-']
    """
    if decimal != ",":
        return texts
    clean = pl.col("text").str.strip_chars()
    ungrouped = clean.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    is_grouped = clean.str.contains(_GROUPS_BY_POINT) | clean.str.contains(_GROUPED_COMMA)
    rewritten = (
        pl.when(clean.str.contains(_COMMA))
        .then(clean.str.replace(",", ".", literal=True))
        .when(is_grouped)
        .then(ungrouped)
        .otherwise("text")
    )
    return pl.DataFrame({"text": texts}).select(rewritten.alias(texts.name)).to_series()


def rewrite_percents(texts: pl.Series) -> pl.Series:
    """Return confidences from 0 to 100 as numbers from 0 to 1; other texts stay.

    >>> rewrite_percents(pl.Series(["93.1", "7 %", "high"])).to_list()
    ['93.1e-2', '7e-2', 'high']
    """
    number = pl.col("text").str.strip_chars().str.strip_suffix("%").str.strip_chars()
    rewritten = pl.when(number.str.contains(_PLAIN)).then(number + "e-2").otherwise("text")
    return pl.DataFrame({"text": texts}).select(rewritten.alias(texts.name)).to_series()


def recognize_decimal(
    confidence: pl.Series, others: Sequence[pl.Series], file: str
) -> str | ReadingQuestion:
    """Return `.` or `,` for the numbers of a file, or what is open.

    A comma in a confidence is a decimal comma, because no confidence is above 100. Elsewhere 1,234
    can be a thousand, and in labels 1,2 can be two labels.
    """
    texts = pl.concat([column.drop_nulls().alias("") for column in (confidence, *others)])
    texts = texts.filter(texts.str.contains("[.,]")).str.strip_chars()
    commas = texts.filter(texts.str.contains(_COMMA) | texts.str.contains(_GROUPED_COMMA))
    if not commas.len():
        return "."
    points = texts.filter(texts.str.contains(_POINT) & ~texts.str.contains(_GROUPS_BY_POINT))
    if points.len():
        return DecimalQuestion(file=file, comma=commas[0], point=points[0])
    if confidence.str.contains(",").any():
        return ","
    return DecimalQuestion(file=file, comma=commas[0])


def recognize_percent(confidence: pl.Series, file: str) -> bool | ReadingQuestion:
    """Return whether confidences, with decimal points, are in percent, or what is open."""
    texts = confidence.drop_nulls().str.strip_chars()
    is_signed = texts.str.contains(_SIGNED)
    if texts.len() and is_signed.all():
        return True
    if is_signed.any():
        return SignedConfidences(file=file, confidence=texts.filter(is_signed)[0])
    return _recognize_scale(texts.cast(pl.Float64, strict=False).drop_nulls(), file)


def _recognize_scale(numbers: pl.Series, file: str) -> bool | ReadingQuestion:
    """Return whether numbers without a sign are percent, or what is open."""
    values = numbers.filter(numbers.is_between(0, 100))
    above = values.filter(values > 1)
    if not above.len():
        if values.len() and values.is_in([0.0, 1.0]).all():
            return CertainConfidences(file=file)
        return False
    if above.len() < MIN_PERCENT_SHARE * values.len():
        return MixedConfidences(
            file=file, above=above.len(), total=values.len(), confidence=above[0]
        )
    low, high = (cast("float", end) for end in (numbers.min(), numbers.max()))
    is_filled = cast("float", values.max()) >= MIN_PERCENT
    if is_filled and values.len() >= MIN_PERCENT_SHARE * numbers.len():
        return True
    return OtherScale(file=file, low=low, high=high)


_CLOCK = (
    r"(?:[T,]|,? )\s*(?<hour>[0-9]{1,2}):(?<minute>[0-9]{2})"
    r"(?::(?<second>[0-9]{2}(?:[.,][0-9]+)?))?"
    r"\s*(?<half>[AaPp]\.?[Mm]\.?)?\s*(?<offset>[Zz]|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)?$"
)
_MARK = r"[./-]"
_NUMERIC = (
    rf"^(?<first>[0-9]{{1,2}}){_MARK}(?<second_part>[0-9]{{1,2}}){_MARK}(?<year>[0-9]{{4}})"
    + _CLOCK
)
_PATTERNS = {
    "day-first": _NUMERIC.replace("<first>", "<day>").replace("<second_part>", "<month>"),
    "month-first": _NUMERIC.replace("<first>", "<month>").replace("<second_part>", "<day>"),
    "basic": r"^(?<year>[0-9]{4})(?<month>[0-9]{2})(?<day>[0-9]{2})"
    r"[Tt](?<hour>[0-9]{2})(?<minute>[0-9]{2})(?<second>[0-9]{2}(?:[.,][0-9]+)?)?"
    r"(?<half>[AaPp][Mm])?(?<offset>[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?$",
    "year-first": rf"^(?<year>[0-9]{{4}}){_MARK}(?<month>[0-9]{{1,2}}){_MARK}(?<day>[0-9]{{1,2}})"
    + _CLOCK,
}
_PLAIN_NAMES = ("year-first", "basic")
"""Forms that can't be taken for another one."""
_UNIX = {"unix-seconds": r"^[0-9]{9,10}(?:\.[0-9]+)?$", "unix-milliseconds": r"^[0-9]{13}$"}
_OFFSET = r"(?:[Zz]|UTC|GMT|[0-9][+-][0-9]{2}(?::?[0-9]{2})?)$|^[0-9]{9,13}(?:\.[0-9]+)?$"
_COMPACT = r"^[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])[0-5][0-9]$"
"""2605131405 can be 13 May 2026, 14:05; few Unix seconds look like it."""
MAX_MONTH = 12


def rewrite_times(texts: pl.Series, date_formats: Sequence[str]) -> pl.Series:
    """Return times in these forms as ISO 8601; other texts stay.

    >>> rewrite_times(pl.Series(["3.5.2026 4:05", "x"]), ["day-first"]).to_list()
    ['2026-05-03T04:05:00', 'x']
    """
    frame = pl.DataFrame({"text": texts, "clean": texts.str.strip_chars()})
    rewritten = [_rewrite(date_format) for date_format in date_formats if date_format != "iso"]
    if not rewritten:
        return texts
    is_iso = pl.col("clean").str.contains(TIME_PATTERN)
    other = pl.coalesce(*rewritten, "text")
    return frame.select(pl.when(is_iso).then("text").otherwise(other).alias(texts.name)).to_series()


def _rewrite(date_format: str) -> pl.Expr:
    clean = pl.col("clean")
    if date_format in _PATTERNS:
        return _rewrite_parts(clean.str.extract_groups(_PATTERNS[date_format]))
    if date_format in _UNIX:
        digits = 9 if date_format == "unix-seconds" else 6
        matching = pl.when(clean.str.contains(_UNIX[date_format])).then(clean)
        whole = matching.str.extract(r"^([0-9]+)").cast(pl.Int64) * 10 ** (digits - 3)
        fraction = matching.str.extract(r"\.([0-9]+)$").str.pad_end(6, "0").str.slice(0, 6)
        micros = whole + fraction.cast(pl.Int64, strict=False).fill_null(0)
        instant: pl.Expr = micros.cast(pl.Datetime("us"))
        return instant.dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ")
    parsed = clean.str.to_datetime(date_format, strict=False, time_unit="us")
    has_offset = "%z" in date_format or "%:z" in date_format or "%#z" in date_format
    has_offset |= date_format.endswith("Z") and not date_format.endswith("%Z")  # UTC, no letter
    return parsed.dt.strftime("%Y-%m-%dT%H:%M:%S%.f" + ("Z" if has_offset else ""))


def _rewrite_parts(groups: pl.Expr) -> pl.Expr:
    """Return ISO 8601 from the parts of a date; null where they are none."""

    def get(name: str) -> pl.Expr:
        field: pl.Expr = groups.struct.field(name)
        return field

    hour = get("hour").cast(pl.Int8, strict=False)
    is_afternoon = get("half").str.to_lowercase().str.starts_with("p")
    hour = (
        pl.when(get("half").is_null())
        .then(hour)
        .when(hour.is_between(1, 12))
        .then(hour % 12 + pl.when(is_afternoon).then(12).otherwise(0))
    )
    date = [get("year"), pl.lit("-"), get("month").str.zfill(2), pl.lit("-")]
    clock = [hour.cast(pl.String).str.zfill(2), pl.lit(":"), get("minute"), pl.lit(":")]
    offset = get("offset").fill_null("").replace({"UTC": "Z", "GMT": "Z"})
    second = get("second").fill_null("00")
    return pl.concat_str(*date, get("day").str.zfill(2), pl.lit("T"), *clock, second, offset)


def recognize_date_formats(
    columns: Iterable[pl.Series], file: str, chosen: Sequence[str] = ()
) -> tuple[str, ...] | ReadingQuestion:
    """Return the forms of all times of a file, or what is open.

    A form counts if a text has it; texts in no form are left to the reader, which rejects them.
    `chosen` forms come first and decide the order of day and month.
    """
    texts = _collect_other_texts(columns)
    if not texts.len():
        return tuple(chosen)
    is_pattern = any("%" in name for name in chosen)
    formats = list(chosen) + [
        name
        for name, pattern in {**_UNIX, **{name: _PATTERNS[name] for name in _PLAIN_NAMES}}.items()
        if name not in chosen and not is_pattern and texts.str.contains(pattern).any()
    ]
    seconds = texts.filter(texts.str.contains(_UNIX["unix-seconds"]))
    if not chosen and seconds.len() and seconds.str.contains(_COMPACT).all():
        return CompactTimes(file=file, time=seconds[0])
    numeric = texts.filter(texts.str.contains(_PATTERNS["day-first"]))
    if chosen or not numeric.len():
        return tuple(formats)
    is_day_first, is_month_first = _is_possible(numeric, 0, 1), _is_possible(numeric, 1, 0)
    readable = is_day_first | is_month_first
    for name, is_possible in (("day-first", is_day_first), ("month-first", is_month_first)):
        other = is_month_first if name == "day-first" else is_day_first
        if is_possible.filter(readable).all() and not other.filter(readable).all():
            return (*formats, name)
    return _ask_for_order(numeric, is_day_first, is_month_first, file)


def has_local_times(texts: pl.Series) -> bool:
    """Return whether some time has no offset, so that it is in its site's time zone.

    >>> has_local_times(pl.Series(["2026-05-03T04:05:06"])), has_local_times(pl.Series(["4:05Z"]))
    (True, False)
    """
    has_plain_offset = texts.str.slice(-6, 1).is_in(["+", "-"]) & (texts.str.slice(-3, 1) == ":")
    others = texts.filter(~(has_plain_offset | texts.str.ends_with("Z")).fill_null(value=True))
    return not others.str.contains(_OFFSET).all()


def _collect_other_texts(columns: Iterable[pl.Series]) -> pl.Series:
    """Return the distinct texts that are not ISO 8601."""
    parts = [pl.Series([], dtype=pl.String)]
    for column in columns:
        # The plain form is told by two letters; a pattern over all rows costs ten times as much.
        is_plain = (column.str.slice(4, 1) == "-") & (column.str.slice(10, 1) == "T")
        other = column.filter(~is_plain.fill_null(value=True))
        parts.append(other.alias("").str.strip_chars().unique(maintain_order=True))
    texts = pl.concat(parts)
    return texts.filter(~texts.str.contains(TIME_PATTERN))


def _is_possible(numeric: pl.Series, day: int, month: int) -> pl.Series:
    """Return where the numbers at these positions are a day and a month."""
    parts = numeric.str.extract_all(r"[0-9]+")
    days = parts.list.get(day).cast(pl.Int16, strict=False)
    months = parts.list.get(month).cast(pl.Int16, strict=False)
    return days.is_between(1, 31) & months.is_between(1, MAX_MONTH)


def _ask_for_order(
    numeric: pl.Series, is_day_first: pl.Series, is_month_first: pl.Series, file: str
) -> ReadingQuestion:
    days_only, months_only = is_day_first & ~is_month_first, is_month_first & ~is_day_first
    if not (days_only.any() and months_only.any()):
        return DayOrder(file=file, time=numeric[0])
    return DayOrder(
        file=file,
        time=numeric[0],
        day_first=numeric.filter(days_only)[0],
        month_first=numeric.filter(months_only)[0],
    )


UNSURE_WORDS = frozenset(
    {
        *("unknown", "unsure", "undecided", "uncertain", "unclear", "not sure", "don't know"),
        *("can't tell", "cannot tell", "skip", "skipped", "abstain", "abstained"),
    }
)
_STRONG, _WEAK = re.compile(r"[;|]"), re.compile(r"[;|,+/]")


def recognize_unsure(
    decided: Collection[str], predicted: Collection[str], file: str
) -> tuple[str, ...] | ReadingQuestion:
    """Return the labels of reviewers that mean "no answer", or what is open.

    If the model predicts such a label too, it can be a label like the others.

    >>> recognize_unsure(["bear", "Unsure"], ["bear"], "decisions.csv")
    ('Unsure',)
    """
    words = sorted(label for label in decided if label.strip().lower() in UNSURE_WORDS)
    shared = [label for label in words if label in predicted]
    if not shared:
        return tuple(words)
    return UnsureLabel(file=file, label=shared[0])


def find_several_labels(labels: Collection[str]) -> str | None:
    """Return a field that holds several labels, or None.

    Those are JSON lists, and labels joined by a sign of which a part is a label elsewhere.

    >>> find_several_labels(["bear", "deer", "bear;deer"]), find_several_labels(["a, b", "c"])
    ('bear;deer', None)
    """
    parts_by_label = {
        label: [part.strip() for part in _WEAK.split(label) if part.strip()] for label in labels
    }
    counts = Counter(part for parts in parts_by_label.values() for part in set(parts))
    return next(iter(_iterate_several(parts_by_label, counts)), None)


def _iterate_several(parts_by_label: dict[str, list[str]], counts: Counter[str]) -> Iterator[str]:
    for label, parts in parts_by_label.items():
        if _is_json_list(label):
            yield label
        elif len(parts) > 1:
            shared = [part in parts_by_label or counts[part] > 1 for part in parts]
            if any(shared) if _STRONG.search(label) else all(shared):
                yield label


def _is_json_list(label: str) -> bool:
    if not label.startswith("["):
        return False
    try:
        value = json.loads(label)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, list) and len(value) > 1
