"""Rows of the cell table: state, deciding evidence and next step of each cell."""

from collections.abc import Iterator
from dataclasses import dataclass

from rollout.reports.figures.evidence_facts import EvidenceFacts
from rollout.reports.figures.facts import ReportFacts
from rollout.reports.inputs.evidence_paths import EvidenceSeries
from rollout.reports.inputs.stages import CellStages
from rollout.reports.text import formatting

SUPERSEDED = "acts here"  # part of the next step of a version that was taken over


@dataclass(frozen=True, slots=True)
class CellSummaryRow:
    """One row of the cell table.

    `estimate`, `units_text`, `units`, `bound` and `threshold` are of the deciding measure, usually
    agreement; without data `units` is 0.
    """

    cell: str
    stage: str
    version: str | None
    since: str
    narrowed_count: int
    estimate: str
    units_text: str
    units: int
    bound: str
    threshold: str
    next_step: str
    challengers: tuple[str, ...]


def build_cell_rows(facts: ReportFacts) -> Iterator[CellSummaryRow]:
    """Yield a row for each cell, in the order of the policy."""
    for cell in facts.stages:
        cell_evidence = list_cell_evidence(facts, cell)
        leading = find_leading_evidence(cell_evidence)
        estimate, n, bound, threshold = _describe_leading_evidence(leading)
        yield CellSummaryRow(
            cell=formatting.format_cell_name(cell.site, cell.window),
            stage=cell.stage,
            version=leading.version if leading else None,
            since=formatting.format_local_time(
                cell.since, facts.identity.zones[cell.site], facts.identity.last
            ),
            narrowed_count=cell.narrowed,
            estimate=estimate,
            units_text=formatting.format_quantity(n, "unit") if n else "",
            units=n,
            bound=bound,
            threshold=threshold,
            next_step=leading.decides_next if leading else "no data: people decide",
            challengers=tuple(
                f"{item.version}: {item.decides_next}"
                for item in cell_evidence
                if item is not leading and SUPERSEDED not in item.decides_next
            ),
        )


def list_cell_evidence(facts: ReportFacts, cell: CellStages) -> list[EvidenceFacts]:
    """Return the evidence of all versions in a cell."""
    return [item for item in facts.evidence if (item.site, item.window) == (cell.site, cell.window)]


def find_leading_evidence(evidence: list[EvidenceFacts]) -> EvidenceFacts | None:
    """Return the evidence of the acting version, else of the most decided one."""
    return max(evidence, key=lambda item: (item.acting, item.judged), default=None)


def _describe_leading_evidence(evidence: EvidenceFacts | None) -> tuple[str, int, str, str]:
    """Return estimate, units, bound and threshold of agreement, or of another measure."""
    paths = [path for path in evidence.path if path.bound] if evidence else []
    if not paths:
        return formatting.NO_DATA, 0, formatting.NO_DATA, ""
    path = ([path for path in paths if path.measure == "agreement"] or paths)[-1]
    n = path.n[-1]
    if path.measure == "cost":
        threshold = f"cost at most {path.line:g}"
        return f"{path.estimate[-1]:.3f}", n, f"≤ {path.bound[-1]:.3f}", threshold
    bound = formatting.format_percent(path.bound[-1])
    return (
        formatting.format_percent(path.estimate[-1]),
        n,
        f"≥ {bound}",
        f"asked {_format_threshold(path)}",
    )


def _format_threshold(path: EvidenceSeries) -> str:
    prefix = "" if path.measure == "agreement" else f"{path.measure} "
    return f"{prefix}{formatting.format_percent(path.line, 0)}"
