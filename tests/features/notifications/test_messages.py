"""Each message in its words; names and reasons can't become links or other markup."""

from datetime import timedelta

import pytest

from rollout.engine.decide.scope import Incident
from rollout.features.notifications.kinds import (
    describe_digest,
    describe_incidents,
    describe_reviews,
)
from rollout.features.notifications.proposal_kinds import (
    APPROVE,
    QUESTIONS,
    Proposals,
    Reminders,
    describe_code,
    describe_proposal,
)
from rollout.features.proposals.proposal_details import Proposal
from rollout.kernel.facts import StoredAlarm
from rollout.kernel.measures import MEASURES, Condition
from tests.api.bears import CREEK
from tests.factories import DAY, NOON

URL = "https://rollout.example"
ZONE = "Europe/Vienna"
LABELS = Proposals.labels | Reminders.labels
READINGS = (
    "agreement at least 95 %: 97.1 % so far (303 of 312), bound 95.1 %",
    "cost at most 0.2: mean 0.031 days late over 312 units, bound 0.142",
    "recall of bear at least 80 %: 91.7 % so far (88 of 96), bound 80.4 %",
    "recall of deer at least 80 %: 95.1 % so far (97 of 102), bound 84.6 %",
)


def build_proposal(kind="widening", version="v1"):
    values = dict.fromkeys(Proposal.__dataclass_fields__)
    fields = {"site": "creek", "window": "day", "to": "supervised", "about": "S-1"}
    more = {"id": "P-1", "kind": kind, "version": version}
    return Proposal(**values | fields | more | {"expires_at": NOON + 14 * DAY})


def read(text):
    return f"{text.subject}\n---\n{text.format_body(URL)}"


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("is_blind", [False, True])
def test_proposals(kind, is_blind, snapshot):
    text = describe_proposal(
        "bears", build_proposal(), LABELS[kind], ZONE, is_blind=is_blind, readings=READINGS
    )
    assert read(text) == snapshot


OVERRIDE = Condition(MEASURES["override"], 0.05)


@pytest.mark.parametrize("kind", [*QUESTIONS, "other"])
def test_questions(kind, snapshot):
    text = describe_proposal("bears", build_proposal(kind), APPROVE, ZONE, is_blind=False)
    assert text.question.count("?") == 1
    assert text.question.endswith("?")
    assert text.question == snapshot


@pytest.mark.parametrize("is_blind", [False, True])
@pytest.mark.parametrize("cell", [CREEK, None])
def test_incidents(is_blind, cell, snapshot):
    alarms = (StoredAlarm(OVERRIDE, against=14, records=117),)
    incident = Incident("I-4", "alarm", "", NOON, cell, alarms=alarms)
    text = read(describe_incidents("bears", [incident], ZONE, is_blind=is_blind))
    assert ("14 of 117" in text) != is_blind
    assert text == snapshot


@pytest.mark.parametrize("is_blind", [False, True])
@pytest.mark.parametrize("cell", [CREEK, None])
def test_incidents_in_one_message(is_blind, cell, snapshot):
    incidents = [
        Incident(
            f"I-{n}",
            kind,
            "",
            NOON + n * timedelta(seconds=60),
            cell,
            alarms=(StoredAlarm(OVERRIDE, against=n, records=40),),
        )
        for n, kind in enumerate(["alarm", "unauthorized", "alarm", "alarm", "unfamiliar"])
    ]
    text = read(describe_incidents("bears", incidents, ZONE, is_blind=is_blind))
    assert ("override" in text) != is_blind
    assert "5 incidents (3 alarm, 1 unauthorized and 1 unfamiliar)" in text
    assert text == snapshot


def test_reviews_digests_and_codes(snapshot):
    backlogs = {"bears": (2, 1, 30), "ramps": (0, 0, 0)}
    texts = [
        describe_reviews("bears", 1, NOON + timedelta(hours=1), ZONE),
        describe_reviews("bears", 3, NOON + timedelta(hours=1), ZONE),
        describe_digest("Daily digest", "1 Jun 2027", backlogs),
        describe_digest("Weekly digest", "1 Jun 2027", {}),
        describe_code("01234567"),
    ]
    assert "\n=====\n".join(map(read, texts)) == snapshot


def test_what_speaks_against_a_version_comes_before_its_evidence():
    against = [f"v1 was narrowed for quality in creek, on day {day} (I-{day})" for day in range(5)]
    text = describe_proposal(
        "bears", build_proposal("widening"), APPROVE, ZONE, is_blind=True, against=against
    )
    assert text.evidence.startswith("Against it: v1 was narrowed for quality in creek, on day 0")
    assert "2 more facts on the page. Evidence:" in text.evidence


def test_a_name_or_reason_is_no_markup():
    evil = "v1`](http://evil.example)<b>\n\n# {version}"
    proposal, readings = build_proposal(version=evil), ("`x`\n# [a](b)",)
    incident = Incident("I-4", "alarm", evil, NOON, None)
    for text in (
        describe_proposal("bears", proposal, APPROVE, ZONE, is_blind=False, readings=readings),
        describe_incidents("bears", [incident], ZONE, is_blind=False),
    ):
        body = text.format_body(URL)
        assert "<" not in body
        assert "\n#" not in body
        assert "`](" not in body
