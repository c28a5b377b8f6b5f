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
        said = {name: known.facts.trained_until for name, known in self.versions.items()}
        return {name: until for name, until in said.items() if until is not None}


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
    here = _read_before.setdefault(transaction.pool, {})
    here[name] = _read(transaction, rollout, here.get(name))
    return here[name].standing


def _found(transaction: Transaction, name: str) -> Rollout:
    rollouts = Rollouts(transaction)
    rollout = rollouts.find(name)
    if rollout is None:
        there = ", ".join(known.name for known in rollouts.all()) or "none yet"
        raise NoSuchRolloutError(f"no rollout {name}; `rollout apply` makes one. There: {there}")
    return rollout


def _read(transaction: Transaction, rollout: Rollout, known: _Read | None) -> _Read:
    ledger = Ledger(transaction, rollout)
    if known is not None and known.standing.rollout == rollout and _holds(ledger, known):
        stood = standing_after(transaction, known.standing)
    else:
        stood = _stood(transaction, rollout, ledger.scope())
    return _Read(stood, _hash_at(ledger, stood.scope.revision))


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
    waiting = {p.about for p in scope.proposals.values() if p.kind == "policy"}
    unread = {scope.policy_hash, *waiting} - known.keys()
    texts = Policies(transaction, rollout).texts(unread) if unread else {}
    policies = {**known, **{said: kept_policy(text) for said, text in texts.items()}}
    return Standing(
        rollout=rollout,
        scope=scope,
        policy=policies[scope.policy_hash],
        pending={said: policies[said] for said in waiting},
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
        stood = standing(transaction, name)
        last = Slots(transaction, stood.rollout).last_done()
        waiting = DueQueue(transaction, stood.rollout).waiting()
    scope, policy = stood.scope, stood.policy
    return {
        "rollout": name,
        "policy": {"number": scope.policy_number, "hash": scope.policy_hash},
        "revision": scope.revision,
        "ticked": None if last is None else instant(last, policy.tick).isoformat(),
        "waiting": waiting,
        "versions": list(scope.versions),
        "cells": [_cell(stood, cell, at) for cell in policy.cells],
        "proposals": [
            {
                "id": p.id,
                "kind": p.kind,
                "cell": None if p.cell is None else str(p.cell),
                "version": p.version,
                "to": p.to,
                "about": p.about,
                "needs": list(p.needs),
                "approved_by": [yes.by for yes in p.approvals],
                "expires": p.expires_at.isoformat(),
                "evidence": p.evidence,
            }
            for p in scope.proposals.values()
        ],
        "stops": [
            {"id": s.id, "by": s.by, "at": s.at.isoformat(), "cells": sorted(map(str, s.cells))}
            for s in scope.stops.values()
        ],
    }


def _cell(stood: Standing, cell: Cell, at: datetime) -> dict[str, Any]:
    scope, policy = stood.scope, stood.policy
    holder, here = scope.holder(cell), acting(scope, policy, cell, at)
    state = None if holder is None else scope.state(cell, holder)
    return {
        "cell": str(cell),
        "stage": SHADOW if here is None else policy.rungs[here[1]],
        "version": holder or "",
        "stopped": scope.stopped(cell),
        "suspended_by": [] if state is None else sorted(state.suspended_by),
    }


def status_text(found: Mapping[str, Any]) -> str:
    """Write a status for a terminal, a line for each cell, proposal and stop."""
    ticked = found["ticked"] or "never"
    number, revision = found["policy"]["number"], found["revision"]
    counting = f"last tick {ticked}, {found['waiting']} waiting to be counted"
    lines = [f"{found['rollout']}: policy {number}, revision {revision}, {counting}"]
    for cell in found["cells"]:
        held = [f"suspended by {', '.join(cell['suspended_by'])}"] if cell["suspended_by"] else []
        held += ["stopped"] if cell["stopped"] else []
        by = f" by {cell['version']}" if cell["version"] else ""
        lines.append("; ".join([f"  {cell['cell']}: {cell['stage']}{by}", *held]))
    for p in found["proposals"]:
        what = f"{p['kind']} of {p['cell'] or p['about']} {p['version']} {p['to']}".rstrip()
        yes = ", ".join(p["approved_by"]) or "nobody yet"
        asks = f"asks {', '.join(p['needs'])}; approved by {yes}; open until {p['expires']}"
        lines += [f"  {p['id']}: {what}; {asks}", f"      --evidence-hash {p['evidence']}"]
    lines += [f"  {s['id']}: stopped by {s['by']}: {', '.join(s['cells'])}" for s in found["stops"]]
    return "\n".join(lines)
