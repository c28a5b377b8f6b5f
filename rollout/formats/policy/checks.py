"""What is wrong with a policy whose fields are each well formed: every fault, with its place.

A check is a function with the paths that it needs. Where one of them could not be read the check
is left out: what it said would follow from a fault that is reported already.
"""

from rollout.core.policy.policy import Policy, duration_text
from rollout.formats.policy.conditions import CONDITION_CHECKS
from rollout.formats.policy.document import Shaped
from rollout.formats.policy.model import LeverShape, PolicyShape
from rollout.formats.policy.names import NAME_CHECKS, Check, Checked
from rollout.formats.policy.reachability import REACH_CHECKS
from rollout.formats.policy.yaml_reader import Fault


def faults_of(shaped: Shaped, policy: Policy) -> tuple[Fault, ...]:
    """Return every fault that needs more than one field to see, at its place in the document."""
    checks = [check for needs, check in CHECKS if shaped.has(*needs)]
    faults = [fault for check in checks for fault in check(shaped.policy, policy)]
    located = [Fault(shaped.origin(fault.place), fault.says) for fault in faults]
    return tuple(fault for fault in located if not shaped.is_lost(fault.place))


def _levers_answer(shape: PolicyShape, _: Policy) -> Checked:
    for i, lever in enumerate(shape.levers):
        if (lever.labels is None) == (lever.number is None):
            problem = "both labels and a number" if lever.labels else "neither labels nor a number"
            yield Fault(("levers", i), f"has {problem}; write one of labels: and number:")
        if lever.number is not None and lever.actions is not None:
            text = "a number is its own action; leave actions out"
            yield Fault(("levers", i, "actions"), text)
        if lever.number is not None and lever.number.low >= lever.number.high:
            text = f"{lever.number.low:g} is not below to: {lever.number.high:g}; swap them"
            yield Fault(("levers", i, "number", "from"), text)


def _costs_fit_their_lever(shape: PolicyShape, _: Policy) -> Checked:
    for i, lever in enumerate(shape.levers):
        for j, row in enumerate(lever.costs or ()):
            path = ("levers", i, "costs", j)
            distances = [k for k in ("under", "over", "off") if getattr(row, k) is not None]
            actions = [k for k in ("did", "right") if getattr(row, k) is not None]
            for key in (*(actions if lever.number else ()), *(distances if lever.labels else ())):
                yield Fault((*path, key), _other_kind(lever))
            if lever.number is not None and len(distances) > 1:
                text = f"has {' and '.join(distances)}; write a row for each"
                yield Fault(path, text)


def _other_kind(lever: LeverShape) -> str:
    if lever.number is not None:
        return f"is for labels, and lever {lever.id} is a number; write under, over or off"
    return f"is for numbers, and lever {lever.id} has labels; write did and right"


def _time_and_fallback_go_together(shape: PolicyShape, _: Policy) -> Checked:
    for i, lever in enumerate(shape.levers):
        if (lever.answer_within is None) != (lever.unanswered is None):
            present, absent = ("answer_within", "unanswered")
            if lever.answer_within is None:
                present, absent = absent, present
            text = f"stands alone; write {absent} too, or neither"
            yield Fault(("levers", i, present), text)


def _grace_covers_the_answer(shape: PolicyShape, policy: Policy) -> Checked:
    limits = [lever.answer_within for lever in shape.levers if lever.answer_within is not None]
    grace = policy.evidence.grace
    if limits and grace < max(limits):
        minimum = duration_text(max(limits))
        text = (
            f"{duration_text(grace)} ends before answer_within, {minimum}; write {minimum} or more"
        )
        yield Fault(("evidence", "grace"), text)


def _stages_are_watched(_: PolicyShape, policy: Policy) -> Checked:
    for i, stage in enumerate(policy.stages):
        if stage.seen <= 0:
            text = f"nobody would look at {stage.id} blind; write blind: 50%, or audit: 10%"
            yield Fault(("stages", i), text)
        elif policy.charter.feedback and stage.model_decides and stage.blind <= 0:
            text = "the charter names a feedback, so people keep a share unseen; write blind: 10%"
            yield Fault(("stages", i, "blind"), text)


def _limits_say_something(shape: PolicyShape, _: Policy) -> Checked:
    for i, limit in enumerate(shape.limits):
        if limit.never_above is None and limit.ends is None:
            yield Fault(("limits", i), "limits nothing; write never_above: or ends:")


def _waves_wait(shape: PolicyShape, _: Policy) -> Checked:
    if shape.waves is not None and shape.waves.share <= 0:
        yield Fault(("waves", "share"), "0% would open every wave at once; write more, or no waves")


OWN_CHECKS: tuple[Check, ...] = (
    (("levers.*.labels", "levers.*.number"), _levers_answer),
    (("levers.*.number",), _costs_fit_their_lever),
    (("levers.*.answer_within", "levers.*.unanswered"), _time_and_fallback_go_together),
    (("evidence.grace",), _grace_covers_the_answer),
    (("stages.*.blind", "stages.*.audit"), _stages_are_watched),
    (("limits.*.never_above", "limits.*.ends"), _limits_say_something),
    ((), _waves_wait),
)
CHECKS: tuple[Check, ...] = (*OWN_CHECKS, *NAME_CHECKS, *CONDITION_CHECKS, *REACH_CHECKS)
