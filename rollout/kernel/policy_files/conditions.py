"""Conditions of gates and guards in a policy file: read, checked, and guards added where missing.

A threshold is read in its measure's unit. Measure, direction, unit, label and lever are checked.

Guards that a policy omits are added. A gate judges the average so far; only a guard detects that a
model becomes worse. So each measure that a gate requires gets a guard, with a threshold below the
gate's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

from rollout.kernel.calendar.instants import Cell, format_duration
from rollout.kernel.errors import describe_value_error
from rollout.kernel.measures import (
    MEASURES,
    UNAUDITED,
    Condition,
    Measure,
    MeasureKey,
    Subject,
    ThresholdUnit,
    Watch,
)
from rollout.kernel.policy.policy import TIME_BETWEEN_FALSE_ALARMS, Gate, Guard, Policy, Where
from rollout.kernel.policy.stages import HIGHEST_SHARE, LOWEST_SHARE
from rollout.kernel.policy_files import fields
from rollout.kernel.policy_files.names import RESERVED, Faults, PolicyCheck, describe_unknown_name
from rollout.kernel.policy_files.sections import (
    WrittenCondition,
    WrittenGate,
    WrittenGuard,
    WrittenPolicy,
)
from rollout.kernel.policy_files.yaml_reader import DocumentFault, DocumentPath
from rollout.kernel.populations import ALL_UNITS, PLANTED, BothArms, EachValue, PlantedUnits
from rollout.kernel.units import DECIDES, Lever, OutcomeRule, find_outcome


def parse_threshold(measure: Measure, text: str) -> float:
    """Return a threshold in the measure's unit: a share, a cost, a count or seconds.

    Raises:
        ValueError: the text has the wrong form, or no evidence can decide at this threshold.

    >>> (
    ...     parse_threshold(MEASURES["agreement"], "95%"),
    ...     parse_threshold(MEASURES["heartbeat"], "2h"),
    ...     parse_threshold(MEASURES["cost"], "0.3"),
    ...     parse_threshold(MEASURES["harm"], "1"),
    ... )
    (0.95, 7200.0, 0.3, 1.0)
    """
    return float(_PARSERS[measure.unit](text))  # a count, too: facts have one form of it


_PARSERS: Mapping[ThresholdUnit, Callable[[str], float]] = MappingProxyType(
    {
        ThresholdUnit.SHARE: fields.build_limited_reader(
            fields.read_share,
            lambda share: 0 < share < 1,
            "{text!r} can never be proven; write more than 0% and less than 100%",
        ),
        ThresholdUnit.PART: fields.build_limited_reader(
            fields.read_share,
            lambda share: share < 1,
            "{text!r} would never be passed; write less than 100%",
        ),
        ThresholdUnit.PER_HUNDRED: fields.build_limited_reader(
            fields.read_cost,
            lambda cost: cost < 100,
            "{text!r} per 100 would never be passed; write less than 100",
        ),
        ThresholdUnit.COST: fields.build_limited_reader(
            fields.read_cost,
            bool,
            "no evidence can show that nothing is ever lost; write more than 0",
        ),
        ThresholdUnit.COUNT: fields.read_count,
        ThresholdUnit.SECONDS: lambda text: fields.read_positive_duration(text).total_seconds(),
        ThresholdUnit.VALUE: fields.read_number,
    }
)


def is_of_outcome(row: WrittenCondition) -> bool:
    """Return whether a row is about an outcome, which its `of` names."""
    return MEASURES[row.measure].subject is Subject.OUTCOME


def read_condition(
    row: WrittenCondition, *, levers: int, outcomes: Iterable[OutcomeRule] = (), arm: str = ""
) -> Condition | None:
    """Return the condition of a row, or None if its threshold is missing or unreadable.

    With a single lever `lever:` is dropped, so that equal conditions compare equal. A gain needs
    its outcome; `arm` is what the model does at the gate's stage.
    """
    measure = MEASURES[row.measure]
    text = row.at_least if measure.at_least else row.at_most
    try:
        threshold = None if text is None else parse_threshold(measure, text)
    except ValueError:
        threshold = None
    if threshold is None:
        return None
    if is_of_outcome(row):
        return _build_gain_condition(threshold, row, outcomes, arm)
    lever = row.lever if levers > 1 else None
    if row.slice is not None:
        return Condition(measure, threshold, lever=lever, population=EachValue(row.slice))
    population = PlantedUnits() if row.of == PLANTED else ALL_UNITS
    return Condition(measure, threshold, row.label, lever, row.action, population)


def _build_gain_condition(
    threshold: float, row: WrittenCondition, outcomes: Iterable[OutcomeRule], arm: str
) -> Condition | None:
    outcome = find_outcome(outcomes, row.of or "")
    if outcome is None or outcome.span <= 0:
        return None
    return Condition(MEASURES[row.measure], threshold, population=BothArms(outcome, arm))


ConditionRow = tuple[DocumentPath, WrittenCondition]


def list_condition_rows(written: WrittenPolicy) -> Iterator[ConditionRow]:
    """Yield the conditions of gates and guards, each with its place."""
    for i, gate in enumerate(written.gates):
        for j, condition in enumerate(gate.require):
            yield ("gates", i, "require", j), condition
    for i, guard in enumerate(written.guards):
        yield ("guards", i), guard


def _check_measure_place(written: WrittenPolicy, _: Policy) -> Faults:
    for path, row in list_condition_rows(written):
        measure = MEASURES[row.measure]
        if path[0] == "gates" and not measure.for_gate:
            gate_measures = ", ".join(name for name, other in MEASURES.items() if other.for_gate)
            text = (
                f"a gate can't require {measure}; {measure.gate_hint} (gates take {gate_measures})"
            )
            yield DocumentFault((*path, "measure"), text)
        if path[0] == "guards" and not measure.guard_effect:
            text = f"a guard can't watch {row.measure}; require it in a gate, and guard agreement"
            yield DocumentFault((*path, "measure"), text)


def _check_threshold(written: WrittenPolicy, _: Policy) -> Faults:
    for path, row in list_condition_rows(written):
        measure = MEASURES[row.measure]
        is_minimum = measure.at_least
        key, wrong_key = ("at_least", "at_most") if is_minimum else ("at_most", "at_least")
        text, other = (row.at_least, row.at_most) if is_minimum else (row.at_most, row.at_least)
        if other is not None:
            better = "higher" if is_minimum else "lower"
            threshold = text or suggest_threshold(measure, other)
            message = (
                f"does not apply to {row.measure}, where {better} is better; write {key}:"
                f" {threshold}"
            )
            yield DocumentFault((*path, wrong_key), message)
        elif text is None:
            yield DocumentFault(
                path, f"has no threshold for {row.measure}; write {key}: {measure.example}"
            )
        if text is not None and (message := describe_value_error(parse_threshold, measure, text)):
            yield DocumentFault((*path, key), message)


def suggest_threshold(measure: Measure, text: str) -> str:
    """Return a threshold for one written under the wrong key, never a looser one.

    >>> [suggest_threshold(MEASURES["agreement"], text) for text in ("5%", "95%")]
    ['95%', '95%']
    >>> suggest_threshold(MEASURES["override"], "95%")
    '5%'
    """
    if measure.unit not in {ThresholdUnit.SHARE, ThresholdUnit.PART}:
        return text
    try:
        share = fields.read_signed_share(text)
    except ValueError:
        return measure.example
    strictest = max if measure.at_least else min
    share = strictest(abs(share), 1 - abs(share))
    is_decidable = measure.unit is ThresholdUnit.PART or share not in {0.0, 1.0}
    return f"{share * 100:g}%" if is_decidable else measure.example


def _check_subject(written: WrittenPolicy, policy: Policy) -> Faults:
    """Check that label, action and lever are present exactly where the measure needs them."""
    for path, row in list_condition_rows(written):
        measure = MEASURES[row.measure]
        for key, value, subject, allowed_subjects in (
            ("label", row.label, Subject.LABEL, {Subject.LABEL, Subject.HARM}),
            ("action", row.action, Subject.ACTION, {Subject.ACTION}),
        ):
            if value is not None and measure.subject not in allowed_subjects:
                yield DocumentFault((*path, key), f"does not apply to {row.measure}; leave it out")
            elif value is None and measure.subject is subject:
                values = next(
                    (_list_values(lever, key) for lever in policy.levers if lever.labels), ()
                )
                example = f", such as {key}: {values[0]}" if values else ""
                yield DocumentFault(path, f"{row.measure} is of one {key}; name it{example}")
        if row.lever is not None and not measure.needs_lever:
            text = f"{row.measure} is of all levers together; leave lever out"
            yield DocumentFault((*path, "lever"), text)


def _check_slice(written: WrittenPolicy, _: Policy) -> Faults:
    """Check that a slice is of agreement or drift."""
    for path, row in list_condition_rows(written):
        if row.slice is not None and not MEASURES[row.measure].has_slices:
            text = f"does not apply to {row.measure}; leave it out, or write measure: agreement"
            yield DocumentFault((*path, "slice"), text)


def _check_drift(written: WrittenPolicy, policy: Policy) -> Faults:
    """Check that drift watches labels, of one lever or by slice."""
    for i, row in enumerate(written.guards):
        if MEASURES[row.measure].watch is not Watch.LABELS:
            continue
        if row.slice is not None and row.lever is not None:
            text = "a slice is of cases, not of answers; leave lever or slice out"
            yield DocumentFault(("guards", i, "lever"), text)
        lever_id = row.lever or (policy.levers[0].id if len(policy.levers) == 1 else None)
        lever = policy.levers_by_id.get(lever_id or "")
        if row.slice is None and (lever is None or lever.number is not None):
            names = ", ".join(v.id for v in policy.levers if v.number is None) or "none"
            text = f"drift needs slice:, or a lever with labels ({names}); name one"
            yield DocumentFault(("guards", i), text)


def _list_values(lever: Lever, key: str) -> tuple[str, ...]:
    return lever.labels if key == "label" else tuple(dict.fromkeys(lever.actions))


def _check_lever(written: WrittenPolicy, policy: Policy) -> Faults:
    for path, row in list_condition_rows(written):
        if row.lever is not None and row.lever not in policy.levers_by_id:
            yield DocumentFault(
                (*path, "lever"), describe_unknown_name(row.lever, policy.levers_by_id, "lever")
            )
        elif MEASURES[row.measure].subject in {Subject.LABEL, Subject.ACTION}:
            yield from _check_lever_value(path, row, policy)


def _check_lever_value(path: DocumentPath, row: WrittenCondition, policy: Policy) -> Faults:
    is_label = MEASURES[row.measure].subject is Subject.LABEL
    key, value = ("label", row.label) if is_label else ("action", row.action)
    if row.lever is None and len(policy.levers) > 1:
        names = ", ".join(policy.levers_by_id)
        text = f"there are several levers; write lever: with one of {names}"
        yield DocumentFault(path, text)
        return
    lever = policy.levers[0] if row.lever is None else policy.levers_by_id[row.lever]
    values = _list_values(lever, key)
    if lever.number is not None:
        text = f"lever {lever.id} is a number and has no {key}s; use agreement or cost"
        yield DocumentFault((*path, "measure"), text)
    elif value is not None and values and value not in values:
        yield DocumentFault((*path, key), describe_unknown_name(value, values, key))


def _check_cost_threshold(written: WrittenPolicy, policy: Policy) -> Faults:
    for path, row in list_condition_rows(written):
        condition = read_condition(row, levers=len(policy.levers))
        if (
            MEASURES[row.measure].unit is ThresholdUnit.COST
            and condition is not None
            and condition.threshold >= policy.largest_cost
        ):
            text = (
                f"{condition.threshold:g} is never passed: the largest cost of a unit is "
                f"{policy.largest_cost:g}; write less than that"
            )
            yield DocumentFault((*path, "at_most"), text)


def _build_guard_check(
    key: str, is_fault: Callable[[WrittenGuard, Measure], bool], text: str
) -> Callable[[WrittenPolicy, Policy], Faults]:
    """Return a check of one key of each guard; `{measure}` in the text is the guard's."""

    def check_guards(written: WrittenPolicy, _: Policy) -> Faults:
        for i, row in enumerate(written.guards):
            if is_fault(row, MEASURES[row.measure]):
                yield DocumentFault(("guards", i, key), text.format(measure=row.measure))

    return check_guards


def _join_names(measures: Iterable[Measure]) -> str:
    return ", ".join(sorted(measure.name for measure in measures))


_check_suspending_measure = _build_guard_check(
    "then",
    lambda row, measure: (
        row.then == "suspend"
        and row.slice is None
        and not measure.is_operational
        and measure.watch is not Watch.LABELS
    ),
    f"only {_join_names(m for m in MEASURES.values() if m.is_operational)}, drift and slices"
    " suspend; write one-stage, shadow or report",
)
_check_alarm_interval = _build_guard_check(
    "false_alarm_every",
    lambda row, measure: isinstance(row.false_alarm_every, timedelta) and not measure.is_timed,
    f"a time is for {_join_names(m for m in MEASURES.values() if m.is_timed)}; write units for"
    " {measure}, such as 10000",
)
"""Quality guards count units: their records are too uneven for a time."""
_check_holds = _build_guard_check(
    "holds",
    lambda row, measure: row.holds != "rollout" and measure.watch is not Watch.HARMS,
    "is about harm; an alarm of {measure} holds nothing elsewhere: leave it out",
)


def _check_guard_span(written: WrittenPolicy, policy: Policy) -> Faults:
    for i, row in enumerate(written.guards):
        span = row.over or MEASURES[row.measure].guard_span
        if span is not None and span < policy.tick:
            yield DocumentFault(("guards", i, "over"), _describe_short_span(row, span, policy.tick))


def _describe_short_span(row: WrittenGuard, span: timedelta, tick: timedelta) -> str:
    default_text = "" if row.over else " by default"
    minimum = format_duration(tick)
    return (
        f"is {format_duration(span)}{default_text}, below the tick of {minimum}; write {minimum} or"
        " more"
    )


def _check_distinct_guards(written: WrittenPolicy, policy: Policy) -> Faults:
    levers = len(policy.levers)
    readable_rows = [
        i
        for i, g in enumerate(written.guards)
        if read_condition(g, levers=levers, outcomes=policy.outcomes) is not None
    ]
    # Added guards follow the written ones, so `zip` drops them.
    written_guards = list(zip(readable_rows, policy.guards, strict=False))
    for n, (i, guard) in enumerate(written_guards):
        duplicate_row = next(
            (j for j, other in written_guards[:n] if _is_same_guard(other, guard, policy)), None
        )
        if duplicate_row is not None:
            text = f"watches what guards[{duplicate_row}] watches, in the same cells; remove one"
            yield DocumentFault(("guards", i), text)


def _is_same_guard(first: Guard, second: Guard, policy: Policy) -> bool:
    shares_cell = any(first.where.fits(cell) and second.where.fits(cell) for cell in policy.cells)
    return first.id == second.id and shares_cell


def _build_section_checks(
    check: Callable[[WrittenPolicy, Policy], Faults], keys: tuple[str, ...], *needs: str
) -> Iterator[PolicyCheck]:
    """Yield a check for gates and one for guards, each skipped on its own."""
    for section, row in (("gates", "gates.*.require.*"), ("guards", "guards.*")):

        def check_section(written: WrittenPolicy, policy: Policy, section: str = section) -> Faults:
            return (fault for fault in check(written, policy) if fault.path[0] == section)

        yield (*needs, *(f"{row}.{key}" for key in keys)), check_section


_LABELS = ("levers.*.labels", "levers.*.labels.*")
_LEVERS = ("levers.*.id", *_LABELS, "levers.*.actions.*", "levers.*.number")
_NAMES = ("label", "action", "lever")

CONDITION_CHECKS: tuple[PolicyCheck, ...] = (
    ((), _check_measure_place),
    *_build_section_checks(_check_threshold, ("at_least", "at_most")),
    *_build_section_checks(_check_subject, _NAMES, *_LABELS),
    *_build_section_checks(_check_lever, _NAMES, *_LEVERS),
    *_build_section_checks(_check_slice, ("slice",)),
    (("levers.*.labels", "levers.*.number", "guards.*.lever", "guards.*.slice"), _check_drift),
    (("levers.*.costs.*.cost",), _check_cost_threshold),
    ((), _check_suspending_measure),
    (("guards.*.false_alarm_every",), _check_alarm_interval),
    ((), _check_holds),
    (("tick", "guards.*.over"), _check_guard_span),
    (("guards.*", "sites.*.id", "windows.*.id"), _check_distinct_guards),
)


ERROR_FACTOR = 1.4  # times the error that the gate permits


def add_missing_guards(policy: Policy) -> Policy:
    """Return the policy with a narrowing guard for each measure that its gates require.

    Guards watch the cases that occur, so a condition on planted cases gets none.
    A guard that only reports does not count, because it narrows no cell.
    """
    required = _collect_required(policy)
    added_guards = [
        guard for key in required for guard in _build_missing_guards(policy, key, required[key])
    ]
    return replace(policy, guards=(*policy.guards, *added_guards, *_build_unaudited_guard(policy)))


def _collect_required(policy: Policy) -> dict[MeasureKey, list[tuple[Gate, Condition]]]:
    required: dict[MeasureKey, list[tuple[Gate, Condition]]] = {}
    for gate in policy.gates:
        for condition in gate.require:
            if condition.population.is_planted:
                continue
            watched = _build_watched_condition(condition)
            required.setdefault(watched.key, []).append((gate, watched))
    return required


def _build_watched_condition(condition: Condition) -> Condition:
    """Return what a guard watches: of a gain, whichever arm its stage has."""
    if condition.population.has_gain:
        return replace(condition, population=BothArms(condition.population.outcome))
    return condition


def _build_missing_guards(
    policy: Policy, key: MeasureKey, rows: list[tuple[Gate, Condition]]
) -> list[Guard]:
    """Return guards on a measure for the cells where a gate requires it unguarded."""
    cells = [
        cell
        for cell in policy.cells
        if any(_is_first_gate(policy, gate, cell) for gate, _ in rows)
        and not _is_watched(policy, key, cell)
    ]
    if not cells:
        return []
    loosest = min(  # so that the guard is below every gate
        (condition for _, condition in rows),
        key=lambda condition: condition.threshold if condition.at_least else -condition.threshold,
    )
    condition = widen_condition(loosest, policy.largest_cost)
    selectors = build_selectors(policy, cells)
    return [Guard(condition, "one-stage", where=selector, added=True) for selector in selectors]


def _is_first_gate(policy: Policy, gate: Gate, cell: Cell) -> bool:
    """Return whether `gate` is the first for its stage that fits the cell."""
    return (
        gate.to in policy.stage_ids
        and policy.find_gate(policy.stage_ids.index(gate.to), cell) is gate
    )


def _is_watched(policy: Policy, key: MeasureKey, cell: Cell) -> bool:
    guards = (
        guard for guard in policy.guards if guard.condition.key == key and guard.then != "report"
    )
    return any(guard.where.fits(cell) for guard in guards)


def widen_condition(condition: Condition, largest_cost: float) -> Condition:
    """Return a gate's condition with 1.4 times the error that it permits.

    >>> from rollout.kernel.measures import MEASURES
    >>> widen_condition(Condition(MEASURES["agreement"], 0.95), 1.0).threshold
    0.93
    """
    threshold = condition.measure.widen(
        condition.threshold, largest=largest_cost, factor=ERROR_FACTOR
    )
    return replace(condition, threshold=threshold)


def build_selectors(policy: Policy, cells: Iterable[Cell]) -> list[Where]:
    """Return selectors that fit exactly `cells`, one for each shared set of windows."""
    windows: dict[str, tuple[str, ...]] = {}
    for cell in cells:
        windows[cell.site] = (*windows.get(cell.site, ()), cell.window)
    sites: dict[tuple[str, ...], tuple[str, ...]] = {}
    for site, window_names in windows.items():
        sites[window_names] = (*sites.get(window_names, ()), site)
    return [
        Where(
            () if len(site_names) == len(policy.sites) else site_names,
            () if len(window_names) == len(policy.windows) else window_names,
        )
        for window_names, site_names in sites.items()
    ]


def _build_unaudited_guard(policy: Policy) -> list[Guard]:
    has_guard = any(guard.condition.measure.reads_audits for guard in policy.guards)
    if has_guard or not any(stage.audit for stage in policy.stages):
        return []
    condition = Condition(UNAUDITED, 0.1)
    return [
        Guard(
            condition,
            "one-stage",
            over=timedelta(days=7),
            false_alarm_span=TIME_BETWEEN_FALSE_ALARMS,
            added=True,
        )
    ]


RECORD_COLUMNS = frozenset({"case_key", "harm", "outcome_at", "label", "values"})


def _check_outcome_rows(written: WrittenPolicy, policy: Policy) -> Faults:
    ids = [row.id for row in written.outcomes]
    for i, row in enumerate(written.outcomes):
        path: DocumentPath = ("outcomes", i)
        if row.low >= row.high:
            text = f"{row.low:g} is not below to: {row.high:g}; swap them"
            yield DocumentFault((*path, "from"), text)
        if row.id in ids[:i]:
            text = f"{row.id!r} is repeated, first as outcomes[{ids.index(row.id)}]; rename one"
            yield DocumentFault((*path, "id"), text)
        elif row.id in policy.levers_by_id:
            text = f"{row.id!r} is a lever, too, and files have one column for each; rename one"
            yield DocumentFault((*path, "id"), text)
        elif row.id in RECORD_COLUMNS | RESERVED:
            text = f"{row.id!r} is a name that records use themselves; choose another"
            yield DocumentFault((*path, "id"), text)


def list_gain_rows(written: WrittenPolicy) -> Iterator[ConditionRow]:
    """Return the conditions on outcomes, each with its place."""
    return (row for row in list_condition_rows(written) if is_of_outcome(row[1]))


def _check_gain_outcome(written: WrittenPolicy, _: Policy) -> Faults:
    ids = [row.id for row in written.outcomes]
    for path, row in list_gain_rows(written):
        if row.of is None:
            example = f", such as of: {ids[0]}" if ids else "; there are no outcomes yet"
            yield DocumentFault(path, f"gain is of one outcome; name it{example}")
        elif row.of not in ids:
            text = describe_unknown_name(row.of, ids, "outcome")
            hint = "" if ids else "; add outcomes: [{id: profit, from: -20, to: 60, closes: 14d}]"
            yield DocumentFault((*path, "of"), text + hint)


def _check_gain_threshold(written: WrittenPolicy, _: Policy) -> Faults:
    spans = {row.id: row.high - row.low for row in written.outcomes}
    for path, row in list_gain_rows(written):
        span = spans.get(row.of or "", 0.0)
        if row.at_least is None or span <= 0:
            continue
        try:
            line = parse_threshold(MEASURES[row.measure], row.at_least)
        except ValueError:
            continue  # reported with the other thresholds
        if abs(line) >= span:
            text = (
                f"{line:g} can never be decided: between the ends of {row.of} lie {span:g}; write"
                " less than that"
            )
            yield DocumentFault((*path, "at_least"), text)


def _check_shared_stages(written: WrittenPolicy, _: Policy) -> Faults:
    for i, row in enumerate(written.stages):
        if row.share is not None and not LOWEST_SHARE <= row.share <= HIGHEST_SHARE:
            text = "leaves one arm without units to compare; write from 2% to 98%"
            yield DocumentFault(("stages", i, "share"), text)


def _check_gates_to_shares(written: WrittenPolicy, _: Policy) -> Faults:
    # As written: a condition with a fault of its own is none of the policy's.
    for i, stage in enumerate(written.stages):
        if stage.share is None:
            continue
        gates = [gate for gate in written.gates if gate.to == stage.id]
        text = (
            f"{stage.id} needs a gate of its own on agreement or cost, so that no case is sampled"
            f" for a model that nobody compared; add {{to: {stage.id}, require: [{{measure:"
            " agreement, at_least: 80%}]}"
        )
        if not gates or not all(_has_start_measure(gate, written, i) for gate in gates):
            yield DocumentFault(("stages", i, "share"), text)


def _has_start_measure(gate: WrittenGate, written: WrittenPolicy, position: int) -> bool:
    """Return whether a gate asks for agreement or cost, or for gain at a share below."""
    has_lower_share = any(stage.share is not None for stage in written.stages[:position])
    return any(
        (MEASURES[row.measure].starts_shares and row.of != PLANTED)
        or (has_lower_share and is_of_outcome(row))
        for row in gate.require
    )


def _check_gain_arms(written: WrittenPolicy, policy: Policy) -> Faults:
    for path, _ in list_gain_rows(written):
        if path[0] == "guards":
            if not any(stage.model_share for stage in policy.stages):
                text = f"no stage has two arms to compare; {_describe_arms(DECIDES)}"
                yield DocumentFault((*path, "measure"), text)
            continue
        gate = written.gates[int(path[1])]
        if gate.to in policy.stage_ids:
            yield from _check_gate_arms(path, policy, policy.stage_ids.index(gate.to))


def _check_gate_arms(path: DocumentPath, policy: Policy, stage_level: int) -> Faults:
    stage = policy.get_stage(stage_level)
    lower_stages = policy.stages[: stage_level - 1]
    if not any(other.model_share and other.arm == stage.arm for other in lower_stages):
        text = f"no stage below {stage.id} has two arms to compare; {_describe_arms(stage.arm)}"
        yield DocumentFault((*path, "measure"), text)
    elif not stage.model_share:
        text = (
            f"{stage.id} has no second arm, so its grant could never be renewed on gain; write"
            f" share: 90%, or blind: 10%, at {stage.id}"
        )
        yield DocumentFault((*path, "measure"), text)


def _describe_arms(arm: str) -> str:
    example = "{id: trial, share: 10%}" if arm == DECIDES else "{id: advised, blind: 50%}"
    return f"add one before it, such as {example}"


_OUTCOMES = ("outcomes.*.id", "outcomes.*.from", "outcomes.*.to")
_CONDITIONS = ("gates.*.require.*.of", "guards.*.of")
_SHARES = ("stages.*.share", "stages.*.blind", "stages.*.audit", "stages.*.id")

OUTCOME_CHECKS: tuple[PolicyCheck, ...] = (
    ((*_OUTCOMES, "levers.*.id"), _check_outcome_rows),
    (("outcomes.*.id", *_CONDITIONS), _check_gain_outcome),
    ((*_OUTCOMES, *_CONDITIONS), _check_gain_threshold),
    (("stages.*.share", "stages.*.blind"), _check_shared_stages),
    ((*_SHARES, "gates.*.to", "gates.*.require.*"), _check_gates_to_shares),
    ((*_SHARES, *_CONDITIONS, "gates.*.to"), _check_gain_arms),
)
