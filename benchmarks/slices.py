"""Are planted divergences found, and is nothing claimed where nothing is planted?

Three tables, each from seeds of its own:

- the mail room made anew: at which place the worn scanner, the new form and the careless clerk are
  named;
- the same with a scanner that does not wear, one form, and clerks who are all alike: what is named;
- divergences of the shipped records dealt out anew over the units, so that no slice differs by
  more than luck: in how many copies anything is named. At most 5 % are promised.

Example:
    python benchmarks/slices.py --seeds 10 --copies 2000
"""

import argparse
import dataclasses
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

GENERATOR = Path(__file__).parents[1] / "examples" / "mail-room"
ATTRIBUTES = ("scanner", "form")
PLANTED = {"form new": "the new form", "scanner worn": "the worn scanner", "person hob-2": "hob-2"}
ALIKE = (8,) * 5  # errors in 1,000 of every clerk, where nothing is planted


def main() -> None:
    """Read the command line, print the three tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10, help="mail rooms of each kind")
    parser.add_argument("--copies", type=int, default=2000, help="records dealt out anew")
    arguments = parser.parse_args()
    print(f"planted, {arguments.seeds} mail rooms: place in the list of v1")
    for line in format_planted(arguments.seeds):
        print(f"  {line}")
    print(f"nothing planted, {arguments.seeds} mail rooms: named of v1 and v2, labels aside")
    for line in format_plain(arguments.seeds):
        print(f"  {line}")
    named_in = count_reshuffled_copies(arguments.copies)
    share = named_in / arguments.copies
    print(f"dealt out anew: named in {named_in} of {arguments.copies}, {share:.2%}")


def format_planted(seeds: int) -> Iterator[str]:
    """Yield for each thing that was planted at which places it was named."""
    places: dict[str, list[str]] = {name: [] for name in PLANTED}
    for seed in range(seeds):
        names = find_slices(seed)["v1"]
        for name, at in places.items():
            at.append(str(1 + names.index(name)) if name in names else "-")
    for name, at in places.items():
        yield f"{PLANTED[name]:18}{' '.join(at)}"


def format_plain(seeds: int) -> Iterator[str]:
    """Yield what was named in mail rooms in which nothing is planted, and how often."""
    import clerks
    import offices

    offices.WORN_AT = offices.NEW_FORM_AT = "nowhere"
    clerks.CARELESS, clerks.ERRORS_IN_1000 = {}, ALIKE
    claims: Counter[str] = Counter()
    rooms = 0
    for seed in range(1000, 1000 + seeds):
        names = [
            name for each in find_slices(seed).values() for name in each if "called" not in name
        ]
        claims.update(names)
        rooms += bool(names)
    yield f"in {rooms} of {seeds}: {dict(claims) or 'nothing'}"


def find_slices(seed: int) -> dict[str, list[str]]:
    """Make a mail room, replay it, return per version what is named, the strongest first."""
    import generate

    from rollout.features.reports.figures.slices import compute_slice_searches, format_slice_name

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its summary takes means of planted letters: none here
        generate.write(generate.happen(seed), Path(folder))
        inputs = _inputs(Path(folder))
    searches = compute_slice_searches(inputs.records, inputs.case_facts, inputs.policy)
    return {s.version: [format_slice_name(each.names) for each in s.found] for s in searches}


def _inputs(folder: Path | None) -> Any:
    from rollout.engine.files.files import RecordPaths
    from rollout.features.demo.catalog import (
        MAIL_ROOM,
        build_replay_request,
        find_example,
    )
    from rollout.features.replay.replay import build_replay_inputs, replay_files

    order = build_replay_request(find_example(MAIL_ROOM))
    if folder is not None:
        names = ("predictions", "decisions", "cases", "outcomes")
        paths = {name: folder / f"{name}.csv.gz" for name in names}
        order = dataclasses.replace(order, sources=RecordPaths(**paths))
    inputs = build_replay_inputs(replay_files(order))
    return dataclasses.replace(inputs, policy=dataclasses.replace(inputs.policy, slices=ATTRIBUTES))


def count_reshuffled_copies(copies: int) -> int:
    """Return in how many copies of the shipped records anything is named."""
    from rollout.features.reports.figures.slices import (
        add_clock,
        build_dimensions,
        count_testable_slices,
        find_divergent_slices,
        find_first_decisions,
    )
    from rollout.features.reports.inputs.pairs import build_case_frame

    inputs = _inputs(None)
    (lever,) = inputs.policy.levers
    facts = add_clock(build_case_frame(inputs.records, inputs.cases), inputs.policy)
    frame = find_first_decisions(inputs.records, facts, "v1", lever)
    cuts = build_dimensions(frame, inputs.policy, lever)
    looked_at = sum(count_testable_slices(cut) for cut in cuts)
    generator, differs = np.random.default_rng(1), frame["differs"].to_numpy()
    return sum(
        bool(find_divergent_slices(cuts, generator.permutation(differs), looked_at))
        for _ in range(copies)
    )


if __name__ == "__main__":
    sys.path.insert(0, str(GENERATOR))
    main()
