"""Which edits of a policy loosen it, in words. Those need the approvals of the policy before.

Whatever lets a model do more, sooner, for longer, on less evidence or less watched is a loosening.
Where it can't be told from the two texts whether an edit loosens (hours moved from one window to
another, a guard that looks back over another span), it counts as one: doubt means that people are
asked. `redefined` says in which cells records mean something else; the two are independent.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, timedelta

from rollout.core.calendar.sites import Cell, Site
from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Freeze, Gate, Guard, Policy, Stage, Waves, duration_text
from rollout.core.policy.record_definition import definition, redefined

__all__ = ["definition", "loosened", "redefined"]

_REACH = ("cell", "site", "rollout")
Says = Iterator[str]


def loosened(old: Policy, new: Policy) -> tuple[str, ...]:
    """Say what `new` loosens against `old`, one sentence each; nothing if it loosens nothing."""
    sentences = [sentence for rule in _RULES for sentence in rule(old, new)]
    return (*sentences, *_by_cell(old, new))


def _by_cell(old: Policy, new: Policy) -> Says:
    """Say what the cells lose, each sentence once with the cells that it is about."""
    cells_by_sentence: dict[str, list[Cell]] = {}
    shared_cells = [cell for cell in new.cells if cell in old.known]
    for cell in shared_cells:
        for rule in _CELL_RULES:
            for sentence in rule(old, new, cell):
                cells_by_sentence.setdefault(sentence, []).append(cell)
    for sentence, cells in cells_by_sentence.items():
        yield sentence + _cells_text(cells, len(shared_cells))


def _cells_text(cells: list[Cell], count: int) -> str:
    if len(cells) == count:
        return ""
    more = f" and {len(cells) - 3} more cells" if len(cells) > 3 else ""
    return f", in {', '.join(str(cell) for cell in cells[:3])}{more}"


# What is decided


def _levers(old: Policy, new: Policy) -> Says:
    for lever in new.levers:
        old_lever = old.lever.get(lever.id)
        if old_lever is None:
            yield f"lever {lever.id} is new: the model would decide it too"
        else:
            yield from _one_lever(old_lever, lever)


def _one_lever(old: Lever, new: Lever) -> Says:
    added_labels = [label for label in new.labels if label not in old.labels]
    if added_labels:
        yield f"lever {new.id} has new labels: {', '.join(added_labels)}"
    if _cheaper(old, new) or _cheaper_number(old, new):
        yield f"lever {new.id}: some wrong action costs less than before"
    if _longer(old.answer_within, new.answer_within):
        yield f"lever {new.id}: a later answer of the model counts"
    if new.unanswered != old.unanswered:
        yield f"lever {new.id}: another action is taken when nobody answers"
    if _wider(old, new):
        yield f"lever {new.id}: a wider range or tolerance of its number"


def _cheaper(old: Lever, new: Lever) -> bool:
    """Say whether mistaking one known label for another costs less than it did."""
    shared_labels = [label for label in new.labels if label in old.labels]
    return any(_cost(new, a, b) < _cost(old, a, b) for a in shared_labels for b in shared_labels)


def _cost(lever: Lever, did: str, right: str) -> float:
    return lever.cost(lever.action(did) or did, lever.action(right) or right)


def _cheaper_number(old: Lever, new: Lever) -> bool:
    """Say whether some distance costs less; costs step only at the distances that rows name."""
    if old.number is None or new.number is None:
        return False
    human_numbers = {old.number.low, old.number.high, new.number.low, new.number.high, 0.0}
    return any(
        new.cost_of_number(human_number + gap, human_number)
        < old.cost_of_number(human_number + gap, human_number)
        for human_number in human_numbers
        for gap in _just_beyond(old, new, human_number)
    )


def _just_beyond(old: Lever, new: Lever, person: float) -> Iterator[float]:
    for lever in (old, new):
        margins = [m for rule in lever.costs for m in (rule.under, rule.over, rule.off)]
        tolerance = lever.number.tolerance if lever.number is not None else None
        for margin in (*margins, tolerance):
            if margin is not None:
                gap = margin.at(person) * (1 + 1e-9) + 1e-9
                yield from (gap, -gap)


def _wider(old: Lever, new: Lever) -> bool:
    old_number, new_number = old.number, new.number
    if old_number is None or new_number is None:
        return False
    human_numbers = (old_number.low, old_number.high, new_number.low, new_number.high)
    has_looser_tolerance = any(
        new_number.tolerance.at(human_number) > old_number.tolerance.at(human_number)
        for human_number in human_numbers
    )
    return (
        new_number.low < old_number.low or new_number.high > old_number.high or has_looser_tolerance
    )


def _longer(old: timedelta | None, new: timedelta | None) -> bool:
    """Say whether a limit in time grew; None is no limit."""
    return old is not None and (new is None or new > old)


# What counts as evidence


def _evidence(old: Policy, new: Policy) -> Says:
    old_rules, new_rules = old.evidence, new.evidence
    if old_rules.unit == "episode" and new_rules.unit == "case":
        yield "each case of a burst counts, where an episode counted once"
    if old_rules.unit == new_rules.unit == "episode" and _shorter(
        old_rules.episode_span, new_rules.episode_span
    ):
        yield "episodes are cut shorter, so bursts count more often"
    if new_rules.missing_at_most > old_rules.missing_at_most:
        yield f"more units may miss a verdict: {_share(new_rules.missing_at_most)}"
    if new_rules.verdicts < old_rules.verdicts:
        yield f"fewer people judge a unit: {new_rules.verdicts} instead of {old_rules.verdicts}"
    if new_rules.outside_blind and not old_rules.outside_blind:
        yield "verdicts made elsewhere count as blind"
    if _lower(old_rules.confidence_floor, new_rules.confidence_floor):
        yield "the model decides less sure cases: the confidence floor is lower or gone"
    if _lower(old_rules.min_reviewer_agreement, new_rules.min_reviewer_agreement):
        yield "verdicts of less reliable reviewers count"
    checks_reviewers = new_rules.min_reviewer_agreement is not None and new_rules.verdicts == 1
    if checks_reviewers and new_rules.second_verdict < old_rules.second_verdict:
        yield f"reviewers are checked on fewer cases, {_share(new_rules.second_verdict)}"


def _lower(old: float | None, new: float | None) -> bool:
    """Say whether a floor fell; None is no floor."""
    return old is not None and (new is None or new < old)


def _shorter(old: timedelta | None, new: timedelta | None) -> bool:
    """Say whether episodes were cut shorter; None sets records without an episode aside."""
    return new is not None and (old is None or new < old)


def _share(share: float) -> str:
    return f"{share * 100:g} %"


# Ladder and time


def _stages(old: Policy, new: Policy) -> Says:
    old_stages = {stage.id: stage for stage in old.stages}
    for stage_level, stage in enumerate(new.stages):
        old_stage = old_stages.get(stage.id)
        if old_stage is None:
            continue
        yield from _one_stage(old_stage, stage)
        old_stages_below = old.rungs[1 : old.rungs.index(stage.id)]
        removed_stages = [
            name for name in old_stages_below if name not in new.rungs[1 : stage_level + 1]
        ]
        if removed_stages:
            yield f"{stage.id} no longer stands above {', '.join(removed_stages)}"


def _one_stage(old: Stage, new: Stage) -> Says:
    if new.model_decides and not old.model_decides:
        yield f"at {new.id} the model decides, where a person confirmed"
    if new.blind < old.blind:
        yield f"{new.id}: a smaller blind share, {_share(new.blind)}"
    if old.audit is not None and new.audit is not None and new.audit < old.audit:
        yield f"{new.id}: fewer audits, {_share(new.audit)}"
    if new.lasts > old.lasts:
        yield f"{new.id}: a grant lasts longer, {duration_text(new.lasts)}"


def _places(old: Policy, new: Policy) -> Says:
    for site in new.sites:
        old_site = old.site.get(site.id)
        if old_site is None:
            yield f"site {site.id} is new"
        elif _lease(new, site) > _lease(old, old_site):
            yield f"a stop reaches {site.id} later, within {duration_text(_lease(new, site))}"
    old_windows = [(w.id, w.hours, w.when) for w in old.windows]
    new_windows = [(w.id, w.hours, w.when) for w in new.windows]
    if old_windows[: len(new_windows)] != new_windows:
        yield "windows are cut otherwise: hours come under other gates than before"


def _lease(policy: Policy, site: Site) -> timedelta:
    return site.lease or policy.lease


def _engine(old: Policy, new: Policy) -> Says:
    if old.observe and not new.observe:
        yield "proposals are applied, where they were only raised"
    if new.tick > old.tick:
        yield f"guards look less often, every {duration_text(new.tick)}"
    if new.takeover != old.takeover and _takeover(new, new) < _takeover(old, new):
        yield f"a challenger may take over at a lower stage, {new.takeover}"


def _takeover(policy: Policy, ladder: Policy) -> int:
    """Return the rung of a takeover in `ladder`; the acting version's own is above all."""
    is_on_ladder = policy.takeover in ladder.rungs
    return ladder.rungs.index(policy.takeover) if is_on_ladder else len(ladder.rungs)


def _waves(old: Policy, new: Policy) -> Says:
    if old.waves is None:
        return
    if new.waves is None:
        yield "sites no longer wait for an earlier wave"
        return
    yield from _one_waves(old.waves, new.waves, new)
    earlier_sites = [s.id for s in new.sites if s.id in old.site and s.wave < old.site[s.id].wave]
    if earlier_sites:
        yield f"an earlier wave: {', '.join(earlier_sites)}"


def _one_waves(old: Waves, new: Waves, policy: Policy) -> Says:
    stage_ids = policy.rungs
    if new.stage != old.stage and (
        old.stage not in stage_ids or stage_ids.index(new.stage) < stage_ids.index(old.stage)
    ):
        yield f"the next wave waits for a lower stage, {new.stage}"
    if new.hold < old.hold or new.share < old.share:
        yield "the next wave opens sooner, or after fewer cells"
    allows_more = old.at_once is not None and (new.at_once is None or new.at_once > old.at_once)
    if allows_more or new.settle < old.settle:
        yield "more cells may be widened at once"


# Cell by cell


def _gates(old: Policy, new: Policy, cell: Cell) -> Says:
    for stage_level, stage in enumerate(new.stages, start=1):
        gate = new.gate(stage_level, cell)
        if gate is None:
            continue
        old_gate = _gate(old, stage.id, cell)
        if old_gate is None:
            yield f"a gate to {stage.id}, where none was"
            continue
        yield from _one_gate(old_gate, gate)
        new_conditions = new.required(stage_level, cell)
        for condition in old.required(old.rungs.index(stage.id), cell):
            yield from _one_condition(stage.id, condition, new_conditions)


def _gate(policy: Policy, stage: str, cell: Cell) -> Gate | None:
    return policy.gate(policy.rungs.index(stage), cell) if stage in policy.rungs else None


def _one_condition(stage: str, condition: Condition, asked: tuple[Condition, ...]) -> Says:
    same_conditions = [other for other in asked if other.key == condition.key]
    if not same_conditions:
        yield f"{stage} no longer asks for {condition}"
    elif not any(_as_strict(other, condition) for other in same_conditions):
        yield f"{stage} asks for {same_conditions[0]} instead of {condition.line_text}"


def _as_strict(new: Condition, old: Condition) -> bool:
    return new.line >= old.line if old.at_least else new.line <= old.line


def _one_gate(old: Gate, new: Gate) -> Says:
    if new.risk > old.risk:
        yield f"{new.to} opens at a risk of {_share(new.risk)} instead of {_share(old.risk)}"
    for minimum in ("units", "days", "reviewers"):
        new_minimum, old_minimum = getattr(new.minimum, minimum), getattr(old.minimum, minimum)
        if new_minimum < old_minimum:
            yield f"{new.to} asks for {new_minimum} {minimum} instead of {old_minimum}"
    if Counter(old.approvals) - Counter(new.approvals):
        yield f"{new.to} is approved by {', '.join(new.approvals)}, not {', '.join(old.approvals)}"


def _guards(old: Policy, new: Policy, cell: Cell) -> Says:
    for guard in old.guards_of(cell):
        same_guards = [g for g in new.guards_of(cell) if g.condition.key == guard.condition.key]
        if not any(_watches_as_well(other, guard) for other in same_guards):
            change = (
                f"is looser: {same_guards[0].condition}, {same_guards[0].then}"
                if same_guards
                else "is gone"
            )
            yield f"the guard on {guard.condition} ({guard.then}) {change}"


def _watches_as_well(new: Guard, old: Guard) -> bool:
    return (
        _as_strict(new.condition, old.condition)
        and new.false_alarm_every <= old.false_alarm_every
        and (new.then in {old.then, "shadow"} or old.then == "report")
        and _REACH.index(new.reach) >= _REACH.index(old.reach)
        and (new.over == old.over or _counts_longer(new, old))
    )


def _counts_longer(new: Guard, old: Guard) -> bool:
    """A count over a longer span is reached sooner; of other spans it can't be said."""
    is_longer_span = new.over is not None and old.over is not None and new.over > old.over
    return old.condition.measure == "harm" and is_longer_span


def _ceilings(old: Policy, new: Policy, cell: Cell) -> Says:
    allowed_stages = _allowed(old, cell)
    for stage_level, stage in enumerate(_allowed(new, cell)[1:], start=1):
        if (
            stage in old.rungs
            and stage not in allowed_stages
            and new.gate(stage_level, cell) is not None
        ):
            yield f"{stage} is allowed, where {allowed_stages[-1]} was the most"
    old_end, new_end = _ends(old, cell), _ends(new, cell)
    if old_end is not None and (new_end is None or new_end > old_end):
        yield f"the trial goes on {f'to {new_end}' if new_end else 'without end'}, not to {old_end}"


def _allowed(policy: Policy, cell: Cell) -> tuple[str, ...]:
    """Return the rungs up to the lowest `never_above` that fits the cell."""
    caps = [limit.never_above for limit in policy.limits if limit.where.fits(cell)]
    stage_levels = [policy.rungs.index(cap) for cap in caps if cap is not None]
    return policy.rungs[: min(stage_levels, default=len(policy.rungs)) + 1]


def _ends(policy: Policy, cell: Cell) -> date | None:
    ends = [limit.ends for limit in policy.limits if limit.where.fits(cell)]
    return min((end for end in ends if end is not None), default=None)


def _freezes(old: Policy, new: Policy, cell: Cell) -> Says:
    for freeze in old.freezes:
        if freeze.where.fits(cell) and not any(_holds(f, freeze, cell) for f in new.freezes):
            yield f"the freeze for {freeze.reason} ({freeze.hours}) is gone or moved"


def _holds(new: Freeze, old: Freeze, cell: Cell) -> bool:
    return new.hours == old.hours and new.where.fits(cell)


_RULES: tuple[Callable[[Policy, Policy], Says], ...] = (
    _levers,
    _evidence,
    _stages,
    _places,
    _engine,
    _waves,
)
_CELL_RULES: tuple[Callable[[Policy, Policy, Cell], Says], ...] = (
    _gates,
    _guards,
    _ceilings,
    _freezes,
)
