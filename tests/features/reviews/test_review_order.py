"""The order of the review queue: no prediction moves a case."""

from random import Random

import pytest

from rollout.data.database.session import Database
from rollout.data.records.records import RecordStore
from rollout.engine.records.records import Case, Prediction
from rollout.features.reviews import reviews
from tests.data.databases import fresh
from tests.features.review_room import ANA, MINUTE, START, Room, policy_text

CASES, HOURS = 30, 15
FLOOR = "outside: unknown, confidence_floor: 60%"


def draw_cases(pick):
    """Return cases in order of arrival, several at once, some as urgent as others."""
    minutes = sorted(pick.randrange(0, 60 * HOURS, 20) for _ in range(CASES))
    return [
        (f"k{i}", pick.choice(("creek", "lake")), START + minute * MINUTE)
        for i, minute in enumerate(minutes)
    ]


def draw_answers(pick):
    """Return what a model may say of each case, and what the case looks like."""
    return [
        (pick.choice(("bear", "fox", "none")), pick.random(), pick.choice(("dry", "rain")))
        for _ in range(CASES)
    ]


def bring_in(room, cases, answers):
    for (key, site, at), (label, confidence, weather) in zip(cases, answers, strict=True):
        case = Case(
            key=key,
            site=site,
            occurred_at=at,
            window="always",
            attributes={"weather": weather},
            media={"still": f"{key}.jpg"},
        )
        answer = Prediction(key=key, version="v1", answers={"alarm": label}, confidence=confidence)
        with room.database.begin_write() as transaction:
            RecordStore(transaction, room.stood.rollout).store([case, answer], received_at=at)
            reviews.open_reviews(transaction, room.stood, [case], at)


def list_queue(folder, cases, answers, stage_level, text):
    """Return the cases in the order in which one reviewer gets them, answering each."""
    folder.mkdir()
    with fresh("sqlite", folder) as url:
        database = Database(url)
        room = Room(database, stage_level, text)
        bring_in(room, cases, answers)
        room.at, order = START + 60 * HOURS * MINUTE, []
        while task := room.take(ANA):
            order.append(task.case.key)
            room.judge(ANA, task.review)
        database.close()
    return order


@pytest.mark.slow
@pytest.mark.parametrize("further", ["outside: unknown", FLOOR], ids=["no floor", "floor"])
@pytest.mark.parametrize("stage_level", [0, 1, 2])
def test_permuted_predictions_and_attributes_change_no_order(tmp_path, stage_level, further):
    """With a floor confidence decides which cases are audited at all, but not when."""
    asked = 0
    for seed in range(2):
        pick = Random(seed)  # noqa: S311 - cases, no secret
        cases, answers = draw_cases(pick), draw_answers(pick)
        text = policy_text(second="30%", further=further)
        first, second = (
            list_queue(tmp_path / f"{seed}-{i}", cases, given, stage_level, text)
            for i, given in enumerate((answers, pick.sample(answers, CASES)))
        )
        assert [key for key in first if key in second] == [key for key in second if key in first]
        has_all = stage_level < 2 or further != FLOOR
        assert first == second or not has_all
        asked += len({*first} & {*second})
    assert asked > 15
