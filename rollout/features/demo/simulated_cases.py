"""Simulated cases of a policy, in a history or live, and what clients send about a case.

A case has all that will be known of it: what the model predicts, what humans decide, and outcomes.
It may be recorded or simulated. Live cases come now, with a fault if one is planted.

Clients send a case's question and the records that follow from the answer, as API items.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Final, NamedTuple

import numpy as np

from rollout.features.demo.accounts import SiteClients, get_site_clients
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files import fields
from rollout.kernel.units import Lever, Number, do_sets_agree, format_label_set, split_label_set

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


MODEL_VERSION = "v1"
EPISODE_SHARE = 0.5
"""Share of cases that continue the site's last episode, where the policy counts episodes."""
SURE, UNSURE = (0.85, 0.99), (0.5, 0.9)
"""Range of the confidence where the model agrees with humans, and where it does not."""
OFF_BY = 3.0
"""Tolerances by which a wrong number differs."""


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

    def simulate_case(
        self, key: str, site: str, at: datetime, agreement: float, deciding_time: timedelta
    ) -> ExampleCase:
        """Return a case in which model and humans agree with a probability.

        Reviewers, as many as the evidence needs, decide it `deciding_time` after it occurred.
        """
        decided = {lever.id: self._choose_answer(lever) for lever in self.policy.levers}
        predicted, agrees = dict(decided), self.rng.random() < agreement
        if not agrees:
            lever = self.policy.levers[self.rng.integers(len(self.policy.levers))]
            predicted[lever.id] = self._choose_wrong_answer(lever, decided[lever.id])
        episode, attributes = self._find_episode(site), self._choose_attributes()
        confidence = round(float(self.rng.uniform(*(SURE if agrees else UNSURE))), 3)
        return ExampleCase(
            key=key,
            site=site,
            at=at,
            episode=episode,
            attributes=attributes,
            media="",
            predictions=(ExamplePrediction(MODEL_VERSION, predicted, confidence, at),),
            decisions=tuple(
                ExampleDecision(clerk, decided, unsure=False, at=at + deciding_time)
                for clerk in self._choose_clerks()
            ),
            outcomes=(),
        )

    def _choose_clerks(self) -> list[str]:
        """Return the reviewers who decide a case: as many as its evidence needs."""
        evidence = self.policy.evidence
        count = evidence.verdicts + int(self.rng.random() < evidence.second_verdict)
        first = int(self.rng.integers(CLERKS))
        return [f"clerk-{1 + (first + index) % max(CLERKS, count)}" for index in range(count)]

    def _choose_answer(self, lever: Lever) -> str:
        if lever.number is not None:
            return _format_number(self.rng.uniform(lever.number.low, lever.number.high))
        if lever.many:
            return self._choose_set(lever)
        return str(self.rng.choice(lever.labels, p=compute_label_shares(self.policy, lever)))

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
    expected = policy.expect.labels
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
    for case in _simulate_cases(policy, plan, rng):
        place = [case.key, case.site, case.at.isoformat()]
        received = (case.at + RECEIVED_AFTER).isoformat()
        case_attributes = [case.attributes[name] for name in attributes]
        cases.append([*place, received, case.episode, *case_attributes])
        for prediction in case.predictions:
            predicted = [prediction.answers[lever] for lever in levers]
            predictions.append([*place, prediction.version, prediction.confidence, *predicted])
        for decision in case.decisions:
            decided = [decision.answers[lever] for lever in levers]
            decided_at = decision.at.isoformat()
            decisions.append([case.key, decision.reviewer, decided_at, "blind", *decided])
    tables = (cases, predictions, decisions)
    return {name: _format_csv(rows) for name, rows in zip(FILES, tables, strict=True)}


def _simulate_cases(
    policy: Policy, plan: HistoryPlan, rng: np.random.Generator
) -> Iterator[ExampleCase]:
    simulator = CaseSimulator(policy, rng, CASE_PREFIX.rstrip("-"))
    agreement = policy.expect.agreement or DEFAULT_AGREEMENT
    for site in policy.sites_by_id:
        for number, at in enumerate(_choose_times(plan, rng), start=1):
            key = f"{CASE_PREFIX}{site}-{number:05}"
            yield simulator.simulate_case(key, site, at, agreement, DECIDED_AFTER)


def _choose_times(plan: HistoryPlan, rng: np.random.Generator) -> list[datetime]:
    span = plan.until - plan.since
    return [plan.since + span * share for share in np.sort(rng.random(plan.cases_per_site))]


def _format_csv(rows: Iterable[Row]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


ACTING_TIME: Final = timedelta(seconds=20)  # from a human decision to the action
JsonObject = dict[str, Any]
DueItem = tuple[datetime, str, JsonObject]
"""When an account sends an item of `POST records`, and the item."""


def get_prediction_time(case: ExampleCase) -> datetime:
    """Return when a case's last prediction was there."""
    return max((case.at, *(prediction.at for prediction in case.predictions)))


@dataclass(frozen=True, slots=True)
class CaseRecords:
    """What clients send about cases.

    Attributes:
        find_clients: returns the accounts of a site.
        build_media: returns the pictures of a case, by name.
        acting_time: from a human decision to the action.
    """

    policy: Policy
    find_clients: Callable[[str], SiteClients]
    build_media: Callable[[ExampleCase], dict[str, str]]
    acting_time: timedelta = ACTING_TIME

    def build_questions(self, case: ExampleCase) -> list[JsonObject]:
        """Return a question for each version's prediction."""
        return [
            {
                "site": case.site,
                "at": case.at.isoformat(),
                "version": prediction.version,
                "key": case.key,
                "episode": case.episode,
                "confidence": prediction.confidence,
                "attributes": case.attributes,
                "media": self.build_media(case),
                "prediction": {
                    "answers": prediction.answers,
                    "confidence": prediction.confidence,
                },
            }
            for prediction in case.predictions
        ]

    def list_effects(
        self, case: ExampleCase, answers: Sequence[JsonObject], is_audited: bool
    ) -> Iterator[DueItem]:
        """Yield decisions, actions and outcomes that follow from a case's assignments.

        `answers` are in the order of the case's predictions. Of what the model decides, humans
        decide what is audited.
        """
        pairs = zip(case.predictions, answers, strict=True)
        acting_answer = next(((p, a) for p, a in pairs if a["decider"] == "model"), None)
        is_assisted = any(answer["exposure"] == "assisted" for answer in answers)
        clients = self.find_clients(case.site)
        if acting_answer is not None:
            prediction, answer = acting_answer
            details = {"by": "model", "version": prediction.version, "permit": answer["permit"]}
            at = get_prediction_time(case)
            for item in self._build_actions(case, prediction.answers, at):
                yield at, clients.model, item | details
        if acting_answer is None or is_audited:
            for decision in case.decisions:
                item = _build_decision(case, decision, assisted=is_assisted)
                yield decision.at, clients.decisions, item
        if acting_answer is None and case.decisions and not case.decisions[0].unsure:
            at = case.decisions[0].at + self.acting_time
            for item in self._build_actions(case, case.decisions[0].answers, at):
                yield at, clients.decisions, item | {"by": "person"}
        for outcome in case.outcomes:
            yield outcome.at, clients.decisions, _build_outcome(case, outcome)

    def _build_actions(
        self, case: ExampleCase, answers: Mapping[str, str | None], at: datetime
    ) -> Iterator[JsonObject]:
        """Yield the action on each lever with an answer; a number is its own action."""
        for lever in self.policy.levers:
            answer = answers[lever.id]
            if answer is None:
                continue
            action = answer if lever.number is not None else lever.find_action(answer)
            item = {"kind": "action", "key": case.key, "lever": lever.id, "action": action}
            yield {**item, "at": at.isoformat()}


def _build_decision(case: ExampleCase, decision: ExampleDecision, *, assisted: bool) -> JsonObject:
    return {
        "kind": "decision",
        "key": case.key,
        "reviewer": decision.reviewer,
        "answers": decision.answers,
        "unsure": decision.unsure,
        "exposure": "assisted" if assisted else "blind",
        "submitted_at": decision.at.isoformat(),
    }


def _build_outcome(case: ExampleCase, outcome: ExampleOutcome) -> JsonObject:
    item: JsonObject = {"kind": "outcome", "key": case.key, "at": outcome.at.isoformat()}
    contents = {"answers": outcome.answers, "values": outcome.values, "harm": outcome.harm}
    return item | {name: value for name, value in contents.items() if value}


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
        return Fault(kind, fields.read_duration(after), policy.sites[0].id)
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
        get_site_clients,
        lambda _case: {},
        acting_time=timedelta(0),
    )
