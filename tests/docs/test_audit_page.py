"""The program on the auditing page recomputes e-values without the product's code."""

import json
import re
import subprocess
import sys
from hashlib import sha256

import pytest

from rollout.data.tables.tables import rollouts
from rollout.kernel.facts import to_facts
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.gates import compute_yearly_share, read_condition
from rollout.kernel.statistics.evidence import compute_cost_log_e, compute_log_e
from rollout.kernel.statistics.sampling import compute_sampling_value
from tests.docs.pages import text_of
from tests.factories import policy

PAGE = text_of("docs/how-to/audit.md")
EVIDENCE, DRAW = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def run(program, lines, folder, *costs):
    file = folder / "ledger.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return run_words(program, str(file), *costs)


def run_words(program, *words):
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def reading(counts, log_e, measure="agreement", threshold="0.95"):
    condition = {"measure": measure, "threshold": threshold}
    facts = {"condition": condition, "counts": counts, "log_e": log_e, "risk": "0.05"}
    return [json.dumps({"kind": "ProposalRaised", "revision": 4, "body": {"readings": [facts]}})]


def test_a_stranger_recomputes_the_evidence(tmp_path):
    log_e = f"{compute_log_e(245, 3, at_least=0.95):.6f}"
    again = "1 readings recomputed; 0 of other kinds"
    assert run(EVIDENCE, reading([245, 3], log_e), tmp_path) == again
    assert "log E is" in run(EVIDENCE, reading([246, 2], log_e), tmp_path)


COST = ([180, 6, 3, 1], "cost", "1")


def test_the_reading_of_the_page_is_recomputed_and_its_risk_explained(tmp_path):
    """Seen: a line that no ledger has since attempts share a year's risk."""
    facts = json.loads(re.search(r"^```json\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)[1])
    line = json.dumps({"kind": "ProposalRaised", "revision": 12, "body": {"readings": [facts]}})
    assert run(EVIDENCE, [line], tmp_path) == "1 readings recomputed; 0 of other kinds"
    words = " ".join(PAGE.split())
    gate, weight = re.search(r"the gate's, ([\d.]+),.* ([\d.]+)\. The gate", words).groups()
    assert float(weight) == pytest.approx(compute_yearly_share(1), abs=1e-6)
    assert float(facts["risk"]) == pytest.approx(float(gate) * compute_yearly_share(1), rel=1e-5)


def test_a_stranger_recomputes_a_cost_from_the_counts_at_each_level(tmp_path):
    """Seen: neither the formula nor the levels were on any page."""
    log_e = f"{compute_cost_log_e([0, 0.1, 0.3, 1], [180, 6, 3, 1], at_most=0.05):.6f}"
    lines = reading(COST[0], log_e, *COST[1:])
    again = "1 readings recomputed; 0 of other kinds"
    assert run(EVIDENCE, lines, tmp_path, "0", "2", "6", "20") == again
    assert "log E is" in run(EVIDENCE, lines, tmp_path, "0", "2", "7", "20")
    assert run(EVIDENCE, lines, tmp_path) == "name 4 cost levels after the ledger"
    two = f"{compute_cost_log_e([0, 1], [98, 2], at_most=0.05):.6f}"
    lines = reading([98, 2], two, "cost", "0.05")
    assert run(EVIDENCE, lines, tmp_path, "0", "1") == again


def test_the_program_reads_what_the_engine_writes(tmp_path):
    """Each form of a reading that a gate can store; else it would count as another kind."""
    bears = policy()
    for condition, counts in (
        (Condition(MEASURES["cost"], 0.2), (1194, 18)),
        (Condition(MEASURES["recall"], 0.8, label="bear"), (9, 1)),
    ):
        facts = to_facts(read_condition(condition, counts, 0.05, bears).store(bears))
        body = {"readings": [facts]}
        line = json.dumps({"kind": "ProposalRaised", "revision": 4, "body": body})
        levels = map(str, bears.cost_levels)
        again = "1 readings recomputed; 0 of other kinds"
        assert run(EVIDENCE, [line], tmp_path, *levels) == again


def test_a_stranger_recomputes_a_sampling_value():
    salt = bytes(range(32))
    value = compute_sampling_value(salt, "stage", "creek-7")
    assert (
        run_words(DRAW, "stage", salt.hex(), "creek-6", "creek-7").splitlines()[2]
        == f"creek-7 {value}"
    )
    assert f"salt: {sha256(salt).hexdigest()}" in run_words(DRAW, "stage", salt.hex())
    audit = compute_sampling_value(salt, "audit", "creek-7")
    assert run_words(DRAW, "audit", salt.hex(), "creek-7").splitlines()[1] == f"creek-7 {audit}"
    assert {"name", "salt", "service_salt"} <= set(rollouts.c.keys()), "the page reads them"
