"""Rows of the cell table: state, deciding evidence and next step of each cell."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from rollout.kernel.measures import MEASURES
from rollout.kernel.readings import EvidenceSeries
from rollout.reports.figures.evidence_facts import EvidenceFacts
from rollout.reports.figures.facts import ReportFacts
from rollout.reports.inputs.stages import CellStages
from rollout.reports.text import formatting
from rollout.reports.text.value_text import (
    format_bound_value,
    format_estimate,
    format_threshold,
)


@dataclass(frozen=True, slots=True)
class CellSummaryRow:
    """One row of the cell table.

    `estimate`, `units_text`, `units`, `bound` and `threshold` are of the deciding measure, usually
    agreement, and of `version`; without data `units` is 0. `narrowings` names the versions that
    were narrowed: `v1 down 2×`.
    """

    cell: str
    stage: str
    version: str | None
    since: str
    narrowings: tuple[str, ...]
    estimate: str
    units_text: str
    units: int
    bound: str
    threshold: str
    next_step: str


def build_cell_rows(facts: ReportFacts) -> Iterator[CellSummaryRow]:
    """Yield a row for each cell, in the order of the policy."""
    for cell in facts.stages:
        leading = find_leading_evidence(list_cell_evidence(facts, cell))
        estimate, n, bound, threshold = _describe_leading_evidence(leading)
        yield CellSummaryRow(
            cell=formatting.format_cell_name(cell.site, cell.window),
            stage=cell.stage,
            version=leading.version if leading else None,
            since=formatting.format_local_time(
                cell.since, facts.identity.zones[cell.site], facts.identity.last
            ),
            narrowings=tuple(_describe_narrowings(cell, facts.policy.stages)),
            estimate=estimate,
            units_text=formatting.format_quantity(n, "unit") if n else "",
            units=n,
            bound=bound,
            threshold=threshold,
            next_step=leading.next_step if leading else "no data: humans decide",
        )


def list_cell_evidence(facts: ReportFacts, cell: CellStages) -> list[EvidenceFacts]:
    """Return the evidence of all versions in a cell."""
    return [item for item in facts.evidence if (item.site, item.window) == (cell.site, cell.window)]


def find_leading_evidence(evidence: list[EvidenceFacts]) -> EvidenceFacts | None:
    """Return the evidence of the acting version, else of the most decided one."""
    return max(evidence, key=lambda item: (item.acting, item.decided_units), default=None)


def list_other_versions(
    evidence: list[EvidenceFacts], leading: EvidenceFacts | None
) -> list[EvidenceFacts]:
    """Return a cell's evidence of versions that a newer one has not replaced."""
    return [item for item in evidence if item is not leading and item.successor is None]


def _describe_narrowings(cell: CellStages, stages: tuple[str, ...]) -> Iterator[str]:
    """Describe how often each version lost a stage in a cell."""
    counts = Counter(
        before.version
        for before, after in pairwise(cell.intervals)
        if stages.index(after.stage) < stages.index(before.stage)
    )
    yield from (f"{version} down {count}×" for version, count in counts.items())


def _describe_leading_evidence(evidence: EvidenceFacts | None) -> tuple[str, int, str, str]:
    """Return estimate, units, bound and threshold of agreement, or of another measure."""
    paths = [path for path in evidence.path if path.bound] if evidence else []
    if not paths:
        return formatting.NO_DATA, 0, formatting.NO_DATA, ""
    path = ([path for path in paths if MEASURES[path.measure].covers_all_labels] or paths)[-1]
    bound = format_bound_value(path.measure, path.bound[-1], path.threshold, at_least=path.at_least)
    sign = "≥" if path.at_least else "≤"
    estimate = format_estimate(path.measure, path.estimate[-1])
    return estimate, path.n[-1], f"{sign} {bound}", _format_threshold(path)


def _format_threshold(path: EvidenceSeries) -> str:
    prefix = "" if MEASURES[path.measure].covers_all_labels else f"{path.measure} "
    return f"{prefix}threshold {format_threshold(path.measure, path.threshold)}"
