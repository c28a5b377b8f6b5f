"""Baselines: what humans did before the rollout, and who imported it."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class BaselineCount:
    """How often humans chose `action` in a cell in [since, until)."""

    site: str
    window: str
    lever: str
    action: str
    n: int
    since: datetime
    until: datetime
    imported_by: str = ""

    @property
    def identity(self) -> tuple[object, ...]:
        """Return the key under which a later baseline replaces this one."""
        return (self.site, self.window, self.lever, self.action, self.since, self.until)
