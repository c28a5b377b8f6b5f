"""The live demo: its traffic goes through the API like anybody's, and its cells do change."""

from datetime import timedelta

import pytest

from api.app import create
from api.live_demo.approving import Colleague
from api.live_demo.output import Teller
from api.live_demo.player import STEP, Player
from api.live_demo.stage import MACHINE, OPERATORS, THIRD, stage
from rollout.core.scope.scope import acting
from rollout.services.engine.ticks import Ticking
from rollout.services.replay.demo_traffic import letters, trained_until
from tests.api.conftest import Asking

pytestmark = pytest.mark.simulation

DAYS = 2


@pytest.fixture(scope="module")
def story():
    return letters()


@pytest.fixture
def staged(story):
    with stage(story[0].at - STEP) as made:
        yield made


def asking(made, name):
    client = Asking(create(made.service))
    client.headers["Authorization"] = f"Bearer {made.keys[name]}"
    return client


def played(made, story, days):
    """Play some days, with a tick at each hour, as the demo does."""
    some = [letter for letter in story if letter.at < story[0].at + timedelta(days=days)]
    player = Player(asking(made, MACHINE), made.clock, made.policy, some, trained_until())
    ticking = Ticking(made.service.database, "test")
    while made.clock.now() < story[0].at + timedelta(days=days):
        player.step()
        assert ticking.look(made.clock.now()).failed == {}
    return player


def test_every_letter_is_asked_about_and_recorded(staged, story):
    player = played(staged, story, DAYS / 4)
    found = asking(staged, "ana").get("/v1/rollouts/mail-room/cases", params={"limit": 1000}).json()
    assert len(found["items"]) == len(player.letters)
    first = asking(staged, "ana").get(f"/v1/rollouts/mail-room/cases/{story[0].key}").json()
    assert first["predictions"]
    assert first["decisions"]


def test_the_colleague_approves_what_is_proposed_a_while_after(staged, story):
    played(staged, story, DAYS / 4)
    looser = asking(staged, "ana")
    assert looser.get("/v1/rollouts/mail-room/proposals").json()["items"] == []
    stopped = looser.post("/v1/rollouts/mail-room/stops", json={"all": True, "reason": "look"})
    (stop,) = [e["body"]["stop"] for e in stopped.json()["events"] if "stop" in e["body"]]
    looser.post(f"/v1/rollouts/mail-room/stops/{stop}/resume")
    colleague = Colleague(asking(staged, "bo"), "mail-room", timedelta(hours=4))
    colleague.look(staged.clock.now())
    (waits,) = looser.get("/v1/rollouts/mail-room/proposals").json()["items"]
    assert waits["approvals"] == []
    staged.clock.move(timedelta(hours=4))
    colleague.look(staged.clock.now())
    (waits,) = looser.get("/v1/rollouts/mail-room/proposals").json()["items"]
    assert [yes["by"] for yes in waits["approvals"]] == ["bo"]


def test_what_happens_is_told_once(staged, story):
    played(staged, story, DAYS / 8)
    teller = Teller(asking(staged, MACHINE), staged.policy, story[0].at)
    told = list(teller.news())
    assert any("v1 seen first" in line for line in told)
    assert list(teller.news()) == []
    assert set(OPERATORS) == {"ana", "bo"}
    assert (
        acting(
            staged.service.watch.rollout("mail-room").standing.scope,
            staged.policy,
            staged.policy.cells[0],
            staged.clock.now(),
        )
        is None
    )


def test_a_stop_can_be_taken_back_by_the_two_others(staged):
    ana, path = asking(staged, "ana"), "/v1/rollouts/mail-room"
    stop = ana.post(f"{path}/stops", json={"all": True}).json()["events"][0]["body"]["stop"]
    ana.post(f"{path}/stops/{stop}/resume")
    (*_, said) = Teller(asking(staged, MACHINE), staged.policy, staged.clock.now()).news()
    assert "asks for 2 approvals; resume of S-" in said
    staged.clock.move(timedelta(hours=4))
    for name in ("bo", THIRD):
        kinds = frozenset({"resume"})
        Colleague(asking(staged, name), "mail-room", timedelta(hours=4), kinds).look(
            staged.clock.now()
        )
    (found,) = ana.get(f"{path}/proposals", params={"state": "approved"}).json()["items"]
    assert (found["kind"], found["approvals_missing"]) == ("resume", 0)
