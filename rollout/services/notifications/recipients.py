"""The users who chose notifications, and what there may be to notify them of."""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from rollout.core.calendar.instants import MICROSECOND
from rollout.core.calendar.notification_times import QuietHours
from rollout.core.scope.permissions import Caller
from rollout.services.access.access_state import build_caller
from rollout.services.access.credential_resets import NO_LIMITS, load_approval_limits
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.services.notifications.kinds import NEW_VALUES, REVIEWS, URGENT_KINDS
from rollout.services.notifications.selection import (
    REVIEW_WARNING,
    NotificationRecipient,
    RolloutNews,
    load_new_values,
)
from rollout.services.notifications.settings import DEFAULT_TIMES, parse_quiet_time
from rollout.store.access.notification_channels import (
    NotificationChannel,
    NotificationChannels,
    NotificationTimes,
)
from rollout.store.access.users import StoredUser, Users
from rollout.store.database.errors import UnreadableRowsError
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Transaction
from rollout.store.reviews.reviews import ReviewTaskStore, StoredReviewTask

MAX_URGENT_TASKS = 1_000  # looked at in each rollout


@dataclass(frozen=True, slots=True)
class NotificationUser:
    """An enabled user with the current roles, timezone and quiet hours."""

    caller: Caller
    times: NotificationTimes

    def find_send_time(self, kind: str, at: datetime) -> datetime:
        """Return when a kind of notification may be sent, from `at` on."""
        start, end = map(parse_quiet_time, (self.times.quiet_from, self.times.quiet_until))
        if kind in URGENT_KINDS or start is None or end is None:
            return at
        return QuietHours(self.times.timezone, start, end).find_send_time(at)

    def build_recipient(self, channel: NotificationChannel) -> NotificationRecipient:
        """Return the user on one channel."""
        return NotificationRecipient(self.caller, channel.kinds, self.times.timezone)


def load_notification_users(transaction: Transaction) -> dict[int, NotificationUser]:
    """Return the enabled users by number; service accounts are never notified."""
    users, limits = Users(transaction), load_approval_limits(transaction)
    roles_by_user = users.list_all_role_assignments()
    times_by_user = NotificationChannels(transaction).list_times()

    def build_user(user: StoredUser) -> NotificationUser:
        caller = build_caller(user, tuple(roles_by_user.get(user.number, ())), None)
        return NotificationUser(
            limits.get(user.number, NO_LIMITS).apply(caller),
            times_by_user.get(user.number, DEFAULT_TIMES),
        )

    return {
        user.number: build_user(user)
        for user in users.list_all()
        if not user.is_service_account and user.disabled_at is None
    }


def load_news(
    service: Service,
    at: datetime,
    channels: Iterable[NotificationChannel],
    rollout_name: str | None = None,
) -> tuple[RolloutNews, ...]:
    """Return what there may be to notify of, in all rollouts or one.

    Review tasks and new values are read only if one of the channels is for them.
    """
    states = _load_states(service, rollout_name)
    kinds = {kind for channel in channels for kind in channel.kinds}
    return tuple(_load_rollout_news(service, state, kinds, at) for state in states)


def _load_states(service: Service, rollout_name: str | None) -> list[RolloutState]:
    """Return the states of all rollouts or one, without those whose rows can't be read.

    Damage of one rollout, which the tick reports, must not silence incidents of the others.
    """
    with service.database.begin_read() as transaction:
        names = [rollout.name for rollout in Rollouts(transaction).list_all()]
    states = []
    for name in names:
        if rollout_name in {None, name}:
            with suppress(UnreadableRowsError):
                states.append(service.state_cache.reload_rollout(name).state)
    return states


def _load_rollout_news(
    service: Service, state: RolloutState, kinds: Collection[str], at: datetime
) -> RolloutNews:
    tasks: Sequence[StoredReviewTask] = ()
    if REVIEWS in kinds:
        with service.database.begin_read() as transaction:
            tasks = ReviewTaskStore(transaction, state.rollout).list_overdue(
                since=at,
                until=at + REVIEW_WARNING + MICROSECOND,
                sites=None,
                limit=MAX_URGENT_TASKS,
            )
    new_values = load_new_values(service.database, state, at) if NEW_VALUES in kinds else ()
    return RolloutNews(state, tuple(tasks), new_values)
