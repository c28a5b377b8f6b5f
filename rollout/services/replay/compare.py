"""Compare one file of pairs while streaming it; needs no rollout or service."""

from dataclasses import dataclass, replace
from pathlib import Path
from sys import float_info

import polars as pl

from rollout.core.policy.file_readings import FileReading
from rollout.core.policy.levers import Lever, Number
from rollout.core.policy.policy import Policy
from rollout.formats.policy.reader import read_policy
from rollout.formats.policy.scalars import read_distance
from rollout.formats.records.pair_files import format_polars_error, scan_pairs
from rollout.reports.figures.comparison import Comparison, compute_comparisons
from rollout.reports.figures.number_agreement import NumberAgreement, compute_number_agreement
from rollout.reports.inputs.counted import PairCounts, count_pairs
from rollout.reports.inputs.counted_numbers import count_number_pairs, find_number_answers

BASIS_TEXT = (
    "Each pair counts as independent. Units, times and exposure are unknown, so these figures are "
    "not evidence."
)


@dataclass(frozen=True, slots=True)
class PairLoss:
    """A pair that differs, with confidence and loss.

    `loss` is in nats: −ln of the probability left for the human answer. `cost` is that of following
    the
    model, 1 without a policy.
    """

    case_key: str
    version: str | None
    site: str | None
    window: str | None
    human: str
    model: str
    confidence: float
    loss: float
    cost: float


@dataclass(frozen=True, slots=True)
class PairComparison:
    """Comparison of the pairs of a file.

    Attributes:
        numbers: with a number lever one per version, in the order of the comparisons.
        with_confidence: number of rows with a confidence.
        basis: description of the counted pairs.
        compute_comparisons: one per version.
        top_losses: at most 20, by cost times loss.
    """

    file: str
    rows: int
    with_confidence: int
    basis: str
    comparisons: tuple[Comparison, ...]
    top_losses: tuple[PairLoss, ...]
    numbers: tuple[NumberAgreement, ...] = ()


def compare_pair_file(
    file: Path,
    *,
    policy: Path | None = None,
    lever: str = "",
    tolerance: str = "",
    column_mappings: tuple[str, ...] = (),
) -> PairComparison:
    """Compare human and model answers of a file.

    Args:
        file: Parquet, CSV or JSON lines, as `scan_pairs` reads it.
        policy: gives costs, actions, the order of labels, and how the file is written.
        lever: lever of the answers; optional if the policy has only one.
        tolerance: distance within which numbers agree, as 5% or 2; instead of a policy.
        column_mappings: other names of columns.

    Raises:
        ValueError: the file can't be read, a confidence is not valid, or it holds numbers and
            nothing says how near they must be.
    """
    pair_lever, reading = _build_number_lever(tolerance) if tolerance else None, FileReading()
    if policy is not None:
        if tolerance:
            raise ValueError("--tolerance: the policy has one; leave out one of the two")
        loaded_policy = read_policy(policy)
        pair_lever = _select_lever(loaded_policy, lever)
        if pair_lever.many:
            text = f"--policy: lever {pair_lever.id} has sets of labels, and compare takes single"
            raise ValueError(f"{text} labels or numbers; replay the records, and read its report")
        reading = loaded_policy.file_readings.get("pairs", reading)
    try:
        pairs = scan_pairs(file, column_mappings, reading)
        if pair_lever is not None and pair_lever.number is not None:
            return _compare_numbers(file, pairs, pair_lever)
        pair_counts = count_pairs(pairs, pair_lever)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{file}: can't be read: {format_polars_error(error)}") from error
    if pair_lever is None:
        _refuse_numbers(file, pair_counts)
    return _build_comparison(file, pair_counts, pair_lever)


def _build_comparison(
    file: Path, pair_counts: PairCounts, lever: Lever | None, *, has_numbers: bool = False
) -> PairComparison:
    _check_confidences(file, pair_counts)
    return PairComparison(
        file=file.name,
        rows=int(pair_counts.table["n"].sum()),
        with_confidence=pair_counts.confidence_count,
        basis=BASIS_TEXT,
        comparisons=compute_comparisons(
            pair_counts.table, lever, has_labels=not has_numbers, has_numbers=has_numbers
        ),
        top_losses=tuple(_build_pair_loss(row) for row in pair_counts.losses.iter_rows(named=True)),
    )


def _compare_numbers(file: Path, pairs: pl.LazyFrame, lever: Lever) -> PairComparison:
    number_counts = count_number_pairs(pairs, lever)
    comparison = _build_comparison(file, number_counts.counts, lever, has_numbers=True)
    versions = [version_comparison.version for version_comparison in comparison.comparisons]
    numbers = tuple(
        compute_number_agreement(
            number_counts.pairs.filter(pl.col("version").eq_missing(pl.lit(version, pl.String))),
            version,
            lever,
        )
        for version in versions
    )
    return replace(comparison, numbers=numbers)


def _build_number_lever(tolerance: str) -> Lever:
    """Return a lever of any number, of which each divergence costs 1."""
    try:
        margin = read_distance(tolerance)
    except ValueError:
        raise ValueError(
            f"--tolerance {tolerance}: is no distance; write a number such as 2, or a share of the"
            " human's number such as 5%"
        ) from None
    return Lever("", number=Number("", -float_info.max, float_info.max, margin))


def _refuse_numbers(file: Path, pair_counts: PairCounts) -> None:
    different = find_number_answers(pair_counts.table)
    if different:
        raise ValueError(
            f"{file}: the answers are numbers ({different:,} different ones of humans), not labels;"
            " write how near they must be, `--tolerance 5%` or `--tolerance 2`, or name a policy"
        )


def _select_lever(policy: Policy, lever_id: str) -> Lever:
    levers = {lever.id: lever for lever in policy.levers}
    if lever_id and lever_id not in levers:
        raise ValueError(f"--lever {lever_id}: the policy's levers: {', '.join(levers)}")
    if len(levers) != 1 and not lever_id:
        raise ValueError(f"--lever: the policy's levers are {', '.join(levers)}; say which")
    return levers[lever_id] if lever_id else next(iter(levers.values()))


def _check_confidences(file: Path, pair_counts: PairCounts) -> None:
    minimum, maximum = pair_counts.min_confidence, pair_counts.max_confidence
    if minimum is not None and maximum is not None and not 0 <= minimum <= maximum <= 1:
        raise ValueError(f"{file}: confidences run from {minimum:g} to {maximum:g}; write 0 to 1")


def _build_pair_loss(row: dict[str, object]) -> PairLoss:
    values = {name: row.get(name) for name in PairLoss.__slots__}
    return PairLoss(**values)  # type: ignore[arg-type]
