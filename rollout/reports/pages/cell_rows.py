"""Where each cell stands, as every form of the report says it: on what, and what decides next."""

from collections.abc import Iterator
from dataclasses import dataclass

from rollout.reports.figures.evidence_facts import EvidenceFacts
from rollout.reports.figures.facts import Facts
from rollout.reports.inputs.evidence_paths import Path
from rollout.reports.text import formatting

SUPERSEDED = "acts here"  # next_step's words for a version that another one has taken over from


@dataclass(frozen=True, slots=True)
class CellRow:
    """One cell of the first table: where it stands, on what, and what decides next.

    `estimate`, `counted`, `units`, `bound` and `asked` are of what decides there, usually
    agreement; `units` is 0 and the others say so where nothing is known.
    """

    cell: str
    stage: str
    version: str | None
    since: str
    went_down: int
    estimate: str
    counted: str
    units: int
    bound: str
    asked: str
    next_step: str
    challengers: tuple[str, ...]


def cell_rows(facts: Facts) -> Iterator[CellRow]:
    """Return a row for each cell, in the order of the policy."""
    for cell in facts.stages:
        cell_evidence = [
            item for item in facts.evidence if (item.site, item.window) == (cell.site, cell.window)
        ]
        leading = max(cell_evidence, key=lambda item: (item.acting, item.judged), default=None)
        estimate, n, bound, threshold = _decides(leading)
        yield CellRow(
            cell=formatting.cell_name(cell.site, cell.window),
            stage=cell.stage,
            version=leading.version if leading else None,
            since=formatting.local(
                cell.since, facts.identity.zones[cell.site], facts.identity.last
            ),
            went_down=cell.narrowed,
            estimate=estimate,
            counted=formatting.several(n, "unit") if n else "",
            units=n,
            bound=bound,
            asked=threshold,
            next_step=leading.decides_next if leading else "no data: people decide",
            challengers=tuple(
                f"{item.version}: {item.decides_next}"
                for item in cell_evidence
                if item is not leading and SUPERSEDED not in item.decides_next
            ),
        )


def _decides(evidence: EvidenceFacts | None) -> tuple[str, int, str, str]:
    """Say estimate, units, bound and line of agreement, or of what else decides."""
    paths = [path for path in evidence.path if path.bound] if evidence else []
    if not paths:
        return formatting.UNKNOWN, 0, formatting.UNKNOWN, ""
    path = ([path for path in paths if path.measure == "agreement"] or paths)[-1]
    n = path.n[-1]
    if path.measure == "cost":
        threshold = f"cost at most {path.line:g}"
        return f"{path.estimate[-1]:.3f}", n, f"≤ {path.bound[-1]:.3f}", threshold
    bound = formatting.per_cent(path.bound[-1])
    return formatting.per_cent(path.estimate[-1]), n, f"≥ {bound}", f"asked {_asked(path)}"


def _asked(path: Path) -> str:
    prefix = "" if path.measure == "agreement" else f"{path.measure} "
    return f"{prefix}{formatting.per_cent(path.line, 0)}"
