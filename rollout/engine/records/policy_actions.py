"""Judge actions by what the policy prescribes for a prediction's answers."""

from collections.abc import Iterable, Sequence

from rollout.engine.decide.assignment import BOUND, Permit, compute_answer_digest
from rollout.engine.records.records import Prediction
from rollout.engine.records.reviews import parse_number
from rollout.kernel.facts import NO_PREDICTION, OTHER_ACTION, UNSURE
from rollout.kernel.policy.cell_evidence import reaches_floor
from rollout.kernel.policy.policy import Policy


def find_judged_prediction(permit: Permit, revisions: Sequence[Prediction]) -> Prediction | None:
    """Return the prediction by which an action with this permit is judged.

    `revisions` are those of the action's version that were stored no later than the action, oldest
    first. A bound permit names the one in its question; for others the newest counts.
    """
    if permit.kind != BOUND:
        return revisions[-1] if revisions else None
    return next(
        (
            prediction
            for prediction in revisions
            if compute_answer_digest(prediction.answers) == permit.answer_digest
        ),
        None,
    )


def find_prediction_fault(
    policy: Policy,
    prediction: Prediction | None,
    lever: str,
    action: str,
    floor: float | None,
) -> str:
    """Return why a prediction does not authorize an action, or "".

    `floor` is the confidence from which the version decides, None for any.
    """
    if prediction is None:
        return NO_PREDICTION
    if not reaches_floor(prediction.confidence, floor):
        return UNSURE
    return "" if is_policy_action(policy, prediction, lever, action) else OTHER_ACTION


def is_contradicted(policy: Policy, others: Iterable[Prediction], lever: str, action: str) -> bool:
    """Return whether an answer under another name of the version asks for another action.

    One answer a case is evidence, whatever its name. It must not be a better one than the answer
    that was acted on.
    """
    return any(
        other.error is None
        and other.answers.get(lever) is not None
        and not is_policy_action(policy, other, lever, action)
        for other in others
    )


def is_policy_action(policy: Policy, prediction: Prediction, lever: str, action: str) -> bool:
    """Return whether the policy prescribes `action` for the answer on a lever."""
    prescribed = find_policy_action(policy, prediction, lever)
    if isinstance(prescribed, str | None):
        return prescribed == action
    return prescribed == parse_number(policy.levers_by_id[lever], action)


def find_policy_action(policy: Policy, prediction: Prediction, lever: str) -> str | float | None:
    """Return what the policy prescribes for the answer on a lever; a number is its own action.

    Nothing is prescribed for a failed prediction, an unknown lever or label, and a number out of
    range.
    """
    answer = prediction.answers.get(lever)
    policy_lever = policy.levers_by_id.get(lever)
    if answer is None or policy_lever is None or prediction.error is not None:
        return None
    if policy_lever.number is None:
        return policy_lever.find_action(answer)
    return parse_number(policy_lever, answer)


def prescribes_actions(policy: Policy, prediction: Prediction) -> bool:
    """Return whether the policy prescribes an action on each of its levers."""
    return None not in {
        find_policy_action(policy, prediction, lever) for lever in policy.levers_by_id
    }
