"""What a report is made of: a policy, what happened under it, and the records behind that."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from rollout.core.calendar.sites import Cell
from rollout.core.ledger.ledger import Row
from rollout.core.policy.policy import Policy
from rollout.core.records.label_cleaning import Choice
from rollout.core.scope.events import Event
from rollout.reports.inputs.pictures import MediaOf, no_media
from rollout.tally.evidence_view import Sight
from rollout.tally.frames import INSTANT, Records
from rollout.tally.stage_history import Timeline

Key = tuple[Cell, str]  # a cell and a version

ACTIONS = {
    "case_key": pl.String(),
    "lever": pl.String(),
    "action": pl.String(),
    "by": pl.String(),  # person or model
    "version": pl.String(),
    "at": INSTANT,
    "permission": pl.String(),  # whether the action was authorized
}
"""Schema of `Inputs.actions`: one row a case and lever, the last revision of it."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file that went in: its name without folders, and the SHA-256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Baseline:
    """How often people did `action` in a cell from `since` up to `until`, before the rollout."""

    site: str
    window: str
    lever: str
    action: str
    n: int
    since: datetime
    until: datetime
    vouched_by: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Reviews of one site when a report was made.

    Attributes:
        site: of the cases.
        open: seats at which a verdict is still asked for.
        overdue: seats whose verdict came too late, or never, in the span of the report.
        expiring: of the open ones those that are due within a quarter of the policy's grace.
        oldest: when the oldest open one was opened; None where none is open.
    """

    site: str
    open: int
    overdue: int
    expiring: int
    oldest: datetime | None


@dataclass(frozen=True)
class Era:
    """A policy that was in force from `since` on, with the stages of its own ladder by cell."""

    since: datetime
    policy: Policy
    timelines: Mapping[Cell, Timeline]


@dataclass(frozen=True)
class Inputs:
    """Everything that the facts of a report follow from; the same inputs give the same report.

    Attributes:
        policy: the policy that was in force, at the end where there were several.
        events: the whole ledger, in order.
        timelines: per cell the stages it stood on, for whichever version acted.
        sights: per cell and version what the engine was shown at the end.
        units: one row per track, unit, version and lever, as `tally.units.resolve` gives it.
        records: the records as they were read.
        cases: the cases that could be placed, with window, day, unit and t.
        left_out: how many cases could not be placed, by reason.
        first, last: the span that was decided over.
        salt: what the draws were made with.
        simulated: whether approvals were made up.
        sources: the files that went in, the policy among them.
        command: the line that makes the same report again.
        product: name and version of the program.
        media: finds what the media of a report's worst cases are.

    What only a service's store knows; a replay leaves it out, and pages say so:

    Attributes:
        made_at: when the report is made: what comes in later plays no part in it; None of a replay.
        settled_until: up to when units were counted: the last tick; None of a replay.
        due: when the last case that occurred in the span closes; None of a replay.
        waiting: units that are not counted yet, as rows of `units`, gate track alone.
        kept_back: how many cases are left out since somebody may still judge them blind.
        actions: what was done, in the form of `ACTIONS`.
        baselines: what people did before.
        desk: by site, how many reviews wait; a site without any is left out.
        heard: by site, when its last record or sign of life came in.
        rows: the ledger as it is stored, up to the end of the span.
        chain_fault: where the stored chain breaks, "" where it is whole, None if nobody looked.
        eras: the policies that were in force, in order, the present one last.
        cleanings: what people chose to relabel, drop or keep for training, in that order.
    """

    policy: Policy
    events: tuple[Event, ...]
    timelines: Mapping[Cell, Timeline]
    sights: Mapping[Key, Sight]
    units: pl.DataFrame
    records: Records
    cases: pl.DataFrame
    left_out: Mapping[str, int]
    first: datetime
    last: datetime
    salt: bytes
    simulated: bool
    sources: tuple[Source, ...] = ()
    command: str = ""
    product: str = ""
    media: MediaOf = no_media
    made_at: datetime | None = None
    settled_until: datetime | None = None
    due: datetime | None = None
    waiting: pl.DataFrame = field(default_factory=pl.DataFrame)
    kept_back: int = 0
    actions: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ACTIONS))
    baselines: tuple[Baseline, ...] = ()
    desk: tuple[Waiting, ...] = ()
    heard: Mapping[str, datetime] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    chain_fault: str | None = None
    eras: tuple[Era, ...] = ()
    cleanings: tuple[Choice, ...] = ()

    @property
    def live(self) -> bool:
        """Say whether a service's store is behind it, and not a replay."""
        return self.made_at is not None
