"""Attribute values that versions met for the first time, as ticks recorded them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from rollout.core.calendar.sites import Cell
from rollout.core.policy.familiarity import FEW, UNITS_BEFORE_NOTICE, AttributeValue
from rollout.core.scope.event_base import LedgerEvent
from rollout.core.scope.events import FamiliarityChanged


@dataclass(frozen=True, slots=True)
class NewAttributeValue:
    """A value that a version had met a few times at a tick; it is not familiar with it."""

    at: datetime
    cell: Cell
    version: str
    value: AttributeValue

    @property
    def notice_key(self) -> str:
        """Return what a message is about: a tick and a site."""
        return f"{self.at.isoformat()} {self.cell.site}"


def list_new_values(events: Iterable[LedgerEvent]) -> Iterator[NewAttributeValue]:
    """Yield the new values that events recorded."""
    for event in events:
        if not isinstance(event, FamiliarityChanged):
            continue
        for cell, version, attribute, text, status, judged in zip(
            event.cells,
            event.versions,
            event.attributes,
            event.values,
            event.statuses,
            event.judged,
            strict=True,
        ):
            if status == FEW and judged >= UNITS_BEFORE_NOTICE:
                yield NewAttributeValue(event.at, cell, version, (attribute, text))
