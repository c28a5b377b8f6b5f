"""What each confidence floor counts of every measure of a gate, on units counted by hand."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from rollout.engine.files.files import RecordPaths
from rollout.features.replay.replay import build_replay_inputs, replay_files
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.kernel.policy.cell_evidence import list_floors
from rollout.kernel.policy.gates import compute_condition_log_e

pytestmark = pytest.mark.slow

POLICY = """
rollout: mail
timezone: UTC
levers:
  - id: desk
    labels: [claims, sales]
    actions: {claims: pay, sales: hold}
    costs: [{did: pay, right: hold, cost: 4}, {cost: 1}]
sites: [lisbon]
stages: [{id: supervised, blind: 100%}]
evidence:
  unit: case
  grace: 1h
  outside: blind
  second_verdict: 100%
  confidence_floors: [0%, 60%, 80%, 90%]
gates:
  - {to: supervised, require: [CONDITION], minimum: {units: 1, days: 0}}
tick: 1h
"""
# the model's label, the human's, a second human's, confidence
UNITS = (
    ("claims", "claims", "claims", 0.95),
    ("claims", "claims", None, 0.95),
    ("claims", "sales", "claims", 0.9),
    ("claims", "claims", None, 1.0),
    ("sales", "sales", None, 0.85),
    ("sales", "claims", "claims", 0.8),
    ("claims", "claims", None, 0.85),
    ("sales", "sales", "sales", 0.6),
    ("claims", None, None, 0.7),
    ("claims", "sales", "sales", 0.59),
    ("sales", "sales", None, None),  # without a confidence a human decides it: no evidence
)
LABEL = ", label: claims"
COUNTS = {  # at 0, 60, 80 and 90 %
    "agreement, at_least: 80%": [(6, 4), (6, 3), (5, 2), (3, 1)],
    f"recall, at_least: 80%{LABEL}": [(4, 1), (4, 1), (4, 1), (3, 0)],
    f"precision, at_least: 80%{LABEL}": [(4, 3), (4, 2), (4, 1), (3, 1)],
    "cost, at_most: 1": [(6, 1, 3), (6, 1, 2), (5, 1, 1), (3, 0, 1)],  # of level 0, 1, 4
}
START = datetime(2027, 1, 4, tzinfo=UTC)


def replay_units(folder, condition):
    predictions, decisions = [], []
    for i, (label, human, second, confidence) in enumerate(UNITS):
        at = START + timedelta(minutes=i)
        predictions.append((f"c{i}", "lisbon", at.isoformat(), "v1", label, confidence))
        for name, answer in (("ann", human), ("bo", second)):
            if answer is not None:
                decisions.append((f"c{i}", name, answer, (at + timedelta(minutes=1)).isoformat()))
    paths = RecordPaths(folder / "predictions.csv", folder / "decisions.csv")
    columns = ("case_key", "site", "occurred_at", "model_version", "label", "confidence")
    pl.DataFrame(predictions, columns, orient="row").write_csv(paths.predictions)
    columns = ("case_key", "reviewer", "label", "decided_at")
    pl.DataFrame(decisions, columns, orient="row").write_csv(paths.decisions)
    text = POLICY.replace("CONDITION", f"{{measure: {condition}}}")
    (folder / "policy.yaml").write_text(text, encoding="utf-8")
    return replay_files(ReplayRequest(folder / "policy.yaml", paths))


@pytest.mark.parametrize("condition", COUNTS)
def test_a_floor_counts_the_units_at_or_above_it(condition, tmp_path):
    files = replay_units(tmp_path, condition)
    (view,) = files.result.views.values()
    gate = files.policy.gates[0]
    (asked,) = gate.require
    counted = [tuple(floor.attempt_window.get_counts(asked)[-1]) for floor in view.floor_views]
    assert counted == COUNTS[condition]
    assert len(counted) == len(list_floors(files.policy.evidence))
    (evidence,) = compute_report_facts(build_replay_inputs(files)).evidence
    log_e = [compute_condition_log_e(asked, row, files.policy) for row in counted]
    assert [floor.log_e for floor in evidence.floors] == pytest.approx(log_e)
    assert [floor.undecided_units for floor in evidence.floors] == [1, 1, 0, 0]
