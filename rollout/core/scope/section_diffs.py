"""What changed in single sections of a policy."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date

from rollout.core.calendar.instants import format_duration
from rollout.core.calendar.opening_hours import uses_holidays
from rollout.core.calendar.sites import Cell, Site
from rollout.core.policy.confidence_floors import format_floor, list_floors
from rollout.core.policy.familiarity import FamiliarityRule, find_line
from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import EvidenceRules, Freeze, Policy, Waves
from rollout.core.policy.stages import Stage
from rollout.kernel.outcomes import OutcomeRule, find_outcome


def compare_familiarity(old: Policy, new: Policy) -> Iterator[str]:
    """Yield a sentence for each way in which the model may decide less familiar cases."""
    old_rule, new_rule = old.evidence.familiar, new.evidence.familiar
    if old_rule is None:
        return
    if new_rule is None:
        yield "the model decides cases with unfamiliar attribute values"
        return
    yield from _compare_attributes(old_rule, new_rule)
    if new_rule.at_least < old_rule.at_least:
        yield (
            f"fewer judged units make a value familiar: {new_rule.at_least} instead of"
            f" {old_rule.at_least}"
        )
    cells = [cell for cell in new.cells if cell in old.cell_set]
    for cell in cells:
        old_line, new_line = (
            find_line(rule, (guard.condition for guard in policy.list_guards(cell)))
            for policy, rule in ((old, old_rule), (new, new_rule))
        )
        if new_line < old_line:
            yield (
                "less agreement makes a value familiar:"
                f" {new_line * 100:g} % instead of {old_line * 100:g} %, first in {cell}"
            )
            return


def _compare_attributes(old: FamiliarityRule, new: FamiliarityRule) -> Iterator[str]:
    new_cuts = {attribute.id: attribute.cuts for attribute in new.attributes}
    for attribute in old.attributes:
        if attribute.id not in new_cuts:
            yield f"the model decides cases with unfamiliar values of {attribute.id}"
        elif new_cuts[attribute.id] != attribute.cuts:
            yield f"{attribute.id} has other bins, so other values are familiar"


def compare_floors(old: EvidenceRules, new: EvidenceRules) -> Iterator[str]:
    """Yield what is looser: fewer floors share the risk, or some lie where none did.

    The first means that each may use more of it. A higher floor opens before the others, so with
    it the model may decide where a whole cell is not good enough.
    """
    old_floors, new_floors = list_floors(old), list_floors(new)
    if len(new_floors) < len(old_floors):
        yield (
            f"fewer confidence floors share the risk, so each has more: 1/{len(new_floors)} instead"
            f" of 1/{len(old_floors)}"
        )
    added = [floor for floor in new.higher_floors if floor not in old_floors]
    if added:
        texts = ", ".join(format_floor(floor) for floor in added)
        yield f"the model may decide sure cases where others are not good enough: floors {texts}"


ANSWER_KINDS = ("one label", "a set of labels")


def compare_label_sets(old: Policy, new: Policy) -> Iterator[str]:
    """Yield a sentence for each lever whose answers became sets, or agree with less overlap."""
    for lever in new.levers:
        old_lever = old.levers_by_id.get(lever.id)
        if old_lever is not None and lever.number is old_lever.number is None:
            yield from _compare_answers(old_lever, lever)


def _compare_answers(old: Lever, new: Lever) -> Iterator[str]:
    if new.many != old.many:
        kinds = f"{ANSWER_KINDS[new.many]}, where it was {ANSWER_KINDS[old.many]}"
        yield f"lever {new.id}: an answer is {kinds}"
    if new.overlap < old.overlap:
        yield (
            f"lever {new.id}: sets agree from an overlap of {new.overlap * 100:g} % on, where it"
            f" was {old.overlap * 100:g} %"
        )


def compare_outcomes(old: Policy, new: Policy) -> Iterator[str]:
    """Yield a sentence for each outcome that is measured otherwise, or may be missing more."""
    for outcome in new.outcomes:
        old_outcome = find_outcome(old.outcomes, outcome.id)
        if old_outcome is None:
            continue
        if _drop_missing_rule(outcome) != _drop_missing_rule(old_outcome):
            yield (
                f"outcome {outcome.id} is measured otherwise: {_describe_outcome(outcome)}, instead"
                f" of {_describe_outcome(old_outcome)}"
            )
        if outcome.missing_at_most > old_outcome.missing_at_most:
            missing_text = f"{outcome.missing_at_most * 100:g} %"
            yield f"more outcomes of {outcome.id} may be missing: {missing_text}"


def _drop_missing_rule(outcome: OutcomeRule) -> OutcomeRule:
    return replace(outcome, missing_at_most=0.0)


def _describe_outcome(outcome: OutcomeRule) -> str:
    better = "more" if outcome.more_is_better else "less"
    unit = f" {outcome.unit}" if outcome.unit else ""
    return (
        f"{outcome.low:g} to {outcome.high:g}{unit}, {better} is better, closed after"
        f" {format_duration(outcome.closes)}"
    )


def compare_model_shares(old: Stage, new: Stage) -> Iterator[str]:
    """Yield a sentence if the model decides more units, drawn by chance."""
    if new.blind >= old.blind:
        return
    if new.share is not None:
        yield f"{new.id}: the model decides a larger share of units, {new.share * 100:g} %"
    else:
        yield f"{new.id}: a smaller blind share, {new.blind * 100:g} %"


def compare_audits(old: Stage, new: Stage) -> Iterator[str]:
    """Yield a sentence if fewer cases are audited."""
    if old.audit is None or new.audit is None:
        return
    if new.audit < old.audit:
        yield f"{new.id}: fewer audits, {new.audit * 100:g} %"


def compare_waves(old: Policy, new: Policy) -> Iterator[str]:
    """Yield a sentence for each wave rule that is looser."""
    if old.waves is None:
        return
    if new.waves is None:
        yield "sites no longer wait for an earlier wave"
        return
    yield from _compare_wave_rules(old.waves, new.waves, new)
    earlier_sites = [
        s.id for s in new.sites if s.id in old.sites_by_id and s.wave < old.sites_by_id[s.id].wave
    ]
    if earlier_sites:
        yield f"an earlier wave: {', '.join(earlier_sites)}"
    left_sites = [site.id for site in new.sites if _leaves_wave(old, new, site)]
    if left_sites:
        yield f"the next wave no longer waits for {', '.join(left_sites)}"


def _leaves_wave(old: Policy, new: Policy, site: Site) -> bool:
    """Return whether a site moves to a later wave from one that other sites wait for.

    A removed site, or one that may no longer reach the stage, only narrows: nobody waits for it.
    """
    old_site = old.sites_by_id.get(site.id)
    if old_site is None or site.wave <= old_site.wave:
        return False
    return any(other.wave > old_site.wave for other in new.sites if other.id != site.id)


def _compare_wave_rules(old: Waves, new: Waves, policy: Policy) -> Iterator[str]:
    stage_ids = policy.stage_ids
    if new.stage != old.stage and (
        old.stage not in stage_ids or stage_ids.index(new.stage) < stage_ids.index(old.stage)
    ):
        yield f"the next wave waits for a lower stage, {new.stage}"
    if new.hold < old.hold or new.share < old.share:
        yield "the next wave opens sooner, or after fewer cells"
    allows_more = old.at_once is not None and (new.at_once is None or new.at_once > old.at_once)
    if allows_more or new.settle < old.settle:
        yield "more cells may be widened at once"


def compare_ceilings(old: Policy, new: Policy, cell: Cell) -> Iterator[str]:
    """Yield a sentence for a higher ceiling and a later end of a cell."""
    allowed_stages = _list_allowed_stages(old, cell)
    for stage_level, stage in enumerate(_list_allowed_stages(new, cell)[1:], start=1):
        if (
            stage in old.stage_ids
            and stage not in allowed_stages
            and new.find_gate(stage_level, cell) is not None
        ):
            yield f"{stage} is allowed, where {allowed_stages[-1]} was the most"
    old_end, new_end = _find_end(old, cell), _find_end(new, cell)
    if old_end is not None and (new_end is None or new_end > old_end):
        yield f"the trial goes on {f'to {new_end}' if new_end else 'without end'}, not to {old_end}"


def _list_allowed_stages(policy: Policy, cell: Cell) -> tuple[str, ...]:
    """Return the stages up to the lowest `never_above` of the cell."""
    caps = [limit.never_above for limit in policy.limits if limit.where.fits(cell)]
    stage_levels = [policy.stage_ids.index(cap) for cap in caps if cap is not None]
    return policy.stage_ids[: min(stage_levels, default=len(policy.stage_ids)) + 1]


def _find_end(policy: Policy, cell: Cell) -> date | None:
    ends = [limit.ends for limit in policy.limits if limit.where.fits(cell)]
    return min((end for end in ends if end is not None), default=None)


def compare_freezes(old: Policy, new: Policy, cell: Cell) -> Iterator[str]:
    """Yield a sentence for each freeze of a cell that is gone or moved."""
    for freeze in old.freezes:
        has_same_days = _have_same_holidays(old, new, cell.site) or not uses_holidays(freeze.hours)
        if freeze.where.fits(cell) and not (
            has_same_days and any(_is_same_freeze(f, freeze, cell) for f in new.freezes)
        ):
            yield f"the freeze for {freeze.reason} ({freeze.hours}) is gone or moved"


def _have_same_holidays(old: Policy, new: Policy, site: str) -> bool:
    """Return whether hours that name holidays mean the same days at a site."""
    return old.sites_by_id[site].country == new.sites_by_id[site].country


def _is_same_freeze(new: Freeze, old: Freeze, cell: Cell) -> bool:
    return new.hours == old.hours and new.where.fits(cell)
