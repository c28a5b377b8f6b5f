"""What passes over ticks return, for processes that count nothing, too."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from rollout.engine.events import LedgerEvent

STORAGE_RETRY_DELAY: Final = timedelta(seconds=5)
"""After a tick that the database or its disk failed: until one succeeds humans decide."""


@dataclass(frozen=True, slots=True)
class TickPass:
    """The events of ticks run here, their durations and the errors, by rollout."""

    events_by_rollout: Mapping[str, tuple[LedgerEvent, ...]] = field(default_factory=dict)
    errors: Mapping[str, Exception] = field(default_factory=dict)
    seconds_by_rollout: Mapping[str, float] = field(default_factory=dict)
