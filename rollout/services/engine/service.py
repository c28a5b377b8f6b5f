"""What one process of the service holds in memory: its database, its clock, what it watches."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from rollout.core.scope.permissions import Caller
from rollout.services.access.sign_in import SigningIn
from rollout.services.engine.permit_signing import Permitting
from rollout.services.engine.state_cache import Watch
from rollout.services.support.channels import NO_CHANNELS, Channels
from rollout.services.support.clock import Clock, SystemClock
from rollout.store.database.session import Database

Entropy = Callable[[int], bytes]


class Door(Protocol):
    """Who comes in: `rollout.services.access.authentication`, or whom a test lets in."""

    def at_hand(self, text: str, at: datetime) -> Caller | None:
        """Return whose key this is without asking the database; None where it must be asked.

        Raises:
            Unauthenticated: nobody's that is valid now.
        """
        ...

    def session_at_hand(self, token: str, at: datetime) -> Caller | None:
        """Return whose session this is without asking the database; None where it must be asked."""
        ...

    def caller_of_key(self, text: str, at: datetime) -> Caller:
        """Return whose key this is.

        Raises:
            Unauthenticated: nobody's that is valid now.
        """
        ...

    def page_token(self, token: str) -> str:
        """Return what the pages of a session bring back when they change something.

        Raises:
            Unauthenticated: there is no such session.
        """
        ...

    def check_page_token(self, token: str, page_token: str) -> None:
        """Go on only with the page's token of a session.

        Raises:
            Unauthenticated: there is no such session.
            CrossSite: the token is not its own.
        """
        ...

    def note_uses(self, at: datetime) -> bool:
        """Write when keys and sessions were used last, beside the requests."""
        ...

    def caller_of_session(self, text: str, at: datetime, *, csrf: str | None = None) -> Caller:
        """Return whose session this is; what changes something brings its page's token.

        Raises:
            Unauthenticated: nobody's that is valid now.
            CrossSite: `csrf` is given, and not that of the session.
        """
        ...


@dataclass(frozen=True, slots=True)
class Service:
    """One replica.

    Attributes:
        database: where everything is.
        clock: what tells the time to all of it.
        watch: the rollouts, as confirmed a moment ago.
        door: who comes in by which key or session, as confirmed a moment ago.
        signing: the ways in that end in a session.
        permits: signs answers and checks what actions bring back.
        entropy: random bytes for salts, keys and sessions.
        channels: where reports go.
    """

    database: Database
    clock: Clock
    watch: Watch
    door: Door
    signing: SigningIn
    permits: Permitting
    entropy: Entropy
    channels: Channels = NO_CHANNELS


def service_on(
    database: Database,
    door: Door,
    clock: Clock | None = None,
    entropy: Entropy = secrets.token_bytes,
    channels: Channels = NO_CHANNELS,
) -> Service:
    """Return a replica on a database whose tables are current; nothing is read yet."""
    service_clock = SystemClock() if clock is None else clock
    return Service(
        database=database,
        clock=service_clock,
        watch=Watch(database, service_clock),
        door=door,
        signing=SigningIn(database, service_clock, entropy),
        permits=Permitting(database, service_clock, entropy),
        entropy=entropy,
        channels=channels,
    )
