"""The page of a rollout's traffic, and the same over HTTP."""

import re

import pytest

from rollout.core.records.records import Action, Prediction
from rollout.core.scope.event_base import ENGINE
from rollout.core.scope.record_events import RecordsPurged
from rollout.services.access.users import load_local_caller
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.erasure.case_erasure import erase_case
from rollout.services.erasure.erasure import ErasureRequest
from rollout.store.ledger.ledger import Ledger
from tests.console.conftest import Browsing
from tests.console.told_cases import case, mia, tell
from tests.factories import HOUR, MINUTE, NOON

ON_BOTH_ENGINES = True
PATH = "/rollouts/bears/traffic"


def send(service, n, *, by=None, site="creek", at=NOON + HOUR):
    key = f"{site}-{n}"
    answers = {"alarm": "bear"}
    prediction = Prediction(key=key, version="v1", answers=answers, at=at, decider="human")
    records = [case(key, site=site, at=at), prediction]
    if by:
        done = {"lever": "alarm", "action": "siren", "by": by, "at": at}
        records.append(Action(key=key, permission="authorized", version="v1", **done))
    tell(service.database, *records, at=at)


def read_text(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


@pytest.mark.slow
def test_a_viewer_reads_cases_an_hour_and_the_share_of_the_model(browser: Browsing, service, clock):
    for n in range(6):
        send(service, n, by="model" if n % 2 else None)
    clock.advance(HOUR + MINUTE)
    page = browser.as_("vic").page(PATH)
    text = read_text(page)
    assert "6 cases of the last hour arrived, from 1 of 2 sites." in text
    assert "The model decided 50.0 % (3 of 6) of those with a known decider." in text
    assert "creek 6 6.0 50.0 % (3 of 6) lake 0 0.0 –" in text
    assert "1 Jun 2027 6 0.5 50.0 % (3 of 6)" in text
    assert re.search(r"creek: 6 cases, 0\.0 an hour; the model decided 50\.0 % \(3 of 6\)", text)
    assert "lake: no cases" in text
    assert 'href="/console/rollouts/bears/traffic"' in browser.page("/rollouts/bears")
    body = browser.get("/v1/rollouts/bears/traffic").json()
    creek, lake = body["sites"]
    assert (creek["last_hour"]["cases"], creek["last_hour"]["decided_by_model"]) == (6, 3)
    assert creek["days"][-1]["model_share"] == 0.5
    assert lake["days"][-1]["model_share"] is None
    assert len(creek["days"]) == 14


def test_who_may_review_learns_of_no_single_case_who_decided_it(browser, service, clock):
    mia(service)
    for n in range(19):
        send(service, n, by="model")
    clock.advance(3 * 24 * HOUR)
    text = read_text(browser.as_("mia").page(PATH))
    assert "counts the closed cases of a day in batches of 20" in text
    assert "1 Jun 2027 19 0.8 –" in text
    send(service, 19, by="model")
    assert "1 Jun 2027 20 0.8 100 % (20 of 20)" in read_text(browser.page(PATH))


def test_a_reader_of_one_site_is_told_of_that_site_alone(browser, service, clock):
    send(service, 0)
    send(service, 1, site="lake")
    clock.advance(HOUR + MINUTE)
    page = browser.as_("cleo").page(PATH)
    assert "1 case of the last hour arrived, from 1 of 1 site." in page
    assert "lake" not in page
    browser.as_("rita").page(PATH, 403)


def test_the_page_names_purged_days_and_erased_cases(browser, service, clock):
    for n in range(3):
        send(service, n, by="model")
    ada = load_local_caller(service.database, "ada")
    erase_case(service.database, ErasureRequest(ada, "bears", "wished", NOON + HOUR), "creek-2")
    purged = RecordsPurged(at=NOON, by=ENGINE, before=NOON, tables=("cases",), counts=(3,))
    with service.database.begin_write() as transaction:
        state = load_rollout_state(transaction, "bears")
        Ledger(transaction, state.rollout).append([purged], after=state.scope.revision)
    clock.advance(24 * HOUR)
    text = read_text(browser.as_("vic").page(PATH))
    assert "Records from before Tue 1 Jun 2027 12:00 UTC were deleted" in text
    assert "1 case erased on request in these days may be missing from the figures." in text
    assert "2 Jun 2027 0 0.0 – 1 Jun 2027 2, others deleted – 100 % (2 of 2)" in text
    assert "31 May 2027 deleted – – 30 May 2027 deleted" in text
    assert "erased" not in read_text(browser.as_("cleo").page(PATH))
