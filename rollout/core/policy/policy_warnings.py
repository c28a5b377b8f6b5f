"""What a policy may say and its author should know: sentences that refuse nothing.

Those that follow from traffic are in `traffic_warnings`, those from who is here in
`people_warnings`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from rollout.core.calendar.sites import Cell, Site
from rollout.core.calendar.windows import hours_warnings
from rollout.core.policy.measures import DETECTED, Condition
from rollout.core.policy.policy import Gate, Guard, Policy, duration_text

LEAST_RETENTION = timedelta(days=183)  # laws on high-risk systems ask for half a year of logs
_EVERY = 10_000.0


@dataclass(frozen=True, slots=True)
class PolicyWarning:
    """One warning: which part of the policy it is about, and a sentence."""

    about: str
    says: str

    def __str__(self) -> str:
        return f"{self.about}: {self.says}"


Warned = Iterator[PolicyWarning]


def warnings_of(
    policy: Policy, *, labels: Mapping[str, float] | None = None
) -> tuple[PolicyWarning, ...]:
    """Return what is worth a second look in a policy that loads, in a fixed order.

    Args:
        policy: a loaded policy.
        labels: share of units per label (`lever/label` where there are several levers), as
            recorded; None for what the policy expects.
    """
    shares = dict(policy.expect.labels) if labels is None else labels
    rules = (
        _charter,
        _one_approval,
        _missing_verdicts_cost,
        _guards_below_gates,
        _silence,
        _windows,
        _waves,
        _without_effect,
        _retention,
    )
    warnings = [warning for rule in rules for warning in rule(policy)]
    return (*warnings, *_rare_labels(policy, shares))


def _charter(policy: Policy) -> Warned:
    parts = ("objective", "affected", "if_it_works_very_well", "worst_case")
    missing_parts = [part for part in parts if not getattr(policy.charter, part)]
    if missing_parts:
        yield PolicyWarning(
            "charter", f"does not say {', '.join(missing_parts)}; approvers are shown it"
        )


def _one_approval(policy: Policy) -> Warned:
    for index, gate in enumerate(policy.gates):
        if len(gate.approvals) == 1:
            text = f"one person alone can widen to {gate.to}; two see more"
            yield PolicyWarning(f"gates[{index}]", text)


def _missing_verdicts_cost(policy: Policy) -> Warned:
    """A missing unit counts at the largest cost, so missing ones alone can hold the gate."""
    missing_cost = policy.evidence.missing_at_most * policy.largest_cost
    for index, gate in enumerate(policy.gates):
        for condition in gate.require:
            if condition.measure == "cost" and missing_cost >= condition.line:
                text = (
                    "missing verdicts may hold it alone: missing_at_most"
                    f" {policy.evidence.missing_at_most * 100:g} % of units at the largest cost"
                    f" {policy.largest_cost:g} is {missing_cost:g}, and the line is"
                    f" {condition.line:g}; write missing_at_most below"
                    f" {condition.line / policy.largest_cost * 100:.2g}%"
                )
                yield PolicyWarning(f"gates[{index}]", text)


def _rare_labels(policy: Policy, labels: Mapping[str, float]) -> Warned:
    """Warn where a gate asks for agreement alone and a model that never says a label passes."""
    for index, gate in enumerate(policy.gates):
        conditions = _asked_by(policy, gate)
        thresholds = [
            condition.line for condition in conditions if condition.measure == "agreement"
        ]
        if len(thresholds) < len(conditions) or not thresholds:
            continue
        rare_labels = [label for label, share in labels.items() if 0 < share <= 1 - max(thresholds)]
        if rare_labels:
            rare_label_text = ", ".join(
                f"{label} ({labels[label] * 100:.2g} %)" for label in rare_labels[:4]
            )
            more_text = f" and {len(rare_labels) - 4} more" if len(rare_labels) > 4 else ""
            text = (
                f"agreement alone, and some labels are rare: {rare_label_text}{more_text}. A model"
                f" that never says {rare_labels[0]} can reach {max(thresholds) * 100:g} %; require"
                " its recall"
            )
            yield PolicyWarning(f"gates[{index}]", text)


def _asked_by(policy: Policy, gate: Gate) -> tuple[Condition, ...]:
    """Return what a gate asks for with those below it, in the first cell that it leads."""
    stage_level = policy.rungs.index(gate.to)
    cell = next(
        (condition for condition in policy.cells if policy.gate(stage_level, condition) is gate),
        None,
    )
    return gate.require if cell is None else policy.required(stage_level, cell)


def _guards_below_gates(policy: Policy) -> Warned:
    for index, guard in enumerate(policy.guards):
        overlapping_gates = [gate for gate in policy.gates if _not_below(guard, gate, policy)]
        if overlapping_gates and not guard.added:
            text = (
                f"{guard.condition} is not below the gate to {overlapping_gates[0].to}: it may"
                " alarm on a model that the gate has just let through; leave room between them"
            )
            yield PolicyWarning(f"guards[{index}]", text)


def _not_below(guard: Guard, gate: Gate, policy: Policy) -> bool:
    has_shared_cell = any(gate.where.fits(cell) and guard.where.fits(cell) for cell in policy.cells)
    same_conditions = [
        condition for condition in gate.require if condition.key == guard.condition.key
    ]
    threshold = guard.condition.line
    return has_shared_cell and any(
        threshold >= condition.line if condition.at_least else threshold <= condition.line
        for condition in same_conditions
    )


def _silence(policy: Policy) -> Warned:
    unmonitored_cells = [cell for cell in policy.cells if not _listened_to(policy, cell)]
    if unmonitored_cells:
        sites = list(dict.fromkeys(cell.site for cell in unmonitored_cells))
        location = "" if len(sites) == len(policy.sites) else f" at {', '.join(sites)}"
        text = f"no heartbeat{location}: a site that nobody hears from keeps its grants"
        yield PolicyWarning("guards", text)


def _listened_to(policy: Policy, cell: Cell) -> bool:
    return any(guard.condition.measure == "heartbeat" for guard in policy.guards_of(cell))


def _windows(policy: Policy) -> Warned:
    """Warn of hours once for all sites that have clock, holidays and sun in common."""
    sites_by_clock: dict[object, list[Site]] = {}
    for site in policy.sites:
        sites_by_clock.setdefault((site.timezone, site.country, site.place), []).append(site)
    texts: dict[str, None] = {}
    for first_site, *other_sites in sites_by_clock.values():
        more_text = f" and {len(other_sites)} more" if other_sites else ""
        for text in hours_warnings(first_site, policy.windows):
            texts[
                text.replace(f"site {first_site.id}:", f"site {first_site.id}{more_text}:", 1)
            ] = None
    for text in texts:
        location, _, warning_text = text.partition(": ")
        yield PolicyWarning(location, warning_text)


def _waves(policy: Policy) -> Warned:
    if policy.waves is None and any(site.wave > 1 for site in policy.sites):
        yield PolicyWarning("sites", "name waves, and no `waves:` makes them wait; add it")
    if policy.waves is not None and not any(gate.to == policy.waves.stage for gate in policy.gates):
        text = f"no gate leads to {policy.waves.stage}, so the second wave never opens"
        yield PolicyWarning("waves", text)


def _without_effect(policy: Policy) -> Warned:
    rules = policy.evidence
    if rules.unit == "case" and rules.episode_span is not None:
        text = "episode_span has no effect where the unit is a case; write unit: episode"
        yield PolicyWarning("evidence", text)
    has_single_decision = rules.verdicts == 1 and rules.second_verdict == 0
    if rules.min_reviewer_agreement and has_single_decision:
        text = "min_reviewer_agreement is checked on known cases alone; add second_verdict: 10%"
        yield PolicyWarning("evidence", text)
    for index, guard in enumerate(policy.guards):
        measure = guard.condition.measure
        if guard.over is not None and measure in DETECTED:
            period_text = duration_text(guard.over)
            text = f"over {period_text} has no effect on {measure}: it looks at every unit"
            yield PolicyWarning(f"guards[{index}]", text)
        if guard.false_alarm_every != _EVERY and measure not in DETECTED:
            text = f"false_alarm_every has no effect on {measure}: it is a plain line"
            yield PolicyWarning(f"guards[{index}]", text)


def _retention(policy: Policy) -> Warned:
    if policy.retention is not None and policy.retention < LEAST_RETENTION:
        text = f"records go after {duration_text(policy.retention)}; keep them 183d at least"
        yield PolicyWarning("retention", text)
