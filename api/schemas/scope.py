"""The scope as it goes out: what a client needs to decide as the server would."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rollout.core.calendar.sites import Cell
from rollout.core.scope.scope import CellState
from rollout.services.assignments.snapshots import Snapshot

SCOPE: dict[str, Any] = {
    "rollout": "bear-alarm",
    "revision": 41,
    "hash": "9f2c",
    "scope_at": "2027-06-01T11:45:00+00:00",
    "policy": {"number": 3, "hash": "77ab", "text": "rollout: bear-alarm\n…"},
    "versions": [{"id": "v7", "first_used_at": "2027-05-01T00:00:00+00:00", "retired": False}],
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
    """The policy in force; its hash is the SHA-256 of the text."""

    number: int
    hash: str
    text: str


class ScopeVersion(BaseModel):
    """A version that was seen."""

    id: str
    first_used_at: datetime
    retired: bool


class ScopeGrant(BaseModel):
    """A rung, from one instant to another."""

    stage: str
    since: datetime
    until: datetime


class ScopeCell(BaseModel):
    """What a version holds in a cell."""

    site: str
    window: str
    version: str
    grants: list[ScopeGrant]
    suspended_by: list[str]


class ScopeStop(BaseModel):
    """Cells in which a person withholds every grant."""

    id: str
    cells: list[Cell]


class ScopeSite(BaseModel):
    """How long this may be used at a site, and what actions there bring back."""

    site: str
    lease: float | None = Field(description="seconds, by a clock that counts sleep; null: no lease")
    permit: str | None


class ScopeSnapshot(BaseModel):
    """What is allowed where, at one revision."""

    model_config = ConfigDict(json_schema_extra={"example": SCOPE})

    rollout: str
    revision: int
    hash: str
    scope_at: datetime | None = Field(description="the ledger's last instant; time is never before")
    policy: ScopePolicy | None
    versions: list[ScopeVersion]
    cells: list[ScopeCell]
    stops: list[ScopeStop]
    sites: list[ScopeSite]
    salt: str | None = Field(description="hexadecimal; null for who may not draw, and of the past")
    issued_at: datetime | None = Field(description="null of the past")


def scope_out(made: Snapshot) -> ScopeSnapshot:
    """Write a snapshot."""
    scope = made.scope
    policy = ScopePolicy(number=scope.policy_number, hash=scope.policy_hash, text=made.text)
    return ScopeSnapshot(
        rollout=made.rollout,
        revision=made.revision,
        hash=made.hash,
        scope_at=scope.at,
        policy=None if made.policy is None else policy,
        versions=[
            ScopeVersion(
                id=version_item.id,
                first_used_at=version_item.first_seen,
                retired=version_item.retired,
            )
            for version_item in scope.versions.values()
        ],
        cells=[
            _cell(cell.site, cell.window, version, state) for cell, version, state in made.cells
        ],
        stops=[
            ScopeStop(id=stop.id, cells=_places(made, stop.id)) for stop in scope.stops.values()
        ],
        sites=[_site(made, site) for site in made.sites],
        salt=None if made.salt is None else made.salt.hex(),
        issued_at=made.issued_at,
    )


def _site(made: Snapshot, site: str) -> ScopeSite:
    lease = made.leases.get(site)
    seconds = None if lease is None else lease.total_seconds()
    return ScopeSite(site=site, lease=seconds, permit=made.permits.get(site))


def _places(made: Snapshot, stop: str) -> list[Cell]:
    return [cell for cell in sorted(made.scope.stops[stop].cells) if cell.site in made.sites]


def _cell(site: str, window: str, version: str, state: CellState) -> ScopeCell:
    return ScopeCell(
        site=site,
        window=window,
        version=version,
        grants=[
            ScopeGrant(stage=grant.stage, since=grant.since, until=grant.until)
            for grant in state.grants
        ],
        suspended_by=sorted(state.suspended_by),
    )
