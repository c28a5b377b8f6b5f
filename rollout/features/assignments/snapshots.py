"""Snapshots: the scope and policy that clients use to decide locally for a lease.

A caller who may request assignments at all sites of the snapshot also gets the salt, to compute
sampling values, and a permit for each site, to return with actions. A lease is a duration that
starts before the request was sent. Snapshots of the past have neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from rollout.data.database.rollouts import PolicyTexts
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.decide.permits import Permit
from rollout.engine.decide.scope import CellState, Scope
from rollout.features.assignments.assignments import (
    CLOCK_SKEW,
    ClientHead,
    code_head,
    find_head_doubt,
    find_replica_doubt,
    load_confirmed_rollout,
)
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.policy import Policy
from rollout.live.rollout_state import RolloutState, parse_stored_policy
from rollout.live.service import Service
from rollout.live.state_cache import CachedRollout

LOCAL: Final = "local"
"""The decider in a snapshot's permit: its client decides by the snapshot."""


class ClockSkewError(RefusalError):
    """This replica's clock is off: its leases could end too late."""

    code = "clock-skew"


class NoAutonomyError(RefusalError):
    """This replica can't rely on its writes or rows, so humans decide."""

    code = "no-autonomy"


class ClientAheadError(RefusalError):
    """The ledger lacks the client's newest entry."""

    code = "ledger-rolled-back"


class UnknownSiteError(RefusalError):
    """The policy has no such site."""

    code = "unknown-site"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A scope at one revision of its ledger, for some sites.

    Attributes:
        revision, hash: the last ledger entry in it; 0 and "" before the first.
        policy: the policy in force; None before the first.
        policy_text: its text, whose SHA-256 is the policy's hash.
        sites: in the policy's order.
        scope: versions, stops, and the cells of these sites.
        salt: for sampling values; None without the permission.
        leases: by site; empty for the past.
        permits: by site, to be returned with actions.
        head_code: proves that the service gave out this head; "" for the past.
        issued_at: None for the past.
    """

    rollout: str
    revision: int
    hash: str
    policy: Policy | None
    policy_text: str
    sites: tuple[str, ...]
    scope: Scope
    salt: bytes | None = field(default=None, repr=False)
    leases: Mapping[str, timedelta] = field(default_factory=dict)
    permits: Mapping[str, str] = field(default_factory=dict)
    head_code: str = ""
    issued_at: datetime | None = None

    @property
    def cells(self) -> list[tuple[Cell, str, CellState]]:
        """Return the cells and versions with grants, ordered."""
        cell_states = (
            (cell, version, cell_state)
            for (cell, version), cell_state in self.scope.cells.items()
            if cell.site in self.sites
        )
        return sorted(
            (granted_cell for granted_cell in cell_states if granted_cell[2].grants),
            key=lambda granted_cell: granted_cell[:2],
        )


def load_snapshot(
    service: Service,
    caller: Caller,
    rollout_name: str,
    sites: tuple[str, ...],
    client_head: ClientHead | None = None,
) -> Snapshot:
    """Return the current scope at `sites`; () means all readable sites.

    Raises:
        UnknownRolloutError: the caller sees no such rollout.
        NotAllowedError: the caller may not read one of the sites.
        UnknownSiteError: the policy has no such site.
        ClientAheadError: the ledger lacks the entry `client_head`; an incident is open unless the
            caller only reads, and every cell is stopped if this service gave it out.
        ClockSkewError: this replica may grant no lease now.
        NoAutonomyError: likewise, because it can't write or read.
        StoreError: the scope can't be confirmed.
    """
    require_permission(caller, Permission.READ_SCOPE, rollout_name, sites)
    cached_rollout = load_confirmed_rollout(service, rollout_name, client_head)
    doubt_reason = find_head_doubt(service, cached_rollout, caller, client_head)
    if doubt_reason:
        raise ClientAheadError(doubt_reason)
    policy = cached_rollout.state.policy
    unleased_snapshot = Snapshot(
        rollout=rollout_name,
        revision=cached_rollout.head.revision,
        hash=cached_rollout.head.hash,
        policy=policy,
        policy_text=_load_policy_text(service, cached_rollout.state),
        sites=_select_sites(policy, caller, rollout_name, sites),
        scope=cached_rollout.state.scope,
        head_code=code_head(cached_rollout, service.permit_signer.load_signing_key()).code,
        issued_at=service.clock.now(),
    )
    if not all(
        caller.has_permission(Permission.REQUEST_ASSIGNMENT, rollout_name, site)
        for site in unleased_snapshot.sites
    ):
        return unleased_snapshot
    if doubt_reason := find_replica_doubt(service, cached_rollout):
        raise (ClockSkewError if doubt_reason == CLOCK_SKEW else NoAutonomyError)(doubt_reason)
    return _add_leases(service, cached_rollout, unleased_snapshot)


def _add_leases(
    service: Service, cached_rollout: CachedRollout, unleased_snapshot: Snapshot
) -> Snapshot:
    policy, now = cached_rollout.state.policy, unleased_snapshot.issued_at
    assert now is not None  # noqa: S101 - only past snapshots have no time
    leases = {
        site: policy.sites_by_id[site].lease or policy.lease for site in unleased_snapshot.sites
    }
    permits = {
        site: service.permit_signer.sign(
            Permit(LOCAL, unleased_snapshot.revision, now, lease, era=unleased_snapshot.scope.era),
            unleased_snapshot.rollout,
            site,
        )
        for site, lease in leases.items()
    }
    return replace(
        unleased_snapshot, salt=cached_rollout.state.rollout.salt, leases=leases, permits=permits
    )


def load_snapshot_at(
    service: Service, caller: Caller, rollout_name: str, sites: tuple[str, ...], at: datetime
) -> Snapshot:
    """Return the scope at an earlier instant, without leases.

    Raises:
        UnknownRolloutError: the caller sees no such rollout.
        NotAllowedError: the caller may not read one of the sites.
        UnknownSiteError: the policy of that time had no such site.
    """
    require_permission(caller, Permission.READ_SCOPE, rollout_name, sites)
    rollout = service.state_cache.load_rollout(rollout_name).state.rollout
    with service.database.begin_read() as transaction:
        ledger = Ledger(transaction, rollout)
        scope = ledger.load_scope_at(at)
        last_rows = list(ledger.list_rows(after=scope.revision - 1, until=scope.revision))
        texts = PolicyTexts(transaction, rollout).load_texts({scope.policy_hash})
    text = texts.get(scope.policy_hash, "")
    policy = parse_stored_policy(text) if text else None
    return Snapshot(
        rollout=rollout_name,
        revision=scope.revision,
        hash=last_rows[0].hash if last_rows else "",
        policy=policy,
        policy_text=text,
        sites=() if policy is None else _select_sites(policy, caller, rollout_name, sites),
        scope=scope,
    )


def _load_policy_text(service: Service, state: RolloutState) -> str:
    with service.database.begin_read() as transaction:
        policy_hash = state.scope.policy_hash
        return PolicyTexts(transaction, state.rollout).load_texts({policy_hash})[policy_hash]


def _select_sites(
    policy: Policy, caller: Caller, rollout_name: str, requested_sites: tuple[str, ...]
) -> tuple[str, ...]:
    unknown_sites = [site for site in requested_sites if site not in policy.sites_by_id]
    if unknown_sites:
        site_text = ", ".join(policy.sites_by_id)
        raise UnknownSiteError(f"no site {', '.join(unknown_sites)}; the policy has {site_text}")
    return tuple(
        site
        for site in policy.sites_by_id
        if (
            site in requested_sites
            if requested_sites
            else caller.has_permission(Permission.READ_SCOPE, rollout_name, site)
        )
    )
