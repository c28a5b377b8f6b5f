"""Claim what is due in an outbox, for one try."""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from rollout.services.engine.service import Service
from rollout.store.database.session import Transaction

DELIVERY_LEASE = timedelta(minutes=5)
"""Well above the timeout of one message, so no other replica sends it meanwhile."""
ClaimT = TypeVar("ClaimT")
TakenT_co = TypeVar("TakenT_co", covariant=True)


class DueOutbox(Protocol[TakenT_co]):
    """An outbox of messages, each taken by one process at a time."""

    def has_due(self, *, at: datetime, excluded_channels: Collection[str] = ()) -> bool:
        """Return whether `take_next` would return a message, without locking."""
        ...

    def take_next(
        self, *, at: datetime, lease: timedelta, excluded_channels: Collection[str] = ()
    ) -> TakenT_co | None:
        """Return a due message and count an attempt, or None."""
        ...


def claim_due(
    service: Service,
    open_outbox: Callable[[Transaction], DueOutbox[ClaimT]],
    failed_channels: Collection[str],
    previously_failed: Collection[str],
) -> ClaimT | None:
    """Claim a due message of channels that did not fail; those of the previous pass come last."""
    excluded_first = {*failed_channels, *previously_failed}
    return _claim(service, open_outbox, excluded_first) or _claim(
        service, open_outbox, failed_channels
    )


def _claim(
    service: Service,
    open_outbox: Callable[[Transaction], DueOutbox[ClaimT]],
    excluded_channels: Collection[str],
) -> ClaimT | None:
    """Claim a due message; the write lock is taken only if there is one."""
    at = service.clock.now()
    with service.database.begin_read() as transaction:
        if not open_outbox(transaction).has_due(at=at, excluded_channels=excluded_channels):
            return None
    with service.database.begin_write() as transaction:
        return open_outbox(transaction).take_next(
            at=at, lease=DELIVERY_LEASE, excluded_channels=excluded_channels
        )
