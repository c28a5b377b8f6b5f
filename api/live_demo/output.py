"""The ledger's events as lines of text."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import httpx

from rollout.core.ledger.ledger import CanonicalRow, parse_event
from rollout.core.policy.policy import Policy
from rollout.reports.text.event_describer import CitedProposals, EventDescriber
from rollout.reports.text.event_text import describe_event

HIDDEN_KINDS = frozenset({"RolloutCreated"})


@dataclass(slots=True)
class LedgerNarrator:
    """A reader that describes new ledger events."""

    client: httpx.Client
    policy: Policy
    reference_date: datetime
    _revision: int = 0
    _cited: CitedProposals = field(default_factory=CitedProposals)

    def describe_news(self) -> Iterator[str]:
        """Yield a line for each event since the last call."""
        path = f"/v1/rollouts/{self.policy.rollout}/ledger"
        response = self.client.get(path, params={"after": self._revision})
        response.raise_for_status()
        for line in response.text.splitlines():
            row = json.loads(line)
            row.pop("hash")
            yield from self._describe_row(CanonicalRow(**row))

    def _describe_row(self, row: CanonicalRow) -> Iterator[str]:
        event = parse_event(row)
        self._revision = row.revision
        self._cited.add_event(event)
        describer = EventDescriber(self.policy, self._cited, reference_date=self.reference_date)
        description = describe_event(row.revision, event, describer)
        if description.kind not in HIDDEN_KINDS:
            location = f"{description.site} {description.window}: " if description.site else ""
            yield f"{description.local:>16}  {location}{description.brief}"
