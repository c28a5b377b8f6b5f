"""Find the faults of a policy that need more than one field to judge.

A check is a function with the paths that it needs. It is skipped if one of them is unreadable,
because its faults would only follow from the fault that is already reported.
"""

from collections.abc import Iterator

from rollout.core.calendar.instants import format_duration
from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.formats.policy.conditions import CONDITION_CHECKS
from rollout.formats.policy.document import ParsedPolicy
from rollout.formats.policy.measures import is_of_outcome
from rollout.formats.policy.model import WrittenCondition, WrittenPolicy
from rollout.formats.policy.names import NAME_CHECKS, Faults, PolicyCheck
from rollout.formats.policy.outcome_checks import OUTCOME_CHECKS
from rollout.formats.policy.reachability import REACH_CHECKS
from rollout.formats.policy.yaml_reader import DocumentFault, DocumentPath
from rollout.kernel.label_sets import EMPTY_SET, MAX_SET_BYTES, PAIR_SIGN, SEPARATOR
from rollout.kernel.measures import MEASURES
from rollout.kernel.populations import PLANTED

FLOORS_PATH: DocumentPath = ("evidence", "confidence_floors")
WRITE_ONE = "write one floor"
OVERLAP_TEXT = "is of sets of labels; write many: true, or leave it out"
BLIND_TEXT = "share and blind exclude each other: humans decide the rest blind; leave it out"


def _check_one_key(written: WrittenPolicy, _: Policy) -> Faults:
    if written.evidence.confidence_floor is not None and written.evidence.confidence_floors:
        text = "and confidence_floor are both written; write one of them"
        yield DocumentFault(FLOORS_PATH, text)


def _check_several_floors(_: WrittenPolicy, policy: Policy) -> Faults:
    """Check what a whole policy may have beside several floors."""
    if policy.evidence.higher_floors:
        for problem in _list_problems(policy):
            yield DocumentFault(FLOORS_PATH, f"has several floors, but {problem}")


def _list_problems(policy: Policy) -> Iterator[str]:
    if len(policy.levers) > 1:
        yield (
            f"a case has one confidence for {len(policy.levers)} levers; {WRITE_ONE}, or roll out"
            " each lever by itself"
        )
    for lever in policy.levers:
        if lever.many or lever.number is not None:
            kind = "sets of labels" if lever.many else "a number"
            yield f"lever {lever.id} has {kind}, and confidence is of one label; {WRITE_ONE}"
    if policy.evidence.unit == "episode":
        yield f"the cases of an episode have one each; {WRITE_ONE}, or write unit: case"
    if policy.evidence.familiar is not None:
        yield f"familiar cases have no floors of their own yet; {WRITE_ONE}, or remove familiar"
    if policy.waves is not None:
        yield f"waves don't ask which floor a cell holds yet; {WRITE_ONE}, or remove waves"


def _check_conditions(written: WrittenPolicy, policy: Policy) -> Faults:
    """Check that conditions count decided cases, which have a confidence each."""
    if not policy.evidence.higher_floors:
        return
    for path, row in _list_rows(written):
        if not MEASURES[row.measure].has_floors or row.slice is not None or row.of is not None:
            text = f"can't be read at several confidence floors yet; remove it, or {WRITE_ONE}"
            yield DocumentFault(path, text)


def _list_rows(written: WrittenPolicy) -> Iterator[tuple[DocumentPath, WrittenCondition]]:
    for i, gate in enumerate(written.gates):
        for j, condition in enumerate(gate.require):
            yield ("gates", i, "require", j), condition
    for i, guard in enumerate(written.guards):
        yield ("guards", i), guard


FLOOR_CHECKS: tuple[PolicyCheck, ...] = (
    (("evidence.confidence_floor", "evidence.confidence_floors"), _check_one_key),
    (("evidence.confidence_floors",), _check_several_floors),
    (("evidence.confidence_floors", "gates.*.require.*", "guards.*.*"), _check_conditions),
)


def _list_planted_rows(written: WrittenPolicy) -> Iterator[tuple[DocumentPath, WrittenCondition]]:
    """Yield the conditions with `of` that are about no outcome."""
    for i, gate in enumerate(written.gates):
        for j, row in enumerate(gate.require):
            if row.of is not None and not is_of_outcome(row):
                yield ("gates", i, "require", j), row
    for i, guard in enumerate(written.guards):
        if guard.of is not None and not is_of_outcome(guard):
            yield ("guards", i), guard


def _check_population(written: WrittenPolicy, _: Policy) -> Faults:
    for path, row in _list_planted_rows(written):
        if fault := _find_fault(row, is_guard=path[0] == "guards"):
            yield DocumentFault((*path, "of"), fault)


def _find_fault(row: WrittenCondition, *, is_guard: bool) -> str:
    """Return what is wrong with `of`, or ""."""
    measures = " and ".join(name for name, measure in MEASURES.items() if measure.has_planted)
    if not MEASURES[row.measure].has_planted:
        return f"does not apply to {row.measure}; leave it out"
    if row.of != PLANTED:
        text = f"can only be {PLANTED} for {row.measure}"
        return f"{text}; leave it out for the cases that occur"
    if is_guard:
        return "guards watch the cases that occur; leave it out, and require it in a gate"
    if row.slice is not None:
        return f"planted cases have no slices; leave slice or of out ({measures} alone)"
    return ""


def _check_natural_condition(written: WrittenPolicy, _: Policy) -> Faults:
    """Check that no gate opens on planted cases alone."""
    for i, gate in enumerate(written.gates):
        if all(row.of == PLANTED and MEASURES[row.measure].has_planted for row in gate.require):
            text = (
                "requires planted cases alone, which prove nothing about the cases that occur; add"
                " {measure: agreement, at_least: 95%}"
            )
            yield DocumentFault(("gates", i, "require"), text)


PLANTED_CHECKS: tuple[PolicyCheck, ...] = (
    (("gates.*.require.*.of", "guards.*.of"), _check_population),
    (("gates.*.require.*",), _check_natural_condition),
)


def _check_set_keys(written: WrittenPolicy, _: Policy) -> Faults:
    for i, lever in enumerate(written.levers):
        path: DocumentPath = ("levers", i)
        if lever.many and not lever.labels:
            yield DocumentFault((*path, "many"), "is for labels; leave it out, or write labels:")
        if lever.many and lever.named_actions:
            yield DocumentFault((*path, "actions"), "a set is its own action; leave actions out")
        if lever.many and not (len(lever.costs) == 1 and lever.costs[0].is_of_any):
            text = "sets that differ cost the same, however they differ; write one row, {cost: 1}"
            yield DocumentFault((*path, "costs"), text)


def _check_set_labels(written: WrittenPolicy, _: Policy) -> Faults:
    for i, lever in enumerate(written.levers):
        labels = lever.labels if lever.many else ()
        for j, label in enumerate(labels):
            signs = [sign for sign in (SEPARATOR, PAIR_SIGN.strip()) if sign in label]
            if signs or label == EMPTY_SET:
                problem = f"has {signs[0]!r}" if signs else f"is {EMPTY_SET!r}"
                text = f"{problem}, which the text of a set needs itself; rename the label"
                yield DocumentFault(("levers", i, "labels", j), text)
        size = len(SEPARATOR.join(labels).encode())
        if size > MAX_SET_BYTES:
            text = (
                f"take {size} bytes together, and a set has at most {MAX_SET_BYTES}; shorten them"
            )
            yield DocumentFault(("levers", i, "labels"), text)


def _check_set_measures(written: WrittenPolicy, policy: Policy) -> Faults:
    for path, row in _list_set_rows(written):
        if MEASURES[row.measure].has_sets or row.slice is not None:
            continue
        levers = policy.levers if row.lever is None else [policy.levers_by_id.get(row.lever)]
        names = [lever.id for lever in levers if lever is not None and lever.many]
        if names:
            text = (
                f"lever {names[0]} has sets of labels, and {row.measure} compares single labels;"
                " use agreement, or recall or precision of a label"
            )
            yield DocumentFault((*path, "measure"), text)


def _list_set_rows(written: WrittenPolicy) -> Iterator[tuple[DocumentPath, WrittenCondition]]:
    for i, gate in enumerate(written.gates):
        for j, condition in enumerate(gate.require):
            yield ("gates", i, "require", j), condition
    for i, guard in enumerate(written.guards):
        yield ("guards", i), guard


SET_CHECKS: tuple[PolicyCheck, ...] = (
    (("levers.*.many", "levers.*.labels", "levers.*.costs.*"), _check_set_keys),
    (("levers.*.many", "levers.*.labels.*"), _check_set_labels),
    (("levers.*.many", "levers.*.id", "guards.*.lever", "guards.*.slice"), _check_set_measures),
)


def _find_needless_keys(parsed: ParsedPolicy) -> Faults:
    """Yield a fault for each key beside which another says nothing, also at its default."""
    for i, row in parsed.list_rows("levers"):
        if "overlap" in row and row.get("many", "false") == "false":
            yield DocumentFault(("levers", i, "overlap"), OVERLAP_TEXT)
    for i, row in parsed.list_rows("stages"):
        if "share" in row and "blind" in row:
            yield DocumentFault(("stages", i, "blind"), BLIND_TEXT)


def find_policy_faults(parsed: ParsedPolicy, policy: Policy) -> tuple[DocumentFault, ...]:
    """Return the faults of all checks whose fields are readable, with document paths."""
    checks = [check for needs, check in CHECKS if parsed.has_paths(*needs)]
    faults = [fault for check in checks for fault in check(parsed.written, policy)]
    located = [DocumentFault(parsed.find_origin(fault.path), fault.text) for fault in faults]
    located += _find_needless_keys(parsed)
    return tuple(fault for fault in located if not parsed.is_unreadable(fault.path))


def _check_lever_answers(written: WrittenPolicy, _: Policy) -> Faults:
    for i, lever in enumerate(written.levers):
        if bool(lever.labels) == (lever.number is not None):
            problem = "both labels and a number" if lever.labels else "neither labels nor a number"
            yield DocumentFault(("levers", i), f"has {problem}; write one of labels: and number:")
        if lever.number is not None and lever.named_actions:
            text = "a number is its own action; leave actions out"
            yield DocumentFault(("levers", i, "actions"), text)
        if lever.number is not None and lever.number.low >= lever.number.high:
            text = f"{lever.number.low:g} is not below to: {lever.number.high:g}; swap them"
            yield DocumentFault(("levers", i, "number", "from"), text)


def _check_cost_rows(written: WrittenPolicy, _: Policy) -> Faults:
    for i, lever in enumerate(written.levers):
        for j, row in enumerate(lever.costs):
            path = ("levers", i, "costs", j)
            distances = [k for k in ("under", "over", "off") if getattr(row, k) is not None]
            actions = [k for k in ("did", "right") if getattr(row, k) is not None]
            for key in (*(actions if lever.number else ()), *(distances if lever.labels else ())):
                yield DocumentFault((*path, key), _describe_cost_mismatch(lever))
            if lever.number is not None and len(distances) > 1:
                text = f"has {' and '.join(distances)}; write a row for each"
                yield DocumentFault(path, text)


def _describe_cost_mismatch(lever: Lever) -> str:
    if lever.number is not None:
        return f"is for labels, and lever {lever.id} is a number; write under, over or off"
    return f"is for numbers, and lever {lever.id} has labels; write did and right"


def _check_answer_deadline(written: WrittenPolicy, _: Policy) -> Faults:
    for i, lever in enumerate(written.levers):
        if (lever.answer_within is None) != (lever.unanswered is None):
            present, absent = ("answer_within", "unanswered")
            if lever.answer_within is None:
                present, absent = absent, present
            text = f"is incomplete; write {absent} too, or neither"
            yield DocumentFault(("levers", i, present), text)


def _check_vouched(written: WrittenPolicy, policy: Policy) -> Faults:
    """Yield vouched senders that are named twice, or that may be later than the units close."""
    grace, accounts = policy.evidence.grace, set[str]()
    for number, row in enumerate(written.evidence.sources.vouched_senders):
        path = ("evidence", "sources", "vouched", number)
        if row.account in accounts:
            yield DocumentFault((*path, "account"), f"{row.account} is vouched for twice")
        if row.within > grace:
            text = (
                f"{format_duration(row.within)} ends after grace, {format_duration(grace)}, when"
                " units are counted; write a longer grace"
            )
            yield DocumentFault((*path, "within"), text)
        accounts.add(row.account)


def _check_grace(written: WrittenPolicy, policy: Policy) -> Faults:
    limits = [lever.answer_within for lever in written.levers if lever.answer_within is not None]
    grace = policy.evidence.grace
    if limits and grace < max(limits):
        minimum = format_duration(max(limits))
        text = (
            f"{format_duration(grace)} ends before answer_within, {minimum}; write {minimum} or"
            " more"
        )
        yield DocumentFault(("evidence", "grace"), text)


def _check_blind_share(_: WrittenPolicy, policy: Policy) -> Faults:
    for i, stage in enumerate(policy.stages):
        if stage.reviewed_share <= 0:
            text = f"no unit in {stage.id} is decided blind; write blind: 50%, or audit: 10%"
            yield DocumentFault(("stages", i), text)
        elif policy.charter.feedback and stage.model_decides and stage.blind <= 0:
            text = "the charter names a feedback, so humans decide a share blind; write blind: 10%"
            yield DocumentFault(("stages", i, "blind"), text)


def _check_familiar(_: WrittenPolicy, policy: Policy) -> Faults:
    rule = policy.evidence.familiar
    if rule is None or rule.line is not None:
        return
    for cell in policy.cells:
        guards = policy.list_guards(cell)
        if not any(guard.condition.measure.covers_all_labels for guard in guards):
            text = f"{cell} has no guard of agreement that says how often; write line: 90%"
            yield DocumentFault(("evidence", "familiar"), text)
            return


def _check_limits(written: WrittenPolicy, _: Policy) -> Faults:
    for i, limit in enumerate(written.limits):
        if limit.never_above is None and limit.ends is None:
            text = "limits nothing; write never_above: or ends:"
            yield DocumentFault(("limits", i), text)


def _check_waves(written: WrittenPolicy, _: Policy) -> Faults:
    if written.waves is not None and written.waves.share <= 0:
        yield DocumentFault(
            ("waves", "share"), "0% would open every wave at once; write more, or no waves"
        )


SECTION_CHECKS: tuple[PolicyCheck, ...] = (
    (("levers.*.labels", "levers.*.number"), _check_lever_answers),
    (("levers.*.number",), _check_cost_rows),
    (("levers.*.answer_within", "levers.*.unanswered"), _check_answer_deadline),
    (("evidence.grace",), _check_grace),
    (("evidence.sources.vouched",), _check_vouched),
    (("stages.*.blind", "stages.*.audit"), _check_blind_share),
    (("evidence.familiar", "guards.*.*"), _check_familiar),
    (("limits.*.never_above", "limits.*.ends"), _check_limits),
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
    *REACH_CHECKS,
)
