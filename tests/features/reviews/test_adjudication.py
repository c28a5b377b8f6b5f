"""A third person settles what two see differently; never as evidence."""

import pytest

from rollout.data.tables.tables import exposures
from rollout.engine.records.reviews import NoConflictError, ReviewStillOpenError, UnknownCaseError
from rollout.features.reviews import reviews
from rollout.kernel.errors import NotAllowedError, UnknownVersionError
from tests.features.review_room import ANA, BO, CY, DAN, Room, person, policy_text
from tests.features.stored_reviews import lite, stored, waiting

__all__ = ["lite"]


def adjudication(room, who):
    return room.take(who, kind="adjudicate")


def test_two_people_who_differ_are_settled_by_a_third_and_never_as_evidence(database):
    room = Room(database, text=policy_text(second="100%")).arrive("a")
    room.done(ANA, "bear")
    assert waiting(room, CY).get("adjudicate") is None
    room.done(BO, "fox")
    assert adjudication(room, ANA) is None
    task = adjudication(room, CY)
    assert task.verdicts == ({"alarm": "bear"}, {"alarm": "fox"})
    assert task.proposal is None
    room.judge(CY, task.review, "fox")
    last = next(row for row in stored(room) if row.reviewer == "cy")
    assert (last.exposure, last.task_number) == ("revealed", None)


def test_nobody_settles_what_people_are_still_to_judge(lite):
    room = Room(lite, text=policy_text(verdicts=3)).arrive("a")
    room.done(ANA, "bear")
    room.done(BO, "fox")
    assert waiting(room, CY) == {"blind": 1}
    room.done(CY, "fox")
    assert waiting(room, person("eve")) == {"adjudicate": 1}


def test_people_who_agree_or_are_unsure_are_not_adjudicated(lite):
    room = Room(lite, text=policy_text(second="100%")).arrive("a", "b")
    for label in ("bear", "bear"):
        room.done(ANA, label)
    for _ in range(2):
        room.judge(BO, room.take(BO).review, None)
    assert waiting(room, CY) == {}


@pytest.mark.parametrize(
    ("labels", "version", "reason"),
    [
        (["bear"], None, "a has one decision: nothing"),
        (["bear", "bear"], None, "the reviewers of a agree: nothing"),
        (["bear", None], None, "the reviewers of a agree: nothing"),
        (["fox"], "v1", "a has one decision, and the version's answer is no other"),
    ],
)
def test_without_a_conflict_there_is_nothing_to_adjudicate(lite, labels, version, reason):
    second = "100%" if len(labels) > 1 else "0%"
    room = Room(lite, text=policy_text(second=second)).arrive("a", label="fox")
    for who, label in zip((ANA, BO), labels, strict=False):
        room.judge(who, room.take(who).review, label)
    with pytest.raises(NoConflictError, match=reason):
        reviews.request_adjudication(lite, DAN, room.stood, "a", version, room.at)
    assert waiting(room, CY) == {}


def test_who_claims_without_a_queue_gets_what_waits_to_be_adjudicated_last(lite):
    """They read `tasks: []` while only adjudications waited."""
    room = Room(lite, text=policy_text(second="100%")).arrive("a")
    room.done(ANA, "bear")
    room.done(BO, "fox")
    room.arrive("b")

    def claim(count):
        queue = reviews.claim_reviews(lite, CY, room.stood, room.at, target_count=count)
        return [(task.case.key, task.kind) for task in queue.tasks]

    assert claim(1) == [("b", "blind")]
    both = [("a", "adjudicate"), ("b", "blind")]
    assert sorted(claim(2)) == both
    assert sorted(claim(1)) == both
    assert sorted(claim(3)) == both


def test_an_operator_asks_for_a_third_voice_beside_the_models(lite):
    room = Room(lite).arrive("a", label="fox")

    def ask(version="v1", key="a", who=DAN):
        reviews.request_adjudication(lite, who, room.stood, key, version, room.at)

    with pytest.raises(ReviewStillOpenError, match="a still has an open blind review"):
        ask()
    room.done(ANA, "bear")
    for wrong, refusal in (
        ({"version": "v9"}, UnknownVersionError),
        ({"key": "z"}, UnknownCaseError),
    ):
        with pytest.raises(refusal):
            ask(**wrong)
    with pytest.raises(NotAllowedError):
        ask(who=ANA)
    ask()
    task = adjudication(room, CY)
    assert task.verdicts == ({"alarm": "bear"}, {"alarm": "fox"})
    assert ("cy", "prediction") in {(row.reviewer, row.content) for row in stored(room, exposures)}
