"""Incidents at one site within minutes of each other, for one message instead of one each.

The first one is sent at once, with those of the same time. What follows within `GROUP_SPAN` is one
message at its end. Each incident keeps its own row in the outbox, so none is lost.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from rollout.core.scope.scope import Incident
from rollout.reports.text.formatting import join_words
from rollout.store.access.notification_outbox import Notice, Notification

GROUP_SPAN: Final = timedelta(minutes=5)
"""From the first incident at a site to the message about those that follow it."""


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


def select_incident_group(
    notification: Notification,
    due_notices: Collection[Notice],
    open_incidents: Mapping[str, Incident],
) -> tuple[Notification, ...]:
    """Return the notifications that belong in the message about an open incident.

    Args:
        notification: with the others that were taken with it.
        due_notices: what the user is to be notified of.
    """
    site = get_incident_site(open_incidents[notification.notice.about])
    return tuple(
        other
        for other in notification.others
        if other.notice in due_notices
        and get_incident_site(open_incidents[other.notice.about]) == site
    )


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
