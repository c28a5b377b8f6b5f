"""The schema of a snapshot: what a client needs to decide like the server."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rollout.core.calendar.sites import Cell
from rollout.core.scope.scope import CellState
from rollout.core.scope.version_names import list_names
from rollout.services.assignments.snapshots import Snapshot

SCOPE: dict[str, Any] = {
    "rollout": "bear-alarm",
    "revision": 41,
    "hash": "9f2c",
    "era": 1,
    "head_code": "1.1.6b1f",
    "scope_at": "2027-06-01T11:45:00+00:00",
    "policy": {"number": 3, "hash": "77ab", "text": "rollout: bear-alarm\n…"},
    "versions": [
        {
            "id": "v7",
            "other_names": [],
            "first_used_at": "2027-05-01T00:00:00+00:00",
            "retired": False,
        }
    ],
    "cells": [
        {
            "site": "creek",
            "window": "day",
            "version": "v7",
            "grants": [
                {
                    "stage": "supervised",
                    "since": "2027-05-20T00:00:00+00:00",
                    "until": "2027-08-18T00:00:00+00:00",
                }
            ],
            "suspended_by": [],
        }
    ],
    "stops": [{"id": "S-1", "cells": [{"site": "creek", "window": "night"}]}],
    "sites": [{"site": "creek", "lease": 43200.0, "permit": "1.local.41.1811851200000000.43200.5"}],
    "salt": "00" * 32,
    "issued_at": "2027-06-01T12:00:00+00:00",
}


class ScopePolicy(BaseModel):
    """The policy in force. `hash` is the SHA-256 of `text`."""

    number: int
    hash: str
    text: str


class ScopeVersion(BaseModel):
    """A model version known to the rollout.

    It has the same grants under its `other_names`, whose declared content is the same.
    """

    id: str
    other_names: list[str] = []
    first_used_at: datetime
    retired: bool


class ScopeGrant(BaseModel):
    """A stage that is granted for a time span."""

    stage: str
    since: datetime
    until: datetime


class ScopeFloorGrant(ScopeGrant):
    """A stage that is granted for a time span, for cases of at least some confidence."""

    confidence_floor: float


class ScopeCell(BaseModel):
    """The grants of one version in a cell, and the guards that suspend them.

    If the policy has several confidence floors, `grants` is empty, and `floor_grants` has them: a
    human decides cases below the highest floor of the acting stage's grant and those after it.

    If the policy has `evidence.familiar`, a human decides cases with a value that is not in
    `familiar`, by attribute or combination.
    """

    site: str
    window: str
    version: str
    grants: list[ScopeGrant]
    floor_grants: list[ScopeFloorGrant] = Field(
        default=[], description="empty unless the policy has several confidence floors"
    )
    suspended_by: list[str]
    familiar: dict[str, list[str]] = {}


class ScopeStop(BaseModel):
    """An active stop and its cells."""

    id: str
    cells: list[Cell]


class ScopeSite(BaseModel):
    """A site's lease and the permit to send back with actions there."""

    site: str
    lease: float | None = Field(
        description="seconds, on a clock that continues during sleep; null if there is no lease"
    )
    permit: str | None


class ScopeSnapshot(BaseModel):
    """Which version may act at which stage in each cell, at one revision."""

    model_config = ConfigDict(json_schema_extra={"example": SCOPE})

    rollout: str
    revision: int
    hash: str
    era: int = Field(description="1, and one more after each restore of the database")
    head_code: str = Field(
        description="send it back as `ledger_code`, with revision and hash; empty for a past `at`"
    )
    scope_at: datetime | None = Field(
        description="the ledger's time; never treat the current time as earlier than this"
    )
    policy: ScopePolicy | None
    versions: list[ScopeVersion]
    cells: list[ScopeCell]
    stops: list[ScopeStop]
    sites: list[ScopeSite]
    salt: str | None = Field(
        description="hexadecimal; null for a past `at` or without permission at all sites"
    )
    issued_at: datetime | None = Field(description="null for a past `at`")


def build_scope(snapshot: Snapshot) -> ScopeSnapshot:
    """Return the schema of a snapshot."""
    scope = snapshot.scope
    policy = ScopePolicy(
        number=scope.policy_number, hash=scope.policy_hash, text=snapshot.policy_text
    )
    return ScopeSnapshot(
        rollout=snapshot.rollout,
        revision=snapshot.revision,
        hash=snapshot.hash,
        era=scope.era,
        head_code=snapshot.head_code,
        scope_at=scope.at,
        policy=None if snapshot.policy is None else policy,
        versions=[
            ScopeVersion(
                id=version_item.id,
                other_names=list(list_names(scope, version_item.id)[1:]),
                first_used_at=version_item.first_seen,
                retired=version_item.retired,
            )
            for version_item in scope.versions.values()
        ],
        cells=[
            _build_cell(cell, version, state, snapshot) for cell, version, state in snapshot.cells
        ],
        stops=[
            ScopeStop(id=stop.id, cells=_list_stop_cells(snapshot, stop.id))
            for stop in scope.stops.values()
        ],
        sites=[_build_site(snapshot, site) for site in snapshot.sites],
        salt=None if snapshot.salt is None else snapshot.salt.hex(),
        issued_at=snapshot.issued_at,
    )


def _build_site(snapshot: Snapshot, site: str) -> ScopeSite:
    lease = snapshot.leases.get(site)
    seconds = None if lease is None else lease.total_seconds()
    return ScopeSite(site=site, lease=seconds, permit=snapshot.permits.get(site))


def _list_stop_cells(snapshot: Snapshot, stop: str) -> list[Cell]:
    return [
        cell for cell in sorted(snapshot.scope.stops[stop].cells) if cell.site in snapshot.sites
    ]


def _build_cell(cell: Cell, version: str, state: CellState, snapshot: Snapshot) -> ScopeCell:
    return ScopeCell(
        site=cell.site,
        window=cell.window,
        version=version,
        grants=[
            ScopeGrant(stage=grant.stage, since=grant.since, until=grant.until)
            for grant in state.grants
            if not grant.floors
        ],
        floor_grants=[
            ScopeFloorGrant(
                stage=grant.stage,
                since=grant.since,
                until=grant.until,
                confidence_floor=float(grant.floors[0]),
            )
            for grant in state.grants
            if grant.floors
        ],
        suspended_by=sorted(state.suspended_by),
        familiar=_list_familiar_values(cell, version, snapshot),
    )


def _list_familiar_values(cell: Cell, version: str, snapshot: Snapshot) -> dict[str, list[str]]:
    """Return the familiar values by attribute, sorted; empty if the policy asks for none."""
    rule = None if snapshot.policy is None else snapshot.policy.evidence.familiar
    if rule is None:
        return {}
    values = snapshot.scope.get_cell_values(cell, version).familiar_values
    return {
        attribute: [text for name, text in values if name == attribute]
        for attribute in sorted(rule.attribute_ids)
    }
