"""What happened lately in all rollouts: the newest rows of the ledgers that moved, in words."""

from dataclasses import dataclass
from datetime import datetime

from rollout.core.events import Stopped
from rollout.core.ledger import Row, event_of
from rollout.core.rights import Act, Caller
from rollout.reports.timeline_words import Happening
from rollout.services.happened import FOR_ALL
from rollout.services.service import Service
from rollout.services.told import told
from rollout.services.watching import Watched
from rollout.store.ledger import Ledger
from rollout.store.session import Transaction

ROLLOUTS = 10
"""Ledgers that are looked into, those that moved last."""


@dataclass(frozen=True, slots=True)
class News:
    """One event of one rollout; `zone` is that of the site's clock."""

    rollout: str
    zone: str
    what: Happening


def lately(
    service: Service, caller: Caller, since: datetime | None, *, limit: int = 12
) -> tuple[News, ...]:
    """Return what happened after `since` at sites that the caller may read, the newest first.

    Args:
        service: the replica that is asked.
        caller: who asks.
        since: an instant; None for ever before.
        limit: of how many events at most.
    """
    moved = [w for w in service.watch.everything() if w.head.at is not None]
    mine = [w for w in moved if caller.may_somewhere(Act.READ, w.standing.rollout.name)]
    newer = [w for w in mine if since is None or (w.head.at or since) > since]
    newest = sorted(newer, key=_moved, reverse=True)[:ROLLOUTS]
    with service.database.reading() as transaction:
        found = [news for w in newest for news in _of(transaction, caller, w, since, limit)]
    return tuple(sorted(found, key=_newest, reverse=True)[:limit])


def _moved(watched: Watched) -> float:
    return 0.0 if watched.head.at is None else watched.head.at.timestamp()


def _newest(news: News) -> tuple[datetime, str, int]:
    return news.what.at, news.rollout, news.what.revision


def _of(
    transaction: Transaction, caller: Caller, watched: Watched, since: datetime | None, limit: int
) -> list[News]:
    stood = watched.standing
    name = stood.rollout.name
    ledger = Ledger(transaction, stood.rollout)
    rows = list(ledger.rows(after=max(0, watched.head.revision - limit)))
    said = told(transaction, stood, rows, watched.head.at)
    return [
        News(name, stood.policy.zone_of(h.site or ""), h)
        for row, h in zip(rows, said, strict=True)
        if (since is None or h.at > since) and _tells(caller, name, row, h)
    ]


def _tells(caller: Caller, name: str, row: Row, what: Happening) -> bool:
    """Say whether an event is told to a reader: it is about one of their sites, or about all."""
    if what.site is not None:
        return caller.may(Act.READ, name, what.site)
    event = event_of(row)
    if isinstance(event, FOR_ALL) or caller.may(Act.READ, name):
        return True
    cells = event.cells if isinstance(event, Stopped) else ()
    return any(caller.may(Act.READ, name, cell.site) for cell in cells)
