"""The largest losses that counting kept: those of the records, and no open case among them."""

from dataclasses import asdict
from datetime import timedelta
from random import Random

import pytest

from api.app import create_app
from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import ExposureStore
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.divergences.case_explanation import load_costliest_counted_pairs
from rollout.features.replay.compare import compare
from rollout.features.reports.inputs.losses import CONFIDENT_DIFFERENT
from rollout.features.training.cleaning import load_label_issues
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.api.conftest import Asking, Doorkeeper
from tests.api.records.test_records import case, sent_apart
from tests.api.test_shell import POLICY, problem_of
from tests.api.training.test_cleanings import RAMPS, chosen, judged, wish
from tests.data.counted_units import counts, unit
from tests.data.snapshots import filled_once
from tests.factories import NOON

LATER = timedelta(days=2)
VIEWER = Caller("vi", role_assignments=(AssignedRole("viewer"),))
COSTS = "labels: [damaged, sound], costs: [{did: sound, right: damaged, cost: 5}, {cost: 1}]"
DEAR = POLICY.replace("labels: [damaged, sound]", COSTS)


@pytest.fixture(autouse=True)
def _ramps(database):
    apply_dear(database)


@filled_once
def apply_dear(database):
    apply_policy(database, DEAR, Actor("zoe"), NOON - timedelta(days=1))


def some_pairs(n=60, seed=3):
    """Return pairs as (key, model, human, confidence, site): one in four differs."""
    chance = Random(seed)  # noqa: S311 - made-up pairs, no secret
    for number in range(n):
        human = chance.choice(["sound", "damaged"])
        other = "damaged" if human == "sound" else "sound"
        model = other if chance.random() < 0.25 else human
        site = chance.choice(["ramp-a", "ramp-b"])
        yield f"c{number:02}", model, human, round(chance.uniform(0.3, 1), 4), site


def counted(client, clock, database, pairs):
    items = [
        item
        for key, model, human, sure, site in pairs
        for item in judged(key, said=model, decided=human, sure=sure, site=site)
    ]
    sent_apart(client, *items)
    ticked(clock, database)


def ticked(clock, database, span=LATER):
    clock.advance(span)
    Ticker(database, "ramps", "one").tick(clock.now())


def listed(client, by="viewer", **asked):
    answer = client.by(by).get(f"{RAMPS}/cleanings/top-losses", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def keys(client, by="viewer", **asked):
    return [one["case_key"] for one in listed(client, by, **asked)]


@pytest.fixture
def three(database, clock):
    send_three(database)
    clock.advance(LATER)


@filled_once
def send_three(database):
    """Count three cases that differ, one at the other site, and some that agree."""
    pairs = [
        ("second", "damaged", "sound", 0.9, "ramp-a"),
        ("first", "damaged", "sound", 0.99, "ramp-a"),
        ("third", "sound", "damaged", 0.3, "ramp-b"),
        *((f"same-{n}", "sound", "sound", 0.95, "ramp-a") for n in range(3)),
    ]
    clock = ManualClock(NOON)
    service = build_service(database, Doorkeeper(), clock, entropy=bytes)
    with Asking(create_app(service), raise_server_exceptions=False) as client:
        counted(client, clock, database, pairs)


def test_they_are_the_pairs_that_differ_the_largest_loss_first(three, client):
    found = listed(client)
    assert [one["case_key"] for one in found] == ["first", "second", "third"]
    assert {one["kind"] for one in found} == {"people said otherwise"}
    assert (found[0]["human"], found[0]["model"]) == ("sound", "damaged")
    assert found[0]["loss"] == pytest.approx(4.60517, abs=1e-5)
    assert found[0]["votes"] == [["sound", 1]]
    assert keys(client, limit=1) == ["first"]


@pytest.mark.slow
def test_the_index_says_of_each_case_what_the_records_of_the_span_say(client, clock, database):
    """A span lists, beside others, where the version was surer than it is on average."""
    counted(client, clock, database, some_pairs())
    span = [item.loss for item in load_label_issues(database, VIEWER, "ramps", clock.now())]
    wrong = {loss.case_key: loss for loss in span if loss.kind == CONFIDENT_DIFFERENT}
    found = [
        item.loss
        for item in load_costliest_counted_pairs(database, VIEWER, "ramps", clock.now(), limit=100)
    ]
    assert len(found) > len(wrong) > 5
    mine = [loss for loss in found if loss.case_key in wrong]
    assert [loss.case_key for loss in mine] == list(wrong)
    for loss in mine:
        own, theirs = asdict(loss), asdict(wrong[loss.case_key])
        assert own.pop("loss") == pytest.approx(theirs.pop("loss"))
        assert (own.pop("kind"), theirs.pop("kind")) == (
            "people said otherwise",
            CONFIDENT_DIFFERENT,
        )
        assert own == theirs


@pytest.mark.slow
def test_the_index_lists_what_compare_lists_of_the_same_pairs(client, clock, database, tmp_path):
    pairs = list(some_pairs(120, seed=4))
    counted(client, clock, database, pairs)
    lines = [f"{key},{site},{human},{model},{sure}" for key, model, human, sure, site in pairs]
    file = tmp_path / "pairs.csv"
    file.write_text("\n".join(["case_key,site,human,model,confidence", *lines]))
    right = compare(file, policy=parse_policy(DEAR)).top_losses
    found = [
        item.loss for item in load_costliest_counted_pairs(database, VIEWER, "ramps", clock.now())
    ]
    assert len(found) == 20
    names = ("case_key", "site", "human", "model", "confidence", "cost")
    told = [tuple(getattr(loss, name) for name in names) for loss in found]
    assert told == [tuple(getattr(loss, name) for name in names) for loss in right]


def test_what_a_person_is_shown_is_noted_as_on_the_work_list(three, client, database):
    keys(client, by="viewer", limit=2)
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "ramps").rollout
        numbers = ExternalKeys(transaction, rollout).find_ids(["first", "second", "third"])
        shown = ExposureStore(transaction, rollout).list_for_reviewer(
            "viewer", set(numbers.values())
        )
    both = {numbers["first"], numbers["second"]}
    assert shown == {number: {("prediction", "cleaning")} for number in both}


@pytest.mark.slow
def test_a_known_case_is_on_nobodys_list_while_people_judge_it(three, client):
    known = {"case": "first", "answers": {"parcel": "sound"}, "reviewers": 2}
    asked = client.by("admin").post(f"{RAMPS}/reviews/gold-cases", json=known)
    assert asked.status_code == 204, asked.text
    for by in ("viewer", "ana", "admin", "operator"):
        assert keys(client, by) == ["second", "third"]
        assert keys(client, by, limit=1) == ["second"]


def test_a_case_that_is_not_closed_is_not_listed(three, client, clock, database):
    sent_apart(client, *judged("open", said="damaged", sure=0.999, at="2027-06-03T11:00:00Z"))
    ticked(clock, database, timedelta(hours=1))
    assert "open" not in keys(client)


def test_a_case_that_was_counted_and_is_open_again_is_not_listed(three, client, clock):
    """It was sent again with another time: by that one people may still judge it."""
    at = (clock.now() - timedelta(hours=1)).isoformat()
    sent_apart(client, case("first", at=at, revision=2))
    assert keys(client) == ["second", "third"]


def test_who_reads_one_site_is_shown_that_one(three, client, door):
    door.let_in("eve", AssignedRole("viewer", "ramps", "ramp-b"))
    assert keys(client, "eve") == ["third"]
    assert keys(client, "eve", limit=1) == ["third"]


def test_a_case_that_moved_is_shown_only_to_who_reads_where_it_is_now(three, client, clock, door):
    door.let_in("eve", AssignedRole("viewer", "ramps", "ramp-b"))
    sent_apart(client, case("third", site="ramp-a", revision=2))
    clock.advance(LATER)  # until when it was open again
    assert keys(client, "eve") == []
    assert "third" in keys(client)


def test_cases_of_other_sites_are_not_even_looked_up(three, client, door, monkeypatch):
    asked = []
    own = NewestRecords.load_cases
    monkeypatch.setattr(
        NewestRecords, "load_cases", lambda self, n: asked.append(set(n)) or own(self, n)
    )
    door.let_in("eve", AssignedRole("viewer", "ramps", "ramp-b"))
    assert keys(client, "eve") == ["third"]
    assert len(set.union(*asked)) == 1


def test_only_with_or_without_a_choice_can_be_asked_for(three, client):
    chosen(client, wish("second", "relabel", label="damaged", reason="a dent"))
    assert keys(client, has_choice=False) == ["first", "third"]
    (one,) = listed(client, has_choice=True)
    assert (one["case_key"], one["choice"]["label"]) == ("second", "damaged")


def test_of_one_version_or_all_and_an_unknown_one_is_said_to_be(three, client):
    assert keys(client, version="v1") == ["first", "second", "third"]
    answer = client.by("viewer").get(f"{RAMPS}/cleanings/top-losses", params={"version": "v9"})
    assert problem_of(answer) == (404, "unknown-version")


def test_a_case_that_was_counted_twice_is_listed_once_and_one_of_no_lever_never(
    three, client, database
):
    """Under another policy it was part of an episode, and judged on a lever that is gone."""
    said = {"case_key": "first", "predicted": "damaged", "decided": "sound", "second": "sound"}
    levers = (unit("e", lever=lever, **said) for lever in ("parcel", "lid"))
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "ramps").rollout
    assert counts(database, rollout, *levers, by_episode=True) == 1
    assert keys(client) == ["first", "second", "third"]


def test_without_a_confidence_or_an_answer_nothing_is_listed(client, clock, database):
    alone = judged("alone", said="damaged", sure=None)
    failed = judged("failed", said=None, sure=0.9)
    sent_apart(client, *alone, *failed)
    ticked(clock, database)
    assert listed(client) == []
