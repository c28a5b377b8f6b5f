"""The model versions side by side, and how one is retired."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from rollout.core.calendar.sites import Cell
from rollout.core.errors import Refusal
from rollout.core.scope.commands import Retire
from rollout.core.scope.decider import MOST_OPEN_VERSIONS
from rollout.core.scope.permissions import Act, Caller, require
from rollout.core.scope.scope import acting
from rollout.services.engine.command_results import CommandResult, act
from rollout.services.engine.rollout_state import Standing, standing
from rollout.services.engine.service import Service
from rollout.store.database.session import Database
from rollout.store.ledger.versions import KnownVersion, VersionFacts, Versions


@dataclass(frozen=True, slots=True)
class ActingCell:
    """A cell in which a version acts, and on which stage."""

    site: str
    window: str
    stage: str


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One model version: what was said of it, and where it stands above shadow now.

    `proposals` are the open ones about it. A version without `acting_cells` runs in shadow.
    """

    version: str
    first_used_at: datetime
    retired: bool
    source: str
    trained_until: datetime | None
    acting_cells: tuple[ActingCell, ...]
    proposals: tuple[str, ...]


def versions_of(
    service: Service, caller: Caller, name: str, *, at: datetime
) -> tuple[VersionStatus, ...]:
    """Return every version that was ever seen, in that order, at the sites the caller may read."""
    require(caller, Act.READ, name)
    state = service.watch.confirmed(name).standing
    cells = [cell for cell in state.policy.cells if caller.may(Act.READ, name, cell.site)]
    acting_grants = {cell: acting(state.scope, state.policy, cell, at) for cell in cells}
    acting_cells: dict[str, list[ActingCell]] = {}
    for cell, grant in acting_grants.items():
        if grant is not None:
            stage = state.policy.rungs[grant[1]]
            acting_cells.setdefault(grant[0], []).append(ActingCell(cell.site, cell.window, stage))
    return tuple(
        _version(state, version, tuple(acting_cells.get(version, ())), cells)
        for version in state.scope.versions
    )


def _version(
    stood: Standing, version: str, acts_in: tuple[ActingCell, ...], cells: list[Cell]
) -> VersionStatus:
    version_state, known_version = stood.scope.versions[version], stood.versions.get(version)
    proposals = stood.scope.proposals.values()
    return VersionStatus(
        version=version,
        first_used_at=version_state.first_seen,
        retired=version_state.retired,
        source="" if known_version is None else known_version.facts.source,
        trained_until=None if known_version is None else known_version.facts.trained_until,
        acting_cells=acts_in,
        proposals=tuple(
            proposal.id
            for proposal in proposals
            if proposal.version == version and proposal.cell in cells
        ),
    )


class TrainedLater(Refusal):
    """A version was said to be trained on later cases: less can't be taken back from evidence."""

    code = "conflict"


class TooManyVersions(Refusal):
    """As many versions as may be are open."""

    code = "conflict"


def tell(
    database: Database,
    caller: Caller,
    name: str,
    version: str,
    *,
    trained_until: datetime | None,
    at: datetime,
) -> None:
    """Say of a version up to when its training cases reach: what it says of those is no evidence.

    Saying it again changes nothing; a later instant may be said at any time, an earlier one never.

    Raises:
        NotAllowed: the caller sends no records.
        TrainedLater: it was said to reach further.
        TooManyVersions: as many as may be are open; retire one.
    """
    require(caller, Act.RECORD, name)
    with database.writing() as transaction:
        state = standing(transaction, name)
        versions = Versions(transaction, state.rollout)
        known_version = versions.all().get(version)
        previous_end = None if known_version is None else known_version.facts.trained_until
        if previous_end is not None and (trained_until is None or trained_until < previous_end):
            training_text = f"{version} was trained on cases until {previous_end.isoformat()}"
            raise TrainedLater(f"{training_text}: say that or later, or give it another name")
        _require_room(state, versions.all(), version)
        facts = VersionFacts(version, "registration", trained_until)
        if known_version is None or previous_end != trained_until:
            versions.tell(facts, at=at)


def _require_room(stood: Standing, known: Mapping[str, KnownVersion], version: str) -> None:
    retired_names = {
        version_name
        for version_name, version_state in stood.scope.versions.items()
        if version_state.retired
    }
    if version not in known and len(known.keys() - retired_names) >= MOST_OPEN_VERSIONS:
        raise TooManyVersions(
            f"{MOST_OPEN_VERSIONS} versions are open; retire one before {version}"
        )


def retire(
    database: Database,
    caller: Caller,
    name: str,
    version: str,
    *,
    at: datetime,
    reason: str = "",
) -> CommandResult:
    """Take a version out of service everywhere; done already, it holds.

    Raises:
        NotAllowed: the caller is no operator of every site: it loses what it holds at each.
        UnknownVersion: it was never seen.
    """
    require(caller, Act.OPERATE, name)

    def asked(stood: Standing) -> Retire:
        sites = tuple(stood.policy.site)
        require(caller, Act.OPERATE, name, sites)
        return Retire(at=at, by=caller.person(name, sites), version=version, reason=reason)

    return act(database, caller, name, asked)
