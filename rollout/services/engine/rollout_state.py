"""How a live rollout stands: its scope, the policy in force, the versions that are known."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary

from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.errors import UnknownRollout
from rollout.core.policy.policy import Policy
from rollout.core.scope.scope import Scope, acting
from rollout.formats.policy.reader import load_policy
from rollout.store.counting.count_queue import DueQueue
from rollout.store.database.rollouts import Rollout, Rollouts
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import Policies
from rollout.store.ledger.tick_slots import Slots
from rollout.store.ledger.versions import KnownVersion, Versions
from rollout.tally.slots import instant


class NoSuchRolloutError(UnknownRollout):
    """The database has no rollout of that name; the text lists those that it has."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A rollout at one revision of its ledger.

    Attributes:
        rollout: its number, name and salt.
        scope: the whole ledger, folded.
        policy: the policy in force.
        pending: policies that wait for approval, by hash.
        versions: what was said of each version, and when it was first seen.
    """

    rollout: Rollout
    scope: Scope
    policy: Policy
    pending: Mapping[str, Policy]
    versions: Mapping[str, KnownVersion]

    @property
    def trained_until(self) -> dict[str, datetime]:
        """Return up to when the training cases of each version reach, where that was said."""
        trained_until_by_version = {
            version_id: known_version.facts.trained_until
            for version_id, known_version in self.versions.items()
        }
        return {
            version_id: until
            for version_id, until in trained_until_by_version.items()
            if until is not None
        }


@dataclass(frozen=True, slots=True)
class _Read:
    """A standing, and the hash of the last row that it was folded from."""

    standing: Standing
    last: str


_read_before: WeakKeyDictionary[object, dict[str, _Read]] = WeakKeyDictionary()
"""By database and name what was read last."""


def standing(transaction: Transaction, name: str) -> Standing:
    """Return how the rollout of that name stands.

    What this process read before is gone on from while the chain holds the row that it ended
    with. Where it does not (a backup was restored, an append was undone), all is read anew.

    Raises:
        NoSuchRolloutError: there is none.
    """
    rollout = _found(transaction, name)
    cached_states = _read_before.setdefault(transaction.pool, {})
    cached_states[name] = _read(transaction, rollout, cached_states.get(name))
    return cached_states[name].standing


def _found(transaction: Transaction, name: str) -> Rollout:
    rollouts = Rollouts(transaction)
    rollout = rollouts.find(name)
    if rollout is None:
        rollout_names = (
            ", ".join(other_rollout.name for other_rollout in rollouts.all()) or "none yet"
        )
        raise NoSuchRolloutError(
            f"no rollout {name}; `rollout apply` makes one. There: {rollout_names}"
        )
    return rollout


def _read(transaction: Transaction, rollout: Rollout, known: _Read | None) -> _Read:
    ledger = Ledger(transaction, rollout)
    if known is not None and known.standing.rollout == rollout and _holds(ledger, known):
        state = standing_after(transaction, known.standing)
    else:
        state = _stood(transaction, rollout, ledger.scope())
    return _Read(state, _hash_at(ledger, state.scope.revision))


def _holds(ledger: Ledger, known: _Read) -> bool:
    return _hash_at(ledger, known.standing.scope.revision) == known.last


def _hash_at(ledger: Ledger, revision: int) -> str:
    """Return the hash of a row, "" where the chain has none of that revision."""
    return next((row.hash for row in ledger.rows(after=revision - 1, until=revision)), "")


def standing_after(transaction: Transaction, known: Standing) -> Standing:
    """Return how a rollout stands now, folding only what came after a `known` standing."""
    scope = Ledger(transaction, known.rollout).scope(known.scope)
    policies = {**known.pending, known.scope.policy_hash: known.policy}
    return _stood(transaction, known.rollout, scope, policies)


def _stood(
    transaction: Transaction,
    rollout: Rollout,
    scope: Scope,
    known: Mapping[str, Policy] = MappingProxyType({}),
) -> Standing:
    pending_hashes = {
        proposal.about for proposal in scope.proposals.values() if proposal.kind == "policy"
    }
    unread_hashes = {scope.policy_hash, *pending_hashes} - known.keys()
    texts = Policies(transaction, rollout).texts(unread_hashes) if unread_hashes else {}
    policies = {**known, **{policy_hash: kept_policy(text) for policy_hash, text in texts.items()}}
    return Standing(
        rollout=rollout,
        scope=scope,
        policy=policies[scope.policy_hash],
        pending={policy_hash: policies[policy_hash] for policy_hash in pending_hashes},
        versions=Versions(transaction, rollout).all(),
    )


@lru_cache(maxsize=64)
def kept_policy(text: str) -> Policy:
    """Read a kept policy; it was read without a fault when it was kept."""
    return load_policy(text)


def status(database: Database, name: str, at: datetime) -> dict[str, Any]:
    """Return what a person asks first: stages, what waits for whom, what is stopped.

    Raises:
        NoSuchRolloutError: there is no such rollout.
    """
    with database.reading() as transaction:
        state = standing(transaction, name)
        last_slot = Slots(transaction, state.rollout).last_done()
        pending_count = DueQueue(transaction, state.rollout).waiting()
    scope, policy = state.scope, state.policy
    return {
        "rollout": name,
        "policy": {"number": scope.policy_number, "hash": scope.policy_hash},
        "revision": scope.revision,
        "ticked": None if last_slot is None else instant(last_slot, policy.tick).isoformat(),
        "waiting": pending_count,
        "versions": list(scope.versions),
        "cells": [_cell(state, cell, at) for cell in policy.cells],
        "proposals": [
            {
                "id": proposal.id,
                "kind": proposal.kind,
                "cell": None if proposal.cell is None else str(proposal.cell),
                "version": proposal.version,
                "to": proposal.to,
                "about": proposal.about,
                "needs": list(proposal.needs),
                "approved_by": [approval.by for approval in proposal.approvals],
                "expires": proposal.expires_at.isoformat(),
                "evidence": proposal.evidence,
            }
            for proposal in scope.proposals.values()
        ],
        "stops": [
            {
                "id": stop.id,
                "by": stop.by,
                "at": stop.at.isoformat(),
                "cells": sorted(map(str, stop.cells)),
            }
            for stop in scope.stops.values()
        ],
    }


def _cell(stood: Standing, cell: Cell, at: datetime) -> dict[str, Any]:
    scope, policy = stood.scope, stood.policy
    acting_version, acting_grant = scope.holder(cell), acting(scope, policy, cell, at)
    cell_state = None if acting_version is None else scope.state(cell, acting_version)
    return {
        "cell": str(cell),
        "stage": SHADOW if acting_grant is None else policy.rungs[acting_grant[1]],
        "version": acting_version or "",
        "stopped": scope.stopped(cell),
        "suspended_by": [] if cell_state is None else sorted(cell_state.suspended_by),
    }


def status_text(found: Mapping[str, Any]) -> str:
    """Write a status for a terminal, a line for each cell, proposal and stop."""
    last_tick = found["ticked"] or "never"
    number, revision = found["policy"]["number"], found["revision"]
    counting_text = f"last tick {last_tick}, {found['waiting']} waiting to be counted"
    lines = [f"{found['rollout']}: policy {number}, revision {revision}, {counting_text}"]
    for cell in found["cells"]:
        withholding_texts = (
            [f"suspended by {', '.join(cell['suspended_by'])}"] if cell["suspended_by"] else []
        )
        withholding_texts += ["stopped"] if cell["stopped"] else []
        version_text = f" by {cell['version']}" if cell["version"] else ""
        lines.append(
            "; ".join([f"  {cell['cell']}: {cell['stage']}{version_text}", *withholding_texts])
        )
    for proposal in found["proposals"]:
        proposal_text = (
            f"{proposal['kind']} of {proposal['cell'] or proposal['about']} {proposal['version']}"
            f" {proposal['to']}".rstrip()
        )
        approver_text = ", ".join(proposal["approved_by"]) or "nobody yet"
        approval_text = (
            f"asks {', '.join(proposal['needs'])}; approved by {approver_text}; open until"
            f" {proposal['expires']}"
        )
        lines += [
            f"  {proposal['id']}: {proposal_text}; {approval_text}",
            f"      --evidence-hash {proposal['evidence']}",
        ]
    lines += [
        f"  {stop['id']}: stopped by {stop['by']}: {', '.join(stop['cells'])}"
        for stop in found["stops"]
    ]
    return "\n".join(lines)
