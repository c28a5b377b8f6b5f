"""A price model over HTTP: it differs from people, earns more, and is widened for it."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from rollout.engine.decide.assignment import CaseQuestion
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.cells.cell_table import load_single_cell_page
from rollout.features.cells.cli import format_proposal_details
from rollout.features.proposals.proposal_details import load_proposal
from rollout.features.proposals.proposal_evidence import load_proposal_evidence
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.evidence_sources import NOT_NAMED, OWN_PREDICTION
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from rollout_client.client import build_assignment_fields
from tests.client.local_answers import decide_locally, read_scope
from tests.factories import DAY, HOUR, MINUTE

pytestmark = pytest.mark.simulation
START = datetime(2027, 3, 1, tzinfo=UTC)
TICK = 6 * HOUR
on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
PRICING = "/v1/rollouts/pricing"
POLICY = """
rollout: pricing
timezone: UTC
charter: {objective: more profit per sale, cost_in: EUR}
levers: [{id: price, number: {in: EUR, from: 1, to: 500, tolerance: 5%%}}]
sites: [shop]
stages: [{id: trial, share: 30%%}, {id: half, share: 50%%}]
outcomes: [{id: profit, from: -20, to: 60, in: EUR, better: more, closes: 1d, missing_at_most: 5%%}]
evidence:
  unit: case
  grace: 2h
  sources: {accounts: [{account: ingest-decisions, reviewers: ["*"]}]%s}
gates:
  - {to: trial, minimum: {units: 20, days: 1}, require: [{measure: agreement, at_least: 40%%}]}
  - {to: half, minimum: {units: 20, days: 1}, require: [{measure: gain, of: profit, at_least: 0}]}
guards: [{measure: gain, of: profit, at_least: -1, false_alarm_every: 2000}]
tick: 6h
"""


CELL = Cell("shop", "always")
VIEWER = Caller("vi", role_assignments=(AssignedRole("viewer"),))


class Shop:
    """Ten sales a tick: the model prices each, asks who decides, and profits are sent a day later.

    `gain` is what a price of the model brings beyond a human's, in EUR. `is_offline`: the client
    decides by a snapshot, and sends its predictions afterwards. `booked_by` sends the profits, or
    what `falsify` makes of them.
    """

    def __init__(self, client, clock, gain, differs, **ways):
        self.client, self.clock, self.gain, self.differs = client, clock, gain, differs
        self.ask = self.ask_offline if ways.get("is_offline") else self.ask_online
        self.booked_by = ways.get("booked_by", "ingest-outcomes")
        self.falsify = ways.get("falsify", lambda earned, _: earned)
        self.rng = random.Random(16)  # noqa: S311 - a seeded stream, no secret
        self.profits, self.deciders = [], []

    def sell(self):
        """Ask who prices ten sales, and send the humans' prices."""
        at, count = self.clock.now(), len(self.profits)
        prices = {f"sale-{count + number}": self.rng.uniform(20, 80) for number in range(10)}
        factors = {key: 1.2 if self.rng.random() < self.differs else 1.01 for key in prices}
        questions = [
            {"key": key, "site": "shop", "version": "v1", "at": at.isoformat()}
            | {"prediction": {"answers": {"price": f"{price * factors[key]:.2f}"}}}
            for key, price in prices.items()
        ]
        deciders = self.ask(questions, at)
        decided = [
            {"kind": "decision", "key": key, "reviewer": "ana", "exposure": "blind"}
            | {"answers": {"price": f"{price:.2f}"}, "submitted_at": at.isoformat()}
            for key, price in prices.items()
        ]
        self.send(decided, by="ingest-decisions")
        for (key, price), decider in zip(prices.items(), deciders, strict=True):
            earned = self.rng.gauss(18 + price / 20, 4) + self.gain * (decider == "model")
            self.profits.append((key, at, self.falsify(earned, decider)))
        self.deciders += [(decider, at) for decider in deciders]

    def ask_online(self, questions, _):
        """Return who prices each sale."""
        answers = self.post("assignments", {"questions": questions})["answers"]
        return [answer["decider"] for answer in answers]

    def ask_offline(self, questions, at):
        """Return who prices each sale by a snapshot, and send the predictions."""
        scope, deciders = read_scope(self.client.by("ingest"), "pricing", site="shop"), []
        for question in questions:
            sale = CaseQuestion("shop", at, "v1", question["key"])
            assignment = decide_locally(scope, sale, now=at, time_left=MINUTE)
            key = {"key": question["key"]}
            case = {"kind": "case", **key, "site": "shop", "occurred_at": at.isoformat()}
            prediction = {"kind": "prediction", **key, "version": "v1", **question["prediction"]}
            self.send([case, prediction | build_assignment_fields(assignment)], by="ingest")
            deciders.append(assignment.decider)
        return deciders

    def book(self):
        """Send the profits of sales of three ticks ago."""
        now = self.clock.now()
        booked = [
            {"kind": "outcome", "key": key, "at": now.isoformat(), "values": {"profit": earned}}
            for key, at, earned in self.profits
            if at == now - 3 * TICK
        ]
        self.send(booked, by=self.booked_by)

    def count_priced_by(self, decider, until):
        """Return the number of closed sales that a decider priced above shadow."""
        return sum(each == decider for each, at in self.deciders if at <= until)

    def send(self, items, by):
        statuses = {item["status"] for item in self.post("records", items, by)["items"]}
        assert statuses <= {"accepted"}

    def post(self, path, body, by="ingest"):
        answer = self.client.by(by).post(f"{PRICING}/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def approve_all(self):
        """Let two approvers approve each open proposal."""
        for proposal in self.get("proposals")["items"]:
            for name in ("ana", "bo"):
                path = f"{PRICING}/proposals/{proposal['id']}/approvals"
                body = {"evidence_hash": proposal["evidence_hash"]}
                self.client.by(name).post(path, json=body)

    def get(self, path):
        return self.client.by("viewer").get(f"{PRICING}/{path}").json()


@pytest.fixture(autouse=True)
def _same_clocks(monkeypatch):
    """Set the clock of tests; a database's own is not."""
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))


def run_shop(client, database, clock, days, sources="", **behavior):
    """Return the shop after some days."""
    clock.at = START
    apply_policy(
        database, POLICY % sources, Actor("zoe"), START, salt=bytes(32), service_salt=bytes(32)
    )
    shop, ticker = Shop(client, clock, **behavior), Ticker(database, "pricing", "one")
    for _ in range(days * DAY // TICK):
        clock.at += MINUTE
        shop.sell()
        shop.book()
        clock.at += TICK - MINUTE
        ticker.tick(clock.at)
        shop.approve_all()
    return shop


def list_stages(shop):
    history = shop.get("cells/shop/always")["history"]
    changes = ("Widened", "Narrowed")
    return [(item["kind"], item["to"]) for item in history if item["kind"] in changes]


def check_arms(gain, model_units):
    """Compare the arms with the units whose question the model or a human answered."""
    assert (gain["outcome"], gain["unit"], gain["arm"]) == ("profit", "EUR", "decides")
    assert gain["model"]["units"] + gain["model"]["missing"] == model_units
    assert gain["model"]["missing"] == gain["people"]["missing"] == 0


@on_sqlite
def test_a_model_that_earns_more_is_widened_though_it_differs(client, database, service, clock):
    shop = run_shop(client, database, clock, 9, gain=12, differs=0.4)
    assert list_stages(shop) == [("Widened", "trial"), ("Widened", "half")]
    cell = shop.get("cells/shop/always")
    (gain,) = cell["gains"]
    assert gain["lower"] < 12 < gain["upper"]
    check_arms(gain, shop.count_priced_by("model", until=clock.now() - DAY))
    means = gain["model"]["mean"], gain["people"]["mean"]
    assert means[0] - means[1] == pytest.approx(12, abs=2)
    proposals = {p["to"]: p for p in shop.get("proposals?state=applied")["items"]}
    assert proposals["half"]["gains"] == [gain]
    assert proposals["half"]["texts"][0].startswith("gain of profit at least 0 EUR: +")
    details = load_proposal(service, VIEWER, "pricing", proposals["half"]["id"], at=clock.now())
    evidence = load_proposal_evidence(service, VIEWER, "pricing", details)
    assert [reading.text for reading in evidence.readings] == [*details.texts]
    page = load_single_cell_page(service, VIEWER, "pricing", CELL, at=clock.now())
    (row,) = page.rows
    passed = {item.condition.measure.name: item for item in row.passed_thresholds}
    assert passed["gain"].estimate == pytest.approx(gain["gain"])
    assert EvidenceCheck(database, "pricing").check_all().faults == []
    period = {"since": START.isoformat(), "until": clock.now().isoformat()}
    path = f"{PRICING}/reports"
    made = client.by("viewer").post(path, json={"name": "week", **period}).json()
    report = client.get(f"{path}/{made['id']}", params={"format": "json"}).json()
    (reported,) = report["gains"]
    assert (reported["gain"], reported["human_units"]) == (gain["gain"], gain["people"]["units"])
    assert (
        datetime.fromisoformat(report["report_version"]["due"]) > clock.now()
    )  # outcomes are open


@on_sqlite
def test_a_model_that_merely_agrees_does_not_pass_although_its_client_is_offline(
    client, database, clock
):
    shop = run_shop(client, database, clock, 9, gain=0, differs=0.02, is_offline=True)
    assert list_stages(shop) == [("Widened", "trial")]
    (gain,) = shop.get("cells/shop/always")["gains"]
    assert gain["lower"] < 0 < gain["upper"]
    check_arms(gain, shop.count_priced_by("model", until=clock.now() - DAY))
    assert shop.get("rejected-records")["items"] == []
    assert gain["without_arm"] == 0


@on_sqlite
def test_a_model_that_loses_is_narrowed_by_its_guard(client, database, clock):
    shop = run_shop(client, database, clock, 5, gain=-25, differs=0.02)
    assert list_stages(shop)[:2] == [("Widened", "trial"), ("Narrowed", "shadow")]
    (gain,) = shop.get("cells/shop/always")["gains"]
    assert gain["gain"] < -20


def invent(earned, decider):
    """Return a profit that makes the model look 30 EUR better than it is."""
    return min(earned + 30 * (decider == "model"), 59)


@on_sqlite
@pytest.mark.parametrize(
    ("booked_by", "sources", "reason"),
    [
        ("ingest", "", OWN_PREDICTION),
        ("ingest-outcomes", ", outcomes: [till]", NOT_NAMED),
    ],
)
def test_invented_profits_open_no_gate_from_a_key_of_predictions_or_an_unnamed_one(
    client, database, clock, booked_by, sources, reason
):
    ways = {"gain": 0, "differs": 0.02, "falsify": invent, "booked_by": booked_by}
    shop = run_shop(client, database, clock, 6, sources, **ways)
    assert list_stages(shop) == [("Widened", "trial")]
    (gain,) = shop.get("cells/shop/always")["gains"]
    assert gain["gain"] is None
    assert gain["model"]["units"] == gain["people"]["units"] == 0
    counted = gain["model"]["missing"] + gain["people"]["missing"]
    assert counted > 50
    assert gain["missing_reasons"] == {reason: counted}
    assert EvidenceCheck(database, "pricing").check_all().faults == []


@on_sqlite
def test_profits_of_an_account_of_their_own_open_the_gate_and_the_proposal_names_it(
    client, database, clock
):
    sources = ", outcomes: [ingest-outcomes]"
    shop = run_shop(client, database, clock, 6, sources, gain=30, differs=0.02)
    assert list_stages(shop) == [("Widened", "trial"), ("Widened", "half")]
    trial, half = sorted(shop.get("proposals?state=applied")["items"], key=lambda p: p["id"])
    assert trial["outcome_sources"] == []
    (source,) = half["outcome_sources"]
    assert source["source"] == "ingest-outcomes"
    assert 20 <= source["units"] <= 100
    text = f"outcomes of {source['units']} units: service account ingest-outcomes"
    assert text in format_proposal_details(half, is_caller_known=False)


@on_sqlite
def test_a_loss_that_the_sender_of_the_predictions_reports_narrows(client, database, clock):
    shop = run_shop(client, database, clock, 5, gain=-25, differs=0.02, booked_by="ingest")
    assert list_stages(shop)[:2] == [("Widened", "trial"), ("Narrowed", "shadow")]
