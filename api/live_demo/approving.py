"""The colleague who approves a while after a proposal is raised: one of the two that it takes."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx


@dataclass(slots=True)
class Colleague:
    """Approves by the hash of what is shown, as any operator would.

    Attributes:
        client: speaks to the service with their key.
        rollout: whose proposals they look at.
        after: how long a proposal is left to others first.
        kinds: what they say yes to; nothing named means everything.
    """

    client: httpx.Client
    rollout: str
    after: timedelta
    kinds: frozenset[str] = frozenset()
    _done: set[str] = field(default_factory=set)

    def look(self, now: datetime) -> None:
        """Approve what was raised long enough ago; what closed meanwhile is left alone."""
        response = self.client.get(f"/v1/rollouts/{self.rollout}/proposals")
        response.raise_for_status()
        for proposal in response.json()["items"]:
            is_due = datetime.fromisoformat(proposal["raised_at"]) + self.after <= now
            is_own_kind = not self.kinds or proposal["kind"] in self.kinds
            if is_due and is_own_kind and proposal["id"] not in self._done:
                self._approve(proposal["id"], proposal["evidence_hash"])

    def _approve(self, proposal: str, evidence: str) -> None:
        path = f"/v1/rollouts/{self.rollout}/proposals/{proposal}/approvals"
        self.client.post(path, json={"evidence_hash": evidence})
        self._done.add(proposal)
