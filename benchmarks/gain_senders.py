"""Senders that lose the model's bad units, before a gate on gain: whole replays without an effect.

Half of the cases are the model's by a sampling value, and its arm brings what the other does. The
sender knows the arm and what a case will bring. Of the model's it loses some that bring nothing: it
does not predict them, says that the model failed, or that it was unsure, below the policy's floor.
`python benchmarks/senders.py` prints the rows.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.senders import (
    CELLS,
    DAYS,
    HOUR,
    NO_FILES,
    START,
    SentCases,
    build_history,
    name_site,
    to_instants,
)
from rollout.engine.events import ProposalRaised
from rollout.engine.evidence.frames import RecordFrames, build_outcomes_schema
from rollout.engine.slots.options import ReplayOptions
from rollout.features.replay.replay import replay_records
from rollout.features.replay.requests import ReplayRequest
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.statistics.sampling import compute_sampling_values

UNITS_A_DAY, FIRST_DAY = 80, 6
POLICY = """
rollout: gains
timezone: UTC
charter: {{objective: more profit, cost_in: EUR}}
levers: [{{id: answer, labels: ["yes", "no"]}}]
sites: [{sites}]
stages: [{{id: trial, share: 50%}}, {{id: most, share: 80%}}]
outcomes: [{{id: profit, from: 0, to: 1, in: EUR, better: more, closes: 1d}}]
evidence: {{unit: case, grace: 1d, outside: blind, confidence_floor: 50%,
  sources: {{accounts: [{{account: desk, reviewers: ["*"]}}]}}}}
gates:
  - {{to: trial, require: [{{measure: agreement, at_least: 60%}}],
     minimum: {{units: 30, days: 1, reviewers: 1}}, approvals: [operator]}}
  - {{to: most, require: [{{measure: gain, of: profit, at_least: 0}}], risk: 5%,
     minimum: {{units: 100, days: 7, reviewers: 1}}, approvals: [operator]}}
tick: 1h
"""


@dataclass(frozen=True)
class LosingSending:
    """A way to lose a share of the model's units, all with the worst outcome.

    Attributes:
        name: what it is called.
        says: what the sender says of them: `unpredicted` for nothing, `failed` or `unsure`.
        lost: share of the model's units.
        effect: what the model's arm brings more than the other.
    """

    name: str
    lost: float
    says: str = "unpredicted"
    effect: float = 0.0


SENDINGS = tuple(
    LosingSending(f"{lost * 100:.0f} % of bad units {says}", lost, says)
    for says in ("unpredicted", "failed", "unsure")
    for lost in (0.05, 0.10)
)


def find_gain_days(sending: LosingSending, seed: int, cells: int = CELLS) -> np.ndarray:
    """Return by cell on which day the gate on gain was first met, infinite if never."""
    rng = np.random.default_rng(3_000 + seed)
    cell = np.repeat(np.arange(cells), rng.poisson(UNITS_A_DAY * DAYS, cells))
    occurred = np.sort(rng.random(len(cell)) * DAYS)
    cases = SentCases(rng, rng.permutation(cell), occurred, rng.random(len(cell)) < 0.95)
    is_model = np.array(compute_sampling_values(bytes(32), "stage", cases.keys)) >= 0.5
    profit = (rng.random(len(cell)) < 0.5 + sending.effect * is_model).astype(float)
    is_bad = is_model & (profit == 0) & (occurred > FIRST_DAY)
    is_lost = is_bad & (rng.random(len(cell)) < 2 * sending.lost)
    if sending.says == "unpredicted":
        cases.predicted = np.where(is_lost, np.inf, cases.predicted)
    history = _add_outcomes(build_history(cases), cases, profit)
    history = _spoil(history, pl.Series(cases.keys).filter(pl.Series(is_lost)), sending.says)
    request = ReplayRequest(
        policy=Path(), sources=NO_FILES, options=ReplayOptions(approval_delay=timedelta(0))
    )
    text = POLICY.format(sites=", ".join(name_site(number) for number in range(cells)))
    replayed = replay_records(request, parse_policy(text), history)
    first = np.full(cells, np.inf)
    for event in replayed.result.events:
        if (
            isinstance(event, ProposalRaised)
            and event.cell is not None
            and event.to_stage == "most"
        ):
            number = int(event.cell.site[1:])
            first[number] = min(first[number], (event.at - START) / timedelta(days=1))
    return first


def _add_outcomes(history: RecordFrames, cases: SentCases, profit: np.ndarray) -> RecordFrames:
    outcomes = pl.DataFrame(
        {
            "case_key": cases.keys,
            "outcome:profit": profit,
            "at": to_instants(cases.occurred + 4 * HOUR),
        }
    )
    schema = build_outcomes_schema(("answer",), ("profit",))
    missing = [name for name in schema if name not in outcomes.columns]
    outcomes = outcomes.with_columns(pl.lit(None).alias(name) for name in missing)
    return replace(
        history, outcomes=outcomes.select(pl.col(n).cast(kind) for n, kind in schema.items())
    )


def _spoil(history: RecordFrames, keys: pl.Series, says: str) -> RecordFrames:
    """Return the history with failed or unsure predictions of these cases; others are sure."""
    is_lost = pl.col("case_key").is_in(keys.implode())
    is_failed, is_unsure = (is_lost & (says == name) for name in ("failed", "unsure"))
    answer = "value:answer"
    predictions = history.predictions.with_columns(
        pl.when(is_failed).then(None).otherwise(pl.col(answer)).alias(answer),
        confidence=pl.when(is_unsure).then(0.3).otherwise(0.9),
    )
    return replace(history, predictions=predictions)
