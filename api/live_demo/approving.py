"""A simulated operator who approves proposals after a delay."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx


@dataclass(slots=True)
class DemoApprover:
    """An operator who approves proposals by their evidence hash.

    Attributes:
        client: an HTTP client with the operator's key.
        rollout: its name.
        delay: the age of a proposal before it is approved.
        kinds: the kinds to approve; empty means all.
    """

    client: httpx.Client
    rollout: str
    delay: timedelta
    kinds: frozenset[str] = frozenset()
    _approved: set[str] = field(default_factory=set)

    def approve_due(self, now: datetime) -> None:
        """Approve the open proposals that are old enough."""
        response = self.client.get(f"/v1/rollouts/{self.rollout}/proposals")
        response.raise_for_status()
        for proposal in response.json()["items"]:
            is_due = datetime.fromisoformat(proposal["raised_at"]) + self.delay <= now
            is_own_kind = not self.kinds or proposal["kind"] in self.kinds
            if is_due and is_own_kind and proposal["id"] not in self._approved:
                self._approve(proposal["id"], proposal["evidence_hash"])

    def _approve(self, proposal: str, evidence: str) -> None:
        path = f"/v1/rollouts/{self.rollout}/proposals/{proposal}/approvals"
        self.client.post(path, json={"evidence_hash": evidence})
        self._approved.add(proposal)
