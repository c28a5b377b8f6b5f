"""Matrices as tables: shades, and rare labels together."""

from api.divergences.divergence_text import (
    OTHER_LABELS,
    build_action_table,
    build_label_table,
    merge_rare_labels,
)
from rollout.features.reports.figures.comparison import ConfusionMatrix


def test_a_matrix_shades_what_agrees_apart_from_what_costs():
    table = build_label_table(ConfusionMatrix(("bear", "none"), ((9, 1), (5, 5))))
    assert [cell.shade for row in table.rows for cell in row.cells] == [
        "sh-2",
        "lo-4",
        "lo-4",
        "sh-2",
    ]
    assert table.totals == ("14", "6", "20")
    costs = build_action_table(
        ConfusionMatrix(("ring", "wait"), ((9, 1), (5, 5)), ((0.0, 20.0), (1.0, 0.0)))
    )
    assert [row.end.text for row in costs.rows] == ["100.0", "25.0"]
    assert costs.rows[0].cells[1].shade == "lo-4"


def test_shares_of_differences_that_differ_threefold_have_different_shades():
    counts = ((984, 4, 12), (0, 829, 171), (0, 40, 960))
    table = build_label_table(ConfusionMatrix(("a", "b", "c"), counts))
    shades = [cell.shade for row in table.rows for cell in row.cells]
    assert shades == ["sh-2", "lo-1", "lo-2", "", "sh-2", "lo-4", "", "lo-3", "sh-2"]


def test_a_matrix_of_many_labels_folds_the_rare_ones():
    size = 40
    labels = tuple(f"l{n}" for n in range(size))
    counts = tuple(tuple(int(n == m) * (n + 1) for m in range(size)) for n in range(size))
    found = merge_rare_labels(ConfusionMatrix(labels, counts))
    assert (len(found.labels), found.labels[-1]) == (12, OTHER_LABELS)
    assert sum(map(sum, found.counts)) == size * (size + 1) // 2
