"""Policies as frozen values.

`rollout.kernel.policy_files.reader` reads them from files: defaults are filled in, shares lie in
[0, 1] and names exist. Stage level 0 is shadow; level n > 0 is `stages[n - 1]`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Annotated, ClassVar

from rollout.kernel.calendar.instants import (
    OTHER_WINDOW,
    SHADOW,
    Cell,
    Site,
    Window,
    compute_end_of_local_day,
    format_duration,
)
from rollout.kernel.calendar.opening_hours import is_open
from rollout.kernel.facts import StoredAlarm
from rollout.kernel.measures import Condition
from rollout.kernel.policy.evidence_sources import (
    ACCOUNT,
    DEFAULT_SOURCES,
    UNNAMED,
    EvidenceSources,
    FileReading,
)
from rollout.kernel.policy.familiarity import FamiliarityRule
from rollout.kernel.policy.stages import Stage, VersionRule
from rollout.kernel.units import WHOLE_UNIT, Key, Lever, OutcomeRule, Spread, build_even_levels

DAY = timedelta(days=1)
UNITS_BETWEEN_FALSE_ALARMS, TIME_BETWEEN_FALSE_ALARMS = 10_000.0, 365 * DAY
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Where:
    """Sites and windows of a row; () means all, `*` any text."""

    sites: Annotated[
        tuple[str, ...],
        Key("Pattern", "Sites meant: names, or patterns with *. Default: all."),
    ] = ()
    windows: Annotated[
        tuple[str, ...],
        Key("Pattern", "Windows meant: names, or patterns with *. Default: all."),
    ] = ()

    def fits(self, cell: Cell) -> bool:
        """Return whether the row applies to `cell`."""
        return matches_any(self.sites, cell.site) and matches_any(self.windows, cell.window)


AtCells = Annotated[Where, Spread(("sites", "windows"))]
AtSites = Annotated[Where, Spread(("sites",))]


def matches_any(patterns: Sequence[str], name: str) -> bool:
    """Return whether a name matches one of some patterns; without any it does."""
    return not patterns or any(matches_pattern(pattern, name) for pattern in patterns)


def matches_pattern(pattern: str, name: str) -> bool:
    """Return whether `name` matches `pattern`, in which only `*` is special.

    >>> matches_pattern("gate-*", "gate-c"), matches_pattern("46.1", "4601")
    (True, False)
    """
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name) is not None


@dataclass(frozen=True, slots=True)
class Charter:
    """Why the rollout exists and whom it affects; shown with every proposal."""

    objective: Annotated[str, Key("NonEmptyText", "What the model is to achieve.")] = ""
    affected: Annotated[
        tuple[str, ...], Key("NonEmptyText", "Who is affected by its decisions.")
    ] = ()
    if_it_works_very_well: Annotated[
        str, Key("NonEmptyText", "What then happens to the jobs and skills around it.")
    ] = ""
    worst_case: Annotated[str, Key("NonEmptyText", "The worst that it could do.")] = ""
    feedback: Annotated[
        str,
        Key(
            "NonEmptyText",
            "How actions shape later cases. With it every stage where the model decides "
            "keeps a blind share.",
        ),
    ] = ""
    cost_in: Annotated[str, Key("NonEmptyText", "The unit of all costs.")] = "points"


@dataclass(frozen=True, slots=True)
class EvidenceRules:
    """What counts as one unit, and how long to wait for decisions."""

    unit: Annotated[
        str,
        Key(
            "",
            "What is counted once: episode where cases come in bursts (video).",
            "case",
            choices=("case", "episode"),
            is_required=True,
        ),
    ] = "case"
    episode_span: Annotated[
        timedelta | None,
        Key(
            "PositiveDuration",
            "Without named episodes: cases of a site in one interval this long are one.",
        ),
    ] = None
    grace: Annotated[
        timedelta,
        Key(
            "Duration",
            "Wait for a human decision; without one the unit disagrees.",
            written="24h",
        ),
    ] = DAY
    missing_at_most: Annotated[
        float,
        Key(
            "Share",
            "A larger share of missing units holds gates: undecided, received late, or not"
            " predicted before the decision.",
        ),
    ] = 0.05
    releases: Annotated[
        int,
        Key(
            "Ordinal",
            "Planned attempts of a cell in a year: they share 80 % of each risk equally.",
        ),
    ] = 0
    verdicts: Annotated[int, Key("ReviewerCount", "Blind decisions per unit: 1, 3 or 5.")] = 1
    second_verdict: Annotated[
        float, Key("Share", "Share of units that get a second blind decision.")
    ] = 0.0
    confidence_floor: Annotated[
        float | None,
        Key(
            "Share",
            "Humans decide cases of lower confidence, at every stage. Default: none.",
        ),
    ] = None
    confidence_floors: Annotated[
        tuple[float, ...],
        Key("ConfidenceFloors", "Floors that open one by one, such as [0%, 80%, 97%]."),
    ] = ()
    outside: Annotated[
        str,
        Key(
            "",
            "Exposure of decisions made elsewhere that name none; only blind is evidence.",
            choices=("unknown", "blind"),
        ),
    ] = "unknown"
    sources: Annotated[
        EvidenceSources,
        Key(
            "",
            "From where decisions are evidence. Default: reviews made here and imports.",
        ),
    ] = DEFAULT_SOURCES
    familiar: Annotated[
        FamiliarityRule | None,
        Key("", "Humans decide cases with unfamiliar attribute values. Default: off."),
    ] = None

    @property
    def lowest_floor(self) -> float | None:
        """Return the confidence below which no case is evidence, or None."""
        return self.confidence_floors[0] if self.confidence_floors else self.confidence_floor

    @property
    def higher_floors(self) -> tuple[float, ...]:
        """Return the floors above the lowest, ascending; evidence is asked for each by itself."""
        return self.confidence_floors[1:]

    @property
    def has_late_answers(self) -> bool:
        """Return whether an answer that comes after the decision may count."""
        return bool(self.sources.vouched)

    @property
    def outside_blind(self) -> bool:
        """Return whether decisions made elsewhere are blind where they don't say."""
        return self.outside == "blind"

    def find_account_kind(self, account: str, reviewer: str) -> str:
        """Return the kind of an account's decision for a reviewer."""
        patterns = self.sources.list_patterns(account)
        return ACCOUNT if patterns and matches_any(patterns, reviewer) else UNNAMED


@dataclass(frozen=True, slots=True)
class Minimum:
    """What a gate asks for beside evidence, since the cell entered the stage below."""

    units: Annotated[int, Key("Count", "Units with a human decision.")] = 100
    days: Annotated[int, Key("Count", "Local days with a unit.")] = 7
    reviewers: Annotated[int, Key("Count", "Different reviewers.")] = 1


@dataclass(frozen=True, slots=True)
class GateBase:
    """What a gate and its row in the file have in common."""

    to: Annotated[str, Key("Name", "Stage that the gate leads to.", "supervised")]
    _: KW_ONLY
    minimum: Annotated[Minimum, Key("", "What it needs besides evidence.")] = Minimum()
    approvals: Annotated[
        tuple[str, ...],
        Key(
            "Groups",
            "Number of operators who approve, or a list with a group for each approver.",
            written="2",
        ),
    ] = ("operator", "operator")
    where: AtCells = Where()


@dataclass(frozen=True, slots=True)
class Gate(GateBase):
    """Conditions and approvals to widen by one stage."""

    require: tuple[Condition, ...]
    risk: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardBase:
    """What a guard and its row in the file have in common."""

    over: Annotated[
        timedelta | None,
        Key(
            "PositiveDuration",
            "Span of harm and of figures shown; a suspension lasts no less. "
            "Default: the measure's own.",
        ),
    ] = None
    reach: Annotated[
        str,
        Key("", "Which cells an alarm narrows.", choices=("cell", "site", "rollout")),
    ] = "cell"
    holds: Annotated[
        str,
        Key(
            "",
            "For harm: where nothing widens until an operator has acknowledged it. The "
            "version in alarm widens nowhere.",
            choices=("site", "rollout"),
        ),
    ] = "rollout"
    where: AtSites = Where()


@dataclass(frozen=True, slots=True)
class Guard(GuardBase):
    """A condition that narrows, suspends or opens an incident when it trips.

    `false_alarm_span` is the time between false alarms, and takes precedence over their units.
    `holds` is where a harm holds widenings until it is acknowledged: those of its version are held
    everywhere.
    """

    condition: Condition
    then: str  # one-stage, shadow, suspend, report
    false_alarm_every: float = UNITS_BETWEEN_FALSE_ALARMS
    false_alarm_span: timedelta | None = None
    added: bool = False

    @property
    def id(self) -> str:
        """Return the key under which states and ledgers have it: `missing<=0.05/14400s`."""
        return (
            f"{self.condition.id}/{self.over.total_seconds():g}s"
            if self.over
            else self.condition.id
        )

    @property
    def narrows(self) -> bool:
        """Return whether an alarm takes a stage away."""
        return self.then in {"one-stage", "shadow"}


def describe_guard(guard: Guard | StoredAlarm) -> str:
    """Return a guard's condition and its period: `missing at most 5 % over 4h`."""
    period_text = f" over {format_duration(guard.over)}" if guard.over else ""
    return f"{guard.condition}{period_text}"


@dataclass(frozen=True, slots=True)
class Limit:
    """The highest stage allowed somewhere, or the last day above shadow there."""

    never_above: Annotated[str | None, Key("Name", "A stage, or shadow.")] = None
    ends: Annotated[date | None, Key("Day", "Last local day above shadow.")] = None
    where: AtCells = Where()


@dataclass(frozen=True, slots=True)
class Waves:
    """Which sites go next, and after what.

    Wave n + 1 opens when the `share` of wave n has held `stage` for `hold`.
    """

    stage: Annotated[str, Key("Name", "Stage that a wave must hold.", "supervised")]
    hold: Annotated[
        timedelta,
        Key("Duration", "For how long it must hold it without a stop or suspension."),
    ] = 7 * DAY
    share: Annotated[
        float, Key("Share", "Share of the wave's cells in the same window that must.")
    ] = 1.0
    at_once: Annotated[
        int | None,
        Key("Ordinal", "At most so many cells within settle of a widening. Default: all."),
    ] = None
    settle: Annotated[timedelta, Key("Duration", "How long a widened cell counts as settling.")] = (
        3 * DAY
    )


@dataclass(frozen=True, slots=True)
class Freeze:
    """Hours in which nothing widens, in the site's zone."""

    hours: Annotated[
        str, Key("NonEmptyText", "Opening hours in OpenStreetMap's syntax.", "Dec 24-26")
    ]
    reason: Annotated[str, Key("NonEmptyText", "Why, for display.")] = "a freeze"
    where: AtSites = Where()


@dataclass(frozen=True, slots=True)
class ReportPlan:
    """A report made on schedule."""

    name: Annotated[str, Key("Name", "Name of the report.", "morning")]
    every: Annotated[str, Key("", "How often.", choices=("day", "week", "month"))] = "day"
    at: Annotated[str, Key("Clock", "Time of day, in the rollout's timezone.")] = "07:00"
    view: Annotated[
        str, Key("", "For whom it is written.", choices=("operator", "engineer", "auditor"))
    ] = "operator"
    to: Annotated[tuple[str, ...], Key("NonEmptyText", "Channels that it goes to.")] = ()


@dataclass(frozen=True, slots=True)
class TrafficExpectation:
    """The author's guess of the traffic of one cell: for `rollout plan`.

    Until there are records of 28 days, guards take its units for their time between false alarms.
    """

    units_per_day: Annotated[
        float | None, Key("CostValue", "Units of one cell in a day on which it is open.")
    ] = None
    labels: Annotated[
        Mapping[str, float],
        Key("Share", "Share of units per label, or per lever/label."),
    ] = field(default_factory=dict, hash=False)
    agreement: Annotated[float | None, Key("Share", "Agreement, as gates would count it.")] = None
    cost: Annotated[float | None, Key("CostValue", "Mean cost of a unit, in cost_in.")] = None


@dataclass(frozen=True)
class Retention:
    """How long case records are kept; None: for ever."""

    cases: Annotated[
        timedelta | None,
        Key("RetentionAge", "Age at which case records are purged, or kept.", written="kept"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class PolicyBase:
    """What a policy and its file have in common."""

    rollout: Annotated[str, Key("Identifier", "Name of the rollout.", "parcel-damage")]
    timezone: Annotated[
        str,
        Key("Zone", "Zone of rollout-wide times, and of sites that name none.", "Europe/Vienna"),
    ]
    country: Annotated[
        str | None, Key("Country", "Two letters, for public holidays (PH). Default: none.")
    ] = None
    charter: Annotated[Charter, Key("", "Why the rollout exists, and whom it affects.")] = Charter()
    levers: Annotated[
        tuple[Lever, ...],
        Key(
            "",
            "What is decided for each case.",
            "[{id: parcel, labels: [damaged, sound]}]",
            is_filled=True,
        ),
    ]
    sites: Annotated[
        tuple[Site, ...],
        Key(
            "",
            "Where. Records of other sites are reported, never evidence.",
            "[ramp-a, ramp-b]",
            is_filled=True,
        ),
    ]
    windows: Annotated[
        tuple[Window, ...],
        Key("", "When. Default: one window, always.", is_filled=True),
    ] = ()
    stages: Annotated[
        tuple[Stage, ...],
        Key(
            "",
            "The ladder above shadow; a list given replaces the default.",
            is_filled=True,
            written=[{"id": "supervised", "blind": "50%"}, {"id": "autonomous", "audit": "10%"}],
        ),
    ] = (Stage("supervised", blind=0.5), Stage("autonomous", audit=0.1))
    evidence: Annotated[EvidenceRules, Key("", "What counts as one record.", "{unit: case}")]
    limits: Annotated[tuple[Limit, ...], Key("", "How high and how long; all that fit apply.")] = ()
    versions: Annotated[
        tuple[VersionRule, ...], Key("", "Model versions with rules of their own.")
    ] = ()
    waves: Annotated[Waves | None, Key("", "Which sites go next. Default: all at once.")] = None
    freezes: Annotated[tuple[Freeze, ...], Key("", "When nothing widens; all that fit apply.")] = ()
    takeover: Annotated[
        str,
        Key("Name", "Lowest stage of a takeover: same-stage, a stage, or shadow."),
    ] = "same-stage"
    outcomes: Annotated[
        tuple[OutcomeRule, ...], Key("", "What becomes of cases, as a value: for gain.")
    ] = ()
    reports: Annotated[tuple[ReportPlan, ...], Key("", "Reports on schedule.")] = ()
    slices: Annotated[
        tuple[str, ...],
        Key(
            "NonEmptyText",
            "Attributes that reports slice by, and whose new values timelines mark.",
        ),
    ] = ()
    retention: Annotated[Retention, Key("", "How long case records are kept.")] = Retention()
    lease: Annotated[
        timedelta,
        Key(
            "PositiveDuration",
            "How long an assignment is valid; a stop takes effect within it.",
        ),
    ] = timedelta(minutes=1)
    tick: Annotated[
        timedelta,
        Key("Tick", "Time between two evaluations; divides a day. No edit changes it."),
    ] = timedelta(minutes=15)
    observe: Annotated[
        bool,
        Key("Flag", "true raises proposals and applies none: a dress rehearsal."),
    ] = False
    expect: Annotated[TrafficExpectation, Key("", "Expected traffic, for plan and guards.")] = (
        TrafficExpectation()
    )


@dataclass(frozen=True, kw_only=True)
class Policy(PolicyBase):
    """A whole policy; `hash` is the SHA-256 of the file's text.

    Attributes:
        open_for: then a proposal without its approvals expires.
        after_rejection: time after a rejection until a similar proposal can be raised.
    """

    gates: tuple[Gate, ...]
    guards: tuple[Guard, ...] = ()
    file_readings: Mapping[str, FileReading] = field(default_factory=dict)
    hash: str = field(default="", compare=False)
    open_for: ClassVar[timedelta] = 14 * DAY
    after_rejection: ClassVar[timedelta] = 7 * DAY

    @cached_property
    def stage_ids(self) -> tuple[str, ...]:
        """Return the stages by level, shadow first."""
        return (SHADOW, *(stage.id for stage in self.stages))

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Return every cell that may widen; `other` is not among them."""
        return tuple(Cell(s.id, w.id) for s in self.sites for w in self.windows)

    @cached_property
    def sites_by_id(self) -> dict[str, Site]:
        """Return the sites by id."""
        return {site.id: site for site in self.sites}

    @cached_property
    def contents_by_version(self) -> dict[str, str]:
        """Return the contents that the policy declares."""
        return {rule.id: rule.content for rule in self.versions if rule.content}

    @cached_property
    def samples_by_version(self) -> dict[str, float]:
        """Return the shares of cases of the versions that run on a part of them."""
        return {rule.id: rule.sample for rule in self.versions if rule.sample < 1}

    def get_timezone(self, site_id: str) -> str:
        """Return a site's timezone, the policy's own for an unknown site."""
        site = self.sites_by_id.get(site_id)
        return self.timezone if site is None else site.timezone

    @cached_property
    def cell_set(self) -> frozenset[Cell]:
        """Return the cells as a set, for fast membership tests."""
        return frozenset(self.cells)

    @property
    def calendar_windows(self) -> tuple[Window | None, ...]:
        """Return (None,) for the whole site, or the windows if cases choose them."""
        return self.windows if any(window.when for window in self.windows) else (None,)

    def get_stage(self, stage_level: int) -> Stage:
        """Return the stage of a level above shadow."""
        return self.stages[stage_level - 1]

    def find_gate(self, stage_level: int, cell: Cell) -> Gate | None:
        """Return the first gate that leads `cell` to `stage_level`, or None."""
        return self._gates_by_cell[cell][stage_level]

    def find_gate_to(self, stage: str, cell: Cell) -> Gate | None:
        """Return the gate that leads `cell` to a stage, or None."""
        return (
            self.find_gate(self.stage_ids.index(stage), cell) if stage in self.stage_ids else None
        )

    @cached_property
    def _gates_by_cell(self) -> dict[Cell, tuple[Gate | None, ...]]:
        def find_first(to: str, cell: Cell) -> Gate | None:
            return next((g for g in self.gates if g.to == to and g.where.fits(cell)), None)

        return {c: (None, *(find_first(s.id, c) for s in self.stages)) for c in self.cells}

    def list_conditions(self, stage_level: int, cell: Cell) -> tuple[Condition, ...]:
        """Return the conditions of the gate to `stage_level` and all below."""
        return self._conditions_by_cell[cell][stage_level]

    @cached_property
    def _conditions_by_cell(self) -> dict[Cell, tuple[tuple[Condition, ...], ...]]:
        def collect_conditions(gates: tuple[Gate | None, ...]) -> tuple[Condition, ...]:
            present_gates = [gate for gate in gates if gate is not None]
            return tuple(dict.fromkeys(c for gate in reversed(present_gates) for c in gate.require))

        stage_levels = range(len(self.stage_ids))
        return {
            c: tuple(
                collect_conditions(self._gates_by_cell[c][: level + 1]) for level in stage_levels
            )
            for c in self.cells
        }

    def list_guards(self, cell: Cell) -> tuple[Guard, ...]:
        """Return all guards of `cell`."""
        return self._guards_by_cell[cell]

    def describe_guards(self, ids: Iterable[str]) -> str:
        """Return the guards with some ids; the id of one that the policy no longer has."""
        texts = {guard.id: describe_guard(guard) for guard in self.guards}
        return ", ".join(sorted(texts.get(guard, guard) for guard in ids))

    @cached_property
    def _guards_by_cell(self) -> dict[Cell, tuple[Guard, ...]]:
        return {c: tuple(g for g in self.guards if g.where.fits(c)) for c in self.cells}

    def compute_ceiling(self, cell: Cell, at: datetime) -> int:
        """Return the highest stage level that the limits allow; unknown cells get 0."""
        if cell not in self.cell_set or cell.window == OTHER_WINDOW:
            return 0
        max_level, end = self._compute_limits(cell)
        return max_level if at < end else 0

    def is_reachable(self, cell: Cell, stage_level: int, at: datetime) -> bool:
        """Return whether the limits allow a stage level, and a gate leads to it."""
        is_allowed = stage_level <= self.compute_ceiling(cell, at)
        return is_allowed and self.find_gate(stage_level, cell) is not None

    def compute_end(self, cell: Cell) -> datetime:
        """Return when limits end all stages above shadow, or `NEVER`."""
        return self._compute_limits(cell)[1]

    def _compute_limits(self, cell: Cell) -> tuple[int, datetime]:
        """Return the cell's highest level, and the end of its limits."""
        result = self._limits_by_cell.get(cell)
        if result is None:
            cell_limits = [limit for limit in self.limits if limit.where.fits(cell)]
            max_levels = (
                self.stage_ids.index(n.never_above)
                for n in cell_limits
                if n.never_above is not None
            )
            site = self.sites_by_id[cell.site]
            ends = (compute_end_of_local_day(site, n.ends) for n in cell_limits if n.ends)
            max_level = min((len(self.stages), *max_levels))
            result = max_level, min((NEVER, *ends))
            self._limits_by_cell[cell] = result
        return result

    @cached_property
    def _limits_by_cell(self) -> dict[Cell, tuple[int, datetime]]:
        return {}  # a cache, filled cell by cell

    def find_freeze(self, cell: Cell, at: datetime) -> Freeze | None:
        """Return a freeze of `cell` at `at`, or None."""
        site = self.sites_by_id[cell.site]
        freezes = (f for f in self.freezes if f.where.fits(cell) and is_open(f.hours, site, at))
        return next(freezes, None)

    @cached_property
    def whole_unit_lever(self) -> str:
        """Return the lever id of counts over all levers of a unit."""
        return self.levers[0].id if len(self.levers) == 1 else WHOLE_UNIT

    @cached_property
    def levers_by_id(self) -> dict[str, Lever]:
        """Return the levers by id."""
        return {lever.id: lever for lever in self.levers}

    @cached_property
    def set_labels(self) -> dict[str, tuple[str, ...]]:
        """Return the labels of the levers whose answers are sets."""
        return {lever.id: lever.labels for lever in self.levers if lever.many}

    @cached_property
    def largest_cost(self) -> float:
        """Return the highest cost of one unit: the sum over the levers."""
        return self.cost_levels[-1]

    @cached_property
    def cost_shares(self) -> tuple[float, ...]:
        """Return the cost levels as shares of the largest cost."""
        return tuple(level / self.largest_cost for level in self.cost_levels)

    def scale_cost(self, cost: float) -> float:
        """Return a cost as a share of the largest one."""
        return cost / self.largest_cost

    @cached_property
    def cost_levels(self) -> tuple[float, ...]:
        """Return the possible costs of a unit, ascending from 0.

        More than 64 are rounded up to 64 levels.
        """
        sums = {0.0}
        for lever in self.levers:
            sums = {round(a + b, 12) for a in sums for b in lever.cost_levels}
        return tuple(sorted(sums)) if len(sums) <= 64 else build_even_levels(max(sums), 64)

    @cached_property
    def blind_edges(self) -> tuple[float, ...]:
        """Return the sampling values at which a stage gives units to another, ascending."""
        return tuple(sorted({stage.blind for stage in self.stages} - {0.0}))

    @cached_property
    def audit_edges(self) -> tuple[float, ...]:
        """Return the values of the audits' draw at which a stage audits units, ascending."""
        return tuple(sorted({stage.audit or 0.0 for stage in self.stages} - {0.0}))

    @cached_property
    def takeover_floor(self) -> int | None:
        """Return the lowest level of a takeover, None for the acting version's own."""
        return None if self.takeover == "same-stage" else self.stage_ids.index(self.takeover)
