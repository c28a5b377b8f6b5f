"""A plain, slow referee of losses: one case after another, by the rules in words."""

from collections import Counter
from dataclasses import dataclass, field
from math import log

from rollout.features.reports.inputs.losses import (
    CONFIDENT_DIFFERENT,
    KINDS,
    REVIEWERS_SPLIT,
    SUSPECTED_HUMAN_ERROR,
    UNSURE,
)
from rollout.features.reports.inputs.pairs import compare_answers
from rollout.kernel.units import is_label_set, split_label_set


@dataclass(frozen=True)
class RecordedCase:
    """A case, a version's answer to it, people's unassisted answers, and how it turned out."""

    key: str
    model: str | None
    confidence: float | None = None
    votes: list[str] = field(default_factory=list)
    outcome: str | None = None
    stored: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PlainLoss:
    """What the list says of a case."""

    key: str
    human: str
    model: str
    loss: float | None
    cost: float
    kind: str

    @property
    def rank(self):
        """Return what the list is sorted by."""
        loss, place = self.loss or 0.0, KINDS.index(self.kind)
        is_unsure, weight = self.kind == UNSURE, self.cost * loss
        return is_unsure, -weight, place, self.loss is None, -loss, -self.cost, self.key


def find_plain_losses(cases, lever):
    """Return the losses of one version in the order of the list."""
    reviewed = [case for case in cases if case.model is not None and case.votes]
    thresholds = find_plain_thresholds(reviewed, lever)
    losses = [_find_loss(case, lever, thresholds) for case in reviewed]
    return sorted((loss for loss in losses if loss is not None), key=lambda loss: loss.rank)


def find_plain_thresholds(reviewed, lever):
    """Return the mean probability of the one human answer, by label."""
    values = {}
    for case in reviewed:
        human = _find_single_answer(case, lever)
        value = None if human is None else _find_human_probability(case, lever, human)
        if value is not None:
            values.setdefault(_get_habit(lever, human), []).append(value)
    return {label: sum(rows) / len(rows) for label, rows in values.items()}


def _get_habit(lever, label):
    return label if lever.has_single_labels else "any"


def _find_single_answer(case, lever):
    if lever.number is None:
        return case.votes[0] if len(set(case.votes)) == 1 else None
    numbers = sorted(case.votes, key=lambda text: (float(text), text))
    is_close = float(numbers[-1]) - float(numbers[0]) <= lever.number.tolerance.amount + 1e-6
    return numbers[(len(numbers) - 1) // 2] if is_close else None


def _agrees(lever, answer, model):
    return compare_answers(lever, answer, model)[0]


def _find_probability(case, lever, answer, *, is_own):
    """Return the probability of an answer, None if nothing is known of it.

    `is_own`: whether it counts as the version's answer.
    """
    probability = None
    if case.stored and lever.many:
        if is_label_set(answer, lever.labels) and all(name in case.stored for name in lever.labels):
            probability, members = 1.0, split_label_set(answer)
            for name in lever.labels:
                probability *= case.stored[name] if name in members else 1 - case.stored[name]
    elif case.stored:
        probability = case.stored.get(answer, max(0.0, 1 - sum(case.stored.values())))
    if probability is not None or case.confidence is None:
        return probability
    return case.confidence if is_own else 1 - case.confidence


def _find_human_probability(case, lever, answer):
    is_own = _agrees(lever, answer, case.model)
    return _find_probability(case, lever, answer, is_own=is_own)


def _surprise(probability):
    return -log(min(max(probability, 1e-6), 1.0))


def _find_loss(case, lever, thresholds):
    counts = Counter(case.votes)
    against = {name: n for name, n in counts.items() if not _agrees(lever, name, case.model)}
    n_against = sum(against.values())
    n_with = len(case.votes) - n_against
    is_right = None if case.outcome is None else _agrees(lever, case.outcome, case.model)
    if not against and is_right is not False:
        return None
    human = min(against or counts, key=lambda name: (-counts[name], name))
    own = _find_probability(case, lever, case.model, is_own=True)
    threshold = thresholds.get(_get_habit(lever, case.model))
    is_sure = own is not None and threshold is not None and own >= threshold - 1e-9
    is_majority = is_right is None and n_with >= max(n_against, 1)
    if against and ((is_right and (is_sure or own is None)) or (is_majority and is_sure)):
        kind = SUSPECTED_HUMAN_ERROR
    elif is_sure and (is_right is False or (is_right is None and n_with == 0)):
        kind = CONFIDENT_DIFFERENT
    elif (n_with and n_against) or (lever.has_single_labels and len(counts) > 1):
        kind = REVIEWERS_SPLIT
    else:
        kind = UNSURE
    correct = human if case.outcome is None else case.outcome
    did, right = (human, case.model) if kind == SUSPECTED_HUMAN_ERROR else (case.model, correct)
    return PlainLoss(
        case.key, human, case.model, _measure_loss(case, lever, n_against),
        compare_answers(lever, right, did)[4], kind,
    )  # fmt: skip


def _measure_loss(case, lever, n_against):
    if n_against == 0:
        other = _find_probability(case, lever, case.outcome, is_own=False)
        own = _find_probability(case, lever, case.model, is_own=True)
        if other is None and own is not None:
            other = 1 - own
        return None if other is None else _surprise(other)
    values = [_find_human_probability(case, lever, vote) for vote in case.votes]
    return None if None in values else sum(map(_surprise, values)) / len(values)
