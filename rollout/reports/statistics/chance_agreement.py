"""Agreement of two sides corrected for chance: kappa and AC1 of a table, with their intervals.

The table is K × K, people in rows and the model in columns; for several people on a case see
`ratings` (statistics.md §9, §17).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Coefficient = Callable[[Floats], Floats]

DRAWS = 2000
AT_ONCE = 2_000_000  # numbers held in memory
POSTERIOR = "Dirichlet posterior, prior mass 2, 2,000 draws, 95 %"
POSTERIOR_CLUSTERED = "Dirichlet posterior at the effective number of cases, 95 %"


@dataclass(frozen=True, slots=True)
class AgreementCoefficient:
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


def kappa_with_interval(table: Floats, effective: float = 1.0) -> AgreementCoefficient:
    """Return kappa with its interval.

    Args:
        table: counts, shape (labels, labels); labels that nobody gave should be left out.
        effective: the share of the cases that counts as independent, in (0, 1].
    """
    (coefficient,) = _corrected((_kappas,), table, effective)
    return coefficient


def ac1_with_interval(table: Floats, effective: float = 1.0) -> AgreementCoefficient:
    """Return AC1 with its interval; arguments as for `kappa_with_interval`."""
    (coefficient,) = _corrected((_ac1s,), table, effective)
    return coefficient


def both_with_intervals(
    table: Floats, effective: float = 1.0
) -> tuple[AgreementCoefficient, AgreementCoefficient]:
    """Return kappa and AC1 as the two above do, for half: both are read off the same draws."""
    kappa, ac1 = _corrected((_kappas, _ac1s), table, effective)
    return kappa, ac1


def _kappas(tables: Floats) -> Floats:
    """Return kappa of each table, shape (…, labels, labels); NaN where it is not defined."""
    observed, rows, columns = _shares(tables)
    return _beyond_chance(observed, np.sum(rows * columns, axis=-1))


def _ac1s(tables: Floats) -> Floats:
    labels = tables.shape[-1]
    observed, rows, columns = _shares(tables)
    usage = (rows + columns) / 2
    chance = np.sum(usage * (1 - usage), axis=-1) / (labels - 1 if labels > 1 else np.nan)
    return _beyond_chance(observed, chance)


def _shares(tables: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the share on the diagonal and both margins, of each table."""
    n = tables.sum(axis=(-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.trace(tables, axis1=-2, axis2=-1) / n
        rows, columns = (tables.sum(axis=axis) / n[..., None] for axis in (-1, -2))
    return np.asarray(observed), rows, columns


def _beyond_chance(seen: Floats, chance: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(chance < 1, (seen - chance) / (1 - chance), np.nan))


def _known(value: Floats) -> float | None:
    return None if np.isnan(value) else float(value)


def _corrected(
    coefficients: Sequence[Coefficient], table: Floats, effective: float
) -> Iterator[AgreementCoefficient]:
    """Yield each coefficient with its interval; the draws follow from the table alone."""
    table = np.asarray(table, float)
    n, method = int(table.sum()), POSTERIOR if effective == 1 else POSTERIOR_CLUSTERED
    values = [_known(coefficient(table)) for coefficient in coefficients]
    defined = [
        coefficient
        for coefficient, value in zip(coefficients, values, strict=True)
        if value is not None
    ]
    posterior = iter(_drawn(defined, table, effective) if defined else ())
    for value in values:
        if value is None:
            yield AgreementCoefficient(None, None, None, n, method)
        else:
            low, high = np.nanquantile(next(posterior), [0.025, 0.975])
            yield AgreementCoefficient(value, float(low), float(high), n, method)


def _drawn(coefficients: Sequence[Coefficient], table: Floats, effective: float) -> list[Floats]:
    """Return what each coefficient is in each of the draws."""
    generator, shape = seeded(table), table * effective + _prior(table)
    blocks = []
    for block_size in _blocks(table.size):
        tables = generator.standard_gamma(shape, (block_size, *table.shape))
        blocks.append([coefficient(tables) for coefficient in coefficients])
    return [np.concatenate(values) for values in zip(*blocks, strict=True)]


def _blocks(size: int) -> list[int]:
    """Return how many draws are made at once, so that a hundred labels need no gigabytes."""
    block_size = min(DRAWS, max(1, AT_ONCE // size))
    full_blocks, rest = divmod(DRAWS, block_size)
    return [block_size] * full_blocks + [rest] * (rest > 0)


def _prior(table: Floats) -> Floats:
    """Return a prior of mass 2: half of it on the diagonal, all of it shaped by the margins."""
    rows, columns = table.sum(axis=1) + 0.5, table.sum(axis=0) + 0.5
    rows, columns = rows / rows.sum(), columns / columns.sum()
    off_diagonal = np.outer(rows, columns)
    np.fill_diagonal(off_diagonal, 0.0)
    spread = off_diagonal.sum()
    return np.asarray(
        np.diag((rows + columns) / 2) + (off_diagonal / spread if spread else off_diagonal)
    )


def seeded(counts: NDArray[np.generic]) -> np.random.RandomState:
    """Return draws that follow from the hash of the evidence: the same has the same interval.

    NumPy keeps this generator's draws the same for good, those of its newer one it does not.
    """
    digest = sha256(np.ascontiguousarray(counts).tobytes()).digest()
    return np.random.RandomState(int.from_bytes(digest[:4]))
