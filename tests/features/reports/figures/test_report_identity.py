"""What a report says of its policy: gates with all their conditions, costs, promises."""

from dataclasses import replace

import pytest

from rollout.features.reports.figures.oversight import PermitCount
from rollout.features.reports.figures.report_identity import describe_promises, summarize_policy
from rollout.features.reports.pages.findings import rank_findings
from rollout.features.reports.pages.html_report import render_html_report
from rollout.kernel.policy_files.reader import parse_policy
from tests.features.reports.conftest import BEARS
from tests.page_text import collapse_space

GATES = """
gates:
  - {to: supervised, windows: [night], require: [{measure: agreement, at_least: 90%}]}
  - {to: supervised, require: [{measure: agreement, at_least: 80%}]}
  - {to: autonomous, windows: [night], require: [{measure: cost, at_most: 0.2}]}
  - {to: autonomous, require: [{measure: agreement, at_least: 80%}]}
"""


@pytest.fixture
def policy():
    head, _, rest = BEARS.partition("gates:")
    return parse_policy(f"{head}{GATES}guards:{rest.partition('guards:')[2]}")


def test_a_gate_names_the_conditions_of_the_gates_below_that_its_cells_must_meet(policy):
    """Seen: a gate by cost whose proposals also had a reading of agreement."""
    below, others, by_cost, again = summarize_policy(policy).gates
    assert "80 %" not in below
    assert "gate to" not in others
    start = (
        "to autonomous (windows night): cost at most 0.2 and, as the gate to supervised requires"
    )
    assert by_cost.startswith(f"{start}, agreement at least 90 % (windows night), at a risk of")
    assert "gate to" not in again  # it has the condition itself


def test_a_gate_names_its_minimum_from_when_and_the_limit_of_missing_decisions(policy):
    """Seen: readings recomputed as met, of a gate that missing decisions kept closed."""
    text = summarize_policy(policy).gates[0]
    minimum = policy.gates[0].minimum
    assert f"; since the present stage began at least {minimum.units} units, " in text
    assert f"; at most {policy.evidence.missing_at_most * 100:g}\xa0% of units without a" in text


def test_a_promise_covers_every_condition_of_the_gate(policy):
    promise = describe_promises(policy)[2]
    assert "“cost at most 0.2 and agreement at least 90 % (windows night)”" in promise


def test_the_cost_levels_are_those_of_the_counts_of_a_reading(policy):
    assert summarize_policy(policy).cost_levels == (0, 1, 20)


def test_the_auditors_page_says_what_a_reader_needs_to_check_it(facts):
    replayed = collapse_space(render_html_report(facts, "auditor"))
    assert "<dt>Cost levels</dt><dd>0, 1, 20 points." in replayed
    assert "Ends of grants are on the clock of the cell's site." in replayed
    assert "are in ledger.jsonl, with all hashes" in replayed
    assert "It ends after the last case" in replayed
    identity = replace(facts.identity, simulated=False)
    permits = (PermitCount("bound", "authorized", 3),)
    facts = replace(facts, identity=identity, permits=permits)
    page = collapse_space(render_html_report(facts, "auditor"))
    assert ">bound</th>" in page
    head = f"<code>rollout ledger verify ledger.jsonl --head {facts.identity.ledger.head}</code>"
    assert f"so its head differs. {head} finds" in page
    assert "While nothing has changed, it returns this version" in page
    assert "are in an export of the ledger (<code>rollout ledger export</code>), with" in page
    assert "the cases that occurred in it" in page
    assert "No export has the records" in page
    assert "so its head differs" not in replayed
    assert "It ends after the last case" not in page


def test_a_page_names_the_folder_of_the_example_that_was_replayed(facts):
    """Seen: every demo's report named the mail room's files."""
    page = render_html_report(facts, "auditor", example="bears")
    assert "<code>examples/bears/policy.yaml</code>" in page
    assert "mail-room" not in page
    assert "examples/" not in render_html_report(facts, "auditor")


def test_a_finding_of_a_reviewer_names_whom_the_reviewer_agrees_less_with(facts):
    """Seen: "agrees less than the other reviewers" over a figure of agreement with the model."""
    reviewer = replace(facts.reviewer_agreement.reviewers[0], clearly_below_in=("model",))
    people = replace(
        facts.reviewer_agreement, reviewers=(reviewer, *facts.reviewer_agreement.reviewers[1:])
    )
    (found,) = [
        item
        for item in rank_findings(
            replace(facts, reviewer_agreement=people, evidence=()), "engineer"
        )
        if item.tag == "Reviewer"
    ]
    assert found.title == f"{reviewer.reviewer} agrees less with the model than others do"
