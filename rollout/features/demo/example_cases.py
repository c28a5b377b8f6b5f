"""A case with all that will be known of it, recorded or simulated."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

Answers = Mapping[str, str | None]


class ExamplePrediction(NamedTuple):
    """A version's prediction for a case; an answer is None where it failed."""

    version: str
    answers: Answers
    confidence: float | None
    at: datetime


class ExampleDecision(NamedTuple):
    """A human's decision on a case."""

    reviewer: str
    answers: Answers
    unsure: bool
    at: datetime


class ExampleOutcome(NamedTuple):
    """What became known of a case: right answers, values or a harm."""

    answers: Mapping[str, str]
    values: Mapping[str, float]
    harm: str | None
    at: datetime


class ExampleCase(NamedTuple):
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
