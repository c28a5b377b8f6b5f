"""Simulated cases that come now, with a fault if one is planted."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Final

import numpy as np

from rollout.core.policy.policy import Policy
from rollout.features.demo.accounts import get_decisions_account, get_model_account
from rollout.features.demo.case_records import CaseRecords, SiteClients
from rollout.features.demo.example_cases import ExampleCase
from rollout.features.demo.simulated_cases import CaseSimulator
from rollout.formats.policy import scalars

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


@dataclass(slots=True)
class LiveCases:
    """Cases that come now, at all sites of a policy.

    Attributes:
        policy: of the rollout.
        rng: source of all chance.
        prefix: of case keys, unique among simulations.
        agreement: probability that model and humans agree.
        fault: None for none.
    """

    policy: Policy
    rng: np.random.Generator
    prefix: str
    agreement: float
    fault: Fault | None = None
    _simulator: CaseSimulator = field(init=False)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self._simulator = CaseSimulator(self.policy, self.rng, self.prefix)

    def create_cases(self, now: datetime, elapsed: timedelta, seconds: float) -> list[ExampleCase]:
        """Return the cases of the last `seconds`."""
        per_site = min(CASES_PER_SECOND, MAX_CASES_PER_SECOND / len(self.policy.sites))
        return [
            self._create_case(site, now, elapsed)
            for site in self.policy.sites_by_id
            for _ in range(self.rng.poisson(per_site * seconds))
        ]

    def _create_case(self, site: str, now: datetime, elapsed: timedelta) -> ExampleCase:
        deciding_time = min(
            timedelta(seconds=float(self.rng.uniform(*DECISION_SECONDS))),
            self.policy.evidence.grace / 2,
        )
        key = f"{self.prefix}-{site}-{next(self._numbers):06}"
        agreement = self.get_agreement(site, elapsed)
        return self._simulator.simulate_case(key, site, now, agreement, deciding_time)

    def get_agreement(self, site: str, elapsed: timedelta) -> float:
        """Return the probability of agreement at a site, with the fault if it began."""
        fault = self.fault
        if fault is None or site != fault.site or elapsed < fault.after:
            return self.agreement
        return max(0.0, self.agreement - DRIFT_LOSS)


def build_live_records(policy: Policy) -> CaseRecords:
    """Return what the clients of a policy's sites send; humans act as they decide."""
    return CaseRecords(
        policy,
        lambda site: SiteClients(get_model_account(site), get_decisions_account(site)),
        lambda _case: {},
        acting_time=timedelta(0),
    )
