"""The programs on the auditing page verify ledgers of both forms without the product's code."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.core.ledger.ledger import build_ledger, build_row, verify_lines
from rollout.core.scope.events import ProposalRaised
from rollout.core.statistics.evidence import compute_log_e
from tests.core.ledger.test_form1 import LATER, OLD, OLD_ACCESS, mixed
from tests.factories import SALTS, eventful

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "audit.md").read_text(encoding="utf-8")
VERIFY, APPROVALS, EVIDENCE = re.findall(
    r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL
)
NEW = [row.format() for row in build_ledger("bear-alarm", eventful().events, SALTS)]


def run(program, lines, folder):
    file = folder / "ledger.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "lines", [OLD, OLD_ACCESS, mixed(), NEW], ids=["form 1", "access", "both", "form 2"]
)
def test_a_stranger_verifies_a_ledger(lines, tmp_path):
    head = json.loads(lines[-1])["hash"]
    assert run(VERIFY, lines, tmp_path) == f"{len(lines)} entries, 0 texts erased, head {head}"


def test_a_stranger_counts_erased_texts(tmp_path):
    row = build_row("r", 1, LATER[0], "", salts=SALTS)
    said = run(VERIFY, [replace(row, texts={}).format()], tmp_path)
    assert said == f"1 entries, 1 texts erased, head {row.hash}"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda lines: [lines[0].replace("policy", "eve"), *lines[1:]],
            "line 1: its hash is not that of its content",
        ),
        (lambda lines: [*lines[:3], *lines[4:]], "line 4: does not follow"),
        (
            lambda lines: [*lines[:-2], lines[-2].replace("smoke", "fire"), lines[-1]],
            "was changed",
        ),
        (lambda lines: [*lines[:-3], again(lines)], "wrong ledger form"),
    ],
    ids=["edited", "deleted", "another text", "another form"],
)
def test_a_stranger_finds_what_was_changed(change, says, tmp_path):
    assert says in run(VERIFY, change(mixed()), tmp_path)


def again(lines):
    """Return a row of form 2 that follows form 1 without the row that ends it."""
    row, last = list(verify_lines(lines))[-1], json.loads(lines[-4])
    return replace(row, revision=last["revision"] + 1, previous=last["hash"]).format()


def test_a_stranger_recomputes_what_was_approved(tmp_path):
    raised = sum(isinstance(event, ProposalRaised) for event in eventful().events)
    assert (
        run(APPROVALS, NEW, tmp_path) == f"{raised} proposals: evidence hashes and approvals match"
    )


def reading(counts, log_e):
    text = f"agreement at least 95 %: {counts}, log E {log_e} of 2.995732 (risk 0.05)"
    return [json.dumps({"kind": "ProposalRaised", "revision": 4, "body": {"readings": [text]}})]


def test_a_stranger_recomputes_the_evidence(tmp_path):
    log_e = f"{compute_log_e(245, 3, at_least=0.95):.6f}"
    again = "1 readings recomputed; 0 of other kinds"
    assert run(EVIDENCE, reading("245 of 248", log_e), tmp_path) == again
    assert "log E is" in run(EVIDENCE, reading("246 of 248", log_e), tmp_path)
