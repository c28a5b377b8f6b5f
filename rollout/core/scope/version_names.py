"""Names of model versions: a new name for a known content continues its version.

A version keeps its first name in the ledger; each later one is an alias of it. So a rename brings
no new attempt, and lifts no stop, retirement or suspension (decision record 0038).
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

from rollout.core.errors import PolicyRefusedError
from rollout.core.policy.counting_rules import numbers_attempts_by_year
from rollout.core.policy.policy import Policy
from rollout.core.scope.commands import (
    AddVersion,
    Command,
    OpenIncident,
    ProposeRenewal,
    ProposeTakeover,
    RetireVersion,
)
from rollout.core.scope.scope import Scope

MAX_ALIASES: Final = 100  # a name beyond is a version of its own, of which few may be open
CommandT = TypeVar("CommandT", bound=Command)
ValueT = TypeVar("ValueT")


def find_continued_version(command: AddVersion, scope: Scope, policy: Policy) -> str:
    """Return the version that a new name continues, or "".

    It is the first one with the same content. A name that the policy watches, although that version
    counts, is a version of its own: its records must not count.
    """
    if not command.content or not numbers_attempts_by_year(scope.rules):
        return ""
    if len(scope.aliases) >= MAX_ALIASES:
        return ""
    contents = {**policy.contents_by_version, **command.later_contents}
    for name, version in scope.versions.items():
        if command.content == (version.content or contents.get(name)):
            watched = policy.watched_versions
            return "" if command.version in watched and name not in watched else name
    return ""


def use_first_name(command: CommandT, scope: Scope) -> CommandT:
    """Return a command with the first name of its version."""
    if isinstance(command, RetireVersion | ProposeTakeover | ProposeRenewal | OpenIncident):
        return replace(command, version=scope.get_first_name(command.version))
    return command


def check_watched_aliases(scope: Scope, new: Policy) -> None:
    """Refuse a policy that watches another name of a version that counts.

    Raises:
        PolicyRefusedError: a row of an alias says `watch`, and its version's row doesn't.
    """
    for alias in sorted(scope.aliases.keys() & new.watched_versions):
        name = scope.get_first_name(alias)
        if name not in new.watched_versions:
            raise PolicyRefusedError(
                f"{alias} is {name} under another name, and {name} counts: write"
                f" `evidence: watch` in the row of {name}, or leave it out of the row of {alias}"
            )


def list_names(scope: Scope, version: str) -> tuple[str, ...]:
    """Return the names of a version, the first one first."""
    return (version, *(alias for alias, name in scope.aliases.items() if name == version))


def merge_training_cutoffs(
    ends_by_name: Mapping[str, datetime], first_names: Mapping[str, str]
) -> dict[str, datetime]:
    """Return by version when its training cases end: the last end of its names."""
    last_ends: dict[str, datetime] = {}
    for name, until in ends_by_name.items():
        version = first_names.get(name, name)
        last_ends[version] = max(until, last_ends.get(version, until))
    return last_ends


def find_by_any_name(scope: Scope, version: str, values: Mapping[str, ValueT]) -> ValueT | None:
    """Return the value of the first of a version's names that has one, or None."""
    return next((values[name] for name in list_names(scope, version) if name in values), None)


def describe_version(scope: Scope, version: str) -> str:
    """Return a version's newest name, with its first one where that differs.

    >>> describe_version(Scope(aliases={"v1b": "v1"}), "v1")
    'v1b (was v1)'
    >>> describe_version(Scope(), "v1")
    'v1'
    """
    newest = list_names(scope, version)[-1]
    return version if newest == version else f"{newest} (was {version})"
