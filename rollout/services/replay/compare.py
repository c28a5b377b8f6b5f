"""Compare one file of pairs while streaming it; needs no rollout or service."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from rollout.core.policy.file_readings import FileReading
from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.formats.policy.reader import read_policy
from rollout.formats.records.pair_files import format_polars_error, scan_pairs
from rollout.reports.figures.comparison import Comparison, compute_comparisons
from rollout.reports.inputs.counted import PairCounts, count_pairs

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


def compare_pair_file(
    file: Path,
    *,
    policy: Path | None = None,
    lever: str = "",
    column_mappings: tuple[str, ...] = (),
) -> PairComparison:
    """Compare human and model answers of a file.

    Args:
        file: Parquet, CSV or JSON lines, as `scan_pairs` reads it.
        policy: gives costs, actions, the order of labels, and how the file is written.
        lever: lever of the answers; optional if the policy has only one.
        column_mappings: other names of columns.

    Raises:
        ValueError: the file can't be read, a confidence is not valid, or the lever has no labels.
    """
    policy_lever, reading = None, FileReading()
    if policy is not None:
        loaded_policy = read_policy(policy)
        policy_lever = _select_lever(loaded_policy, lever)
        reading = loaded_policy.file_readings.get("pairs", reading)
    try:
        pair_counts = count_pairs(scan_pairs(file, column_mappings, reading), policy_lever)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{file}: can't be read: {format_polars_error(error)}") from error
    _check_confidences(file, pair_counts)
    return PairComparison(
        file=file.name,
        rows=int(pair_counts.table["n"].sum()),
        with_confidence=pair_counts.confidence_count,
        basis=BASIS_TEXT,
        comparisons=compute_comparisons(pair_counts.table, policy_lever),
        top_losses=tuple(_build_pair_loss(row) for row in pair_counts.losses.iter_rows(named=True)),
    )


def _select_lever(policy: Policy, lever_id: str) -> Lever:
    levers = {lever.id: lever for lever in policy.levers if lever.number is None}
    if lever_id and lever_id not in levers:
        raise ValueError(
            f"--lever {lever_id}: the policy's levers with labels: {_join_lever_names(levers)}"
        )
    if len(levers) != 1 and not lever_id:
        raise ValueError(
            f"--lever: the policy's levers with labels are {_join_lever_names(levers)}; say which"
        )
    return levers[lever_id] if lever_id else next(iter(levers.values()))


def _join_lever_names(levers: Iterable[str]) -> str:
    return ", ".join(levers) or "none"


def _check_confidences(file: Path, pair_counts: PairCounts) -> None:
    minimum, maximum = pair_counts.min_confidence, pair_counts.max_confidence
    if minimum is not None and maximum is not None and not 0 <= minimum <= maximum <= 1:
        raise ValueError(f"{file}: confidences run from {minimum:g} to {maximum:g}; write 0 to 1")


def _build_pair_loss(row: dict[str, object]) -> PairLoss:
    values = {name: row.get(name) for name in PairLoss.__slots__}
    return PairLoss(**values)  # type: ignore[arg-type]
