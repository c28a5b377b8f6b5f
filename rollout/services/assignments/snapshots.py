"""The scope as a snapshot: enough to answer "who decides" somewhere else, for as long as a lease.

Who may ask about all the sites that it speaks of gets the salt, so that it can draw, and for each
site a permit that its actions bring back. The lease is a duration, counted by the reader from
before the question was sent. Of the past there is neither: it is for people to read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.errors import Refusal
from rollout.core.policy.policy import Policy
from rollout.core.scope.permissions import Act, Caller, require
from rollout.core.scope.permits import Permit
from rollout.core.scope.scope import CellState, Scope
from rollout.formats.policy.reader import load_policy
from rollout.services.assignments.assignments import ASKEW, REWOUND, Seen, confirmed, tell_rewound
from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.service import Service
from rollout.services.engine.state_cache import Watched
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import Policies

LOCAL: Final = "local"
"""The decider that a snapshot's permit names: whoever holds it decides by the snapshot."""


class ClockAskew(Refusal):
    """This replica's clock is off: what it leased could end too late."""

    code = "clock-skew"


class Rewound(Refusal):
    """The ledger lacks what the client has seen."""

    code = "ledger-rolled-back"


class UnknownSite(Refusal):
    """The policy has no site of that name."""

    code = "unknown-site"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A scope at one revision of its ledger, cut to some sites.

    Attributes:
        rollout: its name.
        revision, hash: the last row that it is the fold of; 0 and "" before the first.
        policy: the policy in force, None before the first.
        text: the policy's text, whose SHA-256 is its hash.
        sites: what it speaks of, in the policy's order.
        scope: versions, stops, and the cells of these sites.
        salt: what draws are made with, None for who may not draw.
        leases: by site, how long it may be used; empty of the past.
        permits: by site, what actions bring back.
        issued_at: when it was given, None of the past.
    """

    rollout: str
    revision: int
    hash: str
    policy: Policy | None
    text: str
    sites: tuple[str, ...]
    scope: Scope
    salt: bytes | None = field(default=None, repr=False)
    leases: Mapping[str, timedelta] = field(default_factory=dict)
    permits: Mapping[str, str] = field(default_factory=dict)
    issued_at: datetime | None = None

    @property
    def cells(self) -> list[tuple[Cell, str, CellState]]:
        """Return what each version holds in the cells of these sites, where it holds anything."""
        cell_states = (
            (cell, version, cell_state)
            for (cell, version), cell_state in self.scope.cells.items()
            if cell.site in self.sites
        )
        return sorted(
            (held_cell for held_cell in cell_states if held_cell[2].grants),
            key=lambda held_cell: (held_cell[0], held_cell[1]),
        )


def snapshot(
    service: Service, caller: Caller, name: str, sites: tuple[str, ...], seen: Seen | None = None
) -> Snapshot:
    """Return the scope as it is now.

    Args:
        service: the replica.
        caller: who asks.
        name: of the rollout.
        sites: what it is asked about; () is every site that the caller may know of.
        seen: the highest row that the client knows of.

    Raises:
        UnknownRollout: there is none that the caller may see.
        NotAllowed: the caller may not know of one of the sites.
        UnknownSite: the policy has no such site.
        Rewound: the ledger lacks what the client has seen; an incident is open.
        ClockAskew: nothing may be leased here now.
        StoreError: the scope can't be confirmed.
    """
    require(caller, Act.WATCH, name, sites)
    cached_rollout = confirmed(service, name, seen)
    if seen is not None and not cached_rollout.has(seen.revision, seen.hash):
        tell_rewound(service, name, caller, seen)
        raise Rewound(REWOUND)
    policy = cached_rollout.standing.policy
    unleased_snapshot = Snapshot(
        rollout=name,
        revision=cached_rollout.head.revision,
        hash=cached_rollout.head.hash,
        policy=policy,
        text=_text(service, cached_rollout.standing),
        sites=_sites(policy, caller, name, sites),
        scope=cached_rollout.standing.scope,
        issued_at=service.clock.now(),
    )
    if not all(caller.may(Act.ASK, name, site) for site in unleased_snapshot.sites):
        return unleased_snapshot
    if service.watch.askew:
        raise ClockAskew(ASKEW)
    return _leased(service, cached_rollout, unleased_snapshot)


def _leased(service: Service, watched: Watched, made: Snapshot) -> Snapshot:
    policy, now = watched.standing.policy, made.issued_at
    assert now is not None  # noqa: S101 - of the past nothing is leased
    leases = {site: policy.site[site].lease or policy.lease for site in made.sites}
    permits = {
        site: service.permits.sign(Permit(LOCAL, made.revision, now, lease), made.rollout, site)
        for site, lease in leases.items()
    }
    return replace(made, salt=watched.standing.rollout.salt, leases=leases, permits=permits)


def snapshot_at(
    service: Service, caller: Caller, name: str, sites: tuple[str, ...], at: datetime
) -> Snapshot:
    """Return the scope as it was at an instant: what the ledger had by then, and no lease.

    Raises:
        UnknownRollout: there is none that the caller may see.
        NotAllowed: the caller may not know of one of the sites.
        UnknownSite: the policy of then had no such site.
    """
    require(caller, Act.WATCH, name, sites)
    rollout = service.watch.rollout(name).standing.rollout
    with service.database.reading() as transaction:
        ledger = Ledger(transaction, rollout)
        scope = ledger.scope_at(at)
        last_rows = list(ledger.rows(after=scope.revision - 1, until=scope.revision))
        texts = Policies(transaction, rollout).texts({scope.policy_hash})
    text = texts.get(scope.policy_hash, "")
    policy = load_policy(text) if text else None
    return Snapshot(
        rollout=name,
        revision=scope.revision,
        hash=last_rows[0].hash if last_rows else "",
        policy=policy,
        text=text,
        sites=() if policy is None else _sites(policy, caller, name, sites),
        scope=scope,
    )


def _text(service: Service, stood: Standing) -> str:
    with service.database.reading() as transaction:
        policy_hash = stood.scope.policy_hash
        return Policies(transaction, stood.rollout).texts({policy_hash})[policy_hash]


def _sites(policy: Policy, caller: Caller, name: str, asked: tuple[str, ...]) -> tuple[str, ...]:
    unknown_sites = [site for site in asked if site not in policy.site]
    if unknown_sites:
        site_text = ", ".join(policy.site)
        raise UnknownSite(f"no site {', '.join(unknown_sites)}; the policy has {site_text}")
    return tuple(
        site
        for site in policy.site
        if (site in asked if asked else caller.may(Act.WATCH, name, site))
    )
