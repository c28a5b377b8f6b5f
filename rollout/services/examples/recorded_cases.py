"""An example's cases with their predictions, decisions and outcomes, by time."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import polars as pl

from rollout.core.policy.policy import Policy
from rollout.formats.policy.reader import read_policy
from rollout.services.examples.catalog import ExampleSystem, build_replay_request
from rollout.services.replay.replay import read_request_records
from rollout.tally.frames import ATTRIBUTE_PREFIX, OUTCOME_PREFIX, VALUE_PREFIX, RecordFrames

MEDIA: Final = "media"
"""Attribute of a case that names its picture."""
Answers = Mapping[str, str | None]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ExamplePrediction:
    """A version's prediction for a case; an answer is None where it failed."""

    version: str
    answers: Answers
    confidence: float | None
    at: datetime


@dataclass(frozen=True, slots=True)
class ExampleDecision:
    """A human's decision on a case."""

    reviewer: str
    answers: Answers
    unsure: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class ExampleOutcome:
    """What became known of a case: right answers, values or a harm."""

    answers: Mapping[str, str]
    values: Mapping[str, float]
    harm: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class ExampleCase:
    """A case with all its records.

    `at` is on the site's clock, `media` names its picture; `is_planted` says that it was declared
    before anything was known of it.
    """

    key: str
    site: str
    at: datetime
    episode: str | None
    attributes: Mapping[str, str]
    media: str
    predictions: tuple[ExamplePrediction, ...]
    decisions: tuple[ExampleDecision, ...]
    outcomes: tuple[ExampleOutcome, ...]
    is_planted: bool = False


def load_cases(example: ExampleSystem) -> tuple[ExampleCase, ...]:
    """Return an example's cases that have a prediction, planted ones too, by time."""
    policy = read_policy(example.policy_path)
    records = read_request_records(build_replay_request(example), policy)
    cases = list(_CaseBuilder.build(policy, records).list_cases(records.cases))
    if records.planted is not None:
        planted = _CaseBuilder.build(policy, records.planted)
        cases += planted.list_cases(records.planted.cases, is_planted=True)
    return tuple(sorted(cases, key=lambda case: (case.at, case.key)))


@dataclass(frozen=True, slots=True)
class _CaseBuilder:
    """Puts the records of a case together; the mappings are by its key."""

    policy: Policy
    predictions: Mapping[str, Sequence[Row]]
    decisions: Mapping[str, Sequence[Row]]
    outcomes: Mapping[str, Sequence[Row]]

    @classmethod
    def build(cls, policy: Policy, records: RecordFrames) -> "_CaseBuilder":
        """Return the builder of a history's cases."""
        return cls(
            policy,
            _group_rows(records.predictions),
            _group_rows(records.decisions),
            _group_rows(records.outcomes),
        )

    def list_cases(self, cases: pl.DataFrame, *, is_planted: bool = False) -> Iterator[ExampleCase]:
        """Yield each case with its records."""
        for row in cases.iter_rows(named=True):
            if row["case_key"] in self.predictions and row["occurred_at"] is not None:
                yield self._build_case(row, is_planted=is_planted)

    def _build_case(self, case_row: Row, *, is_planted: bool) -> ExampleCase:
        key, site = case_row["case_key"], self.policy.sites_by_id[case_row["site"]]
        at = case_row["occurred_at"].astimezone(ZoneInfo(site.timezone))
        attributes = _select_values(case_row, ATTRIBUTE_PREFIX)
        predictions = [self._build_prediction(row, at) for row in self.predictions[key]]
        decisions = [self._build_decision(row) for row in self.decisions.get(key, ())]
        return ExampleCase(
            key=key,
            site=case_row["site"],
            at=at,
            episode=case_row["episode"],
            attributes={name: text for name, text in attributes.items() if name != MEDIA},
            media=attributes.get(MEDIA, ""),
            predictions=tuple(predictions),
            decisions=tuple(sorted(decisions, key=lambda decision: decision.at)),
            outcomes=tuple(self._build_outcome(row) for row in self.outcomes.get(key, ())),
            is_planted=is_planted,
        )

    def _read_answers(self, row: Row) -> dict[str, str | None]:
        return {lever.id: row[VALUE_PREFIX + lever.id] for lever in self.policy.levers}

    def _build_prediction(self, row: Row, case_at: datetime) -> ExamplePrediction:
        return ExamplePrediction(
            row["version"], self._read_answers(row), row["confidence"], row["at"] or case_at
        )

    def _build_decision(self, row: Row) -> ExampleDecision:
        return ExampleDecision(row["reviewer"], self._read_answers(row), row["unsure"], row["at"])

    def _build_outcome(self, row: Row) -> ExampleOutcome:
        answers = {
            lever: answer for lever, answer in self._read_answers(row).items() if answer is not None
        }
        return ExampleOutcome(answers, _select_values(row, OUTCOME_PREFIX), row["harm"], row["at"])


def select_records_until(records: RecordFrames, until: datetime) -> RecordFrames:
    """Return the records of the cases that occurred by an instant."""
    cases = records.cases.filter(pl.col("occurred_at") <= until)
    keys = cases.select("case_key")
    return replace(
        records,
        cases=cases,
        predictions=records.predictions.join(keys, on="case_key", how="semi"),
        decisions=records.decisions.join(keys, on="case_key", how="semi"),
        outcomes=records.outcomes.join(keys, on="case_key", how="semi"),
        planted=records.planted and select_records_until(records.planted, until),
    )


def _group_rows(frame: pl.DataFrame) -> dict[str, list[Row]]:
    rows = defaultdict(list)
    for row in frame.iter_rows(named=True):
        rows[row["case_key"]].append(row)
    return rows


def _select_values(row: Row, prefix: str) -> dict[str, Any]:
    """Return the values of columns with a prefix, by the rest of their names; no nulls."""
    return {
        column.removeprefix(prefix): value
        for column, value in row.items()
        if column.startswith(prefix) and value is not None
    }
