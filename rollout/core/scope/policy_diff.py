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
    says = [sentence for rule in _RULES for sentence in rule(old, new)]
    return (*says, *_by_cell(old, new))


def _by_cell(old: Policy, new: Policy) -> Says:
    """Say what the cells lose, each sentence once with the cells that it is about."""
    found: dict[str, list[Cell]] = {}
    shared = [cell for cell in new.cells if cell in old.known]
    for cell in shared:
        for rule in _CELL_RULES:
            for sentence in rule(old, new, cell):
                found.setdefault(sentence, []).append(cell)
    for sentence, cells in found.items():
        yield sentence + _cells_text(cells, len(shared))


def _cells_text(cells: list[Cell], count: int) -> str:
    if len(cells) == count:
        return ""
    more = f" and {len(cells) - 3} more cells" if len(cells) > 3 else ""
    return f", in {', '.join(str(cell) for cell in cells[:3])}{more}"


# What is decided


def _levers(old: Policy, new: Policy) -> Says:
    for lever in new.levers:
        before = old.lever.get(lever.id)
        if before is None:
            yield f"lever {lever.id} is new: the model would decide it too"
        else:
            yield from _one_lever(before, lever)


def _one_lever(old: Lever, new: Lever) -> Says:
    added = [label for label in new.labels if label not in old.labels]
    if added:
        yield f"lever {new.id} has new labels: {', '.join(added)}"
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
    known = [label for label in new.labels if label in old.labels]
    return any(_cost(new, a, b) < _cost(old, a, b) for a in known for b in known)


def _cost(lever: Lever, did: str, right: str) -> float:
    return lever.cost(lever.action(did) or did, lever.action(right) or right)


def _cheaper_number(old: Lever, new: Lever) -> bool:
    """Say whether some distance costs less; costs step only at the distances that rows name."""
    if old.number is None or new.number is None:
        return False
    people = {old.number.low, old.number.high, new.number.low, new.number.high, 0.0}
    return any(
        new.cost_of_number(person + gap, person) < old.cost_of_number(person + gap, person)
        for person in people
        for gap in _just_beyond(old, new, person)
    )


def _just_beyond(old: Lever, new: Lever, person: float) -> Iterator[float]:
    for lever in (old, new):
        margins = [m for row in lever.costs for m in (row.under, row.over, row.off)]
        tolerance = lever.number.tolerance if lever.number is not None else None
        for margin in (*margins, tolerance):
            if margin is not None:
                gap = margin.at(person) * (1 + 1e-9) + 1e-9
                yield from (gap, -gap)


def _wider(old: Lever, new: Lever) -> bool:
    a, b = old.number, new.number
    if a is None or b is None:
        return False
    people = (a.low, a.high, b.low, b.high)
    nearer = any(b.tolerance.at(p) > a.tolerance.at(p) for p in people)
    return b.low < a.low or b.high > a.high or nearer


def _longer(old: timedelta | None, new: timedelta | None) -> bool:
    """Say whether a limit in time grew; None is no limit."""
    return old is not None and (new is None or new > old)


# What counts as evidence


def _evidence(old: Policy, new: Policy) -> Says:
    a, b = old.evidence, new.evidence
    if a.unit == "episode" and b.unit == "case":
        yield "each case of a burst counts, where an episode counted once"
    if a.unit == b.unit == "episode" and _shorter(a.episode_span, b.episode_span):
        yield "episodes are cut shorter, so bursts count more often"
    if b.missing_at_most > a.missing_at_most:
        yield f"more units may miss a verdict: {_share(b.missing_at_most)}"
    if b.verdicts < a.verdicts:
        yield f"fewer people judge a unit: {b.verdicts} instead of {a.verdicts}"
    if b.outside_blind and not a.outside_blind:
        yield "verdicts made elsewhere count as blind"
    if _lower(a.confidence_floor, b.confidence_floor):
        yield "the model decides less sure cases: the confidence floor is lower or gone"
    if _lower(a.min_reviewer_agreement, b.min_reviewer_agreement):
        yield "verdicts of less reliable reviewers count"
    checked = b.min_reviewer_agreement is not None and b.verdicts == 1
    if checked and b.second_verdict < a.second_verdict:
        yield f"reviewers are checked on fewer cases, {_share(b.second_verdict)}"


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
    known = {stage.id: stage for stage in old.stages}
    for rung, stage in enumerate(new.stages):
        before = known.get(stage.id)
        if before is None:
            continue
        yield from _one_stage(before, stage)
        below = old.rungs[1 : old.rungs.index(stage.id)]
        gone = [name for name in below if name not in new.rungs[1 : rung + 1]]
        if gone:
            yield f"{stage.id} no longer stands above {', '.join(gone)}"


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
        before = old.site.get(site.id)
        if before is None:
            yield f"site {site.id} is new"
        elif _lease(new, site) > _lease(old, before):
            yield f"a stop reaches {site.id} later, within {duration_text(_lease(new, site))}"
    known = [(w.id, w.hours, w.when) for w in old.windows]
    asked = [(w.id, w.hours, w.when) for w in new.windows]
    if known[: len(asked)] != asked:
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
    known = policy.takeover in ladder.rungs
    return ladder.rungs.index(policy.takeover) if known else len(ladder.rungs)


def _waves(old: Policy, new: Policy) -> Says:
    if old.waves is None:
        return
    if new.waves is None:
        yield "sites no longer wait for an earlier wave"
        return
    yield from _one_waves(old.waves, new.waves, new)
    sooner = [s.id for s in new.sites if s.id in old.site and s.wave < old.site[s.id].wave]
    if sooner:
        yield f"an earlier wave: {', '.join(sooner)}"


def _one_waves(old: Waves, new: Waves, policy: Policy) -> Says:
    rungs = policy.rungs
    if new.stage != old.stage and (
        old.stage not in rungs or rungs.index(new.stage) < rungs.index(old.stage)
    ):
        yield f"the next wave waits for a lower stage, {new.stage}"
    if new.hold < old.hold or new.share < old.share:
        yield "the next wave opens sooner, or after fewer cells"
    more = old.at_once is not None and (new.at_once is None or new.at_once > old.at_once)
    if more or new.settle < old.settle:
        yield "more cells may be widened at once"


# Cell by cell


def _gates(old: Policy, new: Policy, cell: Cell) -> Says:
    for rung, stage in enumerate(new.stages, start=1):
        gate = new.gate(rung, cell)
        if gate is None:
            continue
        before = _gate(old, stage.id, cell)
        if before is None:
            yield f"a gate to {stage.id}, where none was"
            continue
        yield from _one_gate(before, gate)
        asked = new.required(rung, cell)
        for condition in old.required(old.rungs.index(stage.id), cell):
            yield from _one_condition(stage.id, condition, asked)


def _gate(policy: Policy, stage: str, cell: Cell) -> Gate | None:
    return policy.gate(policy.rungs.index(stage), cell) if stage in policy.rungs else None


def _one_condition(stage: str, condition: Condition, asked: tuple[Condition, ...]) -> Says:
    now = [other for other in asked if other.key == condition.key]
    if not now:
        yield f"{stage} no longer asks for {condition}"
    elif not any(_as_strict(other, condition) for other in now):
        yield f"{stage} asks for {now[0]} instead of {condition.line_text}"


def _as_strict(new: Condition, old: Condition) -> bool:
    return new.line >= old.line if old.at_least else new.line <= old.line


def _one_gate(old: Gate, new: Gate) -> Says:
    if new.risk > old.risk:
        yield f"{new.to} opens at a risk of {_share(new.risk)} instead of {_share(old.risk)}"
    for what in ("units", "days", "reviewers"):
        least, before = getattr(new.minimum, what), getattr(old.minimum, what)
        if least < before:
            yield f"{new.to} asks for {least} {what} instead of {before}"
    if Counter(old.approvals) - Counter(new.approvals):
        yield f"{new.to} is approved by {', '.join(new.approvals)}, not {', '.join(old.approvals)}"


def _guards(old: Policy, new: Policy, cell: Cell) -> Says:
    for guard in old.guards_of(cell):
        same = [g for g in new.guards_of(cell) if g.condition.key == guard.condition.key]
        if not any(_watches_as_well(other, guard) for other in same):
            change = f"is looser: {same[0].condition}, {same[0].then}" if same else "is gone"
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
    spans = new.over is not None and old.over is not None and new.over > old.over
    return old.condition.measure == "harm" and spans


def _ceilings(old: Policy, new: Policy, cell: Cell) -> Says:
    allowed = _allowed(old, cell)
    for rung, stage in enumerate(_allowed(new, cell)[1:], start=1):
        if stage in old.rungs and stage not in allowed and new.gate(rung, cell) is not None:
            yield f"{stage} is allowed, where {allowed[-1]} was the most"
    before, after = _ends(old, cell), _ends(new, cell)
    if before is not None and (after is None or after > before):
        yield f"the trial goes on {f'to {after}' if after else 'without end'}, not to {before}"


def _allowed(policy: Policy, cell: Cell) -> tuple[str, ...]:
    """Return the rungs up to the lowest `never_above` that fits the cell."""
    caps = [limit.never_above for limit in policy.limits if limit.where.fits(cell)]
    rungs = [policy.rungs.index(cap) for cap in caps if cap is not None]
    return policy.rungs[: min(rungs, default=len(policy.rungs)) + 1]


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
