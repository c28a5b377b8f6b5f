"""Simulated live traffic: questions of model clients, then decisions and actions.

Nothing is sent here: a command sends the questions and records, each with its site's key.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

import numpy as np

from rollout.core.policy.policy import Policy
from rollout.features.demo.simulated_cases import (
    MODEL_VERSION,
    CaseSimulator,
    SimulatedCase,
    choose_clerks,
)
from rollout.features.demo.starter_accounts import get_decisions_account, get_model_account
from rollout.formats.policy import scalars

JsonObject = dict[str, Any]
CASES_PER_SECOND: Final = 3.0  # at each site
MAX_CASES_PER_SECOND: Final = 20.0  # at all sites together
DECISION_SECONDS: Final = (1.0, 5.0)
DRIFT: Final = "drift"
DRIFT_LOSS: Final = 0.4
"""Share of cases in which a drifting model becomes wrong."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault at one site, `after` the start of the simulation."""

    kind: str
    after: timedelta
    site: str


def parse_fault(text: str, policy: Policy) -> Fault:
    """Return the fault that `KIND@TIME` plants at the policy's first site.

    Raises:
        ValueError: the text has another form, or the kind is unknown.
    """
    kind, separator, after = text.partition("@")
    if kind != DRIFT or not separator:
        raise ValueError(f"--fault {text} is no fault; write drift@2m (kind, @, time from now)")
    try:
        return Fault(kind, scalars.read_duration(after), policy.sites[0].id)
    except ValueError as error:
        raise ValueError(f"--fault {text}: {error}; write drift@2m") from None


@dataclass(frozen=True, slots=True)
class LiveCase:
    """A case with its key and time."""

    key: str
    at: datetime
    simulated: SimulatedCase


@dataclass(slots=True)
class LiveTraffic:
    """Traffic at all sites of a policy.

    Attributes:
        policy: of the rollout.
        rng: source of all chance.
        prefix: of case keys, unique among simulations.
        agreement: probability that model and humans agree.
        fault: None for none.
        counts: sent cases by decider.
    """

    policy: Policy
    rng: np.random.Generator
    prefix: str
    agreement: float
    fault: Fault | None = None
    counts: Counter[str] = field(default_factory=Counter)
    _simulator: CaseSimulator = field(init=False)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _scheduled: list[tuple[datetime, int, str, JsonObject]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._simulator = CaseSimulator(self.policy, self.rng, self.prefix)

    def create_cases(
        self, now: datetime, elapsed: timedelta, seconds: float
    ) -> dict[str, list[LiveCase]]:
        """Return the cases of the last `seconds` by site; sites without any are missing."""
        per_site = min(CASES_PER_SECOND, MAX_CASES_PER_SECOND / len(self.policy.sites))
        cases_by_site = {
            site: [
                LiveCase(
                    f"{self.prefix}-{site}-{next(self._numbers):06}",
                    now,
                    self._simulator.simulate_case(site, self.get_agreement(site, elapsed)),
                )
                for _ in range(self.rng.poisson(per_site * seconds))
            ]
            for site in self.policy.sites_by_id
        }
        return {site: cases for site, cases in cases_by_site.items() if cases}

    def get_agreement(self, site: str, elapsed: timedelta) -> float:
        """Return the probability of agreement at a site, with the fault if it began."""
        fault = self.fault
        if fault is None or site != fault.site or elapsed < fault.after:
            return self.agreement
        return max(0.0, self.agreement - DRIFT_LOSS)

    def schedule_effects(self, cases: Sequence[LiveCase], answers: Sequence[JsonObject]) -> None:
        """Schedule decisions and actions that follow from the assignments."""
        for case, answer in zip(cases, answers, strict=True):
            self.counts[answer["decider"]] += 1
            if answer["decider"] == "model":
                self._schedule_model_action(case, answer)
            if answer["decider"] != "model" or answer["audited"]:
                self._schedule_decisions(case, answer)

    @property
    def has_scheduled_records(self) -> bool:
        """Return whether decisions or actions are still to be sent."""
        return bool(self._scheduled)

    def take_due(self, now: datetime) -> dict[str, list[JsonObject]]:
        """Return the records that are due, by the account that sends them."""
        due: dict[str, list[JsonObject]] = {}
        while self._scheduled and self._scheduled[0][0] <= now:
            _, _, account, item = heappop(self._scheduled)
            due.setdefault(account, []).append(item)
        return due

    def _schedule_model_action(self, case: LiveCase, answer: JsonObject) -> None:
        account = get_model_account(case.simulated.site)
        details = {"by": "model", "version": MODEL_VERSION, "permit": answer["permit"]}
        for item in self._build_actions(case, case.simulated.predicted, case.at):
            self._schedule(case.at, account, item | details)

    def _schedule_decisions(self, case: LiveCase, answer: JsonObject) -> None:
        site, decided = case.simulated.site, case.simulated.decided
        delay_limit = self.policy.evidence.grace.total_seconds() / 2
        delay = min(float(self.rng.uniform(*DECISION_SECONDS)), delay_limit)
        at, account = case.at + timedelta(seconds=delay), get_decisions_account(site)
        for clerk in choose_clerks(self.policy, self.rng):
            self._schedule(at, account, _build_decision(case, clerk, answer["exposure"], at))
        if answer["decider"] != "model":
            for item in self._build_actions(case, decided, at):
                self._schedule(at, account, item | {"by": "person"})

    def _build_actions(
        self, case: LiveCase, answers: Mapping[str, str], at: datetime
    ) -> Iterator[JsonObject]:
        """Yield the action on each lever; a number is its own action."""
        for lever in self.policy.levers:
            answer = answers[lever.id]
            action = answer if lever.number is not None else lever.find_action(answer)
            item = {"kind": "action", "key": case.key, "lever": lever.id, "action": action}
            yield {**item, "at": at.isoformat()}

    def _schedule(self, at: datetime, account: str, item: JsonObject) -> None:
        heappush(self._scheduled, (at, next(self._numbers), account, item))


def build_question(case: LiveCase) -> JsonObject:
    """Return the question of a case, with the model's prediction."""
    simulated = case.simulated
    prediction = {"answers": dict(simulated.predicted), "confidence": simulated.confidence}
    return {
        "site": simulated.site,
        "at": case.at.isoformat(),
        "version": MODEL_VERSION,
        "key": case.key,
        "episode": simulated.episode,
        "confidence": simulated.confidence,
        "attributes": dict(simulated.attributes),
        "prediction": prediction,
    }


def _build_decision(case: LiveCase, clerk: str, exposure: str, at: datetime) -> JsonObject:
    return {
        "kind": "decision",
        "key": case.key,
        "reviewer": clerk,
        "answers": dict(case.simulated.decided),
        "exposure": exposure,
        "submitted_at": at.isoformat(),
    }
