"""Commands to a rollout; `rollout.engine.decide.decider` turns them into events.

Rename versions and cells.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from rollout.kernel.calendar.sites import Cell
from rollout.kernel.errors import PolicyRefusedError
from rollout.kernel.policy.record_definition import describe_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from rollout.engine.decide.scope import Scope
    from rollout.kernel.policy.cell_evidence import VersionEvidence
    from rollout.kernel.policy.fresh_evidence import FreshEvidence
    from rollout.kernel.policy.policy import Policy


EvidenceByCell: TypeAlias = "Mapping[tuple[Cell, str], VersionEvidence]"
FreshByCell: TypeAlias = "Mapping[tuple[Cell, str], FreshEvidence]"
AnsweredByCell: TypeAlias = "Mapping[tuple[Cell, str], datetime]"
"""When the last unit occurred that was predicted before it was decided, and is decided."""
FindAnswered: TypeAlias = "Callable[[Collection[Cell]], AnsweredByCell]"


def find_none_answered(cells: Collection[Cell]) -> AnsweredByCell:  # noqa: ARG001 - none has any
    """Return no answered unit in any of the cells."""
    return {}


@dataclass(frozen=True, slots=True)
class Actor:
    """Name and groups of the account that sends a command.

    Attributes:
        name: the account.
        groups: groups for which it approves.
        is_service_account: whether it is a program's.
        approvals_resume_at: end of the pause after a reset of its password or second factor.
        reset_partners: accounts that reset it or were reset by it; their approvals don't count
            together.
    """

    name: str
    groups: tuple[str, ...] = ("operator",)
    is_service_account: bool = False
    approvals_resume_at: datetime | None = None
    reset_partners: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command at an instant."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick(Command):
    """One evaluation by the engine.

    `pending_policies` holds policies with an open proposal, by hash. `evidence` holds the changed
    evidence by cell and version; for the others only time matters. `slot` is the instant of the
    slot of the evidence, which the events cite. `fresh` is the evidence with answers that don't
    count yet, looked up only where something may be raised or applied. `find_answered` is asked
    where an edit makes gates ask anew. With `narrow_only` no
    approval counts and nothing is proposed.
    """

    evidence: EvidenceByCell = field(default_factory=dict)
    pending_policies: Mapping[str, Policy] = field(default_factory=dict)
    slot: datetime | None = None
    fresh: FreshByCell = field(default_factory=dict)
    narrow_only: bool = False
    find_answered: FindAnswered = find_none_answered


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorCommand(Command):
    """A command of a user or service account."""

    by: Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyPolicy(ActorCommand):
    """Apply `policy`, or propose it if it is looser than the current one."""

    policy: Policy
    find_answered: FindAnswered = find_none_answered


@dataclass(frozen=True, slots=True, kw_only=True)
class AddVersion(Command):
    """Register a version at its first prediction or question.

    Attributes:
        content: the hash of its weights and pre-processing, or "".
        later_contents: by version of the ledger the content that it declared after its first use.
    """

    version: str
    content: str = ""
    later_contents: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireVersion(ActorCommand):
    """Retire a version that is no longer served."""

    version: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeByHand(ActorCommand):
    """Propose a stage for a version, on evidence of now."""

    cell: Cell
    version: str
    to: str
    evidence: EvidenceByCell


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeTakeover(ProposeByHand):
    """Propose that `version` replaces the acting version at stage `to`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeRenewal(ProposeByHand):
    """Propose to renew the grant of stage `to`, in its last fifth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproveProposal(ActorCommand):
    """Approve the proposal with the evidence hash that the user saw."""

    proposal: str
    evidence_hash: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectProposal(ActorCommand):
    """Reject a proposal."""

    proposal: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowCells(ActorCommand):
    """Remove the grants above stage `to`, of any version."""

    cells: tuple[Cell, ...]
    to: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginNextAttempt(ActorCommand):
    """Begin the next attempt of a version in `cells`, whose evidence had a bad start."""

    cells: tuple[Cell, ...]
    version: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopCells(ActorCommand):
    """Withhold every grant in `cells` until an approved resume; may be a drill."""

    cells: tuple[Cell, ...]
    reason: str = ""
    drill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeResume(ActorCommand):
    """Propose to end a stop."""

    stop: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgeIncident(ActorCommand):
    """Acknowledge an incident; repeating it has no effect."""

    incident: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIncident(Command):
    """Open an incident of a kind that commands open.

    Nothing is opened while an equal incident is open. Equal are incidents of the same kind about
    the same case or account, or with the same reason, cell and version; without any all `clock`
    incidents are equal. All `evidence_changed` ones are. `about` is stored in the ledger for ever.
    """

    kind: str
    reason: str
    cell: Cell | None = None
    version: str = ""
    about: str = ""
    by_later_records: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAfterRollback(Command):
    """Begin an era with every cell stopped: the ledger lacks a head of era `era`.

    Nothing happens if a later era has begun since. `about` names the client that knows the head.
    """

    era: int
    reason: str
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopChangedCells(Command):
    """Stop cells because the evidence of `cell`, which counts in them, was not what was counted."""

    cells: tuple[Cell, ...]
    cell: Cell
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptRestore(ActorCommand):
    """Declare a wanted restore: begin an era with every cell stopped.

    `known_era` is an era that clients may know although this ledger lacks it.
    """

    reason: str
    known_era: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckClock(Command):
    """Check that the clock isn't behind the last entry and `last_slot`, the last tick's.

    If it is, an incident is opened; once that is acknowledged the rollout's time goes back to `at`.
    """

    last_slot: datetime | None = None


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

    >>> from rollout.engine.decide.scope import Scope
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
