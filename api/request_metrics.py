"""What one process has answered, counted: requests, assignments by decider, records by verdict."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(slots=True)
class Counts:
    """Sums since the process began, by their labels.

    Attributes:
        requests: by method, route and status. Routes, not paths: those would never end.
        assignments: by rollout and decider.
        records: by rollout and verdict.
    """

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    assignments: Counter[tuple[str, str]] = field(default_factory=Counter)
    records: Counter[tuple[str, str]] = field(default_factory=Counter)

    def assigned(self, rollout: str, deciders: Iterable[str]) -> None:
        """Count who decides."""
        for decider, n in Counter(deciders).items():
            self.assignments[rollout, decider] += n

    def recorded(self, rollout: str, verdicts: Iterable[str]) -> None:
        """Count what became of records."""
        for status, n in Counter(verdicts).items():
            self.records[rollout, str(status)] += n


@dataclass(frozen=True, slots=True)
class Counting:
    """The middleware that counts requests by how routes answered them.

    What is refused before it reaches a route, as too large or too many, is not among them.
    """

    app: ASGIApp
    counts: Counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the status as it is sent."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "")
                self.counts.requests[scope["method"], route, message["status"]] += 1
            await send(message)

        await self.app(scope, receive, noting)
