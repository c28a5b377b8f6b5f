"""Counted pairs whose answers differ, indexed by the version's confidence; the costliest ones.

Each pair on a lever with labels is a row, stored in the transaction that counts its unit. Costs
depend on the reader's policy: within one class the order of costs is the order of confidence, and
the number of classes is small. A row is deleted with its case.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, TextClause, bindparam, delete, func, select, tuple_

from rollout.data.counting.unit_records import NO_ALIASES
from rollout.data.database.bulk import fetch_rows, insert_ignoring_conflicts, select_numbers
from rollout.data.database.rollouts import Rollout, RolloutRepository, match_cases
from rollout.data.database.session import Transaction
from rollout.data.tables.record_tables import GATE, OF_GATE
from rollout.data.tables.tables import (
    confusion_matrices,
    count_classes,
    count_series,
    counted_units,
    predictions,
    top_losses,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.units import AGREE, FAILED, LATE, MISSING, OUTSIDE, WHOLE_UNIT

if TYPE_CHECKING:
    from rollout.data.counting.counted_units import CountedUnitRow
    from rollout.data.records.history import StoredHistory


CASES_PER_PART: Final = 20_000  # units have no index by case: each part reads them all

LossKey = tuple[int, str, int]
"""The numbers of a case and of a class, with the version between them."""

LossValue = tuple[float, int]
"""The version's confidence and the number of the unit's series."""


class LossRow(NamedTuple):
    """A counted pair whose answers differ, in the order of the table's columns."""

    case_id: int
    version: str
    class_id: int
    confidence: float
    series_id: int


@dataclass(frozen=True, slots=True)
class DivergenceClass:
    """A class of differing pairs: lever, human answer and model answer."""

    lever: str
    human: str
    model: str


class StoredLosses(RolloutRepository):
    """The counted pairs of one rollout whose answers differ."""

    def __init__(
        self,
        transaction: Transaction,
        rollout: Rollout,
        first_names: Mapping[str, str] = NO_ALIASES,
    ) -> None:
        super().__init__(transaction, rollout)
        self._first_names = first_names

    def find_losses(self, units: "Iterable[CountedUnitRow]") -> list[LossRow]:
        """Return the differing pairs with a confidence among units that are to be stored."""
        evidence_units = [unit for unit in units if _is_evidence(unit)]
        classes = self.load_classes(
            {class_id for unit in evidence_units for class_id in unit.class_ids}
        )
        series_by_key = _group_series(evidence_units, classes)
        if not series_by_key:
            return []
        confidences = self._build_history().load_confidences(
            {case_id for case_id, _, _ in series_by_key}
        )
        return [
            LossRow(*key, confidence, min(first_series))
            for key, first_series in sorted(series_by_key.items())
            if (confidence := confidences.get(key[:2])) is not None
        ]

    def store(self, losses: Iterable[LossRow]) -> None:
        """Store the pairs of new units, in the transaction that stores these."""
        rows = [(self._rollout.number, *loss) for loss in losses]
        insert_ignoring_conflicts(self._transaction, top_losses, rows)

    def load_classes(
        self, class_ids: Collection[int] | None = None
    ) -> Mapping[int, DivergenceClass]:
        """Return the classes of differing pairs by number; by default all."""
        names = ("id", "lever", "decided", "predicted")
        query = select(*(count_classes.c[name] for name in names)).where(*self._build_conditions())
        if class_ids is not None:
            query = query.where(
                count_classes.c.id.in_(select_numbers(self._transaction, class_ids))
            )
        rows = self._transaction.execute(query)
        return {row.id: DivergenceClass(row.lever, row.decided, row.predicted) for row in rows}

    def load_sites(self, version: str) -> Mapping[int, str]:
        """Return the site of each series of a version."""
        query = select(count_series.c.id, count_series.c.site).where(
            count_series.c.rollout == self._rollout.number,
            count_series.c.track == GATE,
            count_series.c.version == version,
        )
        return {row.id: row.site for row in self._transaction.execute(query)}

    def list_most_confident(
        self, version: str, class_id: int, *, at_once: int, series: Collection[int] | None = None
    ) -> Iterator[tuple[int, float]]:
        """Yield cases of one class with the confidence, highest confidence first.

        Of equal confidences the latest case comes first. `at_once` cases are read at a time. With
        `series` only cases of these are yielded; for the others only the index is read, possibly
        all of it.
        """
        parameters = {"rollout": self._rollout.number, "version": version, "class_id": class_id}
        case_id, confidence = 0, ABOVE_MAX_CONFIDENCE
        while True:
            position = {"last_confidence": confidence, "last_case": case_id, "at_once": at_once}
            rows = self._read_part({**parameters, **position}, series)
            yield from rows
            if len(rows) < at_once:
                return
            case_id, confidence = rows[-1]

    def _read_part(
        self, parameters: Mapping[str, Any], series: Collection[int] | None
    ) -> Sequence[tuple[int, float]]:
        if series is None:
            return fetch_rows(self._transaction, MOST_CONFIDENT_QUERY, parameters)
        condition = top_losses.c.series_id.in_(select_numbers(self._transaction, series))
        rows = self._transaction.execute(MOST_CONFIDENT_QUERY.where(condition), parameters)
        return [(row.case_id, row.confidence) for row in rows]

    def delete(self, case_ids: Collection[int]) -> None:
        """Delete the pairs of some cases."""
        conditions = match_cases(self._transaction, self._rollout, top_losses, case_ids)
        self._transaction.execute(delete(top_losses).where(*conditions))

    def find_differences(self) -> Mapping[LossKey, tuple[LossValue | None, LossValue | None]]:
        """Return rows that differ from their sources: stored and expected.

        The sources are counted units and predictions. A prediction may have been corrected since:
        the confidence of any revision is right. Cases are read in parts, so memory is bounded.
        """
        classes = self.load_classes()
        differences: dict[LossKey, tuple[LossValue | None, LossValue | None]] = {}
        for start in range(0, self._find_last_case() + 1, CASES_PER_PART):
            differences |= self._compare_cases(range(start, start + CASES_PER_PART), classes)
        return differences

    def _compare_cases(
        self, case_numbers: range, classes: Mapping[int, DivergenceClass]
    ) -> Mapping[LossKey, tuple[LossValue | None, LossValue | None]]:
        from rollout.data.counting.counted_units import CountedUnits  # noqa: PLC0415

        stored = self._load_stored(case_numbers)
        units = CountedUnits(self._transaction, self._rollout).list_cases(case_numbers)
        expected_series = _group_series(units, classes)
        keys = sorted({*stored, *expected_series})
        if not keys:
            return {}
        differences: dict[LossKey, tuple[LossValue | None, LossValue | None]] = {}
        case_ids = {case_id for case_id, _, _ in keys}
        revisions = self._load_revisions(case_ids)
        confidences = self._build_history().load_confidences(case_ids)
        for key in keys:
            stored_value, case_version = stored.get(key), key[:2]
            confidences_by_revision = revisions[case_version] if key in expected_series else ()
            expected = _compute_expected(
                stored_value,
                confidences_by_revision,
                confidences.get(case_version),
                expected_series.get(key, set()),
            )
            if stored_value != expected:
                differences[key] = (stored_value, expected)
        return differences

    def _find_last_case(self) -> int:
        """Return the highest number of a case with a stored pair or a counted unit."""
        queries = (
            select(func.max(table.c.case_id)).where(table.c.rollout == self._rollout.number)
            for table in (top_losses, counted_units)
        )
        return max(self._transaction.execute(query).scalar() or 0 for query in queries)

    def _load_stored(self, case_numbers: range) -> dict[LossKey, LossValue]:
        query = select(top_losses).where(
            top_losses.c.rollout == self._rollout.number,
            top_losses.c.case_id >= case_numbers.start,
            top_losses.c.case_id < case_numbers.stop,
        )
        return {
            (row.case_id, row.version, row.class_id): (row.confidence, row.series_id)
            for row in self._transaction.execute(query)
        }

    def _load_revisions(
        self, case_ids: Collection[int]
    ) -> Mapping[tuple[int, str], Sequence[float | None]]:
        """Return each version's confidences of each case, of all its revisions and names."""
        names = ("case_id", "version", "confidence")
        query = select(*(predictions.c[name] for name in names)).where(
            *match_cases(self._transaction, self._rollout, predictions, case_ids),
        )
        confidences: dict[tuple[int, str], list[float | None]] = defaultdict(list)
        for row in self._transaction.execute(query):
            version = self._first_names.get(row.version, row.version)
            confidences[row.case_id, version].append(row.confidence)
        return confidences

    def _build_conditions(self) -> tuple[ColumnElement[bool], ...]:
        """Return the conditions for classes whose labels differ."""
        from rollout.engine.evidence.units import UNLISTED  # noqa: PLC0415

        human_answer, model_answer = count_classes.c.decided, count_classes.c.predicted
        is_number = (human_answer == AGREE) & model_answer.in_(("under", "over"))
        return (
            count_classes.c.rollout == self._rollout.number,
            count_classes.c.lever != WHOLE_UNIT,
            human_answer != model_answer,
            human_answer.not_in((MISSING, UNLISTED)),
            model_answer.not_in((FAILED, LATE, OUTSIDE)),
            ~is_number,
        )

    def _build_history(self) -> "StoredHistory":
        from rollout.data.records.history import StoredHistory  # noqa: PLC0415

        names = self._first_names
        return StoredHistory(self._transaction, self._rollout, levers=(), first_names=names)


def _is_evidence(unit: "CountedUnitRow") -> bool:
    return unit.track == GATE and unit.exclusion_reason is None


def _group_series(
    units: "Iterable[CountedUnitRow]", classes: Mapping[int, DivergenceClass]
) -> Mapping[LossKey, Collection[int]]:
    """Return the series of each differing pair, possibly several."""
    series_by_key: dict[LossKey, set[int]] = defaultdict(set)
    for unit in filter(_is_evidence, units):
        for class_id in classes.keys() & unit.class_ids:
            series_by_key[unit.case_id, unit.version, class_id].add(unit.series_id)
    return series_by_key


def _compute_expected(
    stored: LossValue | None,
    revision_confidences: Sequence[float | None],
    current_confidence: float | None,
    series: Collection[int],
) -> LossValue | None:
    """Return the value that should be stored, or None.

    It has the stored confidence if a revision has it, else `current_confidence`.
    `revision_confidences` is empty if the pair should not be stored.
    """
    stored_confidence = None if stored is None else stored[0]
    confidence = (
        stored_confidence
        if stored_confidence in revision_confidences
        else current_confidence
        if revision_confidences
        else None
    )
    if confidence is None:
        return None
    return (confidence, stored[1] if stored and stored[1] in series else min(series))


ABOVE_MAX_CONFIDENCE: Final = 2.0  # confidence is at most 1
MOST_CONFIDENT_QUERY: Final = (
    select(top_losses.c.case_id, top_losses.c.confidence)
    .where(
        top_losses.c.rollout == bindparam("rollout"),
        top_losses.c.version == bindparam("version"),
        top_losses.c.class_id == bindparam("class_id"),
        tuple_(top_losses.c.confidence, top_losses.c.case_id)
        < tuple_(bindparam("last_confidence"), bindparam("last_case")),
    )
    .order_by(top_losses.c.confidence.desc(), top_losses.c.case_id.desc())
    .limit(bindparam("at_once"))
)


@dataclass(frozen=True, slots=True)
class CountedDivergence:
    """A divergent case, the policy's cost level and the reviewer who decided."""

    case_id: int
    level: int
    reviewer: str


class CellDivergences(RolloutRepository):
    """The divergences of a version in a cell and attempt.

    Only evidence counts. A unit is counted when it closes, so no case is included that reviewers
    may still decide blind.
    """

    def __init__(
        self, transaction: Transaction, rollout: Rollout, cell: Cell, version: str, attempt: int
    ) -> None:
        super().__init__(transaction, rollout)
        self._version = version
        query = select(count_series.c.id).where(
            count_series.c.rollout == rollout.number,
            count_series.c.track == GATE,
            count_series.c.version == version,
            count_series.c.site == cell.site,
            count_series.c.window == cell.window,
            count_series.c.attempt == attempt,
        )
        self._series = list(transaction.execute(query).scalars())

    def count_units(self, lever: str) -> int:
        """Return how many units diverge on a lever, or overall (`Policy.whole`)."""
        query = select(func.coalesce(func.sum(confusion_matrices.c.n), 0)).where(
            confusion_matrices.c.rollout == self._rollout.number,
            confusion_matrices.c.series_id.in_(self._series),
            confusion_matrices.c.class_id.in_(self._load_cost_levels(lever)),
        )
        return int(self._transaction.execute(query).scalar_one())

    def list_costliest(self, lever: str, limit: int) -> list[CountedDivergence]:
        """Return the costliest units; of equal costs the latest first."""
        classes = self._load_class_groups(self._load_cost_levels(lever))
        divergences: list[CountedDivergence] = []
        for level in sorted(set(classes.values()), reverse=True):
            class_groups = [group for group, group_level in classes.items() if group_level == level]
            divergences += self._load_latest(class_groups, level, limit - len(divergences))
            if len(divergences) == limit:
                break
        return divergences

    def _load_cost_levels(self, lever: str) -> dict[int, int]:
        """Return the cost level of each class whose answers differ."""
        query = select(count_classes.c.id, count_classes.c.level).where(
            count_classes.c.rollout == self._rollout.number,
            count_classes.c.lever == lever,
            count_classes.c.decided != MISSING,
            count_classes.c.decided != count_classes.c.predicted,
        )
        return {row.id: row.level for row in self._transaction.execute(query)}

    def _load_class_groups(self, levels: Mapping[int, int]) -> dict[tuple[int, ...], int]:
        """Return the cost level of each stored combination of classes that differs."""
        query = select(counted_units.c.class_ids).where(*self._build_conditions()).distinct()
        groups = [tuple(group) for group in self._transaction.execute(query).scalars()]
        differing_groups = ((group, levels.keys() & group) for group in groups)
        return {
            group: max(levels[class_id] for class_id in differing_ids)
            for group, differing_ids in differing_groups
            if differing_ids
        }

    def _load_latest(
        self, class_groups: Collection[tuple[int, ...]], level: int, limit: int
    ) -> list[CountedDivergence]:
        query = (
            select(counted_units.c.case_id, counted_units.c.reviewer)
            .where(
                *self._build_conditions(),
                counted_units.c.class_ids.in_([list(group) for group in class_groups]),
            )
            .order_by(counted_units.c.occurred.desc(), counted_units.c.case_id.desc())
            .limit(limit)
        )
        rows = self._transaction.execute(query)
        return [CountedDivergence(row.case_id, level, row.reviewer or "") for row in rows]

    def _build_conditions(self) -> tuple[ColumnElement[bool] | TextClause, ...]:
        conditions = (
            counted_units.c.rollout == self._rollout.number,
            counted_units.c.exclusion_reason.is_(None),
        )
        # redundant with the series, but they allow the partial index of the gate track
        gate_conditions = (counted_units.c.version == self._version, OF_GATE)
        return (*conditions, *gate_conditions, counted_units.c.series_id.in_(self._series))
