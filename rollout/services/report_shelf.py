"""The reports of all rollouts that somebody may read, newest first; and where one of them went.

A list says what was made, and nothing of what it says: only reading a report shows cases.
"""

from dataclasses import dataclass
from datetime import datetime

from rollout.core.errors import NotAllowed
from rollout.core.rights import Act, Caller
from rollout.services.kept_reports import UnknownReport, reports_of
from rollout.services.standing import standing
from rollout.store.report_deliveries import deliveries_of_report
from rollout.store.reports import Brief
from rollout.store.rollouts import Rollouts
from rollout.store.session import Database


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
        names = sorted(known.name for known in Rollouts(transaction).all())
    found: list[Kept] = []
    zones: dict[str, str] = {}
    withheld = []
    for name in names:
        if not caller.may_somewhere(Act.READ, name):
            continue
        try:
            briefs = reports_of(database, caller, name, before=before, limit=limit + 1)
        except NotAllowed:
            withheld.append(name)
            continue
        zones[name] = _zone(database, name)
        found += [Kept(name, zones[name], brief) for brief in briefs]
    newest = sorted(found, key=lambda kept: -kept.report.id)
    some = tuple(newest[:limit])
    further = some[-1].report.id if len(newest) > limit else None
    return Shelf(some, further, zones, tuple(withheld))


def kept_report(database: Database, caller: Caller, rollout: str, number: int) -> Kept:
    """Return one report as a list shows it; nothing of what it says is shown.

    Raises:
        NotAllowed: the caller may not read every site.
        UnknownRollout: there is none that they may see.
        UnknownReport: there is none of that number.
    """
    found = reports_of(database, caller, rollout, before=number + 1, limit=1)
    if not found or found[0].id != number:
        raise UnknownReport(
            f"{rollout} has no report {number}; the list of reports has those there are"
        )
    return Kept(rollout, _zone(database, rollout), found[0])


def sent_of(database: Database, caller: Caller, rollout: str, number: int) -> tuple[Sent, ...]:
    """Return where a report went, in the order in which it was queued.

    Raises:
        NotAllowed, UnknownRollout, UnknownReport: as for `kept_report`.
    """
    kept_report(database, caller, rollout, number)
    with database.reading() as transaction:
        own = standing(transaction, rollout).rollout
        found = deliveries_of_report(transaction, own, number)
    return tuple(
        Sent(
            channel=one.letter.channel,
            state=one.state,
            reason=one.letter.reason,
            attempts=one.attempts,
            queued_at=one.queued_at,
            next_at=one.next_at,
            sent_at=one.sent_at,
            error=one.error,
        )
        for one in found
    )


def _zone(database: Database, name: str) -> str:
    with database.reading() as transaction:
        return standing(transaction, name).policy.timezone
