"""Each interval covers as often as statistics.md §17 says: benchmarks/coverage.py in fewer runs."""

from math import sqrt

import numpy as np
import pytest

from benchmarks.coverage import SIMULATIONS

# runs here, and what statistics.md asks for in every setting and on average
ASKED = {
    "Clopper–Pearson": (0, 0.95, 0.95),
    "Clopper–Pearson, one-sided": (0, 0.95, 0.95),
    "Korn–Graubard, weighted": (400, 0.95, 0.95),
    "Korn–Graubard, by unit": (200, 0.945, 0.97),
    "Korn–Graubard, audits by unit": (150, 0.945, 0.97),
    "missing decisions": (500, 0.96, 0.97),
    "Dirichlet posterior": (400, 0.95, 0.96),
    "Dirichlet posterior, by unit": (400, 0.95, 0.96),
    "bootstrap over units": (400, 0.945, 0.95),
    "Agresti–Min": (2000, 0.95, 0.955),
    "Agresti–Min, by unit": (400, 0.945, 0.945),
    "Agresti–Caffo": (2000, 0.945, 0.95),
    "Agresti–Caffo, by day": (300, 0.945, 0.95),
    "Agresti–Caffo, uneven days": (300, 0.95, 0.96),
    "Agresti–Caffo, few days": (200, 0.95, 0.97),
    "Clopper–Pearson, of these days": (200, 0.95, 0.96),
    "adopted share": (1000, 0.95, 0.95),
    "at every look": (300, 0.95, 0.95),
}


def test_every_method_has_its_simulation():
    assert set(ASKED) == set(SIMULATIONS)


@pytest.mark.simulation
@pytest.mark.parametrize("method", ASKED)
def test_intervals_cover_what_is_true(method):
    """By luck of the runs a setting may lie three standard errors lower; exact ones may not."""
    simulate, _ = SIMULATIONS[method]
    runs, least, mean = ASKED[method]
    found = simulate(np.random.default_rng(23), runs)
    luck = 3 * sqrt(least * (1 - least) / runs) if runs else 1e-12
    assert min(found.values()) >= least - luck
    assert np.mean(list(found.values())) >= mean - luck / sqrt(len(found))
