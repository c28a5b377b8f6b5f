"""The page that declares planted cases: for admins, with a reason, before anything is sent."""

from pathlib import Path

import pytest

from api.records.pages import list_planted_conditions
from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.records import RecordStore
from rollout.engine.events import CasesPlanted
from rollout.engine.records.records import Case
from rollout.features.records.planted_cases import MAX_CASES
from rollout.kernel.policy_files.reader import parse_policy
from tests.factories import NOON
from tests.page_text import collapse_space

EXAMPLES = Path(__file__).parents[3] / "examples"
PATH = "/rollouts/bears/settings/planted-cases"
KEYS = "bear-01\r\n  bear-02 \r\n\r\nbear-01"
REASON = "two recorded scenarios"


def list_declarations(service):
    with service.database.begin_read() as transaction:
        ledger = Ledger(transaction, Rollouts(transaction).find("bears"))
        return [event for event in ledger.list_events() if isinstance(event, CasesPlanted)]


def store_case(service, key):
    case = Case(key=key, site="creek", occurred_at=NOON, window="day")
    with service.database.begin_write() as transaction:
        rollout = Rollouts(transaction).find("bears")
        RecordStore(transaction, rollout).store([case], received_at=NOON)


def test_an_admin_declares_cases_and_sees_how_many_are_new(browser, service):
    browser.as_("ada")
    assert PATH in browser.page("/rollouts/bears/settings")
    assert "No gate requires planted cases" in browser.page(PATH)
    text = collapse_space(browser.submit(PATH, 200, keys=KEYS, reason=REASON).text)
    assert "2 cases declared as planted. Now send them" in text
    (event,) = list_declarations(service)
    assert (event.by, event.cases, event.reason) == ("ada", 2, REASON)
    answer = browser.submit(PATH, 200, keys="bear-02\nbear-03", reason=REASON)
    again = collapse_space(answer.text)
    assert "1 case declared as planted, 1 was before." in again
    assert [event.cases for event in list_declarations(service)] == [2, 1]


@pytest.mark.parametrize(
    ("keys", "reason", "words"),
    [
        (KEYS, "", "Write a reason: the ledger keeps it with the declaration"),
        (KEYS, "a\0b", "contains a NUL character"),
        (" \n", REASON, "Give the keys that the records will have, one a line"),
        ("k" * 201, REASON, "a key has 1 to 200 letters"),
        ("\n".join(map(str, range(MAX_CASES + 1))), REASON, "at most 1,000 cases at once"),
        (f"{KEYS}\nsent", REASON, "Refused: records of sent came before"),
    ],
)
def test_a_refused_declaration_says_why_and_keeps_what_was_typed(
    browser, service, keys, reason, words
):
    store_case(service, "sent")
    text = browser.as_("ada").submit(PATH, 422, keys=keys, reason=reason).text
    assert words in text
    assert keys.strip().split("\r\n")[-1] in text
    assert list_declarations(service) == []


@pytest.mark.parametrize("name", ["ana", "rita", "vic"])
def test_none_but_admins_declare(browser, service, name):
    browser.as_(name).page(PATH, 403)
    browser.submit(PATH, 403, on="/settings", keys=KEYS, reason=REASON)
    assert list_declarations(service) == []
    assert browser.page("/rollouts/bears/settings", 403 if name == "rita" else 200).count(PATH) == 0


@pytest.mark.slow
def test_the_page_names_what_gates_require():
    policy = parse_policy((EXAMPLES / "bears/policy.yaml").read_text(encoding="utf-8"))
    (text,) = list_planted_conditions(policy)
    assert text.startswith("supervised: recall of bear ")
    assert "of planted cases at least" in text
