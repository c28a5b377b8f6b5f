"""Agreement of two sides: of sets, of numbers, and beyond chance with intervals by bootstrap.

Beyond chance: the table is K × K, humans in rows and the model in columns; for several reviewers of
a case see `ratings`.

Units with equal sums are drawn together, so a million cases with ten labels are as fast as a few
hundred distinct ones.

Sets: the MASI distances of all pairs at once, and which pairs agree.

Numbers: bias, limits of agreement, concordance. Each interval comes from the influence of every
case on the figure, summed by unit: cases of one unit are alike. It assumes no distribution; prices
and their errors are seldom normal. With too few units there is no interval, and the method says
why.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from math import atanh, sqrt, tanh
from typing import TYPE_CHECKING, TypeAlias

from rollout.kernel.arrays import Floats, Ints, np, scipy
from rollout.kernel.statistics.intervals import (
    MIN_FREEDOM,
    NORMAL_QUANTILE,
    UPPER_QUANTILE,
    Estimate,
    compute_freedom,
    describe_few_units,
)
from rollout.kernel.units import SLACK, split_label_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from rollout.kernel.statistics.intervals import EffectiveNumber

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


RESAMPLES = 500
BOOTSTRAP_FREEDOM = 29.0  # 30 units of one size; uneven ones with less cover .93
MIN_SPREAD = 1e-12  # smaller differences between samples are rounding
BOOTSTRAP = (
    "Fisher's z and Student's t, standard error of a bootstrap over units "
    "(500 draws seeded by the counts), 95 %"
)
NO_SPREAD = "no interval: no two units differ in it"


@dataclass(frozen=True)
class BootstrapSums:
    """Sums over all units, and over bootstrap samples of units.

    Attributes:
        total: sums over all units, shape (1, parts).
        samples: sums of each sample, shape (RESAMPLES, parts); empty without units.
        units: number of units.
        freedom: degrees of freedom of their mean; fewer than units - 1 where sizes are uneven.
    """

    total: Floats
    samples: Floats
    units: int
    freedom: float

    def compute_interval(
        self, figure: Callable[[Floats], Floats], cases: int
    ) -> AgreementCoefficient:
        """Return a figure of sums with its interval; `cases` becomes its n.

        Percentiles of the samples cover .93 with 100 cases of two people: the coefficient is skewed
        near 1. On Fisher's scale it is not.

        Source: Fisher, Metron 1 (1921) 3, for the scale; Efron and Tibshirani, An Introduction to
        the Bootstrap (1993), chapters 6 and 12, for the standard error and Student's quantile.
        """
        value = _get_number(figure(self.total)) if self.units else None
        if value is None:
            return AgreementCoefficient(None, None, None, cases, BOOTSTRAP)
        values = figure(self.samples)
        values = values[~np.isnan(values)]
        if not len(values) or values.max() - values.min() < MIN_SPREAD:
            return AgreementCoefficient(value, None, None, cases, NO_SPREAD)
        if self.freedom < BOOTSTRAP_FREEDOM:
            refusal = describe_few_units(self.units, BOOTSTRAP_FREEDOM)
            return AgreementCoefficient(value, None, None, cases, refusal, has_too_few=True)
        error = float(np.std(values)) * self.units / (self.units - 1)
        scaled = np.clip(value, MIN_SPREAD - 1, 1 - MIN_SPREAD)
        half_width = scipy.special.stdtrit(self.freedom, UPPER_QUANTILE) * error / (1 - scaled**2)
        low, high = (
            np.tanh(np.arctanh(scaled) - half_width),
            np.tanh(np.arctanh(scaled) + half_width),
        )
        return AgreementCoefficient(value, float(low), float(high), cases, BOOTSTRAP)


def _get_number(value: Floats) -> float | None:
    return None if np.isnan(value[0]) else float(value[0])


def resample_units(parts: Floats, times: Ints, sizes: Floats) -> BootstrapSums:
    """Return bootstrap samples of units; the seed is a hash of the sums.

    Args:
        parts: contributions of distinct units to the sums, shape (distinct, parts).
        times: number of units of each.
        sizes: cases in each.
    """
    units = int(times.sum())
    total = (times @ parts)[None, :]
    if not units:
        return BootstrapSums(total, total[:0], units, 0.0)
    generator = build_generator(np.column_stack([parts, times]))
    block_size = max(1, min(RESAMPLES, MAX_NUMBERS_IN_MEMORY // len(times)))
    blocks = [block_size] * (RESAMPLES // block_size) + [RESAMPLES % block_size] * (
        RESAMPLES % block_size > 0
    )
    samples = [generator.multinomial(units, times / units, size) @ parts for size in blocks]
    return BootstrapSums(total, np.concatenate(samples), units, compute_freedom(sizes, times))


def compare_sets(texts: Sequence[str], overlap: float) -> tuple[Floats, Floats]:
    """Return the MASI distance of each pair of sets, and 1 where two agree, else 0.

    Both have the shape (sets, sets). The distance is 1 less overlap times monotonicity, which is 1
    for equal sets, 2/3 if one contains the other and 1/3 for other common labels; the other is
    what `do_sets_agree` says.

    Source: Passonneau, Proceedings of LREC (2006) 831.
    """
    sets = [split_label_set(text) for text in texts]
    labels = sorted(frozenset[str]().union(*sets))
    has_label = np.array([[label in labels_of for label in labels] for labels_of in sets], float)
    has_label = has_label.reshape(len(sets), len(labels))
    common, size = has_label @ has_label.T, has_label.sum(axis=1)
    either = size[:, None] + size[None, :] - common
    jaccard = np.where(either > 0, common / np.maximum(either, 1), 1.0)
    contains = common == np.minimum(size[:, None], size[None, :])
    monotonicity = np.where(common == either, 1.0, np.where(contains, 2 / 3, 1 / 3))
    return 1 - jaccard * monotonicity, (jaccard >= overlap - SLACK).astype(float)


MIN_UNITS = 100  # with fewer, intervals of limits and concordance of prices cover under 86 %
MANY_UNITS = 1000  # from which on they cover 90 to 95 %; benchmarks/README.md has the table
ROUNDING = 1e-12  # relative; a smaller spread is rounding

MEAN_METHOD = "mean, Student's t over units, 95 %"
LIMIT_METHOD = "Bland–Altman, mean ± 1.96 standard deviations; interval by influence over units"
CONCORDANCE_METHOD = "Lin's concordance; interval by influence over units on Fisher's scale"
FEW_UNITS = ", covers 86 to 95 % below 1,000 units"
NO_PAIRS = "no data"
SAME_GAP = "no interval: every pair has the same difference"
ONE_NUMBER = "no data: all numbers are equal"
CONSTANT_SIDE = "no interval: one side always gives the same number"


def compute_mean_estimate(values: Floats, units: Ints) -> Estimate:
    """Return the mean of the values; with one case a unit the usual t interval.

    Args:
        values: of each case, shape (cases,).
        units: number of each case's unit, from 0, shape (cases,).
    """
    if not len(values):
        return Estimate(None, None, None, 0, NO_PAIRS)
    mean = float(values.mean())
    error = _compute_error(values - mean, units, min_units=0)
    return _build_estimate(mean, error, len(values), MEAN_METHOD)


def compute_limits(differences: Floats, units: Ints) -> tuple[Estimate, Estimate]:
    """Return the lower and upper limit of agreement: 95 % of normal differences lie between.

    Arguments as for `compute_mean_estimate`.

    Source: Bland and Altman, Lancet 327 (1986) 307.
    """
    n = len(differences)
    if n < 2:
        nothing = Estimate(None, None, None, n, NO_PAIRS)
        return nothing, nothing
    gaps = differences - differences.mean()
    deviation = sqrt(float(np.sum(gaps**2)) / (n - 1))
    lower, upper = (
        _compute_limit(float(differences.mean()), gaps, deviation * sign, units)
        for sign in (-1.0, 1.0)
    )
    return lower, upper


def _compute_limit(mean: float, gaps: Floats, signed_deviation: float, units: Ints) -> Estimate:
    limit = mean + NORMAL_QUANTILE * signed_deviation
    if abs(signed_deviation) <= ROUNDING * abs(mean):
        return Estimate(mean, None, None, len(gaps), SAME_GAP)
    spread = (gaps**2 - signed_deviation**2) / (2 * signed_deviation)
    error = _compute_error(gaps + NORMAL_QUANTILE * spread, units, min_units=MIN_UNITS)
    return _build_estimate(limit, error, len(gaps), LIMIT_METHOD + error.caution)


def compute_concordance(human: Floats, model: Floats, units: Ints) -> Estimate:
    """Return Lin's concordance: 1 if all pairs are equal, 0 if unrelated.

    Unlike a correlation it falls with a bias, and with another scale.

    Source: Lin, Biometrics 45 (1989) 255; King and Chinchilli, Statistics in Medicine 20 (2001)
    2131, for the interval.
    """
    n = len(human)
    if not n:
        return Estimate(None, None, None, 0, NO_PAIRS)
    centre = float(human.mean())
    x, y = human - centre, model - centre
    bias = float(y.mean())
    y_gaps = y - bias
    covariance = float(np.mean(x * y_gaps))
    total = float(np.mean(x**2) + np.mean(y_gaps**2)) + bias**2
    if total <= (ROUNDING * centre) ** 2:
        return Estimate(None, None, None, n, ONE_NUMBER)
    value = 2 * covariance / total
    if not x.any() or not y_gaps.any():
        return Estimate(value, None, None, n, CONSTANT_SIDE)
    if 1 - abs(value) <= ROUNDING:
        return Estimate(value, None, None, n, SAME_GAP)
    total_influence = x**2 + y_gaps**2 + bias**2 + 2 * bias * (y_gaps - x) - total
    influence = (2 * (x * y_gaps - covariance) - value * total_influence) / total
    error = _compute_error(influence, units, min_units=MIN_UNITS)
    if error.half_width is None:
        return Estimate(value, None, None, n, error.refusal)
    half_width = error.half_width / (1 - value**2)
    ends = tanh(atanh(value) - half_width), tanh(atanh(value) + half_width)
    return Estimate(value, *ends, n, CONCORDANCE_METHOD + error.caution)


@dataclass(frozen=True, slots=True)
class _SamplingError:
    """Half the width of a 95 % interval, or why there is none.

    `caution` is how the coverage falls short with few units; empty if it doesn't.
    """

    half_width: float | None
    refusal: str = ""
    caution: str = ""


def _compute_error(influence: Floats, units: Ints, *, min_units: int) -> _SamplingError:
    """Return the sampling error of a figure from the influence of each case, of mean 0."""
    sizes = np.bincount(units)
    sizes = sizes[sizes > 0].astype(float)
    count = len(sizes)
    freedom = float(np.sum(sizes**2) ** 2 / np.sum(sizes**4)) - 1
    if count < min_units or freedom < MIN_FREEDOM:
        uneven = "" if count < max(min_units, MIN_FREEDOM) else ", of which a few hold most cases"
        return _SamplingError(None, f"too few units ({count}{uneven})")
    sums = np.bincount(units, influence)
    deviation = sqrt(count / (count - 1) * float(np.sum(sums**2))) / len(influence)
    half_width = float(scipy.special.stdtrit(freedom, UPPER_QUANTILE)) * deviation
    return _SamplingError(half_width, caution=FEW_UNITS if count < MANY_UNITS else "")


def _build_estimate(value: float, error: _SamplingError, n: int, method: str) -> Estimate:
    if error.half_width is None:
        return Estimate(value, None, None, n, error.refusal)
    return Estimate(value, value - error.half_width, value + error.half_width, n, method)
