"""Draft the smallest policy that fits recorded files, for `rollout init`.

The draft has the levers, labels, sites and units of the records. Comments mark what the author must
decide: which labels must not be missed, and whether reviewers saw the prediction.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from math import ceil, floor
from operator import itemgetter

import polars as pl

from rollout.engine.evidence.frames import VALUE_PREFIX, RecordFrames
from rollout.engine.evidence.late_senders import LateSenders, find_late_senders
from rollout.kernel.calendar.instants import ALWAYS_WINDOW, OTHER_WINDOW, SHADOW
from rollout.kernel.errors import describe_value_error
from rollout.kernel.policy.evidence_sources import FileReading
from rollout.kernel.policy_files import fields
from rollout.kernel.units import EMPTY_SET, SEPARATOR

_PLAIN = re.compile(r"[\w.+][\w .+-]*", re.ASCII)


def draft_import(readings: Mapping[str, FileReading]) -> Iterator[str]:
    """Yield the lines of the section; none if every file has the documented form."""
    rows = [(kind, list(_list_entries(reading))) for kind, reading in readings.items()]
    if not any(entries for _, entries in rows):
        return
    yield "# How `init` read the files; replay, plan and import read them in the same way."
    yield "import:"
    for kind, entries in rows:
        if entries:
            yield f"  - records: {kind}"
            yield from (f"    {entry}" for entry in entries)


def _list_entries(reading: FileReading) -> Iterator[str]:
    if reading.encoding not in (None, "utf-8"):
        yield f"encoding: {quote_scalar(str(reading.encoding))}"
    if reading.delimiter is not None:
        delimiter = "tab" if reading.delimiter == "\t" else f'"{reading.delimiter}"'
        yield f"delimiter: {delimiter}"
    if reading.decimal == ",":
        yield 'decimal: ","'
    date_formats = [name for name in reading.date_formats or () if name != "iso"]
    if date_formats:
        yield f"date_format: [{', '.join(map(quote_scalar, date_formats))}]"
    if reading.percent:
        yield "percent: true"
    if unsure := [label for label in reading.unsure or () if label]:
        yield f"unsure: [{', '.join(map(quote_scalar, unsure))}]"
    if reading.exposure is not None:
        yield f"exposure: {reading.exposure}"
    yield from _draft_columns(reading)


def _draft_columns(reading: FileReading) -> Iterator[str]:
    sources = {
        **{name: quote_scalar(column) for name, column in reading.columns.items()},
        **{name: f"{{value: {quote_scalar(text)}}}" for name, text in reading.constants.items()},
    }
    if reading.attributes is not None:
        pairs = (
            f"{quote_scalar(name)}: {quote_scalar(column)}"
            for name, column in reading.attributes.items()
        )
        sources["attributes"] = f"{{{', '.join(pairs)}}}"
    if sources:
        yield "columns:"
        yield from (f"  {quote_scalar(name)}: {source}" for name, source in sources.items())


def quote_scalar(text: str) -> str:
    """Return a text as a YAML scalar, quoted unless it is a plain word."""
    is_plain = _PLAIN.fullmatch(text) and not text.endswith((" ", "-"))
    return text if is_plain else json.dumps(text, ensure_ascii=False)


NUMBER_TOLERANCE = 0.05
OTHER_TOLERANCES = (0.01, 0.02, 0.1)


def draft_number_lever(records: RecordFrames, lever: str, answers: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a lever; `answers` are its different numbers as text."""
    low, high = _find_range(answers)
    yield f"  - id: {quote_scalar(lever)}"
    yield f"    # {len(answers):,} different numbers, so no labels; write their unit at `in`"
    yield f"    # within {NUMBER_TOLERANCE:.0%} of the human's number is agreement"
    shares = _describe_shares(records, lever)
    if shares:
        yield f"    # {shares}"
    yield f"    number: {{in: units, from: {low}, to: {high}, tolerance: {NUMBER_TOLERANCE:.0%}}}"


def describe_number_lever(records: RecordFrames, lever: str, answers: Sequence[str]) -> str:
    """Return in one line what was chosen for a lever, and why."""
    low, high = _find_range(answers)
    shares = _describe_shares(records, lever)
    text = (
        f"{lever}: {len(answers):,} different numbers, so it is a number from {low:,} to {high:,},"
        f" not labels; the proposed tolerance is {NUMBER_TOLERANCE:.0%}"
    )
    return f"{text}: {shares}" if shares else text


def is_within_share(predicted: pl.Expr, decided: pl.Expr, tolerance: float) -> pl.Expr:
    """Return whether a predicted number is within a share of the decided one."""
    target = decided.cast(pl.Float64, strict=False)
    distance = (predicted.cast(pl.Float64, strict=False) - target).abs()
    return distance <= tolerance * target.abs()


def _find_range(answers: Sequence[str]) -> tuple[int, int]:
    numbers = [float(answer) for answer in answers]
    low, high = floor(min(numbers)), ceil(max(numbers))
    return low, max(high, low + 1)


def _describe_shares(records: RecordFrames, lever: str) -> str:
    """Describe how many pairs are within other tolerances; empty without pairs."""
    column = VALUE_PREFIX + lever
    decided = records.decisions.filter(~pl.col("unsure")).select("case_key", decided=column)
    predicted = records.predictions.filter(pl.col("version") == find_newest_version(records))
    predicted = predicted.select("case_key", predicted=column)
    pairs = predicted.join(decided, on="case_key").drop_nulls()
    if pairs.is_empty():
        return ""
    texts = []
    for tolerance in sorted((NUMBER_TOLERANCE, *OTHER_TOLERANCES)):
        close = is_within_share(pl.col("predicted"), pl.col("decided"), tolerance)
        share = pairs.select(close.fill_null(value=False).mean()).item()
        texts.append(f"{share:.1%} within {tolerance:.0%}")
    return f"of {pairs.height:,} pairs {', '.join(texts)}"


def find_set_levers(readings: Mapping[str, FileReading]) -> dict[str, tuple[str, ...]]:
    """Return the levers whose answers are sets, with their labels."""
    return {
        lever: labels
        for reading in readings.values()
        for lever, labels in reading.set_labels.items()
    }


def sort_set_labels(records: RecordFrames, lever: str, labels: Sequence[str]) -> list[str]:
    """Return the labels of a lever, most frequent first."""
    column = VALUE_PREFIX + lever
    answers = pl.concat([frame[column] for frame in (records.decisions, records.predictions)])
    shares = dict(compute_set_shares(answers, labels))
    return sorted(labels, key=lambda label: (-shares[label], label))


def compute_set_shares(answers: pl.Series, labels: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield the share of sets that have each label."""
    parts = answers.drop_nulls().str.split(SEPARATOR)
    for label in labels:
        count = int(parts.list.contains(label).sum())
        yield label, count / parts.len() if parts.len() else 0.0


TRAFFIC_HEAD = (
    "# Recorded traffic, for `rollout plan`; correct it if it will change. units_per_day",
    "# is of one cell without windows, labels and agreement are of all cells together.",
    "# With windows, or cases without a decision (gates count them as disagreements),",
    "# name the files: `rollout plan policy.yaml --predictions FILE --decisions FILE`.",
    "expect:",
)


def draft_set_lever(lever: str, labels: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a lever."""
    yield f"  - id: {quote_scalar(lever)}"
    yield f"    labels: [{', '.join(quote_scalar(label) for label in labels)}]"
    yield "    many: true    # an answer is a set of them; equal sets agree"
    yield "    # overlap: 80%    # to let sets agree that have so much of their labels in common"


def describe_set_lever(records: RecordFrames, lever: str, labels: Sequence[str]) -> str:
    """Return in one line what was chosen for a lever, and why."""
    answers = records.decisions[VALUE_PREFIX + lever].drop_nulls()
    empty = int((answers == EMPTY_SET).sum())
    several = int(answers.str.contains(SEPARATOR, literal=True).sum())
    return (
        f"{lever}: {several:,} of {answers.len():,} decisions hold several labels, and {empty:,}"
        f" none of them, so an answer is a set of {len(labels)} labels (`many: true`)"
    )


DAY = timedelta(days=1)
MIN_SHARE = 0.0005
"""Smallest share of a label that is drafted."""


def draft_expectation(
    records: RecordFrames,
    labels: Mapping[str, Sequence[str]],
    sites: Sequence[str],
    sets: Collection[str] = (),
) -> Iterator[str]:
    """Yield the lines of the section; none if nothing was recorded.

    Args:
        labels: by lever its labels, none for a number.
        sites: the sites of the policy; each is one cell.
        sets: the levers whose answers are sets of labels.
    """
    lines = [
        *_draft_rate(records, sites),
        *_draft_label_shares(records, labels, sets),
        *_draft_agreement(records, labels),
    ]
    if lines:
        yield from TRAFFIC_HEAD
        yield from (f"  {line}" for line in lines)


def _draft_rate(records: RecordFrames, sites: Sequence[str]) -> Iterator[str]:
    cases = records.cases.filter(pl.col("site").is_in(list(sites)))
    times = cases["occurred_at"].drop_nulls().sort()
    if not times.len():
        return
    days = max(1.0, (times[-1] - times[0]) / DAY)
    unit = pl.coalesce("episode", "case_key")
    units = cases.filter(pl.col("occurred_at").is_not_null()).select(unit.n_unique()).item()
    yield f"units_per_day: {units / days / len(sites):.3g}".replace("e+0", "e+")


def _draft_label_shares(
    records: RecordFrames, labels: Mapping[str, Sequence[str]], sets: Collection[str]
) -> Iterator[str]:
    shares = []
    for lever, lever_labels in labels.items():
        answers = records.decisions[VALUE_PREFIX + lever].drop_nulls()
        compute_shares = compute_set_shares if lever in sets else _compute_shares
        for label, share in compute_shares(answers, lever_labels):
            if share >= MIN_SHARE:
                name = label if len(records.levers) == 1 else f"{lever}/{label}"
                shares.append(f"{quote_scalar(name)}: {share:.1%}")
    if shares:
        yield f"labels: {{{', '.join(shares)}}}"


def _compute_shares(answers: pl.Series, labels: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield the share of each label."""
    answers = answers.filter(answers.is_in(list(labels)))
    for label in labels:
        yield label, int((answers == label).sum()) / answers.len() if answers.len() else 0.0


def _draft_agreement(records: RecordFrames, labels: Mapping[str, Sequence[str]]) -> Iterator[str]:
    names = [VALUE_PREFIX + lever for lever in records.levers]
    decided = records.decisions.filter(~pl.col("unsure")).select("case_key", *names)
    agrees = pl.all_horizontal(_build_agreement(lever, labels[lever]) for lever in labels)
    shares = {}
    for version in records.predictions.select(pl.col("version").unique().sort()).to_series():
        predicted = records.predictions.filter(pl.col("version") == version)
        pairs = predicted.select("case_key", *names).join(decided, on="case_key", suffix=" decided")
        if pairs.height:
            share = pairs.select(agrees.fill_null(value=False).mean()).item()
            shares[version] = (share, pairs.height)
    newest = find_newest_version(records, shares)
    if newest is not None:
        share, count = shares.pop(newest)
        name = f"{newest}, " if shares else ""
        yield f"agreement: {share:.1%}    # {name}of {count:,} pairs of prediction and decision"
        yield from (f"# {name}: {share:.1%} of {n:,} pairs" for name, (share, n) in shares.items())


def find_newest_version(
    records: RecordFrames, versions: Collection[str] | None = None
) -> str | None:
    """Return the version with the latest predicted case, of some or of all; None without any."""
    times = records.cases.select("case_key", "occurred_at")
    latest = (
        records.predictions.join(times, on="case_key")
        .group_by("version")
        .agg(pl.coalesce("at", "occurred_at").max().alias("at"))
        .sort("at", "version", nulls_last=False)
    )
    if versions is not None:
        latest = latest.filter(pl.col("version").is_in(list(versions)))
    return latest["version"][-1] if latest.height else None


def _build_agreement(lever: str, labels: Sequence[str]) -> pl.Expr:
    predicted, decided = pl.col(VALUE_PREFIX + lever), pl.col(f"{VALUE_PREFIX}{lever} decided")
    if labels:
        return predicted == decided
    return is_within_share(predicted, decided, NUMBER_TOLERANCE)


DRAFT_THRESHOLD = 0.95
MAX_LABELS = 20  # more different numbers than this are measured, not labels
_GRACE_QUANTILE = 0.999  # 99.5 % costs a good model ten days
_HOURS_IN_HOURS = 48  # a longer grace is drafted in days
_LATE_HOURS = 30 * 24  # a longer grace gets a comment
NO_READINGS: Mapping[str, FileReading] = {}
SetLevers = Mapping[str, tuple[str, ...]]
"""The labels of each lever whose answers are sets."""


def format_draft(
    records: RecordFrames,
    *,
    rollout: str,
    timezone: str,
    readings: Mapping[str, FileReading] = NO_READINGS,
) -> str:
    """Return the text of a valid policy for `records`, which have at least one case.

    `readings` has how the files are written, by kind of records.

    Raises:
        ValueError: `rollout` or `timezone` is invalid, or no case has a site or an answer.
    """
    fields.read_identifier(rollout), fields.read_zone(timezone)
    sets = find_set_levers(readings)
    blocks = (
        _draft_head(rollout, timezone),
        _draft_levers(records, sets),
        _draft_sites(records),
        _draft_evidence(records),
        _draft_gates(records, sets),
        draft_expectation(
            records,
            {lever: sets.get(lever) or _list_labels(records, lever) for lever in records.levers},
            _list_sites(records),
            sets,
        ),
        draft_import(readings),
    )
    return "\n".join(line for block in blocks for line in block) + "\n"


def describe_draft_levers(
    records: RecordFrames, readings: Mapping[str, FileReading] = NO_READINGS
) -> Iterator[str]:
    """Yield a line for each lever that is drafted as a number, or with sets of labels."""
    sets = find_set_levers(readings)
    for lever in records.levers:
        if lever in sets:
            yield describe_set_lever(records, lever, sets[lever])
            continue
        answers = _list_answers(records, lever)
        if answers and not _list_labels(records, lever):
            yield describe_number_lever(records, lever, answers)


def _draft_head(rollout: str, timezone: str) -> Iterator[str]:
    yield "# Drafted from recorded files. `rollout plan` prints the cases and days that it needs;"
    yield "# docs/reference/policy.md lists every key."
    yield f"rollout: {rollout}"
    yield f"timezone: {timezone}"


def _draft_levers(records: RecordFrames, sets: SetLevers) -> Iterator[str]:
    yield "levers:"
    for lever in records.levers:
        answers = _list_answers(records, lever)
        if not answers:
            raise ValueError(f"no record answers {lever}; read files that have predictions")
        if lever in sets:
            yield from draft_set_lever(lever, sort_set_labels(records, lever, sets[lever]))
        elif not _list_labels(records, lever):
            yield from draft_number_lever(records, lever, answers)
        else:
            yield f"  - id: {quote_scalar(lever)}"
            yield f"    labels: [{', '.join(quote_scalar(label) for label in answers)}]"


def _list_labels(records: RecordFrames, lever: str) -> list[str]:
    """Return the labels of a lever; none if its answers are many numbers."""
    answers = _list_answers(records, lever)
    is_number = len(answers) > MAX_LABELS and all(_is_number(text) for text in answers)
    return [] if is_number else answers


def _list_answers(records: RecordFrames, lever: str) -> list[str]:
    """Return the answers of humans and model that are valid labels, most frequent first."""
    column = VALUE_PREFIX + lever
    frames = [frame.select(column) for frame in (records.decisions, records.predictions)]
    counts = pl.concat(frames).drop_nulls().group_by(column).len()
    ordered = counts.sort(["len", column], descending=[True, False])[column].to_list()
    return [text for text in ordered if _is_valid_label(text)]


def _is_valid_label(label: str) -> bool:
    return label == label.strip() and not describe_value_error(fields.read_label, label)


def _is_number(text: str) -> bool:
    return not describe_value_error(fields.read_number, text)


def _draft_sites(records: RecordFrames) -> Iterator[str]:
    sites = records.cases["site"].drop_nulls().unique().sort().to_list()
    valid_sites = _list_sites(records)
    if not valid_sites:
        raise ValueError("no case has a site; map a column to `site`")
    yield f"sites: [{', '.join(quote_scalar(site) for site in valid_sites)}]"
    excluded = [site for site in sites if site not in valid_sites]
    if excluded:
        yield f"# excluded, because no policy can name them: {', '.join(map(repr, excluded))}"
    yield '# windows: [{id: day, hours: "06:00-18:00"}, {id: night, hours: 24/7}]   # a cell each'


def _list_sites(records: RecordFrames) -> list[str]:
    """Return the sites that a policy can name."""
    return [
        site
        for site in records.cases["site"].drop_nulls().unique().sort().to_list()
        if _is_valid_site(site)
    ]


def _is_valid_site(site: str) -> bool:
    is_reserved = site in {ALWAYS_WINDOW, OTHER_WINDOW, SHADOW}
    is_trimmed = site == site.strip()
    return is_trimmed and not is_reserved and not describe_value_error(fields.read_name, site)


def _draft_evidence(records: RecordFrames) -> Iterator[str]:
    yield "evidence:"
    has_episode = records.cases["episode"].is_not_null()
    if has_episode.any():
        yield "  unit: episode    # the records name them: a burst counts once"
        if not has_episode.all():
            yield "  # cases without one: ten times the usual burst makes one of them"
            yield "  episode_span: 10m"
    else:
        yield "  unit: case    # write episode if cases come in bursts, and an episode_span"
    yield from _draft_grace(records)
    yield from (
        "  # live, who sends the predictions could leave out cases that its model would get wrong;",
        "  # to prevent it, name the accounts whose cases count, as that of a camera or a desk:",
        "  # sources: {cases: [camera-1]}",
    )
    if (records.decisions["exposure"] == "unknown").any():
        yield from (
            "  # with unknown the recorded decisions are no evidence; write blind if no reviewer",
            "  # saw the prediction before deciding",
            "  outside: unknown",
        )


def _draft_grace(records: RecordFrames) -> Iterator[str]:
    hours, late_senders = _compute_grace_hours(records), find_late_senders(records)
    if hours is not None:
        text = f"{hours}h" if hours <= _HOURS_IN_HOURS else f"{ceil(hours / 24)}d"
        yield "  # 99.9 % of the recorded decisions and cases came within this time after the case;"
        yield "  # a case without a decision by then counts as a disagreement"
        if hours > _LATE_HOURS:
            yield "  # so long a time often means that the labels were made later; live, a unit"
            yield "  # counts only after its grace: write how soon your reviewers decide"
        yield f"  grace: {text}"
    if records.backtest:
        yield f"  # {records.backtest:,} predictions were made after the decisions, in a backtest:"
        yield "  # `rollout replay --backtest` counts them; in a service they are reports only"
    elif late_senders is not None:
        yield from _draft_vouching(late_senders)


def _draft_vouching(late: LateSenders) -> Iterator[str]:
    """Yield what late predictions look like, and the lines that would make them evidence."""
    counts = f"{late.late:,} of {late.decided:,} predictions"
    yield f"  # {counts} came after the first decision and count as missing:"
    yield f"  # it looks like {late.set_up}"
    if late.policy_lines:
        yield "  # if the sender doesn't see what humans decide, vouch for it by these two lines:"
        yield from (f"  # {line}" for line in late.policy_lines)


def _compute_grace_hours(records: RecordFrames) -> int | None:
    """Return the 99.9 % quantile of the delays of decisions and cases in hours, at least 1.

    It is rounded up; None without a time of a decision.
    """
    cases = records.cases.select("case_key", "occurred_at")
    joined = records.decisions.join(cases, on="case_key").drop_nulls(["at", "occurred_at"])
    received = records.cases.drop_nulls(["received_at", "occurred_at"])
    quantiles = [
        frame.select((pl.col(column) - pl.col("occurred_at")).dt.total_seconds() / 3600)
        .to_series()
        .quantile(_GRACE_QUANTILE, interpolation="higher")
        for frame, column in ((joined, "at"), (received, "received_at"))
    ]
    if quantiles[0] is None:
        return None
    return max(1, *(ceil(hours) for hours in quantiles if hours is not None))


def _draft_gates(records: RecordFrames, sets: SetLevers) -> Iterator[str]:
    yield "gates:"
    yield "  - to: supervised    # humans confirm; add a gate to autonomous once this has held"
    yield "    require:"
    yield f"      - {{measure: agreement, at_least: {DRAFT_THRESHOLD * 100:g}%}}"
    has_several_levers = len(records.levers) > 1
    for lever in records.levers:
        rare_labels = _find_rare_labels(records, lever, sets.get(lever))
        if rare_labels:
            label_texts = ", ".join(
                f"{quote_scalar(label)} ({share * 100:.2g} %)" for label, share in rare_labels[:4]
            )
            lever_text = f"lever: {quote_scalar(lever)}, " if has_several_levers else ""
            yield f"      # rare: {label_texts}"
            yield "      # a model that never predicts them can pass; to require one, add"
            rarest = quote_scalar(rare_labels[0][0])
            row = f"{{measure: recall, {lever_text}label: {rarest}, at_least: 80%}}"
            yield f"      # - {row}"


def _find_rare_labels(
    records: RecordFrames, lever: str, set_labels: tuple[str, ...] | None
) -> list[tuple[str, float]]:
    """Return labels so rare that agreement alone can pass without them, rarest first."""
    answers = records.decisions[VALUE_PREFIX + lever].drop_nulls()
    if set_labels is not None:
        set_shares = sorted(compute_set_shares(answers, set_labels), key=itemgetter(1, 0))
        return [(label, share) for label, share in set_shares if 0 < share <= 1 - DRAFT_THRESHOLD]
    counts = answers.value_counts()
    if counts.height > MAX_LABELS and all(
        _is_number(text) for text in counts[VALUE_PREFIX + lever]
    ):
        return []
    total = int(counts["count"].sum())
    shares = [
        (label, n / total) for label, n in counts.sort("count", VALUE_PREFIX + lever).iter_rows()
    ]
    return [
        (label, share)
        for label, share in shares
        if share <= 1 - DRAFT_THRESHOLD and _is_valid_label(label)
    ]
