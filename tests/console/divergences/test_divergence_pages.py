"""The divergences: found, filtered, judged in one form, sent as files; noted as by the API."""

import csv
import io
import re
from datetime import timedelta

import pytest
from msgspec.structs import replace

from rollout.data.ledger.ledger import Ledger
from rollout.data.records.versions import VersionInfo, VersionStore
from rollout.engine.decide.commands import Actor
from rollout.engine.events import VersionFirstUsed
from rollout.engine.records.records import Prediction
from rollout.features.access.users import load_local_caller
from rollout.features.divergences.closed_units import load_version_confusion
from rollout.features.divergences.divergence_list import DivergenceQuery, load_divergence_page
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.api.bears import POLICY
from tests.console.divergences.divergence_rows import HERE, count, fields, rows
from tests.console.told_cases import (
    AT,
    CLOSED,
    NASTY,
    case,
    judged,
    sliced,
    some,
    tell,
    verdict,
)
from tests.factories import NOON

MARKED = (
    POLICY.replace("rollout: bears", "rollout: tags")
    .replace("labels: [bear, none]", "labels: ['<i>yes</i>', '<i>no</i>']")
    .replace("{bear: siren, none: nothing}", "{'<i>yes</i>': '<s>ring', '<i>no</i>': wait}")
)
SCALES = POLICY.replace("rollout: bears", "rollout: scales").replace(
    "    labels: [bear, none]\n    actions: {bear: siren, none: nothing}\n",
    "    number: {in: kg, from: 0, to: 100, tolerance: 1}\n"
    "    costs: [{off: 5, cost: 4}, {off: 1, cost: 2}]\n",
)
SETS = POLICY.replace("rollout: bears", "rollout: sponsors").replace(
    "    labels: [bear, none]\n    actions: {bear: siren, none: nothing}\n",
    "    labels: [nike, puma, ikea]\n    many: true\n    overlap: 50%\n",
)


@pytest.fixture
def told(told):
    """Return it with everything counted that has closed."""
    count(told.database)
    return told


def for_tags(database, key, model, person, rollout="tags"):
    """Keep a case of another rollout with v1's answer and one of people."""
    said = {"key": key, "answers": {"alarm": model}, "at": AT, "confidence": 0.9}
    given = replace(verdict(key, "none"), answers={"alarm": person})
    seen = VersionFirstUsed(at=NOON, by="policy", version="v1")
    with database.begin_write() as transaction:
        stood = load_rollout_state(transaction, rollout)
        if "v1" not in stood.scope.versions:
            VersionStore(transaction, stood.rollout).record_info(VersionInfo("v1", "test"), at=NOON)
            Ledger(transaction, stood.rollout).append([seen], after=stood.scope.revision)
    tell(database, case(key), Prediction(version="v1", **said), given, rollout=rollout)


def test_the_only_rollout_is_gone_to_and_of_several_one_is_chosen(browser, told):
    answer = browser.as_("ana").get("/console/divergences", follow_redirects=False)
    assert answer.headers["location"] == "/console/rollouts/bears/divergences"
    other = POLICY.replace("rollout: bears", "rollout: a-second")
    apply_policy(told.database, other, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    page = browser.page("/divergences")
    assert 'href="/console/rollouts/a-second/divergences"' in page
    assert 'href="/console/rollouts/bears/divergences"' in page


def test_divergences_stand_dearest_first_with_both_answers_cost_confidence_and_time(browser, told):
    page = browser.as_("ana").page(HERE)
    assert rows(page) == ["false-1", "false-2", "missed", "lake-1"]
    assert "4 of 6 compared cases" in page
    assert "The costliest kind: human none, v1 bear (3 cases, 3 points)." in page
    row = page.split('cases/missed"')[1].split("</tr>")[0]
    for said in (
        "bear",
        "siren",
        "none, 71\u00a0%",
        "nothing",
        'data-label="Cost">1<',
        "creek · day",
    ):
        assert said in row, said
    assert '<time datetime="2027-06-01T13:00' in row


def test_agreement_of_all_attempts_is_not_called_the_evidence_of_gates(browser, told):
    page = re.sub(r"\s+", " ", browser.as_("ana").page(HERE))
    assert "Agreement of v1 on units with a decision: all attempts, sites and windows" in page
    assert "Gates count units without a decision as disagreements" in page
    assert (
        "without a blind decision (not sampled for one, assisted, or not decided in time)" in page
    )


def test_the_matrices_count_what_was_compared(browser, told):
    page = browser.as_("ana").page(HERE)
    labels = page.split('id="label-counts"')[1].split("</table>")[0]
    assert re.findall(r"<td[^>]*>(\d+)", labels) == ["1", "1", "2", "3", "1", "4", "4", "2", "6"]
    actions = page.split('id="action-costs"')[1].split("</table>")[0]
    assert "66.7" not in actions
    assert "50.0" in actions  # three of six: siren where nothing was right


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("site=lake", ["lake-1"]),
        ("window=night", []),
        ("human=bear", ["missed"]),
        ("model=bear", ["false-1", "false-2", "lake-1"]),
        ("cost=1", ["false-1", "false-2", "missed", "lake-1"]),
        ("cost=2", []),
        ("version=v9", []),
        ("since=2027-06-02", []),
        ("until=2027-06-01", ["false-1", "false-2", "missed", "lake-1"]),
        ("since=2027-06-01&until=2027-06-01&site=creek&human=none", ["false-1", "false-2"]),
        ("work=done", []),
        ("work=open", ["false-1", "false-2", "missed", "lake-1"]),
    ],
)
def test_each_part_of_the_filter_filters_and_stays_in_the_form(browser, told, query, found):
    page = browser.as_("vic").page(f"{HERE}?{query}")
    assert rows(page) == found
    for part in query.split("&"):
        value = part.partition("=")[2]
        assert f'value="{value}"' in page or f"selected>{value}<" in page


@pytest.mark.slow
def test_slices_that_the_policy_names_can_be_chosen(browser, service, clock):
    sliced(service.database)
    judged(service.database, "a", "bear", "none", attributes={"camera": "north"})
    judged(service.database, "b", "bear", "none", attributes={"camera": "south", "fog": "yes"})
    clock.advance(CLOSED - NOON)
    count(service.database)
    browser.as_("ana")
    assert rows(browser.page(HERE)) == ["a", "b"]
    page = browser.page(f"{HERE}?is+camera=south")
    assert rows(page) == ["b"]
    assert '<option value="south" selected>' in page
    assert ">fog</label>" not in page
    assert rows(browser.page(f"{HERE}?is+fog=yes")) == ["b"]
    assert rows(browser.page(f"{HERE}?is+moon=full")) == []
    assert "cost 2 calls" in browser.page(HERE)


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("since=yesterday", "since", "Write a day as"),
        ("until=9999-12-31", "until", "Write a day as"),
        ("since=2027-06-03&until=2027-06-02", "since", "not after the last day"),
        ("since=2028-01-01", "since", "is not before"),
        ("until=2026-01-01", "since", "let the span end after it"),
        ("cost=dear", "cost", "Write a cost"),
    ],
)
def test_a_filter_that_means_nothing_comes_back_with_what_was_typed(
    browser, told, query, field, says
):
    page = browser.as_("ana").page(f"{HERE}?{query}&site=creek", 422)
    assert "<title>Error: " in page
    assert says in page
    assert f'href="#{field}"' in page
    assert f'id="{field}-error"' in page
    assert '<option value="creek" selected>' in page
    for part in query.split("&"):
        assert part.partition("=")[2] in page


@pytest.mark.slow
def test_a_long_list_comes_in_pages_that_say_where_they_are(browser, service, clock):
    for n in range(30):
        judged(service.database, f"c{n:02}", "bear", "none", sure=0.5 + n / 100)
    clock.advance(CLOSED - NOON)
    count(service.database)
    page = browser.as_("ana").page(HERE)
    assert "1–25 of 30" in page
    assert rows(page)[0] == "c29"
    further = re.search(r'href="/console([^"]+after=[^"]+)#list">Show the next 5<', page)[1]
    rest = browser.page(further.replace("&amp;", "&"))
    assert "26–30 of 30" in rest
    assert rows(rest) == ["c04", "c03", "c02", "c01", "c00"]
    assert "Back to the costliest" in rest
    assert "Show the next" not in rest


def test_nobody_without_a_right_to_read_comes_in(browser, told):
    browser.as_("rita").page(HERE, 403)
    browser.page(f"{HERE}.csv", 403)
    browser.page("/rollouts/bears/training", 403)
    browser.page("/rollouts/bears/training/manifest", 403)
    browser.as_("ana").page("/rollouts/wolves/divergences", 404)
    assert "You have no permission to read a rollout" in browser.as_("rita").page("/divergences")


def test_the_table_is_in_the_form_of_a_reports_and_holds_the_filter(browser, told):
    judged(told.database, "=1+1", "bear", "none", sure=0.99)
    count(told.database)
    answer = browser.as_("vic").get(f"/console{HERE}.csv?site=creek&model=bear")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert 'filename="divergences.csv"' in answer.headers["content-disposition"]
    table = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["case_key"] for row in table] == ["'=1+1", "false-1", "false-2"]
    assert table[1]["human_action"] == "nothing"
    assert browser.get(f"/console{HERE}.csv?since=x").status_code == 422


@pytest.mark.slow
def test_rows_to_train_on_are_the_bytes_of_the_api(browser, told):
    browser.as_("vic")
    for form in ("jsonl", "csv"):
        ours = browser.get(f"/console/rollouts/bears/training?form={form}")
        theirs = browser.get(f"/v1/rollouts/bears/training?format={form}")
        assert ours.content == theirs.content != b""
        assert ours.headers["etag"] == theirs.headers["etag"]
        assert ours.headers["content-disposition"] == theirs.headers["content-disposition"]
    ours = browser.get("/console/rollouts/bears/training/manifest")
    assert ours.content == browser.get("/v1/rollouts/bears/training/manifest").content
    assert browser.get("/console/rollouts/bears/training?form=exe").status_code == 422


@pytest.mark.slow
def test_markup_in_keys_attributes_reasons_and_filters_is_text(browser, service, clock):
    sliced(service.database)
    nasty = {"camera": NASTY, NASTY: "x", "<b>lens</b>": "<u>"}
    judged(service.database, NASTY, "bear", "none", attributes=nasty, episode=NASTY)
    clock.advance(CLOSED - NOON)
    count(service.database)
    page = browser.as_("ana").page(HERE)
    chosen = fields(page) | {"choice-0": "keep", "reason-0": NASTY}
    assert browser.submit(HERE, on=HERE, **chosen).status_code == 303
    typed = "%22%3E%3Cscript%3Ealert(1)"
    for path in (HERE, f"{HERE}?site={typed}&is+camera={typed}&human={typed}&cost={typed}"):
        text = browser.get(f"/console{path}").text
        assert "alert" in text
        for markup in ("<script>", "<img src=x", "<u>", "<b>lens"):
            assert markup not in text


def test_markup_in_labels_and_actions_is_text(browser, service, clock):
    apply_policy(
        service.database, MARKED, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32)
    )
    for_tags(service.database, "c1", "<i>no</i>", "<i>yes</i>")
    clock.advance(CLOSED - NOON)
    count(service.database)
    page = browser.as_("ana").page("/rollouts/tags/divergences")
    assert "&lt;i&gt;yes&lt;/i&gt;" in page
    assert "&lt;s&gt;ring" in page
    assert "<i>" not in page
    assert "<s>" not in page


def test_pictures_stand_in_the_page_only_where_its_policy_lets_them(browser, service, clock):
    links = {
        "web": "https://pictures.example/a.jpg?x=1&y=2",
        "plain": "http://pictures.example/b.jpg",
        "code": "javascript:alert(1)",
        "own": "data:text/html,<script>alert(1)</script>",
        "dot": "data:image/png;base64,iVBORw0KGgo=",
    }
    for key, link in links.items():
        judged(service.database, key, "bear", "none", media={"still": link})
    clock.advance(CLOSED - NOON)
    count(service.database)
    page = browser.as_("ana").page(HERE)
    found = {key: page.split(f'cases/{key}"')[0].rsplit("<tr", 1)[1] for key in links}
    assert 'src="https://pictures.example/a.jpg?x=1&amp;y=2"' in found["web"]
    assert 'href="http://pictures.example/b.jpg" rel="noreferrer"' in found["plain"]
    assert "<img" not in found["plain"]
    assert 'src="data:image/png;base64,' in found["dot"]
    for key in ("code", "own"):
        assert "No picture" in found[key]
    assert "javascript:" not in page
    assert "data:text" not in page


@pytest.mark.slow
def test_an_empty_list_says_why_and_what_to_do(browser, service, clock):
    clock.advance(CLOSED - NOON)
    count(service.database)
    page = browser.as_("ana").page(HERE)
    assert "No case of v1 could be compared here" in page
    assert "check Review for pending cases" in page
    judged(service.database, "same", "bear", "bear")
    count(service.database)
    page = browser.page(HERE)
    assert "gave the same answer to all 1 compared case" in page
    page = browser.page(f"{HERE}?site=moon")
    assert "could be compared here" in page
    assert "Clear the filter" in page
    some(service.database)
    count(service.database)
    assert "Remove a part of the filter" in browser.page(f"{HERE}?cost=9")


def test_a_rollout_in_which_no_version_was_seen_says_so(browser, service):
    other = POLICY.replace("rollout: bears", "rollout: empty")
    apply_policy(
        service.database, other, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32)
    )
    page = browser.as_("ana").page("/rollouts/empty/divergences")
    assert "No model version has sent predictions yet" in page


@pytest.mark.slow
def test_numbers_differ_beyond_their_tolerance_and_have_no_matrix(browser, service, clock):
    apply_policy(
        service.database, SCALES, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32)
    )
    for key, model in (("near", "10.5"), ("far", "17"), ("low", "8"), ("lower", "7")):
        for_tags(service.database, key, model, "10", rollout="scales")
    clock.advance(CLOSED - NOON)
    count(service.database)
    here = "/rollouts/scales/divergences"
    page = browser.as_("ana").page(here)
    assert re.findall(r"cases/(\w+)\"", page) == ["far", "low", "lower"]
    assert "10 kg" in page
    assert "17 kg" in page
    assert "1 of 4 compared cases lie within the tolerance, 2 below it and 1 above it." in page
    assert "differ by more than the tolerance." in page
    assert re.search(r"kind: numbers of v1 above the tolerance \(1 case, 4 points\)", page)
    assert '<table class="matrix"' not in page
    found = fields(page) | {"choice-0": "relabel", "label-0": "12.5"}
    assert browser.submit(here, on=here, **found).headers["location"].endswith("?saved=1")
    assert "Relabel as 12.5, by ana" in browser.page(here)


@pytest.mark.slow
def test_sets_differ_below_their_overlap_and_are_relabelled_as_text(browser, service, clock):
    apply_policy(service.database, SETS, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    models = {"same": "nike;puma", "near": "nike", "far": "ikea;nike", "no": "ikea"}
    for key, model in models.items():
        for_tags(service.database, key, model, "nike;puma", rollout="sponsors")
    clock.advance(CLOSED - NOON)
    count(service.database)
    here = "/rollouts/sponsors/divergences"
    page = browser.as_("ana").page(here)
    assert sorted(re.findall(r"cases/(\w+)\"", page)) == ["far", "no"]
    assert "nike;puma" in page
    assert '<table class="matrix"' not in page
    found = fields(page) | {"choice-0": "relabel", "label-0": "ikea;puma"}
    assert browser.submit(here, on=here, **found).headers["location"].endswith("?saved=1")
    assert "Relabel as ikea;puma, by ana" in browser.page(here)
    ana = load_local_caller(service.database, "ana")
    (found,) = load_version_confusion(service, ana, "sponsors", "v1").items
    assert (found.agreement.count, found.agreement.n, found.label_matrix) == (2, 4, None)


def test_the_service_keeps_to_the_sites_that_a_caller_reads(told):
    cleo, vic = (load_local_caller(told.database, name) for name in ("cleo", "vic"))
    asked = DivergenceQuery(since=AT - timedelta(hours=1))
    mine = load_divergence_page(told.database, cleo, "bears", asked, CLOSED)
    assert (mine.count, mine.compared, mine.filter_options.sites) == (3, 4, ("creek",))
    whole = load_divergence_page(told.database, vic, "bears", asked, CLOSED)
    assert (whole.count, whole.compared, whole.filter_options.sites) == (4, 6, ("creek", "lake"))


def test_the_page_says_what_is_left_out_and_how_far_back_it_reaches(browser, told, monkeypatch):
    page = browser.as_("vic").page(HERE)
    assert "Reviewers may still decide open cases blind." in page.replace("\n", " ")
    assert "back to" not in page
    judged(told.database, "newer", "bear", "none", at=AT + timedelta(days=1))
    count(told.database)
    monkeypatch.setattr("rollout.features.divergences.divergence_list.MAX_COMPARED_UNITS", 1)
    page = browser.page(HERE)
    assert rows(page) == ["newer"]
    assert "here back to 2 Jun 2027; 1 of them have a blind decision and are compared" in page
    monkeypatch.undo()
    assert "back to" not in browser.page(HERE)
