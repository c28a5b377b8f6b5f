"""What a report is made of: a policy, what happened under it, and the records behind that."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from rollout.core.events import Event
from rollout.core.places import Cell
from rollout.core.policy import Policy
from rollout.tally.frames import Records
from rollout.tally.sight import Sight
from rollout.tally.timeline import Timeline

Key = tuple[Cell, str]  # a cell and a version


@dataclass(frozen=True, slots=True)
class Source:
    """A file that went in: its name without folders, and the SHA-256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Inputs:
    """Everything that the facts of a report follow from; the same inputs give the same report.

    Attributes:
        policy: the policy that was in force.
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
