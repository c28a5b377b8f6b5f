"""Recall of planted cases, beside that of the cases that occurred and apart from it."""

from collections.abc import Iterator
from dataclasses import dataclass

from rollout.core.policy.measures import Condition
from rollout.reports.statistics.intervals import Share, compute_share
from rollout.tally.evidence_view import EvidenceView
from rollout.tally.unit_arrays import UnitArrays


@dataclass(frozen=True, slots=True)
class PlantedRecall:
    """The share of cases with a human label that a version labelled so, by population.

    All units of the attempt with a blind decision count. How often cases are planted says nothing
    about how often they occur, so the two shares are never added.

    Attributes:
        lever, label: the human's label.
        planted: of the planted cases.
        natural: of the cases that occurred.
    """

    lever: str
    label: str
    planted: Share
    natural: Share


def compute_planted_recall(view: EvidenceView, slot: int) -> tuple[PlantedRecall, ...]:
    """Return the recall of each label that planted cases have, up to a slot; () without any."""
    if not len(view.planted_rows):
        return ()
    planted, natural = (
        rows.select(rows.slot <= slot) for rows in (view.planted_rows, view.gate_rows)
    )
    return tuple(
        PlantedRecall(lever, label, share, _compute_recall(view, natural, lever, label))
        for lever, label in _list_labels(view)
        if (share := _compute_recall(view, planted, lever, label)).n
    )


def _list_labels(view: EvidenceView) -> Iterator[tuple[str, str]]:
    for lever in view.policy.levers:
        yield from ((lever.id, label) for label in lever.labels)


def _compute_recall(view: EvidenceView, rows: UnitArrays, lever: str, label: str) -> Share:
    """Return the recall as a gate's condition on it counts units."""
    condition = Condition("recall", 0.5, at_least=True, label=label, lever=lever)
    counts = view.unit_classes.get_class_counts(condition)[rows.unit_class].sum(axis=0)
    return compute_share(int(counts[0]), int(counts.sum()))
