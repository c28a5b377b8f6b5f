"""The reports of all rollouts that somebody may read, newest first; and where one of them went.

A list says what was made, and nothing of what it says: only reading a report shows cases.
"""

import csv
import io
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from rollout.core.errors import NotAllowed, Refusal, StaleRevision
from rollout.core.records.reviews import PREDICTION, VERDICTS
from rollout.core.scope.events import ReportSealed
from rollout.core.scope.permissions import Act, Caller, require
from rollout.reports.figures.facts import Facts
from rollout.reports.figures.report_version import CASE_FIELDS, canonical
from rollout.reports.inputs.table_cells import said_in
from rollout.reports.pages.html_report import html_report
from rollout.reports.pages.markdown_report import markdown_report
from rollout.services.engine.rollout_state import Standing, standing
from rollout.services.reports.builder import Asked, By, Made, make_report
from rollout.services.reviews.exposure import hidden_from, record_shown
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger
from rollout.store.records.exposures import Shown as Told
from rollout.store.reports.deliveries import deliveries_of_report
from rollout.store.reports.reports import Brief, Report, Reports

FORMS: Final = ("html", "json", "csv", "markdown")
PAGE = "report"
HOUR, MOST_AN_HOUR = timedelta(hours=1), 60
_FACTS: TypeAdapter[Facts] = TypeAdapter(Facts)


class TooManyReports(Refusal):
    """Each is kept for ever, and so is its row of the ledger."""

    code = "too-many-requests"


class UnknownReport(Refusal):
    """There is no report of that number."""

    code = "unknown-report"


class OlderReport(Refusal):
    """An earlier program made it, in a form that this one shows as JSON and CSV alone."""

    code = "older-report"


def ask_report(
    database: Database, caller: Caller, rollout: str, name: str, asked: Asked, at: datetime
) -> Made:
    """Make a report for somebody who may read every site: it is of all of them.

    Raises:
        NotAllowed: they may not.
        UnknownRollout: there is none that they may see.
        NothingToReport: the span or the name is none that a report could be of.
        TooManyReports: they had `MOST_AN_HOUR` sealed within the last hour.
    """
    state = _readable(database, caller, rollout)
    with database.reading() as transaction:
        ledger = Ledger(transaction, state.rollout)
        recent_count = ledger.told_by(caller.name, ReportSealed.__name__, since=at - HOUR)
    if recent_count >= MOST_AN_HOUR:
        raise TooManyReports(
            f"you had {recent_count} reports made within an hour, which stay; wait a while"
        )
    actor = By(caller.name, caller.house)
    return make_report(database, rollout, name, asked, at, by=actor)


def reports_of(
    database: Database,
    caller: Caller,
    rollout: str,
    *,
    name: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[Brief]:
    """Return reports, newest first, from before a number on; of one name, or all.

    Raises:
        NotAllowed: the caller may not read every site.
        UnknownRollout: there is none that they may see.
    """
    state = _readable(database, caller, rollout)
    with database.reading() as transaction:
        reports = Reports(transaction, state.rollout).before(before, name=name, limit=limit)
    return list(reports)


def brief(made: Made) -> Brief:
    """Return a report that was just made as a list shows it."""
    summary_fields = {name: getattr(made.report, name) for name in Brief.__slots__ if name != "id"}
    return Brief(id=made.number, **summary_fields)


@dataclass(frozen=True, slots=True)
class Shown:
    """A report as its reader may see it.

    Attributes:
        number: of the report.
        report: as it is kept.
        body: as plain values, without the rows of cases that are kept back from the reader.
        divergences: the same as CSV.
        kept_back: how many cases are; where there are any, the body's hash is not the sealed one.
    """

    number: int
    report: Report
    body: Mapping[str, Any]
    divergences: str
    kept_back: int


def report_of(database: Database, caller: Caller, rollout: str, number: int, at: datetime) -> Shown:
    """Return one report, and note which of its cases the reader is shown.

    Raises:
        NotAllowed: the caller may not read every site.
        UnknownRollout: there is none that they may see.
        UnknownReport: there is none of that number.
        StaleRevision: a case was put before them just now; ask again.
    """
    state = _readable(database, caller, rollout)
    with database.reading() as transaction:
        report = Reports(transaction, state.rollout).get(number)
        if report is None:
            raise UnknownReport(f"{rollout} has no report {number}; `GET reports` lists them")
        body = json.loads(report.body)
        keys = {*_cases_in(body), *_cases_of(report.divergences)}
        hidden_keys = hidden_from(transaction, state, caller, keys, at)
    _note(database, state, caller, keys - hidden_keys, report, at)
    return Shown(
        number=number,
        report=report,
        body=without(body, hidden_keys),
        divergences=_rows_without(report.divergences, hidden_keys),
        kept_back=len(hidden_keys),
    )


def _readable(database: Database, caller: Caller, rollout: str) -> Standing:
    require(caller, Act.READ, rollout)
    with database.reading() as transaction:
        state = standing(transaction, rollout)
    require_every_site(caller, state)
    return state


def require_every_site(caller: Caller, stood: Standing) -> None:
    """Let pass who may read every site: no report is of fewer.

    Raises:
        NotAllowed: they may not; the text says who can change that, and what they may read.
    """
    rollout_name, sites = stood.rollout.name, tuple(stood.policy.site)
    readable_sites = [site for site in sites if caller.may(Act.READ, rollout_name, site)]
    if len(readable_sites) < len(sites):
        raise NotAllowed(
            f"a report covers every site of {rollout_name}, and {caller.name} may read"
            f" {', '.join(readable_sites) or 'none'} alone: ask an admin for the role that reads"
            f" the others (`rollout users grant-role {caller.name} viewer --rollout"
            f" {rollout_name}`); without it, use `cells`, `cases`, `incidents` and `cleanings` for"
            " your sites"
        )


def _note(
    database: Database,
    stood: Standing,
    caller: Caller,
    keys: Collection[str],
    report: Report,
    at: datetime,
) -> None:
    """Note the cases that rows are of, and up to when figures tell: evidence has no beginning."""
    if caller.machine:
        return
    with database.writing() as transaction:
        Told(transaction, stood.rollout).tell(caller.name, report.until, page=PAGE)
        for content in (PREDICTION, VERDICTS):
            record_shown(transaction, stood, caller, keys, what=content, page=PAGE, at=at)
        if hidden_from(transaction, stood, caller, keys, at):  # they took one meanwhile
            raise StaleRevision("you have just been given one of these cases; ask again")


def _cases_in(value: Any) -> Iterator[str]:
    """Yield the keys of the cases that a report's rows are of."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _cases_in(item)
    elif isinstance(value, list):
        for row in value:
            if isinstance(row, Mapping):
                yield from (row[name] for name in CASE_FIELDS if isinstance(row.get(name), str))
            yield from _cases_in(row)


def without(value: Any, hidden: Collection[str]) -> Any:
    """Return plain values without the rows that are of some cases.

    >>> without({"top": [{"case_key": "a"}, {"case_key": "b"}]}, {"a"})
    {'top': [{'case_key': 'b'}]}
    """
    if not hidden:
        return value
    if isinstance(value, Mapping):
        return {name: without(item, hidden) for name, item in value.items()}
    if isinstance(value, list):
        return [without(item, hidden) for item in value if not _of_hidden(item, hidden)]
    return value


def _of_hidden(row: Any, hidden: Collection[str]) -> bool:
    return isinstance(row, Mapping) and any(row.get(name) in hidden for name in CASE_FIELDS)


def _cases_of(table: str) -> Iterator[str]:
    for row in csv.DictReader(io.StringIO(table)):
        yield said_in(row["case_key"])


def _rows_without(table: str, hidden: Collection[str]) -> str:
    if not hidden:
        return table
    rows = csv.DictReader(io.StringIO(table))
    output = io.StringIO()
    writer = csv.DictWriter(output, rows.fieldnames or (), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for row in rows if said_in(row["case_key"]) not in hidden)
    return output.getvalue()


# Forms


def written(shown: Shown, form: str, view: str | None = None) -> bytes:
    """Return a report in one of `FORMS`.

    Args:
        shown: the report as its reader may see it.
        form: `html`, `json`, `csv` (of all divergences) or `markdown`.
        view: of HTML the part for one reader, by default the report's own.

    Raises:
        OlderReport: it can't be shown as HTML or Markdown any more.
    """
    if form == "csv":
        return shown.divergences.encode()
    if form == "json":
        return json_of(shown).encode()
    facts = facts_of_body(shown.body)
    if form == "markdown":
        return markdown_report(facts).encode()
    return html_report(facts, view).encode()


def json_of(shown: Shown) -> str:
    """Return the report as JSON text: sealed, it is the very text whose hash is cited."""
    return canonical(shown.body)


def facts_of_body(body: Mapping[str, Any]) -> Facts:
    """Return the facts that a kept body says.

    Raises:
        OlderReport: it lacks what this program's reports say.
    """
    try:
        return _FACTS.validate_python(body)
    except ValidationError as error:
        made_by = body.get("identity", {}).get("product", "an earlier program")
        raise OlderReport(
            f"{made_by} made it in another form; read it as JSON or CSV, or have it made again"
        ) from error


@dataclass(frozen=True, slots=True)
class Kept:
    """A report of a rollout, as a list shows it, and the zone of its policy."""

    rollout: str
    zone: str
    report: Brief


@dataclass(frozen=True, slots=True)
class Shelf:
    """Some reports, newest first.

    Attributes:
        items: of this page.
        before: where the next page goes on, None at the end.
        rollouts: whose reports the reader may read, by name, each with its zone.
        withheld: rollouts that the reader sees at some sites alone; their reports are of all.
    """

    items: tuple[Kept, ...]
    before: int | None
    rollouts: dict[str, str]
    withheld: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sent:
    """A report on its way to a channel: waiting, sent or failed; `error` is of the last try."""

    channel: str
    state: str
    reason: str
    attempts: int
    queued_at: datetime
    next_at: datetime | None
    sent_at: datetime | None
    error: str


def shelf(
    database: Database, caller: Caller, *, before: int | None = None, limit: int = 25
) -> Shelf:
    """Return reports of every rollout whose sites the caller may all read.

    Args:
        database: where they are kept.
        caller: who asks.
        before: the number that the page before ended at.
        limit: how many at most.
    """
    with database.reading() as transaction:
        rollout_names = sorted(rollout.name for rollout in Rollouts(transaction).all())
    reports: list[Kept] = []
    timezones: dict[str, str] = {}
    withheld_rollouts = []
    for rollout_name in rollout_names:
        if not caller.may_somewhere(Act.READ, rollout_name):
            continue
        try:
            summaries = reports_of(database, caller, rollout_name, before=before, limit=limit + 1)
        except NotAllowed:
            withheld_rollouts.append(rollout_name)
            continue
        timezones[rollout_name] = _zone(database, rollout_name)
        reports += [Kept(rollout_name, timezones[rollout_name], summary) for summary in summaries]
    sorted_reports = sorted(reports, key=lambda listed_report: -listed_report.report.id)
    page = tuple(sorted_reports[:limit])
    next_before = page[-1].report.id if len(sorted_reports) > limit else None
    return Shelf(page, next_before, timezones, tuple(withheld_rollouts))


def kept_report(database: Database, caller: Caller, rollout: str, number: int) -> Kept:
    """Return one report as a list shows it; nothing of what it says is shown.

    Raises:
        NotAllowed: the caller may not read every site.
        UnknownRollout: there is none that they may see.
        UnknownReport: there is none of that number.
    """
    summaries = reports_of(database, caller, rollout, before=number + 1, limit=1)
    if not summaries or summaries[0].id != number:
        raise UnknownReport(
            f"{rollout} has no report {number}; the list of reports has those there are"
        )
    return Kept(rollout, _zone(database, rollout), summaries[0])


def sent_of(database: Database, caller: Caller, rollout: str, number: int) -> tuple[Sent, ...]:
    """Return where a report went, in the order in which it was queued.

    Raises:
        NotAllowed, UnknownRollout, UnknownReport: as for `kept_report`.
    """
    kept_report(database, caller, rollout, number)
    with database.reading() as transaction:
        own = standing(transaction, rollout).rollout
        deliveries = deliveries_of_report(transaction, own, number)
    return tuple(
        Sent(
            channel=delivery.letter.channel,
            state=delivery.state,
            reason=delivery.letter.reason,
            attempts=delivery.attempts,
            queued_at=delivery.queued_at,
            next_at=delivery.next_at,
            sent_at=delivery.sent_at,
            error=delivery.error,
        )
        for delivery in deliveries
    )


def _zone(database: Database, name: str) -> str:
    with database.reading() as transaction:
        return standing(transaction, name).policy.timezone
