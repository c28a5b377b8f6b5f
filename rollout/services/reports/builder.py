"""Reports of a running service, made from its store, sealed and kept.

A report that says nothing new is not made again: who asks is given the one that is there.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Final

from rollout.core.errors import StaleRevision
from rollout.core.scope.events import ReportSealed
from rollout.core.scope.scope import ENGINE
from rollout.reports.figures.facts import SCHEMA, Facts, facts_of
from rollout.reports.figures.report_version import MOST, canonical, changes, hash_of
from rollout.reports.pages.divergences_csv import divergences_csv
from rollout.reports.pages.json_report import plain
from rollout.services.engine.revision_retry import retried
from rollout.services.engine.rollout_state import Standing, standing
from rollout.services.reports.inputs import NothingToReport, Span, stored_inputs, whole_span
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.records.external_keys import CallerKeys
from rollout.store.records.recent_units import Newest
from rollout.store.reports.reports import LONGEST, Report, Reports

VIEWS: Final = ("operator", "engineer", "auditor")


@dataclass(frozen=True, slots=True)
class Asked:
    """A report that is asked for.

    Attributes:
        since, until: of the cases that occurred from one up to the other; by default from the
            rollout's beginning up to the last slot of its tick.
        view: who it is for first: `operator`, `engineer` or `auditor`.
    """

    since: datetime | None = None
    until: datetime | None = None
    view: str = VIEWS[0]


@dataclass(frozen=True, slots=True)
class Made:
    """A report with its number; `new` is False where it says nothing that was not kept before."""

    number: int
    report: Report
    new: bool


@dataclass(frozen=True, slots=True)
class By:
    """Who has a report made, and the revision of the house chain that their rights stand in."""

    name: str = ENGINE
    house: int | None = None


Beside = Callable[[Transaction, Made], None]
"""What is written with a new report, in the same transaction."""


def make_report(
    database: Database,
    rollout: str,
    name: str,
    asked: Asked,
    at: datetime,
    *,
    by: By | None = None,
    beside: Beside | None = None,
) -> Made:
    """Make a report, seal it and keep it; where nothing has changed, return the last version.

    Args:
        database: where the rollout is.
        rollout: its name.
        name: of the report; the same name and span make a further version of the same report.
        asked: its span and view.
        at: now.
        by: who has it made, by default the engine itself.
        beside: what is to be written with a new version.

    Raises:
        NoSuchRolloutError: there is no such rollout.
        NothingToReport: the span or the name is none that a report could be of.
        StaleRevision: somebody else made the same at every try.
    """
    _check(name, asked)
    return retried(lambda: _once(database, rollout, name, asked, at, by or By(), beside))


def _check(name: str, asked: Asked) -> None:
    if not (0 < len(name) <= LONGEST and name.isprintable() and name == name.strip()):
        raise NothingToReport(f"name it in 1 to {LONGEST} printable letters")
    if asked.view not in VIEWS:
        raise NothingToReport(f"no view {asked.view}; there is {', '.join(VIEWS)}")
    for time in (asked.since, asked.until):
        if time is not None and time.utcoffset() is None:
            raise NothingToReport(f"{time.isoformat()} has no zone; add its offset")


def _once(
    database: Database,
    rollout: str,
    name: str,
    asked: Asked,
    at: datetime,
    by: By,
    beside: Beside | None,
) -> Made:
    with database.reading() as transaction:
        state = standing(transaction, rollout)
        period = _span(transaction, state, asked, at)
        inputs = replace(
            stored_inputs(transaction, state, period), media=partial(_media, database, state)
        )
        last_report = Reports(transaction, state.rollout).last(name, period.since, period.until)
    divergences_csv_bytes = divergences_csv(inputs)
    facts = facts_of(inputs)
    edition = replace(
        facts.edition, name=name, divergences_sha256=hash_of(divergences_csv_bytes.decode())
    )
    report = _report(
        replace(facts, edition=edition),
        period,
        asked.view,
        divergences_csv_bytes.decode(),
        last_report,
    )
    if report is None:
        assert last_report is not None  # noqa: S101 - it says the same as this one
        return Made(*last_report, new=False)
    with database.writing() as transaction:
        created_report = _seal(transaction, state, report, by)
        if beside is not None:
            beside(transaction, created_report)
    return created_report


def _media(
    database: Database, stood: Standing, keys: Collection[str]
) -> Mapping[str, tuple[str, ...]]:
    """Return what the media of some cases are, those of a case by their names."""
    with database.reading() as transaction:
        case_ids = CallerKeys(transaction, stood.rollout).find(keys)
        cases = Newest(transaction, stood.rollout).cases(case_ids.values())
    return {
        case.key: tuple(case.media[media_name] for media_name in sorted(case.media))
        for case in cases.values()
        if case.media
    }


def _span(transaction: Transaction, stood: Standing, asked: Asked, at: datetime) -> Span:
    whole_period = whole_span(transaction, stood, at)
    period = Span(asked.since or whole_period.since, asked.until or whole_period.until, at)
    if period.until > at:
        raise NothingToReport(f"{period.until.isoformat()} is yet to come; let the span end by now")
    return period


def _report(
    facts: Facts, span: Span, view: str, table: str, last: tuple[int, Report] | None
) -> Report | None:
    """Return the version that follows, None where it would say what the last one says."""
    version = 1
    if last is not None:
        version = last[1].version + 1
        changed_figures = changes(json.loads(last[1].body), plain(facts))
        if not changed_figures and table == last[1].divergences:
            return None
        edition = replace(
            facts.edition,
            version=version,
            changed=changed_figures[:MOST],
            more_changed=max(0, len(changed_figures) - MOST),
        )
        facts = replace(facts, edition=edition)
    return Report(
        name=facts.edition.name,
        since=span.since,
        until=span.until,
        version=version,
        state=facts.edition.state,
        due=facts.edition.due,
        view=view,
        schema=SCHEMA,
        body=canonical(plain(facts)),
        divergences=table,
        made_at=span.at,
        sealed_in=0,
    )


def _seal(transaction: Transaction, stood: Standing, report: Report, by: By) -> Made:
    """Write a version and its hash, unless somebody else has just made one."""
    ledger, store = Ledger(transaction, stood.rollout), Reports(transaction, stood.rollout)
    event = ReportSealed(
        at=report.made_at,
        by=by.name,
        report=report.name,
        since=report.since,
        until=report.until,
        number=report.version,
        state=report.state,
        sha256=report.hash,
    )
    head = ledger.head()
    (row,) = ledger.append([event], after=head.revision, access_head=by.house)
    last_report = store.last(report.name, report.since, report.until)
    if (0 if last_report is None else last_report[1].version) != report.version - 1:
        raise StaleRevision(f"{report.name} was just made by somebody else; ask again")
    sealed_report = replace(report, sealed_in=row.revision)
    return Made(store.seal(sealed_report), sealed_report, new=True)


def faults_of_seals(transaction: Transaction, rollout: Rollout) -> Iterator[str]:
    """Yield what is wrong with each report that is not what was sealed, or that is gone."""
    reports = Reports(transaction, rollout)
    stored_seals = reports.sealed_in()
    rows = Ledger(transaction, rollout).rows(kinds={ReportSealed.__name__})
    sealed_hashes = {row.revision: str(row.fields["sha256"]) for row in rows}
    for revision in sorted(sealed_hashes.keys() - stored_seals.keys()):
        yield f"the report that revision {revision} sealed is not there"
    for revision, (report_number, stored_hash) in sorted(stored_seals.items()):
        report = reports.get(report_number)
        if report is None or (report.hash, stored_hash) != (sealed_hashes.get(revision),) * 2:
            yield f"report {report_number} is not what revision {revision} sealed"
        elif _table_named(report) != sha256(report.divergences.encode()).hexdigest():
            yield f"the divergences of report {report_number} are not those that it names"


def _table_named(report: Report) -> str:
    return str(json.loads(report.body)["edition"]["divergences_sha256"])
