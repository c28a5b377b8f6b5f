"""How long the search for an incident's cause takes at 100,000 judged units.

The units have as many values as a search compares at most. Reading them from a database is not in
it.

Example:
    python benchmarks/causes.py
"""

import argparse
import time

import numpy as np

from rollout.reports.figures.incident_cause import JudgedUnits, find_incident_cause
from rollout.reports.statistics.value_search import (
    MAX_VALUES,
    MAX_VALUES_OF_A_KIND,
    ValueKind,
)

SECOND = 1_000_000


def main() -> None:
    """Read the command line, print the CPU seconds of one search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=100_000, help="judged units")
    number = parser.parse_args().units
    units = build_units(number)
    started = time.process_time()
    cause = find_incident_cause(units, int(units.occurred[number * 9 // 10]))
    spent = time.process_time() - started
    print(f"{number} units, {len(cause.search.values)} values: {spent:.2f} s of CPU")


def build_units(number: int) -> JudgedUnits:
    """Return units a second apart, of which more differ in the last fifth."""
    random = np.random.default_rng(1)
    names = tuple(f"v{value}" for value in range(2 * MAX_VALUES_OF_A_KIND))
    kinds = tuple(
        ValueKind(f"k{kind}", names, random.integers(0, len(names), number))
        for kind in range(MAX_VALUES // MAX_VALUES_OF_A_KIND)
    )
    index = np.arange(number)
    share = np.where(index < number * 4 // 5, 0.03, 0.2)
    return JudgedUnits(index * SECOND, index // 86_400, random.random(number) < share, kinds)


if __name__ == "__main__":
    main()
