"""Inputs of a report: policy, ledger events and records."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import polars as pl

from rollout.core.calendar.sites import Cell
from rollout.core.ledger.ledger import CanonicalRow
from rollout.core.policy.evidence_sources import FrozenRegistering
from rollout.core.policy.policy import Policy
from rollout.core.records.label_cleaning import CleaningChoice
from rollout.core.records.records import BaselineCount
from rollout.reports.inputs.evidence_inputs import EvidenceInputs
from rollout.reports.inputs.pairs import Pairs, build_case_frame, build_pairs
from rollout.reports.inputs.pictures import MediaFinder, find_no_media
from rollout.tally.first_values import FirstValues
from rollout.tally.frames import INSTANT, RecordFrames
from rollout.tally.stage_history import StageHistory

LATE_UNIT_SCHEMA = {"unit": pl.String(), "version": pl.String()}
ACTION_SCHEMA = {
    "case_key": pl.String(),
    "lever": pl.String(),
    "action": pl.String(),
    "by": pl.String(),  # person or model
    "version": pl.String(),
    "at": INSTANT,
    "permission": pl.String(),  # whether the action was authorized
    "permit_kind": pl.String(),  # bound or unbound; null without a permit
}
"""Schema of `ReportInputs.actions`: one row a case and lever, the last revision of it."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """An input file: its name without folders, and the SHA-256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class PendingReviews:
    """Review tasks of one site when a report was made.

    Attributes:
        site: of the cases.
        open: open review tasks.
        overdue: tasks whose decision came too late, or never, in the span of the report.
        expiring: open tasks that are due within a quarter of the policy's grace.
        oldest: when the oldest open task was created; None without one.
    """

    site: str
    open: int
    overdue: int
    expiring: int
    oldest: datetime | None


@dataclass(frozen=True)
class PolicyPeriod:
    """A policy in force from `since` on, with its stage history by cell."""

    since: datetime
    policy: Policy
    timelines: Mapping[Cell, StageHistory]


@dataclass(frozen=True)
class ReportInputs(EvidenceInputs):
    """All inputs of a report; the same inputs give the same report.

    Attributes:
        timelines: stage history of each cell, of any acting version.
        units: one row per track, unit, version and lever, of the cases that occurred.
        records: all records as read.
        cases: the cases in a cell, with window, day, unit and t.
        unplaced: number of cases without a cell, by reason.
        salt: salt of the sampling values.
        audit_salt: salt of the audits; empty: the same.
        is_simulated: whether approvals were simulated.
        sources: input files, including the policy.
        command: the command that reproduces the report.
        product: name and version of the program.
        media: finds the media of the report's costliest cases.
        chosen_sources: sources whose decisions a replay counts; () for all.
        whole_cells: of a replay with several confidence floors, the same with one gate for each
            cell.

    Only of a live rollout:

    Attributes:
        made_at: when the report was made; later records are ignored. None for a replay.
        counted_until: the last tick, up to which units were counted; None for a replay.
        closes_at: when the last case of the span closes; None for a replay.
        pending_units: units that are not counted yet, as rows of `units`, gate track only.
        late_units: unit and version of those whose decision arrived after gates had counted them.
        withheld_count: cases withheld because they can still be reviewed blind.
        actions: actions taken, with columns `ACTION_SCHEMA`.
        baselines: the manual baseline.
        pending_reviews: by site, for sites with review tasks.
        last_activity: by site, the time of its last record or heartbeat.
        ledger_rows: the stored ledger, up to the end of the span.
        ledger_fault: where the hash chain breaks, "" if it is intact, None if unchecked.
        policy_periods: all policies in order, the current one last.
        choices: cleaning choices in order of time.
        first_values: of all counted units; None for those of `units`.
        registered: who registered the cases, by name.
    """

    timelines: Mapping[Cell, StageHistory]
    units: pl.DataFrame
    records: RecordFrames
    cases: pl.DataFrame
    unplaced: Mapping[str, int]
    salt: bytes
    is_simulated: bool
    audit_salt: bytes = field(default=b"", repr=False)
    sources: tuple[SourceFile, ...] = ()
    command: str = ""
    product: str = ""
    media: MediaFinder = find_no_media
    chosen_sources: tuple[str, ...] = ()
    whole_cells: "ReportInputs | None" = None
    made_at: datetime | None = None
    counted_until: datetime | None = None
    closes_at: datetime | None = None
    pending_units: pl.DataFrame = field(default_factory=pl.DataFrame)
    late_units: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LATE_UNIT_SCHEMA))
    withheld_count: int = 0
    actions: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ACTION_SCHEMA))
    baselines: tuple[BaselineCount, ...] = ()
    pending_reviews: tuple[PendingReviews, ...] = ()
    last_activity: Mapping[str, datetime] = field(default_factory=dict)
    ledger_rows: tuple[CanonicalRow, ...] = ()
    ledger_fault: str | None = None
    policy_periods: tuple[PolicyPeriod, ...] = ()
    choices: tuple[CleaningChoice, ...] = ()
    first_values: FirstValues | None = None
    registered: tuple[FrozenRegistering, ...] = ()

    @property
    def is_live(self) -> bool:
        """Return whether the inputs are of a live rollout, not of a replay."""
        return self.made_at is not None

    @cached_property
    def pairs(self) -> Pairs:
        """Return the pairs of the records, built once for all figures."""
        return build_pairs(self.records, self.cases, self.policy)

    @cached_property
    def case_facts(self) -> pl.DataFrame:
        """Return the facts of each case, built once for all figures."""
        return build_case_frame(self.records, self.cases)

    @property
    def all_policy_periods(self) -> tuple[PolicyPeriod, ...]:
        """Return the policy periods; a single policy is one period."""
        return self.policy_periods or (PolicyPeriod(self.first, self.policy, self.timelines),)
