"""The list of divergences over HTTP: the console's and the report's, for whom may read it."""

import csv
import io
from datetime import timedelta

import pytest

from api.app import create_app
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import ExposureStore
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.divergences.divergence_list import DivergenceQuery, export_divergences_csv
from rollout.features.reports.inputs.divergence_columns import COLUMNS
from rollout.features.reviews.decisions import find_hidden_cases
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.api.conftest import Asking, Doorkeeper
from tests.api.records.test_records import case, decision, prediction, sent_apart
from tests.api.test_shell import POLICY, problem_of
from tests.api.training.test_cleanings import judged
from tests.data.snapshots import filled_once
from tests.factories import NOON
from tests.features.access.test_sign_in import counted_statements

RAMPS = "/v1/rollouts/ramps"
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
COSTS = "labels: [damaged, sound], costs: [{did: sound, right: damaged, cost: 5}, {cost: 1}]"
CLIENTS = ("ingest", "ingest-predictions", "ingest-decisions", "ingest-outcomes")
MAX_STATEMENTS = 30


@pytest.fixture(autouse=True)
def _ramps(database, door):
    apply_ramps(database)
    let_clients_in(door)


@filled_once
def apply_ramps(database):
    policy = POLICY.replace("labels: [damaged, sound]", COSTS) + "slices: [light]\n"
    apply_policy(database, policy, Actor("zoe"), NOON - DAY)


def let_clients_in(door):
    for role in CLIENTS:
        door.let_in(role, AssignedRole(role, "ramps"), machine=True)


@pytest.fixture
def closed(database, clock):
    """Let five divergences and a case alike close, and send one that stays open."""
    send_cases(database)
    clock.advance(2 * DAY)


@filled_once
def send_cases(database):
    door, clock = Doorkeeper(), ManualClock(NOON)
    let_clients_in(door)
    service = build_service(database, door, clock, entropy=bytes)
    with Asking(create_app(service), raise_server_exceptions=False) as client:
        sent_apart(
            client,
            *(i for n in range(2) for i in judged(f"mild-{n}", "damaged", "sound", 0.5 + n / 10)),
            *judged("dear", "sound", "damaged", sure=0.6),
            *judged("there", "damaged", "sound", sure=0.95, site="ramp-b"),
            case("dark", attributes={"light": "no"}),
            prediction("dark", label="sound", confidence=0.7),
            decision("dark", label="damaged"),
            *judged("same"),
        )
        clock.advance(2 * DAY)
        late = (clock.now() - HOUR).isoformat()
        sent_apart(
            client,
            case("open", at=late),
            prediction("open", label="damaged", confidence=0.99),
            decision("open"),
        )
    Ticker(database, "ramps", "one").tick(clock.now())


ORDER = ["dark", "dear", "there", "mild-1", "mild-0"]


def read(client, by="viewer", **wanted):
    answer = client.by(by).get(f"{RAMPS}/divergences", params=wanted)
    assert answer.status_code == 200, answer.text
    return answer.json()


def list_keys(client, by="viewer", **wanted):
    return [row["case_key"] for row in read(client, by, **wanted)["items"]]


@pytest.mark.usefixtures("closed")
def test_divergences_are_listed_costliest_first_with_figures(client):
    shown = read(client)
    assert [row["case_key"] for row in shown["items"]] == ORDER
    first = shown["items"][0]
    assert first.keys() == {*COLUMNS, "attributes", "picture"}
    assert (first["human"], first["model"], first["cost"]) == ("damaged", "sound", 5.0)
    assert first["occurred_at"] == "2027-06-01T11:00:00Z"
    assert first["attributes"] == {"light": "no"}
    assert (shown["compared"], shown["count"], shown["cost"]) == (6, 5, 13.0)
    assert (shown["version"], shown["lever"], shown["truncated"]) == ("v1", "parcel", False)


@pytest.mark.usefixtures("closed")
def test_pages_follow_each_other(client):
    first = read(client, limit=2)
    rest = read(client, limit=3, after=first["next"])
    keys = [row["case_key"] for row in [*first["items"], *rest["items"]]]
    assert (keys, rest["next"]) == (ORDER, None)
    wrong = client.get(f"{RAMPS}/divergences", params={"after": "é"})
    assert problem_of(wrong)[0] == 422


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        ({"site": "ramp-b"}, ["there"]),
        ({"window": "always"}, ORDER),
        ({"window": "night"}, []),
        ({"human": "sound"}, ["there", "mild-1", "mild-0"]),
        ({"model": "sound"}, ["dark", "dear"]),
        ({"min_cost": 5}, ["dark", "dear"]),
        ({"attribute": "light=no"}, ["dark"]),
        ({"since": "2027-06-01T11:00:01Z"}, []),
        ({"until": "2027-06-01T11:00:00Z", "since": "2027-06-01T00:00:00Z"}, []),
        ({"version": "v9"}, []),
        ({"has_choice": True}, []),
        ({"has_choice": False, "human": "damaged"}, ["dark", "dear"]),
    ],
    ids=str,
)
def test_each_filter_of_the_console_filters(client, wanted, keys):
    assert list_keys(client, **wanted) == keys


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"lever": "alarm"}, "no lever alarm; there is parcel"),
        ({"attribute": "light"}, "write NAME=VALUE"),
        ({"until": "2020-01-01T00:00:00Z"}, "let the span end after it"),
        ({"since": "2027-06-01T11:00:01"}, "timezone"),
        ({"min_cost": -1}, "greater than or equal to 0"),
    ],
)
def test_filter_that_means_nothing_is_refused_with_the_reason(client, wanted, reason):
    answer = client.by("viewer").get(f"{RAMPS}/divergences", params=wanted)
    assert answer.status_code == 422
    assert reason in answer.text


@pytest.mark.usefixtures("closed")
def test_file_is_the_one_of_console_and_report(client, service, clock, door):
    answer = client.by("viewer").get(f"{RAMPS}/divergences", params={"format": "csv", "limit": 1})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert 'filename="divergences.csv"' in answer.headers["content-disposition"]
    caller, query = door.callers["viewer"], DivergenceQuery()
    table = export_divergences_csv(service.database, caller, "ramps", query, clock.now())
    assert answer.content == table
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert [line["case_key"] for line in lines] == ORDER
    assert [*lines[0]] == [*COLUMNS, "attribute:light"]


@pytest.mark.slow
@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("by", CLIENTS)
def test_programs_see_counted_cases_on_which_no_blind_decision_can_count(
    client, service, clock, door, by
):
    with service.database.begin_read() as transaction:
        state = load_rollout_state(transaction, "ramps")
        keys, caller = [*ORDER, "open"], door.callers[by]
        hidden = find_hidden_cases(transaction, state, caller, keys, clock.now())
    assert hidden == (set() if by == "ingest-predictions" else {"open"})
    assert list_keys(client, by) == ORDER
    table = client.by(by).get(f"{RAMPS}/divergences", params={"format": "csv"}).text
    assert [line["case_key"] for line in csv.DictReader(io.StringIO(table))] == ORDER
    clock.advance(DAY)  # it has closed, and isn't counted before the next tick
    assert list_keys(client, by) == ORDER
    Ticker(service.database, "ramps", "one").tick(clock.now())
    assert "open" in list_keys(client, by)


@pytest.mark.usefixtures("closed")
def test_case_that_is_reviewed_again_is_in_no_list(client, door):
    door.let_in("admin", AssignedRole("admin"), AssignedRole("viewer"))
    body = {"case": "dear", "answers": {"parcel": "damaged"}, "reviewers": 1}
    answer = client.by("admin").post(f"{RAMPS}/reviews/gold-cases", json=body)
    assert answer.status_code < 300, answer.text
    for by in ("viewer", *CLIENTS):
        shown = read(client, by)
        assert [row["case_key"] for row in shown["items"]] == [
            key for key in ORDER if key != "dear"
        ]
        assert (shown["compared"], shown["count"]) == (5, 4)


@pytest.mark.usefixtures("closed")
def test_role_at_one_site_shows_its_cases_alone(client, door):
    door.let_in("eve", AssignedRole("viewer", "ramps", "ramp-b"))
    door.let_in("box", AssignedRole("ingest-decisions", "ramps", "ramp-b"), machine=True)
    for by in ("eve", "box"):
        shown = read(client, by)
        assert [row["case_key"] for row in shown["items"]] == ["there"]
        assert (shown["compared"], shown["count"]) == (1, 1)
        assert list_keys(client, by, site="ramp-a") == []
    assert problem_of(client.by("reviewer").get(f"{RAMPS}/divergences")) == (403, "not-allowed")


@pytest.mark.usefixtures("closed")
def test_listed_cases_count_as_shown_to_users(client, database):
    assert list_keys(client, "viewer", limit=1) == ["dark"]
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "ramps").rollout
        ids = ExternalKeys(transaction, rollout).find_ids(["dark", "dear"])
        shown = ExposureStore(transaction, rollout).list_for_reviewer("viewer", set(ids.values()))
    assert [*shown] == [ids["dark"]]


@pytest.mark.usefixtures("closed")
def test_a_page_sends_no_more_statements_for_more_rows(client, database):
    counts = []
    for limit in (1, 5):
        read(client, "ingest-decisions", limit=limit)
        with counted_statements(database) as statements:
            read(client, "ingest-decisions", limit=limit)
        counts.append(len(statements))
    assert counts[0] == counts[1] <= MAX_STATEMENTS, counts
