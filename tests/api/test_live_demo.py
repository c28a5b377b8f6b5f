"""The live demo: its traffic goes through the API like anybody's, and its cells do change."""

from datetime import timedelta

import pytest

from api.app import create_app
from api.live_demo.approving import DemoApprover
from api.live_demo.output import LedgerNarrator
from api.live_demo.player import STEP, DemoPlayer
from api.live_demo.stage import OPERATORS, RESUME_APPROVER, SERVICE_ACCOUNT, open_demo_service
from rollout.core.scope.scope import find_acting_version
from rollout.services.engine.ticks import TickScheduler
from rollout.services.replay.demo_traffic import load_letters, load_training_ends
from tests.api.conftest import Asking

pytestmark = pytest.mark.simulation

DAYS = 2


@pytest.fixture(scope="module")
def story():
    return load_letters()


@pytest.fixture
def staged(story):
    with open_demo_service(story[0].at - STEP) as made:
        yield made


def asking(made, name):
    client = Asking(create_app(made.service))
    client.headers["Authorization"] = f"Bearer {made.keys[name]}"
    return client


def played(made, story, days):
    """Play some days, with a tick at each hour, as the demo does."""
    some = [letter for letter in story if letter.at < story[0].at + timedelta(days=days)]
    player = DemoPlayer(
        asking(made, SERVICE_ACCOUNT), made.clock, made.policy, some, load_training_ends()
    )
    ticking = TickScheduler(made.service.database, "test")
    while made.clock.now() < story[0].at + timedelta(days=days):
        player.step()
        assert ticking.run_due_ticks(made.clock.now()).errors == {}
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
    colleague = DemoApprover(asking(staged, "bo"), "mail-room", timedelta(hours=4))
    colleague.approve_due(staged.clock.now())
    (waits,) = looser.get("/v1/rollouts/mail-room/proposals").json()["items"]
    assert waits["approvals"] == []
    staged.clock.advance(timedelta(hours=4))
    colleague.approve_due(staged.clock.now())
    (waits,) = looser.get("/v1/rollouts/mail-room/proposals").json()["items"]
    assert [yes["by"] for yes in waits["approvals"]] == ["bo"]


def test_what_happens_is_told_once(staged, story):
    played(staged, story, DAYS / 8)
    teller = LedgerNarrator(asking(staged, SERVICE_ACCOUNT), staged.policy, story[0].at)
    told = list(teller.describe_news())
    assert any("v1 first used" in line for line in told)
    assert list(teller.describe_news()) == []
    assert set(OPERATORS) == {"ana", "bo"}
    assert (
        find_acting_version(
            staged.service.state_cache.load_rollout("mail-room").state.scope,
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
    (*_, said) = LedgerNarrator(
        asking(staged, SERVICE_ACCOUNT), staged.policy, staged.clock.now()
    ).describe_news()
    assert "asks for 2 approvals; resume of S-" in said
    staged.clock.advance(timedelta(hours=4))
    for name in ("bo", RESUME_APPROVER):
        kinds = frozenset({"resume"})
        DemoApprover(asking(staged, name), "mail-room", timedelta(hours=4), kinds).approve_due(
            staged.clock.now()
        )
    (found,) = ana.get(f"{path}/proposals", params={"state": "approved"}).json()["items"]
    assert (found["kind"], found["approvals_missing"]) == ("resume", 0)
