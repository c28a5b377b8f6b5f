"""Check outcomes with a value, and conditions on gain."""

from collections.abc import Iterator

from rollout.core.policy.policy import Policy
from rollout.core.policy.stages import HIGHEST_SHARE, LOWEST_SHARE, Stage
from rollout.formats.policy.measures import is_of_outcome, parse_threshold
from rollout.formats.policy.model import WrittenCondition, WrittenGate, WrittenPolicy
from rollout.formats.policy.names import RESERVED, Faults, PolicyCheck, describe_unknown_name
from rollout.formats.policy.yaml_reader import DocumentFault, DocumentPath
from rollout.kernel.measures import MEASURES
from rollout.kernel.outcomes import DECIDES
from rollout.kernel.populations import PLANTED

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


def _list_gain_rows(written: WrittenPolicy) -> Iterator[tuple[DocumentPath, WrittenCondition]]:
    for i, gate in enumerate(written.gates):
        for j, condition in enumerate(gate.require):
            if is_of_outcome(condition):
                yield ("gates", i, "require", j), condition
    for i, guard in enumerate(written.guards):
        if is_of_outcome(guard):
            yield ("guards", i), guard


def _check_gain_outcome(written: WrittenPolicy, _: Policy) -> Faults:
    ids = [row.id for row in written.outcomes]
    for path, row in _list_gain_rows(written):
        if row.of is None:
            example = f", such as of: {ids[0]}" if ids else "; there are no outcomes yet"
            yield DocumentFault(path, f"gain is of one outcome; name it{example}")
        elif row.of not in ids:
            text = describe_unknown_name(row.of, ids, "outcome")
            hint = "" if ids else "; add outcomes: [{id: profit, from: -20, to: 60, closes: 14d}]"
            yield DocumentFault((*path, "of"), text + hint)


def _check_gain_threshold(written: WrittenPolicy, _: Policy) -> Faults:
    spans = {row.id: row.high - row.low for row in written.outcomes}
    for path, row in _list_gain_rows(written):
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
    for path, _ in _list_gain_rows(written):
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
            f" {_describe_second_arm(stage)}"
        )
        yield DocumentFault((*path, "measure"), text)


def _describe_arms(arm: str) -> str:
    example = "{id: trial, share: 10%}" if arm == DECIDES else "{id: advised, blind: 50%}"
    return f"add one before it, such as {example}"


def _describe_second_arm(stage: Stage) -> str:
    return f"share: 90%, or blind: 10%, at {stage.id}"


def _check_familiar_gains(written: WrittenPolicy, _: Policy) -> Faults:
    if written.evidence.familiar is not None and next(_list_gain_rows(written), None) is not None:
        text = (
            "units sent to humans as unfamiliar are in no arm, which conditions on gain can't tell"
            " yet; leave out familiar, or the conditions on gain"
        )
        yield DocumentFault(("evidence", "familiar"), text)


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
    (("evidence.familiar",), _check_familiar_gains),
)
