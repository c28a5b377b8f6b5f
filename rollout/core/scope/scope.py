"""What is allowed where: grants, stops and suspensions, and the one function that reads them.

Nothing else says what a model may do. `stage_at` is evaluated when somebody asks, so a grant
that has expired gives nothing even if no process has run since.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy

ENGINE = "policy"  # the name under which the engine itself acts in the ledger


@dataclass(frozen=True, slots=True)
class Grant:
    """The permission that one widening gives. Valid in [since, until).

    `held_since` is when the cell, whichever version acted there, began to hold the stage without
    a break: waves ask for it, and neither a renewal nor a takeover starts it anew.
    """

    stage: str
    since: datetime
    until: datetime
    proposal: str
    held_since: datetime

    def valid(self, at: datetime) -> bool:
        """Say whether the grant gives something at `at`."""
        return self.since <= at < self.until


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's yes, with the groups that the person stood in when saying it."""

    by: str
    groups: tuple[str, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change that waits for people, bound to a frozen evidence hash.

    `kind` is widening, renewal, takeover, resume or policy. `about` is the stop's id of a resume
    and the new policy's hash of a policy proposal. `gate` names the rule that it was raised under.
    """

    id: str
    kind: str
    raised_at: datetime
    raised_by: str
    expires_at: datetime
    evidence: str
    needs: tuple[str, ...]
    cell: Cell | None = None
    version: str = ""
    to: str = ""
    gate: str = ""
    about: str = ""
    approvals: tuple[Approval, ...] = ()

    @property
    def approved(self) -> bool:
        """Say whether every group that was asked has said yes."""
        return filled(self.needs, self.approvals) == len(self.needs)


def filled(needs: tuple[str, ...], approvals: tuple[Approval, ...]) -> int:
    """Return how many of `needs` the approvals fill at best, one person for one of them.

    A person may stand in several groups, so taking the first that fits could waste a yes.

    >>> noon = datetime(2027, 6, 1, 12)
    >>> both = Approval("bo", ("operator", "safety"), noon)
    >>> safety = Approval("cy", ("safety",), noon)
    >>> filled(("operator", "safety"), (safety, both))
    2
    """
    if not needs:
        return 0
    first_need, other_needs = needs[0], needs[1:]
    eligible_approvals = [a for a in approvals if first_need in a.groups]
    counts_when_taken = (
        1 + filled(other_needs, tuple(a for a in approvals if a != t)) for t in eligible_approvals
    )
    return max((filled(other_needs, approvals), *counts_when_taken))


@dataclass(frozen=True, slots=True)
class Stop:
    """A person withholds every grant in `cells` until an approved resume."""

    id: str
    cells: frozenset[Cell]
    by: str
    at: datetime
    drill: bool = False


@dataclass(frozen=True, slots=True)
class Version:
    """One model version: when it was first seen, and whether it is still served."""

    id: str
    first_seen: datetime
    retired: bool = False

    @property
    def begun(self) -> "CellState":
        """Return what the version holds in a cell in which nothing has happened to it."""
        return CellState(attempt_since=self.first_seen, changed_at=self.first_seen)


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that a person has to look at, until one acknowledges it.

    `kind` is `alarm` of a guard, `unauthorized`, `ledger_rolled_back` or `clock`. `about` names one
    case or client where the service says which.
    """

    id: str
    kind: str
    reason: str
    at: datetime
    cell: Cell | None = None
    version: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class CellState:
    """What one version holds in one cell.

    Attributes:
        grants: one per rung, lowest first.
        suspended_by: guards that withhold the grants until their measure is good again.
        attempt: 1 for the first evidence; a later one opens at a smaller risk.
        attempt_since: units that occurred before it count in no later attempt.
        changed_at: when the stack last changed; detectors and minimums start there.
        alarms: last alarm of each guard: its detector started anew then.
        suspensions: when each guard suspended; the third time in a day narrows.
        reported: guards that are in alarm, were reported and narrow nothing.
        proposal: the id of the proposal that is open, if one is.
        quiet_until: nothing is raised before.
    """

    attempt_since: datetime
    changed_at: datetime
    grants: tuple[Grant, ...] = ()
    suspended_by: frozenset[str] = frozenset()
    attempt: int = 1
    alarms: Mapping[str, datetime] = field(default_factory=dict)
    suspensions: tuple[tuple[str, datetime], ...] = ()
    reported: frozenset[str] = frozenset()
    proposal: str | None = None
    quiet_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """The fold of a rollout's events. An empty scope allows nothing anywhere.

    Attributes:
        policy_number, policy_hash: the policy in force; 0 and "" before the first.
        versions: by id, in the order in which they were seen.
        cells: what each version holds, where anything ever happened to it.
        proposals: those that are open, in the order in which they were raised.
        stops: those that hold.
        widened_at: when each cell last changed hands or went up.
        raised: proposals ever raised: the next one's number.
        incidents: incidents ever opened.
        open_incidents: those that nobody has acknowledged.
        withdrawn: per stage, the risk of the gate that was taken out of the policy there, until
            the policy has a gate to it everywhere again.
        at: the ledger's time, its last entry's; before the first, None.
        revision: how many events it is the fold of.
    """

    policy_number: int = 0
    policy_hash: str = ""
    versions: Mapping[str, Version] = field(default_factory=dict)
    cells: Mapping[tuple[Cell, str], CellState] = field(default_factory=dict)
    proposals: Mapping[str, Proposal] = field(default_factory=dict)
    stops: Mapping[str, Stop] = field(default_factory=dict)
    widened_at: Mapping[Cell, datetime] = field(default_factory=dict)
    raised: int = 0
    incidents: int = 0
    open_incidents: Mapping[str, Incident] = field(default_factory=dict)
    withdrawn: Mapping[str, str] = field(default_factory=dict)
    at: datetime | None = None
    revision: int = 0
    _holders: dict[Cell, str] = field(default_factory=dict, compare=False, repr=False)

    def state(self, cell: Cell, version: str) -> CellState:
        """Return what `version` holds in `cell`; nothing where it was never widened."""
        state = self.cells.get((cell, version))
        return self.versions[version].begun if state is None else state

    def stopped(self, cell: Cell) -> bool:
        """Say whether a person's stop withholds the grants of `cell`."""
        return any(cell in stop.cells for stop in self.stops.values())

    def holder(self, cell: Cell) -> str | None:
        """Return the version that holds grants in `cell`, acting or withheld; None for shadow."""
        return self._holders.get(cell)

    def with_state(self, cell: Cell, version: str, state: CellState) -> "Scope":
        """Return the scope with one cell's state replaced."""
        cells, holders = dict(self.cells), dict(self._holders)
        place(cells, holders, cell, version, state)
        return replace(self, cells=MappingProxyType(cells), _holders=holders)


def place(
    cells: dict[tuple[Cell, str], CellState],
    holders: dict[Cell, str],
    cell: Cell,
    version: str,
    state: CellState,
) -> None:
    """Put a state into a scope's cells, with the version that holds grants there."""
    cells[cell, version] = state
    if state.grants:
        holders[cell] = version
    elif holders.get(cell) == version:
        del holders[cell]


def held_rung(policy: Policy, state: CellState, at: datetime) -> int:
    """Return the highest rung that, with every rung below it, holds a grant valid at `at`.

    Neither limits nor stops nor suspensions are looked at: this is what would come back.
    """
    valid_stages = {grant.stage for grant in state.grants if grant.valid(at)}
    stage_level = 0
    while stage_level < len(policy.stages) and policy.stages[stage_level].id in valid_stages:
        stage_level += 1
    return stage_level


def stage_at(scope: Scope, policy: Policy, cell: Cell, version: str, at: datetime) -> int:
    """Return the rung on which `version` stands in `cell` at `at`; 0, shadow, whenever in doubt.

    Args:
        scope: the fold of the ledger.
        policy: the policy in force.
        cell: site and window; an unknown one is shadow.
        version: a model version; an unknown or retired one is shadow.
        at: the instant asked for. Earlier than the ledger's last entry counts as that entry,
            so that a clock set back brings no permission back.
    """
    state = scope.cells.get((cell, version))
    version_state = scope.versions.get(version)
    if state is None or not state.grants or version_state is None or version_state.retired:
        return 0
    if state.suspended_by or scope.stopped(cell):
        return 0
    at = at if scope.at is None else max(at, scope.at)
    return min(held_rung(policy, state, at), policy.ceiling(cell, at))


def acting(scope: Scope, policy: Policy, cell: Cell, at: datetime) -> tuple[str, int] | None:
    """Return the version that stands above shadow in `cell` and its rung, None where none does."""
    holder = scope.holder(cell)
    if holder is None:
        return None
    stage_level = stage_at(scope, policy, cell, holder, at)
    return (holder, stage_level) if stage_level else None
