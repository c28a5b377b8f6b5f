"""The kinds of notifications, which API, console, documentation and deliveries offer.

Those of proposals are in `proposal_kinds`.

Several incidents at a site within minutes of each other are in one message. The first one is sent
at once, with those of the same time. What follows within `GROUP_SPAN` is one message at its end.
Each incident keeps its own row in the outbox, so none is lost.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from types import MappingProxyType
from typing import ClassVar, Final
from urllib.parse import quote
from weakref import WeakKeyDictionary

from rollout.data.access.notification_outbox import CONFIRMATION, Notice, Notification
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.data.reviews.reviews import ReviewTaskStore, StoredReviewTask
from rollout.engine.decide.incidents import NewAttributeValue, list_new_values
from rollout.engine.decide.permissions import Caller, Permission, may_be_asked_blind
from rollout.engine.decide.scope import Incident, Scope
from rollout.engine.events import FamiliarityChanged
from rollout.engine.ledger.ledger import parse_event
from rollout.engine.words.formatting import (
    format_day,
    format_quantity,
    format_zoned_time,
    join_words,
)
from rollout.features.notifications.proposal_kinds import (
    HIDDEN_EVIDENCE,
    MAX_READINGS,
    MessageText,
    NotificationKind,
    NotificationUser,
    Proposals,
    Reminders,
    RolloutKind,
    RolloutNews,
    build_path,
    format_name,
    join_first,
    record_figures,
    remove_markup,
)
from rollout.features.proposals.proposals import list_pending_approvals
from rollout.features.reviews.reviews import (
    ALL_REVIEW_KINDS,
    count_pending_reviews,
    find_permitted_sites,
)
from rollout.kernel.calendar.instants import MICROSECOND, find_digest_time
from rollout.kernel.policy.familiarity import FEW, UNITS_BEFORE_NOTICE, format_value
from rollout.live.rollout_state import RolloutState
from rollout.live.service import Service

MAX_INCIDENT_AGE: Final = timedelta(days=7)
"""Older incidents are not sent, as after a long outage; digests count them."""
GROUP_SPAN: Final = timedelta(minutes=5)
"""From the first incident at a site to the message about those that follow it."""


class Incidents(RolloutKind):
    """An incident at a site that a user may read."""

    name = "incidents"
    description = "Incidents at your sites, also in quiet hours"
    notices = ("incident",)
    is_urgent = True
    is_grouped = True

    def list_subjects(
        self, user: NotificationUser, since: datetime, item: RolloutNews, at: datetime
    ) -> Iterable[tuple[str, str]]:
        """Return the open incidents of the last days that the user may read."""
        first_at = max(since, at - MAX_INCIDENT_AGE)
        incidents = list_readable_incidents(item.state, user.caller)
        return [("incident", incident.id) for incident in incidents if incident.at >= first_at]

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
        site = incidents[0].site
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
        site = open_incidents[notification.notice.about].site
        return tuple(
            other
            for other in notification.others
            if other.notice in due_notices and open_incidents[other.notice.about].site == site
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
    site = incident.site
    times = (i.at for i in open_incidents.values() if i.site == site)
    first_at = incident.at
    starts: list[datetime] = []
    for opened_at in sorted(times):
        if opened_at > incident.at:
            break
        if not starts or opened_at > starts[-1] + GROUP_SPAN:
            starts.append(opened_at)
        first_at = starts[-1]
    return at if incident.at == first_at else max(at, first_at + GROUP_SPAN)


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
    site = incidents[0].site
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
        f": {remove_markup(incident.cause_text)}"
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
    reason = HIDDEN_EVIDENCE if is_blind else remove_markup(incident.cause_text)
    opened_at = format_zoned_time(incident.at, timezone)
    return MessageText(
        subject=f"{remove_markup(rollout_name)}: Incident {incident.id}, {incident.kind}",
        question=f"Does incident {incident.id} ({incident.kind}){location} need you?",
        evidence=f"Opened {opened_at}. Reason: {reason}.",
        path=build_path("rollouts", rollout_name, "incidents", incident.id),
    )


MAX_VALUE_AGE: Final = timedelta(days=7)
"""Older ones are not sent, as after a long outage."""


def is_still_new(value: NewAttributeValue, scope: Scope) -> bool:
    """Return whether the version still acts there and is not familiar with the value."""
    statuses = scope.get_cell_values(value.cell, value.version).statuses
    return statuses.get(value.value) == FEW and scope.get_holder(value.cell) == value.version


@dataclass(frozen=True, slots=True)
class _ReadValues:
    """What was read of a rollout's ledger up to a revision of an era."""

    era: int
    revision: int
    values: tuple[NewAttributeValue, ...]


_cache: WeakKeyDictionary[Database, dict[str, _ReadValues]] = WeakKeyDictionary()
_lock = Lock()


def load_new_values(
    database: Database, state: RolloutState, at: datetime
) -> tuple[NewAttributeValue, ...]:
    """Return the values of the last days that are still new; () without the policy's rule.

    Later calls read only what is new in the ledger.
    """
    if state.policy.evidence.familiar is None:
        return ()
    name, scope = state.rollout.name, state.scope
    with _lock:
        cached = _cache.setdefault(database, {}).get(name)
    if cached is None or cached.era != scope.era or cached.revision > scope.revision:
        cached = None
    with database.begin_read() as transaction:
        ledger = Ledger(transaction, state.rollout)
        after = ledger.find_revision_at(at - MAX_VALUE_AGE) if cached is None else cached.revision
        kinds = (FamiliarityChanged.__name__,)
        rows = list(ledger.list_rows(after=after, until=scope.revision, kinds=kinds))
    values = (*(() if cached is None else cached.values), *list_new_values(map(parse_event, rows)))
    recent = tuple(value for value in values if value.at > at - MAX_VALUE_AGE)
    with _lock:
        _cache[database][name] = _ReadValues(scope.era, scope.revision, recent)
    return tuple(value for value in recent if is_still_new(value, scope))


class NewValues(RolloutKind):
    """Attribute values at a site that a user may read, new to the acting version."""

    name = "new-values"
    description = "Attribute values that are new to an acting version at your sites"
    notices = ("new-value",)

    def load_items(
        self, service: Service, state: RolloutState, at: datetime
    ) -> Sequence[NewAttributeValue]:
        """Return the values of the last days that are still new."""
        return load_new_values(service.database, state, at)

    def list_subjects(
        self, user: NotificationUser, since: datetime, item: RolloutNews, at: datetime
    ) -> Iterable[tuple[str, str]]:
        """Return each tick and site with new values."""
        name = item.state.rollout.name
        keys = {
            value.notice_key
            for value in item.items[self.name]
            if value.at >= since
            and user.caller.has_permission(Permission.READ, name, value.cell.site)
        }
        return [("new-value", key) for key in sorted(keys)]

    def build_text(
        self,
        service: Service,
        user: NotificationUser,
        notices: Sequence[Notice],
        news: Sequence[RolloutNews],
        at: datetime,
    ) -> MessageText:
        """Return whether such cases are to be expected, without figures."""
        (notice,), values = notices, news[0].items[self.name]
        return describe_new_values(
            notice.rollout, [value for value in values if value.notice_key == notice.about]
        )


def describe_new_values(rollout_name: str, values: Sequence[NewAttributeValue]) -> MessageText:
    """Return the message about values at one site that are new to acting versions."""
    names = sorted(
        {
            f"{format_name(format_value(v.value))} in {format_name(v.cell.window)}"
            f" for {format_name(v.version)}"
            for v in values
        }
    )
    first = values[0]
    count = format_quantity(len(names), "value")
    return MessageText(
        subject=f"{remove_markup(rollout_name)}: {count} new to the model at"
        f" {remove_markup(first.cell.site)}",
        question=f"Do you expect cases with {'it' if len(names) == 1 else 'them'} at"
        f" {format_name(first.cell.site)}?",
        evidence=f"Met {UNITS_BEFORE_NOTICE} times or more, not yet familiar:"
        f" {join_first(names, 'value')}. Humans decide such cases.",
        path=build_path("rollouts", rollout_name, "cells", first.cell.site, first.cell.window),
    )


REVIEW_WARNING: Final = timedelta(hours=1)
"""How long before its end a review task is urgent; at most half of the task's time."""
MAX_URGENT_TASKS: Final = 1_000  # looked at in each rollout


class Reviews(RolloutKind):
    """Free review tasks at a user's sites that are about to be missed."""

    name = "reviews"
    description = "Reviews that are about to be missed"
    notices = ("review-deadline",)

    def load_items(
        self, service: Service, state: RolloutState, at: datetime
    ) -> Sequence[StoredReviewTask]:
        """Return the tasks that end within the hour."""
        with service.database.begin_read() as transaction:
            return ReviewTaskStore(transaction, state.rollout).list_overdue(
                since=at,
                until=at + REVIEW_WARNING + MICROSECOND,
                sites=None,
                limit=MAX_URGENT_TASKS,
            )

    def list_subjects(
        self, user: NotificationUser, since: datetime, item: RolloutNews, at: datetime
    ) -> Iterable[tuple[str, str]]:
        """Return each hour in which tasks end that are about to be missed."""
        name = item.state.rollout.name
        hours = {
            task.due_at.replace(minute=0, second=0, microsecond=0).isoformat()
            for task in item.items[self.name]
            if is_urgent(task, at)
            and user.caller.has_permission(Permission.REVIEW, name, task.site)
        }
        return [("review-deadline", hour) for hour in sorted(hours)]

    def build_text(
        self,
        service: Service,
        user: NotificationUser,
        notices: Sequence[Notice],
        news: Sequence[RolloutNews],
        at: datetime,
    ) -> MessageText | None:
        """Return the text about reviews that this user could still do, or None.

        It is sent once for the hour that it is about, so it counts all of that hour.
        """
        (notice,), state = notices, news[0].state
        until = max(at, datetime.fromisoformat(notice.about)) + REVIEW_WARNING
        with service.database.begin_read() as transaction:
            count = ReviewTaskStore(transaction, state.rollout).count_available(
                user.caller.name,
                at,
                ALL_REVIEW_KINDS,
                find_permitted_sites(user.caller, Permission.REVIEW, state),
                due_until=until - MICROSECOND,
            )
        if not count:
            return None
        return describe_reviews(notice.rollout, count, until, user.timezone)


class DailyDigest(NotificationKind):
    """What waits for a user in all rollouts, each morning."""

    name = "daily-digest"
    description = "A digest of what waits for you, daily at 08:00"
    notices = (name,)
    is_weekly: ClassVar[bool] = False

    def find_notices(
        self,
        user: NotificationUser,
        since: datetime,
        news: Sequence[RolloutNews],
        at: datetime,
    ) -> Iterator[Notice]:
        """Yield the newest digest of a user with a role."""
        digest_at = find_digest_time(user.timezone, at, weekly=self.is_weekly)
        if user.caller.role_assignments and digest_at >= since:
            yield Notice("", self.name, digest_at.date().isoformat())

    def build_text(
        self,
        service: Service,
        user: NotificationUser,
        notices: Sequence[Notice],
        news: Sequence[RolloutNews],
        at: datetime,
    ) -> MessageText:
        """Return how much waits in each rollout that the user sees."""
        caller, reviews = user.caller, count_pending_reviews(service, user.caller, at)
        works = {
            item.state.rollout.name: (
                len(list_pending_approvals(item.state, caller, at=at)),
                len(list_readable_incidents(item.state, caller)),
                reviews.get(item.state.rollout.name, 0),
            )
            for item in news
            if caller.can_see(item.state.rollout.name)
        }
        return describe_digest(
            self.name.replace("-", " ").capitalize(), format_day(at, user.timezone), works
        )


class WeeklyDigest(DailyDigest):
    """The same, each Monday."""

    name = "weekly-digest"
    description = "A digest of what waits for you, Mondays at 08:00"
    notices = (name,)
    is_weekly = True


def is_urgent(task: StoredReviewTask, at: datetime) -> bool:
    """Return whether a task is free, and about to be missed."""
    if task.due_at is None or not task.is_free(at, at):
        return False
    return task.due_at - at <= min(REVIEW_WARNING, (task.due_at - task.opened_at) / 2)


def describe_reviews(rollout_name: str, count: int, until: datetime, timezone: str) -> MessageText:
    """Return the message about reviews that are about to be missed."""
    cases = format_quantity(count, "case")
    return MessageText(
        subject=f"{remove_markup(rollout_name)}: Reviews about to be missed",
        question=f"Can you review {cases} due before {format_zoned_time(until, timezone)}?",
        evidence=f"Nobody has claimed {'it' if count == 1 else 'them'}, and later reviews don't"
        " count. Cases that open after this message stand on the page only.",
        path=f"/review?rollout={quote(rollout_name, safe='')}",
    )


def describe_digest(
    title: str, day: str, backlogs: Mapping[str, tuple[int, int, int]]
) -> MessageText:
    """Return the digest of what waits for a user, without figures of agreement.

    Args:
        backlogs: by rollout the proposals, incidents and reviews.
    """
    lines = [
        f"- {format_name(rollout)}: {format_quantity(proposals, 'proposal')} to approve,"
        f" {format_quantity(incidents, 'open incident')},"
        f" {format_quantity(reviews, 'review')} to do"
        for rollout, (proposals, incidents, reviews) in backlogs.items()
        if proposals or incidents or reviews
    ]
    return MessageText(
        subject=f"rollout: {title}, {day}",
        question="What waits for you?",
        evidence="\n".join(lines) or "Nothing needs your attention.",
        path="/",
    )


KINDS: Final[Mapping[str, NotificationKind]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            Proposals(),
            Reminders(),
            Incidents(),
            NewValues(),
            Reviews(),
            DailyDigest(),
            WeeklyDigest(),
        )
    }
)
"""By name, in the order in which they are offered."""
KIND_OF_NOTICE: Final = {notice: kind for kind in KINDS.values() for notice in kind.notices}
GROUPED_NOTICES: Final = frozenset(n for n, kind in KIND_OF_NOTICE.items() if kind.is_grouped)
URGENT_NOTICES: Final = frozenset(
    {CONFIRMATION, *(n for n, kind in KIND_OF_NOTICE.items() if kind.is_urgent)}
)
"""What quiet hours don't hold back; a user waits for a code."""


def select_notices(
    user: NotificationUser,
    chosen_kinds: Mapping[str, datetime],
    rollouts: Iterable[RolloutNews],
    at: datetime,
) -> tuple[Notice, ...]:
    """Return what a user is to be notified of on a channel at a time, sent or not.

    It decides when a notification is queued and again before each try to send it, so that nothing
    is sent that no longer applies: to a proposal that was decided, or to a user who lost a role.
    """
    news = [item for item in rollouts if user.caller.can_see(item.state.rollout.name)]
    return tuple(
        notice
        for name, since in chosen_kinds.items()
        if name in KINDS
        for notice in KINDS[name].find_notices(user, since, news, at)
    )
