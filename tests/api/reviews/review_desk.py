"""A replica whose rollout stands where a test's room says, asked by reviewers."""

from dataclasses import replace
from types import SimpleNamespace

from api.app import create_app
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from tests.api.conftest import Asking, Doorkeeper
from tests.features.review_room import ANA, BO, CY, DAN, Room

PATH = "/v1/rollouts/bears/reviews"


class DeskStateCache:
    """Hold one rollout state: the room's."""

    is_clock_skewed = False

    def __init__(self, room):
        self.room = room

    def load_rollout(self, _name):
        return SimpleNamespace(state=self.room.stood)

    reload_rollout = load_rollout


class ReviewDesk:
    """Ask for a room's reviews over HTTP; `clock` is the room's."""

    def __init__(self, room: Room):
        door, self.clock = Doorkeeper(), ManualClock(room.at)
        door.callers |= {who.name: who for who in (ANA, BO, CY, DAN)}
        self.door, self.room = door, room
        service = build_service(room.database, door, self.clock, entropy=bytes)
        if room.rung:  # in shadow the ledger itself says how the rollout stands
            service = replace(service, state_cache=DeskStateCache(room))
        self.client = Asking(create_app(service), raise_server_exceptions=False)

    def later(self, span):
        self.room.later(span)
        self.clock.advance(span)

    def get(self, who, path=""):
        return self.client.by(who).get(PATH + path)

    def post(self, who, path, body=None):
        return self.client.by(who).post(PATH + path, json=body)

    def take(self, who, **body):
        return self.post(who, "/claims", body).json()["tasks"]
