"""`compare`: one file of pairs, counted as it streams by; no rollout or service is needed."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.formats.policy.reader import read_policy
from rollout.formats.records.pair_files import plainly, scan_pairs
from rollout.reports.figures.comparison import Comparison, comparisons
from rollout.reports.inputs.counted import Counted, count_pairs

BASIS = (
    "pairs as the file has them, each independent of the others: no unit, no time and no "
    "exposure is known, so nothing here is evidence"
)


@dataclass(frozen=True, slots=True)
class TopLoss:
    """A pair that differs: how sure the model was, and how surprised it should be.

    `loss` is in nats, −ln of the probability that the model left for people's answer; `cost` is
    that of doing what the model said, 1 without a policy.
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
class Compared:
    """What a file of pairs says.

    Attributes:
        file: its name.
        rows: how many it has.
        with_confidence: of these, the ones that say how sure the model was.
        basis: what the figures are of, in words.
        comparisons: a version each.
        top_losses: at most 20, those first whose cost times loss is largest.
    """

    file: str
    rows: int
    with_confidence: int
    basis: str
    comparisons: tuple[Comparison, ...]
    top_losses: tuple[TopLoss, ...]


def compare(
    file: Path, *, policy: Path | None = None, lever: str = "", mapped: tuple[str, ...] = ()
) -> Compared:
    """Compare people with the model on the pairs of a file.

    Args:
        file: Parquet, CSV or JSON lines, as `scan_pairs` reads it.
        policy: gives costs, actions and the order of labels.
        lever: which of the policy's levers the answers are of; it may be left out if it has one.
        mapped: other names of columns.

    Raises:
        ValueError: the file can't be read, a confidence is none, or the lever has no labels.
    """
    policy_lever = None if policy is None else _lever(read_policy(policy), lever)
    try:
        pair_counts = count_pairs(scan_pairs(file, mapped), policy_lever)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{file}: can't be read: {plainly(error)}") from error
    _refuse_confidences(file, pair_counts)
    return Compared(
        file=file.name,
        rows=int(pair_counts.table["n"].sum()),
        with_confidence=pair_counts.confidences,
        basis=BASIS,
        comparisons=comparisons(pair_counts.table, policy_lever),
        top_losses=tuple(_loss(row) for row in pair_counts.losses.iter_rows(named=True)),
    )


def _lever(policy: Policy, name: str) -> Lever:
    levers = {lever.id: lever for lever in policy.levers if lever.number is None}
    if name and name not in levers:
        raise ValueError(f"--lever {name}: the policy's levers with labels: {_named(levers)}")
    if len(levers) != 1 and not name:
        raise ValueError(
            f"--lever: the policy's levers with labels are {_named(levers)}; say which"
        )
    return levers[name] if name else next(iter(levers.values()))


def _named(levers: Iterable[str]) -> str:
    return ", ".join(levers) or "none"


def _refuse_confidences(file: Path, counted: Counted) -> None:
    minimum, maximum = counted.least, counted.most
    if minimum is not None and maximum is not None and not 0 <= minimum <= maximum <= 1:
        raise ValueError(f"{file}: confidences run from {minimum:g} to {maximum:g}; write 0 to 1")


def _loss(row: dict[str, object]) -> TopLoss:
    values = {name: row.get(name) for name in TopLoss.__slots__}
    return TopLoss(**values)  # type: ignore[arg-type]
