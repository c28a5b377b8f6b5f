"""All places that name a stage say that it draws a share of the cases for the model."""

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest

from api.cells.map_rows import compute_schedules
from api.cells.overview_pages import RolloutCard, describe_deciding_models
from api.cells.rollout_text import describe_allowed
from api.proposals.proposal_text import build_meaning, build_question
from api.web_kit.cell_view import build_common_legend, build_stage_markers
from rollout.features.cells.cells import build_cell_status
from rollout.features.cells.cli import format_status
from rollout.features.notifications.proposal_kinds import APPROVE, describe_proposal
from rollout.features.proposals.proposal_details import Proposal, describe_effect
from rollout.features.reports.figures.report_identity import summarize_policy
from rollout.features.reports.inputs.cell_facts import TimelineStage
from rollout.features.reports.pages.timeline_chart import draw_small_timeline, list_key_items
from tests.factories import AUTONOMOUS, CREEK, NOON, SUPERVISED, autonomous, policy
from tests.features.cells.test_status_text import CELL, STATUS
from tests.features.reports.pages.test_timeline_layout import timeline_of
from tests.looser import say_looser_rules

POLICY = policy(stages=(SUPERVISED, replace(AUTONOMOUS, blind=0.6, share=0.4)))
ROLLOUT = autonomous(POLICY)
CASES = "decides 40 % of cases, drawn at random"
REST = f"{CASES}; humans the rest"
DETAILS = Proposal(**dict.fromkeys(Proposal.__dataclass_fields__, ()) | {
    "kind": "widening", "site": CREEK.site, "window": CREEK.window, "version": "v1",
    "to": "autonomous", "about": "", "expires_at": NOON, "id": "P-1", "model_share": 0.4,
})  # fmt: skip
RAISED = SimpleNamespace(
    kind="widening", cell=CREEK, to_stage="autonomous", version="v1", confidence_floor=""
)


def describe_overview():
    card = dict.fromkeys(RolloutCard.__dataclass_fields__) | {"name": "bears", "notices": ()}
    return describe_deciding_models([RolloutCard(**card | {"model_shares": {CREEK: 0.4}})])


def describe_rollout():
    schedules = compute_schedules(ROLLOUT.scope, POLICY, ROLLOUT.at)
    return describe_allowed(POLICY, ROLLOUT.scope, schedules, [CREEK.site])


def describe_notice():
    return describe_proposal("bears", DETAILS, APPROVE, "UTC", is_blind=True).evidence


def describe_timeline(describe):
    timeline = timeline_of(1)
    stage = TimelineStage("autonomous", "v1", "model", timeline.since, NOON, 0.4)
    return describe(replace(timeline, stages=(stage,)))


def describe_loosening():
    confirmed = policy(stages=(SUPERVISED, replace(SUPERVISED, id="autonomous")))
    return str(say_looser_rules(confirmed, POLICY))


PLACES = {
    "legend of a rollout and report": (
        lambda: build_stage_markers(POLICY)["autonomous"].text, REST),
    "legend of the overview": (
        lambda: build_common_legend(has_shares=True)[2].text,
        "a share of cases, drawn at random; humans the rest"),
    "overview": (describe_overview, "A model decides 40 % of cases, drawn at random, at creek"),
    "rollout's page": (describe_rollout, f"v1 {CASES}"),
    "question of a proposal": (
        lambda: build_question(ROLLOUT, DETAILS, NOON).asks,
        "Let v1 decide 40 % of cases, drawn at random, at creek"),
    "meaning of a proposal": (lambda: build_meaning(ROLLOUT, DETAILS, NOON).proposed_text, REST),
    "current stage": (lambda: build_meaning(ROLLOUT, DETAILS, NOON).current_text, REST),
    "effect of a proposal": (lambda: describe_effect(ROLLOUT, RAISED, NOON), REST),
    "notice": (describe_notice, f"`v1` {REST}."),
    "status of the command line": (
        lambda: format_status(STATUS | {"cells": [CELL | {"model_share": 0.4}]}), f"v7 {REST}"),
    "report": (lambda: str(summarize_policy(POLICY).stage_descriptions), f"the model {REST}"),
    "legend of a timeline": (
        lambda: describe_timeline(lambda t: str([key.text for key in list_key_items(t)])),
        f"Model: at autonomous v1 {REST}"),
    "strip of a timeline": (
        lambda: describe_timeline(lambda t: draw_small_timeline(t, "")), f"autonomous: v1 {REST}"),
    "looser policy": (describe_loosening, "decides 40 % of cases, drawn at random, where"),
}  # fmt: skip


@pytest.mark.parametrize(("read", "text"), PLACES.values(), ids=PLACES)
def test_place_says_that_the_stage_draws_a_share(read, text):
    assert text in read()


def test_cell_and_timeline_have_the_share_as_a_number():
    assert build_cell_status(ROLLOUT, CREEK, (), ROLLOUT.at).model_share == 0.4
    whole = autonomous()
    assert build_cell_status(whole, CREEK, (), whole.at).model_share == 1.0
    ended = build_cell_status(whole, CREEK, (), whole.at + timedelta(days=400))
    assert (ended.stage, ended.model_share) == ("shadow", None)
