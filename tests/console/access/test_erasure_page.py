"""The page of erasures: for admins, with a reason, and final."""

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.records import RecordStore
from rollout.engine.events import CasesErased
from rollout.engine.records.records import Case
from tests.factories import NOON

FORM = {"kind": "case", "rollout": "bears", "reason": "request 12", "final": "yes"}
PATH = "/settings/erasures"


def list_erasures(service):
    with service.database.begin_read() as transaction:
        ledger = Ledger(transaction, Rollouts(transaction).find("bears"))
        return [event for event in ledger.list_events() if isinstance(event, CasesErased)]


def store_case(service):
    case = Case(key="kestrel", site="creek", occurred_at=NOON, window="day")
    with service.database.begin_write() as transaction:
        rollout = Rollouts(transaction).find("bears")
        RecordStore(transaction, rollout).store([case], received_at=NOON)
    return case.key


def test_an_admin_erases_a_case_and_is_told_what_went(browser, service):
    key = store_case(service)
    answer = browser.as_("ada").submit(PATH, 200, **FORM, key=key)
    assert "1 case erased" in answer.text
    assert key not in answer.text
    (event,) = list_erasures(service)
    assert (event.by, event.reason) == ("ada", "request 12")
    again = browser.submit(PATH, 200, **FORM, key=key)
    assert "it was erased before" in again.text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"key": "osprey"}, "has no case osprey"),
        ({"key": "osprey", "final": None}, "tick that this is final"),
        ({"key": "osprey", "reason": ""}, "give a reason"),
        ({"key": "osprey", "kind": "user"}, "is called osprey"),
        ({"key": "osprey", "kind": "all"}, "choose what to erase"),
    ],
)
def test_a_refused_erasure_says_why_and_keeps_what_was_typed(browser, service, fields, words):
    form = {name: value for name, value in (FORM | fields).items() if value is not None}
    text = browser.as_("ada").submit(PATH, 422, **form).text
    assert words in text.replace("&#39;", "'").lower() or words in text
    assert 'value="osprey"' in text
    assert list_erasures(service) == []


@pytest.mark.parametrize("name", ["ana", "rita"])
def test_none_but_admins_erase(browser, service, name):
    browser.as_(name).page(PATH, 403)
    browser.submit(PATH, 403, on="/settings", **FORM, key=store_case(service))
    assert list_erasures(service) == []


def test_the_page_says_who_is_missing_since_a_user_was_erased(browser, service):
    form = {**FORM, "kind": "user"}
    page = browser.as_("ada").submit(PATH, 200, **form, key="vic")  # a viewer
    assert "Users are missing" not in page.text
    page = browser.submit(PATH, 200, **form, key="sue")  # the only one of safety
    assert "Users are missing since then" in page.text
    assert "no user is in the group safety" in page.text
