"""A rollout with cases to judge, and reviewers who sign in to the console."""

from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

from api.app import create
from rollout.core.rights import Right
from rollout.services import people
from rollout.services.clock import SetClock
from rollout.services.door import Door
from rollout.services.service import service_on
from rollout.services.signing_in import SigningIn
from tests.console.conftest import Browsing
from tests.services.houses import PASSWORD
from tests.services.review_room import Room, policy_text
from tests.services.test_signing_in import QUICK

REVIEWS = Right("reviewer", "bears")
STAFF = {
    "rita": (REVIEWS,),
    "ron": (REVIEWS,),
    "roy": (REVIEWS,),
    "cleo": (Right("reviewer", "bears", "creek"),),
    "eve": (REVIEWS, Right("viewer", "bears"), Right("operator", "bears")),
    "ona": (Right("operator", "bears"),),
    "vic": (Right("viewer", "bears"),),
}
PICTURE = (
    "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"  # one pixel
)
REVIEW = "/rollouts/bears/review"
ADJUDICATION = "/rollouts/bears/adjudication"


class FixedWatch:
    """Know one standing: the room's."""

    askew = False

    def __init__(self, room):
        self.room = room

    def rollout(self, _name):
        return SimpleNamespace(standing=self.room.stood)

    def everything(self):
        return (self.rollout("bears"),)


def counted():
    """Return random bytes that are the same in every world."""
    numbers = count(1)
    return lambda size=38: next(numbers).to_bytes(8, "big").rjust(size, b"r")[::-1]


class ReadingRoom:
    """A room whose people open pages; its clock is theirs."""

    def __init__(self, database, rung=0, text=None, **more):
        self.room = Room(database, rung, text or policy_text(**more))
        self.clock = SetClock(self.room.at)
        people.first_admin(database, "ada", at=self.room.at)
        ada = people.local_caller(database, "ada")
        for name, rights in STAFF.items():
            people.add(database, ada, name, at=self.room.at, rights=rights)
        chance = counted()
        made = service_on(database, Door(database, self.clock), self.clock, chance)
        made = replace(made, signing=SigningIn(database, self.clock, chance, QUICK))
        for name in STAFF:
            made.signing.set_password(ada, name, PASSWORD, at=self.room.at)
        fixed = replace(made, watch=FixedWatch(self.room))
        self.service = fixed if rung else made  # in shadow the ledger itself says how it stands

    def later(self, span):
        self.room.later(span)
        self.clock.move(span)

    @contextmanager
    def browsing(self):
        with Browsing(create(self.service), base_url="http://localhost:8000") as made:
            made.headers["Sec-Fetch-Site"] = "same-origin"
            yield made
