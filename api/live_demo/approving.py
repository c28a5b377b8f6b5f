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
        answer = self.client.get(f"/v1/rollouts/{self.rollout}/proposals")
        answer.raise_for_status()
        for one in answer.json()["items"]:
            ripe = datetime.fromisoformat(one["raised_at"]) + self.after <= now
            theirs = not self.kinds or one["kind"] in self.kinds
            if ripe and theirs and one["id"] not in self._done:
                self._approve(one["id"], one["evidence_hash"])

    def _approve(self, proposal: str, evidence: str) -> None:
        path = f"/v1/rollouts/{self.rollout}/proposals/{proposal}/approvals"
        self.client.post(path, json={"evidence_hash": evidence})
        self._done.add(proposal)
