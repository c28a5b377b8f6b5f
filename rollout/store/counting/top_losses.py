"""Counted pairs on which a version and people differ, by how sure it was: the surest by an index.

A row a pair of a lever with labels, kept in the transaction that counts its unit. What the pair
costs is left to whoever reads: within one class of pairs the order is that of the confidence, and
there are not more classes than the units fall into. A row leaves with its case.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, bindparam, delete, select, tuple_

from rollout.core.policy.measures import AGREE, FAILED, LATE, MISSING, OUTSIDE, WHOLE
from rollout.store.counting.counted_units import Counted, Mark
from rollout.store.database import value_lists
from rollout.store.database.bulk import insert_quietly
from rollout.store.database.driver_statements import fetched
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.history import StoredHistory
from rollout.store.tables.tables import count_classes, count_series, predictions, top_losses
from rollout.tally.units import UNLISTED

TRACK: Final = "gate"
AT_ONCE: Final = 10_000  # cases that are looked up at once

Place = tuple[int, str, int]
"""The number of a case, a version, and the number of a class."""

Kept = tuple[float, int]
"""How sure the version was, and the number of the series that the unit is of."""


@dataclass(frozen=True, slots=True)
class Differing:
    """A class of pairs that differ: on which lever people say this where the model says that."""

    lever: str
    human: str
    model: str


class Losses:
    """The pairs of one rollout that were counted and differ."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def add(self, marks: Iterable[Mark]) -> None:
        """Keep those of newly counted units that differ and of which the version said how sure.

        Only in the transaction that marks the units.
        """
        evidence_units = [unit for unit in marks if _is_evidence(unit)]
        classes = self.classes({class_id for unit in evidence_units for class_id in unit.kinds})
        series_by_key = _places(evidence_units, classes)
        if not series_by_key:
            return
        confidences = self._history().confidences({case_id for case_id, _, _ in series_by_key})
        losses_found = [
            (key, confidences.get(key[:2]), min(first_series))
            for key, first_series in sorted(series_by_key.items())
        ]
        rows = [
            (self._rollout.number, *key, confidence, first_series)
            for key, confidence, first_series in losses_found
            if confidence is not None
        ]
        insert_quietly(self._transaction, top_losses, rows)

    def classes(self, kinds: Collection[int] | None = None) -> Mapping[int, Differing]:
        """Return the classes of pairs that differ, of some numbers or all, by their numbers."""
        names = ("id", "lever", "decided", "predicted")
        query = select(*(count_classes.c[name] for name in names)).where(*self._differ())
        if kinds is not None:
            query = query.where(
                count_classes.c.id.in_(value_lists.numbers(self._transaction, kinds))
            )
        rows = self._transaction.execute(query)
        return {row.id: Differing(row.lever, row.decided, row.predicted) for row in rows}

    def sites(self, version: str) -> Mapping[int, str]:
        """Return the site of each series of a version's units."""
        query = select(count_series.c.id, count_series.c.site).where(
            count_series.c.rollout == self._rollout.number,
            count_series.c.track == TRACK,
            count_series.c.version == version,
        )
        return {row.id: row.site for row in self._transaction.execute(query)}

    def surest(
        self, version: str, kind: int, *, at_once: int, series: Collection[int] | None = None
    ) -> Iterator[tuple[int, float]]:
        """Yield cases of one class and how sure the version was: the surest first.

        Among equally sure ones that which was sent last comes first. They are read some at a time.

        Args:
            version: whose.
            kind: the number of the class.
            at_once: how many to read at a time.
            series: only of units of these; by default of all. Of others no more than the index is
                read, but that may be all of it.
        """
        parameters = {"rollout": self._rollout.number, "version": version, "kind": kind}
        case_id, confidence = 0, ABOVE_ALL
        while True:
            position = {"last_sure": confidence, "last_case": case_id, "at_once": at_once}
            rows = self._read({**parameters, **position}, series)
            yield from rows
            if len(rows) < at_once:
                return
            case_id, confidence = rows[-1]

    def _read(
        self, given: Mapping[str, Any], series: Collection[int] | None
    ) -> Sequence[tuple[int, float]]:
        if series is None:
            return fetched(self._transaction, SUREST, given)
        condition = top_losses.c.series_id.in_(value_lists.numbers(self._transaction, series))
        rows = self._transaction.execute(SUREST.where(condition), given)
        return [(row.case_id, row.confidence) for row in rows]

    def forget(self, case_ids: Collection[int]) -> None:
        """Delete what is kept of some cases."""
        own_rollout = (top_losses.c.rollout == self._rollout.number,)
        condition = top_losses.c.case_id.in_(value_lists.numbers(self._transaction, case_ids))
        self._transaction.execute(delete(top_losses).where(*own_rollout, condition))

    def differences(self) -> Mapping[Place, tuple[Kept | None, Kept | None]]:
        """Return the rows that are not what marks and predictions say: as stored, as they should.

        How sure a version was may have been corrected since: what any revision says is right.
        """
        stored = self._stored()
        expected_series = _places(Counted(self._transaction, self._rollout).all(), self.classes())
        differences: dict[Place, tuple[Kept | None, Kept | None]] = {}
        for keys in _parts(sorted({*stored, *expected_series})):
            case_ids = {case_id for case_id, _, _ in keys}
            revisions, confidences = (
                self._revisions(case_ids),
                self._history().confidences(case_ids),
            )
            for key in keys:
                stored_value, case_version = stored.get(key), key[:2]
                confidences_by_revision = revisions[case_version] if key in expected_series else ()
                expected = _right(
                    stored_value,
                    confidences_by_revision,
                    confidences.get(case_version),
                    expected_series.get(key, set()),
                )
                if stored_value != expected:
                    differences[key] = (stored_value, expected)
        return differences

    def _stored(self) -> dict[Place, Kept]:
        query = select(top_losses).where(top_losses.c.rollout == self._rollout.number)
        return {
            (row.case_id, row.version, row.class_id): (row.confidence, row.series_id)
            for row in self._transaction.execute(query)
        }

    def _revisions(
        self, case_ids: Collection[int]
    ) -> Mapping[tuple[int, str], Sequence[float | None]]:
        """Return how sure each version was of each case, in every revision."""
        names = ("case_id", "version", "confidence")
        query = select(*(predictions.c[name] for name in names)).where(
            predictions.c.rollout == self._rollout.number,
            predictions.c.case_id.in_(value_lists.numbers(self._transaction, case_ids)),
        )
        confidences: dict[tuple[int, str], list[float | None]] = defaultdict(list)
        for row in self._transaction.execute(query):
            confidences[row.case_id, row.version].append(row.confidence)
        return confidences

    def _differ(self) -> tuple[ColumnElement[bool], ...]:
        """Return which classes differ on labels; a number's is told by the side that it errs to."""
        human_answer, model_answer = count_classes.c.decided, count_classes.c.predicted
        is_number = (human_answer == AGREE) & model_answer.in_(("under", "over"))
        return (
            count_classes.c.rollout == self._rollout.number,
            count_classes.c.lever != WHOLE,
            human_answer != model_answer,
            human_answer.not_in((MISSING, UNLISTED)),
            model_answer.not_in((FAILED, LATE, OUTSIDE)),
            ~is_number,
        )

    def _history(self) -> StoredHistory:
        return StoredHistory(self._transaction, self._rollout, levers=())


def _is_evidence(mark: Mark) -> bool:
    return mark.track == TRACK and mark.excluded is None


def _places(
    marks: Iterable[Mark], classes: Mapping[int, Differing]
) -> Mapping[Place, Collection[int]]:
    """Return what differs, each with its series: several where it was counted in two units."""
    series_by_key: dict[Place, set[int]] = defaultdict(set)
    for unit in filter(_is_evidence, marks):
        for class_id in classes.keys() & unit.kinds:
            series_by_key[unit.case_id, unit.version, class_id].add(unit.series)
    return series_by_key


def _right(
    had: Kept | None, known: Sequence[float | None], sure: float | None, series: Collection[int]
) -> Kept | None:
    """Return what should be kept: what is, where a revision says so, else what the last one says.

    Args:
        had: what is kept, None where nothing is.
        known: how sure the version was by each revision; empty where the pair should not be kept.
        sure: by the revision that counts.
        series: those that the unit was counted in.
    """
    stored_confidence = None if had is None else had[0]
    confidence = stored_confidence if stored_confidence in known else sure if known else None
    if confidence is None:
        return None
    return (confidence, had[1] if had and had[1] in series else min(series))


def _parts(places: Sequence[Place]) -> Iterator[Sequence[Place]]:
    for start in range(0, len(places), AT_ONCE):
        yield places[start : start + AT_ONCE]


ABOVE_ALL: Final = 2.0  # no version is surer than 1
SUREST: Final = (
    select(top_losses.c.case_id, top_losses.c.confidence)
    .where(
        top_losses.c.rollout == bindparam("rollout"),
        top_losses.c.version == bindparam("version"),
        top_losses.c.class_id == bindparam("kind"),
        tuple_(top_losses.c.confidence, top_losses.c.case_id)
        < tuple_(bindparam("last_sure"), bindparam("last_case")),
    )
    .order_by(top_losses.c.confidence.desc(), top_losses.c.case_id.desc())
    .limit(bindparam("at_once"))
)
