"""Human oversight: stops, drills, incidents, silence of sites, and the model's permits."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from rollout.engine.events import (
    IncidentAcknowledged,
    IncidentOpened,
    Resumed,
    Stopped,
    select_events,
)
from rollout.features.reports.inputs.inputs import ReportInputs
from rollout.kernel.facts import to_facts
from rollout.kernel.words import say_alarms

NO_PERMIT = "none"


@dataclass(frozen=True, slots=True)
class PermitCount:
    """The number of the model's actions with one kind of permit and one authorization.

    Attributes:
        kind: `bound` to the answers of the question, `unbound`, or `none`: no permit of this
            service.
        authorization: `authorized`, `authorized_within_lease` or `unauthorized`.
        actions: on cases in the report; the last revision of each action.
    """

    kind: str
    authorization: str
    actions: int


def count_permits(inputs: ReportInputs) -> tuple[PermitCount, ...]:
    """Return the counts, ordered by kind and authorization; none without actions."""
    kind = pl.col("permit_kind").fill_null(NO_PERMIT).alias("kind")
    counts = (
        inputs.actions.filter(pl.col("by") == "model")
        .group_by(kind, "permission")
        .agg(actions=pl.len())
        .sort("kind", "permission")
    )
    return tuple(PermitCount(*row) for row in counts.iter_rows())


@dataclass(frozen=True, slots=True)
class StopFacts:
    """One stop; `resumed_at` is None while it is active."""

    stop: str
    at: datetime
    by: str
    cells: int
    reason: str
    drill: bool
    resumed_at: datetime | None


@dataclass(frozen=True, slots=True)
class IncidentFacts:
    """One incident: its cause and effect, and who acknowledged it, if anyone.

    `alarms` is what guards read, of which `reason` is the text.
    """

    incident: str
    at: datetime
    kind: str
    guard: str
    site: str | None
    window: str | None
    version: str
    effect: str
    reason: str
    alarms: tuple[Mapping[str, Any], ...]
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    note: str


@dataclass(frozen=True, slots=True)
class Silence:
    """The longest span without a case at a site, including the ends of the report.

    `hours` is its length. It can be normal for the site (a camp in winter) or a broken camera.
    """

    site: str
    since: datetime
    until: datetime
    hours: float


@dataclass(frozen=True, slots=True)
class Oversight:
    """Stops, incidents and silences of a rollout.

    Attributes:
        stops: every stop, including drills, in order.
        last_stop, last_drill: time of the last real stop and of the last drill; None if never.
        incidents: every incident, in order.
        silences: the longest silence of each site with cases.
    """

    stops: tuple[StopFacts, ...]
    last_stop: datetime | None
    last_drill: datetime | None
    incidents: tuple[IncidentFacts, ...]
    silences: tuple[Silence, ...]


def compute_oversight(inputs: ReportInputs) -> Oversight:
    """Return the stops, incidents and silences of a rollout."""
    stops = tuple(_list_stops(inputs))
    return Oversight(
        stops=stops,
        last_stop=max((stop.at for stop in stops if not stop.drill), default=None),
        last_drill=max((stop.at for stop in stops if stop.drill), default=None),
        incidents=tuple(_list_incidents(inputs)),
        silences=tuple(_find_silences(inputs)),
    )


def _list_stops(inputs: ReportInputs) -> Iterator[StopFacts]:
    resumed_at = {event.stop: event.at for event in select_events(inputs.events, Resumed)}
    for event in select_events(inputs.events, Stopped):
        yield StopFacts(
            stop=event.stop,
            at=event.at,
            by=event.by,
            cells=len(event.cells),
            reason=event.reason,
            drill=event.drill,
            resumed_at=resumed_at.get(event.stop),
        )


def _list_incidents(inputs: ReportInputs) -> Iterator[IncidentFacts]:
    acknowledgements = {
        event.incident: event for event in select_events(inputs.events, IncidentAcknowledged)
    }
    for event in select_events(inputs.events, IncidentOpened):
        yield _build_incident(event, acknowledgements.get(event.incident))


def _build_incident(
    event: IncidentOpened, acknowledgement: IncidentAcknowledged | None
) -> IncidentFacts:
    return IncidentFacts(
        incident=event.incident,
        at=event.at,
        kind=event.kind,
        guard=event.guard,
        site=event.cell.site if event.cell else None,
        window=event.cell.window if event.cell else None,
        version=event.version,
        effect=event.effect,
        reason=say_alarms(event.alarms, event.reason),
        alarms=tuple(map(to_facts, event.alarms)),
        acknowledged_at=acknowledgement.at if acknowledgement else None,
        acknowledged_by=acknowledgement.by if acknowledgement else None,
        note=acknowledgement.note if acknowledgement else "",
    )


def _find_silences(inputs: ReportInputs) -> Iterator[Silence]:
    """Yield the longest silence of each site, sorted by name."""
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
