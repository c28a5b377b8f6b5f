"""Draft the smallest policy that fits recorded files, for `rollout init`.

The draft has the levers, labels, sites and units of the records. Comments mark what the author
must decide: which labels must not be missed, and whether reviewers saw the prediction.
"""

from collections.abc import Iterator, Mapping
from math import ceil
from operator import itemgetter

import polars as pl

from rollout.core.calendar.sites import ALWAYS_WINDOW, OTHER_WINDOW, SHADOW
from rollout.core.policy.file_readings import FileReading
from rollout.formats.policy import scalars
from rollout.formats.policy.draft_parts import (
    compute_set_shares,
    describe_number_lever,
    describe_set_lever,
    draft_expectation,
    draft_import,
    draft_number_lever,
    draft_set_lever,
    find_set_levers,
    quote_scalar,
    sort_set_labels,
)
from rollout.tally.frames import VALUE_PREFIX, RecordFrames
from rollout.tally.late_senders import LateSenders, find_late_senders

DRAFT_THRESHOLD = 0.95
MAX_LABELS = 20  # more different numbers than this are measured, not labels
_GRACE_QUANTILE = 0.999  # 99.5 % costs a good model ten days
_HOURS_IN_HOURS = 48  # a longer grace is drafted in days
_LATE_HOURS = 30 * 24  # a longer grace gets a comment
NO_READINGS: Mapping[str, FileReading] = {}
SetLevers = Mapping[str, tuple[str, ...]]
"""The labels of each lever whose answers are sets."""


def draft_policy(
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
    scalars.read_identifier(rollout), scalars.read_zone(timezone)
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
    try:
        return scalars.read_label(label.strip()) == label
    except ValueError:
        return False


def _is_number(text: str) -> bool:
    try:
        scalars.read_number(text)
    except ValueError:
        return False
    return True


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
    sites = records.cases["site"].drop_nulls().unique().sort().to_list()
    return [site for site in sites if _is_valid_site(site)]


def _is_valid_site(site: str) -> bool:
    try:
        return scalars.read_name(site.strip()) == site and site not in {
            ALWAYS_WINDOW,
            OTHER_WINDOW,
            SHADOW,
        }
    except ValueError:
        return False


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
    if (records.decisions["exposure"] == "unknown").any():
        yield "  # with unknown the recorded decisions are no evidence; write blind if no reviewer"
        yield "  # saw the prediction before deciding"
        yield "  outside: unknown"


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
