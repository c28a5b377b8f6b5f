"""Cases held ahead: at most three, blind, in shadow, and none whose answer somebody waits for."""

from dataclasses import replace

import pytest

from rollout.core.calendar.sites import Cell
from rollout.core.errors import NotAllowedError, UserRequiredError
from rollout.core.records.reviews import SEEDED, ReviewReassignedError
from rollout.core.scope.permissions import AssignedRole
from rollout.core.scope.scope import CellState, Stop
from rollout.services.reviews import held_cases, reviews
from rollout.services.reviews.held_cases import CHANGED, URGENT, HeldPage, compute_hold_terms
from rollout.store.records.exposures import ExposureStore
from rollout.store.reviews.reviews import ReviewTaskStore
from rollout.store.tables.tables import exposures
from tests.services.review_room import ANA, BO, DAN, DAY, MINUTE, START, Room, on_stage, person
from tests.services.stored_reviews import KEYS, LOW, lite, stored

__all__ = ["lite"]


class OpenPage:
    """The review page of somebody: the case on it, and those that its script holds."""

    def __init__(self, room, who=ANA):
        self.room, self.who, self.held = room, who, ()
        page = held_cases.claim_page_tasks(room.database, who, room.stood, room.at)
        self.terms, self.tasks = page.terms, page.tasks
        self.current = page.tasks[0].review if page.tasks else None

    def hold(self):
        """Ask for the next cases; return why the page has to be loaded anew, if so."""
        page = HeldPage(self.current, self.held, self.terms)
        found = held_cases.hold_cases_ahead(
            self.room.database, self.who, self.room.stood, page, self.room.at
        )
        self.held = tuple(task.review for task in found.tasks)
        assert not (found.reload_reason and self.held)
        return found.reload_reason

    def step(self):
        """Answer the case on the page; the next one appears."""
        answered, (self.current, *rest) = self.current, self.held
        self.held = tuple(rest)
        self.room.judge(self.who, answered)
        return self.hold()


def calm(lite, *keys, rung=0):
    """Return a room in which no client waits for an answer any more."""
    return Room(lite, rung).arrive(*keys).later(5 * MINUTE)


def seen(room, who="ana"):
    """Return by task what was given and shown, each with its time."""
    with room.database.begin_read() as transaction:
        cases = {
            task.case_id: task.id
            for case in {row.case_id for row in stored(room, exposures)}
            for task in ReviewTaskStore(transaction, room.stood.rollout).list_of_cases([case])
        }
    return {
        (cases[row.case_id], row.content): row.at
        for row in stored(room, exposures)
        if row.reviewer == who
    }


def free(room, who=BO):
    return room.mine(who).waiting["blind"]


def test_three_cases_are_held_given_when_loaded_and_shown_when_they_appear(database):
    room = calm(database, *KEYS[:9])
    page = OpenPage(room)
    first = page.current
    assert page.hold() == ""
    assert (len(page.held), free(room)) == (3, 5)
    given = room.at
    assert seen(room) == {
        (first, "case"): given,
        **{(number, "given"): given for number in page.held},
    }
    second = page.held[0]
    room.later(MINUTE)
    assert page.step() == ""
    assert (page.current, len(page.held), free(room)) == (second, 3, 4)
    assert seen(room)[second, "given"] == given
    assert seen(room)[second, "case"] == room.at
    assert [n for n, content in seen(room) if content == "case"] == [first, second]


def test_a_case_that_was_answered_is_noted_as_shown_whatever_its_page_reported(lite):
    room = calm(lite, *KEYS[:3])
    page = OpenPage(room)
    page.hold()
    room.judge(ANA, page.held[0])
    assert (page.held[0], "case") in seen(room)


def test_asking_again_holds_no_more_and_all_are_answered_in_order(lite):
    room = calm(lite, *KEYS[:6])
    page = OpenPage(room)
    for _ in range(3):
        page.hold()
    assert (len(page.held), free(room)) == (3, 2)
    order = []
    while page.held:
        order.append(page.held[0])
        assert page.step() == ""
    assert len(order) == 5
    room.judge(ANA, page.current)
    assert OpenPage(room).current is None


@pytest.mark.parametrize("rung", [1, 2], ids=["supervised", "autonomous"])
def test_above_shadow_nothing_is_held_for_guards_and_renewals_wait(lite, rung):
    room = calm(lite, *KEYS[:12], rung=rung)
    page = OpenPage(room)
    assert (page.tasks[1:], page.hold(), page.held) == ((), "", ())
    other = OpenPage(room, BO)
    assert other.current not in {None, page.current}


def test_a_case_that_a_client_waits_for_is_not_held_and_comes_first(lite):
    room = calm(lite, *KEYS[:6])
    page = OpenPage(room)
    page.hold()
    room.arrive(KEYS[9])
    assert page.hold() == URGENT
    assert free(room) == 6  # those that were held, the urgent one, and two that never were
    again = OpenPage(room)
    assert again.tasks[0].answer_by is not None
    assert again.hold() == ""
    assert again.held[0] == page.current
    room.judge(ANA, again.current)
    assert OpenPage(room).current == page.current  # it was on the page before


def test_urgent_cases_alone_are_never_held(lite):
    room = Room(lite).arrive(*KEYS[:4])
    page = OpenPage(room)
    assert (page.tasks[1:], page.hold(), page.held) == ((), "", ())


def test_an_audit_that_comes_back_before_held_cases_ends_the_hold(lite):
    room = Room(lite)
    room.stood = only_above_shadow(room.stood, "lake")
    room.arrive(LOW, site="lake").later(5 * MINUTE)
    audit = OpenPage(room, BO).current
    room.arrive(*KEYS[20:25]).later(5 * MINUTE)
    page = OpenPage(room)
    assert (page.hold(), len(page.held)) == ("", 3)
    reviews.release_own_claims(lite, BO, room.stood, room.at)
    assert (page.hold(), page.held) == ("", ())
    room.judge(ANA, page.current)
    assert OpenPage(room).current == audit


def only_above_shadow(state, site):
    """Return the state with one site on its highest stage."""
    risen = on_stage(state, 2)
    for cell in state.policy.cells:
        if cell.site != site:
            shadow = CellState(START, START)
            scope = risen.scope.replace_cell_state(Cell(cell.site, cell.window), "v1", shadow)
            risen = replace(risen, scope=scope)
    return risen


@pytest.mark.parametrize(
    "scope",
    [{"stops": {"S-1": Stop("S-1", frozenset(), "dan", START)}}, {"policy_hash": "another"}],
    ids=["stop", "policy"],
)
def test_a_stop_or_another_policy_gives_back_what_is_held(lite, scope):
    room = calm(lite, *KEYS[:6])
    page = OpenPage(room)
    page.hold()
    held = page.held
    room.stood = replace(room.stood, scope=replace(room.stood.scope, **scope))
    assert page.hold() == CHANGED
    assert free(room) == 5
    with pytest.raises(ReviewReassignedError):
        room.judge(ANA, held[0])


def test_what_follows_from_predictions_is_no_part_of_the_terms(lite):
    room = Room(lite)
    terms = compute_hold_terms(room.stood.scope)
    assert compute_hold_terms(on_stage(room.stood, 2).scope) == terms
    assert compute_hold_terms(replace(room.stood.scope, revision=99, incident_count=3)) == terms


def test_a_claim_that_ended_gives_the_case_back_and_the_page_says_so(lite):
    room = calm(lite, *KEYS[:3])
    page = OpenPage(room)
    page.hold()
    room.later(11 * MINUTE)
    assert free(room) == 3
    assert page.hold() == CHANGED


def test_claims_of_another_window_and_of_a_program_stay(lite):
    room = calm(lite, *KEYS[:2])
    page = OpenPage(room)
    page.hold()
    room.arrive(KEYS[9])
    urgent = OpenPage(room).current  # on the screen of another window
    assert page.hold() == ""
    room.judge(ANA, urgent)


def test_no_more_than_three_are_held_however_many_are_claimed(lite):
    room = calm(lite, *KEYS[:9])
    room.claim(ANA, target_count=5)
    page = OpenPage(room)
    page.hold()
    assert len(page.held) == 3


def test_a_case_about_to_be_due_is_not_held(lite):
    """The front of a backlog expires next: held in a closed tab, it would be no evidence."""
    room = calm(lite, *KEYS[:6]).later(DAY - 8 * MINUTE)
    page = OpenPage(room)
    page.hold()
    assert page.held == ()
    assert free(room) == 5


def test_a_stale_window_takes_no_case_from_the_screen_of_another(lite):
    room = calm(lite, *KEYS[:9])
    stale, other = OpenPage(room), OpenPage(room)
    stale.hold()
    other.hold()
    other.step()
    assert stale.hold() == CHANGED
    room.judge(ANA, other.current)


def test_a_claim_begins_anew_once_when_its_case_appears(lite):
    room = calm(lite, *KEYS[:9])
    page = OpenPage(room)
    page.hold()
    room.later(9 * MINUTE)
    page.step()
    held = page.current
    room.later(9 * MINUTE)
    page.hold()
    assert room.take(BO).review != held
    room.judge(ANA, held)


def test_a_gold_case_that_figures_may_have_revealed_is_given_back(lite):
    """Seen: it was refused and came again, so that its reviewer knew it and got no other case."""
    room = Room(lite)
    room.arrive("old").later(DAY + MINUTE)
    known = {"alarm": "bear"}
    reviews.seed_gold_case(lite, DAN, room.stood, "old", known, reviewer_count=1, at=room.at)
    room.later(MINUTE).arrive(*KEYS[:5]).later(5 * MINUTE)
    page = OpenPage(room)
    page.hold()
    with lite.begin_write() as transaction:
        ExposureStore(transaction, room.stood.rollout).record_figures(
            "ana", room.at, page="divergences"
        )
    again = OpenPage(room)
    with lite.begin_read() as transaction:
        store = ReviewTaskStore(transaction, room.stood.rollout)
        kinds = {store.find(number).kind for number in (again.current, *again.held)}
        claimed = store.list_claimed("ana", room.at, (SEEDED,), None)
    assert SEEDED not in kinds
    assert claimed == []
    room.judge(ANA, again.current)


def test_leaving_gives_back_everything(lite):
    room = calm(lite, *KEYS[:6])
    OpenPage(room).hold()
    reviews.release_own_claims(lite, ANA, room.stood, room.at)
    assert free(room) == 6


def test_only_users_who_may_review_hold_cases(lite):
    room = calm(lite, KEYS[0])
    page = HeldPage(1, (), "")
    for who, error in (
        (person("vic", AssignedRole("viewer", "bears")), NotAllowedError),
        (person("bot", machine=True), UserRequiredError),
    ):
        with pytest.raises(error):
            held_cases.hold_cases_ahead(lite, who, room.stood, page, room.at)
