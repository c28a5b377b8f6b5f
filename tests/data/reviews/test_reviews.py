"""The review queue on both engines: order, one claim a task, one task of a case a reviewer."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from itertools import count
from threading import Event

import pytest

from rollout.data.counting.closed_units import PeriodRecords
from rollout.data.database.rollouts import Rollouts
from rollout.data.records.incoming_cases import ExposureStore
from rollout.data.records.records import RecordStore
from rollout.data.reviews.reviews import DONE, NewReviewTask, ReviewTaskStore
from rollout.data.tables.tables import reviews
from rollout.engine.records.records import (
    NAMED_BY_DECISION,
    UNREGISTERED,
    Case,
    Decision,
    Prediction,
)
from tests.factories import DAY, HOUR, MINUTE, NOON

NAMES = (f"queue-{number}" for number in count(1))
BLIND = ("blind", "gold")
CLAIM = 10 * MINUTE


class Queue:
    """The reviews of a rollout in which cases a, b, c … are known."""

    def __init__(self, database, keys="abcdefgh"):
        self.database = database
        with database.begin_write() as transaction:
            self.rollout = Rollouts(transaction).create(next(NAMES), salt=bytes(32), at=NOON)
            known = [Case(key=k, site="creek", window="day", occurred_at=NOON) for k in keys]
            kept = RecordStore(transaction, self.rollout).store(known, received_at=NOON)
        self.ids = kept.case_ids

    def open(self, *keys, **changes):
        new = NewReviewTask(
            case_id=0,
            kind="blind",
            task_number=1,
            site="creek",
            opened_at=NOON,
            sampling_value=0.5,
            due_at=NOON + DAY,
        )
        with self.database.begin_write() as transaction:
            ReviewTaskStore(transaction, self.rollout).open_tasks(
                [replace(new, case_id=self.ids[key], **changes) for key in keys]
            )
        return self

    def claim(self, who, at=NOON, kinds=BLIND, sites=None, database=None, in_use=()):
        with (database or self.database).begin_write() as transaction:
            store = ReviewTaskStore(transaction, self.rollout, dict(in_use))
            found = store.claim(who, at, kinds, sites, at + CLAIM)
        return None if found is None else self.key(found)

    def key(self, review):
        names = {number: key for key, number in self.ids.items()}
        return names[review.case_id], review.task_number

    def everybody(self, who, at=NOON, **more):
        """Return all that somebody is given, one after the other."""
        found = []
        while (next_one := self.claim(who, at, **more)) is not None:
            found.append(next_one[0])
        return "".join(found)

    def store(self, act):
        with self.database.begin_write() as transaction:
            return act(ReviewTaskStore(transaction, self.rollout))

    def close(self, key, who, at=NOON, number=1):
        def act(store):
            tasks = store.list_of_cases([self.ids[key]])
            store.close(next(t for t in tasks if t.task_number == number), who, at=at)

        self.store(act)


@pytest.fixture
def queue(database):
    return Queue(database)


def test_each_seat_is_given_to_one_person(queue):
    queue.open("a", "b")
    assert {queue.claim("ana"), queue.claim("bo")} == {("a", 1), ("b", 1)}
    assert queue.claim("cy") is None


def test_a_seat_that_is_there_is_not_opened_again(queue):
    queue.open("a").open("a", sampling_value=0.1)
    (only,) = queue.store(lambda store: store.list_of_cases([queue.ids["a"]]))
    assert only.kind == "blind"
    assert queue.everybody("ana") == "a"


def test_nobody_sits_twice_at_a_case(queue):
    queue.open("a").open("a", task_number=2).open("a", task_number=3)
    assert [queue.claim("ana"), queue.claim("ana")] == [("a", 1), None]
    queue.close("a", "ana")
    assert queue.claim("ana", NOON + HOUR) is None
    assert [queue.claim("bo"), queue.claim("cy")] == [("a", 2), ("a", 3)]


def test_who_asks_twice_at_once_sees_what_the_first_asking_took(queue, other):
    queue.open("a", "b")
    sites, began = None, Event()

    def once_more():
        began.set()
        with other.begin_write() as transaction:
            store = ReviewTaskStore(transaction, queue.rollout)
            store.lock_reviewer("ana")
            return [queue.key(held) for held in store.list_claimed("ana", NOON, BLIND, sites)]

    with ThreadPoolExecutor(1) as pool:
        with queue.database.begin_write() as transaction:
            store = ReviewTaskStore(transaction, queue.rollout)
            store.lock_reviewer("ana")
            second = pool.submit(once_more)
            assert began.wait(5)
            store.claim("ana", NOON, BLIND, sites, NOON + CLAIM)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.2)  # it waits
        assert second.result(timeout=10) == [("a", 1)]


def test_a_case_that_somebody_has_judged_does_not_stand_in_their_way(queue):
    queue.open("a", sampling_value=0.1).open("a", sampling_value=0.1, task_number=2).open(
        "b", sampling_value=0.2
    )
    assert queue.everybody("ana") == "ab"


def test_whoever_decided_under_another_spelling_gets_no_second_task_of_the_case(queue):
    queue.open("a", sampling_value=0.1).open("b", answer_by=NOON + HOUR).open("c")
    sent = [
        Decision(key=key, reviewer=name, answers={"alarm": "bear"}, exposure="unknown")
        for key, name in (("a", "Ana"), ("b", " ANA "), ("c", "bo"))
    ]
    with queue.database.begin_write() as transaction:
        RecordStore(transaction, queue.rollout).store(sent, received_at=NOON)
    count = queue.store(lambda store: store.count_available("ana", NOON, BLIND, None))
    assert (count, queue.everybody("ana")) == (1, "c")
    assert queue.everybody("Bo") == "ba"


def test_a_claim_runs_out_without_a_process(queue):
    queue.open("a")
    assert queue.claim("ana") == ("a", 1)
    assert queue.claim("bo", NOON + CLAIM - MINUTE) is None
    assert queue.claim("bo", NOON + CLAIM) == ("a", 1)
    assert queue.claim("ana", NOON + CLAIM) is None


def test_who_lost_a_seat_may_take_another_one_of_the_case(queue):
    queue.open("a").open("a", task_number=2)
    queue.claim("ana")
    assert queue.claim("bo", NOON + CLAIM) == ("a", 1)
    assert queue.claim("ana", NOON + CLAIM) == ("a", 2)


def test_a_seat_that_ran_out_comes_back_to_the_same_person_too(queue):
    queue.open("a").open("a", task_number=2)
    assert [queue.claim("ana"), queue.claim("ana", NOON + CLAIM)] == [("a", 1), ("a", 1)]


def test_a_seat_is_asked_for_until_it_is_due(queue):
    queue.open("a")
    assert queue.claim("ana", NOON + DAY) is None
    assert queue.claim("ana", NOON + DAY - MINUTE) == ("a", 1)


def test_those_that_are_due_first_come_first_and_the_draw_breaks_ties(queue):
    queue.open("a", due_at=NOON + 3 * HOUR).open("b", due_at=NOON + 2 * HOUR)
    queue.open("c", sampling_value=0.2).open("d", sampling_value=0.1)
    assert queue.everybody("ana") == "badc"


def test_another_order_of_the_queue_is_one_line(queue, monkeypatch):
    """Those that run out are listed by due time in any order: a limit cuts the last ones."""
    by_site = (reviews.c.site, reviews.c.due_at.desc())
    monkeypatch.setattr("rollout.data.reviews.reviews.QUEUE_ORDER", by_site)
    queue.open("a", site="lake", due_at=NOON + HOUR).open("b", site="lake")
    queue.open("c", due_at=NOON + 2 * HOUR).open("d", due_at=NOON + 3 * HOUR)
    assert queue.everybody("ana") == "dcba"
    claimed = queue.store(lambda store: store.list_claimed("ana", NOON, BLIND, None))
    assert "".join(queue.key(review)[0] for review in claimed) == "dcba"
    span = {"since": NOON, "until": NOON + 2 * DAY, "limit": 2}
    listed = queue.store(lambda store: store.list_overdue(**span, sites=None))
    assert "".join(queue.key(review)[0] for review in listed) == "ac"


def test_answers_that_are_still_of_use_come_before_those_that_are_not(queue):
    queue.open("a", due_at=NOON + HOUR)
    queue.open("b", answer_by=NOON + 2 * MINUTE).open("c", answer_by=NOON + MINUTE)
    queue.open("d", answer_by=NOON, due_at=NOON + 2 * HOUR)
    assert queue.everybody("ana") == "cbad"


def test_blind_and_known_cases_are_one_queue_and_the_others_are_not_in_it(queue):
    queue.open("a", kind="gold", sampling_value=0.1).open("b", sampling_value=0.2)
    queue.open("c", kind="assisted").open("d", kind="adjudication", due_at=None)
    assert queue.everybody("ana") == "ab"
    assert queue.everybody("ana", kinds=("assisted",)) == "c"
    assert queue.everybody("ana", NOON + 99 * DAY, kinds=("adjudication",)) == "d"


def test_people_judge_at_their_sites_alone(queue):
    queue.open("a").open("b", site="lake")
    assert queue.everybody("ana", sites=frozenset({"lake"})) == "b"
    assert queue.everybody("bo", sites=frozenset()) == ""


def test_who_was_shown_the_prediction_is_given_no_blind_seat(queue, database):
    queue.open("a").open("b").open("c", kind="assisted")
    with database.begin_write() as transaction:
        told = ExposureStore(transaction, queue.rollout)
        ids = queue.ids
        entries = [(ids["a"], "prediction"), (ids["b"], "case"), (ids["c"], "prediction")]
        told.add(entries, reviewer="ana", page="case", at=NOON)
    assert queue.everybody("ana", kinds=("blind", "assisted")) == "bc"
    assert queue.everybody("bo") == "a"


V1_IN_USE = {("v1",): {"creek"}}
IN_USE = {("v1", "v1b"): {"creek"}, ("v2",): {"creek", "lake"}}


def receive(queue, *keys, at=NOON, draws=(), **facts):
    """Store revisions of cases, each with the draws of versions that have a sample."""
    new = [Case(key=k, site="creek", window="day", occurred_at=at, **facts) for k in keys]
    with queue.database.begin_write() as transaction:
        store = RecordStore(transaction, queue.rollout)
        stored = store.store(new, received_at=at, draw_case=lambda *_: dict(draws))
    queue.ids |= stored.case_ids


def predict(queue, version, *keys, at=NOON):
    answers = {"alarm": "bear"}
    sent = [Prediction(key=key, version=version, answers=answers) for key in keys]
    with queue.database.begin_write() as transaction:
        RecordStore(transaction, queue.rollout).store(sent, received_at=at)


def test_a_blind_case_is_offered_once_every_version_in_use_has_predicted(queue):
    queue.open("a", "b", "c")
    predict(queue, "v1", "a", "b")
    predict(queue, "v2", "b", "c")
    assert queue.everybody("ana", in_use=IN_USE) == "b"
    predict(queue, "v2", "a")
    predict(queue, "v1b", "c")  # by another of its names
    assert queue.everybody("ana", in_use=IN_USE) == "ac"


def test_versions_elsewhere_delay_nothing(queue):
    queue.open("a")
    assert queue.claim("ana", in_use={("v1",): {"lake"}}) == ("a", 1)


def test_a_blind_case_waits_ten_minutes_at_most(queue):
    queue.open("a")
    assert queue.claim("ana", NOON + 9 * MINUTE, in_use=IN_USE) is None
    assert queue.claim("ana", NOON + 10 * MINUTE, in_use=IN_USE) == ("a", 1)


def test_a_case_that_a_client_waits_for_is_offered_at_once(queue):
    queue.open("a", answer_by=NOON + MINUTE).open("b", answer_by=NOON)
    queue.open("c", kind="assisted").open("d", kind="gold")
    kinds = (*BLIND, "assisted")
    assert sorted(queue.everybody("ana", kinds=kinds, in_use=IN_USE)) == ["a", "c", "d"]


@pytest.mark.parametrize(("unpredicted", "offered"), [(19, None), (20, ("late", 1))])
def test_a_version_that_left_its_last_20_cases_unpredicted_delays_nothing(
    database, unpredicted, offered
):
    before, at = [f"k{n:02}" for n in range(unpredicted)], NOON + 15 * MINUTE
    queue = Queue(database, ["first"])
    predict(queue, "v1", "first")
    for time, keys in ((NOON + MINUTE, before), (at, ["late"])):  # the last one isn't left yet
        receive(queue, *keys, at=time)
    queue.open("late", opened_at=at)
    assert queue.claim("ana", at, in_use=V1_IN_USE) == offered


ODD = 'V_1,"%:false'
DRAWS = (
    ("left out", {"v1": False}, True),
    ("drawn", {"v1": True}, False),
    ("drawn by another name", {"v1": False, ODD: True}, False),
    ("left out by an odd name", {ODD: False, "v0": True}, True),
    ("names that only look alike", {"V1": False, 'x"v1': False, '{"v1': False}, False),
    ("no sample", {}, False),
)


@pytest.mark.parametrize(("draws", "is_offered"), [d[1:] for d in DRAWS], ids=[d[0] for d in DRAWS])
def test_a_case_that_the_sample_left_out_waits_for_no_prediction(database, draws, is_offered):
    queue = Queue(database, "")
    receive(queue, "a", draws=draws)
    queue.open("a")
    in_use = {("v1", ODD): {"creek"}}
    assert queue.claim("ana", in_use=in_use | {("v2",): {"creek"}}) is None
    assert (queue.claim("ana", in_use=in_use) is not None) == is_offered


@pytest.mark.parametrize(
    ("first", "later", "is_offered"),
    [(1, 2, True), (UNREGISTERED + 1, 1, False), (NAMED_BY_DECISION, 1, True)],
)
def test_what_a_case_drew_first_counts_unless_a_registering_sender_replaces_it(
    database, first, later, is_offered
):
    queue = Queue(database, "")
    receive(queue, "a", revision=first, draws={"v1": False})
    receive(queue, "a", revision=later, draws={"v1": True}, at=NOON + MINUTE)
    queue.open("a", opened_at=NOON + MINUTE)
    assert (queue.claim("ana", NOON + MINUTE, in_use=V1_IN_USE) is not None) == is_offered


def test_cases_that_the_sample_left_out_are_none_that_a_version_left(database):
    queue, at = Queue(database, ""), NOON + 15 * MINUTE
    receive(queue, *(f"k{n:02}" for n in range(20)), draws={"v1": False})
    receive(queue, "late", at=at, draws={"v1": True})
    queue.open("late", opened_at=at)
    assert queue.claim("ana", at, in_use=V1_IN_USE) is None


def test_who_judged_a_case_elsewhere_is_not_given_it(queue, database):
    queue.open("a", "b")
    said = Decision(key="a", reviewer="ana", answers={"alarm": "bear"}, exposure="unknown")
    with database.begin_write() as transaction:
        RecordStore(transaction, queue.rollout).store([said], received_at=NOON)
    assert queue.everybody("ana") == "b"


def test_a_case_whose_records_are_gone_is_given_to_nobody(queue):
    queue.ids["z"] = 999_999
    assert queue.open("z").claim("ana") is None


def test_what_is_given_back_is_free_at_once(queue):
    queue.open("a", "b")
    queue.everybody("ana")
    assert queue.store(lambda store: store.release_all("bo", None)) == 0
    assert queue.store(lambda store: store.release_all("ana", frozenset({"lake"}))) == 0
    assert queue.store(lambda store: store.release_all("ana", None)) == 2
    assert queue.everybody("bo") in {"ab", "ba"}


def test_a_verdict_is_never_given_back(queue):
    queue.open("a")
    queue.claim("ana")
    queue.close("a", "ana")
    queue.store(lambda store: store.release_all("ana", None))
    queue.store(lambda store: store.withdraw([queue.ids["a"]], ["blind"], at=NOON))
    (done,) = queue.store(lambda store: store.list_of_cases([queue.ids["a"]]))
    assert (done.state, done.reviewer) == (DONE, "ana")


def test_a_case_that_moved_is_given_where_it_is_now(queue):
    queue.open("a")
    queue.claim("ana", sites=frozenset({"creek"}))
    queue.store(lambda store: store.change_site(queue.ids["a"], "lake"))
    assert queue.claim("ana", sites=frozenset({"creek"})) is None
    assert queue.claim("bo", sites=frozenset({"lake"})) == ("a", 1)


def test_waiting_counts_the_cases_that_could_be_given_to_somebody(queue, monkeypatch):
    queue.open("a", "b").open("a", task_number=2).open("c", kind="assisted").open("d", due_at=NOON)

    def waiting(who, *kinds):
        return queue.store(lambda store: store.count_available(who, NOON, kinds, None))

    assert [waiting("ana", *BLIND), waiting("ana", "assisted")] == [2, 1]
    queue.claim("ana")
    assert [waiting("ana", *BLIND), waiting("bo", *BLIND)] == [1, 2]
    monkeypatch.setattr("rollout.data.reviews.reviews.MAX_COUNTED", 1)
    assert waiting("bo", *BLIND) == 1


def test_those_without_a_verdict_are_listed_as_they_run_out(queue):
    queue.open("a").open("b", due_at=NOON + HOUR).open("c", due_at=NOON - HOUR)
    queue.open("d", due_at=NOON + HOUR, site="lake")
    span = {"since": NOON, "until": NOON + 2 * DAY, "limit": 9}
    listed = queue.store(lambda store: store.list_overdue(**span, sites=frozenset({"creek"})))
    assert [queue.key(review)[0] for review in listed] == ["b", "a"]


def read_period(queue, read):
    with queue.database.begin_read() as transaction:
        return read(PeriodRecords(transaction, queue.rollout))


@pytest.mark.parametrize(
    ("changes", "until", "is_blind"),
    [
        ({}, DAY, True),
        ({"kind": "gold"}, DAY, True),
        ({"kind": "assisted"}, DAY, False),
        ({"due_at": None}, 2 * DAY, True),
    ],
)
def test_a_case_may_be_decided_blind_until_its_task_is_due(queue, changes, until, is_blind):
    queue.open("a", **changes)
    still = {queue.ids["a"]} if is_blind else set()
    just_before = NOON + until - timedelta(microseconds=1)
    assert read_period(queue, lambda records: records.list_blind_cases(just_before)) == still
    after = still if changes.get("due_at", NOON) is None else set()
    assert read_period(queue, lambda records: records.list_blind_cases(NOON + until)) == after
    queue.close("a", "ana")
    assert read_period(queue, lambda records: records.list_blind_cases(NOON)) == set()


def test_tasks_are_open_until_they_are_due_and_overdue_from_then_on(queue):
    queue.open("a", due_at=NOON).open("b", due_at=NOON + HOUR, opened_at=NOON - HOUR)
    queue.open("c", due_at=None)

    def count(at, since=NOON):
        rows = read_period(queue, lambda r: r.count_open_reviews(since, at, NOON + HOUR))
        return [row[1:] for row in rows]

    moment = timedelta(microseconds=1)
    assert count(NOON - moment) == [(3, 0, 2, NOON - HOUR)]
    assert count(NOON) == [(2, 1, 1, NOON - HOUR)], "what is due now is overdue"
    assert count(NOON, since=NOON + moment) == [(2, 0, 1, NOON - HOUR)]
    assert count(NOON + HOUR) == [(1, 2, 0, NOON)]


def test_reviews_of_another_rollout_are_not_there(queue, database):
    queue.open("a")
    (here,) = queue.store(lambda store: store.list_of_cases([queue.ids["a"]]))
    with database.begin_write() as transaction:
        other = Rollouts(transaction).create(next(NAMES), salt=bytes(32), at=NOON)
        assert ReviewTaskStore(transaction, other).find(here.id) is None
        assert (
            ReviewTaskStore(transaction, other).claim("ana", NOON, BLIND, None, NOON + CLAIM)
            is None
        )


def test_several_who_ask_at_once_are_never_given_the_same_seat(queue, other):
    queue.open(*"abcdefgh").open(*"abcdefgh", task_number=2)
    people = [f"p{number}" for number in range(8)]

    def work(turn):
        who, database = people[turn % 8], (queue.database, other)[turn % 2]
        return who, queue.claim(who, database=database)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(24)))
    given = [(who, *seat) for who, seat in found if seat is not None]
    assert len({(key, seat) for _, key, seat in given}) == len(given) == 16
    assert len({(who, key) for who, key, _ in given}) == len(given)


def test_one_person_with_two_windows_is_given_a_case_once(queue, other):
    queue.open("a").open("a", task_number=2)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda d: queue.claim("ana", database=d), (queue.database, other)))
    assert sorted(found, key=str) in ([("a", 1), None], [("a", 2), None])


def test_a_seat_held_by_an_open_transaction_holds_nobody_up(queue, other):
    if queue.database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer: who comes second waits for the first")
    queue.open("a", "b")
    with other.begin_write() as transaction:
        store = ReviewTaskStore(transaction, queue.rollout)
        first = store.claim("ana", NOON, BLIND, None, NOON + timedelta(hours=1))
        assert queue.claim("bo") not in {None, queue.key(first)}
