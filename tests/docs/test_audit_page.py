"""The program on the auditing page recomputes e-values without the product's code."""

import json
import re
import subprocess
import sys

from rollout.core.statistics.evidence import compute_log_e
from tests.docs.pages import text_of

PAGE = text_of("docs/how-to/audit.md")
(EVIDENCE,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


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


def reading(counts, log_e):
    text = f"agreement at least 95 %: {counts}, log E {log_e} of 2.995732 (risk 0.05)"
    return [json.dumps({"kind": "ProposalRaised", "revision": 4, "body": {"readings": [text]}})]


def test_a_stranger_recomputes_the_evidence(tmp_path):
    log_e = f"{compute_log_e(245, 3, at_least=0.95):.6f}"
    again = "1 readings recomputed; 0 of other kinds"
    assert run(EVIDENCE, reading("245 of 248", log_e), tmp_path) == again
    assert "log E is" in run(EVIDENCE, reading("246 of 248", log_e), tmp_path)
