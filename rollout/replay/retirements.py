"""Retirements in a replay of many versions: each after its last record.

A rollout has at most `MAX_OPEN_VERSIONS` open versions at once. Files of a year may have more, one
after the other; nobody recorded when each was retired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rollout.core.access.accounts import REPLAY
from rollout.core.calendar.instants import MICROSECOND
from rollout.core.scope.commands import Actor, RetireVersion
from rollout.core.scope.decider import MAX_OPEN_VERSIONS

REASON = "its last record"


class VersionsAtOnceError(ValueError):
    """More versions were in use at once than may be open."""


@dataclass(frozen=True, slots=True)
class VersionUse:
    """The times of a version's first and last prediction; names of one content are one version."""

    version: str
    first: datetime
    last: datetime


def plan_retirements(
    first_seen: Mapping[str, datetime],
    last_seen: Mapping[str, datetime],
    contents: Mapping[str, str],
) -> tuple[RetireVersion, ...]:
    """Return the retirements of a replay; none if all its versions may be open.

    Raises:
        VersionsAtOnceError: too many were in use at once; the text names them.
    """
    uses = _list_uses(first_seen, last_seen, contents)
    if len(uses) <= MAX_OPEN_VERSIONS:
        return ()
    for use in uses:
        _check_open_versions([u for u in uses if u.first <= use.first <= u.last], use.first)
    return tuple(
        RetireVersion(
            at=use.last + MICROSECOND, by=Actor(REPLAY), version=use.version, reason=REASON
        )
        for use in uses
    )


def _list_uses(
    first_seen: Mapping[str, datetime],
    last_seen: Mapping[str, datetime],
    contents: Mapping[str, str],
) -> list[VersionUse]:
    uses: dict[str, VersionUse] = {}
    for name, first in sorted(first_seen.items(), key=lambda item: (item[1], item[0])):
        content, last = contents.get(name) or name, last_seen[name]
        use = uses.get(content, VersionUse(name, first, last))
        uses[content] = VersionUse(use.version, use.first, max(use.last, last))
    return list(uses.values())


def _check_open_versions(uses: Sequence[VersionUse], at: datetime) -> None:
    if len(uses) > MAX_OPEN_VERSIONS:
        names = ", ".join(use.version for use in uses)
        raise VersionsAtOnceError(
            f"{len(uses)} versions were in use at {at:%Y-%m-%d %H:%M} UTC, and at most"
            f" {MAX_OPEN_VERSIONS} may be: {names}; leave some out of the file of predictions"
        )
