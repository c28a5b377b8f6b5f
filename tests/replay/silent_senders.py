"""Cells whose cases another account registers, and a sender who predicts only some of them."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from rollout.formats.policy.reader import parse_policy
from rollout.tally.frames import (
    build_cases_schema,
    build_decisions_schema,
    build_predictions_schema,
)
from tests.tally.histories import records

START = datetime(2025, 6, 2, tzinfo=UTC)
LABELS = ("bear", "none")


def build_policy(cell_count, require="{measure: agreement, at_least: 95%}", grace="2d"):
    """Return the text of a policy of some sites, as the evidence rules' figures ask for."""
    sites = ", ".join(f"s{number}" for number in range(cell_count))
    return f"""
rollout: silent
timezone: UTC
levers: [{{id: answer, labels: [bear, none]}}]
sites: [{sites}]
evidence: {{unit: case, grace: {grace}, outside: blind, missing_at_most: 50%}}
stages: [{{id: supervised, blind: 100%}}]
gates:
  - {{to: supervised, require: [{require}], risk: 5%,
     minimum: {{units: 100, days: 7, reviewers: 1}}, approvals: [operator]}}
tick: 4h
"""


def build_history(policy, days, find_answers, seed=1, per_day=20):
    """Return the records of cases; `find_answers(rng, truth, at)` gives answers, None for silence.

    Times are days. Predictions come with their case, decisions two hours later.
    """
    rng, sites = np.random.default_rng(seed), [site.id for site in policy.sites]
    count = rng.poisson(per_day * days, len(sites))
    site = np.repeat(sites, count)
    at = rng.random(len(site)) * days
    truth = np.where(rng.random(len(site)) < 0.3, *LABELS)
    answers = find_answers(rng, truth, at)
    keys = np.array([f"k{number}" for number in range(len(site))])
    occurred = [START + timedelta(days=day) for day in at.tolist()]
    is_predicted = np.array([answer is not None for answer in answers])
    cases = pl.DataFrame(
        {"case_key": keys, "site": site, "occurred_at": occurred, "occurred_text": ""}
    )
    predictions = pl.DataFrame(
        {
            "case_key": keys[is_predicted],
            "version": "v1",
            "value:answer": [answer for answer in answers if answer is not None],
            "at": [t for t, is_in in zip(occurred, is_predicted, strict=True) if is_in],
        }
    )
    decisions = pl.DataFrame(
        {
            "case_key": keys,
            "reviewer": "ana",
            "value:answer": truth.tolist(),
            "unsure": False,
            "exposure": "blind",
            "at": [t + timedelta(hours=2) for t in occurred],
        }
    )
    schemas = (build_cases_schema(), build_predictions_schema(["answer"]))
    frames = zip(
        (cases, predictions, decisions), (*schemas, build_decisions_schema(["answer"])), strict=True
    )
    return records(*(fill_columns(frame, schema) for frame, schema in frames))


def fill_columns(frame, schema):
    """Return the frame with all columns of its schema; null where it has none."""
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in schema.items()
    )


def answer_rightly(rng, truth, share):
    """Return answers that are right in a share of the cases."""
    wrong = np.where(truth == LABELS[0], LABELS[1], LABELS[0])
    return np.where(rng.random(len(truth)) < share, truth, wrong).astype(object)


def predict_agreeing_only(rng, truth, _at, share=0.6):
    """Answer only where people will agree, after a first case."""
    answers = answer_rightly(rng, truth, share)
    answers[answers != truth] = None
    return answers


def parse(cell_count, **changes):
    """Return a policy of some sites."""
    return parse_policy(build_policy(cell_count, **changes))
