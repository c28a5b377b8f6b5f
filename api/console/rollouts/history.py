"""The history as a page tells it: each change with its mark, its place and the map of then."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from api.console.ledger.ledger_text import NARROWER, WIDER
from api.console.page.text import full_stop
from api.console.rollouts.as_of import link_of
from rollout.core.policy.policy import Policy
from rollout.reports.text.event_text import Happening
from rollout.reports.text.formatting import cell_name
from rollout.services.ledger.activity import CHANGES

NARROWS: Final = frozenset({*NARROWER, "VersionRetired"})
CHANGING: Final = frozenset(kind.__name__ for kind in CHANGES)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the history.

    Attributes:
        at, zone: when, and on whose clock it is told.
        mark: `is-wider`, `is-narrower` or "": the shape beside it.
        cell: the cell that it is about, "" where it is about none.
        says: what happened.
        then: how a link names its instant, where the map changed; "" where it didn't.
        revision: its place in the ledger.
    """

    at: datetime
    zone: str
    mark: str
    cell: str
    says: str
    then: str
    revision: int


def entries(items: Iterable[Happening], policy: Policy) -> tuple[Entry, ...]:
    """Return what happened as the page's timeline tells it, in the order given."""
    return tuple(_entry(item, policy) for item in items)


def _entry(item: Happening, policy: Policy) -> Entry:
    return Entry(
        at=item.at,
        zone=policy.zone_of(item.site or ""),
        mark="is-wider" * (item.kind in WIDER) or "is-narrower" * (item.kind in NARROWS),
        cell=cell_name(item.site, item.window),
        says=full_stop(item.text),
        then=link_of(item.at) if item.kind in CHANGING else "",
        revision=item.revision,
    )
