"""What newer counting rules would change in a rollout, and the proposal to apply them.

Whatever a rollout's rules are, the plan is computed from what was counted; it writes nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from rollout.core.calendar.sites import Cell
from rollout.core.policy.counting_rules import CURRENT_RULES, has_guard_tests
from rollout.core.policy.evidence_sources import NOT_NAMED
from rollout.core.policy.measures import TESTED_MEASURES
from rollout.core.scope.commands import Command, ProposeRules
from rollout.core.scope.event_base import ENGINE, LedgerEvent
from rollout.core.scope.events import ProposalVoided
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.core.scope.policy_changes import RULES_PROPOSAL
from rollout.core.scope.projection import apply_events
from rollout.core.scope.proposals import compute_evidence_hash
from rollout.reports.text.source_text import KINDS
from rollout.services.access.users import find_broad_accounts
from rollout.services.engine.command_handler import run_command
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.services.policies.source_warnings import list_sending_accounts
from rollout.services.proposals.proposals import ProposalResult, find_raised_proposal
from rollout.services.proposals.rule_losses import (
    LostSource,
    RulesLoss,
    build_void_reasons,
    list_unnamed_kinds,
    load_rules_losses,
)
from rollout.store.tables.counting_tables import GATE

if TYPE_CHECKING:
    from rollout.services.engine.evidence_reader import EvidenceKey
    from rollout.tally.evidence_view import EvidenceView


BROAD = "it may send predictions too: its decisions don't count for cases that it also predicted"
WAY_BACK = (
    "What was counted stays counted, grants stay, and running attempts go on with the risk that"
    " they have; later ones are numbered from then on, each with a smaller share. There is no way"
    " back to rules 1; a policy that names more sources makes more of what is received later count."
)


@dataclass(frozen=True, slots=True)
class UncountedSender:
    """A source whose decisions stop counting, and why; `units` of the running attempts."""

    source: str
    reason: str
    units: int


@dataclass(frozen=True, slots=True)
class RulesEffect:
    """What newer rules change for a version in cells that are equal.

    Attributes:
        counted_units: units that count in each cell.
        sources: of these, the ones that newer rules would not have counted.
        proposals: open proposals that become void.
        next_step: what decides the next step now.
        next_step_without: what would decide it without these units.
    """

    cells: tuple[str, ...]
    version: str
    counted_units: int
    sources: tuple[LostSource, ...]
    proposals: tuple[str, ...]
    next_step: str
    next_step_without: str


@dataclass(frozen=True, slots=True)
class RulesPlan:
    """What the newest counting rules would change now.

    Attributes:
        rules, newest_rules: numbers of the rules in force and of the newest ones.
        senders: sources whose decisions stop counting.
        effects: changed cells, equal ones together.
        unchanged_cells: number of the policy's other cells.
        unknown_units: counted units whose sender is not known, because the decision was deleted or
            came before senders were stored; they stay counted.
        proposal: id of the open proposal to apply them, "" without one.
        evidence_hash: what a proposal cites; "" if there is nothing to apply.
        text: the same for a terminal.
        guards: guards whose alarms newer rules decide by a test.
        silence_guards: guards whose time newer rules count while the cell is open.
    """

    rollout: str
    rules: int
    newest_rules: int
    senders: tuple[UncountedSender, ...]
    effects: tuple[RulesEffect, ...]
    unchanged_cells: int
    unknown_units: int
    proposal: str
    evidence_hash: str
    text: str
    guards: tuple[str, ...] = ()
    silence_guards: tuple[str, ...] = ()


def load_rules_plan(
    service: Service, caller: Caller, rollout_name: str, *, at: datetime
) -> RulesPlan:
    """Return what the newest counting rules would change in a rollout.

    Raises:
        NotAllowedError: the caller may not read every site.
        UnknownRolloutError: the caller may not see such a rollout.
    """
    require_permission(caller, Permission.READ, rollout_name)
    state = service.state_cache.reload_rollout(rollout_name).state
    require_permission(caller, Permission.READ, rollout_name, tuple(state.policy.sites_by_id))
    return _build_plan(service, state, at)


def propose_rules(
    service: Service, caller: Caller, rollout_name: str, evidence_hash: str, *, at: datetime
) -> ProposalResult:
    """Propose the newest counting rules on the plan that the caller read.

    Raises:
        NotAllowedError: the caller is not an admin of the rollout.
        EvidenceChangedError: the plan is another one by now.
        RefusalError: the rollout is on the newest rules.
    """
    require_permission(caller, Permission.ADMINISTER, rollout_name)

    def build_command(state: RolloutState) -> Command:
        with service.database.begin_read() as transaction:
            losses = load_rules_losses(transaction, state)
        return ProposeRules(
            at=at,
            by=caller.as_actor(rollout_name),
            effects=_list_effects(state, losses),
            evidence_hash=evidence_hash,
        )

    result = run_command(service.database, caller, rollout_name, build_command)
    return find_raised_proposal(
        service.database, rollout_name, result, lambda p: p.kind == RULES_PROPOSAL
    )


def _build_plan(service: Service, state: RolloutState, at: datetime) -> RulesPlan:
    name, proposals = state.rollout.name, state.scope.proposals.values()
    plan = RulesPlan(name, state.scope.rules, CURRENT_RULES, (), (), 0, 0, "", "", "")
    if state.scope.rules >= CURRENT_RULES:
        text = f"{name} is on counting rules {state.scope.rules}, the newest: nothing to apply"
        return replace(plan, unchanged_cells=len(state.policy.cells), text=text)
    with service.database.begin_read() as transaction:
        losses = load_rules_losses(transaction, state)
        accounts = list_sending_accounts(transaction, name)
    lost = [loss for loss in losses if loss.sources]
    plan = replace(
        plan,
        senders=_list_senders(state, losses, accounts, find_broad_accounts(service.database)),
        effects=_group_effects(state, lost, _load_next_steps(service, state, lost, at)),
        unchanged_cells=len(state.policy.cells) - len({loss.cell for loss in lost}),
        unknown_units=sum(loss.unknown_units for loss in losses),
        proposal=next((p.id for p in proposals if p.kind == RULES_PROPOSAL), ""),
        evidence_hash=compute_evidence_hash(_list_effects(state, losses)),
        guards=_list_tested_guards(state),
        silence_guards=_list_silence_guards(state),
    )
    return replace(plan, text="\n".join(_format_plan(plan)))


def _list_effects(state: RolloutState, losses: Iterable[RulesLoss]) -> tuple[str, ...]:
    """Return the frozen lines of a proposal, with ids of accounts instead of names."""
    lost = [loss for loss in losses if loss.sources]
    lines = [
        f"{loss.cell} {loss.version}: of {loss.counted_units} counted units {source.units} from"
        f" {source.account}: {source.reason}"
        for loss in lost
        for source in loss.sources
    ]
    voided = ", ".join(build_void_reasons(state, lost)) or "none"
    return (
        f"counting rules {CURRENT_RULES} in place of {state.scope.rules}",
        f"policy {state.policy.hash}",
        *(lines or ["every counted decision is of a source of evidence"]),
        *(f"tested instead of compared: {guard}" for guard in _list_tested_guards(state)),
        *(f"counted in open time: {guard}" for guard in _list_silence_guards(state)),
        f"proposals that become void: {voided}",
    )


def _list_tested_guards(state: RolloutState) -> tuple[str, ...]:
    """Return the guards that the newest rules test and the rules in force compare."""
    if has_guard_tests(state.scope.rules):
        return ()
    tested = (g for g in state.policy.guards if g.condition.measure in TESTED_MEASURES)
    return tuple(dict.fromkeys(guard.threshold_text for guard in tested))


def _list_silence_guards(state: RolloutState) -> tuple[str, ...]:
    """Return the guards on silence whose time the newest rules count in another way."""
    if has_guard_tests(state.scope.rules):
        return ()
    silence = (g for g in state.policy.guards if g.condition.measure == "heartbeat")
    return tuple(dict.fromkeys(guard.threshold_text for guard in silence))


def _list_senders(
    state: RolloutState, losses: Iterable[RulesLoss], accounts: Sequence[str], broad: Sequence[str]
) -> tuple[UncountedSender, ...]:
    units: dict[tuple[str, str], int] = {}
    for kind in list_unnamed_kinds(state.policy):
        units[kind, NOT_NAMED] = 0
    for account in accounts:
        if not state.policy.evidence.sources.list_patterns(account):
            units[account, NOT_NAMED] = 0
        elif account in broad:
            units[account, BROAD] = 0
    for loss in losses:
        for source in loss.sources:
            key = (source.source, source.reason)
            units[key] = units.get(key, 0) + source.units
    return tuple(UncountedSender(*key, number) for key, number in units.items())


def _load_next_steps(
    service: Service, state: RolloutState, lost: Sequence[RulesLoss], at: datetime
) -> Mapping[tuple[Cell, str], tuple[str, str]]:
    """Return the next step of each cell and version now, and without the lost units."""
    from rollout.services.engine.evidence_reader import (
        EvidenceReader,
        load_events,
        load_evidence_views,
    )

    cells = tuple(dict.fromkeys(loss.cell for loss in lost))
    if not cells:
        return {}
    lost_units = {(unit, loss.version, GATE) for loss in lost for unit in loss.units}
    reader = EvidenceReader(
        lambda units: units.select(
            lambda series, unit, _: (unit, series.version, series.track) not in lost_units
        )
    )
    events = load_events(service.database, state)
    voided = tuple(
        ProposalVoided(at=events[-1].at, by=ENGINE, proposal=proposal, reason=reason)
        for proposal, reason in build_void_reasons(state, lost).items()
    )
    later_state = replace(state, scope=apply_events(voided, state.scope))
    now = _describe_steps(
        state, events, load_evidence_views(service.database, state, cells), cells, at
    )
    later = _describe_steps(
        later_state,
        (*events, *voided),
        reader.load_views(service.database, state, cells),
        cells,
        at,
    )
    return {key: (now[key], later[key]) for key in now}


def _describe_steps(
    state: RolloutState,
    events: tuple[LedgerEvent, ...],
    views: "Mapping[EvidenceKey, EvidenceView]",
    cells: Sequence[Cell],
    at: datetime,
) -> "Mapping[EvidenceKey, str]":
    from rollout.services.cells.cells import build_cell_evidence

    evidence = build_cell_evidence(state, events, views, cells, at)
    return {
        (cell, facts.version): facts.next_step
        for cell, all_facts in evidence.items()
        for facts in all_facts
    }


def _group_effects(
    state: RolloutState,
    lost: Iterable[RulesLoss],
    next_steps: Mapping[tuple[Cell, str], tuple[str, str]],
) -> tuple[RulesEffect, ...]:
    proposals = state.scope.proposals.values()
    groups: dict[tuple[object, ...], RulesEffect] = {}
    for loss in lost:
        steps = next_steps[loss.cell, loss.version]
        key = (loss.version, loss.counted_units, loss.sources, steps)
        group = groups.get(key) or RulesEffect(
            (), loss.version, loss.counted_units, loss.sources, (), *steps
        )
        voided = [p.id for p in proposals if (p.cell, p.version) == (loss.cell, loss.version)]
        groups[key] = replace(
            group, cells=(*group.cells, str(loss.cell)), proposals=(*group.proposals, *voided)
        )
    return tuple(groups.values())


def _format_plan(plan: RulesPlan) -> Iterator[str]:
    yield (
        f"{plan.rollout} is on counting rules {plan.rules}. Under rules {plan.newest_rules} a"
        " decision or outcome is evidence only from a source that the policy names"
        " (`evidence.sources`), no outcome widens for the sender of the case's prediction,"
        " and a gate's risk holds per cell and year: all versions' attempts share it."
    )
    yield f"They hold for records that are received after they are applied. {WAY_BACK}"
    yield from _format_guards(plan)
    yield f"SOURCES that stop counting: {len(plan.senders) or 'none'}"
    for sender in plan.senders:
        source = KINDS.get(sender.source, sender.source)
        yield f"  {source}: {sender.reason}; {sender.units:,} counted units of running attempts"
    yield f"CELLS with units from them: {sum(len(e.cells) for e in plan.effects) or 'none'}"
    for effect in plan.effects:
        yield from _format_effect(effect)
    if plan.unknown_units:
        yield f"  the sender of {plan.unknown_units:,} counted units is not known: not judged here"
    if plan.unchanged_cells:
        yield f"  in {plan.unchanged_cells:,} of the policy's cells nothing changes"
    if plan.proposal:
        yield f"{plan.proposal} proposes these rules: an operator has to approve it."
        return
    yield "An admin proposes the rules with the hash of this plan, and an operator approves them:"
    yield f"  rollout rules propose {plan.rollout} --evidence-hash {plan.evidence_hash}"


def _format_guards(plan: RulesPlan) -> Iterator[str]:
    """Yield the guards that newer rules judge in another way."""
    if plan.guards:
        yield (
            f"GUARDS that test shares: {'; '.join(plan.guards)}. They alarm and clear by a test of"
            " all records instead of the share over their span, latency and failures for a whole"
            " site."
        )
    if plan.silence_guards:
        yield (
            f"GUARDS on silence: {'; '.join(plan.silence_guards)}. They count the time in which a"
            " cell is open, and alarm when signs of life, or more than chance explains of the usual"
            " traffic, are missing."
        )


def _format_effect(effect: RulesEffect) -> Iterator[str]:
    sources = "; ".join(f"{source.text} ({source.reason})" for source in effect.sources)
    cells = ", ".join(effect.cells[:3])
    more = f" and {len(effect.cells) - 3} more" if len(effect.cells) > 3 else ""
    yield f"  {cells}{more}, {effect.version}: of {effect.counted_units:,} counted units {sources}"
    yield f"    now: {effect.next_step}"
    yield f"    without them: {effect.next_step_without}"
    if effect.proposals:
        yield f"    void: {', '.join(effect.proposals)}"
