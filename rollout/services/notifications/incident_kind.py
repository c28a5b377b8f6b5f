"""Notifications of incidents, several at a site within minutes of each other in one message.

The first one is sent at once, with those of the same time. What follows within `GROUP_SPAN` is one
message at its end. Each incident keeps its own row in the outbox, so none is lost.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from rollout.core.scope.permissions import Caller, Permission, may_be_asked_blind
from rollout.core.scope.scope import Incident
from rollout.kernel.words import say_alarms
from rollout.reports.text.formatting import format_quantity, format_zoned_time, join_words
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.services.notifications.kind import (
    NotificationKind,
    NotificationUser,
    RolloutNews,
    record_figures,
)
from rollout.services.notifications.messages import (
    HIDDEN_EVIDENCE,
    MAX_READINGS,
    MessageText,
    build_path,
    format_name,
    join_first,
    remove_markup,
)
from rollout.store.access.notification_outbox import Notice, Notification

MAX_INCIDENT_AGE: Final = timedelta(days=7)
"""Older incidents are not sent, as after a long outage; digests count them."""
GROUP_SPAN: Final = timedelta(minutes=5)
"""From the first incident at a site to the message about those that follow it."""


class Incidents(NotificationKind):
    """An incident at a site that a user may read."""

    name = "incidents"
    description = "Incidents at your sites, also in quiet hours"
    notices = ("incident",)
    is_urgent = True
    is_grouped = True

    def find_notices(
        self,
        user: NotificationUser,
        since: datetime,
        news: Sequence[RolloutNews],
        at: datetime,
    ) -> Iterator[Notice]:
        """Yield the open incidents of the last days that the user may read."""
        first_at = max(since, at - MAX_INCIDENT_AGE)
        for item in news:
            for incident in list_readable_incidents(item.state, user.caller):
                if incident.at >= first_at:
                    yield Notice(item.state.rollout.name, *self.notices, incident.id)

    def build_text(
        self,
        service: Service,
        user: NotificationUser,
        notices: Sequence[Notice],
        news: Sequence[RolloutNews],
        at: datetime,
    ) -> MessageText:
        """Return which incidents at one site may need the user."""
        state = news[0].state
        incidents = sort_incidents(state.scope.open_incidents[notice.about] for notice in notices)
        site = get_incident_site(incidents[0])
        is_blind = may_be_asked_blind(user.caller, state.rollout.name, (site,) if site else ())
        if not is_blind:
            record_figures(service, user, state, at)
        return describe_incidents(state.rollout.name, incidents, user.timezone, is_blind=is_blind)

    def find_send_time(
        self, user: NotificationUser, notice: Notice, news: Mapping[str, RolloutNews], at: datetime
    ) -> datetime:
        """Return the end of the time in which others at the site wait for one message."""
        return find_incident_time(notice.about, news[notice.rollout].state.scope.open_incidents, at)

    def select_group(
        self,
        notification: Notification,
        due_notices: Collection[Notice],
        news: Sequence[RolloutNews],
    ) -> tuple[Notification, ...]:
        """Return the notifications, taken with one, of due incidents at its site."""
        open_incidents = news[0].state.scope.open_incidents
        site = get_incident_site(open_incidents[notification.notice.about])
        return tuple(
            other
            for other in notification.others
            if other.notice in due_notices
            and get_incident_site(open_incidents[other.notice.about]) == site
        )


def list_readable_incidents(state: RolloutState, caller: Caller) -> tuple[Incident, ...]:
    """Return the open incidents at sites that a caller may read, and those of no site."""
    name = state.rollout.name
    if not caller.has_permission_somewhere(Permission.READ, name):
        return ()
    return tuple(
        incident
        for incident in state.scope.open_incidents.values()
        if incident.cell is None or caller.has_permission(Permission.READ, name, incident.cell.site)
    )


def find_incident_time(
    incident_id: str, open_incidents: Mapping[str, Incident], at: datetime
) -> datetime:
    """Return when a user is notified of an open incident, from `at` on."""
    incident = open_incidents[incident_id]
    site = get_incident_site(incident)
    times = (i.at for i in open_incidents.values() if get_incident_site(i) == site)
    first_at = incident.at
    starts: list[datetime] = []
    for opened_at in sorted(times):
        if opened_at > incident.at:
            break
        if not starts or opened_at > starts[-1] + GROUP_SPAN:
            starts.append(opened_at)
        first_at = starts[-1]
    return at if incident.at == first_at else max(at, first_at + GROUP_SPAN)


def get_incident_site(incident: Incident) -> str:
    """Return the site of an incident; "" if it belongs to none."""
    return "" if incident.cell is None else incident.cell.site


def sort_incidents(incidents: Iterable[Incident]) -> list[Incident]:
    """Return incidents in the order in which they were opened."""
    return sorted(incidents, key=lambda incident: (incident.at, len(incident.id), incident.id))


def count_kinds(incidents: Sequence[Incident]) -> str:
    """Return how many incidents there are of each kind: "4 alarm and 2 unauthorized"."""
    counts = Counter(incident.kind for incident in incidents)
    return join_words([f"{count} {kind}" for kind, count in sorted(counts.items())])


def describe_incidents(
    rollout_name: str, incidents: Sequence[Incident], timezone: str, *, is_blind: bool
) -> MessageText:
    """Return the message about incidents at one site; `is_blind` leaves reasons out."""
    if len(incidents) == 1:
        return _describe_incident(rollout_name, incidents[0], timezone, is_blind=is_blind)
    site = get_incident_site(incidents[0])
    first, last = (format_zoned_time(incidents[place].at, timezone) for place in (0, -1))
    times = first if first == last else f"{first} to {last}"
    count = format_quantity(len(incidents), "incident")
    return MessageText(
        subject=f"{remove_markup(rollout_name)}: {count}"
        f"{f' at {remove_markup(site)}' if site else ''}",
        question=f"Do {count} ({remove_markup(count_kinds(incidents))})"
        f"{f' at {format_name(site)}' if site else ''} need you?",
        evidence=f"Opened {times}. {_join_incidents(incidents, is_blind=is_blind)}.",
        path="/incidents",
    )


def _join_incidents(incidents: Sequence[Incident], *, is_blind: bool) -> str:
    """Return the first incidents in one line, with the number of the others."""
    texts = [
        f"{incident.id}"
        f"{'' if incident.cell is None else f' in {format_name(incident.cell.window)}'}"
        f": {remove_markup(say_alarms(incident.alarms, incident.reason))}"
        for incident in incidents
    ]
    if not is_blind:
        return join_first(texts, "incident")
    return f"{', '.join(i.id for i in incidents[:MAX_READINGS])}: {HIDDEN_EVIDENCE}"


def _describe_incident(
    rollout_name: str, incident: Incident, timezone: str, *, is_blind: bool
) -> MessageText:
    cell = incident.cell
    location = "" if cell is None else f" at {format_name(cell.site)} in {format_name(cell.window)}"
    reason = (
        HIDDEN_EVIDENCE if is_blind else remove_markup(say_alarms(incident.alarms, incident.reason))
    )
    opened_at = format_zoned_time(incident.at, timezone)
    return MessageText(
        subject=f"{remove_markup(rollout_name)}: Incident {incident.id}, {incident.kind}",
        question=f"Does incident {incident.id} ({incident.kind}){location} need you?",
        evidence=f"Opened {opened_at}. Reason: {reason}.",
        path=build_path("rollouts", rollout_name, "incidents", incident.id),
    )
