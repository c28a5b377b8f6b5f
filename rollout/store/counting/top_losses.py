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
        told = [mark for mark in marks if _is_evidence(mark)]
        classes = self.classes({kind for mark in told for kind in mark.kinds})
        places = _places(told, classes)
        if not places:
            return
        sure = self._history().confidences({case_id for case_id, _, _ in places})
        known = [(place, sure.get(place[:2]), min(of)) for place, of in sorted(places.items())]
        rows = [(self._rollout.number, *place, c, of) for place, c, of in known if c is not None]
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
        own = {"rollout": self._rollout.number, "version": version, "kind": kind}
        case_id, sure = 0, ABOVE_ALL
        while True:
            last = {"last_sure": sure, "last_case": case_id, "at_once": at_once}
            rows = self._read({**own, **last}, series)
            yield from rows
            if len(rows) < at_once:
                return
            case_id, sure = rows[-1]

    def _read(
        self, given: Mapping[str, Any], series: Collection[int] | None
    ) -> Sequence[tuple[int, float]]:
        if series is None:
            return fetched(self._transaction, SUREST, given)
        among = top_losses.c.series_id.in_(value_lists.numbers(self._transaction, series))
        rows = self._transaction.execute(SUREST.where(among), given)
        return [(row.case_id, row.confidence) for row in rows]

    def forget(self, case_ids: Collection[int]) -> None:
        """Delete what is kept of some cases."""
        own = (top_losses.c.rollout == self._rollout.number,)
        those = top_losses.c.case_id.in_(value_lists.numbers(self._transaction, case_ids))
        self._transaction.execute(delete(top_losses).where(*own, those))

    def differences(self) -> Mapping[Place, tuple[Kept | None, Kept | None]]:
        """Return the rows that are not what marks and predictions say: as stored, as they should.

        How sure a version was may have been corrected since: what any revision says is right.
        """
        stored = self._stored()
        wanted = _places(Counted(self._transaction, self._rollout).all(), self.classes())
        found: dict[Place, tuple[Kept | None, Kept | None]] = {}
        for places in _parts(sorted({*stored, *wanted})):
            cases = {case_id for case_id, _, _ in places}
            said, sure = self._revisions(cases), self._history().confidences(cases)
            for place in places:
                had, whose = stored.get(place), place[:2]
                known = said[whose] if place in wanted else ()
                right = _right(had, known, sure.get(whose), wanted.get(place, set()))
                if had != right:
                    found[place] = (had, right)
        return found

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
        found: dict[tuple[int, str], list[float | None]] = defaultdict(list)
        for row in self._transaction.execute(query):
            found[row.case_id, row.version].append(row.confidence)
        return found

    def _differ(self) -> tuple[ColumnElement[bool], ...]:
        """Return which classes differ on labels; a number's is told by the side that it errs to."""
        said, model = count_classes.c.decided, count_classes.c.predicted
        number = (said == AGREE) & model.in_(("under", "over"))
        return (
            count_classes.c.rollout == self._rollout.number,
            count_classes.c.lever != WHOLE,
            said != model,
            said.not_in((MISSING, UNLISTED)),
            model.not_in((FAILED, LATE, OUTSIDE)),
            ~number,
        )

    def _history(self) -> StoredHistory:
        return StoredHistory(self._transaction, self._rollout, levers=())


def _is_evidence(mark: Mark) -> bool:
    return mark.track == TRACK and mark.excluded is None


def _places(
    marks: Iterable[Mark], classes: Mapping[int, Differing]
) -> Mapping[Place, Collection[int]]:
    """Return what differs, each with its series: several where it was counted in two units."""
    found: dict[Place, set[int]] = defaultdict(set)
    for mark in filter(_is_evidence, marks):
        for kind in classes.keys() & mark.kinds:
            found[mark.case_id, mark.version, kind].add(mark.series)
    return found


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
    kept = None if had is None else had[0]
    confidence = kept if kept in known else sure if known else None
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
