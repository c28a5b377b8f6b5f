"""Rules on outcomes with a value that an edit of a policy loosens, as text.

Another range, direction or deadline gives old records another gain, and nobody can tell which
policy it favours: it counts as looser.
"""

from collections.abc import Iterator
from dataclasses import replace

from rollout.core.calendar.instants import format_duration
from rollout.core.policy.outcomes import SITE_POOL, GainCondition, OutcomeRule, find_outcome
from rollout.core.policy.policy import Policy
from rollout.core.policy.pools import list_pooled_conditions
from rollout.core.policy.stages import Stage


def compare_outcomes(old: Policy, new: Policy) -> Iterator[str]:
    """Yield a sentence for each outcome that is measured otherwise, or may be missing more.

    So too for each pool that loses cells.
    """
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
    yield from _compare_pools(old, new)


def _compare_pools(old: Policy, new: Policy) -> Iterator[str]:
    """Yield a sentence for each pool that cells leave, with the units that they may have lost."""
    pooled_before = {condition.key for condition in list_pooled_conditions(old)}
    pooled = dict.fromkeys(list_pooled_conditions(new))
    for condition in (c for c in pooled if isinstance(c, GainCondition)):
        sites = new.sites_by_id
        removed_cells = [
            cell
            for cell in old.cells
            if cell not in new.cell_set and (condition.pool != SITE_POOL or cell.site in sites)
        ]
        if removed_cells and condition.key in pooled_before:
            cells = ", ".join(map(str, removed_cells[:3]))
            more_text = f" and {len(removed_cells) - 3} more cells"
            yield (
                f"{condition} no longer counts the units of {cells}"
                f"{more_text if len(removed_cells) > 3 else ''}"
            )


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
