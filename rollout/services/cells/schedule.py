"""The schedule of a rollout, as API and console show it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from rollout.core.errors import RefusalError
from rollout.core.scope.events import Stopped
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.core.scope.schedule import ScheduleEntry, limit_to_sites, list_schedule
from rollout.reports.text.state_text import describe_entry
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger


def load_last_drills(transaction: Transaction, state: RolloutState) -> dict[str, datetime]:
    """Return the time of the last stop drill by site, also if of one window."""
    ledger = Ledger(transaction, state.rollout)
    last_drills: dict[str, datetime] = {}
    for event in ledger.list_of(Stopped, until=state.scope.revision):
        if event.drill:
            last_drills.update(dict.fromkeys((cell.site for cell in event.cells), event.at))
    return last_drills


DEFAULT_DAYS: Final = 31
MAX_DAYS: Final = 92


@dataclass(frozen=True, slots=True)
class ScheduledEntry:
    """Something that will happen in a rollout.

    Attributes:
        kind: wave, freeze, start, end, grant, expiry, effect, report or drill.
        at: when it happens or begins.
        until: end of a freeze, else null.
        sites: where; [] means the whole rollout.
        window: of one cell, else "".
        subject: number of a wave, hours of a freeze, stage of a grant, id of a proposal, name of a
            report, which drill (first, due, overdue); else "".
        text: the entry in words.
    """

    kind: str
    at: datetime
    until: datetime | None
    sites: tuple[str, ...]
    window: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class RolloutSchedule:
    """What will happen up to `until`, by time, if nothing else happens before."""

    items: tuple[ScheduledEntry, ...]
    until: datetime


def load_schedule(
    service: Service,
    caller: Caller,
    rollout_name: str,
    *,
    at: datetime,
    days: int = DEFAULT_DAYS,
) -> RolloutSchedule:
    """Return what will happen in the next days at the sites that the caller may read.

    Raises:
        NotAllowedError: the caller may read no site of the rollout.
        RefusalError: `days` is out of range.
    """
    require_permission(caller, Permission.READ, rollout_name)
    if not 0 < days <= MAX_DAYS:
        raise RefusalError(f"{days} days are out of range; ask for 1 to {MAX_DAYS}")
    state = service.state_cache.reload_rollout(rollout_name).state
    until = at + timedelta(days=days)
    with service.database.begin_read() as transaction:
        last_drills = load_last_drills(transaction, state)
    entries = list_schedule(state.scope, state.policy, at, until, last_drills)
    readable = limit_to_sites(entries, _list_readable_sites(caller, state))
    describe = partial(describe_entry, names_windows=len(state.policy.windows) > 1)
    return RolloutSchedule(tuple(_build_entry(e, describe(e)) for e in readable), until)


def _list_readable_sites(caller: Caller, state: RolloutState) -> frozenset[str]:
    name = state.rollout.name
    sites = {*state.policy.sites_by_id, *(cell.site for cell, _ in state.scope.cells)}
    return frozenset(site for site in sites if caller.has_permission(Permission.READ, name, site))


def _build_entry(entry: ScheduleEntry, text: str) -> ScheduledEntry:
    return ScheduledEntry(
        kind=entry.kind,
        at=entry.at,
        until=entry.until,
        sites=entry.sites,
        window=entry.window,
        subject=entry.subject,
        text=text,
    )
