"""Actions by a policy: what it prescribes for a prediction's answers."""

from collections.abc import Iterable, Sequence
from typing import Final

from rollout.core.policy.confidence_floors import reaches_floor
from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.core.records.records import Prediction
from rollout.core.records.reviews import NUMBER_PATTERN
from rollout.core.scope.permits import BOUND, Permit, compute_answer_digest

NO_PREDICTION: Final = "no prediction of this version was stored before the action or with it"
OTHER_ACTION: Final = "it is not the policy's action for the predicted answer"
OTHER_ANSWER: Final = "another name of the version answered the case otherwise"
TOO_UNSURE: Final = "the predicted confidence is below the policy's floor"


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
        return TOO_UNSURE
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
    """Return whether the policy prescribes `action` for the answer on a lever.

    Nothing is prescribed for a failed prediction, an unknown lever or label, and a number out of
    range. A number is its own action.
    """
    answer = prediction.answers.get(lever)
    policy_lever = policy.levers_by_id.get(lever)
    if answer is None or policy_lever is None or prediction.error is not None:
        return False
    if policy_lever.number is None:
        return policy_lever.find_action(answer) == action
    number = _parse_number(policy_lever, answer)
    return number is not None and number == _parse_number(policy_lever, action)


def _parse_number(lever: Lever, text: str) -> float | None:
    """Return the number of a text, or None if it is none in the lever's range."""
    text = text.strip()
    if lever.number is None or NUMBER_PATTERN.fullmatch(text) is None:
        return None
    value = float(text)
    return value if lever.number.low <= value <= lever.number.high else None
