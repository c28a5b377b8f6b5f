"""Rules that an edit of a policy loosens, as text.

Looser edits need the approvals of the current policy: edits that let the model do more, sooner, for
longer, on less evidence or with less control. If the texts can't show whether an edit loosens
(hours moved between windows, another span of a guard), it counts as looser. `is_redefined` finds
changes of what records mean; the two are independent.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta

from rollout.core.calendar.instants import format_duration
from rollout.core.calendar.opening_hours import uses_holidays
from rollout.core.calendar.sites import Cell, Site
from rollout.core.policy.evidence_sources import UNNAMED, EvidenceSources
from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import (
    Gate,
    Guard,
    Policy,
)
from rollout.core.policy.risk_shares import describe_releases
from rollout.core.policy.stages import Stage, describe_decided
from rollout.core.policy.version_rules import shorten_content
from rollout.core.scope.section_diffs import (
    compare_audits,
    compare_ceilings,
    compare_familiarity,
    compare_floors,
    compare_freezes,
    compare_label_sets,
    compare_model_shares,
    compare_outcomes,
    compare_waves,
)
from rollout.kernel.measures import Condition

_REACH_ORDER = ("cell", "site", "rollout")
Sentences = Iterator[str]


def list_looser_rules(old: Policy, new: Policy) -> tuple[str, ...]:
    """Return a sentence for each rule that `new` loosens."""
    sentences = [sentence for rule in _RULES for sentence in rule(old, new)]
    return (*sentences, *_compare_cells(old, new))


def _compare_cells(old: Policy, new: Policy) -> Sentences:
    """Yield the looser rules of cells, each sentence once with its cells."""
    cells_by_sentence: dict[str, list[Cell]] = {}
    shared_cells = [cell for cell in new.cells if cell in old.cell_set]
    for cell in shared_cells:
        for rule in _CELL_RULES:
            for sentence in rule(old, new, cell):
                cells_by_sentence.setdefault(sentence, []).append(cell)
    for sentence, cells in cells_by_sentence.items():
        yield sentence + _format_cells(cells, len(shared_cells))


def _format_cells(cells: list[Cell], count: int) -> str:
    if len(cells) == count:
        return ""
    more = f" and {len(cells) - 3} more cells" if len(cells) > 3 else ""
    return f", in {', '.join(str(cell) for cell in cells[:3])}{more}"


# Levers


def _compare_levers(old: Policy, new: Policy) -> Sentences:
    for lever in new.levers:
        old_lever = old.levers_by_id.get(lever.id)
        if old_lever is None:
            yield f"lever {lever.id} is new: the model would decide it too"
        else:
            yield from _compare_lever(old_lever, lever)


def _compare_lever(old: Lever, new: Lever) -> Sentences:
    added_labels = [label for label in new.labels if label not in old.labels]
    if added_labels:
        yield f"lever {new.id} has new labels: {', '.join(added_labels)}"
    if _has_cheaper_error(old, new) or _has_cheaper_distance(old, new):
        yield f"lever {new.id}: some wrong action costs less than before"
    if _is_longer(old.answer_within, new.answer_within):
        yield f"lever {new.id}: a later answer of the model counts"
    if new.unanswered != old.unanswered:
        yield f"lever {new.id}: another action without an answer in time"
    if _has_wider_number(old, new):
        yield f"lever {new.id}: a wider range or tolerance of its number"


def _has_cheaper_error(old: Lever, new: Lever) -> bool:
    """Return whether mistaking one shared label, or one set, for another costs less."""
    if new.many and old.many:
        return new.largest_cost < old.largest_cost
    shared_labels = [label for label in new.labels if label in old.labels]
    return any(
        _compute_label_cost(new, a, b) < _compute_label_cost(old, a, b)
        for a in shared_labels
        for b in shared_labels
    )


def _compute_label_cost(lever: Lever, did: str, right: str) -> float:
    return lever.compute_cost(lever.find_action(did) or did, lever.find_action(right) or right)


def _has_cheaper_distance(old: Lever, new: Lever) -> bool:
    """Return whether some distance costs less.

    Costs change only at the distances in the rows.
    """
    if old.number is None or new.number is None:
        return False
    human_numbers = {old.number.low, old.number.high, new.number.low, new.number.high, 0.0}
    return any(
        new.compute_number_cost(human_number + gap, human_number)
        < old.compute_number_cost(human_number + gap, human_number)
        for human_number in human_numbers
        for gap in _list_gaps_beyond(old, new, human_number)
    )


def _list_gaps_beyond(old: Lever, new: Lever, human_number: float) -> Iterator[float]:
    for lever in (old, new):
        margins = [m for rule in lever.costs for m in (rule.under, rule.over, rule.off)]
        tolerance = lever.number.tolerance if lever.number is not None else None
        for margin in (*margins, tolerance):
            if margin is not None:
                gap = margin.compute_distance(human_number) * (1 + 1e-9) + 1e-9
                yield from (gap, -gap)


def _has_wider_number(old: Lever, new: Lever) -> bool:
    old_number, new_number = old.number, new.number
    if old_number is None or new_number is None:
        return False
    human_numbers = (old_number.low, old_number.high, new_number.low, new_number.high)
    has_looser_tolerance = any(
        new_number.tolerance.compute_distance(human_number)
        > old_number.tolerance.compute_distance(human_number)
        for human_number in human_numbers
    )
    return (
        new_number.low < old_number.low or new_number.high > old_number.high or has_looser_tolerance
    )


def _is_longer(old: timedelta | None, new: timedelta | None) -> bool:
    """Return whether a time limit grew; None is no limit."""
    return old is not None and (new is None or new > old)


# Evidence


def _compare_evidence(old: Policy, new: Policy) -> Sentences:
    old_rules, new_rules = old.evidence, new.evidence
    if old_rules.unit == "episode" and new_rules.unit == "case":
        yield "each case of a burst counts, where an episode counted once"
    if old_rules.unit == new_rules.unit == "episode" and _is_shorter(
        old_rules.episode_span, new_rules.episode_span
    ):
        yield "episodes are cut shorter, so bursts count more often"
    if new_rules.grace != old_rules.grace:
        yield (
            f"a unit closes {format_duration(new_rules.grace)} after its case, instead of"
            f" {format_duration(old_rules.grace)}: other decisions and predictions count"
        )
    if new_rules.missing_at_most > old_rules.missing_at_most:
        yield f"more units may lack a decision: {_format_share(new_rules.missing_at_most)}"
    if new_rules.releases != old_rules.releases:
        yield (
            f"from each cell's next year on, {describe_releases(new_rules.releases)}, instead of"
            f" {describe_releases(old_rules.releases)}"
        )
    if new_rules.verdicts < old_rules.verdicts:
        yield f"fewer reviewers judge a unit: {new_rules.verdicts} instead of {old_rules.verdicts}"
    if new_rules.outside_blind and not old_rules.outside_blind:
        yield "decisions made elsewhere count as blind"
    yield from _compare_sources(old_rules.sources, new_rules.sources)
    yield from _compare_versions(old, new)
    yield from compare_familiarity(old, new)
    if _is_lower(old_rules.lowest_floor, new_rules.lowest_floor):
        yield "the model decides less sure cases: the confidence floor is lower or gone"
    yield from compare_floors(old_rules, new_rules)


def _compare_file_readings(old: Policy, new: Policy) -> Sentences:
    is_named_already = new.evidence.outside_blind and not old.evidence.outside_blind
    if _reads_as_blind(new) and not _reads_as_blind(old) and not is_named_already:
        yield "imported decisions count as blind where their file does not say"


def _reads_as_blind(policy: Policy) -> bool:
    """Return whether an imported decision is blind if its file does not say."""
    reading = policy.file_readings.get("decisions")
    exposure = reading and (reading.constants.get("exposure") or reading.exposure)
    return exposure == "blind" if exposure else policy.evidence.outside_blind


def _compare_versions(old: Policy, new: Policy) -> Sentences:
    for version, content in new.contents_by_version.items():
        if content != old.contents_by_version.get(version):
            yield f"{version} is declared to have the content {shorten_content(content)}"
    for version, share in new.samples_by_version.items():
        if share < old.samples_by_version.get(version, 1):
            yield f"{version} runs on fewer cases, {_format_share(share)} of them"


def _compare_sources(old: EvidenceSources, new: EvidenceSources) -> Sentences:
    for account in dict.fromkeys(source.account for source in new.accounts):
        old_patterns = old.list_patterns(account)
        added = [p for p in new.list_patterns(account) if p not in old_patterns]
        if added and "*" not in old_patterns:
            yield f"decisions that {account} sends for {', '.join(added)} are evidence"
    yield from _compare_registering(old, new)
    if old.outcomes is not None and new.outcomes is None:
        yield "outcomes of every account that may send them are evidence"
    for account, within in new.vouched.items():
        if within > old.vouched.get(account, timedelta()):
            yield (
                f"what {account} sends up to {format_duration(within)} after a case counts as made"
                " before the decision"
            )
    for account in dict.fromkeys(new.outcomes or ()):
        if old.find_outcome_kind(account) == UNNAMED:
            yield f"outcomes that {account} sends are evidence"


def _compare_registering(old: EvidenceSources, new: EvidenceSources) -> Sentences:
    if old.cases is not None and new.cases is None:
        yield "cases of every account that may send them count for gates"
    for account in dict.fromkeys(new.cases or ()):
        if not old.registers(account):
            yield f"cases that {account} sends count for gates"


def _is_lower(old: float | None, new: float | None) -> bool:
    """Return whether a minimum fell; None is no minimum."""
    return old is not None and (new is None or new < old)


def _is_shorter(old: timedelta | None, new: timedelta | None) -> bool:
    """Return whether episodes were cut shorter; with None, records without episode don't count."""
    return new is not None and (old is None or new < old)


def _format_share(share: float) -> str:
    return f"{share * 100:g} %"


# Stages and sites


def _compare_stages(old: Policy, new: Policy) -> Sentences:
    old_stages = {stage.id: stage for stage in old.stages}
    for stage_level, stage in enumerate(new.stages):
        old_stage = old_stages.get(stage.id)
        if old_stage is None:
            continue
        yield from _compare_stage(old_stage, stage)
        old_stages_below = old.stage_ids[1 : old.stage_ids.index(stage.id)]
        removed_stages = [
            name for name in old_stages_below if name not in new.stage_ids[1 : stage_level + 1]
        ]
        if removed_stages:
            yield f"{stage.id} is no longer above {', '.join(removed_stages)}"


def _compare_stage(old: Stage, new: Stage) -> Sentences:
    if new.model_decides and not old.model_decides:
        drawn = "" if new.share is None else f" {describe_decided(new.share)}"
        yield f"at {new.id} the model decides{drawn}, where a human confirmed"
    yield from compare_model_shares(old, new)
    yield from compare_audits(old, new)
    if new.lasts > old.lasts:
        yield f"{new.id}: a grant lasts longer, {format_duration(new.lasts)}"


def _compare_sites(old: Policy, new: Policy) -> Sentences:
    for site in new.sites:
        old_site = old.sites_by_id.get(site.id)
        if old_site is None:
            yield f"site {site.id} is new" + f", and was {site.was}" * bool(site.was)
        elif _get_lease(new, site) > _get_lease(old, old_site):
            lease = format_duration(_get_lease(new, site))
            yield f"a stop reaches {site.id} later: its answers are valid for {lease}"
        if old_site is not None and site.open is not None:
            if site.open != old_site.open:
                yield f"silence of {site.id} counts in other hours: {site.open}"
            elif uses_holidays(site.open) and site.country != old_site.country:
                yield f"silence of {site.id} counts on other holidays, those of {site.country}"
    old_windows = [(w.id, w.hours, w.when) for w in old.windows]
    new_windows = [(w.id, w.hours, w.when) for w in new.windows]
    if old_windows[: len(new_windows)] != new_windows:
        yield "windows are cut otherwise: hours come under other gates than before"


def _get_lease(policy: Policy, site: Site) -> timedelta:
    return site.lease or policy.lease


def _compare_engine(old: Policy, new: Policy) -> Sentences:
    if old.observe and not new.observe:
        yield "proposals are applied, where they were only raised"
    if new.tick > old.tick:
        yield f"guards look less often, every {format_duration(new.tick)}"
    if new.takeover != old.takeover and _find_takeover_level(new, new) < _find_takeover_level(
        old, new
    ):
        yield f"a challenger may take over at a lower stage, {new.takeover}"


def _find_takeover_level(policy: Policy, ladder: Policy) -> int:
    """Return the takeover's level in `ladder`, the highest for `same-stage`."""
    is_on_ladder = policy.takeover in ladder.stage_ids
    return ladder.stage_ids.index(policy.takeover) if is_on_ladder else len(ladder.stage_ids)


# Rules of a cell


def _compare_gates(old: Policy, new: Policy, cell: Cell) -> Sentences:
    for stage_level, stage in enumerate(new.stages, start=1):
        gate = new.find_gate(stage_level, cell)
        if gate is None:
            continue
        old_gate = old.find_gate_to(stage.id, cell)
        if old_gate is None:
            yield f"a gate to {stage.id}, where none was"
            continue
        yield from _compare_gate(old_gate, gate)
        new_conditions = new.list_conditions(stage_level, cell)
        for condition in old.list_conditions(old.stage_ids.index(stage.id), cell):
            yield from _compare_condition(stage.id, condition, new_conditions)


def _compare_condition(
    stage: str, condition: Condition, new_conditions: tuple[Condition, ...]
) -> Sentences:
    same_conditions = [other for other in new_conditions if other.key == condition.key]
    if not same_conditions:
        yield f"{stage} no longer asks for {condition}"
    elif not any(_is_as_strict(other, condition) for other in same_conditions):
        yield f"{stage} asks for {same_conditions[0]} instead of {condition.threshold_text}"


def _is_as_strict(new: Condition, old: Condition) -> bool:
    return new.threshold >= old.threshold if old.at_least else new.threshold <= old.threshold


def _compare_gate(old: Gate, new: Gate) -> Sentences:
    if new.risk > old.risk:
        yield (
            f"{new.to} opens at a risk of {_format_share(new.risk)} instead of"
            f" {_format_share(old.risk)}"
        )
    for minimum in ("units", "days", "reviewers"):
        new_minimum, old_minimum = getattr(new.minimum, minimum), getattr(old.minimum, minimum)
        if new_minimum < old_minimum:
            yield f"{new.to} asks for {new_minimum} {minimum} instead of {old_minimum}"
    if Counter(old.approvals) - Counter(new.approvals):
        yield f"{new.to} is approved by {', '.join(new.approvals)}, not {', '.join(old.approvals)}"


def _compare_guards(old: Policy, new: Policy, cell: Cell) -> Sentences:
    for guard in old.list_guards(cell):
        same_guards = [g for g in new.list_guards(cell) if g.condition.key == guard.condition.key]
        if not any(_is_guard_as_strict(other, guard) for other in same_guards):
            change = (
                f"is looser: {same_guards[0].condition}, {same_guards[0].then}"
                if same_guards
                else "is gone"
            )
            yield f"the guard on {guard.condition} ({guard.then}) {change}"


def _is_guard_as_strict(new: Guard, old: Guard) -> bool:
    return (
        _is_as_strict(new.condition, old.condition)
        and _is_interval_as_short(new, old)
        and new.quiet_days >= old.quiet_days
        and (new.then in {old.then, "shadow"} or old.then == "report")
        and _REACH_ORDER.index(new.reach) >= _REACH_ORDER.index(old.reach)
        and _REACH_ORDER.index(new.holds) >= _REACH_ORDER.index(old.holds)
        and (new.over == old.over or _has_longer_harm_span(new, old))
    )


def _is_interval_as_short(new: Guard, old: Guard) -> bool:
    """Return whether false alarms may be as frequent; units and time don't compare."""
    if new.false_alarm_span is None or old.false_alarm_span is None:
        return (
            new.false_alarm_span == old.false_alarm_span
            and new.false_alarm_every <= old.false_alarm_every
        )
    return new.false_alarm_span <= old.false_alarm_span


def _has_longer_harm_span(new: Guard, old: Guard) -> bool:
    """Return whether a harm guard counts over a longer span.

    A longer span reaches the count sooner; for other measures the effect is unknown.
    """
    is_longer_span = new.over is not None and old.over is not None and new.over > old.over
    return old.condition.measure.is_longer_stricter and is_longer_span


_RULES: tuple[Callable[[Policy, Policy], Sentences], ...] = (
    _compare_levers,
    compare_label_sets,
    _compare_evidence,
    _compare_file_readings,
    compare_outcomes,
    _compare_stages,
    _compare_sites,
    _compare_engine,
    compare_waves,
)
_CELL_RULES: tuple[Callable[[Policy, Policy, Cell], Sentences], ...] = (
    _compare_gates,
    _compare_guards,
    compare_ceilings,
    compare_freezes,
)
