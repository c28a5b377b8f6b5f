"""From a replay to the files that people read: report, ledger, divergences."""

import shlex
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from rollout.core.ledger import chain
from rollout.core.policy import duration_text
from rollout.replay.engine import Replayed
from rollout.reports.divergences_csv import divergences_csv
from rollout.reports.facts import Facts, facts_of
from rollout.reports.html_report import html_report
from rollout.reports.inputs import Inputs, Source
from rollout.reports.json_report import json_report
from rollout.reports.text_report import text_report
from rollout.services.replaying import Order, ReplayedFiles
from rollout.tally.slots import instant


def facts_of_replay(done: ReplayedFiles) -> Facts:
    """Return the numbers of a replay's report."""
    return facts_of(inputs_of(done))


def inputs_of(done: ReplayedFiles) -> Inputs:
    """Gather what a report is made of."""
    replayed, tick = done.replayed, done.policy.tick
    return Inputs(
        policy=done.policy,
        events=replayed.events,
        timelines=replayed.timelines,
        sights=replayed.sights,
        units=done.units,
        records=done.records,
        cases=done.history.cases,
        left_out=done.history.left_out,
        first=instant(replayed.first_slot, tick),
        last=instant(replayed.last_slot, tick),
        salt=done.order.course.salt,
        simulated=True,
        sources=tuple(_source(path) for path in _files(done.order)),
        command=command_of(done.order),
        product=f"rollout-controller {version('rollout-controller')}",
    )


def _files(order: Order) -> tuple[Path, ...]:
    sources = order.sources
    asked = (order.policy, sources.predictions, sources.decisions, sources.cases, sources.outcomes)
    return tuple(path for path in asked if path is not None)


def _source(path: Path) -> Source:
    return Source(path.name, sha256(path.read_bytes()).hexdigest())


def command_of(order: Order) -> str:
    """Return the command line that replays the same again, with files by their names alone."""
    words = ["rollout", "replay", order.policy.name]
    for flag in ("predictions", "decisions", "cases", "outcomes"):
        path = getattr(order.sources, flag)
        words += [] if path is None else [f"--{flag}", path.name]
    words += [] if order.columns is None else ["--columns", order.columns.name]
    for line in order.mapped:
        words += ["--map", line]
    for name, at in order.trained_until.items():
        words += ["--trained-until", f"{name}={at.isoformat()}"]
    delay = order.course.approve_after
    words += ["--approve-after", "never" if delay is None else duration_text(delay)]
    words += ["--salt", order.course.salt.hex()] if any(order.course.salt) else []
    return shlex.join(words)


def ledger_lines(replayed: Replayed) -> str:
    """Return the ledger, one row a line."""
    return "".join(f"{row.text()}\n" for row in chain(replayed.policy.rollout, replayed.events))


def report_files(done: ReplayedFiles, facts: Facts) -> dict[str, bytes]:
    """Return every file that a replay writes, by name."""
    return {
        "report.html": html_report(facts).encode(),
        "report.json": json_report(facts).encode(),
        "ledger.jsonl": ledger_lines(done.replayed).encode(),
        "divergences.csv": divergences_csv(inputs_of(done)),
    }


def terminal_text(facts: Facts, width: int) -> str:
    """Return what a terminal of so many columns shows after a replay."""
    return text_report(facts, width)
