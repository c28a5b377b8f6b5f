"""Rules that an edit of a policy loosens, as facts.

Looser edits need the approvals of the current policy: edits that let the model do more, sooner, for
longer, on less evidence or with less control. If the texts can't show whether an edit loosens
(hours moved between windows, another span of a guard), it counts as looser. `is_redefined` finds
changes of what records mean; the two are independent.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from itertools import chain, pairwise, product

from rollout.engine.decide.permissions import OPERATOR
from rollout.engine.decide.stops import find_highest_approvals
from rollout.kernel.calendar.instants import Cell, Site
from rollout.kernel.calendar.opening_hours import uses_holidays
from rollout.kernel.facts import LooserRule, build_looser, format_facts
from rollout.kernel.measures import Condition, Statistic
from rollout.kernel.policy.cell_evidence import format_floor, list_floors
from rollout.kernel.policy.evidence_sources import UNNAMED, EvidenceSources
from rollout.kernel.policy.familiarity import FamiliarityRule, find_line
from rollout.kernel.policy.policy import EvidenceRules, Gate, Guard, Policy, Waves
from rollout.kernel.policy.record_definition import describe_cell
from rollout.kernel.policy.stages import Stage
from rollout.kernel.units import Lever, Margin, Number, find_outcome, group_pairs


def compare_familiarity(old: Policy, new: Policy) -> Iterator[LooserRule]:
    """Yield a fact for each way in which the model may decide less familiar cases."""
    old_rule, new_rule = old.evidence.familiar, new.evidence.familiar
    if old_rule is None:
        return
    if new_rule is None:
        yield build_looser("unfamiliar-cases")
        return
    yield from _compare_attributes(old_rule, new_rule)
    if new_rule.at_least != old_rule.at_least:  # more units forget a fall later
        yield build_looser("familiar-units", new=new_rule.at_least, old=old_rule.at_least)
    for cell in (cell for cell in new.cells if cell in old.cell_set):
        old_line, new_line = (
            find_line(rule, (guard.condition for guard in policy.list_guards(cell)))
            for policy, rule in ((old, old_rule), (new, new_rule))
        )
        if new_line < old_line:
            yield build_looser("familiar-line", new=new_line, old=old_line, cell=str(cell))
            return


def _compare_attributes(old: FamiliarityRule, new: FamiliarityRule) -> Iterator[LooserRule]:
    new_cuts = {attribute.id: attribute.cuts for attribute in new.attributes}
    for attribute in old.attributes:
        if attribute.id not in new_cuts:
            yield build_looser("unfamiliar-values", attribute=attribute.id)
        elif new_cuts[attribute.id] != attribute.cuts:
            yield build_looser("bins", attribute=attribute.id)


def compare_floors(old: EvidenceRules, new: EvidenceRules) -> Iterator[LooserRule]:
    """Yield what is looser: fewer floors share the risk, or some lie where none did.

    The first means that each may use more of it. A higher floor opens before the others, so with
    it the model may decide where a whole cell is not good enough.
    """
    old_floors, new_floors = list_floors(old), list_floors(new)
    if len(new_floors) < len(old_floors):
        yield build_looser("fewer-floors", new=len(new_floors), old=len(old_floors))
    if added := [floor for floor in new.higher_floors if floor not in old_floors]:
        yield build_looser("floors", floors=tuple(map(format_floor, added)))


def compare_outcomes(old: Policy, new: Policy) -> Iterator[LooserRule]:
    """Yield a fact for each outcome that is measured otherwise, or may be missing more."""
    for outcome in new.outcomes:
        old_outcome = find_outcome(old.outcomes, outcome.id)
        if old_outcome is None:
            continue
        if replace(outcome, missing_at_most=old_outcome.missing_at_most) != old_outcome:
            yield build_looser("outcome", outcome=outcome.id, new=outcome, old=old_outcome)
        if outcome.missing_at_most > old_outcome.missing_at_most:
            yield build_looser("missing-outcomes", outcome=outcome.id, new=outcome.missing_at_most)


def compare_waves(old: Policy, new: Policy) -> Iterator[LooserRule]:
    """Yield a fact for each wave rule that is looser."""
    if old.waves is None:
        return
    if new.waves is None:
        yield build_looser("no-waves")
        return
    yield from _compare_wave_rules(old.waves, new.waves, new)
    if moved_sites := tuple(site.id for site in new.sites if _waits_otherwise(old, new, site)):
        yield build_looser("other-wave", sites=moved_sites)
    stages = (old.waves.stage, new.waves.stage)
    exits = ((_find_wave_exit(old, new, site, stages), site.id) for site in old.sites)
    for day, sites in group_pairs(exits).items():
        if day is not None:
            dates = {"day": str(day)} if day > date.min else {}
            yield build_looser("wave-end" if dates else "left-wave", sites=tuple(sites), **dates)


def _waits_otherwise(old: Policy, new: Policy, site: Site) -> bool:
    """Return whether a site waits for an earlier wave than before, or only for one that it passed.

    That one may hold its stage already, while the wave before it was narrowed.
    """
    former = old.sites_by_id.get(site.id, site)
    return site.wave < former.wave or (
        former.wave < site.wave
        and any(each.wave < former.wave for each in old.sites)
        and any(former.wave <= each.wave < site.wave for each in new.sites)
    )


def _find_wave_exit(old: Policy, new: Policy, site: Site, stages: tuple[str, str]) -> date | None:
    """Return after which day a site's wave, which others wait for, goes on without it, or None.

    So it does without a site that is removed (from the first day on), or may no longer reach the
    stage: what narrows here would open the next wave, perhaps for the same harm. `stages` are those
    of the old and new rule.
    """
    is_moved = new.sites_by_id.get(site.id, site).wave > site.wave
    waits = (
        (
            date.min if is_moved else _find_last_day(new, Cell(site.id, window.id), stages[1]),
            _find_last_day(old, Cell(site.id, window.id), stages[0]),
            _find_last_day(new, Cell(other.id, window.id), new.stages[0].id),  # it waits for any
        )
        for window in new.windows
        for other in new.sites
        if other.wave > site.wave and other.id != site.id
    )
    return min((day for day, *ends in waits if is_moved or day < min(ends)), default=None)


def _find_last_day(policy: Policy, cell: Cell, stage: str) -> date:
    """Return until when limits allow a cell a stage; the first day if they never do."""
    if cell in policy.cell_set and stage in _list_allowed_stages(policy, cell):
        return _find_end(policy, cell) or date.max
    return date.min


def _compare_wave_rules(old: Waves, new: Waves, policy: Policy) -> Iterator[LooserRule]:
    if old.stage not in policy.stage_ids[: policy.stage_ids.index(new.stage) + 1]:
        yield build_looser("wave-stage", stage=new.stage)
    if new.hold < old.hold or new.share < old.share:
        yield build_looser("wave-hold")
    if new.settle < old.settle or (
        old.at_once is not None and (new.at_once is None or new.at_once > old.at_once)
    ):
        yield build_looser("at-once")


def compare_ceilings(old: Policy, new: Policy, cell: Cell) -> Iterator[LooserRule]:
    """Yield a fact for a higher ceiling and a later end of a cell."""
    allowed_stages = _list_allowed_stages(old, cell)
    for stage in _list_allowed_stages(new, cell)[1:]:  # also without a gate: grants come back
        if stage in old.stage_ids and stage not in allowed_stages:
            yield build_looser("ceiling", new=stage, old=allowed_stages[-1])
    old_end, new_end = _find_end(old, cell), _find_end(new, cell)
    if old_end is not None and (new_end is None or new_end > old_end):
        yield build_looser(
            "trial-end" if new_end else "no-trial-end",
            old=str(old_end),
            **({"new": str(new_end)} if new_end else {}),
        )


def _list_allowed_stages(policy: Policy, cell: Cell) -> tuple[str, ...]:
    """Return the stages up to the lowest `never_above` of the cell."""
    stage_levels = [
        policy.stage_ids.index(limit.never_above)
        for limit in policy.limits
        if limit.never_above is not None and limit.where.fits(cell)
    ]
    return policy.stage_ids[: min(stage_levels, default=len(policy.stage_ids)) + 1]


def _find_end(policy: Policy, cell: Cell) -> date | None:
    return min(
        (each.ends for each in policy.limits if each.ends is not None and each.where.fits(cell)),
        default=None,
    )


def compare_freezes(old: Policy, new: Policy, cell: Cell) -> Iterator[LooserRule]:
    """Yield a fact for each freeze of a cell that is gone or moved."""
    is_same_country = old.sites_by_id[cell.site].country == new.sites_by_id[cell.site].country
    for freeze in old.freezes:
        if freeze.where.fits(cell) and not (
            (is_same_country or not uses_holidays(freeze.hours))
            and any(f.hours == freeze.hours and f.where.fits(cell) for f in new.freezes)
        ):
            yield build_looser("freeze", reason=freeze.reason, hours=freeze.hours)


NAMED_CELLS = 3
_REACH_ORDER = ("cell", "site", "rollout")
LooserRules = Iterator[LooserRule]


def list_looser_rules(old: Policy, new: Policy) -> tuple[LooserRule, ...]:
    """Return what `new` loosens."""
    looser_rules = [looser for rule in _RULES for looser in rule(old, new)]
    return (*looser_rules, *_compare_cells(old, new))


def _compare_cells(old: Policy, new: Policy) -> LooserRules:
    """Yield the looser rules of cells, each once with its cells."""
    cells_by_rule: dict[str, tuple[LooserRule, list[Cell]]] = {}
    shared_cells = [cell for cell in new.cells if cell in old.cell_set]
    for cell in shared_cells:
        for rule in _CELL_RULES:
            for looser in rule(old, new, cell):
                cells_by_rule.setdefault(format_facts(looser), (looser, []))[1].append(cell)
    for looser, cells in cells_by_rule.values():
        if len(cells) == len(shared_cells):
            yield looser
        else:
            yield replace(looser, cells=tuple(cells[:NAMED_CELLS]), others=len(cells[NAMED_CELLS:]))


# Levers


def _compare_levers(old: Policy, new: Policy) -> LooserRules:
    for lever_id in sorted(old.levers_by_id.keys() - new.levers_by_id):
        yield build_looser("no-lever", lever=lever_id)
    for lever in new.levers:
        old_lever = old.levers_by_id.get(lever.id)
        if old_lever is None:
            yield build_looser("lever", lever=lever.id)
        else:
            yield from _compare_lever(old_lever, lever)


def _compare_lever(old: Lever, new: Lever) -> LooserRules:
    answers = set(zip(old.labels, old.actions, strict=True))
    if added := set(zip(new.labels, new.actions, strict=True)) - answers:
        yield build_looser("new-labels", lever=new.id, labels=tuple(sorted(dict(added))))
    if _has_cheaper_error(old, new) or _has_cheaper_distance(old, new):
        yield build_looser("cost", lever=new.id)
    if _is_longer(old.answer_within, new.answer_within):
        yield build_looser("answer-within", lever=new.id)
    if new.unanswered != old.unanswered:
        yield build_looser("unanswered", lever=new.id)
    if _has_wider_number(old, new):
        yield build_looser("number", lever=new.id)
    if new.number is old.number is None:
        if new.many != old.many:
            yield build_looser("sets" if new.many else "labels", lever=new.id)
        if new.overlap < old.overlap:
            yield build_looser("overlap", lever=new.id, new=new.overlap, old=old.overlap)


def _has_cheaper_error(old: Lever, new: Lever) -> bool:
    """Return whether mistaking one shared label for another costs less, or a missing answer."""
    return new.largest_cost < old.largest_cost or any(
        _compute_label_cost(new, did, right) < _compute_label_cost(old, did, right)
        for did, right in product(set(new.labels) & set(old.labels), repeat=2)
    )


def _compute_label_cost(lever: Lever, did: str, right: str) -> float:
    return lever.compute_cost(lever.find_action(did) or did, lever.find_action(right) or right)


def _has_cheaper_distance(old: Lever, new: Lever) -> bool:
    """Return whether some distance costs less; costs change only at the margins in the rows."""
    if old.number is None or new.number is None:
        return False
    rows = ((rule.under, rule.over, rule.off) for rule in (*old.costs, *new.costs))
    margins = [old.number.tolerance, new.number.tolerance, *filter(None, chain(*rows))]
    return any(
        new.compute_number_cost(number + gap, number)
        < old.compute_number_cost(number + gap, number)
        for number in _list_span_middles(margins, old.number, new.number)
        for margin in margins
        for gap in _list_gaps_beyond(margin, number)
    )


def _list_span_middles(margins: Sequence[Margin], *ranges: Number) -> list[float]:
    """Return the middle of each span of numbers in which the margins keep their order."""
    ends = [abs(end) for each in ranges for end in (each.low, each.high)]
    equals = [
        plain.amount / relative.amount
        for plain in margins
        for relative in margins
        if relative.relative and relative.amount and not plain.relative
    ]
    edges = sorted(edge for edge in {0.0, *ends, *equals} if edge <= max(ends))
    return [(lower + upper) / 2 for lower, upper in pairwise(edges)]


def _list_gaps_beyond(margin: Margin, number: float) -> tuple[float, float]:
    gap = margin.compute_distance(number) * (1 + 1e-9) + 1e-9
    return gap, -gap


def _has_wider_number(old: Lever, new: Lever) -> bool:
    old_number, new_number = old.number, new.number
    if old_number is None or new_number is None:
        return new_number is not old_number
    human_numbers = (old_number.low, old_number.high, new_number.low, new_number.high)
    return (
        new_number.unit != old_number.unit
        or new_number.low < old_number.low
        or new_number.high > old_number.high
        or any(
            new_number.tolerance.compute_distance(human_number)
            > old_number.tolerance.compute_distance(human_number)
            for human_number in human_numbers
        )
    )


def _is_longer(old: timedelta | None, new: timedelta | None) -> bool:
    """Return whether a time limit grew; None is no limit."""
    return old is not None and (new is None or new > old)


# Evidence


def _compare_evidence(old: Policy, new: Policy) -> LooserRules:
    old_rules, new_rules = old.evidence, new.evidence
    for kind in ("unit", "grace", "releases", "verdicts"):  # either way some records tell more
        values = {"new": getattr(new_rules, kind), "old": getattr(old_rules, kind)}
        if values["new"] != values["old"]:
            yield build_looser(kind, **values)
    if old_rules.unit == new_rules.unit == "episode" and (
        new_rules.episode_span != old_rules.episode_span
    ):
        yield build_looser("episode-span")
    if new_rules.missing_at_most > old_rules.missing_at_most:
        yield build_looser("missing", new=new_rules.missing_at_most)
    if new_rules.outside_blind and not old_rules.outside_blind:
        yield build_looser("outside-blind")
    yield from _compare_sources(old_rules.sources, new_rules.sources)
    yield from _compare_versions(old, new)
    yield from compare_familiarity(old, new)
    if new_rules.lowest_floor != old_rules.lowest_floor:
        yield build_looser("lowest-floor")
    yield from compare_floors(old_rules, new_rules)


def _compare_file_readings(old: Policy, new: Policy) -> LooserRules:
    if (
        _reads_as_blind(new)
        and not _reads_as_blind(old)
        and not (new.evidence.outside_blind and not old.evidence.outside_blind)  # said already
    ):
        yield build_looser("files-blind")


def _reads_as_blind(policy: Policy) -> bool:
    """Return whether an imported decision is blind if its file does not say."""
    reading = policy.file_readings.get("decisions")
    exposure = reading and (reading.constants.get("exposure") or reading.exposure)
    return exposure == "blind" if exposure else policy.evidence.outside_blind


def _compare_versions(old: Policy, new: Policy) -> LooserRules:
    for version, content in new.contents_by_version.items():
        if content != old.contents_by_version.get(version):
            yield build_looser("content", version=version, content=content)
    for version, share in new.samples_by_version.items():
        if share < old.samples_by_version.get(version, 1):
            yield build_looser("sample", version=version, new=share)


def _compare_sources(old: EvidenceSources, new: EvidenceSources) -> LooserRules:
    for account in dict.fromkeys(source.account for source in new.accounts):
        old_patterns = old.list_patterns(account)
        added = [p for p in new.list_patterns(account) if p not in old_patterns]
        if added and "*" not in old_patterns:
            yield build_looser("decisions", account=account, reviewers=tuple(added))
    yield from _compare_registering(old, new)
    if old.outcomes is not None and new.outcomes is None:
        yield build_looser("all-outcomes")
    for account, within in new.vouched.items():
        if within > old.vouched.get(account, timedelta()):
            yield build_looser("vouched", account=account, within=within)
    for account in dict.fromkeys(new.outcomes or ()):
        if old.find_outcome_kind(account) == UNNAMED:
            yield build_looser("outcomes", account=account)


def _compare_registering(old: EvidenceSources, new: EvidenceSources) -> LooserRules:
    if old.cases is not None and new.cases is None:
        yield build_looser("all-cases")
    for account in dict.fromkeys(new.cases or ()):
        if not old.registers(account):
            yield build_looser("cases", account=account)


# Stages and sites


def _compare_stages(old: Policy, new: Policy) -> LooserRules:
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
            yield build_looser("rung", stage=stage.id, removed=tuple(removed_stages))


def _compare_stage(old: Stage, new: Stage) -> LooserRules:
    if new.model_decides and not old.model_decides:
        drawn = {} if new.share is None else {"share": new.share}
        yield build_looser("share-decides" if drawn else "decides", stage=new.id, **drawn)
    if new.blind < old.blind:
        decides = new.blind if new.share is None else new.share
        yield build_looser("blind" if new.share is None else "share", stage=new.id, new=decides)
    if old.audit is not None and new.audit is not None and new.audit < old.audit:
        yield build_looser("audit", stage=new.id, new=new.audit)
    if new.lasts > old.lasts:
        yield build_looser("lasts", stage=new.id, new=new.lasts)


def _compare_sites(old: Policy, new: Policy) -> LooserRules:
    for site in new.sites:
        old_site = old.sites_by_id.get(site.id)
        if old_site is None:
            was = {"was": site.was} if site.was else {}
            yield build_looser("former-site" if was else "site", site=site.id, **was)
        elif _get_lease(new, site) > _get_lease(old, old_site):
            yield build_looser("lease", site=site.id, new=_get_lease(new, site))
        if old_site is not None and site.open is not None:
            if site.open != old_site.open:
                yield build_looser("open", site=site.id, hours=site.open)
            elif uses_holidays(site.open) and site.country != old_site.country:
                yield build_looser("country", site=site.id, country=site.country)
    cells = [cell for cell in new.cells if cell.site in old.sites_by_id]
    if any(c not in old.cell_set or describe_cell(old, c) != describe_cell(new, c) for c in cells):
        yield build_looser("windows")


def _get_lease(policy: Policy, site: Site) -> timedelta:
    return site.lease or policy.lease


def _compare_engine(old: Policy, new: Policy) -> LooserRules:
    needs = {"new": find_highest_approvals(new), "old": find_highest_approvals(old)}
    if Counter(needs["old"]) - Counter(needs["new"]):  # as once the highest gate is gone
        yield build_looser("policy-approvals", **needs)
    if (new.expect.units_per_day or 0) > (old.expect.units_per_day or 0) and any(
        guard.false_alarm_span for guard in new.guards
    ):
        yield build_looser("expect")
    if new.largest_cost > old.largest_cost and any(
        guard.condition.measure.statistic is Statistic.MEAN for guard in new.guards
    ):
        yield build_looser("largest-cost", new=new.largest_cost, old=old.largest_cost)
    if _is_longer(new.retention.cases, old.retention.cases):
        yield build_looser("retention", new=new.retention.cases)
    if old.observe and not new.observe:
        yield build_looser("observe")
    if new.tick > old.tick:
        yield build_looser("tick", new=new.tick)
    if new.takeover != old.takeover and _find_takeover_level(new, new) < _find_takeover_level(
        old, new
    ):
        yield build_looser("takeover", stage=new.takeover)


def _find_takeover_level(policy: Policy, ladder: Policy) -> int:
    """Return the takeover's level in `ladder`, the highest for `same-stage`."""
    levels = {stage: level for level, stage in enumerate(ladder.stage_ids)}
    return levels.get(policy.takeover, len(levels))


# Rules of a cell


def _compare_gates(old: Policy, new: Policy, cell: Cell) -> LooserRules:
    for stage_level, stage in enumerate(new.stages, start=1):
        gate, old_gate = new.find_gate(stage_level, cell), old.find_gate_to(stage.id, cell)
        if old_gate is None:
            if gate is not None:
                yield build_looser("gate", stage=stage.id)
            continue
        # without a gate nothing widens to the stage, and a resume to it asks the highest gate's
        approvals = find_highest_approvals(new) if gate is None else gate.approvals
        lost_groups = Counter(old_gate.approvals) - Counter(approvals)
        if gate is None and len(approvals) >= len(old_gate.approvals):
            del lost_groups[OPERATOR]  # somebody of another group is asked instead
        if lost_groups:
            yield build_looser("approvals", stage=stage.id, new=approvals, old=old_gate.approvals)
        if gate is not None:
            yield from _compare_gate(old_gate, gate)
            new_conditions = new.list_conditions(stage_level, cell)
            for condition in old.list_conditions(old.stage_ids.index(stage.id), cell):
                yield from _compare_condition(stage.id, condition, new_conditions)


def _compare_condition(
    stage: str, condition: Condition, new_conditions: tuple[Condition, ...]
) -> LooserRules:
    same_conditions = [other for other in new_conditions if other.key == condition.key]
    if not same_conditions:
        yield build_looser("no-condition", stage=stage, condition=condition)
    elif not any(_is_as_strict(other, condition) for other in same_conditions):
        yield build_looser("threshold", stage=stage, new=same_conditions[0], old=condition)


def _is_as_strict(new: Condition, old: Condition) -> bool:
    return new.threshold >= old.threshold if old.at_least else new.threshold <= old.threshold


def _compare_gate(old: Gate, new: Gate) -> LooserRules:
    if new.risk > old.risk:
        yield build_looser("risk", stage=new.to, new=new.risk, old=old.risk)
    for minimum in ("units", "days", "reviewers"):
        new_minimum, old_minimum = getattr(new.minimum, minimum), getattr(old.minimum, minimum)
        if new_minimum < old_minimum:
            yield build_looser(minimum, stage=new.to, new=new_minimum, old=old_minimum)


def _compare_guards(old: Policy, new: Policy, cell: Cell) -> LooserRules:
    for guard in old.list_guards(cell):
        same_guards = [g for g in new.list_guards(cell) if g.condition.key == guard.condition.key]
        if not any(_is_guard_as_strict(other, guard) for other in same_guards):
            values = {"old": guard.condition, "then": guard.then}
            if same_guards:
                values |= {"new": same_guards[0].condition, "new_then": same_guards[0].then}
            yield build_looser("guard" if same_guards else "no-guard", **values)


def _is_guard_as_strict(new: Guard, old: Guard) -> bool:
    return (
        _is_as_strict(new.condition, old.condition)
        and _is_interval_as_short(new, old)
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
    return old.condition.measure.is_longer_stricter and bool(
        new.over and old.over and new.over > old.over
    )


_RULES: tuple[Callable[[Policy, Policy], LooserRules], ...] = (
    _compare_levers,
    _compare_evidence,
    _compare_file_readings,
    compare_outcomes,
    _compare_stages,
    _compare_sites,
    _compare_engine,
    compare_waves,
)
_CELL_RULES: tuple[Callable[[Policy, Policy, Cell], LooserRules], ...] = (
    _compare_gates,
    _compare_guards,
    compare_ceilings,
    compare_freezes,
)
