"""What a tick costs over many cells: all changed in memory; on SQLite little or nothing new.

Example:
    PYTHONPATH=. python benchmarks/ticks.py --cells 1000
"""

import argparse
import tempfile
from pathlib import Path

from live_tick import live_ticks
from tick import tick_over

from rollout.kernel.policy.policy import EvidenceRules


def main() -> None:
    """Read the command line, print a line for each tick."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=10_000, help="cells of the rollout")
    cells = parser.parse_args().cells
    print(f"one tick over {cells:,} cells with 4 measures each: {tick_over(cells)()}")
    floors = EvidenceRules(confidence_floors=(0.0, 0.6, 0.8, 0.9, 0.97))
    print(f"the same with five confidence floors: {tick_over(cells, rules=floors)()}")
    with tempfile.TemporaryDirectory() as folder:
        print(f"live ticks over {cells:,} cells on SQLite: {live_ticks(Path(folder), cells)()}")


if __name__ == "__main__":
    main()
