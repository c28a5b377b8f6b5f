"""What happens in the story, a line each, as the ledger says it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import httpx

from rollout.core.ledger.ledger import Row, event_of
from rollout.core.policy.policy import Policy
from rollout.core.scope.events import Approved, Event, ProposalRaised
from rollout.reports.text.event_text import Telling, happening

UNTOLD = frozenset({"RolloutCreated"})


@dataclass(slots=True)
class Teller:
    """Reads the ledger through the API and says what is new in it."""

    client: httpx.Client
    policy: Policy
    since: datetime
    _revision: int = 0
    _raised: dict[str, ProposalRaised] = field(default_factory=dict)
    _yes: dict[str, list[str]] = field(default_factory=dict)

    def news(self) -> Iterator[str]:
        """Yield a line for each event since the last time."""
        path = f"/v1/rollouts/{self.policy.rollout}/ledger"
        response = self.client.get(path, params={"after": self._revision})
        response.raise_for_status()
        for line in response.text.splitlines():
            row = json.loads(line)
            row.pop("hash")
            yield from self._told(Row(**row))

    def _told(self, row: Row) -> Iterator[str]:
        event = event_of(row)
        self._revision = row.revision
        self._note(event)
        describer = Telling(self.policy, self._raised, self._yes, simulated=False, since=self.since)
        description = happening(row.revision, event, describer)
        if description.kind not in UNTOLD:
            location = f"{description.site} {description.window}: " if description.site else ""
            yield f"{description.local:>16}  {location}{description.brief}"

    def _note(self, event: Event) -> None:
        if isinstance(event, ProposalRaised):
            self._raised[event.proposal] = event
        elif isinstance(event, Approved):
            self._yes.setdefault(event.proposal, []).append(event.by)
