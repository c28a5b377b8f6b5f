"""Reviewers take cases, judge them, look what the model said; what was shown decides exposure."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import select

from rollout import faults
from rollout.core.draws import draw
from rollout.core.errors import MachineKey, NotAllowed, UnknownRollout, UnknownVersion
from rollout.core.records import Case, Decision, Prediction
from rollout.core.reviewing import (
    BadVerdict,
    NotRevealed,
    ReviewGone,
    StillOpen,
    UnknownCase,
    UnknownReview,
    VerdictStands,
)
from rollout.core.rights import Right
from rollout.services import reviewing
from rollout.services.ingesting import units_of
from rollout.services.reviewing import Said
from rollout.store.due import DueQueue
from rollout.store.newest import Newest
from rollout.store.reviews import Reviews
from rollout.store.session import Database
from rollout.store.tables import decisions, reviews, shown
from tests.services.review_room import (
    ANA,
    BO,
    CY,
    DAN,
    DAY,
    MINUTE,
    START,
    Room,
    on_stage,
    person,
    policy_text,
)
from tests.store.databases import fresh

SHADOW, SUPERVISED, AUTONOMOUS = 0, 1, 2
KEYS = tuple(f"k{number}" for number in range(40))
DRAWN = {key: draw(bytes(32), "stage", key) for key in KEYS}
LOW = next(key for key in KEYS if DRAWN[key] < 0.5)  # blind when supervised, audited after
HIGH = next(key for key in KEYS if DRAWN[key] >= 0.5)


@pytest.fixture
def lite(tmp_path):
    """Return a database where the engine makes no difference to what is tested."""
    with fresh("sqlite", tmp_path) as url:
        made = Database(url)
        yield made
        made.close()


def stored(room, table=decisions):
    with room.database.reading() as transaction:
        return list(transaction.execute(select(table)))


def only(rows):
    (row,) = rows
    return row


def waiting(room, who=ANA):
    return {kind: n for kind, n in room.mine(who).waiting.items() if n}


# Which seats are opened


def test_in_shadow_every_case_is_judged_blind(lite):
    assert waiting(Room(lite).arrive(LOW, HIGH)) == {"blind": 2}


def test_supervised_a_person_confirms_what_the_draw_does_not_keep_blind(lite):
    assert waiting(Room(lite, SUPERVISED).arrive(LOW, HIGH)) == {"blind": 1, "assisted": 1}


def test_autonomous_only_the_audited_share_is_judged(lite):
    assert waiting(Room(lite, AUTONOMOUS).arrive(*KEYS)) == {
        "blind": sum(number < 0.5 for number in DRAWN.values())
    }


def test_a_burst_is_drawn_whole(lite):
    text = policy_text(further="episode_span: 10m").replace("unit: case", "unit: episode")
    room = Room(lite, AUTONOMOUS, text)
    room.arrive("a", "b", "c", episode=LOW).arrive("d", "e", episode=HIGH)
    assert waiting(room) == {"blind": 3}


def test_opening_again_changes_nothing(lite):
    room = Room(lite, text=policy_text(verdicts=3)).arrive("a")
    case = Case(key="a", site="creek", occurred_at=START, window="always")
    for rung in (AUTONOMOUS, SHADOW):
        with lite.writing() as transaction:
            reviewing.open_reviews(transaction, on_stage(room.stood, rung), [case], room.at)
    assert waiting(room) == {"blind": 1}
    assert len(stored(room, reviews)) == 3


def test_a_case_of_yesterday_is_asked_about_as_it_stood_then(lite):
    """The ledger's last row came after it: the cell was in shadow when the case occurred."""
    room = Room(lite, AUTONOMOUS)
    scope = replace(room.stood.scope, at=START)
    room.stood = replace(room.stood, scope=scope)
    assert waiting(room.arrive(HIGH, occurred_at=START - MINUTE)) == {"blind": 1}


def test_a_case_of_which_it_was_said_that_a_person_decides_gets_one(lite):
    room = Room(lite, AUTONOMOUS).arrive(HIGH, decider="human")
    assert waiting(room) == {"blind": 1}


def test_a_challenger_that_asks_too_brings_no_work(lite):
    told = [
        Prediction(key=HIGH, version=version, answers={}, decider=decider)
        for version, decider in (("v1", "model"), ("v2", "human"), ("v3", None))
    ]
    assert waiting(Room(lite, AUTONOMOUS).arrive(HIGH, answers=told)) == {}


@pytest.mark.parametrize(
    ("confidence", "expected"), [(0.9, {}), (0.7, {"blind": 1}), (None, {"blind": 1})]
)
def test_below_the_floor_a_person_decides(lite, confidence, expected):
    room = Room(lite, AUTONOMOUS, policy_text(further="confidence_floor: 80%"))
    assert waiting(room.arrive(HIGH, confidence=confidence)) == expected


def test_outside_the_policys_windows_and_sites_people_decide(lite):
    assert waiting(Room(lite, AUTONOMOUS).arrive(HIGH, site="elsewhere")) == {"blind": 1}


def test_a_corrected_case_is_judged_where_it_is(lite):
    room = Room(lite).arrive("a")
    moved = Case(key="a", site="lake", occurred_at=START, window="always", revision=2)
    room.keep(moved)
    with lite.writing() as transaction:
        reviewing.open_reviews(transaction, room.stood, [moved], room.at)
    assert waiting(room, person("eve", Right("reviewer", "bears", "lake"))) == {"blind": 1}
    assert waiting(room, person("eve", Right("reviewer", "bears", "creek"))) == {}


@pytest.mark.parametrize(
    ("rule", "exposure", "left"),
    [
        ("outside: blind", "unknown", {}),
        ("outside: unknown", "unknown", {"blind": 1}),
        ("outside: unknown", "blind", {}),
        ("outside: blind", "assisted", {"blind": 1}),
    ],
)
def test_who_was_judged_elsewhere_is_asked_about_only_if_that_is_no_evidence(
    lite, rule, exposure, left
):
    room = Room(lite, text=policy_text(further=rule)).arrive("a")
    room.keep(Decision(key="a", reviewer="eve", answers={"alarm": "fox"}, exposure=exposure))
    with lite.writing() as transaction:
        numbers = {
            review.case_id for review in Reviews(transaction, room.stood.rollout).of_cases([1])
        }
        reviewing.answered_elsewhere(transaction, room.stood, numbers, room.at)
    assert waiting(room) == left


# Verdicts


def test_a_verdict_is_kept_blind_with_its_seat_and_counts_as_evidence(database):
    room = Room(database).arrive("a")
    task = room.take(ANA)
    room.judge(ANA, task.review, "fox", note="fog", started_at=START - MINUTE)
    row = only(stored(room))
    assert (row.reviewer, row.exposure, row.claims, row.seat) == ("ana", "blind", "blind", 1)
    assert (row.review, row.note, row.submitted_at) == (task.review, "fog", START)
    with database.reading() as transaction:
        units = units_of(transaction, room.stood, {row.case_id})
        assert DueQueue(transaction, room.stood.rollout).waiting() == 2
    guard = units.filter(units["track"] == "guard").to_dicts()
    assert [(u["decided"], u["predicted"], u["excluded"]) for u in guard] == [("fox", "bear", None)]


def test_sending_a_verdict_again_answers_the_same(database):
    room = Room(database).arrive("a")
    review = room.take(ANA).review
    first = room.judge(ANA, review, note="x")
    assert room.later(MINUTE).judge(ANA, review, note="x") == first
    with pytest.raises(VerdictStands, match="supersedes: 1"):
        room.judge(ANA, review, "fox")
    assert len(stored(room)) == 1


def test_a_verdict_is_undone_by_the_next_revision(database):
    room = Room(database).arrive("a")
    review = room.take(ANA).review
    room.judge(ANA, review)
    with pytest.raises(VerdictStands, match="revision 1"):
        room.judge(ANA, review, "fox", supersedes=2)
    second = room.judge(ANA, review, "fox", supersedes=1)
    assert (second.revision, second.answers) == (2, {"alarm": "fox"})
    assert room.judge(ANA, review, "fox", supersedes=1) == second
    assert [row.revision for row in stored(room)] == [1, 2]


def test_nothing_is_undone_once_the_model_was_seen(lite):
    room = Room(lite, text=policy_text(reveal="after")).arrive("a")
    review = room.take(ANA).review
    room.judge(ANA, review)
    room.reveal(ANA, review)
    with pytest.raises(VerdictStands, match="shown what the model said"):
        room.judge(ANA, review, "fox", supersedes=1)


def test_a_first_verdict_supersedes_nothing(lite):
    room = Room(lite).arrive("a")
    with pytest.raises(VerdictStands, match="no verdict yet"):
        room.judge(ANA, room.take(ANA).review, supersedes=1)


def test_unsure_is_a_verdict(lite):
    room = Room(lite).arrive("a")
    room.done(ANA, None)
    row = only(stored(room))
    assert (row.unsure, row.answers) == (True, {})


def test_a_verdict_that_no_lever_has_is_refused_and_the_case_stays(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    with pytest.raises(BadVerdict, match="one of bear, fox, none"):
        room.judge(ANA, review, "wolf")
    assert room.judge(ANA, review).answers == {"alarm": "bear"}


def test_who_is_slow_may_still_answer_while_nobody_else_has_the_case(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    assert room.later(20 * MINUTE).judge(ANA, review).revision == 1


def test_who_is_too_slow_is_told_so(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    assert room.later(20 * MINUTE).take(BO).review == review
    with pytest.raises(ReviewGone, match="take the next one"):
        room.judge(ANA, review)


def test_a_review_of_somebody_else_is_as_unknown_as_none(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    texts = []
    for number in (review, 999):
        with pytest.raises(UnknownReview) as refused:
            room.judge(BO, number)
        texts.append(str(refused.value).replace(str(number), "N"))
    assert texts[0] == texts[1]


def test_what_is_claimed_makes_a_verdict_worse_and_never_better(lite):
    room = Room(lite, SUPERVISED).arrive(LOW, HIGH)
    room.judge(ANA, room.take(ANA, kind="blind").review, claims="revealed")
    room.judge(ANA, room.take(ANA, kind="assisted").review, claims="blind")
    assert {row.exposure for row in stored(room)} == {"revealed", "assisted"}


def test_machines_judge_nothing(lite):
    room = Room(lite).arrive("a")
    machine = person("box", Right("reviewer", "bears"), machine=True)
    with pytest.raises(MachineKey):
        room.take(machine)
    with pytest.raises(MachineKey):
        room.judge(machine, 1)


@pytest.mark.parametrize("who", [DAN, person("eve", Right("viewer", "bears"))])
def test_only_reviewers_review(lite, who):
    room = Room(lite).arrive("a")
    for act in (room.take, room.mine, lambda w: room.judge(w, 1), lambda w: room.reveal(w, 1)):
        with pytest.raises(NotAllowed):
            act(who)
    with pytest.raises(UnknownRollout):
        room.take(person("eve", Right("reviewer", "other")))


def test_who_lost_a_site_can_no_more_judge_there(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    with pytest.raises(NotAllowed, match="creek"):
        room.judge(person("ana", Right("reviewer", "bears", "lake")), review)


def test_a_verdict_sent_twice_at_once_is_stored_once(database):
    room = Room(database).arrive("a")
    review = room.take(ANA).review
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: room.judge(ANA, review), range(2))
    assert first == second
    assert len(stored(room)) == 1


@pytest.mark.parametrize(
    "point",
    [
        "review.claimed",
        "review.shown",
        "review.decided",
        "ingest.due",
        "review.due",
        "commit.before",
    ],
)
def test_whatever_breaks_off_can_be_asked_again(database, point):
    room = Room(database, SUPERVISED).arrive(HIGH)

    def broken(name):
        raise RuntimeError(name)

    def asked():
        return room.judge(ANA, room.take(ANA).review)

    with faults.during(broken, point), pytest.raises(RuntimeError):
        asked()
    assert stored(room) == []
    asked()
    assert len(stored(room)) == 1
    assert len(stored(room, shown)) == 2
    assert waiting(room) == {}


# The queue


def test_somebody_holds_as_many_as_they_ask_for_and_asking_again_is_safe(lite):
    room = Room(lite).arrive(*KEYS[:9])
    first = room.claim(ANA, hold=3)
    assert len(first) == 3
    assert room.claim(ANA, hold=3) == first
    assert len(room.claim(ANA, hold=99)) == 5
    assert room.mine(ANA).tasks[:3] == first


def test_three_verdicts_are_those_of_three_people(lite):
    room = Room(lite, text=policy_text(verdicts=3)).arrive("a")
    for who in (ANA, BO, CY):
        assert room.done(who).case == "a"
        assert room.take(who) is None
    assert sorted((row.reviewer, row.seat) for row in stored(room)) == [
        ("ana", 1),
        ("bo", 2),
        ("cy", 3),
    ]
    assert room.take(person("eve")) is None


def test_a_case_that_was_given_back_is_free(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    for _ in range(2):
        reviewing.release(lite, ANA, room.stood, review)
    assert room.take(BO).review == review
    reviewing.release(lite, ANA, room.stood, review)
    assert room.mine(BO).tasks
    with pytest.raises(UnknownReview):
        reviewing.release(lite, CY, room.stood, review)


def test_an_operator_gives_back_what_somebody_holds_who_is_away(lite):
    room = Room(lite).arrive("a", "b")
    room.claim(ANA, hold=2)
    assert reviewing.reassign(lite, DAN, room.stood, "ana") == 2
    assert len(room.claim(BO, hold=2)) == 2
    with pytest.raises(NotAllowed):
        reviewing.reassign(lite, ANA, room.stood, "bo")


def test_verdicts_that_are_about_to_be_missing_are_listed_for_operators(lite):
    room = Room(lite).arrive("a").later(20 * 60 * MINUTE).arrive("b")
    room.claim(ANA, kind="blind", hold=2)
    late = only(reviewing.overdue(lite, DAN, room.stood, room.at))
    assert (late.case, late.site, late.kind, late.reviewer) == ("a", "creek", "blind", "ana")
    assert late.due_at == START + DAY
    assert len(reviewing.overdue(lite, DAN, room.stood, room.at + 9 * DAY)) == 0


# What is shown


def test_an_assisted_review_shows_the_proposal_and_that_is_noted_first(database):
    room = Room(database, SUPERVISED).arrive(HIGH, confidence=0.75)
    task = room.take(ANA)
    assert (task.kind, task.proposal.answers) == ("assisted", {"alarm": "bear"})
    assert {(row.reviewer, row.what, row.page) for row in stored(room, shown)} == {
        ("ana", "case", "review"),
        ("ana", "prediction", "review"),
    }
    room.judge(ANA, task.review, "fox")
    assert only(stored(room)).exposure == "assisted"
    assert only(stored(room)).seat is None


def test_an_assisted_review_before_any_proposal_is_a_blind_verdict(lite):
    room = Room(lite, SUPERVISED).arrive(HIGH, said=None)
    task = room.take(ANA)
    assert task.proposal is None
    room.judge(ANA, task.review)
    assert only(stored(room)).exposure == "blind"


def test_a_proposal_that_comes_meanwhile_is_shown_and_noted(lite):
    room = Room(lite, SUPERVISED).arrive(HIGH, said=None)
    task = room.take(ANA)
    room.keep(Prediction(key=HIGH, version="v1", answers={"alarm": "fox"}))
    assert only(room.mine(ANA).tasks).proposal.answers == {"alarm": "fox"}
    room.judge(ANA, task.review)
    assert only(stored(room)).exposure == "assisted"


def test_what_is_shown_twice_is_noted_once(lite):
    room = Room(lite, SUPERVISED).arrive(HIGH)
    for _ in range(3):
        room.later(MINUTE).claim(ANA)
    assert len(stored(room, shown)) == 2


def test_a_prediction_seen_on_another_page_makes_a_verdict_no_evidence(lite):
    """Should a page ever show what it must not, the verdict after it is not blind."""
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    room.show(ANA, "a")
    room.judge(ANA, review)
    assert only(stored(room)).exposure == "revealed"


def test_reveal_is_for_those_who_judged_if_the_policy_wants_it(lite):
    room = Room(lite, text=policy_text(reveal="after")).arrive("a", confidence=0.5)
    review = room.take(ANA).review
    with pytest.raises(NotRevealed, match="your verdict first"):
        room.reveal(ANA, review)
    room.judge(ANA, review)
    answer = only(room.reveal(ANA, review))
    assert (answer.version, answer.answers, answer.confidence) == ("v1", {"alarm": "bear"}, 0.5)
    assert ("ana", "prediction", "reveal") in {
        (row.reviewer, row.what, row.page) for row in stored(room, shown)
    }
    with pytest.raises(UnknownReview):
        room.reveal(BO, review)


def test_reveal_never_says_the_same_before_and_after(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    for _ in range(2):
        with pytest.raises(NotRevealed, match="reveal: never"):
            room.reveal(ANA, review)
        room.judge(ANA, review)


def test_a_prediction_is_kept_from_whoever_could_still_judge_blind(lite):
    room = Room(lite, text=policy_text(verdicts=3)).arrive("a")
    both = person("eve", Right("viewer", "bears"), Right("reviewer", "bears"))
    there = person("lee", Right("viewer", "bears"), Right("reviewer", "bears", "lake"))
    assert not room.may_see(both, "a")
    assert room.may_see(there, "a")
    assert room.may_see(DAN, "a")
    room.done(both)
    assert room.may_see(both, "a")
    assert not room.may_see(ANA, "a")
    assert room.later(DAY).may_see(ANA, "a")


def test_a_prediction_is_kept_from_who_holds_a_claim_whatever_rights_are_left(lite):
    room = Room(lite).arrive("a")
    room.take(ANA)
    assert not room.may_see(
        person("ana", Right("viewer", "bears"), Right("reviewer", "bears", "lake")), "a"
    )


def test_a_prediction_that_came_before_its_case_is_kept_from_all_reviewers(lite):
    room = Room(lite)
    room.keep(Prediction(key="early", version="v1", answers={"alarm": "bear"}))
    assert not room.may_see(ANA, "early")
    assert room.may_see(DAN, "early")


def test_an_unwatched_case_of_the_models_hides_nothing(lite):
    room = Room(lite, AUTONOMOUS).arrive(HIGH, LOW)
    assert room.may_see(ANA, HIGH)
    assert not room.may_see(ANA, LOW)


def test_of_machines_nothing_is_noted(lite):
    room = Room(lite).arrive("a")
    room.show(person("box", Right("ingest", "bears"), machine=True), "a")
    assert stored(room, shown) == []


# Adjudication and known cases


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
    assert (last.exposure, last.seat) == ("revealed", None)


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


def test_an_operator_asks_for_a_third_voice_beside_the_models(lite):
    room = Room(lite).arrive("a", said="fox")

    def ask(version="v1", key="a", who=DAN):
        reviewing.ask_adjudication(lite, who, room.stood, key, version, room.at)

    with pytest.raises(StillOpen, match="still to judge a blind"):
        ask()
    room.done(ANA, "bear")
    for wrong, refusal in (({"version": "v9"}, UnknownVersion), ({"key": "z"}, UnknownCase)):
        with pytest.raises(refusal):
            ask(**wrong)
    with pytest.raises(NotAllowed):
        ask(who=ANA)
    ask()
    task = adjudication(room, CY)
    assert task.verdicts == ({"alarm": "bear"}, {"alarm": "fox"})
    assert ("cy", "prediction") in {(row.reviewer, row.what) for row in stored(room, shown)}


def seeded(room, key="a", people=2):
    reviewing.seed(room.database, DAN, room.stood, key, {"alarm": "fox"}, people=people, at=room.at)


def test_a_known_case_looks_like_any_other_and_is_no_record(database):
    room = Room(database, AUTONOMOUS, policy_text(reveal="after")).arrive(HIGH, LOW)
    seeded(room, HIGH)
    known, other = room.claim(ANA, hold=2)

    def shape(task):
        return (task.kind, task.answer_by, task.claimed_until, task.proposal, task.verdicts)

    assert shape(known) == shape(other)
    for task in (known, other):
        first = room.judge(ANA, task.review, "bear", note="x")
        assert room.judge(ANA, task.review, "bear", note="x") == first
        with pytest.raises(VerdictStands):
            room.judge(ANA, task.review, "none")
        room.judge(ANA, task.review, "none", supersedes=1)
        assert only(room.reveal(ANA, task.review)).answers == {"alarm": "bear"}
        with pytest.raises(VerdictStands, match="shown"):
            room.judge(ANA, task.review, "fox", supersedes=2)
    with database.reading() as transaction:
        kept = only(Reviews(transaction, room.stood.rollout).seeded())
        assert HIGH not in Newest(transaction, room.stood.rollout).decisions([kept.case_id])
    assert (kept.known, kept.said["answers"]) == ({"alarm": "fox"}, {"alarm": "none"})
    assert {row.review for row in stored(room)} == {known.review, other.review} - {kept.id}


def test_who_knows_the_answer_is_not_asked(lite):
    room = Room(lite, AUTONOMOUS).arrive(HIGH)
    seeded(room, HIGH)
    everything = person("dan", *DAN.rights, Right("reviewer", "bears"))
    assert room.take(everything) is None
    assert room.take(ANA) is not None


def test_a_case_that_may_be_evidence_is_no_known_case(lite):
    room = Room(lite).arrive("a")
    with pytest.raises(StillOpen):
        seeded(room)
    with pytest.raises(BadVerdict):
        reviewing.seed(lite, DAN, room.stood, "a", {"alarm": "wolf"}, people=1, at=room.at)
    with pytest.raises(NotAllowed):
        reviewing.seed(lite, ANA, room.stood, "a", {"alarm": "fox"}, people=1, at=room.at)


def test_a_verdict_needs_words_that_can_be_kept(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    with pytest.raises(BadVerdict):
        reviewing.decide(lite, ANA, room.stood, review, Said(unsure=True, note="\0"), room.at)


@pytest.mark.parametrize("begun", [START - 8 * DAY, START + 6 * MINUTE])
def test_a_beginning_that_no_right_clock_says_is_refused(lite, begun):
    room = Room(lite).arrive("a")
    with pytest.raises(BadVerdict, match="started_at"):
        room.judge(ANA, room.take(ANA).review, started_at=begun)
