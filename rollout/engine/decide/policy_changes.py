"""Policy edits, and renames of versions and cells.

Stricter edits apply at once; looser ones need approvals.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import takewhile
from typing import Final, NamedTuple, TypeVar

from rollout.engine.decide.commands import (
    AddVersion,
    ApplyPolicy,
    Command,
    OpenIncident,
    ProposeRenewal,
    ProposeTakeover,
    RetireVersion,
    Tick,
)
from rollout.engine.decide.guards import begin_answered_attempts, foresee_year
from rollout.engine.decide.policy_diff import list_looser_rules
from rollout.engine.decide.projection import PendingEvents
from rollout.engine.decide.proposals import build_proposal, compute_gate_hash
from rollout.engine.decide.scope import AttemptYear, ProposalState, Scope
from rollout.engine.decide.stops import find_highest_approvals, find_resume_needs
from rollout.engine.events import ENGINE, Narrowed, PolicyApplied
from rollout.kernel.calendar.instants import SHADOW, Cell, format_duration
from rollout.kernel.errors import PolicyRefusedError
from rollout.kernel.facts import (
    EDITED_LADDER,
    EDITED_POLICY,
    OTHER_TICK,
    LooserRule,
    format_facts,
)
from rollout.kernel.measures import Condition
from rollout.kernel.policy.cell_evidence import list_floor_texts
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy.record_definition import describe_cell, is_redefined
from rollout.kernel.units import group_pairs
from rollout.kernel.words import say_void

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
    removed_by_place = group_pairs((_identify_place(old, cell), cell) for cell in removed_cells)
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


def apply_policy(command: ApplyPolicy, pending: PendingEvents) -> None:
    """Apply a policy, or propose it if it is looser."""
    old, new = pending.policy, command.policy
    is_first = pending.scope.policy_number == 0
    if not is_first and new.hash == pending.scope.policy_hash:
        return  # it is in force
    if not is_first:
        if tick_kept := _find_kept_tick(old, new):
            raise PolicyRefusedError(say_void(OTHER_TICK, tick_kept))
        check_renames(old, new)
    looser_rules = () if is_first else list_looser_rules(old, new)
    if looser_rules and any(
        proposal.about == new.hash for proposal in pending.scope.proposals.values()
    ):
        return  # proposed already
    if looser_rules:
        _propose_policy(command, pending, looser_rules)
    else:
        _emit_policy_applied(
            pending, command, new, by=command.by.name, looser_rules=(), proposal_id=""
        )


def _find_kept_tick(old: Policy, new: Policy) -> str:
    """Return the tick that an edit must keep, "" if it does: evidence has numbers of its slots.

    With a longer one no slot would come after those that are done, so no guard would narrow.
    """
    return "" if new.tick == old.tick else format_duration(old.tick)


def _propose_policy(
    command: ApplyPolicy, pending: PendingEvents, looser_rules: tuple[LooserRule, ...]
) -> None:
    lines = (f"policy {command.policy.hash}", *map(format_facts, looser_rules))
    raised = build_proposal(
        pending,
        "policy",
        command.by.name,
        find_highest_approvals(pending.policy),
        lines,
        about=command.policy.hash,
    )
    pending.emit(replace(raised, loosens=looser_rules))


def apply_approved_policies(pending: PendingEvents, tick: Tick) -> bool:
    """Apply the approved policy proposal that was raised last.

    Observing policies can be edited too, or they could never be left.

    Returns:
        Whether a policy was applied.
    """
    approved_proposals = [
        candidate
        for candidate in pending.scope.proposals.values()
        if candidate.rules.changes_policy
        and candidate.is_approved
        and candidate.about in tick.pending_policies
    ]
    if not approved_proposals:
        return False
    proposal = approved_proposals[-1]  # in the order in which they were raised
    new = tick.pending_policies[proposal.about]
    if tick_kept := _find_kept_tick(pending.policy, new):
        pending.void_proposal(proposal.id, OTHER_TICK, tick_kept)
        return False
    looser_rules = list_looser_rules(pending.policy, new)
    _emit_policy_applied(
        pending, tick, new, by=ENGINE, looser_rules=looser_rules, proposal_id=proposal.id
    )
    return True


def _emit_policy_applied(
    pending: PendingEvents,
    command: ApplyPolicy | Tick,
    new: Policy,
    *,
    by: str,
    looser_rules: tuple[LooserRule, ...],
    proposal_id: str,
) -> None:
    """Emit PolicyApplied, after voiding and narrowing what the edit invalidates.

    An attempt of which answers can be looked at has begun before, so that the look has its price.
    """
    if pending.scope.policy_number:
        cells = find_restarting_cells(pending.policy, new)
        begin_answered_attempts(pending, command.find_answered(cells) if cells else {})
    effects = _find_effects(pending, new)
    for proposal in list(pending.scope.proposals.values()):
        if proposal.id != proposal_id and _is_voided_by_edit(
            pending, proposal, new, looser_rules, effects.cleared
        ):
            pending.void_proposal(proposal.id, EDITED_POLICY)
    _narrow_to_ladder(pending, new, by, effects.cleared)
    pending.emit(
        PolicyApplied(
            at=pending.at,
            by=by,
            number=pending.scope.policy_number + 1,
            policy_hash=new.hash,
            loosens=looser_rules,
            restarted=effects.restarted,
            cleared=effects.cleared,
            proposal=proposal_id,
            renamed=tuple(effects.renamed),
            former=tuple(effects.renamed.values()),
            confidence_floors=list_floor_texts(new.evidence),
        )
    )
    pending.policy = new


class _EditEffects(NamedTuple):
    cleared: tuple[Cell, ...]
    restarted: tuple[Cell, ...]
    renamed: Mapping[Cell, Cell]


def _find_effects(pending: PendingEvents, new: Policy) -> _EditEffects:
    """Return what an edit does to cells; nothing for the first policy."""
    old, scope = pending.policy, pending.scope
    if scope.policy_number == 0:
        return _EditEffects((), (), {})
    return _EditEffects(
        tuple(
            cell for cell in old.cells if cell not in new.cell_set or is_redefined(old, new, cell)
        ),
        tuple(cell for cell in find_restarting_cells(old, new) if scope.list_begun(cell)),
        find_renamed_cells(old, new),
    )


def _narrow_to_ladder(
    pending: PendingEvents, new: Policy, by: str, cleared_cells: tuple[Cell, ...]
) -> None:
    """Remove the grants that don't match the new stages level by level.

    Left in place they would restore a stage, unapproved, once the missing ones below are granted.
    """
    for (cell, version), state in list(pending.scope.cells.items()):
        stages = tuple(grant.stage for grant in state.grants)
        matches = (a == b for a, b in zip(stages, new.stage_ids[1:], strict=False))
        common_count = sum(takewhile(bool, matches))
        if common_count == len(stages) or cell in cleared_cells:
            continue
        pending.void_proposal(state.proposal, EDITED_LADDER)
        pending.emit(
            Narrowed(
                at=pending.at,
                by=by,
                cell=cell,
                version=version,
                from_stage=stages[-1],
                to_stage=(SHADOW, *stages)[common_count],
                cause=EDITED_LADDER,
            )
        )


def _is_voided_by_edit(
    pending: PendingEvents,
    proposal: ProposalState,
    new: Policy,
    looser_rules: tuple[LooserRule, ...],
    cleared_cells: tuple[Cell, ...],
) -> bool:
    """Return whether an edit voids a proposal.

    Any edit voids proposals of policies, looser ones all others. A resume stays
    open only if the new policy needs the same approvals.
    """
    cell = proposal.cell
    if proposal.rules.changes_policy or looser_rules:
        return True
    if cell is None:
        stop = pending.scope.stops[proposal.about]
        return find_resume_needs(pending.scope, new, stop, pending.at) != proposal.needs
    if cell in cleared_cells or proposal.to not in new.stage_ids:
        return True
    return compute_gate_hash(new, new.stage_ids.index(proposal.to), cell) != proposal.gate


class Restart(NamedTuple):
    """A cell whose evidence an edit makes start anew, what is asked, and its next attempt."""

    cell: Cell
    questions: tuple[Condition, ...]
    following: AttemptYear


def foresee_restarts(command: ApplyPolicy, scope: Scope, policy: Policy) -> tuple[Restart, ...]:
    """Return what an edit of a policy in force would cost, whether it needs approvals or not."""
    new, pending = command.policy, PendingEvents(scope, policy, command.at, None)
    cells = find_restarting_cells(policy, new)
    begin_answered_attempts(pending, command.find_answered(cells) if cells else {})
    return tuple(
        Restart(
            cell,
            _list_new_questions(policy, new, cell),
            foresee_year(pending.scope, new, cell, command.at),
        )
        for cell in cells
        if pending.scope.list_begun(cell)
    )


def find_restarting_cells(old: Policy, new: Policy) -> tuple[Cell, ...]:
    """Return the cells in which a gate's risk has risen, or asks another question.

    Threshold and minimums are none: a confidence sequence holds for every threshold at once. A gate
    that is put back is as new as any other, so nobody gains by taking it away first.
    """
    return tuple(
        cell
        for cell in old.cells
        if cell in new.cell_set
        and (_has_higher_risk(old, new, cell) or _list_new_questions(old, new, cell))
    )


def _has_higher_risk(old: Policy, new: Policy, cell: Cell) -> bool:
    for stage in new.stage_ids[1:]:
        old_gate, new_gate = old.find_gate_to(stage, cell), new.find_gate_to(stage, cell)
        if old_gate is not None and new_gate is not None and new_gate.risk > old_gate.risk:
            return True
    return False


def _list_new_questions(old: Policy, new: Policy, cell: Cell) -> tuple[Condition, ...]:
    """Return the conditions of a cell that start anew by an edit; both policies have the cell.

    These are all of a gate that asks something new, or no longer asks something: whoever has seen
    the answers could drop the question that they speak against, or choose the one that they favour.
    """
    return tuple(dict.fromkeys(_find_new_questions(old, new, cell)))


def _find_new_questions(old: Policy, new: Policy, cell: Cell) -> Iterator[Condition]:
    for level, stage in enumerate(new.stage_ids[1:], start=1):
        if new.find_gate(level, cell) is None:
            continue
        conditions, before = new.list_conditions(level, cell), set[tuple[object, ...]]()
        if old.find_gate_to(stage, cell) is not None:
            before = {c.question for c in old.list_conditions(old.stage_ids.index(stage), cell)}
        if {condition.question for condition in conditions} != before:
            yield from conditions
