"""Incidents: list, load, acknowledge and send them, and search for their causes.

A search for a cause is a run of the caller, which a request need not wait for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, Final

from rollout.data.database.rollouts import Rollout
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.projections import (
    AllIncidents,
    IncidentCursor,
    IncidentRow,
    IncidentStore,
    ListedIncident,
    ReadableSite,
    UnopenedIncidents,
)
from rollout.engine.decide.commands import AcknowledgeIncident
from rollout.engine.decide.incident_kinds import get_incident_kind
from rollout.engine.decide.incidents import count_unopened_values
from rollout.engine.decide.permissions import (
    ROLES_BY_PERMISSION,
    Caller,
    Permission,
    require_permission,
)
from rollout.engine.decide.scope import Scope
from rollout.engine.events import IncidentAcknowledged, IncidentOpened
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import UnknownIncidentError
from rollout.kernel.facts import StoredAlarm, Trigger, parse_facts, to_facts
from rollout.kernel.policy.policy import Policy
from rollout.live.rollout_state import (
    CommandResult,
    RolloutState,
    load_rollout_state,
    run_command,
)
from rollout.live.service import Service
from rollout.live.work.user_runs import UserRun, UserRuns

if TYPE_CHECKING:
    from collections.abc import Callable

    from rollout.features.incidents.incident_causes import LoadedCause


@dataclass(frozen=True, slots=True, order=True)
class UnopenedNumber:
    """Incidents of one kind in one cell that are not opened; site and window may be "".

    Unfamiliar values are counted for each version.
    """

    rollout: str
    kind: str
    site: str
    window: str
    version: str
    number: int


def load_unopened_numbers(
    service: Service, rows: Iterable[IncidentRow]
) -> tuple[UnopenedNumber, ...]:
    """Return the numbers of the kinds and cells of incidents, each once, those above 0."""
    keys = {
        (
            row.rollout,
            row.kind,
            row.site,
            row.window,
            row.version if get_incident_kind(row.kind).about == "value" else "",
        )
        for row in rows
    }
    numbers: list[UnopenedNumber] = []
    for rollout_name in sorted({key[0] for key in keys}):
        state = service.state_cache.load_rollout(rollout_name).state
        with service.database.begin_read() as transaction:
            stored = UnopenedIncidents(transaction, state.rollout).load_numbers()
        numbers += [
            UnopenedNumber(*key, number)
            for key in keys
            if key[0] == rollout_name and (number := count_unopened(state.scope, stored, *key[1:]))
        ]
    return tuple(sorted(numbers))


def count_unopened(
    scope: Scope,
    stored: Mapping[tuple[str, str, str], int],
    kind: str,
    site: str,
    window: str,
    version: str,
) -> int:
    """Return the number of a kind and cell; unfamiliar values are counted in the scope."""
    if get_incident_kind(kind).about == "value":
        return count_unopened_values(scope, Cell(site, window), version)
    return stored.get((kind, site, window), 0)


__all__ = [
    "IncidentCursor",
    "IncidentRow",
    "IncidentRows",
    "load_all_incidents",
]

MAX_INCIDENTS = 50  # in one message
MAX_LISTED_INCIDENTS = 10  # with a line of their own
MAX_REASON_LENGTH = 200  # letters
MARKUP_REPLACEMENTS = str.maketrans({"`": "'", "<": "‹", ">": "›", "\n": " ", "\r": " "})


@dataclass(frozen=True, slots=True)
class IncidentRows:
    """Incidents of all rollouts, newest first; `before` starts the next page."""

    items: tuple[IncidentRow, ...]
    before: IncidentCursor | None


def load_all_incidents(
    database: Database,
    caller: Caller,
    *,
    acknowledged: bool,
    before: IncidentCursor | None = None,
    limit: int = 50,
) -> IncidentRows:
    """Return incidents at the sites that the caller may read."""
    read_assignments = [
        role_assignment
        for role_assignment in caller.role_assignments
        if role_assignment.role in ROLES_BY_PERMISSION[Permission.READ]
    ]
    readable_sites = {
        ReadableSite(role_assignment.rollout, role_assignment.site)
        for role_assignment in read_assignments
    }
    with database.begin_read() as transaction:
        rows = AllIncidents(transaction).list_page(
            readable_sites, acknowledged=acknowledged, before=before, limit=limit + 1
        )
    page = tuple(rows[:limit])
    return IncidentRows(page, page[-1].cursor if len(rows) > limit else None)


@dataclass(frozen=True, slots=True)
class IncidentNotification:
    """One message about several incidents.

    Attributes:
        last_revision: of the newest incident.
        lead: Markdown, a line per incident.
    """

    last_revision: int
    subject: str
    lead: str


def build_incident_notification(
    transaction: Transaction, rollout: Rollout, after: int | None
) -> IncidentNotification | None:
    """Return a message about incidents opened after a revision, if any.

    If `after` is None, nothing was sent before: then only open incidents are included.
    """
    acknowledged = False if after is None else None
    page = IncidentStore(transaction, rollout).list_page(
        acknowledged=acknowledged, limit=MAX_INCIDENTS
    )
    new_incidents = [row for row in page if row.revision > (after or 0)]
    if not new_incidents:
        return None
    ledger = Ledger(transaction, rollout)
    lines = [
        _format_incident(ledger, row)
        for row in islice(reversed(new_incidents), MAX_LISTED_INCIDENTS)
    ]
    if len(new_incidents) > MAX_LISTED_INCIDENTS:
        lines.append(f"- and {len(new_incidents) - MAX_LISTED_INCIDENTS} more")
    return IncidentNotification(
        new_incidents[0].revision, _format_subject(new_incidents), "\n".join(lines)
    )


def list_incident_channels(policy: Policy) -> tuple[str, ...]:
    """Return every channel to which the policy sends reports, once."""
    return tuple(
        dict.fromkeys(channel for report_plan in policy.reports for channel in report_plan.to)
    )


def _format_subject(incidents: Sequence[ListedIncident]) -> str:
    count_text = (
        f"{len(incidents)} incidents" if len(incidents) > 1 else f"incident {incidents[0].id}"
    )
    kinds = ", ".join(dict.fromkeys(row.kind for row in reversed(incidents)))
    return f"{count_text}: {kinds}"


def _format_incident(ledger: Ledger, row: ListedIncident) -> str:
    (event,) = ledger.list_of(IncidentOpened, after=row.revision - 1, until=row.revision)
    place_text = remove_markup(f"{row.site} · {row.window} {row.version}".rstrip())
    location = f" at `{place_text}`" if row.site else ""
    reason = remove_markup(event.cause_text)
    return f"- {row.id} {row.kind}{location}, {event.effect}: `{reason}`"


def remove_markup(text: str) -> str:
    """Return text without chat markup, for reasons with clients' texts.

    >>> remove_markup("[win](https://example.org)`<b>")
    "[win](https://example.org)'‹b›"
    """
    return text.translate(MARKUP_REPLACEMENTS)[:MAX_REASON_LENGTH]


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentStatus(ListedIncident):
    """An incident with its effect and its acknowledgement.

    `alarms` is what guards read, the cause first, and `trigger` what else the program saw; `reason`
    is the text of both.
    `about` names the case or client, if the service names one; `note` is from the user who
    acknowledged it. Site, window, version and guard may be "". `unopened` counts the incidents of
    this kind and cell that were not opened, because too many others were open.
    """

    effect: str
    reason: str
    alarms: tuple[Mapping[str, Any], ...]
    trigger: Trigger | None
    about: str
    note: str
    unopened: int

    @property
    def readings(self) -> tuple[StoredAlarm, ...]:
        """Return what guards read."""
        return tuple(parse_facts(StoredAlarm, alarm) for alarm in self.alarms)


@dataclass(frozen=True, slots=True)
class IncidentPage:
    """Incidents of a rollout, newest first; `before` starts the next page."""

    items: tuple[IncidentStatus, ...]
    before: int | None


def load_incidents(
    service: Service,
    caller: Caller,
    rollout_name: str,
    *,
    acknowledged: bool | None = False,
    before: int | None = None,
    limit: int = 50,
) -> IncidentPage:
    """Return incidents at readable sites, by default open ones.

    If `acknowledged` is None, open and acknowledged incidents are included.
    """
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    with service.database.begin_read() as transaction:
        rows = IncidentStore(transaction, state.rollout).list_page(
            acknowledged=acknowledged, before=before, limit=limit
        )
        readable_rows = [
            row
            for row in rows
            if not row.site or caller.has_permission(Permission.READ, rollout_name, row.site)
        ]
        unopened = UnopenedIncidents(transaction, state.rollout).load_numbers()
        items = tuple(_build_incident(transaction, state, row, unopened) for row in readable_rows)
    return IncidentPage(items, rows[-1].revision if len(rows) == limit else None)


def load_incident(
    service: Service, caller: Caller, rollout_name: str, incident_id: str
) -> IncidentStatus:
    """Return one incident.

    Raises:
        UnknownIncidentError: there is no such incident.
        NotAllowedError: the caller may not read its site.
    """
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    with service.database.begin_read() as transaction:
        row = _find_incident(transaction, state, incident_id)
        require_permission(caller, Permission.READ, rollout_name, (row.site,) if row.site else ())
        unopened = UnopenedIncidents(transaction, state.rollout).load_numbers()
        return _build_incident(transaction, state, row, unopened)


def record_acknowledgement(
    database: Database,
    caller: Caller,
    rollout_name: str,
    incident_id: str,
    *,
    at: datetime,
    note: str = "",
) -> CommandResult:
    """Acknowledge an incident; repeating it is safe.

    Raises:
        UnknownIncidentError: there is no such incident.
        NotAllowedError: the caller does not operate its site.
    """
    require_permission(caller, Permission.OPERATE, rollout_name)
    with database.begin_read() as transaction:
        row = _find_incident(
            transaction, load_rollout_state(transaction, rollout_name), incident_id
        )
    sites = (row.site,) if row.site else ()
    require_permission(caller, Permission.OPERATE, rollout_name, sites)
    by = caller.as_actor(rollout_name, sites)
    command = AcknowledgeIncident(at=at, by=by, incident=incident_id, note=note)
    return run_command(database, caller, rollout_name, lambda _: command)


def _find_incident(
    transaction: Transaction, state: RolloutState, incident_id: str
) -> ListedIncident:
    row = IncidentStore(transaction, state.rollout).find(incident_id)
    if row is None:
        open_ids = ", ".join(state.scope.open_incidents) or "none"
        raise UnknownIncidentError(f"there is no incident {incident_id}; open ones: {open_ids}")
    return row


def _build_incident(
    transaction: Transaction,
    state: RolloutState,
    row: ListedIncident,
    unopened: Mapping[tuple[str, str, str], int],
) -> IncidentStatus:
    ledger = Ledger(transaction, state.rollout)
    (event,) = ledger.list_of(IncidentOpened, after=row.revision - 1, until=row.revision)
    return IncidentStatus(
        id=row.id,
        kind=row.kind,
        opened_at=row.opened_at,
        site=row.site,
        window=row.window,
        version=row.version,
        guard=row.guard,
        effect=event.effect,
        reason=event.cause_text,
        alarms=tuple(map(to_facts, event.alarms)),
        trigger=event.trigger,
        about=event.about,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
        note=_find_acknowledgement_note(ledger, row),
        revision=row.revision,
        unopened=count_unopened(state.scope, unopened, row.kind, row.site, row.window, row.version),
    )


def _find_acknowledgement_note(ledger: Ledger, row: ListedIncident) -> str:
    """Return the note of the acknowledgement, or ""."""
    if row.acknowledged_at is None:
        return ""
    notes = ledger.list_of(IncidentAcknowledged, after=row.revision)
    return next((event.note for event in notes if event.incident == row.id), "")


PATIENCE: Final = 1.0
"""Seconds for which a request waits for its cause; a longer search goes on without it."""
MAX_WAITING: Final = 8
"""Requests that wait at once, so that causes never hold all threads of a replica."""
RELOAD_SECONDS: Final = 2
CAUSE_LIFETIME: Final = timedelta(minutes=15)
"""How long a cause that was left can be shown; later it is sought anew, with newer cases."""
MAX_CAUSES: Final = 4
"""Causes of one user that are kept, one for each of their windows."""


@dataclass(frozen=True, slots=True)
class CauseSearch:
    """What became of a search: `run` is None once it has ended, with or without a cause."""

    loaded: "LoadedCause | None" = None
    run: "UserRun[str, LoadedCause | None] | None" = None


class CauseRuns:
    """The searches of one replica, for the pages of the console and the API."""

    def __init__(self) -> None:
        self._runs: UserRuns[str, LoadedCause | None] = UserRuns(CAUSE_LIFETIME, MAX_CAUSES)
        self._waiting = BoundedSemaphore(MAX_WAITING)

    def find(
        self,
        caller: Caller,
        query: object,
        load: "Callable[[], LoadedCause | None]",
        *,
        at: datetime,
    ) -> CauseSearch:
        """Return the cause, or the run if it takes longer; a later request finds that run.

        A caller with other roles than when it started gets a search of their own.

        Args:
            caller: who asks; one search of theirs works at a time.
            query: which cases are searched, told from others by its text.
            load: reads and searches them.
            at: now.

        Raises:
            RefusalError: the search was refused, or it failed.
        """
        subject = repr(query)

        def search(_: object) -> "LoadedCause | None":
            return load()

        run = self._runs.find_or_start(caller, subject, search, at=at)
        if self._wait(run) and run.subject != subject:  # they looked for another cause before
            run = self._runs.find_or_start(caller, subject, search, at=at)
            self._wait(run)
        if run.is_running or run.subject != subject:
            return CauseSearch(run=run)
        self._runs.forget(run)
        if run.failure is not None:
            raise run.failure
        return CauseSearch(run.result)

    def _wait(self, run: "UserRun[str, LoadedCause | None]") -> bool:
        """Wait for a run's end, not at all if many requests wait; return whether it has ended."""
        if not self._waiting.acquire(blocking=False):
            return not run.is_running
        try:
            return run.wait(PATIENCE)
        finally:
            self._waiting.release()
