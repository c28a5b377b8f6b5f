"""Rename versions and cells."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

from rollout.engine.decide.commands import (
    AddVersion,
    Command,
    OpenIncident,
    ProposeRenewal,
    ProposeTakeover,
    RetireVersion,
)
from rollout.engine.decide.scope import Scope
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.errors import PolicyRefusedError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy.record_definition import describe_cell

MAX_ALIASES: Final = 100  # a name beyond is a version of its own, of which few may be open
CommandT = TypeVar("CommandT", bound=Command)
ValueT = TypeVar("ValueT")


def find_continued_version(command: AddVersion, scope: Scope, policy: Policy) -> str:
    """Return the version that a new name continues, or "".

    It is the first one with the same content.
    """
    if not command.content or len(scope.aliases) >= MAX_ALIASES:
        return ""
    contents = {**policy.contents_by_version, **command.later_contents}
    for name, version in scope.versions.items():
        if command.content == (version.content or contents.get(name)):
            return name
    return ""


def use_first_name(command: CommandT, scope: Scope) -> CommandT:
    """Return a command with the first name of its version."""
    if isinstance(command, RetireVersion | ProposeTakeover | ProposeRenewal | OpenIncident):
        return replace(command, version=scope.get_first_name(command.version))
    return command


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


def find_renamed_cells(old: Policy, new: Policy) -> dict[Cell, Cell]:
    """Return by new cell the removed one that it was, as the new policy's `was` says."""
    site_origins = _find_origins(old.sites_by_id, {s.id: s.was for s in new.sites})
    window_origins = _find_origins({w.id for w in old.windows}, {w.id: w.was for w in new.windows})
    origins = {
        cell: Cell(
            site_origins.get(cell.site, cell.site), window_origins.get(cell.window, cell.window)
        )
        for cell in new.cells
        if cell not in old.cell_set
    }
    return {
        cell: origin
        for cell, origin in origins.items()
        if origin in old.cell_set and origin not in new.cell_set
    }


def _find_origins(old_ids: Collection[str], was_by_id: Mapping[str, str]) -> dict[str, str]:
    """Return the former id of each new one that names it."""
    return {name: was for name, was in was_by_id.items() if was and name not in old_ids}


def check_renames(old: Policy, new: Policy) -> None:
    """Refuse an edit that renames a cell without a word.

    Raises:
        PolicyRefusedError: a new cell has the hours and place of a removed one and doesn't go on
            with such a cell, or a new row's `was` names none that the edit removes.
    """
    _check_former_names(old, new)
    renamed_cells = find_renamed_cells(old, new)
    continued_cells = set(renamed_cells.values())
    removed_cells = [c for c in old.cells if c not in new.cell_set and c not in continued_cells]
    removed_by_place: dict[str, list[Cell]] = {}
    for cell in removed_cells:
        removed_by_place.setdefault(_identify_place(old, cell), []).append(cell)
    for cell in new.cells if removed_cells else ():
        place = _identify_place(new, cell)
        same_place, origin = removed_by_place.get(place, ()), renamed_cells.get(cell)
        is_continued = origin is not None and _identify_place(old, origin) == place
        if same_place and cell not in old.cell_set and not is_continued:
            closest = max(same_place, key=lambda r: (r.site == cell.site, r.window == cell.window))
            raise PolicyRefusedError(_describe_unnamed_rename(cell, closest))


def _identify_place(policy: Policy, cell: Cell) -> str:
    """Return text that is equal for cells with the same hours and place."""
    return repr(describe_cell(policy, cell))


def _describe_unnamed_rename(cell: Cell, removed: Cell) -> str:
    kind, name, was = (
        ("site", cell.site, removed.site)
        if cell.site != removed.site
        else ("window", cell.window, removed.window)
    )
    return (
        f"{cell} has the hours and place of {removed}, which this edit removes: write"
        f" `was: {was}` at the {kind} {name}, so that its attempts go on being numbered; if it is"
        f" another {kind}, remove {was} first, in an edit of its own"
    )


def _check_former_names(old: Policy, new: Policy) -> None:
    rows = (
        *(("site", s.id, s.was, [o.id for o in old.sites]) for s in new.sites),
        *(("window", w.id, w.was, [o.id for o in old.windows]) for w in new.windows),
    )
    for kind, name, was, old_ids in rows:
        if was and name not in old_ids and was not in old_ids:
            raise PolicyRefusedError(
                f"the {kind} {name} says `was: {was}`, and no {kind} {was} is in the policy in"
                f" force; name one of {', '.join(old_ids)}, or leave `was` out"
            )
