"""Agreement corrected for chance: kappa, AC1 and alpha, with their intervals.

Two tables go in: for two sides a K × K table (rows: people, columns: the model), for several people
the number of times each value was given to each case. Nothing is counted twice and no pair is
formed, so the number of people does not matter (statistics.md §9, §17).
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS = 2000
RESAMPLES = 500
AT_ONCE = 2_000_000  # numbers held in memory
POSTERIOR = "Dirichlet posterior, prior mass 2, 2,000 draws, 95 %"
POSTERIOR_CLUSTERED = "Dirichlet posterior at the effective number of cases, 95 %"
BOOTSTRAP = "bootstrap over units, 95 %"
BOOTSTRAP_FEW = "bootstrap over units, covers about 92 % below 1,000 cases"


@dataclass(frozen=True, slots=True)
class Corrected:
    """A coefficient with its interval; None where it is not defined: no cases, or one label."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str


def kappa(table: Floats) -> float | None:
    """Return Cohen's kappa of a table, None where chance alone agrees always.

    >>> round(kappa(np.array([[980.0, 10], [10, 0]])), 3)
    -0.01

    Source: Cohen, Educational and Psychological Measurement 20 (1960) 37.
    """
    return _known(_kappas(np.asarray(table, float)))


def ac1(table: Floats) -> float | None:
    """Return Gwet's AC1 of a table: like kappa, and steady where one label is rare.

    Source: Gwet, British Journal of Mathematical and Statistical Psychology 61 (2008) 29.
    """
    return _known(_ac1s(np.asarray(table, float)))


def kappa_with_interval(table: Floats, effective: float = 1.0) -> Corrected:
    """Return kappa with its interval.

    Args:
        table: counts, shape (labels, labels); labels that nobody gave should be left out.
        effective: the share of the cases that counts as independent, in (0, 1].
    """
    return _corrected(_kappas, table, effective)


def ac1_with_interval(table: Floats, effective: float = 1.0) -> Corrected:
    """Return AC1 with its interval; arguments as for `kappa_with_interval`."""
    return _corrected(_ac1s, table, effective)


def _kappas(tables: Floats) -> Floats:
    """Return kappa of each table, shape (…, labels, labels); NaN where it is not defined."""
    seen, rows, columns = _shares(tables)
    return _beyond_chance(seen, np.sum(rows * columns, axis=-1))


def _ac1s(tables: Floats) -> Floats:
    labels = tables.shape[-1]
    seen, rows, columns = _shares(tables)
    used = (rows + columns) / 2
    chance = np.sum(used * (1 - used), axis=-1) / (labels - 1 if labels > 1 else np.nan)
    return _beyond_chance(seen, chance)


def _shares(tables: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the share on the diagonal and both margins, of each table."""
    n = tables.sum(axis=(-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = np.trace(tables, axis1=-2, axis2=-1) / n
        rows, columns = (tables.sum(axis=axis) / n[..., None] for axis in (-1, -2))
    return np.asarray(seen), rows, columns


def _beyond_chance(seen: Floats, chance: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(chance < 1, (seen - chance) / (1 - chance), np.nan))


def _known(value: Floats) -> float | None:
    return None if np.isnan(value) else float(value)


def _corrected(
    coefficient: Callable[[Floats], Floats], table: Floats, effective: float
) -> Corrected:
    table = np.asarray(table, float)
    value, n = _known(coefficient(table)), int(table.sum())
    method = POSTERIOR if effective == 1 else POSTERIOR_CLUSTERED
    if value is None:
        return Corrected(None, None, None, n, method)
    generator = _generator(table)
    shape = table * effective + _prior(table)
    drawn = np.concatenate(
        [
            coefficient(generator.standard_gamma(shape, (block, *table.shape)))
            for block in _blocks(table.size)
        ]
    )
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Corrected(value, float(low), float(high), n, method)


def _blocks(size: int) -> list[int]:
    """Return how many draws are made at once, so that a hundred labels need no gigabytes."""
    most = min(DRAWS, max(1, AT_ONCE // size))
    whole, rest = divmod(DRAWS, most)
    return [most] * whole + [rest] * (rest > 0)


def _prior(table: Floats) -> Floats:
    """Return a prior of mass 2: half of it on the diagonal, all of it shaped by the margins."""
    rows, columns = table.sum(axis=1) + 0.5, table.sum(axis=0) + 0.5
    rows, columns = rows / rows.sum(), columns / columns.sum()
    off = np.outer(rows, columns)
    np.fill_diagonal(off, 0.0)
    spread = off.sum()
    return np.asarray(np.diag((rows + columns) / 2) + (off / spread if spread else off))


def _generator(table: NDArray[np.generic]) -> np.random.RandomState:
    """Return draws that follow from the counts: the same evidence has the same interval.

    NumPy keeps this generator's draws the same for good, those of its newer one it does not.
    """
    content = sha256(np.ascontiguousarray(table).tobytes()).digest()
    return np.random.RandomState(int.from_bytes(content[:4]))


@dataclass(frozen=True, slots=True)
class People:
    """How far people agree with each other where several judged the same case.

    `pairwise` is the share of agreeing pairs of people, each case weighing the same.
    """

    cases: int
    verdicts: int
    pairwise: float | None
    alpha: Corrected


def people(values: Ints, units: Ints) -> People:
    """Return the agreement between people.

    Args:
        values: how often each value was given to each case, shape (cases, values); cases with
            fewer than two verdicts are left out.
        units: number of each case's unit, shape (cases,); resampled whole.
    """
    several = values.sum(axis=1) >= 2
    values, units = values[several], units[several]
    n = len(values)
    method = BOOTSTRAP if n >= 1000 else BOOTSTRAP_FEW
    if n == 0:
        return People(0, 0, None, Corrected(None, None, None, 0, method))
    m = values.sum(axis=1)
    agreeing = (values * (values - 1)).sum(axis=1) / (m * (m - 1))
    low, high = _alpha_interval(values, units)
    found = Corrected(alpha(values), low, high, n, method)
    return People(n, int(m.sum()), float(agreeing.mean()), found)


def alpha(values: Ints) -> float | None:
    """Return Krippendorff's alpha, nominal, of value counts per case; None where it has no sense.

    Source: Krippendorff, Content Analysis (2004), chapter 11.
    """
    used = values[values.sum(axis=1) >= 2]
    apart, margins = _alpha_parts(used)
    found = _alpha_of(apart.sum(keepdims=True), margins.sum(axis=0, keepdims=True))[0]
    return None if np.isnan(found) else float(found)


def _alpha_parts(values: Ints) -> tuple[Floats, Floats]:
    """Return per case the disagreement that is seen, and how often each value was given."""
    m = values.sum(axis=1).astype(float)
    apart = (m**2 - (values.astype(float) ** 2).sum(axis=1)) / (m - 1)
    return apart, values.astype(float)


def _alpha_of(apart: Floats, margins: Floats) -> Floats:
    """Return alpha for each row of summed parts; NaN where only one value was ever given."""
    n = margins.sum(axis=1)
    expected = (n**2 - (margins**2).sum(axis=1)) / np.maximum(n - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(expected > 0, 1 - apart / expected, np.nan))


def _alpha_interval(values: Ints, units: Ints) -> tuple[float | None, float | None]:
    """Return the bootstrap interval over units; None where no resample has two values."""
    apart, margins = _alpha_parts(values)
    _, unit = np.unique(units, return_inverse=True)
    count = int(unit.max()) + 1
    parts = np.zeros((count, 1 + margins.shape[1]))
    np.add.at(parts, unit, np.column_stack([apart, margins]))
    generator = _generator(values)
    chances = np.full(count, 1 / count)
    sums = np.array([generator.multinomial(count, chances) @ parts for _ in range(RESAMPLES)])
    drawn = _alpha_of(sums[:, 0], sums[:, 1:])
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return None, None
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
