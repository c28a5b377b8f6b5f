"""Limits of connections, so that half-sent requests never keep everybody else out.

Each connection takes a file of the process. Near the soft limit of files only addresses from which
somebody authenticated within a day get another connection, so that operators can still stop. One
address has a part of all connections without an authenticated request; its newest one takes the
place of the oldest that waits for a head. Trusted proxies are exempt: they limit by themselves.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, Literal

from starlette.types import Scope

from api.http_protocol import HTTP_PROTOCOL
from rollout.services.access.login_throttle import find_network

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

RESERVED_FILES: Final = (
    100  # for the database, logs, reports and connections of recognized addresses
)
MAX_CONNECTIONS: Final = 100_000
ADDRESS_PARTS: Final = 4  # one address has at most a fourth without an authenticated request
FEW: Final = 8  # of an address beyond the cap
NEAR_PARTS: Final = 4  # the last fourth is near the cap
MEMORY_SECONDS: Final = 86_400.0
MAX_RECOGNIZED: Final = 10_000
HEAD_SECONDS: Final = 10.0
STATE_KEY: Final = "connection"  # of a request's connection, in its state
FULL_ANSWER: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 10\r\ncontent-length: 0\r\n"
    b"connection: close\r\n\r\n"
)
Network = IPv4Network | IPv6Network


@dataclass(slots=True, eq=False)
class Connection:
    """One connection.

    Attributes:
        network: whose it is; "" for trusted proxies and sockets of this machine without address.
        close: ends it at once.
        is_anonymous: whether no request of it was authenticated yet.
        is_waiting: whether it waits for a head, or for its rest.
    """

    limits: "ConnectionLimits"
    network: str
    close: Callable[[], None]
    is_anonymous: bool = True
    is_waiting: bool = True


@dataclass(slots=True)
class ConnectionLimits:
    """The connections of one process.

    Attributes:
        cap: connections beyond which only recognized addresses get one.
        trusted_proxies: networks that are exempt.
    """

    cap: int
    trusted_proxies: Collection[Network] = ()
    read_clock: Callable[[], float] = time.monotonic
    open: int = 0
    recognized: dict[str, float] = field(default_factory=dict)
    anonymous: dict[str, dict[Connection, None]] = field(default_factory=dict)

    def build_connection(self, address: str, close: Callable[[], None]) -> Connection:
        """Return a new connection, which is not admitted yet; `address` is "" for none."""
        is_exempt = not address or any(
            ip_address(address) in network for network in self.trusted_proxies
        )
        return Connection(self, "" if is_exempt else find_network(address), close)

    def admit(self, connection: Connection) -> bool:
        """Count a connection; return whether it may stay."""
        self.open += 1
        if not connection.network:
            return True
        if self.open > self.cap and not self._is_recognized(connection.network):
            return False
        others = self.anonymous.setdefault(connection.network, {})
        limit = FEW if self.open > self.cap else max(1, self.cap // ADDRESS_PARTS)
        if len(others) >= limit:
            oldest = next((other for other in others if other.is_waiting), None)
            if oldest is None:
                return False
            self._drop_anonymous(oldest)
            oldest.close()
        self.anonymous.setdefault(connection.network, {})[connection] = None
        return True

    def remove(self, connection: Connection) -> None:
        """Forget a connection that ended, admitted or not."""
        self.open -= 1
        self._drop_anonymous(connection)

    def recognize(self, connection: Connection) -> None:
        """Remember that a request of the connection was authenticated."""
        connection.is_anonymous = False
        self._drop_anonymous(connection)
        self.recognized.pop(connection.network, None)
        self.recognized[connection.network] = self.read_clock()
        if len(self.recognized) > MAX_RECOGNIZED:
            del self.recognized[next(iter(self.recognized))]

    def must_close(self, connection: Connection) -> bool:
        """Return whether a connection ends after its answer, to leave its file to others."""
        is_near = self.open >= self.cap - self.cap // NEAR_PARTS
        return is_near and connection.is_anonymous and bool(connection.network)

    def _is_recognized(self, network: str) -> bool:
        return self.read_clock() - self.recognized.get(network, -MEMORY_SECONDS) < MEMORY_SECONDS

    def _drop_anonymous(self, connection: Connection) -> None:
        others = self.anonymous.get(connection.network)
        if others is not None and others.pop(connection, self) is None and not others:
            del self.anonymous[connection.network]


def recognize_caller(scope: Scope) -> None:
    """Remember that the request of a scope was authenticated, if a server limits connections."""
    connection = scope["state"].get(STATE_KEY)
    if connection is not None:
        connection.limits.recognize(connection)


def must_close(scope: Scope) -> bool:
    """Return whether the connection of a request ends after its answer."""
    connection = scope["state"].get(STATE_KEY)
    return connection is not None and connection.limits.must_close(connection)


def read_connection_limits(trusted_proxies: str) -> ConnectionLimits:
    """Return the limits under this process's soft limit of files."""
    files = MAX_CONNECTIONS
    if resource is not None:
        soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = files if soft_limit == resource.RLIM_INFINITY else min(files, soft_limit)
    networks = tuple(
        ip_network(part.strip()) for part in trusted_proxies.split(",") if part.strip()
    )
    return ConnectionLimits(max(files - RESERVED_FILES, files // 2), networks)


class GuardedConnection(asyncio.Protocol):
    """What a connection of either parser adds: it is admitted, and its heads come in time."""

    limits: ConnectionLimits
    head_seconds = HEAD_SECONDS
    app_state: dict[str, Any]
    client: tuple[str, int] | None
    cycle: Any
    loop: asyncio.AbstractEventLoop
    transport: Any
    _connection: Connection
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection, or end it with 503."""
        super().connection_made(transport)
        address = "" if self.client is None else self.client[0]
        self._connection = self.limits.build_connection(address, self.transport.abort)
        if not self.limits.admit(self._connection):
            self.transport.write(FULL_ANSWER)
            self.transport.close()
            return
        self.app_state = {**self.app_state, STATE_KEY: self._connection}
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the place to another connection."""
        self._stop_head_timer()
        self.limits.remove(self._connection)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; the time for a head begins with its first byte."""
        last_cycle = self.cycle
        super().data_received(data)
        if self.cycle is not last_cycle:
            self._stop_head_timer()
            self._connection.is_waiting = self.cycle.response_complete
        elif self._connection.is_waiting:
            self._start_head_timer()

    def on_response_complete(self) -> None:
        """Wait for the next head, unless it came already."""
        super().on_response_complete()  # type: ignore[misc]  # of either parser's class
        self._connection.is_waiting = self.cycle.response_complete

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def build_protocol(
    limits: ConnectionLimits, parser: type[asyncio.Protocol] | Literal["h11"] = HTTP_PROTOCOL
) -> type[asyncio.Protocol]:
    """Return uvicorn's setting for a parser, by default the fastest, with limits of connections."""
    if parser == "h11":
        from uvicorn.protocols.http.h11_impl import H11Protocol

        parser = H11Protocol
    return type("LimitedProtocol", (GuardedConnection, parser), {"limits": limits})
