"""Sums of a cell move in batches for whoever may be asked blind, on each page that shows them."""

from itertools import product

import pytest

from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.evidence.evidence_view import BATCH_SIZE
from rollout.features.cells.cell_table import load_cell_page, load_single_cell_page
from rollout.features.cells.cells import load_cell, load_cells
from rollout.features.divergences.closed_units import load_action_changes, load_version_confusion
from rollout.features.incidents.incident_causes import load_cause
from rollout.kernel.units import UnitSelection
from tests.api.cells.test_cell_timelines import READER, REVIEWER, list_cells, tick, told

pytestmark = pytest.mark.exhaustive
__all__ = ["told"]
OPERATOR = Caller("ana", role_assignments=(AssignedRole("operator"), AssignedRole("reviewer")))
ELSEWHERE = Caller("eve", role_assignments=(AssignedRole("viewer"), AssignedRole("reviewer", "x")))
VERSION = "v1"


def read_cell_evidence(evidence):
    """Return all figures of one version's evidence, and how many units they are of."""
    (facts,) = [facts for facts in evidence if facts.version == VERSION] or [None]
    if facts is None:
        return 0, ()
    gate = () if facts.gate is None else tuple(
        (c.counts, c.estimate, c.bound) for c in facts.gate.conditions
    )  # fmt: skip
    paths = [(p.measure, p.n[-1], p.estimate[-1], p.bound[-1]) for p in facts.path if len(p.n)]
    return facts.decided_units, (
        facts.attempt_since,
        facts.closed_units,
        facts.undecided_units,
        gate,
        tuple(paths),
    )


def read_cell(service, caller, cell, at):
    return read_cell_evidence(load_cell(service, caller, "story", cell, at=at).evidence)


def read_cell_page(service, caller, cell, at):
    page = load_single_cell_page(service, caller, "story", cell, at=at)
    judged, figures = read_cell_evidence(page.rows[0].evidence)
    return judged, (*figures, page.rows[0].passed_thresholds)


def read_rollout_page(service, caller, cell, at):
    page = load_cell_page(service, caller, "story", at=at)
    (row,) = [row for row in page.rows if row.cell == cell]
    return read_cell_evidence(row.evidence)


def read_action_changes(service, caller, cell, _at):
    changes = load_action_changes(service, caller, "story", (VERSION,), cell)
    judged = max((change.change.n for change in changes), default=0)
    return judged, tuple((c.action, c.by_human, c.by_model) for c in changes)


def read_matrix(service, caller, _cell, _at):
    items = load_version_confusion(service, caller, "story", VERSION).items
    judged = max((item.agreement.n for item in items), default=0)
    return judged, tuple((item.lever, item.agreement.count) for item in items)


def read_cause(service, caller, cell, at):
    query = UnitSelection(VERSION, cell.site, cell.window)
    cause = load_cause(service, caller, "story", query, at=at).cause
    judged = sum(share.n for share in (cause.before, cause.during, cause.after))
    return judged, (cause.before, cause.during, cause.search.values)


READERS = (
    *(read_cell, read_cell_page, read_rollout_page, read_action_changes, read_matrix),
    read_cause,
)


@pytest.mark.parametrize("caller", [REVIEWER, OPERATOR], ids=["reviewer", "operator and reviewer"])
def test_no_two_looks_differ_by_less_than_a_batch(service, database, told, caller):
    looks, moved = {}, set()
    for at in told[6::6]:
        tick(database, at)
        for read, cell in product(READERS, list_cells(service)):
            judged, figures = read(service, caller, cell, at)
            before, earlier = looks.get((read, cell), (0, figures if not judged else None))
            if judged == before:
                assert figures == earlier or earlier is None or judged == 0, read
            elif judged > before:
                assert judged - before >= BATCH_SIZE, read
                moved.add(read)
            else:
                assert judged == 0 or judged >= BATCH_SIZE, read  # a new attempt
            looks[read, cell] = judged, figures
    assert moved == {*READERS}


def test_who_is_asked_nowhere_here_reads_each_unit(service, database, told):
    tick(database, told[-1])
    for read in READERS:
        totals = {}
        for name, caller in (("viewer", READER), ("elsewhere", ELSEWHERE), ("reviewer", REVIEWER)):
            reads = [read(service, caller, cell, told[-1])[0] for cell in list_cells(service)]
            totals[name] = sum(reads)
        assert totals["viewer"] == totals["elsewhere"] > totals["reviewer"], read


def test_a_list_of_cells_says_no_more_than_their_pages(service, database, told):
    tick(database, told[-1])
    listed = load_cells(service, REVIEWER, "story", at=told[-1]).items
    pages = [load_cell(service, REVIEWER, "story", c, at=told[-1]) for c in list_cells(service)]
    assert [item.next_step for item in listed] == [page.status.next_step for page in pages]
