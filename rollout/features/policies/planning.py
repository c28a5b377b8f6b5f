"""The figures and text of `rollout plan`, and `rollout.plan`.

Figures are for a version without evidence, and use the engine's own functions. Unknown values, such
as traffic or agreement, are assumed and marked so, or excluded.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from math import inf

from rollout.engine.decide.approvals import GroupMembership
from rollout.engine.decide.guards import is_quality_guard
from rollout.engine.decide.policy_diff import compare_waves
from rollout.engine.words.approver_warnings import (
    NO_SENDERS,
    RecordSenders,
    list_approver_warnings,
    list_source_warnings,
)
from rollout.engine.words.formatting import format_quantity, join_words
from rollout.features.policies.gate_forecast import (
    compute_days,
    format_cells,
    format_condition,
    format_days,
    list_gain_warnings,
)
from rollout.features.policies.gate_plans import (
    AgreementDrop,
    GateConditionPlan,
    GatePlan,
    GuardPlan,
    compute_false_alarms,
    describe_false_alarms,
    describe_gate_gain,
    describe_slices,
    format_expected_value,
    format_floor_plans,
    format_floors,
    format_losses,
    format_releases,
    format_renewal,
    format_risk,
    format_total_risk,
    list_loss_warnings,
    plan_gates,
    plan_guards,
)
from rollout.features.policies.traffic import (
    RolloutTraffic,
    build_expected_traffic,
    compute_recorded_traffic,
    format_familiarity,
)
from rollout.features.policies.traffic_warnings import (
    describe_share_guard,
    describe_silence_guard,
    list_traffic_warnings,
)
from rollout.features.replay.requests import Progress, RecordedHistory
from rollout.kernel.calendar.instants import SHADOW, format_duration
from rollout.kernel.calendar.opening_hours import is_always_open
from rollout.kernel.channels import list_channel_warnings
from rollout.kernel.policy.policy import Guard, Policy
from rollout.kernel.policy.policy_warnings import PolicyWarning, list_policy_warnings
from rollout.kernel.units import FULL_OVERLAP, Lever, describe_objective
from rollout.kernel.words import say_looser


@dataclass(frozen=True, slots=True)
class PlanFigures:
    """Figures of `rollout plan`; `str()` formats them."""

    policy: Policy
    traffic: RolloutTraffic
    gate_plans: tuple[GatePlan, ...]
    guard_plans: tuple[GuardPlan, ...]
    false_alarms_per_day: float | None
    warnings: tuple[PolicyWarning, ...]

    def __str__(self) -> str:
        """Return the text for a terminal."""
        return format_plan(self)


def plan(
    policy: Policy,
    history: RecordedHistory | None = None,
    *,
    channels: Collection[str] | None = None,
) -> PlanFigures:
    """Compute how many decisions and days a policy needs, and what it would miss.

    Args:
        history: gives the traffic; by default the policy's `expect`.
        channels: configured channels; None if unknown.
    """
    traffic = None if history is None else compute_recorded_traffic(history.records, policy)
    return build_policy_plan(policy, traffic, channels=channels)


def build_policy_plan(
    policy: Policy,
    traffic: RolloutTraffic | None = None,
    *,
    channels: Collection[str] | None = None,
    site_approvers: GroupMembership | None = None,
    senders: RecordSenders = NO_SENDERS,
    on_step: Progress | None = None,
) -> PlanFigures:
    """Compute the needs and limits of a policy.

    Args:
        traffic: traffic of the cells; by default the policy's `expect`.
        channels: configured channels; None if unknown.
        site_approvers: group members at the policy's sites; None if users aren't known.
        senders: service accounts that may send decisions, or sent cases.
        on_step: called before each gate, which take the time.
    """
    known_traffic = traffic or build_expected_traffic(policy)
    gate_plan_list = tuple(plan_gates(policy, known_traffic, on_step))
    guard_plan_list = tuple(plan_guards(policy, known_traffic))
    endless = replace(policy, limits=tuple(replace(each, ends=None) for each in policy.limits))
    return PlanFigures(
        policy,
        known_traffic,
        gate_plan_list,
        guard_plan_list,
        compute_false_alarms(guard_plan_list),
        (
            *list_policy_warnings(policy, labels=known_traffic.labels),
            *(PolicyWarning("limits", say_looser(end)) for end in compare_waves(endless, policy)),
            *list_gain_warnings(policy),
            *list_approver_warnings(policy, site_approvers),
            *list_source_warnings(policy, senders),
            *list_traffic_warnings(policy, known_traffic, gate_plan_list, guard_plan_list),
            *list_loss_warnings(policy, known_traffic, gate_plan_list),
            *list_channel_warnings(policy, channels),
        ),
    )


def format_plan(policy_plan: PlanFigures) -> str:
    """Format a plan for a terminal, without a newline at the end."""
    return "\n".join(
        [
            *_format_head(policy_plan),
            "",
            *_format_gates(policy_plan),
            "",
            *_format_guards(policy_plan),
            "",
            *format_familiarity(policy_plan.policy, policy_plan.traffic.familiarity),
            *_format_warnings(policy_plan),
        ]
    )


def _format_head(policy_plan: PlanFigures) -> Iterator[str]:
    policy = policy_plan.policy
    gated = {gate.to for gate in policy.gates}
    closed = [stage_id for stage_id in policy.stage_ids[1:] if stage_id not in gated]
    end = f" (no gate to {join_words(closed)})" if closed else ""
    stages_text = f"{' → '.join(policy.stage_ids)}{end}"
    yield f"Plan of {policy.rollout}: {format_quantity(len(policy.cells), 'cell')}, {stages_text}"
    if policy.outcomes and policy.charter.objective:
        yield f"Objective: {describe_objective(policy.charter.objective, policy.outcomes)}."
    yield from (_describe_set(lever) for lever in policy.levers if lever.many)
    flows, unit_text = policy_plan.traffic.cells.values(), _describe_unit(policy)
    rates = [
        cell_traffic.units_per_day
        for cell_traffic in flows
        if cell_traffic.units_per_day is not None
    ]
    if rates:
        lowest, highest = f"{min(rates):,.3g}", f"{max(rates):,.3g}"
        pace_text = lowest if lowest == highest else f"{lowest} to {highest}"
        yield (
            f"Traffic, from {policy_plan.traffic.source}: {pace_text} units a day in a cell."
            f" {unit_text}"
        )
        if policy_plan.traffic.is_expected and not all(
            is_always_open(window.hours) for window in policy.windows
        ):
            yield "Days and weeks: only those days on which the cell's window is open count."
        if not any(cell_traffic.rates for cell_traffic in flows):
            yield (
                "No decision in them counts as evidence, so there are no dates; `rollout replay`"
                " prints the reasons."
            )
    elif not policy_plan.traffic.is_expected:
        yield (
            f"Traffic: unknown, so no dates: in {policy_plan.traffic.source}, no cell has a unit."
            f" `rollout replay` prints the reasons. {unit_text}"
        )
    else:
        yield (
            "Traffic: unknown, so no dates. Add `expect` to the policy, or pass --predictions and"
            f" --decisions. {unit_text}"
        )


def _describe_unit(policy: Policy) -> str:
    """Describe what is counted once, and what records need for it."""
    if policy.evidence.unit == "episode" and policy.evidence.episode_span is None:
        return (
            "A unit is one episode: cases have to name theirs in a column `episode`, or write"
            " `evidence.episode_span`."
        )
    return f"A unit is one {policy.evidence.unit}."


def _describe_set(lever: Lever) -> str:
    """Describe what a set of labels is, and when two agree."""
    rule = f"with at least {lever.overlap * 100:g} % of their labels in common"
    agreement = rule if lever.overlap < FULL_OVERLAP else "if they are equal"
    return f"Answers: {lever.id} is a set of {len(lever.labels)} labels; sets agree {agreement}."


def _format_gates(policy_plan: PlanFigures) -> Iterator[str]:
    yield "GATES: evidence that each needs, and time from the day a cell enters the stage below"
    for gate_plan in policy_plan.gate_plans:
        yield (
            f"  {gate_plan.from_stage} → {gate_plan.gate.to},"
            f" {_format_cells(gate_plan, policy_plan)}: {_format_days(gate_plan)}"
            + " at the lowest confidence floor, on the average of the cells"
            * bool(policy_plan.traffic.floor_cells)
        )
        yield from (
            f"    {_format_condition(condition_plan, gate_plan, policy_plan.policy)}"
            for condition_plan in gate_plan.condition_plans
        )
        for text in format_floor_plans(gate_plan, policy_plan.policy, policy_plan.traffic):
            yield f"    {text}"
        yield f"    {_format_minimum(gate_plan, policy_plan.policy)}"
        yield from (
            f"    {text}"
            for describe in (format_losses, format_renewal)
            for text in describe(gate_plan, policy_plan.policy, policy_plan.traffic)
        )
        yield f"    {format_risk(gate_plan)}"
        for text in format_releases(gate_plan, policy_plan.policy, policy_plan.traffic):
            yield f"      {text}"
        groups = gate_plan.gate.approvals
        yield f"    approvals: {len(groups)} ({', '.join(groups)})"
    yield from (f"  {text}" for text in format_total_risk(policy_plan.gate_plans))
    yield from (f"  {text}" for text in format_floors(policy_plan.policy))
    shadow_cells = [
        cell
        for cell in policy_plan.policy.cells
        if not any(cell in gate_plan.cells for gate_plan in policy_plan.gate_plans)
    ]
    if shadow_cells:
        yield f"  always shadow: {format_cells(tuple(shadow_cells))}"


def _format_cells(gate_plan: GatePlan, policy_plan: PlanFigures) -> str:
    is_every_cell = len(gate_plan.cells) == len(policy_plan.policy.cells)
    location = (
        (
            "in its only cell"
            if len(gate_plan.cells) == 1
            else f"in all {len(gate_plan.cells)} cells"
        )
        if is_every_cell
        else f"in {format_cells(gate_plan.cells)}"
    )
    daily_rates = {
        policy_plan.traffic.get_cell_traffic(cell).units_per_day for cell in gate_plan.cells
    }
    return (
        location
        if len(daily_rates) == 1
        else f"{location} (figures of {gate_plan.busiest_cell}, the busiest; other cells differ)"
    )


def _format_days(gate_plan: GatePlan) -> str:
    if gate_plan.days is None:
        return f"no date, because {_name_unknown_figure(gate_plan)} is unknown"
    if gate_plan.days == inf:
        return "not expected to open"
    addition = (
        ""
        if gate_plan.from_stage == SHADOW
        else " more, counting the evidence of lower stages; the times below are without it"
    )
    return f"about {format_days(gate_plan.days)}{addition}"


def _name_unknown_figure(gate_plan: GatePlan) -> str:
    """Name the figure without which a gate has no date."""
    plans = gate_plan.condition_plans
    conditions = [plan.condition for plan in plans]
    if any(condition.population.has_gain for condition in conditions):
        return "what the model brings"
    undated = [
        plan.condition
        for plan in plans
        if plan.per_day is None and not plan.condition.population.is_planted
    ]
    names = [f"each {item.population.attribute}" for item in undated if item.population.attribute]
    names += [item.label for item in undated if item.label]
    if names and len(names) == len(undated) < len(plans):
        return f"the share of {join_words(list(dict.fromkeys(names)))}"
    return "traffic or agreement"


def _format_condition(
    condition_plan: GateConditionPlan, gate_plan: GatePlan, policy: Policy
) -> str:
    if condition_plan.condition.population.has_gain:
        need = describe_gate_gain(gate_plan, condition_plan.condition, policy)
        return f"{condition_plan.condition}: {need}"
    minimum_text = f"{condition_plan.evidence_need.min_records:,}"
    if condition_plan.condition.population.is_planted:
        label = condition_plan.condition.label
        subject = f" that reviewers call {label}" if label else ""
        return (
            f"{condition_plan.condition}: {minimum_text} planted cases{subject} with a blind"
            " decision, if all agree; users declare them, and the date above does not wait for them"
        )
    if condition_plan.rate.value is None:
        need_text = f"{minimum_text} decisions{_format_units(condition_plan)} if all agree"
    elif (
        condition_plan.evidence_need.is_unreachable
        or condition_plan.evidence_need.expected_records is None
    ):
        need_text = f"not reachable at the expected {format_expected_value(condition_plan)}"
    else:
        days = compute_days(condition_plan.evidence_need.expected_records, condition_plan.per_day)
        pace_text = "" if days is None else f", {format_days(days)}"
        need_text = (
            f"about {condition_plan.evidence_need.expected_records:,}"
            f" decisions{_format_units(condition_plan)}{pace_text}, at"
            f" {format_expected_value(condition_plan)} ({minimum_text} decisions if all agree)"
        )
    assumption_text = (
        f"\n      assumed: {condition_plan.rate.assumption}"
        if condition_plan.rate.assumption
        else ""
    )
    origin = "" if condition_plan.condition in gate_plan.gate.require else " (of a gate below)"
    return f"{format_condition(condition_plan.condition)}{origin}: {need_text}{assumption_text}"


def _format_units(condition_plan: GateConditionPlan) -> str:
    """Describe which units a decision covers, and how many units contain one."""
    if condition_plan.condition.population.attribute:
        return f" of each {condition_plan.condition.population.attribute}"
    if condition_plan.condition.label is None:
        return ""
    unit_text = (
        f" ({condition_plan.expected_records / condition_plan.rate.share:,.0f} units)"
        if condition_plan.rate.share
        else ""
    )
    return f" on {condition_plan.condition.label}{unit_text}"


def _format_minimum(gate_plan: GatePlan, policy: Policy) -> str:
    minimum = gate_plan.gate.minimum
    grace_text = format_duration(policy.evidence.grace)
    return (
        f"at least {minimum.units:,} decided units, {minimum.days} days, {minimum.reviewers}"
        f" reviewer{'s' if minimum.reviewers != 1 else ''}; a unit counts when its grace"
        f" ends, {grace_text} after the case"
    )


def _format_guards(policy_plan: PlanFigures) -> Iterator[str]:
    yield "GUARDS: effect, and expected errors before each one trips"
    for guard in policy_plan.policy.guards:
        guard_plans_of_guard = [
            guard_plan for guard_plan in policy_plan.guard_plans if guard_plan.guard is guard
        ]
        added_text = _describe_addition(guard, policy_plan.policy)
        period_text = f" over {format_duration(guard.over)}" if guard.over else ""
        guarded_text = f"{_format_guarded(guard, policy_plan.policy)}{period_text}"
        effect_text = _describe_effect(guard, policy_plan.policy)
        yield f"  {guarded_text}{_describe_location(guard)}: {effect_text}{added_text}"
        texts = (
            describe_slices(guard, policy_plan.traffic),
            describe_false_alarms(guard),
            describe_share_guard(guard, policy_plan.policy, policy_plan.traffic),
            describe_silence_guard(guard, policy_plan.policy, policy_plan.traffic),
        )
        yield from (f"    {text}" for text in texts if text)
        yield from (
            f"    {_format_drops(guard_plan, policy_plan)}"
            for guard_plan in guard_plans_of_guard
            if guard_plan.drops
        )
    if policy_plan.false_alarms_per_day:
        interval_text = format_days(1 / policy_plan.false_alarms_per_day)
        yield f"  false alarms: at most about one in {interval_text}, over all cells and guards"


def _describe_addition(guard: Guard, policy: Policy) -> str:
    """Describe why the policy has a guard that it does not list; "" for the others."""
    if not guard.added:
        return ""
    if not guard.condition.measure.reads_audits:
        return " (added automatically for a gate)"
    stages = [stage.id for stage in policy.stages if stage.audit]
    has_gate = any(gate.to in stages for gate in policy.gates)
    idle = "" if has_gate else "; idle: no gate leads there"
    return f" (added automatically for {join_words(stages)}{idle})"


def _format_guarded(guard: Guard, policy: Policy) -> str:
    """Format a guard's condition; the share of overdue audits needs its name explained."""
    text = format_condition(guard.condition)
    if not guard.condition.measure.reads_audits:
        return text
    stages = join_words([stage.id for stage in policy.stages if stage.model_decides])
    return f"{text} (audits of {stages} without a decision in time)"


def _describe_effect(guard: Guard, policy: Policy) -> str:
    effect_text = {"one-stage": "narrows by one stage", "shadow": "narrows to shadow"}.get(
        guard.then, guard.then
    )
    if policy.evidence.higher_floors and guard.then == "one-stage" and is_quality_guard(guard):
        effect_text = f"raises the confidence floor; if no stricter one is calm, {effect_text}"
    return effect_text if guard.reach == "cell" else f"{effect_text}, the whole {guard.reach}"


def _describe_location(guard: Guard) -> str:
    names = (*guard.where.sites, *guard.where.windows)
    return f" at {', '.join(names)}" if names else ""


def _format_drops(guard_plan: GuardPlan, policy_plan: PlanFigures) -> str:
    drop_texts = "; ".join(_format_drop(drop, guard_plan) for drop in guard_plan.drops)
    daily_rates = {
        cell_traffic.units_per_day for cell_traffic in policy_plan.traffic.cells.values()
    }
    location = f" in {guard_plan.quietest_cell}, the quietest," if len(daily_rates) > 1 else ""
    return f"{guard_plan.stage.id}:{location} {drop_texts}"


def _format_drop(drop: AgreementDrop, guard_plan: GuardPlan) -> str:
    error_name = "wrong actions" if guard_plan.stage.model_decides else "wrong suggestions"
    delay_text = "" if drop.days is None else f"{format_days(drop.days)} and "
    agreement_text = f"at {drop.agreement * 100:.0f} % agreement"
    return f"{agreement_text}: {delay_text}about {drop.wrong_actions:,.0f} {error_name}"


def _format_warnings(policy_plan: PlanFigures) -> Iterator[str]:
    yield f"WARNINGS: {len(policy_plan.warnings) or 'none'}"
    yield from (f"  {warning}" for warning in policy_plan.warnings)
