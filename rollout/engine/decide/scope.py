"""Scope: grants, stops and suspensions, and the stage that follows from them; kinds of proposals.

`compute_stage_level` is evaluated at each request, so an expired grant gives nothing even if no
process has run since.

Where the detectors of guards by slice and of drift start, if not at the grants' last change: a
guard in alarm goes on through a narrowing. Its detectors alone know which values are bad, and good
units of other values must not end the alarm.

Kinds of proposals differ by what the engine does with them; their words are in the reports.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from rollout.kernel.calendar.instants import Cell
from rollout.kernel.facts import StoredAlarm, Trigger
from rollout.kernel.policy.familiarity import FAMILIAR, AttributeValue
from rollout.kernel.policy.gates import compute_yearly_share
from rollout.kernel.policy.policy import DAY, Policy
from rollout.kernel.words import say_cause


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalKind:
    """What decides on a kind of proposal, and what holds it.

    Attributes:
        reads_gate: whether the gate of a cell decides.
        extends_grant: whether evidence of a grant alone counts, and no wave or settling holds it.
        replaces_version: whether minimums count from the attempt, as the version never acted there.
        gives_more: whether the newest answers hold it, and rivals become void when it is applied.
        waits_for_wave: whether its cell's wave must be open.
        ends_stop: whether it ends the stop that it is about.
        changes_policy: whether it puts the policy in force that it is about.
    """

    name: str
    reads_gate: bool = True
    extends_grant: bool = False
    replaces_version: bool = False
    gives_more: bool = False
    waits_for_wave: bool = False
    ends_stop: bool = False
    changes_policy: bool = False


WIDENING: Final = ProposalKind(name="widening", gives_more=True, waits_for_wave=True)
RENEWAL: Final = ProposalKind(name="renewal", extends_grant=True)
TAKEOVER: Final = ProposalKind(name="takeover", gives_more=True, replaces_version=True)
RESUME: Final = ProposalKind(name="resume", reads_gate=False, ends_stop=True)
POLICY_CHANGE: Final = ProposalKind(name="policy", reads_gate=False, changes_policy=True)
PROPOSAL_KINDS: Final[Mapping[str, ProposalKind]] = MappingProxyType(
    {kind.name: kind for kind in (WIDENING, RENEWAL, TAKEOVER, RESUME, POLICY_CHANGE)}
)


class OfKind:
    """A form of a proposal, whose `kind` is the name of one."""

    __slots__ = ()
    kind: str

    @property
    def rules(self) -> ProposalKind:
        """Return what holds for its kind."""
        return PROPOSAL_KINDS[self.kind]


@dataclass(frozen=True, slots=True)
class DetectorStart:
    """When detectors started, and since when the attempt that they watched counts."""

    changed_at: datetime
    attempt_since: datetime

    def move_back(self, at: datetime) -> "DetectorStart":
        """Return a start that is not after an instant."""
        return DetectorStart(min(self.changed_at, at), min(self.attempt_since, at))


@dataclass(frozen=True, slots=True)
class DetectorStarts:
    """The starts of one version's detectors in a cell.

    Attributes:
        by_guard: of the guards in alarm when grants were last removed; they go on.
        former: start before that, None if no grant was removed since the last widening.
    """

    by_guard: Mapping[str, DetectorStart] = field(default_factory=dict)
    former: DetectorStart | None = None

    def restart(
        self, current: DetectorStart, at: datetime, alarms: Iterable[str]
    ) -> "DetectorStarts":
        """Return the starts after grants were removed: only guards in alarm go on."""
        former = self.former if self.former and current.changed_at == at else current
        starts = {guard: self.by_guard.get(guard, former) for guard in sorted(alarms)}
        return DetectorStarts(MappingProxyType(starts), former)

    def add_alarm(self, guard: str, changed_at: datetime, at: datetime) -> "DetectorStarts":
        """Return the starts with a guard's alarm.

        An alarm at the very instant at which grants were removed rests on the units before.
        """
        if self.former is None or changed_at != at or guard in self.by_guard:
            return self
        return replace(self, by_guard=MappingProxyType({**self.by_guard, guard: self.former}))

    def move_back(self, at: datetime) -> "DetectorStarts":
        """Return the starts after the ledger's time was set back to `at`."""
        starts = {guard: start.move_back(at) for guard, start in self.by_guard.items()}
        former = None if self.former is None else self.former.move_back(at)
        return DetectorStarts(MappingProxyType(starts), former)


FIRST_ERA = 1
FIRST_SHARE: Final = compute_yearly_share(1)
STOPPED, SUSPENDED = "stopped", "suspended"  # how grants are withheld
NO_STARTS: Final = DetectorStarts()


@dataclass(frozen=True, slots=True)
class Grant:
    """The grant of one widening, valid in [since, until).

    `held_since` is when the cell began to hold the stage, with any version: neither a renewal nor a
    takeover resets it. Waves count from the later of it and `Scope.returned_at`. `counts_since` and
    `counts_held_since` are from when units count as of these times: the slots of the ticks; None if
    the same. `floors` are the confidence floors that were met, ascending; the first one acts.
    """

    stage: str
    since: datetime
    until: datetime
    proposal: str
    held_since: datetime
    counts_since: datetime | None = None
    counts_held_since: datetime | None = None
    floors: tuple[str, ...] = ()

    @property
    def evidence_start(self) -> datetime:
        """Return from when units count for a renewal."""
        return self.counts_since or self.since

    @property
    def held_evidence_start(self) -> datetime:
        """Return from when units count as of the cell at the stage."""
        return self.counts_held_since or self.held_since

    def is_valid(self, at: datetime) -> bool:
        """Return whether `at` lies in the grant's span."""
        return self.since <= at < self.until


@dataclass(frozen=True, slots=True)
class GivenApproval:
    """A user's approval, with the user's groups at that time."""

    by: str
    groups: tuple[str, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class ProposalState(OfKind):
    """An open proposal, bound to an evidence hash.

    `kind` is widening, renewal, takeover, resume or policy. `about` is the stop's id of a
    resume and the new policy's hash of a policy proposal. `gate` is the hash of the gate it was
    raised under. `floors` are the confidence floors that it opens, as in `Grant`. Incidents that
    spoke against its version since are `unconfirmed` until an approver, one of `confirmed_by`,
    wants it in spite of them; `evidence_hash` covers them. `is_held` says that the ledger tells
    that answers which don't count yet held it.
    """

    id: str
    kind: str
    raised_at: datetime
    raised_by: str
    expires_at: datetime
    evidence_hash: str
    needs: tuple[str, ...]
    cell: Cell | None = None
    version: str = ""
    to: str = ""
    gate: str = ""
    about: str = ""
    approvals: tuple[GivenApproval, ...] = ()
    floors: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()
    confirmed_by: tuple[str, ...] = ()
    is_held: bool = False

    @property
    def is_approved(self) -> bool:
        """Return whether approvals fill every need."""
        return count_filled_needs(self.needs, self.approvals) == len(self.needs)

    def add_incident(self, incident: str) -> "ProposalState":
        """Return the proposal with an incident that spoke against it since it was raised."""
        evidence_hash = sha256(f"{self.evidence_hash}\n{incident}".encode()).hexdigest()
        unconfirmed = (*self.unconfirmed, incident)
        return replace(self, evidence_hash=evidence_hash, unconfirmed=unconfirmed)


def count_filled_needs(needs: tuple[str, ...], approvals: tuple[GivenApproval, ...]) -> int:
    """Return how many of `needs` the approvals can fill, one each.

    A user may be in several groups, so taking the first match could waste an approval.

    >>> noon = datetime(2027, 6, 1, 12)
    >>> both = GivenApproval("bo", ("operator", "safety"), noon)
    >>> safety = GivenApproval("cy", ("safety",), noon)
    >>> count_filled_needs(("operator", "safety"), (safety, both))
    2
    """
    if not needs:
        return 0
    first_need, other_needs = needs[0], needs[1:]
    eligible_approvals = [a for a in approvals if first_need in a.groups]
    counts_when_taken = (
        1 + count_filled_needs(other_needs, tuple(a for a in approvals if a != t))
        for t in eligible_approvals
    )
    return max((count_filled_needs(other_needs, approvals), *counts_when_taken))


@dataclass(frozen=True, slots=True)
class Stop:
    """A user's order that withholds every grant in `cells` until an approved resume."""

    id: str
    cells: frozenset[Cell]
    by: str
    at: datetime
    drill: bool = False


@dataclass(frozen=True, slots=True)
class Version:
    """A model version; `content` is the hash that its first use declared, or ""."""

    id: str
    first_seen: datetime
    retired_at: datetime | None = None
    content: str = ""

    @property
    def retired(self) -> bool:
        """Return whether nobody may use it any more."""
        return self.retired_at is not None


@dataclass(frozen=True, slots=True)
class AttemptYear:
    """The attempts of a cell that began in a calendar year, over all versions.

    `releases` is the planned number of attempts a year, 0 without a plan.
    """

    year: int
    count: int
    releases: int = 0

    @property
    def unspent_share(self) -> float:
        """Return the share of the risk that the year's next attempts have together."""
        numbers = range(1, self.count + 1)
        return 1 - sum(compute_yearly_share(number, self.releases) for number in numbers)


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident that no user has acknowledged.

    `kind` is `alarm` of a guard or that of `OpenIncident`. `about` names a
    case or client if the service gave one. `fact`, `holds`, `alarms` and `trigger` are those of
    `IncidentOpened`.
    """

    id: str
    kind: str
    reason: str
    at: datetime
    cell: Cell | None = None
    version: str = ""
    about: str = ""
    fact: str = ""
    holds: str = ""
    alarms: tuple[StoredAlarm, ...] = ()
    trigger: Trigger | None = None

    @property
    def cause_text(self) -> str:
        """Return why it opened."""
        return say_cause(self.reason, self.trigger, self.alarms, self.about, self.version)

    @property
    def site(self) -> str:
        """Return the site of its cell; "" without one."""
        return "" if self.cell is None else self.cell.site


@dataclass(frozen=True, slots=True)
class SpokenAgainst:
    """The incidents that spoke against a version in any cell, newest last, with their times.

    They are kept as long as a proposal may need them. `voided_at` is when they last voided
    proposals of the version.
    """

    incidents: tuple[tuple[str, datetime], ...] = ()
    voided_at: datetime | None = None

    def list_since(self, since: datetime) -> tuple[str, ...]:
        """Return the incidents from an instant on."""
        return tuple(incident for incident, at in self.incidents if at >= since)

    def list_voiding(self, unconfirmed: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of a proposal's unconfirmed incidents that void it, unless it is approved.

        They do so at most once in a day: a version that acts in many cells is narrowed somewhere
        so often that no proposal of it would outlive the wait for its approvals.
        """
        last = self.voided_at
        return tuple(
            incident
            for incident, at in self.incidents
            if incident in unconfirmed and (last is None or at - last >= DAY)
        )

    def move_back(self, to: datetime) -> "SpokenAgainst":
        """Return the same with no time after a clock correction."""
        return SpokenAgainst(
            tuple((incident, min(at, to)) for incident, at in self.incidents),
            None if self.voided_at is None else min(self.voided_at, to),
        )


@dataclass(frozen=True, slots=True)
class CellState:
    """State of one version in one cell.

    Attributes:
        grants: one per stage level, lowest first.
        suspended_by: guards that withhold the grants until their measure is good again.
        attempt: number of the version's attempt in the cell, from 1.
        attempt_since: the attempt counts units that occurred from then on.
        number: of the attempt in its cell's year, over all versions; 0 before it has begun.
        risk_share: share of each gate's risk that the attempt may use; before it has begun, what it
            would get now.
        changed_at: from when units count as of the current grants; detectors and minimums start
            there. It is the slot of the tick that changed them, while grants begin at its pass.
        detectors: where the detectors of guards by slice and of drift start instead.
        last_alarms: slot of the last alarm of each guard, when its detector restarted.
        suspensions: when each guard suspended; the third time in a day narrows.
        cleared_at: when each guard's last suspension ended; a new one soon after is no new
            incident.
        reported_guards: guards in alarm that only opened an incident.
        proposal: id of the open proposal, or None.
        quiet_until: no proposal is raised before.
        awaits: incidents that voided its last proposal; none is raised while one is open.
    """

    attempt_since: datetime
    changed_at: datetime
    grants: tuple[Grant, ...] = ()
    suspended_by: frozenset[str] = frozenset()
    attempt: int = 1
    number: int = 0
    risk_share: float = 1.0
    last_alarms: Mapping[str, datetime] = field(default_factory=dict)
    suspensions: tuple[tuple[str, datetime], ...] = ()
    cleared_at: Mapping[str, datetime] = field(default_factory=dict)
    reported_guards: frozenset[str] = frozenset()
    proposal: str | None = None
    quiet_until: datetime | None = None
    awaits: tuple[str, ...] = ()
    detectors: DetectorStarts = NO_STARTS

    @property
    def has_begun(self) -> bool:
        """Return whether the attempt has counted a unit."""
        return self.number > 0

    @property
    def current_start(self) -> DetectorStart:
        """Return where detectors start that no alarm has kept."""
        return DetectorStart(self.changed_at, self.attempt_since)

    def restart_attempt(self, at: datetime) -> "CellState":
        """Return a state whose next attempt gets its number and share when it begins."""
        return replace(self, attempt=self.attempt + 1, attempt_since=at, number=0)

    def find_detector_start(self, guard: str) -> DetectorStart:
        """Return where the detectors of a guard by slice or of drift start."""
        return self.detectors.by_guard.get(guard, self.current_start)


@dataclass(frozen=True, slots=True)
class CellValues:
    """Attribute values that a version has met in a cell.

    Attributes:
        statuses: of each value, as last recorded.
        reported: values about which an incident was opened, in words.
    """

    statuses: Mapping[AttributeValue, str] = field(default_factory=dict)
    reported: frozenset[str] = frozenset()

    @property
    def familiar_values(self) -> list[AttributeValue]:
        """Return the values of cases that the version may decide, sorted."""
        return sorted(value for value, status in self.statuses.items() if status == FAMILIAR)


NO_VALUES: Final = CellValues()
NOTHING_AGAINST: Final = SpokenAgainst()
RECORD_SPAN: Final = timedelta(days=30)
"""How long before a proposal was raised the track record of its version begins."""
SPOKEN_KEPT: Final = RECORD_SPAN + Policy.open_for


def build_initial_state(
    first_seen: datetime, risk_share: float = FIRST_SHARE, number: int = 0
) -> CellState:
    """Return a version's state in a cell without events, or with its attempt begun.

    Args:
        first_seen: when the version was first used.
        risk_share: of the attempt.
        number: of the attempt in its cell's year if it has begun, else 0.
    """
    return CellState(first_seen, first_seen, attempt=1, number=number, risk_share=risk_share)


@dataclass(frozen=True, slots=True)
class Scope:
    """The state of a rollout after its ledger's events; empty, it allows nothing.

    Attributes:
        policy_number, policy_hash: of the policy in force; 0 and "" before the first.
        versions: by id, in order of first use.
        aliases: by later name of a version its first one, which is its id; in order of first use.
        cells: states of versions in cells that had events.
        proposals: open ones, in the order in which they were raised.
        stops: in force, by id.
        widened_at: when each cell last widened or was taken over.
        returned_at: when a stop or suspension that withheld a cell's grants last ended.
        proposal_count: proposals ever raised.
        incident_count: incidents ever opened.
        open_incidents: unacknowledged ones.
        spoken_against: by version what spoke against it lately.
        attempt_years: by cell, the attempts of the last year in which one began.
        cell_values: by cell and version, the attribute values that it has met.
        confirmed_ahead: time of the last entry or tick that was acknowledged to be ahead.
        at: time of the ledger's last entry, None before the first.
        effective_at: from when the last entry holds for units, None before the first.
        revision: number of applied events.
        era: 1, and one more after each restore; nothing issued in an earlier era is valid.
    """

    policy_number: int = 0
    policy_hash: str = ""
    versions: Mapping[str, Version] = field(default_factory=dict)
    cells: Mapping[tuple[Cell, str], CellState] = field(default_factory=dict)
    proposals: Mapping[str, ProposalState] = field(default_factory=dict)
    stops: Mapping[str, Stop] = field(default_factory=dict)
    widened_at: Mapping[Cell, datetime] = field(default_factory=dict)
    returned_at: Mapping[Cell, datetime] = field(default_factory=dict)
    proposal_count: int = 0
    incident_count: int = 0
    open_incidents: Mapping[str, Incident] = field(default_factory=dict)
    spoken_against: Mapping[str, SpokenAgainst] = field(default_factory=dict)
    attempt_years: Mapping[Cell, AttemptYear] = field(default_factory=dict)
    cell_values: Mapping[tuple[Cell, str], CellValues] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    confirmed_ahead: datetime | None = None
    at: datetime | None = None
    effective_at: datetime | None = None
    revision: int = 0
    era: int = FIRST_ERA
    _holders: dict[Cell, str] = field(default_factory=dict, compare=False, repr=False)

    def get_first_name(self, name: str) -> str:
        """Return the id of the version with a name; unknown names are returned as they are."""
        return self.aliases.get(name, name)

    def get_cell_state(self, cell: Cell, version: str) -> CellState:
        """Return the state of `version` in `cell`."""
        state = self.cells.get((cell, version))
        if state is None:  # built at once: a copy of 10,000 states is a fifth of a tick
            share = self._get_next_share(cell)
            return build_initial_state(self.versions[version].first_seen, share)
        if state.has_begun:
            return state
        return replace(state, risk_share=self._get_next_share(cell))

    def get_cell_values(self, cell: Cell, version: str) -> CellValues:
        """Return the attribute values that `version` has met in `cell`."""
        return self.cell_values.get((cell, version), NO_VALUES)

    def has_begun(self, cell: Cell, version: str) -> bool:
        """Return whether the current attempt of a version in a cell has counted a unit."""
        state = self.cells.get((cell, version))
        return state is not None and state.has_begun

    def list_begun(self, cell: Cell) -> tuple[str, ...]:
        """Return the versions whose attempts in a cell have begun."""
        return tuple(version for version in self.versions if self.has_begun(cell, version))

    def _get_next_share(self, cell: Cell) -> float:
        """Return the share that the cell's next attempt would get in the year of its last one."""
        year = self.attempt_years.get(cell)
        if year is None:
            return FIRST_SHARE
        return compute_yearly_share(year.count + 1, year.releases)

    def is_stopped(self, cell: Cell) -> bool:
        """Return whether a stop withholds the grants of `cell`."""
        return any(cell in stop.cells for stop in self.stops.values())

    def find_withholding(self, cell: Cell, version: str | None) -> str:
        """Return `stopped` or `suspended` if a version's grants are withheld, else ""."""
        if self.is_stopped(cell):
            return STOPPED
        is_suspended = version is not None and self.get_cell_state(cell, version).suspended_by
        return SUSPENDED if is_suspended else ""

    def get_holder(self, cell: Cell) -> str | None:
        """Return the version with grants in `cell`, even if withheld, or None."""
        return self._holders.get(cell)


def format_revision(era: int, revision: int) -> str:
    """Return a revision with its era, which the first one omits.

    >>> format_revision(1, 41), format_revision(2, 41)
    ('41', '2-41')
    """
    return str(revision) if era == FIRST_ERA else f"{era}-{revision}"


def set_cell_state(
    cells: dict[tuple[Cell, str], CellState],
    holders: dict[Cell, str],
    cell: Cell,
    version: str,
    state: CellState,
) -> None:
    """Store a state in a scope's cells, and the cell's holder."""
    cells[cell, version] = state
    if state.grants:
        holders[cell] = version
    elif holders.get(cell) == version:
        del holders[cell]


def compute_held_level(policy: Policy, state: CellState, at: datetime) -> int:
    """Return the highest level with a valid grant at it and each below.

    Limits, stops and suspensions are ignored: this is what a resume restores.
    """
    valid_stages = {grant.stage for grant in state.grants if grant.is_valid(at)}
    stage_level = 0
    while stage_level < len(policy.stages) and policy.stages[stage_level].id in valid_stages:
        stage_level += 1
    return stage_level


def compute_stage_level(
    scope: Scope, policy: Policy, cell: Cell, version: str, at: datetime
) -> int:
    """Return the stage level of `version` in `cell`; in doubt 0, shadow.

    Unknown cells and unknown or retired versions are shadow. A time before the ledger's last entry
    counts as that entry, so that a clock set back restores no grant.
    """
    state = scope.cells.get((cell, version))
    version_state = scope.versions.get(version)
    if state is None or not state.grants or version_state is None or version_state.retired:
        return 0
    if state.suspended_by or scope.is_stopped(cell):
        return 0
    at = at if scope.at is None else max(at, scope.at)
    return min(compute_held_level(policy, state, at), policy.compute_ceiling(cell, at))


def find_acting_version(
    scope: Scope, policy: Policy, cell: Cell, at: datetime
) -> tuple[str, int] | None:
    """Return the version above shadow in `cell` and its level, or None."""
    holder = scope.get_holder(cell)
    if holder is None:
        return None
    stage_level = compute_stage_level(scope, policy, cell, holder, at)
    return (holder, stage_level) if stage_level else None
