"""An action is judged by the answer that was asked about, and by the policy's action for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.decide.assignment import (
    BOUND,
    Permit,
    compute_answer_digest,
    sign_permit,
    verify_permit,
)
from rollout.engine.records.policy_actions import (
    find_judged_prediction,
    find_prediction_fault,
    is_policy_action,
)
from rollout.engine.records.records import Prediction
from rollout.kernel.facts import NO_PREDICTION, OTHER_ACTION, UNSURE
from rollout.kernel.policy_files.reader import parse_policy
from tests.factories import MINUTE, NOON

POLICY = parse_policy("""
rollout: letters
timezone: UTC
levers:
  - id: tray
    labels: [refund, letter, spam]
    actions: {refund: pay, letter: sort, spam: bin}
  - {id: amount, number: {in: EUR, from: 0, to: 100, tolerance: 1}}
sites: [desk]
windows: [{id: all, hours: 24/7}]
evidence: {unit: case, confidence_floor: 80%}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
""")
LABELS = ["refund", "letter", "spam", "unheard", None]
AMOUNTS = ["0", "20", "20.0", "2e1", " 20 ", "100", "100.5", "-1", "", "much", None]
ACTIONS = ["pay", "sort", "bin", "refund", "", *(amount for amount in AMOUNTS if amount)]
SURE = [None, 0.79, 0.8, 1.0, 1.1]

answers = st.fixed_dictionaries(
    {}, optional={"tray": st.sampled_from(LABELS), "amount": st.sampled_from(AMOUNTS)}
)
predictions = st.builds(
    Prediction,
    key=st.just("c1"),
    version=st.just("v1"),
    answers=answers,
    confidence=st.sampled_from(SURE),
    error=st.sampled_from([None, "out of memory"]),
)


def bound_to(prediction):
    digest = compute_answer_digest(prediction.answers)
    return Permit("model", 7, NOON, MINUTE, BOUND, digest)


def prescribed(said, lever):
    """Return the actions that the policy prescribes, written out."""
    if said.error:
        return set()
    if lever == "tray":
        return {"refund": {"pay"}, "letter": {"sort"}, "spam": {"bin"}}.get(
            said.answers.get(lever), set()
        )
    same = [{"0"}, {"20", "20.0", "2e1", " 20 "}, {"100"}]
    return next((group for group in same if said.answers.get(lever) in group), set())


def given_answers(said):
    return {lever: answer for lever, answer in said.answers.items() if answer is not None}


levers = st.sampled_from(["tray", "amount", "door"])


@given(st.lists(predictions, max_size=4), predictions, levers, st.sampled_from(ACTIONS))
def test_no_action_but_the_policys_for_the_asked_answer_is_authorized(stored, asked, lever, did):
    judged = find_judged_prediction(bound_to(asked), stored)
    assert (judged is None) == (given_answers(asked) not in map(given_answers, stored))
    if not find_prediction_fault(POLICY, judged, lever, did, 0.8):
        assert given_answers(judged) == given_answers(asked)
        assert did in prescribed(judged, lever)


@given(st.lists(predictions, max_size=4), levers, st.sampled_from(ACTIONS))
def test_an_unbound_permit_is_judged_by_the_newest_stored_prediction(stored, lever, did):
    judged = find_judged_prediction(Permit("model", 7, NOON, MINUTE), stored)
    fault = find_prediction_fault(POLICY, judged, lever, did, 0.8)
    if not stored:
        assert fault == NO_PREDICTION
    elif not 0.8 <= (stored[-1].confidence or 0) <= 1:
        assert fault == UNSURE
    else:
        assert fault == ("" if did in prescribed(stored[-1], lever) else OTHER_ACTION)


@pytest.mark.parametrize("error", [None, "out of memory"])
def test_a_failed_prediction_prescribes_nothing(error):
    said = Prediction(key="c1", version="v1", answers={"tray": "spam"}, error=error)
    assert is_policy_action(POLICY, said, "tray", "bin") == (error is None)


@given(answers, answers)
def test_only_equal_answers_have_one_digest(one, other):
    missing_is_none = [{k: v for k, v in a.items() if v is not None} for a in (one, other)]
    is_equal = compute_answer_digest(one) == compute_answer_digest(other)
    assert is_equal == (missing_is_none[0] == missing_is_none[1])


def test_a_bound_permit_is_read_as_it_was_signed_and_for_no_other_answer():
    permit = bound_to(Prediction(key="c1", version="v1", answers={"tray": "spam"}))
    secrets, about = {1: bytes(32)}, ("letters", "c1", "v1")
    text = sign_permit(permit, bytes(32), 1, *about)
    assert verify_permit(text, secrets, *about) == permit
    other = compute_answer_digest({"tray": "refund"})
    assert verify_permit(text.replace(permit.answer_digest, other), secrets, *about) is None
    unbound = text.replace(f".{permit.answer_digest}", "").replace("2b.", "2u.")
    assert verify_permit(unbound, secrets, *about) is None
    assert verify_permit(unbound, secrets, *about, permit.answer_digest) is None
