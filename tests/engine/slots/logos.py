"""A stream of pictures with up to ten logos: made from a seed, answered with sets of labels."""

import csv
import json
from datetime import UTC, datetime, timedelta

import numpy as np

from rollout.engine.files.files import RecordPaths
from rollout.kernel.units import format_label_set

START = datetime(2027, 3, 1, tzinfo=UTC)
LOGOS = tuple(f"logo-{letter}" for letter in "abcdefghij")
POLICY = """
rollout: sponsors
timezone: UTC
levers:
  - id: logos
    labels: [logo-a, logo-b, logo-c, logo-d, logo-e, logo-f, logo-g, logo-h, logo-i, logo-j]
    many: true
    overlap: 60%
sites: [stadium]
evidence: {unit: case, grace: 2h, outside: blind}
stages: [{id: supervised, blind: 50%}, {id: autonomous, audit: 20%}]
gates:
  - to: supervised
    require:
      - {measure: agreement, at_least: 80%}
      - {measure: recall, label: logo-j, at_least: 80%}
guards: [{measure: agreement, at_least: 60%, false_alarm_every: 500}]
tick: 1h
"""


def build_sets(cases=600, seed=16, misses=0.02):
    """Return the labels of humans, a second reviewer and the model as ones and zeros."""
    generator = np.random.default_rng(seed)
    human = generator.random((cases, 10)) < np.linspace(0.05, 0.5, 10)
    second = human ^ (generator.random(human.shape) < 0.02)
    model = human ^ (generator.random(human.shape) < misses)
    return human, second, model


def format_sets(rows):
    """Return each row as a list of labels."""
    return [[label for label, chosen in zip(LOGOS, row, strict=True) if chosen] for row in rows]


def write_stream(folder, **options):
    """Write predictions as `b;a`, decisions as lists; every fifth case has a second reviewer."""
    human, second, model = map(format_sets, build_sets(**options))
    predictions, decisions = [], []
    for number, labels in enumerate(model):
        at = START + timedelta(minutes=30 * number)
        text = ";".join(reversed(labels)) or format_label_set([])
        key, decided_at = f"shot-{number}", (at + timedelta(minutes=5)).isoformat()
        predictions.append((key, "stadium", at.isoformat(), "v1", text, 0.9))
        row = {"case_key": key, "exposure": "blind", "decided_at": decided_at}
        decisions.append({**row, "reviewer": "ana", "label": human[number]})
        if number % 5 == 0:
            decisions.append({**row, "reviewer": "bo", "label": second[number][::-1]})
    header = ("case_key", "site", "occurred_at", "model_version", "label", "confidence")
    with (folder / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *predictions])
    (folder / "decisions.jsonl").write_text("\n".join(map(json.dumps, decisions)))
    (folder / "policy.yaml").write_text(POLICY)
    return RecordPaths(folder / "predictions.csv", folder / "decisions.jsonl")
