"""Which notifications a user gets now: a function from values to values.

It decides when a notification is queued and again before each try to send it, so that nothing is
sent that no longer applies: to a proposal that was decided, or to a user who lost a role.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from typing import Final
from weakref import WeakKeyDictionary

from rollout.core.calendar.notification_times import find_digest_time
from rollout.core.ledger.ledger import parse_event
from rollout.core.policy.familiarity import FEW
from rollout.core.scope.events import FamiliarityChanged
from rollout.core.scope.new_values import NewAttributeValue, list_new_values
from rollout.core.scope.permissions import Caller, Permission
from rollout.core.scope.scope import Incident, ProposalState, Scope
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.notifications.kinds import (
    CHOICE_OF_KIND,
    DAILY_DIGEST,
    HALF_TIME,
    INCIDENT,
    INCIDENTS,
    LAST_DAY,
    NEW_VALUE,
    NEW_VALUES,
    PROPOSAL,
    PROPOSALS,
    REMINDERS,
    REVIEW_DEADLINE,
    REVIEWS,
    WEEKLY_DIGEST,
)
from rollout.services.proposals.eligible_approvers import list_pending_approvals
from rollout.store.access.notification_outbox import Notice
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger
from rollout.store.reviews.reviews import StoredReviewTask

__all__ = ["NewAttributeValue", "is_still_new", "list_new_values", "load_new_values"]

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


MAX_INCIDENT_AGE: Final = timedelta(days=7)
"""Older incidents are not sent, as after a long outage; digests count them."""
REVIEW_WARNING: Final = timedelta(hours=1)
"""How long before its end a review task is urgent; at most half of the task's time."""
DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class NotificationRecipient:
    """A user on one channel: roles, since when each kind is chosen, and timezone."""

    caller: Caller
    kinds: Mapping[str, datetime]
    timezone: str


@dataclass(frozen=True, slots=True)
class RolloutNews:
    """What there may be to notify of in a rollout.

    Attributes:
        review_tasks: those due within the hour.
        new_values: attribute values that are new to an acting version.
    """

    state: RolloutState
    review_tasks: Sequence[StoredReviewTask] = ()
    new_values: Sequence[NewAttributeValue] = ()


def select_notices(
    recipient: NotificationRecipient, rollouts: Iterable[RolloutNews], at: datetime
) -> tuple[Notice, ...]:
    """Return what a recipient is to be notified of at a time, sent or not."""
    notices = [
        notice
        for news in rollouts
        if recipient.caller.can_see(news.state.rollout.name)
        for notice in (
            *_iterate_proposals(recipient, news.state, at),
            *_iterate_incidents(recipient, news.state, at),
            *_iterate_new_values(recipient, news),
            *_iterate_reviews(recipient, news, at),
        )
    ]
    chosen_notices = [n for n in notices if CHOICE_OF_KIND[n.kind] in recipient.kinds]
    return (*chosen_notices, *_iterate_digests(recipient, at))


def _iterate_proposals(
    recipient: NotificationRecipient, state: RolloutState, at: datetime
) -> Iterator[Notice]:
    """Yield the proposals that the recipient can approve, and the newest reminder of each."""
    if recipient.kinds.keys().isdisjoint({PROPOSALS, REMINDERS}):
        return
    rollout_name = state.rollout.name
    for proposal in list_pending_approvals(state, recipient.caller, at=at):
        yield Notice(rollout_name, PROPOSAL, proposal.id)
        since = recipient.kinds.get(REMINDERS, at)
        reminders = [
            (reminder_at, kind)
            for kind, reminder_at in list_reminders(proposal)
            if since <= reminder_at <= at
        ]
        if reminders:
            yield Notice(rollout_name, max(reminders)[1], proposal.id)


def list_reminders(proposal: ProposalState) -> list[tuple[str, datetime]]:
    """Return the kinds and times of a proposal's reminders.

    There is none on the last day of a proposal that is open for a day or less.
    """
    lifetime = proposal.expires_at - proposal.raised_at
    last_day = [(LAST_DAY, proposal.expires_at - DAY)] if lifetime > DAY else []
    return [(HALF_TIME, proposal.raised_at + lifetime / 2), *last_day]


def _iterate_incidents(
    recipient: NotificationRecipient, state: RolloutState, at: datetime
) -> Iterator[Notice]:
    rollout_name, caller = state.rollout.name, recipient.caller
    since = max(recipient.kinds.get(INCIDENTS, at), at - MAX_INCIDENT_AGE)
    for incident in list_readable_incidents(state, caller):
        if incident.at >= since:
            yield Notice(rollout_name, INCIDENT, incident.id)


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


def _iterate_new_values(recipient: NotificationRecipient, news: RolloutNews) -> Iterator[Notice]:
    """Yield one notice for each tick and site with new values."""
    since = recipient.kinds.get(NEW_VALUES)
    if since is None:
        return
    rollout_name = news.state.rollout.name
    keys = {
        value.notice_key
        for value in news.new_values
        if value.at >= since
        and recipient.caller.has_permission(Permission.READ, rollout_name, value.cell.site)
    }
    for key in sorted(keys):
        yield Notice(rollout_name, NEW_VALUE, key)


def _iterate_reviews(
    recipient: NotificationRecipient, news: RolloutNews, at: datetime
) -> Iterator[Notice]:
    """Yield one notice for each hour in which tasks end that are about to be missed."""
    if REVIEWS not in recipient.kinds:
        return
    rollout_name = news.state.rollout.name
    hours = {
        task.due_at.replace(minute=0, second=0, microsecond=0).isoformat()
        for task in news.review_tasks
        if task.due_at is not None
        and is_urgent(task, at)
        and recipient.caller.has_permission(Permission.REVIEW, rollout_name, task.site)
    }
    for hour in sorted(hours):
        yield Notice(rollout_name, REVIEW_DEADLINE, hour)


def is_urgent(task: StoredReviewTask, at: datetime) -> bool:
    """Return whether a task is free, and about to be missed."""
    if task.due_at is None or not task.is_free(at, at):
        return False
    return task.due_at - at <= min(REVIEW_WARNING, (task.due_at - task.opened_at) / 2)


def _iterate_digests(recipient: NotificationRecipient, at: datetime) -> Iterator[Notice]:
    if not recipient.caller.role_assignments:
        return
    for kind in (DAILY_DIGEST, WEEKLY_DIGEST):
        since = recipient.kinds.get(kind)
        if since is None:
            continue
        digest_at = find_digest_time(recipient.timezone, at, weekly=kind == WEEKLY_DIGEST)
        if digest_at >= since:
            yield Notice("", kind, digest_at.date().isoformat())
