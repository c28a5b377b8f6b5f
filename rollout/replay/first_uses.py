"""First uses of the versions in recorded files, and which names continue another version."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from rollout.core.errors import PolicyRefusedError
from rollout.core.policy.counting_rules import CURRENT_RULES
from rollout.core.policy.policy import Policy
from rollout.core.scope.commands import AddVersion
from rollout.core.scope.decider import decide
from rollout.core.scope.projection import apply_events
from rollout.core.scope.scope import Scope

EARLIEST = datetime.min.replace(tzinfo=UTC)


def list_first_uses(
    first_seen: Mapping[str, datetime], contents: Mapping[str, str], start: datetime = EARLIEST
) -> list[AddVersion]:
    """Return the first use of each name in order, none before `start`."""
    in_order = sorted(first_seen.items(), key=lambda item: (item[1], item[0]))
    return [
        AddVersion(at=max(at, start), version=name, content=contents.get(name, ""))
        for name, at in in_order
    ]


def find_continued_versions(policy: Policy, first_uses: Sequence[AddVersion]) -> Mapping[str, str]:
    """Return by later name of a version its first one, by the rule of the service."""
    scope = Scope(rules=CURRENT_RULES)
    for first_use in first_uses:
        with suppress(PolicyRefusedError):  # too many open versions: the replay says so
            scope = apply_events(decide(first_use, scope, policy), scope)
    return scope.aliases
