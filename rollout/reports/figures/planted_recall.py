"""Recall of planted cases, beside that of the cases that occurred and apart from it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rollout.core.policy.levers import Lever
from rollout.reports.statistics.intervals import Share, compute_share
from rollout.tally.evidence_view import EvidenceView
from rollout.tally.unit_arrays import UnitArrays

ClassCounts = Mapping[int, int]


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
    planted, natural = (_count_classes(rows, slot) for rows in (view.planted_rows, view.gate_rows))
    return tuple(
        PlantedRecall(lever.id, label, share, _compute_recall(view, lever, label, natural))
        for lever, label in _list_labels(view)
        if (share := _compute_recall(view, lever, label, planted)).n
    )


def _count_classes(rows: UnitArrays, slot: int) -> ClassCounts:
    return Counter(rows.unit_class[rows.slot <= slot].tolist())


def _list_labels(view: EvidenceView) -> Iterator[tuple[Lever, str]]:
    for lever in view.policy.levers:
        yield from ((lever, label) for label in lever.labels)


def _compute_recall(view: EvidenceView, lever: Lever, label: str, counts: ClassCounts) -> Share:
    classes = view.unit_classes.classes
    cases = [
        (count, classes[number].agrees)
        for number, count in counts.items()
        if classes[number].lever == lever.id and classes[number].decided == label
    ]
    return compute_share(sum(n for n, agrees in cases if agrees), sum(n for n, _ in cases))
