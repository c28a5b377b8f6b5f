"""Divergences judged in one form, by permitted users, and noted as shown."""

from datetime import timedelta

import pytest

from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import ExposureStore
from rollout.data.reviews.reviews import CleaningStore
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access.users import load_local_caller
from rollout.features.reviews.reviews import claim_reviews
from rollout.live.rollout_state import load_rollout_state
from tests.console.divergences.divergence_rows import HERE, count, fields, row_of, rows
from tests.console.told_cases import (
    CLOSED,
    asked_again,
    judged,
    mia,
    newcomer,
)
from tests.page_text import collapse_space

pytestmark = pytest.mark.slow


@pytest.fixture
def told(told):
    """Return it with everything counted that has closed."""
    count(told.database)
    return told


def choices(service):
    with service.database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "bears")
        return [one.choice for one in CleaningStore(transaction, stood.rollout).list_page()]


def shown_to(service, name, key):
    with service.database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "bears").rollout
        number = ExternalKeys(transaction, rollout).find_ids([key])[key]
        store = ExposureStore(transaction, rollout)
        return store.list_for_reviewer(name, {number}).get(
            number, frozenset()
        ), store.load_figures_until(name)


def test_judgements_of_several_rows_are_saved_at_once_and_the_filter_stays(browser, told):
    page = browser.as_("ana").page(f"{HERE}?site=creek")
    chosen = fields(
        page,
        missed=("relabel", "none", "a bush"),
        false_1=("drop", "", ""),
        false_2=("", "none", "not chosen"),
    )
    answer = browser.submit(f"{HERE}?site=creek", on=f"{HERE}?site=creek", **chosen)
    assert answer.headers["location"] == f"/console{HERE}?site=creek&saved=2"
    found = {(one.key, one.choice, one.label, one.reason, one.by) for one in choices(told)}
    assert found == {
        ("missed", "relabel", "none", "a bush", "ana"),
        ("false-1", "drop", None, "", "ana"),
    }
    assert {one.version for one in choices(told)} == {"v1"}
    page = browser.page(f"{HERE}?saved=2&work=done")
    assert "2 choices saved." in page
    assert "Relabel as none, by ana: “a bush”" in page
    assert set(rows(page)) == {"missed", "false-1"}
    assert set(rows(browser.page(f"{HERE}?work=open"))) == {"false-2", "lake-1"}


def test_what_is_refused_comes_back_as_it_was_typed_and_its_neighbour_is_saved(browser, told):
    page = browser.as_("ana").page(HERE)
    chosen = fields(page, missed=("relabel", "", "say <why>"), false_1=("keep", "", ""))
    answer = browser.submit(HERE, 422, on=HERE, **chosen)
    n = row_of(collapse_space(answer.text), "missed")
    assert "There is a problem" in answer.text
    assert "missed: choose the label that it should have" in answer.text
    assert f'href="#row-{n}"' in answer.text
    assert f'id="row-{n}"' in answer.text
    assert 'value="say &lt;why&gt;"' in answer.text
    row = answer.text.split(f'id="row-{n}"')[1].split("</fieldset>")[0]
    assert 'value="relabel" checked' in row
    assert "1 choice saved. The others are listed below" in answer.text
    assert [one.key for one in choices(told)] == ["false-1"]


def test_a_form_in_which_nothing_was_chosen_says_so(browser, told):
    page = browser.as_("ana").page(HERE)
    answer = browser.submit(HERE, 422, on=HERE, **fields(page))
    assert "Choose keep, relabel or drop for at least one case" in answer.text
    strange = fields(page, missed=("keep", "", "")) | {"case-2": "%%%"}
    assert browser.submit(HERE, 422, on=HERE, **strange).status_code == 422
    assert choices(told) == []


def test_who_may_read_and_not_choose_sees_why_and_no_form(browser, told):
    page = browser.as_("vic").page(HERE)
    assert "Only an operator at the case's site chooses what training does with it" in page.replace(
        "&#39;", "'"
    )
    assert 'type="radio"' not in page
    assert "Save choices" not in page
    assert rows(page) == ["false-1", "false-2", "missed", "lake-1"]
    operator = browser.as_("ana").page(HERE)
    chosen = fields(operator, missed=("keep", "", ""))
    browser.as_("vic").submit(HERE, 403, on="/", **chosen)
    assert choices(told) == []


def test_an_operator_of_one_site_judges_its_cases_alone(browser, told):
    assert rows(browser.as_("cleo").page(HERE)) == ["false-1", "false-2", "missed"]
    newcomer(told, "dot", AssignedRole("operator", "bears", "creek"), AssignedRole("viewer"))
    page = browser.as_("dot").page(HERE)
    assert page.count("<fieldset") == 3
    assert "An operator at lake can choose." in page
    chosen = fields(page, missed=("keep", "", ""))
    n = row_of(page, "lake-1")
    ana = browser.as_("ana").page(HERE)
    chosen |= {f"case-{n}": fields(ana)[f"case-{n}"], f"choice-{n}": "drop"}
    answer = browser.as_("dot").submit(HERE, 422, on=HERE, **chosen)
    assert "no case lake-1 at a site where dot is operator" in answer.text
    assert [one.key for one in choices(told)] == ["missed"]


def test_a_case_that_somebody_may_still_judge_is_in_no_row_and_no_figure(browser, told, clock):
    late = CLOSED - timedelta(hours=2)
    judged(told.database, "fresh", "bear", "none", at=late)
    count(told.database)
    for name in ("ana", "ada", "vic"):
        page = browser.as_(name).page(HERE)
        assert "fresh" not in page
        assert "4 of 6 compared" in page
    asked_again(told, "missed", CLOSED)
    page = browser.as_("ana").page(HERE)
    assert "missed" not in page
    assert "3 of 5 compared" in page
    assert "missed" not in browser.page(f"{HERE}.csv")


def test_what_a_person_is_shown_is_noted_as_any_page_notes_it(browser, told):
    mia(told)
    browser.as_("mia").page(f"{HERE}?site=creek")
    noted, until = shown_to(told, "mia", "missed")
    assert noted == {("prediction", "divergences"), ("decisions", "divergences")}
    assert until == CLOSED  # the figures tell of every case before
    assert shown_to(told, "mia", "lake-1")[0] == frozenset()
    browser.page(f"{HERE}.csv")
    assert shown_to(told, "mia", "lake-1")[0] == noted
    browser.page("/rollouts/bears/training")
    assert ("prediction", "training") in shown_to(told, "mia", "same-1")[0]


def test_who_read_the_figures_is_given_no_known_case_from_before(browser, told):
    mia(told)
    newcomer(told, "nan", AssignedRole("reviewer"), AssignedRole("viewer"))
    browser.as_("mia").page(f"{HERE}?site=lake&human=bear")  # no row at all: figures tell
    asked_again(told, "same-1", CLOSED, count=2)
    with told.database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "bears")
    given = {}
    for name in ("mia", "nan"):
        reviewer = load_local_caller(told.database, name)
        given[name] = claim_reviews(told.database, reviewer, stood, CLOSED, target_count=3)
    assert [len(given[name].tasks) for name in ("mia", "nan")] == [0, 1]
