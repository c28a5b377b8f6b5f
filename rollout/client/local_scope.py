"""Snapshots of the scope as the service sends them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from rollout.client.leases import NO_TIME, Clocks
from rollout.client.seen_heads import LedgerHead
from rollout.core.calendar.sites import Cell
from rollout.core.errors import RefusalError
from rollout.core.policy.confidence_floors import format_floor
from rollout.core.policy.familiarity import FAMILIAR
from rollout.core.policy.policy import Policy
from rollout.core.scope.assignment import (
    Assignment,
    CaseQuestion,
    FallbackAction,
    decide_assignment,
)
from rollout.core.scope.scope import (
    CellState,
    CellValues,
    Grant,
    Scope,
    Stop,
    Version,
    build_initial_state,
    set_cell_state,
)


@dataclass(frozen=True, slots=True)
class LeaseBounds:
    """The seconds of both clocks between which the lease of a site is valid."""

    clocks: Clocks
    boot_since: float
    boot_until: float
    wall_since: float
    wall_until: float

    def compute_time_until(self, usable_until: float) -> timedelta:
        """Return the time from now to a second of the boot clock; 0 out of bounds."""
        boot, wall = self.clocks.read_seconds()
        if boot is None or boot < self.boot_since:
            return NO_TIME
        if not self.wall_since <= wall <= self.wall_until:
            return NO_TIME
        return max(NO_TIME, timedelta(seconds=min(usable_until, self.boot_until) - boot))


@dataclass(frozen=True, slots=True)
class LocalAssignment:
    """A client's answer to "who decides this case?"; fields as in `Assignment`.

    Attributes:
        usable_until: second of the boot clock until which the answer may be used.
        bounds: of the site's lease; None without one.
    """

    decider: str
    stage: str
    exposure: str
    is_audited: bool
    share: float
    reason: str
    revision: int
    fallbacks: tuple[FallbackAction, ...]
    usable_until: float
    bounds: LeaseBounds | None = field(compare=False, repr=False)

    @property
    def lease(self) -> timedelta:
        """Return how long the answer may still be used, by both clocks."""
        return NO_TIME if self.bounds is None else self.bounds.compute_time_until(self.usable_until)

    @property
    def answer_within(self) -> timedelta | None:
        """Return the time to the first fallback, or None."""
        return min((lever.after for lever in self.fallbacks), default=None)


def build_local_assignment(
    assignment: Assignment, usable_until: float = 0.0, bounds: LeaseBounds | None = None
) -> LocalAssignment:
    """Return an assignment with the end of its use in place of its lease."""
    return LocalAssignment(
        assignment.decider,
        assignment.stage,
        assignment.exposure,
        assignment.is_audited,
        assignment.share,
        assignment.reason,
        assignment.revision,
        assignment.fallbacks,
        usable_until,
        bounds,
    )


LoadPolicy = Callable[[str], Policy]
"""Parses a policy's text: `rollout.formats.policy.reader.parse_policy`."""


class InvalidSnapshotError(ValueError):
    """The response is no usable snapshot; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class LocalScope:
    """A scope at one revision, with all that assignments need.

    Attributes:
        head: of the ledger at that revision.
        scope: versions, stops and the cells of the client's sites.
        salt: of sampling values; empty if the key may not compute them.
        issued_at: the server's time of the response.
        leases: by site.
        permits: by site, sent with actions.
    """

    rollout: str
    head: LedgerHead
    scope: Scope
    policy: Policy
    salt: bytes = field(repr=False)
    issued_at: datetime
    leases: Mapping[str, timedelta]
    permits: Mapping[str, str]

    def decide_assignment(
        self, question: CaseQuestion, *, now: datetime, time_left: timedelta
    ) -> Assignment:
        """Return who decides, as the service would.

        A human for sites without a lease. `now` is by the server's clock.
        """
        usable_time = time_left if self.salt and question.site in self.leases else timedelta(0)
        salt = self.salt or b"-"  # unused: without a lease a human decides
        return decide_assignment(
            self.scope, self.policy, salt, question, now=now, time_left=usable_time
        )


def parse_snapshot(body: Mapping[str, Any], load_policy: LoadPolicy) -> LocalScope:
    """Return the snapshot of a parsed body of GET `scope`.

    Raises:
        InvalidSnapshotError: a part is missing or malformed, or the policy's text has another hash
            or has rules that this program can't read.
    """
    try:
        return _parse_snapshot(body, load_policy)
    except (AttributeError, KeyError, TypeError, ValueError, RefusalError) as error:
        raise InvalidSnapshotError(f"no snapshot to decide by: {error!r}") from error


def _parse_snapshot(body: Mapping[str, Any], load_policy: LoadPolicy) -> LocalScope:
    policy, leased_sites = body["policy"], [site for site in body["sites"] if site["permit"]]
    if sha256(policy["text"].encode()).hexdigest() != policy["hash"]:
        raise ValueError("the policy's text is not the one of its hash")
    return LocalScope(
        rollout=body["rollout"],
        head=LedgerHead(
            body["revision"], body["hash"], body.get("era", 1), body.get("head_code", "")
        ),
        scope=_parse_scope(body),
        policy=load_policy(policy["text"]),
        salt=bytes.fromhex(body["salt"] or ""),
        issued_at=_parse_instant(body["issued_at"]),
        leases={site["site"]: timedelta(seconds=site["lease"]) for site in leased_sites},
        permits={site["site"]: site["permit"] for site in leased_sites},
    )


def _parse_scope(body: Mapping[str, Any]) -> Scope:
    versions = {
        version_body["id"]: _parse_version(version_body) for version_body in body["versions"]
    }
    cells: dict[tuple[Cell, str], CellState] = {}
    holders: dict[Cell, str] = {}
    for cell_body in body["cells"]:
        state = _parse_cell_state(cell_body, versions[cell_body["version"]])
        set_cell_state(
            cells,
            holders,
            Cell(cell_body["site"], cell_body["window"]),
            cell_body["version"],
            state,
        )
    return Scope(
        policy_number=body["policy"]["number"],
        policy_hash=body["policy"]["hash"],
        versions=versions,
        aliases={
            alias: version_body["id"]
            for version_body in body["versions"]
            for alias in version_body.get("other_names", ())
        },
        cells=cells,
        stops={stop["id"]: _parse_stop(stop) for stop in body["stops"]},
        at=_parse_instant(body["scope_at"]),
        revision=body["revision"],
        cell_values={
            (Cell(cell_body["site"], cell_body["window"]), cell_body["version"]): _parse_values(
                cell_body.get("familiar", {})
            )
            for cell_body in body["cells"]
        },
        _holders=holders,
    )


def _parse_version(body: Mapping[str, Any]) -> Version:
    return Version(body["id"], _parse_instant(body["first_used_at"]), retired=body["retired"])


def _parse_cell_state(body: Mapping[str, Any], version: Version) -> CellState:
    floor_grants = [_parse_floor_grant(grant) for grant in body.get("floor_grants", ())]
    grants = (*(_parse_grant(grant) for grant in body["grants"]), *floor_grants)
    return replace(
        build_initial_state(version.first_seen, ()),
        grants=grants,
        suspended_by=frozenset(body["suspended_by"]),
    )


def _parse_values(familiar: Mapping[str, list[str]]) -> CellValues:
    """Return the familiar values of a cell, listed by attribute."""
    return CellValues(
        {(attribute, text): FAMILIAR for attribute, texts in familiar.items() for text in texts}
    )


def _parse_grant(body: Mapping[str, Any]) -> Grant:
    since, until = _parse_instant(body["since"]), _parse_instant(body["until"])
    return Grant(body["stage"], since, until, proposal="", held_since=since)


def _parse_floor_grant(body: Mapping[str, Any]) -> Grant:
    """Return a grant for cases of some confidence, which older clients don't read."""
    floor = body["confidence_floor"]
    if not 0 <= floor <= 1:
        raise ValueError(f"confidence_floor {floor} is no share")
    return replace(_parse_grant(body), floors=(format_floor(float(floor)),))


def _parse_stop(body: Mapping[str, Any]) -> Stop:
    cells = frozenset(Cell(cell["site"], cell["window"]) for cell in body["cells"])
    return Stop(body["id"], cells, by="", at=datetime.min)  # noqa: DTZ901 - not used


def _parse_instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.utcoffset() is None:
        raise ValueError(f"{text} has no zone")
    return at
