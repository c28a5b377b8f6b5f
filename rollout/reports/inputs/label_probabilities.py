"""The probability that a version gave to a label.

It is the stored one where the version sent `probabilities`. A label that these leave out has at
most what they leave. Without them the answer has its confidence, and any other label at most the
rest.

Of sets the stored probabilities are those of each label by itself. A set has the product of those
of its labels and of the rest of the others, as if labels were independent, so that its surprise is
the sum over the labels. If one of the lever's labels has none, the confidence is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.policy.levers import Lever
from rollout.kernel.label_sets import is_label_set, split_label_set
from rollout.tally.frames import RecordFrames, select_rows

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

STORED_ROW: Final = "stored_row"
"""Column with the row of a case in the stored probabilities."""
NONE: Final = -1  # no row, or no column


@dataclass(frozen=True, eq=False)
class StoredProbabilities:
    """Stored probabilities of a version: a row a case, a column a label, NaN where none is stored.

    `set_labels` are those of a lever with sets; empty for single labels.
    """

    case_keys: pl.Series
    labels: tuple[str, ...]
    values: Floats
    set_labels: tuple[str, ...] = ()

    @cached_property
    def _label_order(self) -> Sequence[int]:
        """The columns by label: sums are equal in whichever order labels were sent."""
        return sorted(range(len(self.labels)), key=self.labels.__getitem__)

    def read(self, rows: pl.Series, answers: pl.Series) -> pl.Series:
        """Return the probability of an answer in each row, null where the confidence decides."""
        row_array = rows.to_numpy()
        if self.set_labels:
            probabilities = self._read_sets(row_array, answers)
        else:
            columns = _find_places(answers, self.labels)
            probabilities = self._read_values(row_array, columns)
            is_left_out = np.isnan(probabilities) & (row_array != NONE)
            probabilities[is_left_out] = self._compute_rest(row_array[is_left_out])
        return pl.Series(probabilities).fill_nan(None)

    def _read_values(self, rows: Ints, columns: Ints) -> Floats:
        values = self.values[rows, columns]
        values[(rows == NONE) | (columns == NONE)] = np.nan
        return values

    def _compute_rest(self, rows: Ints) -> Floats:
        """Return what all labels leave."""
        total = np.zeros(len(rows))
        for column in self._label_order:
            total += np.nan_to_num(self.values[rows, column])
        return np.clip(1 - total, 0, None)

    def _read_sets(self, rows: Ints, answers: pl.Series) -> Floats:
        """Return the product over the labels, NaN where one has none or the answer is no set."""
        texts = [text for text in answers.unique().sort() if text is not None]
        sets = [text for text in texts if is_label_set(text, self.set_labels)]
        members = [split_label_set(text) for text in sets]
        places = _find_places(answers, sets)
        product = np.where(places == NONE, np.nan, 1.0)
        for label in self.set_labels:
            column = self.labels.index(label) if label in self.labels else NONE
            own = self._read_values(rows, np.full(len(rows), column))
            has_label = np.array([label in labels for labels in members] + [False])[places]
            product *= np.where(has_label, own, 1 - own)
        return product


def select_probabilities(
    records: RecordFrames, version: str, lever: Lever
) -> StoredProbabilities | None:
    """Return a version's stored probabilities; None without any.

    None with several levers: the record doesn't say whose labels they are.
    """
    if len(records.levers) > 1:
        return None
    frame = select_rows(records.probabilities, pl.col("version") == version)
    if frame.is_empty():
        return None
    keys = frame["case_key"]
    is_first = (keys != keys.shift(1)).fill_null(value=True)
    keys, labels, values = _read_blocks(frame, is_first) or _read_scattered(frame, is_first)
    return StoredProbabilities(keys, labels, values, lever.labels if lever.many else ())


def add_stored_rows(frame: pl.DataFrame, probabilities: StoredProbabilities | None) -> pl.DataFrame:
    """Return a frame with case_key and the column `STORED_ROW`, for `add_probability`."""
    if probabilities is None:
        return frame.with_columns(pl.lit(NONE, pl.Int64).alias(STORED_ROW))
    rows = find_rows(frame["case_key"], probabilities.case_keys)
    return frame.with_columns(rows.alias(STORED_ROW))


def find_rows(case_keys: pl.Series, index: pl.Series) -> pl.Series:
    """Return the row of each case in an index of cases, `NONE` for others.

    Nothing is looked up where both are the same cases in one order, as records mostly are.

    >>> find_rows(pl.Series(["c2", "c3"]), pl.Series(["c1", "c2"])).to_list()
    [1, -1]
    """
    if case_keys.equals(index):
        return pl.Series(np.arange(len(index)))
    rows = pl.DataFrame({"case_key": index}).with_row_index()
    cases = pl.DataFrame({"case_key": case_keys})
    matches = cases.join(rows, on="case_key", how="left", maintain_order="left")["index"]
    return matches.cast(pl.Int64).fill_null(NONE)


def add_probability(
    frame: pl.DataFrame,
    probabilities: StoredProbabilities | None,
    column: str,
    agrees: pl.Expr,
    name: str = "probability",
) -> pl.DataFrame:
    """Return a frame with the column `name`, in the same order.

    Args:
        frame: `STORED_ROW`, confidence and the answers in `column`.
        probabilities: the result of `select_probabilities`.
        column: the column of answers.
        agrees: whether the answer is the version's.
    """
    bound = pl.when(agrees).then(pl.col("confidence")).otherwise(1 - pl.col("confidence"))
    if probabilities is None:
        return frame.with_columns(bound.alias(name))
    stored = probabilities.read(frame[STORED_ROW], frame[column])
    return frame.with_columns(stored.alias(name)).with_columns(pl.coalesce(name, bound))


def _find_places(values: pl.Series, texts: Sequence[str]) -> Ints:
    """Return the place of each value among some texts, `NONE` for others and nulls."""
    if not texts:
        return np.full(len(values), NONE)
    places = values.cast(pl.Enum(texts), strict=False).to_physical().cast(pl.Int64)
    return places.fill_null(NONE).to_numpy()


def _read_blocks(
    frame: pl.DataFrame, is_first: pl.Series
) -> tuple[pl.Series, tuple[str, ...], Floats] | None:
    """Return the probabilities of cases that all list the same labels in the same order.

    A service stores what a model sends, and most models send each label each time. Then nothing is
    grouped, looked up or copied. None for other cases, or if the rows of one lie apart.
    """
    labels, other_starts = frame["label"], is_first.slice(1).arg_true()
    width = frame.height if other_starts.is_empty() else 1 + other_starts[0]
    case_keys = frame["case_key"].gather_every(width)
    if frame.height % width or labels.head(width).n_unique() != width:
        return None
    if not (labels.slice(width) == labels.slice(0, frame.height - width)).all():
        return None
    if is_first.to_numpy().reshape(-1, width)[:, 1:].any() or not _are_different(case_keys):
        return None
    values = frame["probability"].to_numpy().reshape(-1, width)
    return case_keys, tuple(labels.head(width)), values


def _read_scattered(
    frame: pl.DataFrame, is_first: pl.Series
) -> tuple[pl.Series, tuple[str, ...], Floats]:
    """Return the probabilities of cases that list different labels, or whose rows lie apart."""
    case_keys, rows = frame["case_key"].filter(is_first), is_first.cast(pl.Int64).cum_sum() - 1
    if not _are_different(case_keys):
        case_keys = case_keys.unique()
        rows = find_rows(frame["case_key"], case_keys)
    labels = tuple(frame["label"].unique().sort())
    values = np.full((len(case_keys), len(labels)), np.nan)
    # backwards: of two probabilities of one label the first stays
    places = rows.to_numpy()[::-1], _find_places(frame["label"], labels)[::-1]
    values[places] = frame["probability"].to_numpy()[::-1]
    return case_keys, labels, values


def _are_different(values: pl.Series) -> bool:
    return values.n_unique() == len(values)
