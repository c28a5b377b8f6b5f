"""Chance-corrected agreement of two sides: kappa and AC1 of a table, with intervals.

The table is K × K, humans in rows and the model in columns; for several reviewers of a case see
`ratings`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Coefficient = Callable[[Floats], Floats]

POSTERIOR_DRAWS = 2000
MAX_NUMBERS_IN_MEMORY = 2_000_000
POSTERIOR = "Dirichlet posterior, prior mass 2, 2,000 draws, 95 %"
POSTERIOR_CLUSTERED = "Dirichlet posterior at the effective number of cases, 95 %"


@dataclass(frozen=True, slots=True)
class AgreementCoefficient:
    """A coefficient with its interval; None if undefined: no cases, or one label."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str


def compute_kappa(table: Floats) -> float | None:
    """Return Cohen's kappa of a table, None if chance agreement is 1.

    >>> round(compute_kappa(np.array([[980.0, 10], [10, 0]])), 3)
    -0.01

    Source: Cohen, Educational and Psychological Measurement 20 (1960) 37.
    """
    return _nan_to_none(_compute_kappas(np.asarray(table, float)))


def compute_ac1(table: Floats) -> float | None:
    """Return Gwet's AC1 of a table: like kappa, but stable with rare labels.

    Source: Gwet, British Journal of Mathematical and Statistical Psychology 61 (2008) 29.
    """
    return _nan_to_none(_compute_ac1s(np.asarray(table, float)))


def compute_kappa_with_interval(table: Floats, effective: float = 1.0) -> AgreementCoefficient:
    """Return kappa with its interval.

    Args:
        table: counts, shape (labels, labels); without unused labels.
        effective: the share of the cases that counts as independent, in (0, 1].
    """
    (coefficient,) = _compute_with_intervals((_compute_kappas,), table, effective)
    return coefficient


def compute_ac1_with_interval(table: Floats, effective: float = 1.0) -> AgreementCoefficient:
    """Return AC1 with its interval; arguments as for `compute_kappa_with_interval`."""
    (coefficient,) = _compute_with_intervals((_compute_ac1s,), table, effective)
    return coefficient


def compute_kappa_and_ac1(
    table: Floats, effective: float = 1.0
) -> tuple[AgreementCoefficient, AgreementCoefficient]:
    """Return kappa and AC1 with intervals from the same samples, in half the time."""
    kappa, ac1 = _compute_with_intervals((_compute_kappas, _compute_ac1s), table, effective)
    return kappa, ac1


def _compute_kappas(tables: Floats) -> Floats:
    """Return kappa of each table, shape (…, labels, labels); NaN if undefined."""
    observed, rows, columns = _compute_shares(tables)
    return _correct_for_chance(observed, np.sum(rows * columns, axis=-1))


def _compute_ac1s(tables: Floats) -> Floats:
    labels = tables.shape[-1]
    observed, rows, columns = _compute_shares(tables)
    usage = (rows + columns) / 2
    chance = np.sum(usage * (1 - usage), axis=-1) / (labels - 1 if labels > 1 else np.nan)
    return _correct_for_chance(observed, chance)


def _compute_shares(tables: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the share on the diagonal and both margins, of each table."""
    n = tables.sum(axis=(-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.trace(tables, axis1=-2, axis2=-1) / n
        rows, columns = (tables.sum(axis=axis) / n[..., None] for axis in (-1, -2))
    return np.asarray(observed), rows, columns


def _correct_for_chance(observed: Floats, chance: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(chance < 1, (observed - chance) / (1 - chance), np.nan))


def _nan_to_none(value: Floats) -> float | None:
    return None if np.isnan(value) else float(value)


def _compute_with_intervals(
    coefficients: Sequence[Coefficient], table: Floats, effective: float
) -> Iterator[AgreementCoefficient]:
    """Yield each coefficient with its interval; the seed is a hash of the table."""
    table = np.asarray(table, float)
    n, method = int(table.sum()), POSTERIOR if effective == 1 else POSTERIOR_CLUSTERED
    values = [_nan_to_none(coefficient(table)) for coefficient in coefficients]
    defined = [
        coefficient
        for coefficient, value in zip(coefficients, values, strict=True)
        if value is not None
    ]
    posterior = iter(_draw_posterior(defined, table, effective) if defined else ())
    for value in values:
        if value is None:
            yield AgreementCoefficient(None, None, None, n, method)
        else:
            low, high = np.nanquantile(next(posterior), [0.025, 0.975])
            yield AgreementCoefficient(value, float(low), float(high), n, method)


def _draw_posterior(
    coefficients: Sequence[Coefficient], table: Floats, effective: float
) -> list[Floats]:
    """Return each coefficient in each posterior sample."""
    generator, shape = build_generator(table), table * effective + _build_prior(table)
    blocks = []
    for block_size in _plan_blocks(table.size):
        tables = generator.standard_gamma(shape, (block_size, *table.shape))
        blocks.append([coefficient(tables) for coefficient in coefficients])
    return [np.concatenate(values) for values in zip(*blocks, strict=True)]


def _plan_blocks(size: int) -> list[int]:
    """Return the block sizes of samples, to limit memory with many labels."""
    block_size = min(POSTERIOR_DRAWS, max(1, MAX_NUMBERS_IN_MEMORY // size))
    full_blocks, rest = divmod(POSTERIOR_DRAWS, block_size)
    return [block_size] * full_blocks + [rest] * (rest > 0)


def _build_prior(table: Floats) -> Floats:
    """Return a prior of mass 2, half on the diagonal, shaped by the margins."""
    rows, columns = table.sum(axis=1) + 0.5, table.sum(axis=0) + 0.5
    rows, columns = rows / rows.sum(), columns / columns.sum()
    off_diagonal = np.outer(rows, columns)
    np.fill_diagonal(off_diagonal, 0.0)
    spread = off_diagonal.sum()
    return np.asarray(
        np.diag((rows + columns) / 2) + (off_diagonal / spread if spread else off_diagonal)
    )


def build_generator(counts: NDArray[np.generic]) -> np.random.RandomState:
    """Return a random generator seeded with a hash of the counts.

    NumPy guarantees the stream of RandomState over versions, but not that of Generator.
    """
    digest = sha256(np.ascontiguousarray(counts).tobytes()).digest()
    return np.random.RandomState(int.from_bytes(digest[:4]))
