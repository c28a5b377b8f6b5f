"""An example's cases with their predictions, decisions and outcomes, by time.

The pictures that reviewers of an example see, as `data:` addresses.
"""

from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import polars as pl

from rollout.engine.evidence.frames import (
    ATTRIBUTE_PREFIX,
    OUTCOME_PREFIX,
    VALUE_PREFIX,
    RecordFrames,
)
from rollout.features.demo.catalog import ExampleSystem, build_replay_request
from rollout.features.demo.digit_pictures import DIGITS_FILE, DigitPictures, load_digit_pictures
from rollout.features.demo.simulated_cases import (
    ExampleCase,
    ExampleDecision,
    ExampleOutcome,
    ExamplePrediction,
)
from rollout.features.replay.requests import read_request_records
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import load_policy

MEDIA: Final = "media"
"""Attribute of a case that names its picture."""


def load_cases(example: ExampleSystem, *, until: datetime | None = None) -> tuple[ExampleCase, ...]:
    """Return an example's cases that have a prediction, planted ones too, by time.

    With `until` only those that occurred by then, and all planted ones.
    """
    policy = load_policy(example.policy_path)
    records = read_request_records(build_replay_request(example), policy)
    natural = records if until is None else select_records_until(records, until)
    cases = list(_list_cases(policy, natural))
    if records.planted is not None:
        cases += _list_cases(policy, records.planted, is_planted=True)
    return tuple(sorted(cases, key=lambda case: (case.at, case.key)))


def _list_cases(
    policy: Policy, records: RecordFrames, *, is_planted: bool = False
) -> Iterator[ExampleCase]:
    """Yield each case with its records, column by column: an example has ten thousands."""
    cases = records.cases.filter(pl.col("occurred_at").is_not_null())
    zones = {site.id: ZoneInfo(site.timezone) for site in policy.sites}
    columns = (cases["case_key"], cases["site"], cases["occurred_at"], cases["episode"])
    rows = list(zip(*columns, strict=True))
    times = {key: at.astimezone(zones[site]) for key, site, at, _ in rows}
    predictions = _group_predictions(policy, records.predictions, times)
    decisions = _group_decisions(policy, records.decisions)
    outcomes = _group_outcomes(policy, records.outcomes)
    for row, attributes in zip(rows, _list_values(cases, ATTRIBUTE_PREFIX), strict=True):
        key, site, _, episode = row
        if key in predictions:
            yield ExampleCase(
                key=key,
                site=site,
                at=times[key],
                episode=episode,
                media=attributes.pop(MEDIA, ""),
                attributes=attributes,
                predictions=tuple(predictions[key]),
                decisions=tuple(sorted(decisions[key], key=lambda decision: decision.at)),
                outcomes=tuple(outcomes[key]),
                is_planted=is_planted,
            )


def _group_predictions(
    policy: Policy, frame: pl.DataFrame, times: Mapping[str, datetime]
) -> Mapping[str, list[ExamplePrediction]]:
    """Return the predictions by case; one without a time of its own has its case's."""
    groups = defaultdict(list)
    columns = (frame["case_key"], frame["version"], frame["confidence"], frame["at"])
    for answers, row in zip(_list_answers(policy, frame), zip(*columns, strict=True), strict=True):
        key, version, confidence, at = row
        if key in times:
            prediction = ExamplePrediction(version, answers, confidence, at or times[key])
            groups[key].append(prediction)
    return groups


def _group_decisions(policy: Policy, frame: pl.DataFrame) -> Mapping[str, list[ExampleDecision]]:
    groups = defaultdict(list)
    columns = (frame["case_key"], frame["reviewer"], frame["unsure"], frame["at"])
    for answers, row in zip(_list_answers(policy, frame), zip(*columns, strict=True), strict=True):
        key, reviewer, unsure, at = row
        groups[key].append(ExampleDecision(reviewer, answers, unsure, at))
    return groups


def _group_outcomes(policy: Policy, frame: pl.DataFrame) -> Mapping[str, list[ExampleOutcome]]:
    groups = defaultdict(list)
    contents = zip(_list_answers(policy, frame), _list_values(frame, OUTCOME_PREFIX), strict=True)
    columns = (frame["case_key"], frame["harm"], frame["at"])
    for (answers, values), row in zip(contents, zip(*columns, strict=True), strict=True):
        key, harm, at = row
        known_answers = {lever: text for lever, text in answers.items() if text is not None}
        groups[key].append(ExampleOutcome(known_answers, values, harm, at))
    return groups


def _list_answers(policy: Policy, frame: pl.DataFrame) -> Iterator[dict[str, str | None]]:
    """Yield the answer on each lever, row by row."""
    levers = [lever.id for lever in policy.levers]
    for row in frame.select(VALUE_PREFIX + lever for lever in levers).iter_rows():
        yield dict(zip(levers, row, strict=True))


def _list_values(frame: pl.DataFrame, prefix: str) -> Iterator[dict[str, Any]]:
    """Yield the values of columns with a prefix, by the rest of their names; no nulls."""
    columns = [column for column in frame.columns if column.startswith(prefix)]
    names = [column.removeprefix(prefix) for column in columns]
    if not columns:
        yield from ({} for _ in range(frame.height))
    for row in frame.select(columns).iter_rows():
        yield {name: value for name, value in zip(names, row, strict=True) if value is not None}


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


PICTURE = "picture"


@dataclass
class CasePictures:
    """The pictures of an example's cases: files beside its records, or drawn digits."""

    example: ExampleSystem
    _addresses: dict[Path, str] = field(default_factory=dict, repr=False)

    def find_media(self, case: ExampleCase) -> dict[str, str]:
        """Return the picture of a case by its name; nothing if the example has none."""
        if self._digits is not None:
            return {PICTURE: self._digits.find_picture(case.attributes, case.at)}
        if not case.media:
            return {}
        return {PICTURE: self._read_file(self.example.records_folder / case.media)}

    @cached_property
    def _digits(self) -> DigitPictures | None:
        has_digits = (self.example.records_folder / DIGITS_FILE).is_file()
        return load_digit_pictures(self.example) if has_digits else None

    def _read_file(self, path: Path) -> str:
        if path not in self._addresses:
            content = b64encode(path.read_bytes()).decode("ascii")
            self._addresses[path] = f"data:image/png;base64,{content}"
        return self._addresses[path]
