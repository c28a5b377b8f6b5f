"""A simulated history as files that `rollout import` reads."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from rollout.core.policy.policy import Policy
from rollout.services.quickstart.simulated_cases import MODEL_VERSION, CaseSimulator, SimulatedCase

CASE_PREFIX = "quickstart-"
CLERKS = 3
DEFAULT_AGREEMENT = 0.97
DEFAULT_UNITS_PER_DAY = 60.0  # in a cell
MIN_DAYS, EXTRA_DAYS, MAX_DAYS = 14, 7, 60
MAX_CASES = 6_000  # imported in half a minute
RECEIVED_AFTER = timedelta(seconds=2)
PREDICTION_COLUMNS = ("case_key", "site", "occurred_at", "model_version", "confidence")
Row = list[object]
DECIDED_AFTER = timedelta(seconds=8)
NEWEST_AGE = timedelta(seconds=30)  # all records are received before the import
FILES = ("cases.csv", "predictions.csv", "decisions.csv")


@dataclass(frozen=True, slots=True)
class HistoryPlan:
    """Extent of a history: from `since` until `until`, with so many cases at each site."""

    since: datetime
    until: datetime
    cases_per_site: int


def plan_history(policy: Policy, now: datetime) -> HistoryPlan:
    """Return a history long enough for the first gate, of at most 6,000 cases."""
    first_stage = policy.stage_ids[1]
    gate_days = [gate.minimum.days for gate in policy.gates if gate.to == first_stage]
    days = min(MAX_DAYS, max(MIN_DAYS, max(gate_days, default=0) + EXTRA_DAYS))
    units_per_day = policy.expect.units_per_day or DEFAULT_UNITS_PER_DAY
    cases = round(units_per_day * len(policy.windows) * days)
    until = now - NEWEST_AGE
    return HistoryPlan(
        until - timedelta(days=days), until, max(1, min(cases, MAX_CASES // len(policy.sites)))
    )


def build_history_files(
    policy: Policy, plan: HistoryPlan, rng: np.random.Generator
) -> dict[str, bytes]:
    """Return cases with their times of receipt, predictions and decisions, as CSV."""
    levers = [lever.id for lever in policy.levers]
    attributes = sorted({name for window in policy.windows for name in window.when})
    answer_columns = ["label"] if len(levers) == 1 else levers
    cases: list[Row] = [["case_key", "site", "occurred_at", "received_at", "episode", *attributes]]
    predictions: list[Row] = [[*PREDICTION_COLUMNS, *answer_columns]]
    decisions: list[Row] = [["case_key", "reviewer", "decided_at", "exposure", *answer_columns]]
    for key, at, case in _simulate_cases(policy, plan, rng):
        received = (at + RECEIVED_AFTER).isoformat()
        case_attributes = [case.attributes[name] for name in attributes]
        cases.append([key, case.site, at.isoformat(), received, case.episode, *case_attributes])
        predicted = [case.predicted[lever] for lever in levers]
        facts = [key, case.site, at.isoformat(), MODEL_VERSION, case.confidence]
        predictions.append([*facts, *predicted])
        decided_at = (at + DECIDED_AFTER).isoformat()
        decided = [case.decided[lever] for lever in levers]
        clerks = choose_clerks(policy, rng)
        decisions += [[key, clerk, decided_at, "blind", *decided] for clerk in clerks]
    tables = (cases, predictions, decisions)
    return {name: _format_csv(rows) for name, rows in zip(FILES, tables, strict=True)}


def _simulate_cases(
    policy: Policy, plan: HistoryPlan, rng: np.random.Generator
) -> Iterator[tuple[str, datetime, SimulatedCase]]:
    simulator = CaseSimulator(policy, rng, CASE_PREFIX.rstrip("-"))
    agreement = policy.expect.agreement or DEFAULT_AGREEMENT
    for site in policy.sites_by_id:
        for number, at in enumerate(_choose_times(plan, rng), start=1):
            yield f"{CASE_PREFIX}{site}-{number:05}", at, simulator.simulate_case(site, agreement)


def choose_clerks(policy: Policy, rng: np.random.Generator) -> list[str]:
    """Return the reviewers who decide a case: as many as its evidence needs."""
    evidence = policy.evidence
    count = evidence.verdicts + int(rng.random() < evidence.second_verdict)
    first = int(rng.integers(CLERKS))
    return [f"clerk-{1 + (first + index) % max(CLERKS, count)}" for index in range(count)]


def _choose_times(plan: HistoryPlan, rng: np.random.Generator) -> list[datetime]:
    span = plan.until - plan.since
    return [plan.since + span * share for share in np.sort(rng.random(plan.cases_per_site))]


def _format_csv(rows: Iterable[Row]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
