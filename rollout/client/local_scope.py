"""A snapshot as the service sends it, read into the values that `assign` takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from rollout.client.seen_heads import Head
from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.assignment import Assignment, Question, assign
from rollout.core.scope.scope import CellState, Grant, Scope, Stop, Version, place

Load = Callable[[str], Policy]
"""Reads a policy's text: `rollout.formats.policy.reader.load_policy`."""


class NoSnapshotError(ValueError):
    """What was sent is no snapshot that can be decided by; the text says why."""


@dataclass(frozen=True, slots=True)
class LocalScope:
    """A scope at one revision, with what it takes to decide by it.

    Attributes:
        rollout: its name.
        head: the row that it is the fold of.
        scope: versions, stops and the cells of its sites.
        policy: the policy in force.
        salt: what draws are made with; empty where the key may not draw.
        issued_at: the server's instant of giving it.
        leases: by site, how long it may be used.
        permits: by site, what actions bring back.
    """

    rollout: str
    head: Head
    scope: Scope
    policy: Policy
    salt: bytes = field(repr=False)
    issued_at: datetime
    leases: Mapping[str, timedelta]
    permits: Mapping[str, str]

    def assign(self, asked: Question, *, now: datetime, left: timedelta) -> Assignment:
        """Say who decides, as the service would; people for a site that it has no lease for.

        Args:
            asked: the case.
            now: the instant, by the server's clock.
            left: what is left of the lease.
        """
        usable_time = left if self.salt and asked.site in self.leases else timedelta(0)
        salt = self.salt or b"-"  # nothing is drawn with it: without a lease people decide
        return assign(self.scope, self.policy, salt, asked, now=now, left=usable_time)


def read_scope(said: Mapping[str, Any], load: Load) -> LocalScope:
    """Read a snapshot.

    Args:
        said: the body of GET `scope`, parsed.
        load: reads the policy's text.

    Raises:
        NoSnapshotError: it is none, it is of the past, or its policy's text is another's.
    """
    try:
        return _read(said, load)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NoSnapshotError(f"no snapshot to decide by: {error!r}") from error


def _read(said: Mapping[str, Any], load: Load) -> LocalScope:
    policy, leased_sites = said["policy"], [site for site in said["sites"] if site["permit"]]
    if sha256(policy["text"].encode()).hexdigest() != policy["hash"]:
        raise ValueError("the policy's text is not the one of its hash")
    return LocalScope(
        rollout=said["rollout"],
        head=Head(said["revision"], said["hash"]),
        scope=_scope(said),
        policy=load(policy["text"]),
        salt=bytes.fromhex(said["salt"] or ""),
        issued_at=_instant(said["issued_at"]),
        leases={site["site"]: timedelta(seconds=site["lease"]) for site in leased_sites},
        permits={site["site"]: site["permit"] for site in leased_sites},
    )


def _scope(said: Mapping[str, Any]) -> Scope:
    versions = {version_body["id"]: _version(version_body) for version_body in said["versions"]}
    cells: dict[tuple[Cell, str], CellState] = {}
    holders: dict[Cell, str] = {}
    for cell_body in said["cells"]:
        state = _state(cell_body, versions[cell_body["version"]])
        place(
            cells,
            holders,
            Cell(cell_body["site"], cell_body["window"]),
            cell_body["version"],
            state,
        )
    return Scope(
        policy_number=said["policy"]["number"],
        policy_hash=said["policy"]["hash"],
        versions=versions,
        cells=cells,
        stops={stop["id"]: _stop(stop) for stop in said["stops"]},
        at=_instant(said["scope_at"]),
        revision=said["revision"],
        _holders=holders,
    )


def _version(said: Mapping[str, Any]) -> Version:
    return Version(said["id"], _instant(said["first_used_at"]), retired=said["retired"])


def _state(said: Mapping[str, Any], version: Version) -> CellState:
    grants = tuple(_grant(grant) for grant in said["grants"])
    return replace(version.begun, grants=grants, suspended_by=frozenset(said["suspended_by"]))


def _grant(said: Mapping[str, Any]) -> Grant:
    since, until = _instant(said["since"]), _instant(said["until"])
    return Grant(said["stage"], since, until, proposal="", held_since=since)


def _stop(said: Mapping[str, Any]) -> Stop:
    cells = frozenset(Cell(cell["site"], cell["window"]) for cell in said["cells"])
    return Stop(said["id"], cells, by="", at=datetime.min)  # noqa: DTZ901 - nobody asks when


def _instant(said: str) -> datetime:
    at = datetime.fromisoformat(said)
    if at.utcoffset() is None:
        raise ValueError(f"{said} has no zone")
    return at
