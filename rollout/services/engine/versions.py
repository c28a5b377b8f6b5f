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
    stood = service.watch.confirmed(name).standing
    cells = [cell for cell in stood.policy.cells if caller.may(Act.READ, name, cell.site)]
    here = {cell: acting(stood.scope, stood.policy, cell, at) for cell in cells}
    where: dict[str, list[ActingCell]] = {}
    for cell, found in here.items():
        if found is not None:
            stage = stood.policy.rungs[found[1]]
            where.setdefault(found[0], []).append(ActingCell(cell.site, cell.window, stage))
    return tuple(
        _version(stood, version, tuple(where.get(version, ())), cells)
        for version in stood.scope.versions
    )


def _version(
    stood: Standing, version: str, acts_in: tuple[ActingCell, ...], cells: list[Cell]
) -> VersionStatus:
    seen, known = stood.scope.versions[version], stood.versions.get(version)
    proposals = stood.scope.proposals.values()
    return VersionStatus(
        version=version,
        first_used_at=seen.first_seen,
        retired=seen.retired,
        source="" if known is None else known.facts.source,
        trained_until=None if known is None else known.facts.trained_until,
        acting_cells=acts_in,
        proposals=tuple(p.id for p in proposals if p.version == version and p.cell in cells),
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
        stood = standing(transaction, name)
        versions = Versions(transaction, stood.rollout)
        known = versions.all().get(version)
        before = None if known is None else known.facts.trained_until
        if before is not None and (trained_until is None or trained_until < before):
            said = f"{version} was trained on cases until {before.isoformat()}"
            raise TrainedLater(f"{said}: say that or later, or give it another name")
        _require_room(stood, versions.all(), version)
        facts = VersionFacts(version, "registration", trained_until)
        if known is None or before != trained_until:
            versions.tell(facts, at=at)


def _require_room(stood: Standing, known: Mapping[str, KnownVersion], version: str) -> None:
    retired = {name for name, one in stood.scope.versions.items() if one.retired}
    if version not in known and len(known.keys() - retired) >= MOST_OPEN_VERSIONS:
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
