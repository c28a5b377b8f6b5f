"""The page of counting rules: an admin proposes the newest, an operator approves the proposal."""

import re

import pytest

from rollout.core.scope.commands import Actor
from rollout.services.engine.policy_application import apply_policy
from rollout.services.engine.rollout_state import load_rollout_state
from tests.api.bears import POLICY
from tests.factories import NOON

PATH = "/rollouts/otters/settings/rules"


@pytest.fixture(autouse=True)
def _otters(service, monkeypatch):
    """Begin a rollout without a number of rules, as before they had one."""
    with monkeypatch.context() as before_rules:
        before_rules.setattr("rollout.services.engine.policy_application.CURRENT_RULES", 0)
        text = POLICY.replace("rollout: bears", "rollout: otters")
        apply_policy(service.database, text, Actor("ada"), NOON)


def load_scope(service):
    with service.database.begin_read() as transaction:
        return load_rollout_state(transaction, "otters").scope


def test_an_admin_proposes_the_rules_and_an_operator_approves_them(browser, service):
    assert f'href="/console{PATH}"' in browser.as_("ada").page("/rollouts/otters/settings")
    page = browser.page(PATH)
    assert "Rules 1 are in force; the newest are 2." in page
    cited = re.search(r'name="evidence" value="(\w{64})"', page)[1]
    browser.submit(PATH, evidence=cited)
    proposal = next(p for p in load_scope(service).proposals.values() if p.kind == "rules")
    assert f"proposals/{proposal.id}" in browser.page(PATH)
    shown = browser.as_("ana").page(f"/rollouts/otters/proposals/{proposal.id}")
    assert "Apply counting rules 2?" in shown
    assert "every counted decision is of a source of evidence" in shown.split("What it changes")[1]
    assert "Apply counting rules 2?" in browser.page("/rollouts/otters/proposals")
    approval = f"/rollouts/otters/proposals/{proposal.id}"
    browser.submit(
        f"{approval}/approvals", on=approval, evidence=proposal.evidence_hash, reason="read"
    )
    assert load_scope(service).rules == 2
    assert "nothing to apply" in browser.page(PATH)


def test_a_plan_that_has_changed_is_refused_on_the_page(browser, service):
    page = browser.as_("ada").submit(PATH, 422, evidence="0" * 64).text
    assert "read the plan again" in page
    assert "rules" not in {p.kind for p in load_scope(service).proposals.values()}


def test_a_viewer_reads_the_plan_and_gets_no_form(browser):
    page = browser.as_("vic").page(PATH)
    assert "Only an admin of otters can propose them." in page
    assert 'name="evidence"' not in page
