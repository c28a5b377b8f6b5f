"""What people had to look at and how they held on: stops, drills, incidents, silence of sites."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from rollout.core.scope.events import IncidentAcknowledged, IncidentOpened, Resumed, Stopped
from rollout.reports.inputs.inputs import Inputs


@dataclass(frozen=True, slots=True)
class StopFacts:
    """One use of the stop; `resumed_at` is None while it holds."""

    stop: str
    at: datetime
    by: str
    cells: int
    reason: str
    drill: bool
    resumed_at: datetime | None


@dataclass(frozen=True, slots=True)
class IncidentFacts:
    """One incident: what it was about, what it did, and who has seen it (None: nobody yet)."""

    incident: str
    at: datetime
    kind: str
    guard: str
    site: str | None
    window: str | None
    version: str
    did: str
    reason: str
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    note: str


@dataclass(frozen=True, slots=True)
class Silence:
    """The longest stretch in which no case occurred at a site, ends of the report included.

    `hours` is its length. It may be what the site is like (a camp in winter) or a broken camera:
    it is shown so that somebody looks.
    """

    site: str
    since: datetime
    until: datetime
    hours: float


@dataclass(frozen=True, slots=True)
class Oversight:
    """What an auditor asks of people's hold on the rollout.

    Attributes:
        stops: every stop, drills among them, in order.
        last_stop, last_drill: when it was last used in earnest and tried; None for never.
        incidents: every incident, in order.
        silences: per site the longest time without a case; a site without any case has none.
    """

    stops: tuple[StopFacts, ...]
    last_stop: datetime | None
    last_drill: datetime | None
    incidents: tuple[IncidentFacts, ...]
    silences: tuple[Silence, ...]


def oversight(inputs: Inputs) -> Oversight:
    """Return the stops, incidents and silences of a rollout."""
    stops = tuple(_stops(inputs))
    return Oversight(
        stops=stops,
        last_stop=max((stop.at for stop in stops if not stop.drill), default=None),
        last_drill=max((stop.at for stop in stops if stop.drill), default=None),
        incidents=tuple(_incidents(inputs)),
        silences=tuple(_silences(inputs)),
    )


def _stops(inputs: Inputs) -> Iterator[StopFacts]:
    resumed_at = {event.stop: event.at for event in inputs.events if isinstance(event, Resumed)}
    for event in inputs.events:
        if isinstance(event, Stopped):
            yield StopFacts(
                stop=event.stop,
                at=event.at,
                by=event.by,
                cells=len(event.cells),
                reason=event.reason,
                drill=event.drill,
                resumed_at=resumed_at.get(event.stop),
            )


def _incidents(inputs: Inputs) -> Iterator[IncidentFacts]:
    acknowledgements = {
        event.incident: event for event in inputs.events if isinstance(event, IncidentAcknowledged)
    }
    for event in inputs.events:
        if isinstance(event, IncidentOpened):
            yield _incident(event, acknowledgements.get(event.incident))


def _incident(event: IncidentOpened, seen: IncidentAcknowledged | None) -> IncidentFacts:
    return IncidentFacts(
        incident=event.incident,
        at=event.at,
        kind=event.kind,
        guard=event.guard,
        site=event.cell.site if event.cell else None,
        window=event.cell.window if event.cell else None,
        version=event.version,
        did=event.effect,
        reason=event.reason,
        acknowledged_at=seen.at if seen else None,
        acknowledged_by=seen.by if seen else None,
        note=seen.note if seen else "",
    )


def _silences(inputs: Inputs) -> Iterator[Silence]:
    """Yield each site's longest silence, sites in their order of names."""
    occurred_cases = (
        inputs.cases.select("site", "occurred_at").drop_nulls().sort("site", "occurred_at")
    )
    for (site,), cases in occurred_cases.group_by("site", maintain_order=True):
        ends = pl.Series([inputs.first, inputs.last], dtype=cases["occurred_at"].dtype)
        times = pl.concat([cases["occurred_at"], ends]).sort()
        gaps = times.diff().drop_nulls()
        longest = int(gaps.arg_max() or 0)
        yield Silence(
            site=str(site),
            since=times[longest],
            until=times[longest + 1],
            hours=gaps[longest].total_seconds() / 3600,
        )
