"""Reports over HTTP: made, listed page by page, read in every form."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from api.reports.routes import choose_format
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.reports.figures.report_version import compute_seal
from rollout.live.tick_passes import Ticker
from tests.api.test_shell import problem_of
from tests.data.snapshots import filled_once
from tests.factories import DAY, HOUR, NOON
from tests.features import bear_field as field
from tests.features.reports.test_builder import keep

pytestmark = pytest.mark.slow

SCHEMA = Path(__file__).parents[3] / "config/report.schema.json"
PATH = "/v1/rollouts/bears/reports"
SPAN = {"since": (NOON - DAY).isoformat(), "until": NOON.isoformat()}
MEDIA = {
    "html": "text/html",
    "json": "application/json",
    "csv": "text/csv",
}
on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@pytest.fixture
def bears(database, clock):
    """Return a rollout with five judged cases, one of them a divergence."""
    counted_cases(database)
    clock.advance(HOUR)
    return database


@filled_once
def counted_cases(database):
    field.set_up_field(database, NOON - DAY)
    for number in range(5):
        model = "bear" if number == 3 else "none"
        keep(database, f"case-{number}", NOON - HOUR, model=model, received=NOON)
    Ticker(database, "bears", "one").tick(NOON)


@pytest.fixture
def made(client, bears):
    """Return a report that was just made."""
    answer = client.by("viewer").post(PATH, json={"name": "week", **SPAN})
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.mark.slow
def test_a_report_is_made_once_and_given_again(client, made):
    assert (made["version"], made["state"], made["view"]) == (1, "provisional", "operator")
    again = client.by("ana").post(PATH, json={"name": "week", **SPAN})
    assert (again.status_code, again.json()) == (200, made)


@pytest.mark.slow
@on_sqlite
def test_a_seventh_within_an_hour_is_refused_until_the_first_is_an_hour_old(client, made, clock):
    ask = client.by("viewer").post
    for _ in range(5):
        assert ask(PATH, json={"name": "week", **SPAN}).status_code == 200
    clock.advance(HOUR / 4)
    refused = ask(PATH, json={"name": "week", **SPAN})
    assert problem_of(refused) == (429, "too-many-requests")
    assert refused.headers["Retry-After"] == "2700"
    assert "ask again from" in refused.json()["detail"]


@on_sqlite
def test_it_is_read_in_the_form_that_is_asked_for(client, made):
    for form, media in MEDIA.items():
        for asked in ({"params": {"format": form}}, {"headers": {"Accept": media}}):
            answer = client.get(f"{PATH}/{made['id']}", **asked)
            assert answer.status_code == 200
            assert answer.headers["Content-Type"].startswith(media)
            assert "case-3" in answer.text
            assert answer.headers["Rollout-Report-Hash"] == made["hash"]
            assert answer.headers["Rollout-Withheld-Rows"] == "0"
    text = client.get(f"{PATH}/{made['id']}", params={"format": "json"}).content
    assert compute_seal(text.decode()) == made["hash"]
    assert json.loads(text)["report_version"]["name"] == "week"


@on_sqlite
def test_its_json_is_as_the_schema_of_reports_says(client, made):
    schema = json.loads(SCHEMA.read_text())
    read = client.get(f"{PATH}/{made['id']}", params={"format": "json"})
    Draft202012Validator(schema).validate(read.json())


@on_sqlite
def test_a_page_loads_and_runs_nothing(client, made):
    answer = client.get(f"{PATH}/{made['id']}", params={"view": "auditor"})
    rules = answer.headers["Content-Security-Policy"].split("; ")
    assert rules == ["default-src 'none'", "style-src 'unsafe-inline'", "img-src data:", "sandbox"]
    assert 'id="checks"' in answer.text
    assert 'id="operate"' not in answer.text


@pytest.mark.slow
@on_sqlite
def test_reports_are_listed_page_by_page(client, made):
    for name in ("day", "month"):
        client.post(PATH, json={"name": name, **SPAN, "view": "engineer"})
    first = client.get(PATH, params={"limit": 2}).json()
    rest = client.get(PATH, params={"limit": 2, "after": first["next"]}).json()
    assert [one["name"] for one in (*first["items"], *rest["items"])] == ["month", "day", "week"]
    assert rest["next"] is None
    assert rest["items"] == [made]
    assert client.get(PATH, params={"name": "day"}).json()["items"][0]["view"] == "engineer"


@on_sqlite
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"until": (NOON + DAY).isoformat()}, "nothing-to-report"),
        ({"until": (NOON - 9 * DAY).isoformat()}, "nothing-to-report"),
        ({"name": " week"}, "nothing-to-report"),
        ({"name": ""}, "malformed"),
        ({"view": "boss"}, "malformed"),
        ({"since": "2027-06-01T00:00:00"}, "malformed"),
        ({"span": "week"}, "malformed"),
    ],
)
def test_what_can_not_be_made_is_refused_with_its_reason(client, bears, body, code):
    assert problem_of(client.by("viewer").post(PATH, json=body)) == (422, code)
    assert client.get(PATH).json()["items"] == []


@on_sqlite
@pytest.mark.parametrize("number", ["99", "0", "-1", "99999999999999999999"])
def test_a_report_that_is_not_there_is_unknown(client, made, number):
    assert problem_of(client.get(f"{PATH}/{number}")) == (404, "unknown-report")


@on_sqlite
def test_who_reads_one_site_reads_no_report(client, door, made):
    door.let_in("cy", AssignedRole("viewer", "bears", "creek"))
    for path in (PATH, f"{PATH}/{made['id']}"):
        assert problem_of(client.by("cy").get(path)) == (403, "not-allowed")
    refused = client.by("cy").post(PATH, json=SPAN)
    assert problem_of(refused) == (403, "not-allowed")
    says = refused.json()["detail"]
    assert "cy may read creek alone" in says
    assert "rollout users grant-role cy viewer --rollout bears" in says
    assert "`cells`" in says


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "html"),
        ("image/png", "html"),
        ("text/html;q=0.2, text/csv;q=0.9", "csv"),
        ("application/json;q=0, text/csv;q=0.1", "csv"),
        ("application/json;q=x", "html"),
    ],
)
def test_the_form_follows_what_a_client_would_rather_have(accept, form):
    assert choose_format(accept) == form
