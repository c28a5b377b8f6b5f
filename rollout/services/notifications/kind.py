"""A kind of notification: what a user chooses, who gets it and when, and what it says."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from rollout.core.calendar.notification_times import QuietHours
from rollout.core.scope.permissions import Caller
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.services.notifications.messages import MessageText
from rollout.store.access.notification_outbox import Notice, Notification
from rollout.store.records.exposures import ExposureStore


@dataclass(frozen=True, slots=True)
class NotificationUser:
    """An enabled user with the current roles, timezone and quiet hours."""

    caller: Caller
    timezone: str
    quiet_hours: QuietHours | None = None

    def find_send_time(self, at: datetime) -> datetime:
        """Return when quiet hours let something be sent, from `at` on."""
        return at if self.quiet_hours is None else self.quiet_hours.find_send_time(at)


@dataclass(frozen=True, slots=True)
class RolloutNews:
    """What there may be to notify of in a rollout; `items` are what each kind loaded, by name."""

    state: RolloutState
    items: Mapping[str, Sequence[Any]] = field(default_factory=dict)


class NotificationKind(ABC):
    """A kind of notification.

    Attributes:
        name: what users choose it by, in the API and in the database.
        description: beside its box in the console, and in the documentation.
        notices: the kinds of its notices; each names one thing in `Notice.about`.
        is_urgent: whether quiet hours and clocks that disagree don't hold it back.
        is_grouped: whether several of its notices may be one message.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    notices: ClassVar[tuple[str, ...]]
    is_urgent: ClassVar[bool] = False
    is_grouped: ClassVar[bool] = False

    def load_items(self, service: Service, state: RolloutState, at: datetime) -> Sequence[Any]:
        """Return what `find_notices` needs of a rollout beside its state."""
        return ()

    @abstractmethod
    def find_notices(
        self,
        user: NotificationUser,
        since: datetime,
        news: Sequence[RolloutNews],
        at: datetime,
    ) -> Iterator[Notice]:
        """Yield what a user who chose the kind is to be notified of, sent or not.

        Args:
            since: when the user chose it.
            news: of the rollouts that the user sees.
        """

    @abstractmethod
    def build_text(
        self,
        service: Service,
        user: NotificationUser,
        notices: Sequence[Notice],
        news: Sequence[RolloutNews],
        at: datetime,
    ) -> MessageText | None:
        """Return the text of a message, or None if nothing is left to write about.

        Args:
            notices: one; or those that `select_group` put in one message.
            news: of the notices' rollout; of all for a notice without one.

        Raises:
            RefusalError: the user may not read it, or it is gone.
        """

    def find_send_time(
        self, user: NotificationUser, notice: Notice, news: Mapping[str, RolloutNews], at: datetime
    ) -> datetime:
        """Return when a new notice is sent, from `at` on."""
        return at if self.is_urgent else user.find_send_time(at)

    def select_group(
        self,
        notification: Notification,
        due_notices: Collection[Notice],
        news: Sequence[RolloutNews],
    ) -> tuple[Notification, ...]:
        """Return the notifications, taken with one, that belong in its message."""
        return ()


def record_figures(
    service: Service, user: NotificationUser, state: RolloutState, until: datetime
) -> None:
    """Record before sending that the user sees figures: they may become a reviewer later."""
    with service.database.begin_write() as transaction:
        ExposureStore(transaction, state.rollout).record_figures(
            user.caller.name, until, page="message"
        )
