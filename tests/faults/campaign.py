"""Every point of the script fails, one by one: `python -m tests.faults.campaign` (`make faults`).

The full form tries each point with each kind, once and always, on both engines, and follows the
script to its end. The short one, for CI, takes a fixed stride through the points, short for `kill`
and `raise` on SQLite, leaves out steps that only repeat others, and ends each trial with the next
tick. `--sample COMMIT` takes of either, and of the mutants, what a commit draws. It runs in an
interpreter of its own: a process that forks must not have used Polars before.
"""

import argparse
import logging
import resource
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import closing

from tests.data.databases import close_server, close_templates
from tests.faults import trials
from tests.faults.copies import COPIES
from tests.faults.forks import Died, Fork, each
from tests.faults.migrations import migration_trials
from tests.faults.mutants import MUTANTS
from tests.faults.trials import STEPS, Trial
from tests.faults.world import recorded
from tests.samples import draw

KINDS = ("kill", "raise", "cut", "pause")
REPEATS = {  # steps that do once more what another one does: left out of the short form
    *("send third", "tick 13", "bo approves widening 16.1", "cy approves widening 16.2"),
    *("ana approves resume 20.5", "ana approves policy 24.2", "bo approves policy 24.3"),
    *("begin reports", "ask report", "tick 29", "tick 33"),
}
SHORT = {  # (engine, kind, always): every how many points, and from which on
    ("sqlite", "kill", False): (4, 1),
    ("sqlite", "raise", False): (4, 3),
    ("sqlite", "cut", False): (11, 3),
    ("sqlite", "pause", False): (7, 2),
    ("sqlite", "kill", True): (29, 5),
    ("sqlite", "raise", True): (23, 1),
    ("postgresql", "kill", False): (17, 4),
    ("postgresql", "raise", False): (29, 7),
    ("postgresql", "cut", False): (13, 2),
    ("postgresql", "pause", False): (9, 6),
    ("postgresql", "cut", True): (41, 11),
}
PICKED = {("postgresql", "claim", "pause")}  # in the short form too: it once found something
EXPECTED = Counter({"Widened": 2, "PolicyApplied": 2, "Narrowed": 1, "Stopped": 1, "Resumed": 1})
"""What happens in the script, by event."""
SAMPLED = 5  # of so many trials or mutants a commit draws one
LEFT = {("sqlite", "look for reports", "raise")}  # out of the short form: slow, and `kill` does it


def sampled(items, commit):
    """Return what a commit draws, at least one; all without a commit."""
    if not commit:
        return list(items)
    ordered = sorted(items, key=lambda item: draw(repr(item), commit) % SAMPLED)
    drawn = [item for item in ordered if draw(repr(item), commit) % SAMPLED == 0]
    return drawn or ordered[:1]


def planned(world, engine, *, full):
    """Return the trials of an engine, in the order of the script."""
    points = [
        (step, hit, point)
        for step, passed in enumerate(world.passed)
        for hit, point in enumerate(passed)
        if full or STEPS[step].name not in REPEATS
    ]
    for kind in KINDS:
        for always in (False, True):
            stride, first = (1, 0) if full else SHORT.get((engine, kind, always), (0, 0))
            chosen = set(points[first::stride] if stride else [])
            for step, hit, point in points:
                which = (engine, STEPS[step].name, kind)
                if (step, hit, point) not in chosen and which not in PICKED:
                    continue
                if which in LEFT and not full:
                    continue
                if not (kind == "pause" and always):  # it wakes once
                    yield Trial(step, hit, point, kind, always, whole=full)


class TrialTable:
    """What came of the trials, and of those that failed what was wrong."""

    def __init__(self):
        self.trials, self.failed, self.wrong = Counter(), Counter(), []

    def add(self, engine, trial, answer):
        """Note a trial."""
        row = (trial.path, trial.point, trial.kind, "always" if trial.always else "once", engine)
        self.trials[row] += 1
        faults = [f"{answer}"] if isinstance(answer, Died) else answer
        if faults:
            self.failed[row] += 1
            self.wrong.append(f"{engine} · {trial}: " + "\n      ".join(faults))

    def __str__(self):
        heads = ("path", "point", "kind", "often", "engine", "trials", "failed")
        rows = [(*row, self.trials[row], self.failed[row]) for row in sorted(self.trials)]
        widths = [max(len(str(row[i])) for row in (heads, *rows)) for i in range(len(heads))]
        lines = (
            "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in (heads, *rows)
        )
        return "\n".join(line.rstrip() for line in lines)


def tried(engine, table, *, full, commit, at_once, tell):
    """Try every planned trial of an engine, or those that a commit draws."""
    with (
        tempfile.TemporaryDirectory(prefix="rollout-faults-") as folder,
        closing(COPIES[engine](folder)) as copies,
    ):
        world = _world(copies)
        todo = sampled(planned(world, engine, full=full), commit)
        works = [lambda _, t=t: trials.run(t, world, copies) for t in todo]
        more = sampled(migration_trials(copies, full=full), commit)
        works += [lambda _, t=t: t.run(copies) for t in more]
        todo += more
        began = time.monotonic()
        for done, (number, answer) in enumerate(each(works, at_once), start=1):
            fault_count = len(table.wrong)
            table.add(engine, todo[number], answer)
            for wrong in table.wrong[fault_count:]:  # at once: the whole takes an hour
                tell(f"\nFAILED {wrong}")
            tell(f"\r{engine}: {done} of {len(todo)} trials, {len(table.wrong)} failed ", end="")
        tell(f"in {time.monotonic() - began:.0f} s")


def _world(copies):
    world = Fork(lambda _: recorded(copies)).answer()
    if isinstance(world, Died):
        raise SystemExit(f"the script does not run without faults: {world.said}")
    odd = [(step.name, work) for step, work in zip(STEPS, world.asked, strict=True)
           if work.outcome == "unknown"]  # fmt: skip
    if odd:
        raise SystemExit(f"the script does not run without faults: {odd}")
    counts = Counter(type(event).__name__ for _, events in world.right[-1:] for event in events)
    if lost := EXPECTED - counts:  # a rule that ends the story early would leave little to fail
        raise SystemExit(f"the script no longer tells of {dict(lost)}")
    return world


def mutated(engine, commit, at_once, tell):
    """Try each mutant on its trials; return the names of those caught, and of those that are not.

    With a commit those that it draws.

    The same trials of the program as it is come first: what catches a mutant must not cry wolf.
    """
    with (
        tempfile.TemporaryDirectory(prefix="rollout-mutants-") as folder,
        closing(COPIES[engine](folder)) as copies,
    ):
        world = _world(copies)
        names = sampled([mutant.name for mutant in MUTANTS if engine in mutant.engines], commit)
        mine = [mutant for mutant in MUTANTS if mutant.name in names]
        pairs = [(m, t) for m in mine for t in m.trials(world)]
        whole = [(None, trial) for trial in dict.fromkeys(trial for _, trial in pairs)]
        works = [lambda _, m=m, t=t: trials.run(t, world, copies, m) for m, t in whole + pairs]
        faults = defaultdict(list)
        for number, answer in each(works, at_once):
            mutant, _ = (whole + pairs)[number]
            lines = [f"{answer}"] if isinstance(answer, Died) else answer
            faults[mutant and mutant.name] += lines
    if faults[None]:
        raise SystemExit(f"without any mutant: {faults[None]}")
    caught, missed = [], []
    for mutant in mine:
        lines = [wrong for wrong in faults[mutant.name] if wrong.startswith(mutant.oracles)]
        (caught if lines else missed).append(mutant.name)
        tell(f"{engine} · {mutant.name}: {lines[0][:90] if lines else 'NOT CAUGHT'}")
        if not lines:
            tell(f"  found: {faults[mutant.name][:3]}")
    return caught, missed


def main(words=None):
    """Run the campaign; the exit code says whether all held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="the form for CI, two minutes")
    parser.add_argument("--mutants", action="store_true", help="the suite tested: mutants alone")
    parser.add_argument("--sample", default="", help="what this commit draws, one of five")
    parser.add_argument("--engine", action="append", choices=COPIES, help="by default both")
    parser.add_argument("--at-once", type=int, default=2, help="processes")
    arguments = parser.parse_args(words)
    engines = arguments.engine or list(COPIES)
    logging.disable()  # what fails on purpose is no news

    def tell(text, end="\n"):
        sys.stderr.write(text + end)
        sys.stderr.flush()

    try:
        if arguments.mutants:
            return _mutants(engines, arguments, tell)
        return _trials(engines, arguments, tell)
    finally:
        close_server()
        close_templates()


def _mutants(engines, arguments, tell):
    missed = []
    for engine in engines:
        caught, not_caught = mutated(engine, arguments.sample, arguments.at_once, tell)
        print(f"{engine}: {len(caught)} mutants caught, {len(not_caught)} not")  # noqa: T201
        missed += not_caught
    return 1 if missed else 0


def _trials(engines, arguments, tell):
    table = TrialTable()
    for engine in engines:
        tried(
            engine,
            table,
            full=not arguments.short,
            commit=arguments.sample,
            at_once=arguments.at_once,
            tell=tell,
        )
    print(table)  # noqa: T201 - the answer
    for wrong in table.wrong[:20]:
        print(f"FAILED {wrong}")  # noqa: T201 - the answer
    total, failed = sum(table.trials.values()), sum(table.failed.values())
    spent = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    print(f"{total} trials, {failed} failed, {spent:.0f} s of processor")  # noqa: T201
    return 1 if failed or not total else 0


if __name__ == "__main__":
    sys.exit(main())
