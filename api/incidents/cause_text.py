"""Text of an incident's cause: its first sentence, its values, its populations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from markupsafe import Markup

from api.web_kit.page import ATTRIBUTE_PREFIX, format_site_time, format_time_span
from api.web_kit.page_context import Visitor
from rollout.engine.words.formatting import (
    format_count,
    format_interval,
    format_percent,
    format_percent_range,
    format_quantity,
    format_ratio,
    join_words,
)
from rollout.features.incidents.incident_causes import SITE, WINDOW, LoadedCause
from rollout.features.reports.figures.incident_cause import (
    IncidentCause,
    NewCaseValue,
    ValueFinding,
)
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.intervals import Share
from rollout.kernel.statistics.value_search import (
    ANSWER,
    ATTRIBUTE,
    ERROR_RATE,
    MIN_CASES,
    ComparedValue,
)

MAX_ROWS: Final = 10
"""Rows of values in a table; the API has more."""
NO_LINK: Final = ""
DOUBTS: Final = {
    "stands-out": "",
    "new": "New: can’t be told yet",
    "chance": "Could be chance",
}


@dataclass(frozen=True, slots=True)
class CauseRow:
    """A compared value: its cases and the others, formatted.

    `query` filters the divergences; `doubt` is "" for a value that can be the cause.
    """

    name: str
    query: str
    differing: str
    interval: str
    others: str
    before: str
    doubt: str


@dataclass(frozen=True, slots=True)
class CausePeriodRow:
    """Cases of a kind before the change and in the `later` times of the view, formatted."""

    name: str
    before: str
    later: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CauseView:
    """What a page says of a cause.

    Attributes:
        headline: the first sentence, with times.
        query: filters the divergences to what the headline names.
        link_note: what the link to them says if none has closed, else "".
        missing: which of its cases that list doesn't have yet; "" if it has all.
        span: from when to when the cases occurred.
        has_change: whether the figures are of a time since a change; else of the whole span.
        later: names of the times since the change.
        notes: what the search compared, and what it could not.
    """

    headline: Markup
    query: str
    link_note: str
    missing: str
    span: Markup
    has_change: bool
    later: tuple[str, ...]
    periods: tuple[CausePeriodRow, ...]
    rows: tuple[CauseRow, ...]
    notes: tuple[str, ...]


def build_cause_view(loaded: LoadedCause, policy: Policy, visitor: Visitor) -> CauseView:
    """Return the texts of a cause."""
    cause = loaded.cause
    standout = cause.standout
    rows = tuple(
        _build_row(finding, loaded, policy)
        for finding in cause.findings[: max(MAX_ROWS, len(cause.search.standouts))]
    )
    query = _build_query(loaded, policy)
    if standout is not None:
        query = _build_value_query(loaded, policy, standout.compared)
    elif cause.new_values:
        new_value = cause.new_values[0]
        query = _build_query(loaded, policy, **{ATTRIBUTE_PREFIX + new_value.kind: new_value.value})
    return CauseView(
        _build_headline(loaded, visitor),
        query,
        " (none closed yet)"
        if _has_none_closed(loaded, visitor.at - policy.evidence.grace)
        else "",
        _describe_missing_cases(loaded, policy.evidence.grace, visitor.at),
        Markup("from {} to {}").format(
            *(format_site_time(at, loaded.timezone, visitor) for at in (loaded.since, loaded.until))
        ),
        loaded.started_at is not None,
        ("Until the incident", "Since the incident") if loaded.opened_at else ("Since then",),
        tuple(_list_period_rows(loaded)),
        rows,
        tuple(_list_notes(loaded)),
    )


def _describe_missing_cases(loaded: LoadedCause, grace: timedelta, at: datetime) -> str:
    """Describe which cases of a cause the list of divergences lacks, since they haven't closed."""
    closed_before = at - grace
    if loaded.batch or loaded.until <= closed_before:  # batches are of closed cases
        return ""
    missing_text = "None is" if _has_none_closed(loaded, closed_before) else "The newest are not"
    return (
        f"{missing_text} listed there yet: a case is listed once it has closed, about"
        f" {format_time_span(grace)} after it began."
    )


def _has_none_closed(loaded: LoadedCause, closed_before: datetime) -> bool:
    return not loaded.batch and (loaded.started_at or loaded.since) > closed_before


def _build_headline(loaded: LoadedCause, visitor: Visitor) -> Markup:
    """Return the sentence that begins the page."""
    cause = loaded.cause
    total = cause.before.n + cause.since.n
    if not total:
        place = "around this incident" if loaded.opened_at else "in this time"
        return Markup("No case with a blind decision is counted {} yet.").format(place)
    standout = cause.standout
    began = loaded.started_at or loaded.since
    since = Markup("Since {}, ").format(format_site_time(began, loaded.timezone, visitor))
    if loaded.started_at is None and not cause.search.standouts:
        return since + Markup(
            "{} differs in {}. No cause is found yet: no rise is likely among the counted cases."
        ).format(loaded.version, _format_share(cause.since))
    if standout is not None:
        return since + _describe_standout(standout)
    if cause.new_values:
        return since + _describe_new_value(cause.new_values[0], cause)
    before = f", before in {format_ratio(cause.before)}" if cause.before.n else ""
    text = Markup("{} differs in {}{}.").format(loaded.version, _format_share(cause.since), before)
    return since + (text if loaded.batch else text + " No cause is found yet in their values.")


def _describe_standout(finding: ValueFinding) -> Markup:
    value = finding.compared
    text = Markup(
        "<strong>cases with {} differ in {} of {} ({}, {})</strong>;"
        " other cases in the same time in {} of {}"
    ).format(
        _name_value(value),
        *map(format_count, (value.count, value.n)),
        format_percent(value.count / value.n),
        format_percent_range(value.low, value.high),
        *map(format_count, (value.rest_count, value.rest_n)),
    )
    if finding.others_before.n:
        text += Markup(", before in {}").format(format_ratio(finding.others_before))
    if finding.before.n:
        text += Markup("; those with it before in {}").format(format_ratio(finding.before))
    return text + Markup(".")


def _describe_new_value(value: NewCaseValue, cause: IncidentCause) -> Markup:
    """Describe a new value that too few other cases allow to compare; its interval is its row's."""
    before, share_text = cause.before, _format_share(value.since)
    for finding in cause.findings:
        if finding.compared.key == ((ATTRIBUTE, value.kind), value.value):
            limits = format_percent_range(finding.compared.low, finding.compared.high)
            share_text = (
                f"{format_ratio(value.since)} ({format_percent(value.since.rate)}, {limits})"
            )
    text = Markup(
        "<strong>cases with {}, which did not occur before, differ in {}</strong>"
    ).format(f"{value.kind} = {value.value}", share_text)
    if value.others.n:
        text += f"; other cases in the same time in {format_ratio(value.others)}"
    if before.n:
        text += f"{',' if value.others.n else '; others'} before in {format_ratio(before)}"
    return text + ". Whether other cases differ as much now can’t be told yet."


def _format_share(share: Share) -> str:
    return f"{format_ratio(share)} ({format_percent(share.rate)}, {format_interval(share)})"


def _name_value(value: ComparedValue) -> str:
    return f"{value.kind} = {value.value}"


def _list_period_rows(loaded: LoadedCause) -> Iterator[CausePeriodRow]:
    cause = loaded.cause
    if loaded.started_at is None:
        return
    has_incident = loaded.opened_at is not None
    yield _build_period_row("All cases", cause, has_incident=has_incident)
    for finding in cause.findings:
        if finding.compared.is_standout:
            name = _name_value(finding.compared)
            yield _build_period_row(name, finding, has_incident=has_incident)


def _build_period_row(
    name: str, counted: IncidentCause | ValueFinding, *, has_incident: bool
) -> CausePeriodRow:
    """Return a row; without an incident all cases since the change are `during` it."""
    later = (counted.during, counted.after) if has_incident else (counted.during,)
    return CausePeriodRow(name, _format_cell(counted.before), tuple(map(_format_cell, later)))


def _format_cell(share: Share) -> str:
    if not share.n:
        return "none"
    return f"{format_ratio(share)} ({format_percent(share.rate)})"


def _build_row(finding: ValueFinding, loaded: LoadedCause, policy: Policy) -> CauseRow:
    value = finding.compared
    return CauseRow(
        _name_value(value),
        _build_value_query(loaded, policy, value),
        f"{format_count(value.count)} of {format_count(value.n)}",
        f"{format_percent(value.count / value.n)} ({format_percent_range(value.low, value.high)})",
        f"{format_count(value.rest_count)} of {format_count(value.rest_n)}",
        _format_cell(finding.before),
        describe_doubt(finding, loaded.cause.new_values),
    )


def describe_doubt(finding: ValueFinding, new_values: Sequence[NewCaseValue]) -> str:
    """Say why a value isn't named as the cause; "" if it can be."""
    if finding.verdict != "follows":
        return DOUBTS[finding.verdict]
    if finding.compared.source == ANSWER:
        return "Stands out, but an answer follows from its case"
    return f"Stands out only with {new_values[0].kind} = {new_values[0].value}"


def _list_notes(loaded: LoadedCause) -> Iterator[str]:
    """Yield what was compared, how surely, and what was not."""
    cause = loaded.cause
    number = len(cause.search.values)
    yield (
        "One population: decisions given without seeing the answer, one per unit, of cases that"
        " nobody may still be asked about."
    )
    if loaded.batch:
        yield (
            f"Because you may be asked for blind reviews here, figures move in batches of"
            f" {loaded.batch} closed cases, and values of the cases are not compared."
        )
    if number:
        yield (
            f"{format_quantity(number, 'value')} with at least {MIN_CASES} cases"
            f" {'was' if number == 1 else 'were'} compared with all other cases of the same time."
            f" The chance that any stands out without cause is at most"
            f" {format_percent(ERROR_RATE, 0)}; the intervals are wide enough for all of them."
        )
    if number and not cause.search.standouts:
        yield _describe_visible_difference(cause.findings)
    names = [name for _, name in cause.search.uncompared]
    if names and cause.since.n:
        yield f"Not comparable, as no value has enough cases on both sides: {join_words(names)}."
    for (_, name), left in cause.search.omitted:
        yield f"{format_quantity(left, 'rarer value')} of {name} left out."
    new_values = [f"{value.kind} = {value.value}" for value in cause.new_values]
    if new_values and (cause.search.standouts or len(new_values) > 1):
        yield f"New since then: {join_words(new_values)}."


def _describe_visible_difference(findings: tuple[ValueFinding, ...]) -> str:
    """Return which difference the search would have found, for the value that allows the least."""
    visible = [f for f in findings if f.visible_difference is not None]
    if not visible:
        return "No compared value stands out, but with so few cases no difference could have."
    best = min(visible, key=lambda finding: finding.visible_difference or 0.0)
    points = 100 * (best.visible_difference or 0.0)
    return (
        f"No compared value stands out. With {format_quantity(best.compared.n, 'case')}"
        f" ({_name_value(best.compared)}) a difference of {points:.0f} points would have been found"
        f" 8 times in 10."
    )


def _build_query(loaded: LoadedCause, policy: Policy, **fields: str) -> str:
    """Return the URL query of the divergences of the counted cases, without a value.

    A reader of whole batches gets days: times would move by single cases.
    """
    began = loaded.started_at or loaded.since
    span = {"since": began.isoformat(), "until": loaded.until.isoformat()}
    if loaded.batch:
        span = {"since": began.astimezone(ZoneInfo(policy.timezone)).date().isoformat()}
    base = {"version": loaded.version, "site": loaded.site, "window": loaded.window}
    base = {name: value for name, value in base.items() if value}
    base |= {ATTRIBUTE_PREFIX + name: value for name, value in loaded.attributes.items()}
    return "?" + urlencode({**base, **span, **fields})


def _build_value_query(loaded: LoadedCause, policy: Policy, value: ComparedValue) -> str:
    """Return the URL query of a value's divergences, "" if they have no such filter."""
    if value.source == ATTRIBUTE:
        return _build_query(loaded, policy, **{ATTRIBUTE_PREFIX + value.kind: value.value})
    if value.source in {SITE, WINDOW}:
        return _build_query(loaded, policy, **{value.source: value.value})
    if value.source == ANSWER and len(policy.levers) == 1:
        return _build_query(loaded, policy, human=value.value)
    return NO_LINK
