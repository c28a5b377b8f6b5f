"""What waits for people when a report is made, and whether anything still comes in."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from rollout.reports.inputs.inputs import Inputs, Waiting


@dataclass(frozen=True, slots=True)
class Heard:
    """When a site was last heard: a record or a sign of life; None for never."""

    site: str
    last: datetime | None


@dataclass(frozen=True, slots=True)
class Desk:
    """What waits, and who is heard.

    Attributes:
        live: whether this is of a running service; a replay has no desk, and all else is empty.
        open, overdue, expiring: reviews over all sites, as `Waiting` counts them.
        oldest: since when the oldest open review waits; None where none is open.
        sites: the same by site, those with any review.
        heard: every site of the policy, the longest silent first, never heard before all.
    """

    live: bool
    open: int
    overdue: int
    expiring: int
    oldest: datetime | None
    sites: tuple[Waiting, ...]
    heard: tuple[Heard, ...]


def desk_of(inputs: Inputs) -> Desk:
    """Return what waits for people; nothing, and said so, where the inputs are a replay's."""
    sites = inputs.desk
    return Desk(
        live=inputs.live,
        open=sum(site.open for site in sites),
        overdue=sum(site.overdue for site in sites),
        expiring=sum(site.expiring for site in sites),
        oldest=min((site.oldest for site in sites if site.oldest), default=None),
        sites=tuple(sites),
        heard=tuple(_heard(inputs)) if inputs.live else (),
    )


def _heard(inputs: Inputs) -> Iterator[Heard]:
    sites = [site.id for site in inputs.policy.sites]
    yield from (Heard(site, None) for site in sites if site not in inputs.heard)
    active = [site for site in sites if site in inputs.heard]
    yield from (
        Heard(site, inputs.heard[site])
        for site in sorted(active, key=lambda site: inputs.heard[site])
    )
