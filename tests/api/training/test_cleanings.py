"""Cleaning and training over HTTP: a list, choices that are answered, rows with their manifest."""

import csv
import io
import json
from datetime import timedelta
from hashlib import sha256
from math import log

import polars as pl
import pytest

from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import ExposureStore
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.reports.figures.label_issues import compute_digest
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.api.records.test_records import case, decision, prediction, sent_apart
from tests.api.test_shell import POLICY, problem_of
from tests.factories import NOON

pytestmark = pytest.mark.slow

RAMPS = "/v1/rollouts/ramps"
LATER = timedelta(days=2)


@pytest.fixture(autouse=True)
def _ramps(database):
    apply_policy(database, POLICY, Actor("zoe"), NOON - timedelta(days=1))


def judged(key, said="sound", decided="sound", sure=0.9, **more):
    own = {"site": more["site"]} if "site" in more else {}
    told = [case(key, **own), prediction(key, label=said, confidence=sure)]
    return [*told, decision(key, label=decided)]


@pytest.fixture
def closed(client, clock):
    """Send six cases, two of them contradicted by people, and let them close."""
    alike = [item for n in range(4) for item in judged(f"same-{n}")]
    here = judged("here", said="damaged", sure=0.99)
    there = judged("there", said="damaged", sure=0.95, site="ramp-b")
    damaged = judged("hurt", said="damaged", decided="damaged", sure=0.6)
    sent_apart(client, *alike, *here, *there, *damaged)
    clock.advance(LATER)


def listed(client, by="viewer", **asked):
    answer = client.by(by).get(f"{RAMPS}/cleanings", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def keys(client, **asked):
    return [one["case_key"] for one in listed(client, **asked)]


def chosen(client, *wishes, by="operator"):
    answer = client.by(by).post(f"{RAMPS}/cleanings", json={"items": wishes})
    assert answer.status_code == 200, answer.text
    return [(one["status"], one["reason"]) for one in answer.json()["items"]]


def wish(key="here", choice="drop", **more):
    return {"key": key, "choice": choice, **more}


def rows(client, by="viewer", **asked):
    answer = client.by(by).get(f"{RAMPS}/training", params=asked)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def labels(client, **asked):
    return {row["case_key"]: row["label"] for row in rows(client, **asked)}


@pytest.mark.slow
def test_the_dearest_losses_are_listed_first_with_what_was_chosen(client, closed):
    assert keys(client) == ["here", "there"]
    chosen(client, wish("there", "relabel", label="damaged", reason="a dent"))
    (first, second) = listed(client)
    assert first["choice"] is None
    assert (second["choice"]["label"], second["choice"]["by"]) == ("damaged", "operator")
    assert keys(client, has_choice=True) == ["there"]
    assert keys(client, has_choice=False) == ["here"]
    assert keys(client, until="2027-06-01T10:00:00Z") == []


@pytest.mark.slow
def test_the_list_comes_in_pages(client, closed):
    first = client.by("viewer").get(f"{RAMPS}/cleanings", params={"limit": 1}).json()
    rest = client.get(f"{RAMPS}/cleanings", params={"after": first["next"]}).json()
    assert [one["case_key"] for one in rest["items"]] == ["there"]
    assert rest["next"] is None


def test_each_choice_is_answered_and_the_last_one_holds(client, closed):
    wishes = [
        wish(),
        wish("there", "relabel", label="damaged"),
        wish("none"),
        wish("here", "relabel"),
        wish("here", "relabel", label="lost"),
        wish("here", "burn"),
        wish("here", "keep", label="sound"),
        wish("here", lever="lid"),
    ]
    answers = chosen(client, *wishes)
    assert [verdict for verdict, _ in answers] == ["saved"] * 2 + ["rejected"] * 6
    said = [reason for _, reason in answers[2:]]
    for part, reason in zip(
        ("no case none", "needs the new label", "one of damaged, sound", "no choice", "no label",
         "no lever lid"), said, strict=True
    ):  # fmt: skip
        assert part in reason
    assert chosen(client, wish(), wish("here", "keep")) == [
        ("unchanged", "operator chose so at 2027-06-03 12:00:00+00:00"),
        ("saved", ""),
    ]
    found = client.by("viewer").get(f"{RAMPS}/cleanings/choices").json()["items"]
    assert [(one["key"], one["choice"]) for one in found] == [
        ("here", "keep"),
        ("there", "relabel"),
        ("here", "drop"),
    ]
    assert "here" in labels(client)


def test_choices_change_what_is_trained_on_and_nothing_else(client, closed):
    before = client.by("viewer").get(f"{RAMPS}/cases/there").json()
    chosen(client, wish(), wish("there", "relabel", label="damaged"))
    found = {row["case_key"]: row for row in rows(client)}
    assert "here" not in found
    row = found["there"]
    assert (row["label"], row["source"], row["cleaned"]) == ("damaged", "assisted", "relabel")
    assert client.get(f"{RAMPS}/cases/there").json() == before
    manifest = client.get(f"{RAMPS}/training/manifest").json()
    assert manifest["excluded"] == {"dropped": 1}
    assert manifest["cleaned"] == {"relabel": 1, "drop": 1, "keep": 0}


@pytest.mark.slow
def test_no_case_that_people_still_judge_is_shown_to_anybody(client, clock, closed):
    sent_apart(client, *judged("open", said="damaged", sure=0.99, at="2027-06-03T11:00:00Z"))
    for by in ("viewer", "ana", "admin", "operator"):
        assert "open" not in keys(client, by=by)
        assert "open" not in labels(client, by=by)
    assert client.get(f"{RAMPS}/training/manifest").json()["excluded"] == {"open for review": 1}
    ((verdict, reason),) = chosen(client, wish("open"))
    assert (verdict, "still open for review" in reason) == ("rejected", True)
    clock.advance(LATER)
    assert "open" in keys(client)
    assert "open" in labels(client)


def test_a_known_case_is_hidden_from_everybody_while_people_judge_it(client, closed):
    chosen(client, wish("here", "relabel", label="damaged"), wish("there"))
    known = {"case": "here", "answers": {"parcel": "sound"}, "reviewers": 2}
    asked = client.by("admin").post(f"{RAMPS}/reviews/gold-cases", json=known)
    assert asked.status_code == 204, asked.text
    assert keys(client) == ["there"]
    assert "here" not in labels(client, by="admin")
    told = client.by("ana").get(f"{RAMPS}/cleanings/choices").json()["items"]
    assert [one["key"] for one in told] == ["there"]
    ((verdict, reason),) = chosen(client, wish("here"))
    assert (verdict, "still open for review" in reason) == ("rejected", True)


def test_what_a_person_is_shown_is_noted(client, database, closed):
    keys(client, by="viewer")
    rows(client, by="ana")  # who may review, too
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "ramps").rollout
        number = ExternalKeys(transaction, rollout).find_ids(["here"])["here"]
        shown = ExposureStore(transaction, rollout)
        assert shown.list_for_reviewer("viewer", {number}) == {number: {("prediction", "cleaning")}}
        assert shown.list_for_reviewer("ana", {number}) == {number: {("prediction", "training")}}


def test_a_right_for_one_site_lists_chooses_and_exports_there_alone(client, door, closed):
    door.let_in("eve", AssignedRole("operator", "ramps", "ramp-b"))
    assert keys(client, by="eve") == ["there"]
    assert list(labels(client, by="eve")) == ["there"]
    answers = chosen(client, wish("here"), wish("there"), by="eve")
    assert [verdict for verdict, _ in answers] == ["rejected", "saved"]
    chosen(client, wish("here"))
    found = client.by("eve").get(f"{RAMPS}/cleanings/choices").json()["items"]
    assert [one["key"] for one in found] == ["there"]


def test_only_an_operator_chooses_and_no_reviewer_reads(client):
    for by in ("viewer", "admin", "ingest", "reviewer"):
        answer = client.by(by).post(f"{RAMPS}/cleanings", json={"items": [wish()]})
        assert problem_of(answer) == (403, "not-allowed")
    for path in ("cleanings", "training", "cleanings/choices"):
        answer = client.by("reviewer").get(f"{RAMPS}/{path}")
        assert problem_of(answer) == (403, "not-allowed")


def test_every_form_holds_the_rows_that_the_manifest_names(client, closed):
    manifest = client.by("viewer").get(f"{RAMPS}/training/manifest").json()
    found = {
        form: client.get(f"{RAMPS}/training", params={"format": form})
        for form in ("jsonl", "csv", "parquet")
    }
    assert {answer.headers["etag"] for answer in found.values()} == {f'"{manifest["sha256"]}"'}
    assert sha256(found["jsonl"].content).hexdigest() == manifest["sha256"]
    assert compute_digest(pl.read_parquet(found["parquet"].content)) == manifest["sha256"]
    table = list(csv.DictReader(io.StringIO(found["csv"].text)))
    assert len(table) == manifest["rows"] == 7
    assert (manifest["rollout"], manifest["versions"]) == ("ramps", ["v1"])
    assert manifest["sources"][0] == {"source": "blind", "rows": 7, "weight": 7.0}


def test_sources_and_spans_can_be_asked_for(client, closed):
    chosen(client, wish("there", "relabel", label="damaged"))
    assert list(labels(client, source="assisted")) == ["there"]
    assert len(rows(client, source=["assisted", "blind"])) == 7
    assert rows(client, until="2027-06-01T10:00:00Z") == []
    wrong = client.get(f"{RAMPS}/training", params={"source": "hearsay"})
    assert problem_of(wrong) == (422, "malformed")


def test_a_batch_that_is_not_of_its_form_is_refused_whole(client, closed):
    long = {"items": [wish("here", reason="x" * 1_001)]}
    assert problem_of(client.by("operator").post(f"{RAMPS}/cleanings", json=long)) == (
        422,
        "malformed",
    )
    assert client.by("viewer").get(f"{RAMPS}/cleanings/choices").json()["items"] == []


def test_stored_probabilities_give_the_loss_of_the_human_label(client, clock):
    """The confidence alone would leave .1 for the human label; what was sent leaves it .02."""
    sent_apart(client, *(item for n in range(4) for item in judged(f"same-{n}")))
    listing = prediction("odd", label="damaged", confidence=0.9)
    listing["probabilities"] = {"damaged": 0.9, "sound": 0.02}
    sent_apart(client, case("odd"), listing, decision("odd", label="sound"))
    clock.advance(LATER)
    (odd,) = listed(client)
    assert (odd["case_key"], odd["confidence"]) == ("odd", 0.9)
    assert odd["loss"] == pytest.approx(-log(0.02))
