"""One case explained in words, the newest ones, the search; what is kept back stays so."""

import re
from datetime import timedelta
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from msgspec.structs import replace

from api.records import case_text
from api.records.case_text import build_case_path, explain_uncounted
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import ExposureStore
from rollout.engine.records.records import Action, Decision, Outcome, Prediction
from rollout.engine.records.reviews import CleaningChoiceRequest
from rollout.features.access.users import load_local_caller
from rollout.features.divergences.case_explanation import load_case_explanation
from rollout.features.reviews.reviews import open_reviews
from rollout.features.training.cleaning import store_choices
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.api import bears
from tests.console.told_cases import (
    AT,
    CLOSED,
    NASTY,
    asked_again,
    case,
    judged,
    mia,
    some,
    tell,
    verdict,
)
from tests.factories import NOON

CASES = "/rollouts/bears/cases"
KEYS = ("a/b c?", "..", ".", "%2F", "ü🐻", "x&y=z#w", "'\"<b>", "line\nend")


def plain(page):
    """Return the words of a page's main part, with spaces as they read."""
    main = page.split("<main")[1].split("</main>")[0]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", main)).replace("\u00a0", " ")


def acted(key="c1", by="model", permission="authorized", revision=2, **more):
    return Action(
        key=key,
        lever="alarm",
        action="siren",
        by=by,
        at=AT,
        permission=permission,
        scope_revision=revision,
        **more,
    )


@pytest.mark.slow
def test_a_case_is_explained_in_words(browser, service, clock):
    judged(service.database, "c1", "bear", "none", attributes={"camera": "north"})
    tell(
        service.database,
        acted(by="person", permission="not_required", revision=None),
        Outcome(key="c1", at=AT, answers={"alarm": "bear"}, harm="torn tent", source="ranger"),
    )
    clock.advance(CLOSED - NOON)
    Ticker(service.database, "bears", "one").tick(CLOSED)
    ana = load_local_caller(service.database, "ana")
    wish = CleaningChoiceRequest(key="c1", choice="relabel", label="bear", reason="ears")
    store_choices(service.database, ana, "bears", [wish], CLOSED)
    said = plain(browser.as_("vic").page(f"{CASES}/c1"))
    for part in (
        "A human decided: siren.",
        "creek · day",
        "camera north",
        "Humans decided (shadow: a human decides).",
        ": the last one before the case.",
        "A human acted; that needs no permit.",
        "v1 bear 90.0 %",
        "rita none blind: had seen no model answer",
        "bear, harm: torn tent",
        "by ranger",
        "for gates, when its unit closed",
        "for guards, when the decision came",
        "Relabel as bear (this holds), by ana",
        "“ears”",
        "The service received it.",
        "ana chose for training: relabel as bear.",
    ):
        assert part in said, part
    for name in ("occurred_at", "scope_revision", "not_required", "None", "gate track"):
        assert name not in said


def test_a_case_says_who_registered_it(browser, service):
    tell(service.database, case("c1"), sender="file:3fe1")
    tell(service.database, case("c2"))
    assert "Registered by imports" in plain(browser.as_("vic").page(f"{CASES}/c1"))
    assert "Registered by" not in plain(browser.page(f"{CASES}/c2"))


def test_a_case_of_the_model_tells_stage_draw_share_and_permit(browser, service, clock):
    bears.widened(service.database, NOON)
    bears.tick(service.database, NOON + timedelta(minutes=30))
    said = Prediction(key="c1", version="v1", answers={"alarm": "bear"}, at=AT, scope_revision=99)
    tell(service.database, case("c1"), said, acted(version="v1", revision=99))
    clock.advance(CLOSED - NOON)
    told = plain(browser.as_("vic").page(f"{CASES}/c1"))
    assert "v1 decided: siren." in told
    assert "Humans decided (a human confirms). v1 was supervised there." in told
    assert re.search(
        r"Sampling treats 50.0 % of all units like this one \(sampling value 0\.\d{4}\)",
        told,
    )
    assert "Authorized: the scope at that time assigned the case to this version." in told
    assert "Its permit is of revision 99." in told
    assert "It is not counted yet. It has closed, so the next tick counts it." in told


def test_an_act_without_permission_is_told_in_words_and_not_by_colour_alone(browser, service):
    tell(
        service.database, case("c1"), acted(version="v1", permission="unauthorized", revision=None)
    )
    told = plain(browser.as_("vic").page(f"{CASES}/c1"))
    assert "Unauthorized Unauthorized: nothing in the scope allowed it." in told


@pytest.mark.slow
def test_a_case_that_somebody_may_judge_shows_them_nothing_of_what_was_said(browser, service):
    mia(service)
    database = service.database
    tell(database, case("open"), Prediction(key="open", version="v1", answers={"alarm": "bear"}))
    tell(database, acted("open", version="v1"), Outcome(key="open", at=AT, harm="torn"))
    with database.begin_write() as transaction:
        open_reviews(transaction, load_rollout_state(transaction, "bears"), [case("open")], AT)
    page = browser.as_("mia").page(f"{CASES}/open")
    told = plain(page)
    assert "You may still be asked to decide this case." in told
    assert "are hidden from you until" in told
    for secret in ("v1", "bear ", "siren", "torn", "shadow", "sampling value"):
        assert secret not in told.replace("bears", ""), secret
    listed = plain(browser.page(CASES))
    assert "open creek · day" in listed
    assert "Hidden: you may decide it" in listed
    assert "v1" not in listed
    assert noted(service, "mia", "open") == frozenset()
    story = load_case_explanation(
        database, load_local_caller(database, "mia"), "bears", "open", NOON
    )
    assert (story.assignment, story.choices, story.case_details.counted_units) == (None, (), ())
    assert "v1" in plain(browser.as_("vic").page(f"{CASES}/open"))


def noted(service, name, key):
    with service.database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "bears").rollout
        number = ExternalKeys(transaction, rollout).find_ids([key])[key]
        return (
            ExposureStore(transaction, rollout)
            .list_for_reviewer(name, {number})
            .get(number, frozenset())
        )


def test_reading_a_case_is_noted_as_by_the_api(browser, service, clock):
    some(service.database)
    mia(service)
    clock.advance(CLOSED - NOON)
    browser.as_("mia").page(f"{CASES}/missed")
    assert noted(service, "mia", "missed") == {("prediction", "case"), ("decisions", "case")}
    browser.page(CASES)
    assert ("prediction", "cases") in noted(service, "mia", "lake-1")


def test_choices_about_a_case_that_is_judged_again_are_kept_from_all(browser, service, clock):
    some(service.database)
    clock.advance(CLOSED - NOON)
    ana = load_local_caller(service.database, "ana")
    store_choices(
        service.database, ana, "bears", [CleaningChoiceRequest(key="missed", choice="drop")], CLOSED
    )
    assert "exclude from training" in browser.as_("vic").page(f"{CASES}/missed")
    asked_again(service, "missed", CLOSED)
    assert "exclude from training" not in browser.page(f"{CASES}/missed")


def test_a_draw_is_told_once_the_case_has_closed(browser, service, clock):
    bears.widened(service.database, NOON)
    said = Prediction(key="c1", version="v1", answers={"alarm": "bear"}, at=AT, scope_revision=99)
    tell(service.database, case("c1"), said)
    assert "(sampling value " not in browser.as_("vic").page(f"{CASES}/c1")
    clock.advance(CLOSED - NOON)
    assert "(sampling value " in browser.as_("vic").page(f"{CASES}/c1")


@pytest.mark.parametrize("key", KEYS)
def test_whatever_a_key_holds_it_is_found_by_search_and_by_link(browser, service, key):
    tell(service.database, case(key))
    browser.as_("vic")
    found = browser.page(f"{CASES}?key={quote(key, safe='')}")
    assert "<h1>Case" in found
    link = re.search(r'scope="row"><a href="([^"]+)"', browser.page(CASES))[1].replace("&amp;", "&")
    assert "<h1>Case" in browser.page(link.removeprefix("/console"))


@pytest.mark.parametrize("key", ["none", "x" * 900, "a%00b", "<script>", "%ED%A0%80", "a/b/c"])
def test_a_key_that_is_not_there_gets_a_clear_page_with_the_search(browser, service, key):
    page = browser.as_("vic").page(f"{CASES}/{key}", 404)
    assert "No such case" in page
    assert 'role="search"' in page
    assert "<script>" not in page


def test_a_case_of_a_site_that_somebody_does_not_read_is_not_there_for_them(browser, service):
    some(service.database)
    assert "No such case" in browser.as_("cleo").page(f"{CASES}/lake-1", 404)
    listed = browser.page(CASES)
    assert "lake-1" not in listed
    assert "missed" in listed


def test_who_may_not_read_cases_is_refused_and_told_nothing(browser, service):
    some(service.database)
    assert "missed" not in browser.as_("rita").page(f"{CASES}/missed", 403)
    browser.page(CASES, 403)
    browser.as_("vic").page("/rollouts/wolves/cases", 404)
    browser.page("/rollouts/wolves/cases/missed", 404)


def test_the_newest_cases_come_in_pages(browser, service):
    for n in range(30):
        tell(service.database, case(f"c{n:02}"))
    page = browser.as_("vic").page(CASES)
    keys = r'cases/(c\d\d)"'
    assert re.findall(keys, page) == [f"c{n:02}" for n in range(29, 4, -1)]
    further = re.search(r'href="/console([^"]+after=[^"]+)">Show earlier ones', page)[1]
    rest = browser.page(further)
    assert re.findall(keys, rest) == ["c04", "c03", "c02", "c01", "c00"]
    assert "Back to the newest" in rest
    assert rest.count("Not compared yet") == 5
    assert "No difference" not in rest
    browser.page(f"{CASES}?after=%25", 422)


def test_a_case_that_nobody_answered_shows_no_difference_and_no_agreement(browser, service):
    for key in ("predicted", "unsure"):
        answer = Prediction(key=key, version="v1", answers={"alarm": "bear"}, at=AT, confidence=0.9)
        tell(service.database, case(key), answer)
    unsure = Decision(key="unsure", reviewer="rita", answers={}, exposure="blind", submitted_at=AT)
    tell(service.database, unsure)
    page = browser.as_("vic").page(CASES)
    assert page.count("Not compared yet") == 2
    assert "No difference" not in page
    judged(service.database, "answered")
    assert browser.page(CASES).count("No difference so far") == 1


def test_cases_have_pictures_and_a_state_and_are_filtered(browser, service, clock):
    media = {"still": "https://pictures.example/a.jpg"}
    tell(service.database, case("c1"), case("c2", site="lake", media=media))
    page = browser.as_("vic").page(CASES)
    assert 'src="https://pictures.example/a.jpg" alt="Picture of c2"' in page
    assert page.count("Open</td>") == 2
    found = re.compile(r'cases/(c\d)"')
    assert found.findall(browser.page(f"{CASES}?site=lake")) == ["c2"]
    assert found.findall(browser.page(f"{CASES}?window=night")) == []
    assert found.findall(browser.page(f"{CASES}?since=2027-06-01&until=2027-06-01")) == ["c2", "c1"]
    assert "No case matches." in browser.page(f"{CASES}?since=2027-06-02")
    assert "No case matches." in browser.page(f"{CASES}?answers=differ")
    tell(service.database, Outcome(key="c2", at=NOON, harm="fall"))
    assert found.findall(browser.page(f"{CASES}?outcome=harm")) == ["c2"]
    wrong = browser.page(f"{CASES}?until=soon&site=lake", 422)
    assert "Write a day as YYYY-MM-DD" in wrong
    assert 'value="soon"' in wrong
    clock.advance(CLOSED - NOON)
    assert browser.as_("vic").page(CASES).count("Closed</td>") == 2


def test_the_filter_tells_a_reviewer_nothing_of_what_they_may_judge(browser, service):
    mia(service)
    database = service.database
    tell(database, case("open"), Prediction(key="open", version="v1", answers={"alarm": "bear"}))
    with database.begin_write() as transaction:
        open_reviews(transaction, load_rollout_state(transaction, "bears"), [case("open")], AT)
    tell(database, verdict("open", "none", by="bo"))
    assert "cases/open" in browser.as_("vic").page(f"{CASES}?answers=differ")
    page = plain(browser.as_("mia").page(f"{CASES}?answers=differ"))
    assert "No case matches." in page


def test_an_empty_rollout_says_what_to_do(browser):
    assert "No cases yet" in browser.as_("vic").page(CASES)


def test_markup_in_every_field_of_a_case_is_text(browser, service, clock):
    told = {"camera": NASTY, NASTY: "x", "page": "data:text/html,<script>"}
    media = {NASTY: "https://pictures.example/a.jpg", "code": "javascript:alert(2)"}
    judged(service.database, "c1", episode=NASTY, attributes=told, media=media, by=NASTY)
    failed = Prediction(key="c1", version=NASTY, answers={"alarm": None}, error=NASTY)
    out = Outcome(key="c1", at=AT, harm=NASTY, source=NASTY)
    noted_by = verdict("c1", "bear", by="bo", note=NASTY)
    done = replace(acted(), action=NASTY, version=NASTY)
    tell(service.database, failed, out, noted_by, done)
    clock.advance(CLOSED - NOON)
    page = browser.as_("vic").page(f"{CASES}/c1")
    assert page.count("&lt;script&gt;alert") > 8
    for markup in ("<script>", "<img src=x", "javascript:", "data:text"):
        assert markup not in page
    assert 'src="https://pictures.example/a.jpg"' in page


def test_words_of_several_levers_name_each():
    both = [acted(by="person"), replace(acted(version="v1"), lever="gate")]
    assert (
        case_text.describe_actions(both)
        == "A human decided: siren (alarm); v1 decided: siren (gate)"
    )
    assert build_case_path("a b", "x/y") == "/rollouts/a%20b/cases/x%2Fy"


@pytest.mark.parametrize(
    ("predictions", "is_counted_by_episode", "text"),
    [
        ((), True, "It is not counted: no version has answered"),
        (("v1",), False, "so the next tick counts it."),
        (("v1",), True, "or another case of the episode is counted."),
    ],
)
def test_a_closed_case_without_a_count_says_what_counts_instead(
    predictions, is_counted_by_episode, text
):
    story = SimpleNamespace(
        assignment="one",
        case_details=SimpleNamespace(predictions=predictions),
        is_counted_by_episode=is_counted_by_episode,
    )
    assert text in explain_uncounted(story, still_open=False)
