"""Recall of planted cases, beside that of the cases that occurred and apart from it."""

from collections.abc import Iterator
from dataclasses import dataclass

from rollout.core.policy.measures import Condition
from rollout.core.policy.planted_conditions import PlantedCondition, select_planted
from rollout.reports.statistics.intervals import Share, compute_share
from rollout.tally.evidence_view import EvidenceView
from rollout.tally.unit_arrays import IntArray, UnitArrays


@dataclass(frozen=True, slots=True)
class PlantedRecall:
    """The share of cases with a human label that a version labelled so, by population.

    Each counts as gates count it: a planted unit without a blind decision is a miss unless the
    version has the label, one that occurred is left out. How often cases are planted says nothing
    about how often they occur, so the two shares are never added.

    Attributes:
        lever, label: the human's label.
        planted: of the planted cases.
        natural: of the cases that occurred.
        missing: units in `planted` without a decision.
    """

    lever: str
    label: str
    planted: Share
    natural: Share
    missing: int = 0


def compute_planted_recall(view: EvidenceView, slot: int) -> tuple[PlantedRecall, ...]:
    """Return the recall of labels of planted cases, up to a slot; () without any.

    The labels are those that humans gave, and those that a gate requires.
    """
    if not len(view.planted_rows):
        return ()
    planted, natural = (
        rows.select(rows.slot <= slot) for rows in (view.planted_rows, view.gate_rows)
    )
    required = {c.label for c in select_planted(view.conditions)}
    return tuple(
        recall
        for lever, label in _list_labels(view)
        if (recall := _compare_recall(view, planted, natural, lever, label)).planted.n
        and (recall.planted.n > recall.missing or label in required)
    )


def _list_labels(view: EvidenceView) -> Iterator[tuple[str, str]]:
    for lever in view.policy.levers:
        yield from ((lever.id, label) for label in lever.labels)


def _compare_recall(
    view: EvidenceView, planted: UnitArrays, natural: UnitArrays, lever: str, label: str
) -> PlantedRecall:
    planted_counts, natural_counts = (
        view.unit_classes.get_class_counts(
            kind("recall", 0.5, at_least=True, label=label, lever=lever)
        )[rows.unit_class]
        for kind, rows in ((PlantedCondition, planted), (Condition, natural))
    )
    missing = planted_counts[view.unit_classes.is_missing[planted.unit_class]]
    return PlantedRecall(
        lever, label, _sum_share(planted_counts), _sum_share(natural_counts), int(missing.sum())
    )


def _sum_share(counts: IntArray) -> Share:
    return compute_share(int(counts[:, 0].sum()), int(counts.sum()))
