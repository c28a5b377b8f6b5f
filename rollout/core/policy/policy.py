"""The policy as frozen values: what may widen, when, on whose word, and what narrows it again.

Files are parsed elsewhere (`rollout.formats.policy.reader`); here every default has been filled
in, every share lies in [0, 1] and every name is known to exist. Rungs are counted from 0, which
is shadow; rung r > 0 is `stages[r - 1]`.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property

from rollout.core.calendar.opening_hours import is_open
from rollout.core.calendar.sites import OTHER, SHADOW, Cell, Site, Window
from rollout.core.calendar.timezones import end_of_local_day
from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import WHOLE, Condition

DAY = timedelta(days=1)
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Where:
    """Which cells a row speaks of. Empty tuples mean all; `*` in a pattern stands for anything."""

    sites: tuple[str, ...] = ()
    windows: tuple[str, ...] = ()

    def fits(self, cell: Cell) -> bool:
        """Say whether the row speaks of `cell`."""
        return _fits(self.sites, cell.site) and _fits(self.windows, cell.window)


def _fits(patterns: tuple[str, ...], name: str) -> bool:
    return not patterns or any(matches(pattern, name) for pattern in patterns)


def matches(pattern: str, name: str) -> bool:
    """Say whether `name` is meant by `pattern`, in which only `*` is special.

    >>> matches("gate-*", "gate-c"), matches("46.1", "4601")
    (True, False)
    """
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name) is not None


@dataclass(frozen=True, slots=True)
class Charter:
    """Why the rollout exists and whom it touches; shown with every proposal."""

    objective: str = ""
    affected: tuple[str, ...] = ()
    if_it_works_very_well: str = ""
    worst_case: str = ""
    feedback: str = ""
    cost_in: str = "points"


@dataclass(frozen=True, slots=True)
class Stage:
    """A rung above shadow. With `audit` the model decides, without it a person confirms."""

    id: str
    blind: float = 0.0
    audit: float | None = None
    lasts: timedelta = 90 * DAY

    @property
    def model_decides(self) -> bool:
        """Say whether the model acts here without a person's yes."""
        return self.audit is not None

    @property
    def seen(self) -> float:
        """Return the share of units that get a blind verdict here: its draws lie below this."""
        return self.blind + (1 - self.blind) * (self.audit or 0.0)


@dataclass(frozen=True, slots=True)
class EvidenceRules:
    """What a record is: the unit, how long verdicts are waited for, how many of them."""

    unit: str = "case"  # or "episode"
    episode_span: timedelta | None = None
    grace: timedelta = DAY
    missing_at_most: float = 0.05
    verdicts: int = 1
    second_verdict: float = 0.0
    confidence_floor: float | None = None
    outside_blind: bool = False
    min_reviewer_agreement: float | None = None


@dataclass(frozen=True, slots=True)
class Minimum:
    """What a gate asks for beside evidence, since the cell entered the stage below."""

    units: int = 100
    days: int = 7
    reviewers: int = 1


@dataclass(frozen=True, slots=True)
class Gate:
    """Conditions to widen by one stage, and who has to say yes."""

    to: str
    require: tuple[Condition, ...]
    risk: float
    minimum: Minimum = Minimum()
    approvals: tuple[str, ...] = ("operator", "operator")
    where: Where = Where()


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition under which scope narrows, is suspended, or somebody is told."""

    condition: Condition
    then: str  # one-stage, shadow, suspend, report
    over: timedelta | None = None
    false_alarm_every: float = 10_000.0
    reach: str = "cell"
    where: Where = Where()
    added: bool = False

    @property
    def id(self) -> str:
        """Return the name under which alarms and suspensions of this guard are kept."""
        return str(self.condition) if self.over is None else f"{self.condition} over {self.over}"


@dataclass(frozen=True, slots=True)
class Limit:
    """The highest stage allowed somewhere, or the last local day above shadow there."""

    never_above: str | None = None
    ends: date | None = None
    where: Where = Where()


@dataclass(frozen=True, slots=True)
class Waves:
    """Which sites go next: wave n + 1 opens when enough of wave n holds `stage` for `hold`."""

    stage: str
    hold: timedelta = 7 * DAY
    share: float = 1.0
    at_once: int | None = None
    settle: timedelta = 3 * DAY


@dataclass(frozen=True, slots=True)
class Freeze:
    """Hours in which nothing widens, in the site's zone."""

    hours: str
    reason: str
    where: Where = Where()


@dataclass(frozen=True, slots=True)
class ReportPlan:
    """A report made on schedule."""

    name: str
    every: str
    at: str
    view: str
    to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Expect:
    """The author's guess of traffic, for `rollout plan` alone; labels by label or lever/label."""

    units_per_day: float | None = None
    labels: tuple[tuple[str, float], ...] = ()
    agreement: float | None = None
    cost: float | None = None


@dataclass(frozen=True)
class Policy:
    """One policy, whole. `hash` is the SHA-256 of the file's text; `number` counts edits."""

    rollout: str
    timezone: str
    levers: tuple[Lever, ...]
    sites: tuple[Site, ...]
    windows: tuple[Window, ...]
    stages: tuple[Stage, ...]
    evidence: EvidenceRules
    gates: tuple[Gate, ...]
    guards: tuple[Guard, ...] = ()
    limits: tuple[Limit, ...] = ()
    waves: Waves | None = None
    freezes: tuple[Freeze, ...] = ()
    charter: Charter = Charter()
    country: str | None = None
    open_for: timedelta = 14 * DAY
    after_rejection: timedelta = 7 * DAY
    takeover: str = "same-stage"
    reports: tuple[ReportPlan, ...] = ()
    slices: tuple[str, ...] = ()
    reveal: str = "never"
    retention: timedelta | None = None
    lease: timedelta = timedelta(minutes=1)
    tick: timedelta = timedelta(minutes=15)
    observe: bool = False
    expect: Expect = Expect()
    hash: str = field(default="", compare=False)

    @cached_property
    def rungs(self) -> tuple[str, ...]:
        """Return the ladder, shadow first."""
        return (SHADOW, *(stage.id for stage in self.stages))

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Return every cell in which something may widen; `other` is not among them."""
        return tuple(Cell(s.id, w.id) for s in self.sites for w in self.windows)

    @cached_property
    def site(self) -> dict[str, Site]:
        """Return the sites by id."""
        return {site.id: site for site in self.sites}

    def zone_of(self, site: str) -> str:
        """Return the zone of a site's clock; the policy's own for a site that it doesn't have."""
        found = self.site.get(site)
        return self.timezone if found is None else found.timezone

    @cached_property
    def known(self) -> frozenset[Cell]:
        """Return the cells as a set, for asking whether one exists."""
        return frozenset(self.cells)

    def stage(self, rung: int) -> Stage:
        """Return the stage of a rung above shadow."""
        return self.stages[rung - 1]

    def gate(self, rung: int, cell: Cell) -> Gate | None:
        """Return the gate that leads `cell` to `rung`: the first that fits, None if it has none."""
        return self._gates[cell][rung]

    @cached_property
    def _gates(self) -> dict[Cell, tuple[Gate | None, ...]]:
        def first(to: str, cell: Cell) -> Gate | None:
            return next((g for g in self.gates if g.to == to and g.where.fits(cell)), None)

        return {c: (None, *(first(s.id, c) for s in self.stages)) for c in self.cells}

    def required(self, rung: int, cell: Cell) -> tuple[Condition, ...]:
        """Return what the gate to `rung` asks for, with all that the gates below it ask for."""
        return self._required[cell][rung]

    @cached_property
    def _required(self) -> dict[Cell, tuple[tuple[Condition, ...], ...]]:
        def of(gates: tuple[Gate | None, ...]) -> tuple[Condition, ...]:
            present_gates = [gate for gate in gates if gate is not None]
            return tuple(dict.fromkeys(c for gate in reversed(present_gates) for c in gate.require))

        stage_levels = range(len(self.rungs))
        return {
            c: tuple(of(self._gates[c][: level + 1]) for level in stage_levels) for c in self.cells
        }

    def guards_of(self, cell: Cell) -> tuple[Guard, ...]:
        """Return every guard that watches `cell`; all that fit apply."""
        return self._guards[cell]

    @cached_property
    def _guards(self) -> dict[Cell, tuple[Guard, ...]]:
        return {c: tuple(g for g in self.guards if g.where.fits(c)) for c in self.cells}

    def ceiling(self, cell: Cell, at: datetime) -> int:
        """Return the highest rung that the limits allow `cell` at `at`; unknown cells get 0."""
        if cell not in self.known or cell.window == OTHER:
            return 0
        max_level, end = self._limited(cell)
        return max_level if at < end else 0

    def ends(self, cell: Cell) -> datetime:
        """Return when the limits end everything above shadow in `cell`, `NEVER` if they do not."""
        return self._limited(cell)[1]

    def _limited(self, cell: Cell) -> tuple[int, datetime]:
        """Return the highest rung that limits ever allow a cell, and the end of what they allow."""
        result = self._limits.get(cell)
        if result is None:
            cell_limits = [limit for limit in self.limits if limit.where.fits(cell)]
            max_levels = (
                self.rungs.index(n.never_above) for n in cell_limits if n.never_above is not None
            )
            ends = (end_of_local_day(self.site[cell.site], n.ends) for n in cell_limits if n.ends)
            result = min((len(self.stages), *max_levels)), min((NEVER, *ends))
            self._limits[cell] = result
        return result

    @cached_property
    def _limits(self) -> dict[Cell, tuple[int, datetime]]:
        return {}  # filled cell by cell, when one is asked about

    def frozen(self, cell: Cell, at: datetime) -> Freeze | None:
        """Return a freeze that holds `cell` back at `at`, None where nothing does."""
        site = self.site[cell.site]
        freezes_now = (
            freeze
            for freeze in self.freezes
            if freeze.where.fits(cell) and is_open(freeze.hours, site, at)
        )
        return next(freezes_now, None)

    @cached_property
    def whole(self) -> str:
        """Return the lever id under which a unit's verdict over all levers is tallied."""
        return self.levers[0].id if len(self.levers) == 1 else WHOLE

    @cached_property
    def lever(self) -> dict[str, Lever]:
        """Return the levers by id."""
        return {lever.id: lever for lever in self.levers}

    @cached_property
    def largest_cost(self) -> float:
        """Return the highest cost that one unit can have: the levers' add up."""
        return self.cost_levels[-1]

    @cached_property
    def cost_levels(self) -> tuple[float, ...]:
        """Return the costs a unit can have, ascending from 0; more than 64 are rounded up to 64."""
        sums = {0.0}
        for lever in self.levers:
            sums = {round(a + b, 12) for a in sums for b in lever.cost_levels}
        return tuple(sorted(sums)) if len(sums) <= 64 else _steps(max(sums), 64)

    @cached_property
    def cuts(self) -> tuple[float, ...]:
        """Return the shares at which a draw changes what some stage does with a unit, ascending."""
        return tuple(sorted({share for s in self.stages for share in (s.blind, s.seen)} - {0.0}))

    def band(self, draw: float) -> int:
        """Return how many cuts lie at or below `draw`: which of the policy's shares it is under."""
        return sum(edge <= draw for edge in self.cuts)

    def seen_bands(self, rung: int) -> int:
        """Return the number of bands whose units get a blind verdict at `rung`; shadow sees all."""
        if rung == 0:
            return len(self.cuts) + 1
        return sum(edge <= self.stage(rung).seen for edge in self.cuts)

    def blind_bands(self, rung: int) -> int:
        """Return the number of bands that people decide unseen at `rung`; shadow: all."""
        if rung == 0:
            return len(self.cuts) + 1
        return sum(edge <= self.stage(rung).blind for edge in self.cuts)

    @cached_property
    def takeover_floor(self) -> int | None:
        """Return the lowest rung of a takeover, None where it is the acting version's own."""
        return None if self.takeover == "same-stage" else self.rungs.index(self.takeover)


def _steps(largest: float, count: int) -> tuple[float, ...]:
    return tuple(largest * step / (count - 1) for step in range(count))


def duration_text(span: timedelta) -> str:
    """Say a span in the largest unit that is whole, as a policy file writes it.

    >>> duration_text(timedelta(hours=48)), duration_text(timedelta(minutes=90))
    ('2d', '90m')
    """
    for unit, text in ((DAY, "d"), (timedelta(hours=1), "h"), (timedelta(minutes=1), "m")):
        if span and span % unit == timedelta(0):
            return f"{span // unit}{text}"
    return f"{span.total_seconds():g}s"
