"""Find the faults of a policy that need more than one field to judge.

A check is a function with the paths that it needs. It is skipped if one of them is unreadable,
because its faults would only follow from the fault that is already reported.
"""

from rollout.core.calendar.instants import format_duration
from rollout.core.policy.policy import Policy
from rollout.formats.policy.conditions import CONDITION_CHECKS
from rollout.formats.policy.document import ParsedPolicy
from rollout.formats.policy.floor_checks import FLOOR_CHECKS
from rollout.formats.policy.forget_checks import FORGET_CHECKS
from rollout.formats.policy.model import LeverShape, PolicyShape
from rollout.formats.policy.names import NAME_CHECKS, Faults, PolicyCheck
from rollout.formats.policy.outcome_checks import OUTCOME_CHECKS
from rollout.formats.policy.planted_checks import PLANTED_CHECKS
from rollout.formats.policy.reachability import REACH_CHECKS
from rollout.formats.policy.set_checks import SET_CHECKS
from rollout.formats.policy.wave_checks import WAVE_CHECKS
from rollout.formats.policy.yaml_reader import DocumentFault


def find_policy_faults(parsed: ParsedPolicy, policy: Policy) -> tuple[DocumentFault, ...]:
    """Return the faults of all checks whose fields are readable, with document paths."""
    checks = [check for needs, check in CHECKS if parsed.has_paths(*needs)]
    faults = [fault for check in checks for fault in check(parsed.shape, policy)]
    located = [DocumentFault(parsed.find_origin(fault.path), fault.text) for fault in faults]
    return tuple(fault for fault in located if not parsed.is_unreadable(fault.path))


def _check_lever_answers(shape: PolicyShape, _: Policy) -> Faults:
    for i, lever in enumerate(shape.levers):
        if (lever.labels is None) == (lever.number is None):
            problem = "both labels and a number" if lever.labels else "neither labels nor a number"
            yield DocumentFault(("levers", i), f"has {problem}; write one of labels: and number:")
        if lever.number is not None and lever.actions is not None:
            text = "a number is its own action; leave actions out"
            yield DocumentFault(("levers", i, "actions"), text)
        if lever.number is not None and lever.number.low >= lever.number.high:
            text = f"{lever.number.low:g} is not below to: {lever.number.high:g}; swap them"
            yield DocumentFault(("levers", i, "number", "from"), text)


def _check_cost_rows(shape: PolicyShape, _: Policy) -> Faults:
    for i, lever in enumerate(shape.levers):
        for j, row in enumerate(lever.costs or ()):
            path = ("levers", i, "costs", j)
            distances = [k for k in ("under", "over", "off") if getattr(row, k) is not None]
            actions = [k for k in ("did", "right") if getattr(row, k) is not None]
            for key in (*(actions if lever.number else ()), *(distances if lever.labels else ())):
                yield DocumentFault((*path, key), _describe_cost_mismatch(lever))
            if lever.number is not None and len(distances) > 1:
                text = f"has {' and '.join(distances)}; write a row for each"
                yield DocumentFault(path, text)


def _describe_cost_mismatch(lever: LeverShape) -> str:
    if lever.number is not None:
        return f"is for labels, and lever {lever.id} is a number; write under, over or off"
    return f"is for numbers, and lever {lever.id} has labels; write did and right"


def _check_answer_deadline(shape: PolicyShape, _: Policy) -> Faults:
    for i, lever in enumerate(shape.levers):
        if (lever.answer_within is None) != (lever.unanswered is None):
            present, absent = ("answer_within", "unanswered")
            if lever.answer_within is None:
                present, absent = absent, present
            text = f"is incomplete; write {absent} too, or neither"
            yield DocumentFault(("levers", i, present), text)


def _check_grace(shape: PolicyShape, policy: Policy) -> Faults:
    limits = [lever.answer_within for lever in shape.levers if lever.answer_within is not None]
    grace = policy.evidence.grace
    if limits and grace < max(limits):
        minimum = format_duration(max(limits))
        text = (
            f"{format_duration(grace)} ends before answer_within, {minimum}; write {minimum} or"
            " more"
        )
        yield DocumentFault(("evidence", "grace"), text)


def _check_blind_share(_: PolicyShape, policy: Policy) -> Faults:
    for i, stage in enumerate(policy.stages):
        if stage.reviewed_share <= 0:
            text = f"no unit in {stage.id} is decided blind; write blind: 50%, or audit: 10%"
            yield DocumentFault(("stages", i), text)
        elif policy.charter.feedback and stage.model_decides and stage.blind <= 0:
            text = "the charter names a feedback, so humans decide a share blind; write blind: 10%"
            yield DocumentFault(("stages", i, "blind"), text)


def _check_familiar(_: PolicyShape, policy: Policy) -> Faults:
    rule = policy.evidence.familiar
    if rule is None or rule.line is not None:
        return
    for cell in policy.cells:
        guards = policy.list_guards(cell)
        if not any(guard.condition.measure == "agreement" for guard in guards):
            text = f"{cell} has no guard of agreement that says how often; write line: 90%"
            yield DocumentFault(("evidence", "familiar"), text)
            return


def _check_limits(shape: PolicyShape, _: Policy) -> Faults:
    for i, limit in enumerate(shape.limits):
        if limit.never_above is None and limit.starts is None and limit.ends is None:
            text = "limits nothing; write never_above:, starts: or ends:"
            yield DocumentFault(("limits", i), text)
        if limit.starts is not None and limit.ends is not None and limit.starts > limit.ends:
            text = f"{limit.starts} is after ends: {limit.ends}; swap them"
            yield DocumentFault(("limits", i, "starts"), text)


def _check_waves(shape: PolicyShape, policy: Policy) -> Faults:
    if shape.waves is not None and shape.waves.share <= 0:
        yield DocumentFault(
            ("waves", "share"), "0% would open every wave at once; write more, or no waves"
        )
    waves = sorted({site.wave for site in policy.sites})
    for wave in () if shape.waves is None else shape.waves.opens:
        if wave not in map(str, waves):
            numbers = ", ".join(map(str, waves))
            text = f"no site is in wave {wave}; write one of {numbers}"
            yield DocumentFault(("waves", "opens", wave), text)


SECTION_CHECKS: tuple[PolicyCheck, ...] = (
    (("levers.*.labels", "levers.*.number"), _check_lever_answers),
    (("levers.*.number",), _check_cost_rows),
    (("levers.*.answer_within", "levers.*.unanswered"), _check_answer_deadline),
    (("evidence.grace",), _check_grace),
    (("stages.*.blind", "stages.*.audit"), _check_blind_share),
    (("evidence.familiar", "guards.*.*"), _check_familiar),
    (("limits.*.never_above", "limits.*.starts", "limits.*.ends"), _check_limits),
    ((), _check_waves),
)
CHECKS: tuple[PolicyCheck, ...] = (
    *SECTION_CHECKS,
    *NAME_CHECKS,
    *CONDITION_CHECKS,
    *OUTCOME_CHECKS,
    *PLANTED_CHECKS,
    *SET_CHECKS,
    *FLOOR_CHECKS,
    *FORGET_CHECKS,
    *WAVE_CHECKS,
    *REACH_CHECKS,
)
