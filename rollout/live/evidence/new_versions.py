"""Versions that are stored and that the ledger lacks: the events of their first use."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from operator import itemgetter

from rollout.data.ledger.versions import StoredVersion
from rollout.engine.decide.commands import AddVersion
from rollout.engine.decide.decider import decide
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import Scope
from rollout.engine.events import LedgerEvent
from rollout.kernel.errors import PolicyRefusedError
from rollout.kernel.policy.policy import Policy


def list_new_versions(
    scope: Scope,
    policy: Policy,
    versions: Mapping[str, StoredVersion],
    until: datetime | None = None,
) -> tuple[LedgerEvent, ...]:
    """Return the events of versions first used by an instant, by default of all."""
    later_contents = {  # of a version that was asked about, or registered, before it answered
        name: stored.info.content
        for name, stored in versions.items()
        if name in scope.versions and stored.info.content
    }
    events: tuple[LedgerEvent, ...] = ()
    for at, name, content in _order_new_names(scope, versions):
        if until is not None and at > until:
            break
        with suppress(PolicyRefusedError):  # too many open versions: it stays unknown
            command = AddVersion(
                at=at, version=name, content=content, later_contents=later_contents
            )
            new_events = decide(command, scope, policy)
            scope, events = apply_events(new_events, scope), (*events, *new_events)
    return events


def _order_new_names(
    scope: Scope, versions: Mapping[str, StoredVersion]
) -> list[tuple[datetime, str, str]]:
    """Return start, name and content of names that the ledger lacks, in their order.

    Of names with one content the one that was received first comes first, and no other starts
    before it. A sender who states an earlier first use could otherwise make a new name the first
    one after units of the other were counted.
    """
    names = [name for name in versions if name not in scope.versions and name not in scope.aliases]
    starts: list[tuple[datetime, str, str]] = []
    last_starts: dict[str, datetime] = {}
    for name in sorted(names, key=lambda name: _get_order(name, versions[name])):
        start, content = versions[name].first_seen_at, versions[name].info.content
        if content:
            start = last_starts[content] = max(start, last_starts.get(content, start))
        starts.append((start, name, content))
    return sorted(starts, key=itemgetter(0))


def _get_order(name: str, stored: StoredVersion) -> tuple[datetime, datetime, str]:
    """Return what orders names: by receipt with a content, else by first use."""
    first_seen_at = stored.first_seen_at
    received_at = stored.declared_at if stored.info.content else first_seen_at
    return received_at, first_seen_at, name


def find_first_names(
    scope: Scope, policy: Policy, versions: Mapping[str, StoredVersion]
) -> Mapping[str, str]:
    """Return by later name of a version its first one, as of the ledger and the next tick.

    Records may arrive, and count, before the ledger names their version.
    """
    return apply_events(list_new_versions(scope, policy, versions), scope).aliases
