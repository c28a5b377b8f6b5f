"""The review queue over HTTP: take, judge, give back, look; nothing else in the answers."""

import pytest

from rollout.data.access.users import Users
from rollout.engine.decide.permissions import AssignedRole
from tests.api.reviews.review_desk import ReviewDesk
from tests.factories import NOON
from tests.features.review_room import MINUTE, Room, policy_text


@pytest.fixture
def desk(database):
    return ReviewDesk(Room(database).arrive("a", "b"))


def problem_of(answer):
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


BEAR = {"answers": {"alarm": "bear"}}


def test_a_case_is_taken_and_judged(desk):
    assert desk.get("ana").json()["waiting"] == {"blind": 2, "assisted": 0, "adjudicate": 0}
    (task,) = desk.take("ana")
    assert task["claimed_until"] == "2027-06-01T12:10:00Z"
    judged = desk.post("ana", f"/{task['review']}/decision", BEAR)
    assert judged.json() == {
        "review": task["review"],
        "case": task["case"],
        "answers": {"alarm": "bear"},
        "unsure": False,
        "note": None,
        "revision": 1,
        "at": "2027-06-01T12:00:00Z",
    }


def test_a_blind_task_holds_what_was_sent_of_the_case_and_no_more(desk):
    (task,) = desk.take("ana", kind="blind")
    assert task == {
        "review": task["review"],
        "kind": "blind",
        "case": task["case"],
        "site": "creek",
        "occurred_at": "2027-06-01T12:00:00Z",
        "attributes": {"weather": "dry"},
        "media": {"still": f"{task['case']}.jpg"},
        "answer_by": "2027-06-01T12:02:00Z",
        "claimed_until": "2027-06-01T12:10:00Z",
        "model_answer": None,
        "decisions": [],
    }


def test_the_page_is_told_what_may_be_answered(desk):
    levers = desk.get("ana").json()["levers"]
    lever = {"id": "alarm", "labels": ["bear", "fox", "none"], "number": None, "many": False}
    assert levers == [lever]


def test_what_is_given_back_goes_to_somebody_else(desk):
    first, _ = desk.take("ana", claims=2)
    answer = desk.post("ana", f"/{first['review']}/release")
    assert (answer.status_code, answer.content) == (204, b"")
    assert [task["review"] for task in desk.take("bo", claims=2)] == [first["review"]]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/1/decision", BEAR, (404, "unknown-review")),
        ("/99/decision", BEAR, (404, "unknown-review")),
        ("/99/release", None, (404, "unknown-review")),
        ("/0/decision", BEAR, (422, "malformed")),
        ("/claims", {"claims": 6}, (422, "malformed")),
        ("/claims", {"kind": "seeded"}, (422, "malformed")),
        ("/1/decision", {"answers": {}, "exposure": "unknown"}, (422, "malformed")),
        ("/1/decision", {**BEAR, "started_at": "2027-06-01T12:00:00"}, (422, "malformed")),
        ("/1/decision", {**BEAR, "seat": 2}, (422, "malformed")),
        ("/adjudications", {"case": "a"}, (403, "not-allowed")),
        ("/gold-cases", {"case": "a", **BEAR, "reviewers": 1}, (403, "not-allowed")),
        ("/reassignments", {"reviewer": "bo"}, (403, "not-allowed")),
    ],
)
def test_what_can_not_be_is_a_named_problem(desk, path, body, expected):
    assert problem_of(desk.post("cy", path, body)) == expected


def test_a_verdict_that_stands_is_a_conflict_and_one_that_no_lever_has_a_fault(desk):
    (task,) = desk.take("ana")
    path = f"/{task['review']}/decision"
    assert problem_of(desk.post("ana", path, {"answers": {"alarm": "wolf"}})) == (
        422,
        "bad-decision",
    )
    desk.post("ana", path, BEAR)
    assert problem_of(desk.post("ana", path, {"unsure": True})) == (409, "conflict")
    corrected = desk.post("ana", path, {"unsure": True, "supersedes": 1})
    assert corrected.json()["revision"] == 2


def test_machines_and_people_without_the_right_are_refused(desk):
    desk.door.let_in("box", AssignedRole("reviewer", "bears"), machine=True)
    assert problem_of(desk.post("box", "/claims", {})) == (403, "service-account-key")
    assert problem_of(desk.get("viewer")) == (403, "not-allowed")


def test_operators_settle_free_and_see_what_is_late(desk):
    (task,) = desk.take("ana")
    assert desk.post("dan", "/reassignments", {"reviewer": "ana"}).json() == {"released": 1}
    wanted = {"case": task["case"], "version": "v1"}
    assert desk.post("dan", "/adjudications", wanted).json()["code"] == "case-still-open"
    desk.take("ana")
    desk.post("ana", f"/{task['review']}/decision", {"answers": {"alarm": "fox"}})
    assert desk.post("dan", "/adjudications", wanted).status_code == 204
    assert desk.take("bo", kind="adjudicate")[0]["decisions"] == [
        {"alarm": "bear"},
        {"alarm": "fox"},
    ]
    desk.later(20 * 60 * MINUTE)
    (late,) = desk.get("dan", "/overdue").json()["items"]
    assert (late["kind"], late["reviewer"]) == ("blind", None)


def test_a_known_case_is_added_and_judged_like_any_other(desk):
    review = desk.take("ana")[0]
    desk.post("ana", f"/{review['review']}/decision", BEAR)
    known = {"case": review["case"], "answers": {"alarm": "fox"}, "reviewers": 2}
    assert desk.post("dan", "/gold-cases", known).status_code == 204
    tasks = desk.take("bo", claims=2)
    assert {task["kind"] for task in tasks} == {"blind"}
    shapes = {
        tuple(sorted(desk.post("bo", f"/{t['review']}/decision", BEAR).json())) for t in tasks
    }
    assert len(shapes) == 1


def test_a_case_that_comes_in_is_judged_here_and_explained_with_its_verdict(database):
    desk = ReviewDesk(Room(database))
    desk.door.let_in("box", AssignedRole("ingest", "bears"), machine=True)
    asked, said = {"kind": "case", "key": "a"}, {"kind": "prediction", "key": "a", "version": "v1"}
    items = [
        {**asked, "site": "creek", "occurred_at": "2027-06-01T11:59:00Z"},
        {**said, "answers": {"alarm": "fox"}},
    ]
    sent = desk.client.by("box").post("/v1/rollouts/bears/records", json={"items": items})
    assert [item["status"] for item in sent.json()["items"]] == ["accepted"] * 2
    (task,) = desk.take("ana")
    desk.post("ana", f"/{task['review']}/decision", BEAR)
    known = desk.client.by("dan").get("/v1/rollouts/bears/cases/a").json()
    assert [d["exposure"] for d in known["decisions"]] == ["blind"]
    assert desk.take("bo") == []


@pytest.mark.parametrize("order", ["decision first", "case first", "together"])
@pytest.mark.parametrize(
    ("account", "left"), [("desk", []), ("box", ["a"])], ids=["named", "not named"]
)
def test_a_case_is_not_asked_about_that_a_named_account_sends_with_its_verdict(
    database, account, left, order
):
    """A key that the policy does not name chooses nothing of what is reviewed."""
    further = "outside: blind, sources: {accounts: [{account: desk, reviewers: [eve]}]}"
    desk = ReviewDesk(Room(database, text=policy_text(further=further)))
    desk.door.let_in(account, AssignedRole("ingest", "bears"), machine=True)
    case = {"kind": "case", "key": "a", "site": "creek", "occurred_at": "2027-06-01T11:59:00Z"}
    said = {"kind": "decision", "key": "a", "reviewer": "eve", "site": "creek", **BEAR}
    batches = {"decision first": [[said], [case]], "case first": [[case], [said]]}
    for items in batches.get(order, [[case, said]]):
        sent = desk.client.by(account).post("/v1/rollouts/bears/records", json={"items": items})
        assert {item["status"] for item in sent.json()["items"]} == {"accepted"}
    assert [task["case"] for task in desk.take("ana")] == left


@pytest.mark.parametrize(
    ("account", "status"), [("desk", "accepted"), ("box", "rejected"), ("ana", "accepted")]
)
def test_only_a_named_account_speaks_for_who_reviews_here(database, account, status):
    """Who decided a case is not asked about it: any key could take it from each reviewer."""
    sources = "sources: {accounts: [{account: desk, reviewers: [a*]}]}"
    desk = ReviewDesk(Room(database, text=policy_text(further=sources)).arrive("a", "b"))
    with database.begin_write() as transaction:
        users = Users(transaction)
        for name in ("ana", "bo"):
            users.grant_role(users.add(name, at=NOON), AssignedRole("reviewer", "bears"))
    desk.door.let_in(account, *map(AssignedRole, ("ingest", "reviewer")), machine=account != "ana")
    said = {"kind": "decision", "key": "a", "reviewer": "ana", "exposure": "blind", **BEAR}
    sent = desk.client.by(account).post("/v1/rollouts/bears/records", json=[said])
    (answer,) = sent.json()["items"]
    assert answer["status"] == status
    asked = {"a"} if status == "rejected" else set()
    assert {task["case"] for task in desk.take("ana", claims=2)} == {"b", *asked}
    assert ("ana reviews here, and the policy does not name" in answer["reason"]) == bool(asked)


@pytest.mark.slow
def test_every_operation_has_an_example(desk):
    made = desk.client.get("/openapi.json").json()
    ours = {path: item for path, item in made["paths"].items() if "/reviews" in path}
    assert len(ours) == 8
    forms = made["components"]["schemas"]
    bodies = [
        op["requestBody"] for item in ours.values() for op in item.values() if "requestBody" in op
    ]
    names = {b["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1] for b in bodies}
    assert all("example" in forms[name] for name in names)
