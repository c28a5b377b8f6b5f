"""Chance-corrected agreement of two sides: kappa and AC1 of a table, with intervals.

The table is K × K, humans in rows and the model in columns; for several reviewers of a case see
`ratings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, TypeAlias

from rollout.kernel.late_modules import LateModule
from rollout.kernel.statistics.intervals import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rollout.kernel.statistics.arrays import Floats
    from rollout.kernel.statistics.intervals import EffectiveNumber
else:
    np = LateModule("numpy")

Coefficient: TypeAlias = "Callable[[Floats], Floats]"

POSTERIOR_DRAWS = 2000
MAX_NUMBERS_IN_MEMORY = 2_000_000
MIN_RARE_CASES = 10  # of all labels but the commonest; with fewer the intervals miss 95 %
MIN_RARE_CASES_OF_AC1 = 20  # AC1 rises as a label gets rare, and then says little of it
POSTERIOR_ENDS = (0.0175, 0.9825)  # the central 95 % covers .939 to .953, this .956 or more
POSTERIOR = (
    "Dirichlet posterior, prior mass 2, 2,000 draws seeded by the counts, its central 96.5 %,"
    " which covers 95 %"
)
POSTERIOR_CLUSTERED = f"{POSTERIOR}, at the effective number of cases"


@dataclass(frozen=True, slots=True)
class AgreementCoefficient(Estimate):
    """A coefficient with its interval; None if undefined, or if its labels are too rare.

    `method` then says which. A coefficient without an interval can also have too few units.
    `effective` is how many independent cases the interval takes the `n` for; None without an
    interval, and for a bootstrap. `has_too_few` tells that labels or units are too few.
    """

    effective: float | None = None
    has_too_few: bool = False


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


def compute_kappa_with_interval(
    table: Floats, number: EffectiveNumber | None = None, labels: Sequence[str] = ()
) -> AgreementCoefficient:
    """Return kappa with its interval, or with the reason why there is none.

    Args:
        table: counts, shape (labels, labels); without unused labels.
        number: how many independent cases they are worth; None if each is its own unit.
        labels: names of the labels, for the reason.
    """
    return compute_kappa_and_ac1(table, number, labels)[0]


def compute_kappa_and_ac1(
    table: Floats, number: EffectiveNumber | None = None, labels: Sequence[str] = ()
) -> tuple[AgreementCoefficient, AgreementCoefficient]:
    """Return kappa and AC1 with intervals from the same samples, in half the time.

    Arguments as for `compute_kappa_with_interval`. AC1 needs twice as many cases of the rarer
    labels as kappa.
    """
    table = np.asarray(table, float)
    effective = 1.0 if number is None else number.share or 1.0
    ac1_reason = find_rare_labels(table, effective, labels, MIN_RARE_CASES_OF_AC1)
    if reason := find_rare_labels(table, effective, labels):  # without a draw: labels may be many
        return (
            _refuse_rare_labels("kappa", reason, table),
            _refuse_rare_labels("AC1", ac1_reason, table),
        )
    kappa, ac1 = _compute_both(table, number)
    if ac1_reason:
        ac1 = _refuse_rare_labels("AC1", ac1_reason, table)
    return kappa, ac1


def _refuse_rare_labels(name: str, reason: str, table: Floats) -> AgreementCoefficient:
    return AgreementCoefficient(
        None,
        None,
        None,
        int(table.sum()),
        f"too few for {name} ({reason})",
        has_too_few=True,
    )


def _compute_both(
    table: Floats, number: EffectiveNumber | None
) -> tuple[AgreementCoefficient, AgreementCoefficient]:
    effective = 1.0 if number is None else number.share
    if number is not None and effective is None:
        kappa, ac1 = (
            AgreementCoefficient(
                compute(table), None, None, int(table.sum()), number.refusal, has_too_few=True
            )
            for compute in (compute_kappa, compute_ac1)
        )
        return kappa, ac1
    kappa, ac1 = _compute_with_intervals((_compute_kappas, _compute_ac1s), table, effective or 1.0)
    return kappa, ac1


def find_rare_labels(
    table: Floats,
    effective: float = 1.0,
    labels: Sequence[str] = (),
    least: int = MIN_RARE_CASES,
) -> str:
    """Return which labels are too rare for kappa, or with another `least` for AC1; else "".

    On either side all labels but the commonest together need `least` cases, at what these are
    worth.

    >>> find_rare_labels(np.array([[290.0, 3], [2, 5]]), labels=("no bear", "bear"))
    '7 of label bear'
    >>> find_rare_labels(np.array([[280.0, 5], [3, 12]]))
    ''
    """
    if not table.sum():
        return ""
    margin = min(
        (table.sum(axis=axis) for axis in (1, 0)), key=lambda side: side.sum() - side.max()
    )
    rare = int(margin.sum() - margin.max())
    if rare * effective >= least:
        return ""
    commonest = int(margin.argmax())
    others = [name for index, name in enumerate(labels) if index != commonest]
    name = f"label {others[0]}" if len(others) == 1 else "all labels but the commonest"
    if len(labels) > 1 and len(others) > 1:
        name = f"all labels but {labels[commonest]}"
    worth = f", worth {rare * effective:.1f} independent ones" if rare >= least else ""
    return f"{rare} of {name}{worth}"


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
            low, high = np.nanquantile(next(posterior), POSTERIOR_ENDS)
            yield AgreementCoefficient(value, float(low), float(high), n, method, effective * n)


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
