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
    found = [warning for rule in rules for warning in rule(policy)]
    return (*found, *_rare_labels(policy, shares))


def _charter(policy: Policy) -> Warned:
    parts = ("objective", "affected", "if_it_works_very_well", "worst_case")
    gaps = [part for part in parts if not getattr(policy.charter, part)]
    if gaps:
        yield PolicyWarning("charter", f"does not say {', '.join(gaps)}; approvers are shown it")


def _one_approval(policy: Policy) -> Warned:
    for i, gate in enumerate(policy.gates):
        if len(gate.approvals) == 1:
            says = f"one person alone can widen to {gate.to}; two see more"
            yield PolicyWarning(f"gates[{i}]", says)


def _missing_verdicts_cost(policy: Policy) -> Warned:
    """A missing unit counts at the largest cost, so missing ones alone can hold the gate."""
    worst = policy.evidence.missing_at_most * policy.largest_cost
    for i, gate in enumerate(policy.gates):
        for condition in gate.require:
            if condition.measure == "cost" and worst >= condition.line:
                says = (
                    f"missing verdicts may hold it alone: missing_at_most "
                    f"{policy.evidence.missing_at_most * 100:g} % of units at the largest cost "
                    f"{policy.largest_cost:g} is {worst:g}, and the line is {condition.line:g}; "
                    f"write missing_at_most below {condition.line / policy.largest_cost * 100:.2g}%"
                )
                yield PolicyWarning(f"gates[{i}]", says)


def _rare_labels(policy: Policy, labels: Mapping[str, float]) -> Warned:
    """Warn where a gate asks for agreement alone and a model that never says a label passes."""
    for i, gate in enumerate(policy.gates):
        asked = _asked_by(policy, gate)
        lines = [c.line for c in asked if c.measure == "agreement"]
        if len(lines) < len(asked) or not lines:
            continue
        rare = [name for name, share in labels.items() if 0 < share <= 1 - max(lines)]
        if rare:
            listed = ", ".join(f"{name} ({labels[name] * 100:.2g} %)" for name in rare[:4])
            more = f" and {len(rare) - 4} more" if len(rare) > 4 else ""
            says = (
                f"agreement alone, and some labels are rare: {listed}{more}. A model that never "
                f"says {rare[0]} can reach {max(lines) * 100:g} %; require its recall"
            )
            yield PolicyWarning(f"gates[{i}]", says)


def _asked_by(policy: Policy, gate: Gate) -> tuple[Condition, ...]:
    """Return what a gate asks for with those below it, in the first cell that it leads."""
    rung = policy.rungs.index(gate.to)
    cell = next((c for c in policy.cells if policy.gate(rung, c) is gate), None)
    return gate.require if cell is None else policy.required(rung, cell)


def _guards_below_gates(policy: Policy) -> Warned:
    for i, guard in enumerate(policy.guards):
        above = [g for g in policy.gates if _not_below(guard, g, policy)]
        if above and not guard.added:
            says = (
                f"{guard.condition} is not below the gate to {above[0].to}: it may alarm on a "
                "model that the gate has just let through; leave room between them"
            )
            yield PolicyWarning(f"guards[{i}]", says)


def _not_below(guard: Guard, gate: Gate, policy: Policy) -> bool:
    shared = any(gate.where.fits(cell) and guard.where.fits(cell) for cell in policy.cells)
    same = [c for c in gate.require if c.key == guard.condition.key]
    line = guard.condition.line
    return shared and any(line >= c.line if c.at_least else line <= c.line for c in same)


def _silence(policy: Policy) -> Warned:
    unheard = [cell for cell in policy.cells if not _listened_to(policy, cell)]
    if unheard:
        sites = list(dict.fromkeys(cell.site for cell in unheard))
        where = "" if len(sites) == len(policy.sites) else f" at {', '.join(sites)}"
        says = f"no heartbeat{where}: a site that nobody hears from keeps its grants"
        yield PolicyWarning("guards", says)


def _listened_to(policy: Policy, cell: Cell) -> bool:
    return any(guard.condition.measure == "heartbeat" for guard in policy.guards_of(cell))


def _windows(policy: Policy) -> Warned:
    """Warn of hours once for all sites that have clock, holidays and sun in common."""
    kinds: dict[object, list[Site]] = {}
    for site in policy.sites:
        kinds.setdefault((site.timezone, site.country, site.place), []).append(site)
    said: dict[str, None] = {}
    for first, *others in kinds.values():
        more = f" and {len(others)} more" if others else ""
        for text in hours_warnings(first, policy.windows):
            said[text.replace(f"site {first.id}:", f"site {first.id}{more}:", 1)] = None
    for text in said:
        about, _, says = text.partition(": ")
        yield PolicyWarning(about, says)


def _waves(policy: Policy) -> Warned:
    if policy.waves is None and any(site.wave > 1 for site in policy.sites):
        yield PolicyWarning("sites", "name waves, and no `waves:` makes them wait; add it")
    if policy.waves is not None and not any(g.to == policy.waves.stage for g in policy.gates):
        says = f"no gate leads to {policy.waves.stage}, so the second wave never opens"
        yield PolicyWarning("waves", says)


def _without_effect(policy: Policy) -> Warned:
    rules = policy.evidence
    if rules.unit == "case" and rules.episode_span is not None:
        says = "episode_span has no effect where the unit is a case; write unit: episode"
        yield PolicyWarning("evidence", says)
    read_once = rules.verdicts == 1 and rules.second_verdict == 0
    if rules.min_reviewer_agreement and read_once:
        says = "min_reviewer_agreement is checked on known cases alone; add second_verdict: 10%"
        yield PolicyWarning("evidence", says)
    for i, guard in enumerate(policy.guards):
        measure = guard.condition.measure
        if guard.over is not None and measure in DETECTED:
            over = duration_text(guard.over)
            says = f"over {over} has no effect on {measure}: it looks at every unit"
            yield PolicyWarning(f"guards[{i}]", says)
        if guard.false_alarm_every != _EVERY and measure not in DETECTED:
            says = f"false_alarm_every has no effect on {measure}: it is a plain line"
            yield PolicyWarning(f"guards[{i}]", says)


def _retention(policy: Policy) -> Warned:
    if policy.retention is not None and policy.retention < LEAST_RETENTION:
        says = f"records go after {duration_text(policy.retention)}; keep them 183d at least"
        yield PolicyWarning("retention", says)
