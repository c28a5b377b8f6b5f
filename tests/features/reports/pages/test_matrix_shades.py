"""Shades of a matrix are chosen once a page: each count is read a fixed number of times."""

import pytest

from rollout.features.reports.figures.comparison import ConfusionMatrix
from rollout.features.reports.pages.page_templates import choose_shades


class Count(int):
    """A count that notes how often it is added or multiplied."""

    uses = 0

    def __radd__(self, other):
        type(self).uses += 1
        return Count(int(self) + other)

    __add__ = __radd__

    def __mul__(self, other):
        type(self).uses += 1
        return int(self) * other


@pytest.mark.parametrize("costs", [None, 2.0])
def test_the_work_grows_with_the_cells_of_a_matrix(costs):
    labels = tuple(f"l{n}" for n in range(30))
    counts = tuple(tuple(map(Count, range(30))) for _ in labels)
    matrix = ConfusionMatrix(labels, counts, costs and tuple((costs,) * 30 for _ in labels))
    Count.uses = 0
    shades = choose_shades(matrix)
    assert [len(row) for row in shades] == [30] * 30
    assert 0 < Count.uses <= 2 * 30 * 30
