"""What the house chain comes to: who is here, with which rights and keys, by its rows alone.

The service reads tables, which whoever has the database can write. The chain can't be written
into unseen, so comparing the two shows a right or a key that nobody gave.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from rollout.core.events import Event
from rollout.core.house import (
    KeyCreated,
    KeyRevoked,
    RoleGranted,
    RoleRevoked,
    UserAdded,
    UserDisabled,
    UserEnabled,
)
from rollout.core.rights import Right


@dataclass(frozen=True, slots=True)
class Household:
    """Everybody by name, those who are disabled, and what each has: rights, keys not revoked."""

    people: frozenset[str] = frozenset()
    machines: frozenset[str] = frozenset()
    disabled: frozenset[str] = frozenset()
    rights: frozenset[tuple[str, Right]] = frozenset()
    keys: frozenset[tuple[str, str]] = frozenset()

    def differences(self, other: "Household") -> tuple[str, ...]:
        """Say what the `other` has more or less, a sentence each; () for nothing."""
        found = []
        for what in ("people", "machines", "disabled", "rights", "keys"):
            mine, theirs = getattr(self, what), getattr(other, what)
            found += [f"{_said(one)} is not in the chain: {what}" for one in theirs - mine]
            found += [f"{_said(one)} is in the chain alone: {what}" for one in mine - theirs]
        return tuple(sorted(found))


def household(events: Iterable[Event]) -> Household:
    """Return what a whole house chain comes to.

    >>> household([]).people
    frozenset()
    """
    people, machines, disabled = set[str](), set[str](), set[str]()
    rights, keys = defaultdict[str, set[Right]](set), defaultdict[str, set[str]](set)
    for event in events:
        match event:
            case UserAdded(user=name):
                people.add(name)
                machines |= {name} if event.service_account else set()
            case UserDisabled(user=name):
                disabled.add(name)
                rights[name].clear()
                keys[name].clear()
            case UserEnabled(user=name):
                disabled.discard(name)
            case RoleGranted(user=name):
                rights[name].add(_right(event))
            case RoleRevoked(user=name):
                rights[name].discard(_right(event))
            case KeyCreated(user=name, prefix=prefix):
                keys[name].add(prefix)
            case KeyRevoked(user=name, prefix=prefix):
                keys[name].discard(prefix)
    return Household(
        people=frozenset(people),
        machines=frozenset(machines),
        disabled=frozenset(disabled),
        rights=frozenset((name, right) for name, held in rights.items() for right in held),
        keys=frozenset((name, prefix) for name, held in keys.items() for prefix in held),
    )


def _right(event: RoleGranted | RoleRevoked) -> Right:
    return Right(event.role, event.rollout, event.site, event.group)


def _said(one: object) -> str:
    return ": ".join(map(str, one)) if isinstance(one, tuple) else str(one)
