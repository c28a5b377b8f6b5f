"""A replica whose rollout stands where a test's room says, asked by reviewers."""

from dataclasses import replace
from types import SimpleNamespace

from api.app import create
from rollout.services.engine.service import service_on
from rollout.services.support.clock import SetClock
from tests.api.conftest import Asking, Doorkeeper
from tests.services.review_room import ANA, BO, CY, DAN, Room

PATH = "/v1/rollouts/bears/reviews"


class FixedWatch:
    """Know one standing: the room's."""

    askew = False

    def __init__(self, room):
        self.room = room

    def rollout(self, _name):
        return SimpleNamespace(standing=self.room.stood)


class ReviewDesk:
    """Ask for a room's reviews over HTTP; `clock` is the room's."""

    def __init__(self, room: Room):
        door, self.clock = Doorkeeper(), SetClock(room.at)
        door.callers |= {who.name: who for who in (ANA, BO, CY, DAN)}
        self.door, self.room = door, room
        service = service_on(room.database, door, self.clock, entropy=bytes)
        if room.rung:  # in shadow the ledger itself says how the rollout stands
            service = replace(service, watch=FixedWatch(room))
        self.client = Asking(create(service), raise_server_exceptions=False)

    def later(self, span):
        self.room.later(span)
        self.clock.move(span)

    def get(self, who, path=""):
        return self.client.by(who).get(PATH + path)

    def post(self, who, path, body=None):
        return self.client.by(who).post(PATH + path, json=body)

    def take(self, who, **body):
        return self.post(who, "/claims", body).json()["tasks"]
