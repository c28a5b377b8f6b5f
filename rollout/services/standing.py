"""How a live rollout stands: its scope, the policy in force, the versions that are known."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from rollout.core.errors import UnknownRollout
from rollout.core.places import SHADOW, Cell
from rollout.core.policy import Policy
from rollout.core.scope import Scope, acting
from rollout.formats.policy_yaml import load_policy
from rollout.store.due import DueQueue
from rollout.store.ledger import Ledger
from rollout.store.policies import Policies
from rollout.store.rollouts import Rollout, Rollouts
from rollout.store.session import Database, Transaction
from rollout.store.slots import Slots
from rollout.store.versions import KnownVersion, Versions
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


def standing(transaction: Transaction, name: str) -> Standing:
    """Return how the rollout of that name stands.

    Raises:
        NoSuchRolloutError: there is none.
    """
    rollouts = Rollouts(transaction)
    rollout = rollouts.find(name)
    if rollout is None:
        there = ", ".join(known.name for known in rollouts.all()) or "none yet"
        raise NoSuchRolloutError(f"no rollout {name}; `rollout apply` makes one. There: {there}")
    return _stood(transaction, rollout, Scope())


def standing_after(transaction: Transaction, known: Standing) -> Standing:
    """Return how a rollout stands now, folding only what came after a `known` standing."""
    return _stood(transaction, known.rollout, known.scope)


def _stood(transaction: Transaction, rollout: Rollout, known: Scope) -> Standing:
    scope = Ledger(transaction, rollout).scope(known)
    waiting = {p.about for p in scope.proposals.values() if p.kind == "policy"}
    texts = Policies(transaction, rollout).texts({scope.policy_hash, *waiting})
    return Standing(
        rollout=rollout,
        scope=scope,
        policy=_read(texts[scope.policy_hash]),
        pending={said: _read(texts[said]) for said in waiting},
        versions=Versions(transaction, rollout).all(),
    )


@lru_cache(maxsize=64)
def _read(text: str) -> Policy:
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
        lines += [f"  {p['id']}: {what}; {asks}", f"      --evidence {p['evidence']}"]
    lines += [f"  {s['id']}: stopped by {s['by']}: {', '.join(s['cells'])}" for s in found["stops"]]
    return "\n".join(lines)
