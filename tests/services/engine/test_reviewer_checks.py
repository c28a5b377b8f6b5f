"""What a process remembers of how people stand: as much as a fresh look would tell."""

from datetime import timedelta

import pytest

from rollout.core.records.records import Decision
from rollout.services.engine import reviewer_recount
from rollout.services.engine.reviewer_recount import ReviewerCheckCache, compute_reviewer_checks
from rollout.services.reviews import reviews
from tests.services.review_room import ANA, BO, DAN, DAY, MINUTE, START, Room, person, policy_text

HOUR = timedelta(hours=1)
ASKED = policy_text(second="100%", further="min_reviewer_agreement: 80%")


@pytest.fixture
def looks(monkeypatch):
    """Count how often a whole history is read."""
    found = []
    monkeypatch.setattr(
        reviewer_recount,
        "compute_reviewer_checks",
        lambda *of: found.append(of) or compute_reviewer_checks(*of),
    )
    return found


def twice(room, *keys):
    room.arrive(*keys)
    for key in keys:
        for who, label in ((ANA, "bear"), (BO, "fox")):
            (task,) = (t for t in room.claim(who, target_count=len(keys)) if t.case.key == key)
            room.judge(who, task.review, label)


def read(people, room):
    with room.database.begin_read() as transaction:
        found = people.load(transaction, room.stood, room.at)
        assert found.equals(compute_reviewer_checks(transaction, room.stood))
    return found


@pytest.mark.slow
def test_the_verdicts_of_a_day_are_read_when_it_is_over(database, looks):
    room, people = Room(database, text=ASKED), ReviewerCheckCache()
    twice(room, "a", "b")
    assert read(people, room).select("reviewer", "differed").rows() == [("ana", 2), ("bo", 2)]
    before = len(looks)
    room.later(HOUR)
    twice(room, "c")
    with database.begin_read() as transaction:  # nothing that was said today matters today
        people.load(transaction, room.stood, room.at)
    assert len(looks) == before
    room.later(DAY)
    assert read(people, room)["differed"].to_list() == [3, 3]
    assert len(looks) == before + 1


def test_what_comes_in_late_is_read_when_it_comes(database, looks):
    room, people = Room(database, text=ASKED), ReviewerCheckCache()
    twice(room, "a")
    room.later(DAY)
    read(people, room)
    said = {"reviewer": "eve", "answers": {"alarm": "bear"}, "exposure": "blind"}
    room.keep(Decision(key="a", submitted_at=START + MINUTE, **said))
    read(people, room)
    assert len(looks) == 2


def test_a_known_case_is_read_as_any_verdict(database, looks):
    room, people = Room(database, 2, ASKED), ReviewerCheckCache()
    key = next(f"k{n}" for n in range(99) if room.arrive(f"k{n}") and not room.claim(ANA))
    assert read(people, room).is_empty()
    before = len(looks)
    reviews.seed_gold_case(
        database, DAN, room.stood, key, {"alarm": "fox"}, reviewer_count=1, at=room.at
    )
    room.done(person("eve"), "bear")
    room.later(DAY)
    (row,) = read(people, room).to_dicts()
    assert (row["reviewer"], row["agreed"], row["differed"]) == ("eve", 0, 1)
    assert len(looks) == before + 1


def test_a_rollout_that_asks_nothing_knows_nothing_of_its_people(database):
    room = Room(database)
    with database.begin_read() as transaction:
        assert compute_reviewer_checks(transaction, room.stood) is None
