"""Simulated cases of a policy: what the model predicts and what humans decide."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rollout.core.policy.label_sets import do_sets_agree, format_label_set, split_label_set
from rollout.core.policy.levers import Lever, Number
from rollout.core.policy.policy import Policy

MODEL_VERSION = "v1"
EPISODE_SHARE = 0.5
"""Share of cases that continue the site's last episode, where the policy counts episodes."""
SURE, UNSURE = (0.85, 0.99), (0.5, 0.9)
"""Range of the confidence where the model agrees with humans, and where it does not."""
OFF_BY = 3.0
"""Tolerances by which a wrong number differs."""


@dataclass(frozen=True, slots=True)
class SimulatedCase:
    """A case with the answers of the model and of humans, by lever."""

    site: str
    episode: str | None
    attributes: Mapping[str, str]
    predicted: Mapping[str, str]
    decided: Mapping[str, str]
    confidence: float


@dataclass(slots=True)
class CaseSimulator:
    """Simulates cases that fit a policy.

    Attributes:
        policy: its levers, expected labels, attributes of windows and unit of evidence are used.
        rng: source of all chance.
        prefix: of episode keys, unique in the rollout.
    """

    policy: Policy
    rng: np.random.Generator
    prefix: str
    _episodes: dict[str, int] = field(default_factory=dict)

    def simulate_case(self, site: str, agreement: float) -> SimulatedCase:
        """Return a case in which model and humans agree with a probability."""
        decided = {lever.id: self._choose_answer(lever) for lever in self.policy.levers}
        predicted, agrees = dict(decided), self.rng.random() < agreement
        if not agrees:
            lever = self.policy.levers[self.rng.integers(len(self.policy.levers))]
            predicted[lever.id] = self._choose_wrong_answer(lever, decided[lever.id])
        return SimulatedCase(
            site=site,
            episode=self._find_episode(site),
            attributes=self._choose_attributes(),
            predicted=predicted,
            decided=decided,
            confidence=round(float(self.rng.uniform(*(SURE if agrees else UNSURE))), 3),
        )

    def _choose_answer(self, lever: Lever) -> str:
        if lever.number is not None:
            return _format_number(self.rng.uniform(lever.number.low, lever.number.high))
        if lever.many:
            return self._choose_set(lever)
        shares = compute_label_shares(self.policy, lever)
        return str(self.rng.choice(lever.labels, p=shares))

    def _choose_wrong_answer(self, lever: Lever, answer: str) -> str:
        if lever.number is not None:
            return _shift_number(lever.number, float(answer))
        if lever.many:
            return self._choose_other_set(lever, answer)
        others = [label for label in lever.labels if label != answer]
        return str(self.rng.choice(others)) if others else answer

    def _choose_set(self, lever: Lever) -> str:
        """Return a set that has each label by its own chance."""
        shares = compute_label_shares(self.policy, lever)
        is_chosen = self.rng.random(len(shares)) < np.array(shares)
        return format_label_set(np.array(lever.labels)[is_chosen].tolist())

    def _choose_other_set(self, lever: Lever, answer: str) -> str:
        """Return a set that does not agree: labels are added or removed until it doesn't."""
        labels, other = set(split_label_set(answer)), answer
        for label in self.rng.permutation(lever.labels):
            labels ^= {str(label)}
            other = format_label_set(labels)
            if not do_sets_agree(answer, other, lever.overlap):
                break
        return other

    def _choose_attributes(self) -> dict[str, str]:
        """Return a value for each attribute that a window requires."""
        values: dict[str, list[str]] = {}
        for window in self.policy.windows:
            for attribute, allowed_values in window.when.items():
                values.setdefault(attribute, []).extend(allowed_values)
        return {attribute: str(self.rng.choice(allowed)) for attribute, allowed in values.items()}

    def _find_episode(self, site: str) -> str | None:
        if self.policy.evidence.unit != "episode":
            return None
        if site not in self._episodes or self.rng.random() > EPISODE_SHARE:
            self._episodes[site] = self._episodes.get(site, 0) + 1
        return f"{self.prefix}-{site}-episode-{self._episodes[site]}"


def compute_label_shares(policy: Policy, lever: Lever) -> list[float]:
    """Return the share of each label: as the policy expects, else equal.

    The labels of a set have shares of their own, which need not add up to 1.
    """
    expected = dict(policy.expect.labels)
    stated = [expected.get(f"{lever.id}/{label}", expected.get(label)) for label in lever.labels]
    if lever.many:
        return [1 / len(stated) if share is None else share for share in stated]
    unstated_count = stated.count(None)
    rest = max(0.0, 1 - sum(share or 0.0 for share in stated))
    shares = [rest / unstated_count if share is None else share for share in stated]
    return [share / sum(shares) for share in shares]


def _shift_number(number: Number, answer: float) -> str:
    """Return a number outside the tolerance, inside the range if possible."""
    distance = OFF_BY * number.tolerance.compute_distance(answer) or (number.high - number.low) / 2
    shifted = answer + distance
    return _format_number(shifted if shifted <= number.high else answer - distance)


def _format_number(value: float) -> str:
    return f"{value:.6g}"
