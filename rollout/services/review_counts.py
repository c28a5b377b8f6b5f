"""How many cases wait for a reviewer, read without giving any of them out."""

from collections.abc import Mapping
from datetime import datetime

from rollout.core.rights import Act, Caller
from rollout.services.desk import KINDS, sites_of
from rollout.services.service import Service
from rollout.services.standing import Standing
from rollout.store.reviews import Reviews
from rollout.store.session import Transaction

MOST = 20
"""Rollouts that are counted, by name."""
EVERY_KIND = tuple(kind for kinds in KINDS.values() for kind in kinds)


def review_counts(service: Service, caller: Caller, at: datetime) -> Mapping[str, int]:
    """Return the cases that somebody holds or could be given, by rollout; none are left out."""
    stood = [watched.standing for watched in service.watch.everything()]
    mine = [s for s in stood if caller.may_somewhere(Act.REVIEW, s.rollout.name)][:MOST]
    if not mine:
        return {}
    with service.database.reading() as transaction:
        found = {s.rollout.name: _waiting(transaction, caller, s, at) for s in mine}
    return {name: n for name, n in found.items() if n}


def _waiting(transaction: Transaction, caller: Caller, stood: Standing, at: datetime) -> int:
    store, sites = Reviews(transaction, stood.rollout), sites_of(caller, Act.REVIEW, stood)
    held = len(store.held(caller.name, at, EVERY_KIND, sites))
    return held + sum(store.waiting(caller.name, at, kinds, sites) for kinds in KINDS.values())
