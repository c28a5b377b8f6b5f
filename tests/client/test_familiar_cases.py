"""A client reads from its snapshot which cases are familiar, as the service does."""

import json
from itertools import product

import pytest

from api.assignments.ofrep import parse_context
from api.cells.routes import build_scope
from rollout.engine.decide.assignment import CaseQuestion, decide_assignment
from rollout.kernel.policy.cell_evidence import VersionEvidence
from rollout.kernel.policy.familiarity import (
    FAMILIAR,
    MISTAKEN,
    FamiliarAttribute,
    FamiliarityRule,
    ValueReading,
)
from rollout.kernel.policy.policy import EvidenceRules
from rollout_client.local_scope import parse_snapshot
from tests.client.edge_clients import LEASE, SALT, build_scope_body, local
from tests.client.local_answers import build_snapshot, decide_locally
from tests.factories import CREEK, autonomous, policy

RULE = FamiliarityRule(
    (
        FamiliarAttribute(("form",)),
        FamiliarAttribute(("form", "scanner")),
        FamiliarAttribute(("light",), (0, 20, 50)),
    )
)
STATUSES = {
    ("form", "old"): FAMILIAR,
    ("form", "new"): MISTAKEN,
    ("form + scanner", '["old", "clean"]'): FAMILIAR,
    ("light", "[0, 20)"): FAMILIAR,
    ("light", "(none)"): FAMILIAR,
}


def open_rollout():
    """Return a rollout in which some values are familiar at creek."""
    rollout = autonomous(policy(evidence=EvidenceRules(familiar=RULE)))
    readings = {value: ValueReading(status, 20, 14) for value, status in STATUSES.items()}
    rollout.tick({CREEK: VersionEvidence(values=readings)})
    return rollout


ROLLOUT = open_rollout()
NAMES = {
    "form": (None, "old", "new", "other"),
    "scanner": ("clean", "worn"),
    "light": (None, "7", "20", "dark", "nan"),
}
CASES = [
    {name: text for name, text in zip(NAMES, texts, strict=True) if text is not None}
    for texts in product(*NAMES.values())
]


def ask(rollout, attributes, *, from_snapshot):
    question = CaseQuestion("creek", rollout.at, "v1", "k", attributes=attributes)
    if from_snapshot:
        return decide_locally(local(rollout), question, now=rollout.at, time_left=LEASE)
    return decide_assignment(
        rollout.scope, rollout.policy, SALT, question, now=rollout.at, time_left=LEASE
    )


def test_a_snapshot_answers_as_the_service_for_every_case():
    deciders = []
    for case in (*CASES, None):
        answers = [ask(ROLLOUT, case, from_snapshot=is_local) for is_local in (False, True)]
        assert answers[0] == answers[1]
        deciders.append(answers[0].decider)
    familiar = [case for case, decider in zip(CASES, deciders, strict=False) if decider == "model"]
    assert familiar == [
        {"form": "old", "scanner": "clean"},
        {"form": "old", "scanner": "clean", "light": "7"},
    ]


def list_familiar_values(rollout):
    """Return those of the plain snapshot's first cell with grants."""
    made = build_snapshot(rollout.policy, rollout.scope, rollout.at, {"creek": LEASE})
    return next(cell.familiar for cell in build_scope(made).cells if cell.grants)


def test_a_snapshot_lists_familiar_values_sorted_and_only_where_the_policy_asks():
    values = {
        "form": ["old"],
        "form + scanner": ['["old", "clean"]'],
        "light": ["(none)", "[0, 20)"],
    }
    assert list_familiar_values(ROLLOUT) == values
    assert build_scope_body(ROLLOUT)["table"]["values"] == [values]
    assert list_familiar_values(autonomous()) == {}
    assert build_scope_body(autonomous())["table"]["values"] == []


def test_without_the_list_in_a_table_people_decide():
    body = build_scope_body(ROLLOUT)
    for cell in body["table"]["sites"][0]["cells"]:
        cell["values"] = None
    question = CaseQuestion(
        "creek", ROLLOUT.at, "v1", "k", attributes={"form": "old", "scanner": "clean"}
    )
    answer = decide_locally(parse_snapshot(body), question, now=ROLLOUT.at, time_left=LEASE)
    assert answer.decider == "human"


@pytest.mark.parametrize(("value", "text"), [("7", "7"), (7, "7"), (7.5, "7.5"), (True, None)])
def test_a_number_in_a_flags_context_is_its_text(value, text):
    context = {"targetingKey": "k", "light": value}
    question = parse_context(json.dumps({"context": context}).encode()).question
    assert (question.attributes or {}).get("light") == text
