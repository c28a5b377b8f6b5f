"""Figures of a wave count several sites: messages hide them from all their reviewers."""

from types import SimpleNamespace

import pytest

from rollout.core.calendar.sites import Cell
from rollout.formats.policy.reader import parse_policy
from rollout.services.notifications import message_facts
from rollout.services.proposals.proposal_details import find_figure_sites
from tests.services.engine.test_wave_gates_live import TEXT

POOLED = TEXT
ALONE = TEXT.replace(", pool: wave, each_at_least: 40%", "")


@pytest.mark.parametrize(
    ("text", "site", "expected"),
    [(POOLED, "s1", {"s0", "s1", "s2"}), (POOLED, "s3", {"s3"}), (ALONE, "s1", {"s1"})],
)
def test_figures_of_a_wave_are_of_all_its_sites(text, site, expected):
    policy = parse_policy(text)
    cell = Cell(site, policy.windows[0].id)
    proposals = {"P-1": SimpleNamespace(cell=cell, to="supervised")}
    state = SimpleNamespace(policy=policy, scope=SimpleNamespace(proposals=proposals))
    assert set(find_figure_sites(state, "P-1")) == expected
    assert find_figure_sites(state, "P-2") == ()


def test_a_message_to_a_reviewer_of_a_neighbour_has_no_figures(monkeypatch):
    policy, checked = parse_policy(POOLED), []
    cell = Cell("s1", policy.windows[0].id)
    proposals = {"P-1": SimpleNamespace(cell=cell, to="supervised")}
    state = SimpleNamespace(
        policy=policy,
        scope=SimpleNamespace(proposals=proposals),
        rollout=SimpleNamespace(name="story"),
    )

    def note(_caller, _rollout, sites):
        checked.append(set(sites))
        return True

    monkeypatch.setattr(message_facts, "may_be_asked_blind", note)
    monkeypatch.setattr(message_facts, "load_proposal", lambda *_, **__: None)
    monkeypatch.setattr(message_facts, "describe_proposal", lambda *_, **parts: parts)
    user = SimpleNamespace(caller=None, times=SimpleNamespace(timezone="UTC"))
    notice = SimpleNamespace(about="P-1", rollout="story", kind="proposal")
    news = [SimpleNamespace(state=state)]
    message_facts.build_text(None, user, [notice], news, None)
    assert checked == [{"s0", "s1", "s2"}]
