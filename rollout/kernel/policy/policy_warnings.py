"""Warnings on a valid policy that follow from its text alone.

`traffic_warnings` has those that follow from traffic, `approver_warnings` those that follow from
the accounts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from unicodedata import normalize

from rollout.kernel.calendar.instants import format_duration
from rollout.kernel.calendar.windows import list_hours_warnings
from rollout.kernel.measures import Condition, Statistic, Watch
from rollout.kernel.policy.policy import Gate, Guard, Policy
from rollout.kernel.policy.stages import describe_sample_share
from rollout.kernel.units import group_pairs

MIN_RETENTION = timedelta(days=183)  # laws on high-risk systems ask for half a year of logs
_DEFAULT_FALSE_ALARM_EVERY = 10_000.0


@dataclass(frozen=True, slots=True)
class PolicyWarning:
    """A warning and the part of the policy that it is about."""

    location: str
    text: str

    def __str__(self) -> str:
        return f"{self.location}: {self.text}"


Warnings = Iterator[PolicyWarning]


def list_policy_warnings(
    policy: Policy, *, labels: Mapping[str, float] | None = None
) -> tuple[PolicyWarning, ...]:
    """Return the warnings on a policy, in a fixed order.

    Args:
        labels: recorded share of units per label (`lever/label` with several levers); None uses
            the shares that the policy expects.
    """
    shares = policy.expect.labels if labels is None else labels
    rules = (
        _check_charter,
        _check_single_approvals,
        _check_missing_decisions,
        _check_guards_below_gates,
        _check_heartbeats,
        _check_harm_reach,
        _check_vouched_senders,
        _check_samples,
        _check_windows,
        _check_site_names,
        _check_waves,
        _check_ineffective_settings,
        _check_retention,
    )
    warnings = [warning for rule in rules for warning in rule(policy)]
    return (*warnings, *_check_rare_labels(policy, shares))


def _check_charter(policy: Policy) -> Warnings:
    parts = ("objective", "affected", "if_it_works_very_well", "worst_case")
    missing_parts = [part for part in parts if not getattr(policy.charter, part)]
    if missing_parts:
        yield PolicyWarning("charter", f"lacks {', '.join(missing_parts)}, which approvers read")


def _check_single_approvals(policy: Policy) -> Warnings:
    for index, gate in enumerate(policy.gates):
        if len(gate.approvals) == 1:
            text = f"a single user can widen to {gate.to}; require two approvals"
            yield PolicyWarning(f"gates[{index}]", text)


def _check_missing_decisions(policy: Policy) -> Warnings:
    """Warn if missing decisions at the largest cost can hold a gate."""
    missing_cost = policy.evidence.missing_at_most * policy.largest_cost
    for index, gate in enumerate(policy.gates):
        for condition in gate.require:
            is_mean = condition.measure.statistic is Statistic.MEAN
            if is_mean and missing_cost >= condition.threshold:
                text = (
                    "missing decisions alone may keep it closed: missing_at_most"
                    f" {policy.evidence.missing_at_most * 100:g} % of units at the largest cost"
                    f" {policy.largest_cost:g} is {missing_cost:g}, and the threshold is"
                    f" {condition.threshold:g}; write missing_at_most below"
                    f" {condition.threshold / policy.largest_cost * 100:.2g}%"
                )
                yield PolicyWarning(f"gates[{index}]", text)


def _check_rare_labels(policy: Policy, labels: Mapping[str, float]) -> Warnings:
    """Warn if a gate tests agreement only and some labels are rare."""
    for index, gate in enumerate(policy.gates):
        conditions = _list_gate_conditions(policy, gate)
        thresholds = [
            condition.threshold for condition in conditions if condition.measure.covers_all_labels
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
                f" that never predicts {rare_labels[0]} can reach {max(thresholds) * 100:g} %;"
                " require its recall of the cases that occur"
            )
            yield PolicyWarning(f"gates[{index}]", text)


def _list_gate_conditions(policy: Policy, gate: Gate) -> tuple[Condition, ...]:
    """Return the conditions of a gate and those below, in its first cell."""
    stage_level = policy.stage_ids.index(gate.to)
    cell = next(
        (
            condition
            for condition in policy.cells
            if policy.find_gate(stage_level, condition) is gate
        ),
        None,
    )
    conditions = gate.require if cell is None else policy.list_conditions(stage_level, cell)
    return tuple(c for c in conditions if not c.population.is_planted)


def _check_guards_below_gates(policy: Policy) -> Warnings:
    for index, guard in enumerate(policy.guards):
        overlapping_gates = [gate for gate in policy.gates if _is_not_below(guard, gate, policy)]
        if overlapping_gates and not guard.added:
            text = (
                f"{guard.condition} is not below the gate to {overlapping_gates[0].to}: it may"
                " trip right after that gate opens; leave a gap between the thresholds"
            )
            yield PolicyWarning(f"guards[{index}]", text)


def _is_not_below(guard: Guard, gate: Gate, policy: Policy) -> bool:
    has_shared_cell = any(gate.where.fits(cell) and guard.where.fits(cell) for cell in policy.cells)
    same_conditions = [
        condition for condition in gate.require if condition.key == guard.condition.key
    ]
    threshold = guard.condition.threshold
    return has_shared_cell and any(
        threshold >= condition.threshold if condition.at_least else threshold <= condition.threshold
        for condition in same_conditions
    )


def _check_heartbeats(policy: Policy) -> Warnings:
    unmonitored_cells = [
        cell
        for cell in policy.cells
        if not any(
            guard.condition.measure.watch is Watch.SIGNS for guard in policy.list_guards(cell)
        )
    ]
    if unmonitored_cells:
        sites = list(dict.fromkeys(cell.site for cell in unmonitored_cells))
        location = "" if len(sites) == len(policy.sites) else f" at {', '.join(sites)}"
        text = f"no heartbeat guard{location}: a silent site keeps its grants"
        yield PolicyWarning("guards", text)


def _check_harm_reach(policy: Policy) -> Warnings:
    """Yield a warning for each harm that narrows the cell where it was seen, and no other."""
    text = (
        "a harm narrows one cell only, and the version goes on acting in the others; write"
        " `reach: site` or `reach: rollout`"
    )
    yield from (
        PolicyWarning(f"guards[{index}]", text)
        for index, guard in enumerate(policy.guards)
        if guard.condition.measure.watch is Watch.HARMS
        and guard.reach == "cell"
        and guard.then not in {"report", "suspend"}
        and len(policy.cells) > 1
    )


def _check_vouched_senders(policy: Policy) -> Warnings:
    """Yield a warning for each sender that could copy what people decided."""
    for account, within in policy.evidence.sources.vouched.items():
        text = (
            f"what {account} sends up to {format_duration(within)} after a case counts as sent"
            " before the decision; if it sees answers it can copy them, and any gate opens"
        )
        yield PolicyWarning("evidence.sources.vouched", text)


def _check_samples(policy: Policy) -> Warnings:
    """Yield what a version's sample costs in time."""
    for version, share in policy.samples_by_version.items():
        text = (
            f"{describe_sample_share(version, share)}: its gates count no others, and take"
            f" {1 / share:.3g} times as long as planned here, unless its files say who was sampled"
        )
        yield PolicyWarning("versions", text)


def _check_windows(policy: Policy) -> Warnings:
    """Warn of hours once for sites with equal clock, holidays and sun."""
    sites_by_clock = group_pairs(
        ((site.timezone, site.country, site.coordinates), site) for site in policy.sites
    )
    warnings: dict[PolicyWarning, None] = {}
    for first_site, *other_sites in sites_by_clock.values():
        more_text = f" and {len(other_sites)} more" if other_sites else ""
        for window, text in list_hours_warnings(first_site, policy.windows):
            location = f"window {window}" if window else f"site {first_site.id}{more_text}"
            warnings[PolicyWarning(location, text)] = None
    yield from warnings


def _check_site_names(policy: Policy) -> Warnings:
    """Warn of sites that are easily taken for each other."""
    visible = (
        ("".join(filter(str.isprintable, normalize("NFKC", site.id))).casefold(), site.id)
        for site in policy.sites
    )
    for names in filter(lambda names: len(names) > 1, group_pairs(visible).values()):
        text = (
            f"{' and '.join(map(ascii, names))} look alike, but a stop or a record of one is none"
            " of the other; rename one, with its former id as `was`"
        )
        yield PolicyWarning("sites", text)


def _check_waves(policy: Policy) -> Warnings:
    if policy.waves is None and any(site.wave > 1 for site in policy.sites):
        yield PolicyWarning(
            "sites", "name waves, but the policy has no `waves:`; add it, or leave out each `wave`"
        )
    if policy.waves is not None and not any(gate.to == policy.waves.stage for gate in policy.gates):
        yield PolicyWarning(
            "waves", f"no gate leads to {policy.waves.stage}, so the second wave never opens"
        )


def _check_ineffective_settings(policy: Policy) -> Warnings:
    rules = policy.evidence
    if rules.unit == "case" and rules.episode_span is not None:
        yield PolicyWarning(
            "evidence", "episode_span has no effect where the unit is a case; write unit: episode"
        )
    for index, guard in enumerate(policy.guards):
        measure = guard.condition.measure
        if guard.over is not None and measure.watch is Watch.UNITS:
            text = (
                f"over {format_duration(guard.over)} has no effect on {measure}: it looks at every"
                " unit"
            )
            yield PolicyWarning(f"guards[{index}]", text)
        is_counted = measure.counts_units or measure.watch is Watch.RECORDS
        if guard.false_alarm_every != _DEFAULT_FALSE_ALARM_EVERY and not is_counted:
            text = f"false_alarm_every has no effect on {measure}: it is a fixed threshold"
            yield PolicyWarning(f"guards[{index}]", text)


def _check_retention(policy: Policy) -> Warnings:
    if policy.retention.cases is not None and policy.retention.cases < MIN_RETENTION:
        text = (
            f"records go after {format_duration(policy.retention.cases)}; keep them 183d at least"
        )
        yield PolicyWarning("retention", text)
