"""A rollout with cases to judge, reviewers who sign in, and what the pages they see hold."""

import re
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest

from api.app import create_app
from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import users
from rollout.features.access.authentication import Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from tests.console.conftest import Browsing
from tests.data.snapshots import filled_once
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import PASSWORD
from tests.features.review_room import Room, policy_text

REVIEWS = AssignedRole("reviewer", "bears")
STAFF = {
    "rita": (REVIEWS,),
    "ron": (REVIEWS,),
    "roy": (REVIEWS,),
    "cleo": (AssignedRole("reviewer", "bears", "creek"),),
    "eve": (REVIEWS, AssignedRole("viewer", "bears"), AssignedRole("operator", "bears")),
    "ona": (AssignedRole("operator", "bears"),),
    "vic": (AssignedRole("viewer", "bears"),),
}
PICTURE = (
    "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"  # one pixel
)
REVIEW = "/rollouts/bears/review"
ADJUDICATION = "/rollouts/bears/adjudication"
FORM = re.compile(r'action="/console(/rollouts/bears/(?:review|adjudication)/\d+)"')


class FixedStateCache:
    """Hold one rollout state: the room's."""

    is_clock_skewed = False

    def __init__(self, room):
        self.room = room

    def load_rollout(self, _name):
        return SimpleNamespace(state=self.room.stood)

    def load_all(self):
        return (self.load_rollout("bears"),)


def counted():
    """Return random bytes that are the same in every world."""
    numbers = count(1)
    return lambda size=38: next(numbers).to_bytes(8, "big").rjust(size, b"r")[::-1]


@filled_once
def welcome_staff(database, at):
    """Make an account for everybody, each with a password."""
    users.create_first_admin(database, "ada", at=at)
    ada = users.load_local_caller(database, "ada")
    signing = SignIn(database, ManualClock(at), counted(), QUICK)
    for name, rights in STAFF.items():
        users.create_account(database, ada, name, at=at, role_assignments=rights)
        signing.set_password(ada, name, PASSWORD, at=at)


class ReadingRoom:
    """A room whose people open pages; its clock is theirs."""

    def __init__(self, database, rung=0, text=None, **more):
        self.room = Room(database, rung, text or policy_text(**more))
        self.clock = ManualClock(self.room.at)
        welcome_staff(database, self.room.at)
        chance = counted()
        made = build_service(database, Authenticator(database, self.clock), self.clock, chance)
        made = replace(made, sign_in=SignIn(database, self.clock, chance, QUICK))
        fixed = replace(made, state_cache=FixedStateCache(self.room))
        self.service = fixed if rung else made  # in shadow the ledger itself says how it stands

    def later(self, span):
        self.room.later(span)
        self.clock.advance(span)

    @contextmanager
    def browsing(self):
        with Browsing(create_app(self.service), base_url="http://localhost:8000") as made:
            made.headers["Sec-Fetch-Site"] = "same-origin"
            yield made


def form_of(page):
    """Return where the page's decision goes."""
    form = FORM.search(page)
    return form and form[1]


def answered(browser, label="bear", page=REVIEW, **more):
    """Answer the case on a page as its form does; return where that leads."""
    text = browser.page(page)
    fields = {"began": hidden(text, "began"), "lever.alarm": label, **more}
    if label is None:
        fields = {**fields, "unsure": "1"}
        del fields["lever.alarm"]
    if 'name="supersedes"' in text:
        fields.setdefault("supersedes", hidden(text, "supersedes"))
    return browser.submit(form_of(text), on=page, **fields).headers["location"]


def hidden(page, name):
    return re.search(rf'name="{name}" value="([^"]*)"', page)[1]


def verdicts(hall, who):
    """Return what somebody said, by case."""
    with hall.room.database.begin_read() as transaction:
        numbers = ExternalKeys(transaction, hall.room.stood.rollout).find_ids(
            [f"case-{n}" for n in range(30)]
        )
        decisions = NewestRecords(transaction, hall.room.stood.rollout).load_decisions(
            numbers.values()
        )
        return {key: decisions[n][who] for key, n in numbers.items() if who in decisions.get(n, {})}


def undo_of(page):
    """Return what Undo brings back: its words, and where it is."""
    undo_link = re.search(r'href="/console([^"]*)"[^>]*data-key="z">.*?Undo last: ([^<]*)<', page)
    return undo_link and (undo_link[2], undo_link[1])


@pytest.fixture
def hall(database):
    return ReadingRoom(database)


@pytest.fixture
def browser(hall):
    with hall.browsing() as made:
        yield made
