"""Policy files read into a policy, or refused with all faults at once.

Some faults need more than one field to judge. A check is a function with the paths that it needs.
It is skipped if one of them is unreadable, because its faults would only follow from the fault that
is already reported.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

from rollout.kernel.calendar.instants import ALWAYS_WINDOW, Window, format_duration
from rollout.kernel.errors import PolicyRefusedError
from rollout.kernel.measures import MEASURES
from rollout.kernel.policy.evidence_sources import FileReading, ReadingBase
from rollout.kernel.policy.policy import (
    TIME_BETWEEN_FALSE_ALARMS,
    UNITS_BETWEEN_FALSE_ALARMS,
    Gate,
    GateBase,
    Guard,
    GuardBase,
    Policy,
    PolicyBase,
)
from rollout.kernel.policy_files.conditions import (
    CONDITION_CHECKS,
    OUTCOME_CHECKS,
    add_missing_guards,
    is_of_outcome,
    list_condition_rows,
    list_gain_rows,
    read_condition,
)
from rollout.kernel.policy_files.document import (
    ParsedPolicy,
    find_length_faults,
    find_size_faults,
    parse_document,
)
from rollout.kernel.policy_files.names import (
    NAME_CHECKS,
    REACH_CHECKS,
    Faults,
    PolicyCheck,
)
from rollout.kernel.policy_files.sections import (
    WrittenCondition,
    WrittenGate,
    WrittenGuard,
    WrittenPolicy,
    WrittenReading,
)
from rollout.kernel.policy_files.yaml_reader import (
    Document,
    DocumentFault,
    DocumentPath,
    format_path,
    read_document,
)
from rollout.kernel.populations import PLANTED
from rollout.kernel.units import (
    DECIDES,
    EMPTY_SET,
    MAX_SET_BYTES,
    PAIR_SIGN,
    PROPOSES,
    SEPARATOR,
    Lever,
)

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
    for path, row in list_condition_rows(written):
        if not MEASURES[row.measure].has_floors or row.slice is not None or row.of is not None:
            text = f"can't be read at several confidence floors yet; remove it, or {WRITE_ONE}"
            yield DocumentFault(path, text)


FLOOR_CHECKS: tuple[PolicyCheck, ...] = (
    (("evidence.confidence_floor", "evidence.confidence_floors"), _check_one_key),
    (("evidence.confidence_floors",), _check_several_floors),
    (("evidence.confidence_floors", "gates.*.require.*", "guards.*.*"), _check_conditions),
)


def _list_planted_rows(written: WrittenPolicy) -> Iterator[tuple[DocumentPath, WrittenCondition]]:
    """Yield the conditions with `of` that are about no outcome."""
    for path, row in list_condition_rows(written):
        if row.of is not None and not is_of_outcome(row):
            yield path, row


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
    for path, row in list_condition_rows(written):
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


def _check_stage_order(_: WrittenPolicy, policy: Policy) -> Faults:
    """Yield stages where the model decides or proposes less than below: narrowing would add to it.

    A human who confirms sees what the model proposes, so it sways more decisions.
    """
    shares = [(stage.model_decides, 1 - stage.blind) for stage in policy.stages]
    for i, (lower, upper) in enumerate(pairwise(policy.stages), start=1):
        if shares[i] < shares[i - 1]:
            text = (
                f"the model decides or proposes less at {upper.id} than below it, at {lower.id}, so"
                " narrowing would give it more; list stages from the narrowest to the widest"
            )
            yield DocumentFault(("stages", i), text)


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


def _check_familiar_gains(written: WrittenPolicy, _: Policy) -> Faults:
    if written.evidence.familiar is not None and next(list_gain_rows(written), None) is not None:
        text = (
            "units sent to humans as unfamiliar are in no arm, which conditions on gain can't tell"
            " yet; leave out familiar, or the conditions on gain"
        )
        yield DocumentFault(("evidence", "familiar"), text)


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
    (("stages.*.blind", "stages.*.audit"), _check_stage_order),
    (("evidence.familiar", "guards.*.*"), _check_familiar),
    (("evidence.familiar",), _check_familiar_gains),
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


DEFAULT_RISK, DEFAULT_MODEL_RISK = 0.05, 0.01


def build_policy(written: WrittenPolicy, text: str) -> Policy:
    """Return the policy of a parsed file, which may still have faults.

    Conditions with an unreadable threshold are excluded; `find_policy_faults` reports them.
    """
    shared = {each.name: getattr(written, each.name) for each in fields(PolicyBase)}
    sites = tuple(
        replace(
            site,
            timezone=site.timezone or written.timezone,
            country=site.country or written.country,
        )
        for site in written.sites
    )
    policy = Policy(
        **shared | {"sites": sites, "windows": written.windows or (Window(ALWAYS_WINDOW),)},
        gates=tuple(_build_gate(gate, written) for gate in written.gates),
        guards=tuple(_build_guards(written)),
        file_readings={row.records: _build_file_reading(row, written) for row in written.imports},
        hash=sha256(text.encode()).hexdigest(),
    )
    return add_missing_guards(policy)


def _build_gate(row: WrittenGate, written: WrittenPolicy) -> Gate:
    model_decides = any(stage.id == row.to and stage.model_decides for stage in written.stages)
    default_risk = DEFAULT_MODEL_RISK if model_decides else DEFAULT_RISK
    arm = DECIDES if model_decides else PROPOSES
    conditions = (
        read_condition(each, levers=len(written.levers), outcomes=written.outcomes, arm=arm)
        for each in row.require
    )
    return Gate(
        require=tuple(condition for condition in conditions if condition is not None),
        risk=default_risk if row.risk is None else row.risk,
        **{each.name: getattr(row, each.name) for each in fields(GateBase)},
    )


def _build_guards(written: WrittenPolicy) -> Iterator[Guard]:
    for row in written.guards:
        condition = read_condition(row, levers=len(written.levers), outcomes=written.outcomes)
        if condition is None:
            continue
        measure, units = MEASURES[row.measure], row.false_alarm_every
        shared = {each.name: getattr(row, each.name) for each in fields(GuardBase)}
        yield Guard(
            condition=condition,
            then=row.then or measure.guard_effect,
            false_alarm_every=units if isinstance(units, float) else UNITS_BETWEEN_FALSE_ALARMS,
            false_alarm_span=_find_alarm_span(row),
            **shared | {"over": row.over or measure.guard_span},
        )


def _find_alarm_span(row: WrittenGuard) -> timedelta | None:
    """Return the time between false alarms; a measure that has none keeps units."""
    if not MEASURES[row.measure].is_timed or isinstance(row.false_alarm_every, float):
        return None
    return row.false_alarm_every or TIME_BETWEEN_FALSE_ALARMS


def _build_file_reading(row: WrittenReading, written: WrittenPolicy) -> FileReading:
    sources = row.columns or {}
    attributes = sources.get("attributes")
    if isinstance(attributes, list):
        attributes = dict(zip(attributes, attributes, strict=True))
    return FileReading(
        **{each.name: getattr(row, each.name) for each in fields(ReadingBase)},
        columns={name: column for name, column in sources.items() if isinstance(column, str)},
        constants={
            name: source["value"]
            for name, source in sources.items()
            if isinstance(source, dict) and name != "attributes"
        },
        attributes=attributes,
        number_levers=frozenset(lever.id for lever in written.levers if lever.number is not None),
    )


@dataclass(frozen=True, slots=True)
class PolicyFault:
    """Where a policy file is wrong, and how.

    >>> print(PolicyFault("policy.yaml", 1, "(file)", "is empty"))
    policy.yaml:1: (file): is empty
    """

    name: str
    line: int
    field: str
    text: str

    def __str__(self) -> str:
        """Return file, line, field, the problem and its remedy."""
        return f"{self.name}:{self.line}: {self.field}: {self.text}"


class InvalidPolicyError(PolicyRefusedError):
    """A refused policy file; its text has a line for each fault."""

    def __init__(self, faults: tuple[PolicyFault, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


def load_policy(path: str | Path) -> Policy:
    """Read a policy file, YAML or JSON.

    Raises:
        InvalidPolicyError: the file is not a valid policy.
        OSError: the file can't be opened.
    """
    return parse_policy(read_policy_text(Path(path)), name=Path(path).name)


def read_policy_text(path: Path) -> str:
    """Read the text of a policy file; a pipe can be read only once.

    Raises:
        InvalidPolicyError: the file is empty or not UTF-8.
        OSError: the file can't be opened.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        fault_text = f"is not UTF-8 (byte {error.start}); save it as UTF-8"
        raise InvalidPolicyError((PolicyFault(path.name, 1, "(file)", fault_text),)) from None
    if not text.strip():  # as a refused `rollout init > FILE` leaves it
        fault_text = "is empty; write a policy, or draft one by `rollout init`"
        raise InvalidPolicyError((PolicyFault(path.name, 1, "(file)", fault_text),))
    return text


def parse_policy(text: str, *, name: str = "policy.yaml") -> Policy:
    """Parse the text of a policy, one YAML or JSON document.

    Args:
        text: the document.
        name: file name for the faults.

    Raises:
        InvalidPolicyError: with all faults.

    >>> parse_policy("rollout: a b")
    Traceback (most recent call last):
    rollout.kernel.policy_files.reader.InvalidPolicyError: policy.yaml:1: rollout: 'a b' is ...
    """
    document, parsed, policy = _read_policy(text, name)
    faults = (*document.faults, *parsed.faults, *find_policy_faults(parsed, policy))
    if faults:
        raise InvalidPolicyError(_place_faults(document, faults, name))
    return policy


def parse_checked_policy(text: str) -> Policy:
    """Parse a text that `parse_policy` has accepted before: what it means is not checked again.

    Whether hours ever open takes arrays of five years of each window.

    Raises:
        InvalidPolicyError: as `parse_policy`, of what can't be read.
    """
    document, parsed, policy = _read_policy(text, "policy.yaml")
    if faults := (*document.faults, *parsed.faults):
        raise InvalidPolicyError(_place_faults(document, faults, "policy.yaml"))
    return policy


def _read_policy(text: str, name: str) -> tuple[Document, ParsedPolicy, Policy]:
    document = read_document(text)
    if document.value is None:
        raise InvalidPolicyError(_place_faults(document, document.faults, name))
    if length_faults := find_length_faults(document.value):
        raise InvalidPolicyError(_place_faults(document, (*document.faults, *length_faults), name))
    parsed = parse_document(document)
    if large := find_size_faults(parsed.written):
        raise InvalidPolicyError(
            _place_faults(document, (*document.faults, *parsed.faults, *large), name)
        )
    return document, parsed, build_policy(parsed.written, text)


def _place_faults(
    document: Document, faults: tuple[DocumentFault, ...], name: str
) -> tuple[PolicyFault, ...]:
    rows = sorted(
        (document.find_line(fault.path), index, fault) for index, fault in enumerate(faults)
    )
    return tuple(
        PolicyFault(name, line, format_path(fault.path), fault.text) for line, _, fault in rows
    )
