"""Conditions in gates and guards: the right measure, direction, unit, label and lever."""

from collections.abc import Callable, Iterator
from datetime import timedelta

from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import OPERATIONAL
from rollout.core.policy.policy import Guard, Policy, duration_text
from rollout.formats.policy.measures import RULES, read_condition, read_line
from rollout.formats.policy.model import ConditionShape, GuardShape, PolicyShape
from rollout.formats.policy.names import Check, Checked, unknown_name
from rollout.formats.policy.yaml_reader import Fault, Place

Row = tuple[Place, ConditionShape]


def _rows(shape: PolicyShape) -> Iterator[Row]:
    for i, gate in enumerate(shape.gates):
        for j, condition in enumerate(gate.require):
            yield ("gates", i, "require", j), condition
    for i, guard in enumerate(shape.guards):
        yield ("guards", i), guard


def _stands_where_it_may(shape: PolicyShape, _: Policy) -> Checked:
    for path, row in _rows(shape):
        rule = RULES[row.measure]
        if path[0] == "gates" and not rule.gate:
            gate_measures = ", ".join(name for name, other_rule in RULES.items() if other_rule.gate)
            hint = (
                "write evidence.missing_at_most" if row.measure == "missing" else "make it a guard"
            )
            text = f"no gate can ask for {row.measure}; {hint} (gates take {gate_measures})"
            yield Fault((*path, "measure"), text)
        if path[0] == "guards" and not rule.then:
            text = f"no guard can watch {row.measure}; ask for it in a gate, and guard agreement"
            yield Fault((*path, "measure"), text)


def _has_its_line(shape: PolicyShape, _: Policy) -> Checked:
    for path, row in _rows(shape):
        is_minimum = RULES[row.measure].at_least
        key, wrong_key = ("at_least", "at_most") if is_minimum else ("at_most", "at_least")
        text, other = (row.at_least, row.at_most) if is_minimum else (row.at_most, row.at_least)
        if other is not None:
            message = f"is the wrong way round for {row.measure}; write {key}: {text or other}"
            yield Fault((*path, wrong_key), message)
        elif text is None:
            yield Fault(
                path, f"has no line for {row.measure}; write {key}: {_EXAMPLE[row.measure]}"
            )
        if text is not None and (message := _misread(row.measure, text)):
            yield Fault((*path, key), message)


_EXAMPLE = {
    "agreement": "95%",
    "recall": "90%",
    "precision": "90%",
    "cost": "0.3",
    "parity": "-3%",
    "override": "10%",
    "action_change": "2",
    "missing": "10%",
    "unaudited": "10%",
    "latency_p95": "20s",
    "failures": "2%",
    "heartbeat": "2h",
    "harm": "0",
}


def _misread(measure: str, text: str) -> str:
    try:
        read_line(measure, text)
    except ValueError as error:
        return str(error)
    return ""


def _is_of_something(shape: PolicyShape, policy: Policy) -> Checked:
    """Check label, action and lever: present where the measure needs them, absent elsewhere."""
    for path, row in _rows(shape):
        rule = RULES[row.measure]
        for key, value, allowed_subjects in (
            ("label", row.label, ("label", "harm")),
            ("action", row.action, ("action",)),
        ):
            if value is not None and rule.of not in allowed_subjects:
                yield Fault((*path, key), f"says nothing about {row.measure}; leave it out")
            elif value is None and rule.of == key:
                values = next((_known(lever, key) for lever in policy.levers if lever.labels), ())
                example = f", such as {key}: {values[0]}" if values else ""
                yield Fault(path, f"{row.measure} is of one {key}; name it{example}")
        if row.lever is not None and not rule.lever:
            text = f"{row.measure} is of all levers together; leave lever out"
            yield Fault((*path, "lever"), text)


def _known(lever: Lever, key: str) -> tuple[str, ...]:
    return lever.labels if key == "label" else tuple(dict.fromkeys(lever.actions))


def _names_its_lever(shape: PolicyShape, policy: Policy) -> Checked:
    for path, row in _rows(shape):
        if row.lever is not None and row.lever not in policy.lever:
            yield Fault((*path, "lever"), unknown_name(row.lever, policy.lever, "lever"))
        elif RULES[row.measure].of in {"label", "action"}:
            yield from _of_that_lever(path, row, policy)


def _of_that_lever(place: Place, row: ConditionShape, policy: Policy) -> Checked:
    key = RULES[row.measure].of
    value = row.label if key == "label" else row.action
    if row.lever is None and len(policy.levers) > 1:
        names = ", ".join(policy.lever)
        text = f"there are several levers; write lever: with one of {names}"
        yield Fault(place, text)
        return
    lever = policy.levers[0] if row.lever is None else policy.lever[row.lever]
    values = _known(lever, key)
    if lever.number is not None:
        text = f"lever {lever.id} is a number and has no {key}s; use agreement or cost"
        yield Fault((*place, "measure"), text)
    elif value is not None and values and value not in values:
        yield Fault((*place, key), unknown_name(value, values, key))


def _parity_can_be_had(shape: PolicyShape, policy: Policy) -> Checked:
    has_second_decisions = policy.evidence.second_verdict > 0 or policy.evidence.verdicts > 1
    for path, row in _rows(shape):
        if row.measure != "parity" or path[0] == "guards":
            continue
        if not has_second_decisions:
            text = "no unit has two verdicts; write evidence: {second_verdict: 20%}"
            yield Fault((*path, "measure"), text)
        levers = policy.levers if row.lever is None else [policy.lever.get(row.lever)]
        for lever in levers:
            if lever is not None and lever.number is not None:
                text = f"lever {lever.id} is a number; parity needs labels, use agreement or cost"
                yield Fault((*path, "measure"), text)


def _costs_can_be_missed(shape: PolicyShape, policy: Policy) -> Checked:
    for path, row in _rows(shape):
        condition = read_condition(row, levers=len(policy.levers))
        if (
            row.measure == "cost"
            and condition is not None
            and condition.line >= policy.largest_cost
        ):
            text = (
                f"{condition.line:g} is never passed: the largest cost of a unit is "
                f"{policy.largest_cost:g}; write less than that"
            )
            yield Fault((*path, "at_most"), text)


def _suspends_what_comes_back(shape: PolicyShape, _: Policy) -> Checked:
    for i, row in enumerate(shape.guards):
        if row.then == "suspend" and row.measure not in OPERATIONAL:
            names = ", ".join(sorted(OPERATIONAL))
            text = f"only {names} suspend; write one-stage, shadow or report"
            yield Fault(("guards", i, "then"), text)


def _looks_back_over_a_tick(shape: PolicyShape, policy: Policy) -> Checked:
    for i, row in enumerate(shape.guards):
        span = row.over or RULES[row.measure].over
        if span is not None and span < policy.tick:
            yield Fault(("guards", i, "over"), _too_short(row, span, policy.tick))


def _too_short(row: GuardShape, over: timedelta, tick: timedelta) -> str:
    default_text = "" if row.over else " by default"
    minimum = duration_text(tick)
    return (
        f"is {duration_text(over)}{default_text}, below the tick of {minimum}; write {minimum} or"
        " more"
    )


def _guards_differ(shape: PolicyShape, policy: Policy) -> Checked:
    levers = len(policy.levers)
    readable_rows = [
        i for i, g in enumerate(shape.guards) if read_condition(g, levers=levers) is not None
    ]
    written_guards = list(
        zip(readable_rows, policy.guards, strict=False)
    )  # the added ones come after these
    for n, (i, guard) in enumerate(written_guards):
        duplicate_row = next(
            (j for j, other in written_guards[:n] if _same_watch(other, guard, policy)), None
        )
        if duplicate_row is not None:
            text = f"watches what guards[{duplicate_row}] watches, in the same cells; remove one"
            yield Fault(("guards", i), text)


def _same_watch(one: Guard, other: Guard, policy: Policy) -> bool:
    shares_cell = any(one.where.fits(cell) and other.where.fits(cell) for cell in policy.cells)
    return one.id == other.id and shares_cell


def _each(
    check: Callable[[PolicyShape, Policy], Checked], keys: tuple[str, ...], *needs: str
) -> Iterator[Check]:
    """Yield a check for gates and one for guards: what is lost in one leaves the other's faults."""
    for section, row in (("gates", "gates.*.require.*"), ("guards", "guards.*")):

        def of_section(shape: PolicyShape, policy: Policy, section: str = section) -> Checked:
            return (fault for fault in check(shape, policy) if fault.place[0] == section)

        yield (*needs, *(f"{row}.{key}" for key in keys)), of_section


_LABELS = ("levers.*.labels", "levers.*.labels.*")
_LEVERS = ("levers.*.id", *_LABELS, "levers.*.actions.*", "levers.*.number")
_NAMES = ("label", "action", "lever")

CONDITION_CHECKS: tuple[Check, ...] = (
    ((), _stands_where_it_may),
    *_each(_has_its_line, ("at_least", "at_most")),
    *_each(_is_of_something, _NAMES, *_LABELS),
    *_each(_names_its_lever, _NAMES, *_LEVERS),
    (("evidence.second_verdict", "evidence.verdicts", "levers.*.number"), _parity_can_be_had),
    (("levers.*.costs.*.cost",), _costs_can_be_missed),
    ((), _suspends_what_comes_back),
    (("tick", "guards.*.over"), _looks_back_over_a_tick),
    (("guards.*", "sites.*.id", "windows.*.id"), _guards_differ),
)
