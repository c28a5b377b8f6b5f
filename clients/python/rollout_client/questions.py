"""A case that needs a decider, and the plain answer to it."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple


class LocalQuestion(NamedTuple):
    """A case that needs a decider; the fields are those of a question to the service."""

    site: str
    at: datetime | None
    version: str
    key: str
    episode: str = ""
    confidence: float | None = None
    attributes: Mapping[str, str] | None = None


class LeverFallback(NamedTuple):
    """The `action` of a lever if no human answers within `after`."""

    lever: str
    action: str
    after: timedelta


class ReadyAnswer(NamedTuple):
    """What a case gets, whenever it occurs."""

    decider: str
    stage: str
    exposure: str
    share: float
    reason: str


class LeasedAnswer(NamedTuple):
    """An answer, and for how long it holds from the question on."""

    answer: ReadyAnswer
    lease: timedelta


def answer_human(reason: str, stage: str = "shadow") -> ReadyAnswer:
    """Return that a human decides, unaware of the model."""
    return ReadyAnswer("human", stage, "blind", 1.0, reason)
