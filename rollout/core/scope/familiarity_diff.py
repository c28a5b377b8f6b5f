"""What a policy edit changes for unfamiliar cases, as far as it loosens."""

from collections.abc import Iterator

from rollout.core.policy.familiarity import FamiliarityRule, find_line
from rollout.core.policy.policy import Policy


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
