"""A policy's page: what is in force, and a new text with faults, plan and differences before it."""

import html
import re

import pytest

from api.policies.pages import compare_policy_texts, escape_text
from rollout.data.database.rollouts import Rollouts
from rollout.data.reports.reports import FAILED, DeliveryStore, NewDelivery
from rollout.engine.decide.commands import Actor
from rollout.features.access.users import load_local_caller
from rollout.features.policies.policies import load_policy_at
from rollout.live.policy_application import apply_policy
from tests.api.bears import LOOSER, POLICY, STRICTER, scope_of
from tests.api.reports.test_deliveries import settle
from tests.factories import HOUR, NOON

PATH = "/rollouts/bears/settings"
SCRIPT = "<script>alert(1)</script>"
SMALL = POLICY.replace("rollout: bears", "rollout: otters")


def in_force(service):
    vic = load_local_caller(service.database, "vic")
    return load_policy_at(service, vic, "bears")


def planned(browser, text, on=PATH):
    """Plan a text; return the page and the fields of its form that applies it."""
    page = browser.submit(on, 200, text=text).text
    against = re.search(r'name="against" value="(\w*)"', page)[1]
    carried = re.search(r'<textarea name="text" hidden[^>]*>\n(.*?)</textarea>', page, re.DOTALL)[1]
    return page, {"against": against, "text": html.unescape(carried), "apply": "yes"}


def test_the_policy_in_force_is_shown_with_number_hash_and_text(browser, service):
    text = browser.as_("vic").page(PATH)
    held = in_force(service)
    assert "Policy 1 is in force since" in text
    assert re.search(rf">{held.hash[:4]} {held.hash[4:8]} ", text)
    assert "siren, none: nothing" in text


def test_earlier_policies_can_be_read(browser, service):
    apply_policy(service.database, STRICTER, Actor("ana"), NOON + HOUR)
    text = browser.as_("vic").page(f"{PATH}?policy=1")
    assert "Policy 1, no longer in force" in text
    assert "at_least: 97%" in text.split('id="force"')[1]
    assert "at_least: 98%" in browser.page(PATH).split('id="force"')[1]
    assert "no policy 7" in browser.page(f"{PATH}?policy=7", 422)


def test_faults_come_with_their_lines_beside_what_was_typed(browser, service):
    typed = POLICY.replace("takeover: shadow", f"takeovr: {SCRIPT}") + "odd: 5 %\n"
    text = browser.as_("ada").submit(PATH, 422, text=typed).text
    line = 1 + typed.split("\n").index(f"takeovr: {SCRIPT}")
    assert f"Line </span>{line}</th>" in text
    assert "2 faults, listed with lines below" in text
    assert SCRIPT not in text
    area = re.search(r'<textarea id="text"[^>]*>\n(.*?)</textarea>', text, re.DOTALL)[1]
    assert html.unescape(area) == typed


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_text_says_what_to_do(browser, text):
    assert "Refused: paste a policy" in browser.as_("ada").submit(PATH, 422, text=text).text


def test_what_is_stricter_is_planned_and_applied_at_once(browser, service):
    page, fields = planned(browser.as_("ada"), STRICTER)
    assert "It loosens nothing, so applying it takes effect at once" in page
    assert "at_least: 97%" in re.search(r"<del>(.*?)</del>", page)[1]
    assert "at_least: 98%" in re.search(r"<ins>(.*?)</ins>", page)[1]
    assert in_force(service).number == 1
    answer = browser.submit(PATH, **fields)
    assert answer.headers["location"] == f"/console{PATH}"
    assert (in_force(service).number, in_force(service).text) == (2, STRICTER)


def test_what_loosens_becomes_a_proposal_and_says_so_before(browser, service):
    page, fields = planned(browser.as_("ada"), LOOSER)
    assert "applying it raises a proposal" in page
    assert "It needs 1 operator and 1 of safety" in page
    answer = browser.submit(PATH, **fields)
    (proposal,) = scope_of(service.database).proposals
    assert answer.headers["location"] == f"/console/rollouts/bears/proposals/{proposal}"
    assert in_force(service).number == 1
    text = browser.page(PATH)
    assert f"Read proposal {proposal}" in text
    assert "needs 1 operator and 1 of safety" in text


def test_a_plan_against_a_policy_that_is_gone_is_refused_and_the_text_kept(browser, service):
    _, fields = planned(browser.as_("ada"), STRICTER.replace("93%", "94%"))
    apply_policy(service.database, STRICTER, Actor("ana"), NOON + HOUR)
    answer = browser.submit(PATH, 422, **fields)
    assert "Refused: policy 2 came into force since this was planned" in answer.text
    assert "at_least: 94%" in answer.text
    assert in_force(service).number == 2


@pytest.mark.slow
def test_every_letter_of_a_text_survives_planning(browser, service):
    odd = "\n" + STRICTER + "# 5 % & <b> 'x' \"y\"   \n\n"
    _, fields = planned(browser.as_("ada"), odd)
    browser.submit(PATH, **fields)
    assert in_force(service).text == odd


def test_who_may_not_apply_may_plan_and_sees_who_can(browser, service):
    page = browser.as_("vic").submit(PATH, 200, text=STRICTER).text
    assert "Only an admin of bears can apply a policy" in page
    assert 'name="apply"' not in page
    fields = {"text": STRICTER, "against": in_force(service).hash, "apply": "yes"}
    assert "Refused: vic may not administer" in browser.submit(PATH, 422, **fields).text
    assert in_force(service).number == 1


def test_who_reads_one_site_is_told_who_plans(browser):
    text = browser.as_("cleo").page(PATH)
    assert "To plan, you need to read every site" in text
    assert 'id="text"' not in text


def test_a_text_of_another_rollout_is_refused(browser):
    text = browser.as_("ada").submit(PATH, 422, text=SMALL).text
    assert "Refused: the text is of otters, not of bears" in text


@pytest.mark.slow
def test_a_rollout_is_made_of_its_first_policy(browser, service):
    page, fields = planned(browser.as_("ada"), SMALL, on="/new")
    assert "Every cell starts in shadow" in page
    assert fields["against"] == ""
    answer = browser.submit("/new", **fields)
    assert answer.headers["location"] == "/console/rollouts/otters/settings"
    assert "Policy 1 is in force" in browser.page("/rollouts/otters/settings")
    assert (
        "Refused: there is a rollout otters already" in browser.submit("/new", 422, **fields).text
    )


def test_a_rollout_is_made_by_admins_alone(browser):
    assert "takes an admin of all rollouts" in browser.as_("ana").page("/new", 403)
    browser.submit("/new", 403, on="/settings", text=SMALL, against="", apply="yes")


@pytest.mark.slow
def test_a_policy_that_is_too_long_is_refused_before_it_is_read(browser):
    long = POLICY + "#" * 400_000
    assert "at most 400,000 are allowed" in browser.as_("ada").submit(PATH, 422, text=long).text


def test_deliveries_say_what_comes_and_who_sends_again(browser):
    text = browser.as_("vic").page(f"{PATH}/deliveries")
    assert "No deliveries yet" in text
    assert "No deliveries in this state" in browser.page(f"{PATH}/deliveries?state=failed")


def test_what_was_given_up_is_sent_again_by_operators(browser, service):
    told = POLICY + "reports: [{name: morning, to: [ops, rangers]}]\n"
    apply_policy(service.database, told, Actor("zoe"), NOON)
    with service.database.begin_write() as transaction:
        own = DeliveryStore(transaction, Rollouts(transaction).find("bears"))
        own.add(NewDelivery(12, "ops", "schedule", "<script>morning</script>", "- lead"), at=NOON)
    settle(service.database, "close", state=FAILED, error="<b>refused</b>")
    text = browser.as_("vic").page(f"{PATH}/deliveries")
    assert "Given up</span>" in text
    assert "An operator can retry it" in text
    assert "<script>morning" not in text
    assert "<b>refused" not in text
    number = re.search(r"Delivery (\d+)", text)[1]
    browser.submit(f"{PATH}/deliveries/{number}", 403, on="/settings")
    browser.as_("ana").submit(f"{PATH}/deliveries/{number}", on=f"{PATH}/deliveries")
    assert "Waiting</span>" in browser.page(f"{PATH}/deliveries")
    assert "Not configured</span>" in browser.page(PATH)


def test_differences_leave_out_what_is_the_same():
    before = "\n".join(f"line {n}" for n in range(30))
    found = compare_policy_texts(
        before, before.replace("line 2\n", "").replace("line 25", "line x")
    )
    assert [one.text for one in found if one.kind == "removed"] == ["line 2", "line 25"]
    assert [one.text for one in found if one.kind == "added"] == ["line x"]
    assert sum(one.kind == "gap" for one in found) == 1
    assert compare_policy_texts("a\n" * 4_000, "b\n" * 4_000) is None


def test_a_text_cannot_leave_its_element():
    assert "<" not in escape_text("</textarea><script>")
