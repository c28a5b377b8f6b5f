"""From a replay to the files that people read: report, ledger, divergences."""

import shlex
from collections.abc import Collection, Mapping
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import polars as pl

from rollout.core.ledger.ledger import chain
from rollout.core.ledger.ledger_texts import derive_salts
from rollout.core.policy.policy import duration_text
from rollout.replay.engine import Replayed
from rollout.reports.figures.facts import Facts, facts_of
from rollout.reports.inputs.inputs import Inputs, Source
from rollout.reports.inputs.pictures import LARGEST, embedded
from rollout.reports.pages.divergences_csv import divergences_csv
from rollout.reports.pages.html_report import html_report
from rollout.reports.pages.json_report import json_report
from rollout.reports.pages.text_report import text_report
from rollout.services.replay.replay import Order, ReplayedFiles
from rollout.tally.frames import ATTRIBUTE
from rollout.tally.slots import instant

MEDIA = f"{ATTRIBUTE}media"
"""The column of recorded files that says where a case's picture is."""


def facts_of_replay(done: ReplayedFiles) -> Facts:
    """Return the numbers of a replay's report."""
    return facts_of(inputs_of(done))


def inputs_of(done: ReplayedFiles) -> Inputs:
    """Gather what a report is made of."""
    result, tick = done.replayed, done.policy.tick
    return Inputs(
        policy=done.policy,
        events=result.events,
        timelines=result.timelines,
        sights=result.sights,
        units=done.units,
        records=done.records,
        cases=done.history.cases,
        left_out=done.history.left_out,
        first=instant(result.first_slot, tick),
        last=instant(result.last_slot, tick),
        salt=done.order.course.salt,
        simulated=True,
        sources=tuple(_source(path) for path in _files(done.order)),
        command=command_of(done.order),
        product=f"rollout-controller {version('rollout-controller')}",
        media=partial(_media, done),
    )


def _media(done: ReplayedFiles, keys: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """Return what the column `media` says of some cases: addresses, files as what is in them."""
    cases = done.records.cases
    if MEDIA not in cases.columns:
        return {}
    cases_with_media = cases.filter(
        pl.col("case_key").is_in(list(keys)) & pl.col(MEDIA).is_not_null()
    )
    folder = (done.order.sources.cases or done.order.sources.predictions).parent.resolve()
    rows = cases_with_media.select("case_key", MEDIA).iter_rows()
    return {key: (_picture(folder, reference) or reference,) for key, reference in rows}


def _picture(folder: Path, reference: str) -> str | None:
    """Return a small picture that lies in the folder of the records; nothing from anywhere else."""
    try:
        path = (folder / reference).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            return None
        with path.open("rb") as file:
            return embedded(file.read(LARGEST + 1))
    except (OSError, ValueError):  # a name that no file can have, as an address is
        return None


def _files(order: Order) -> tuple[Path, ...]:
    sources = order.sources
    input_files = (
        order.policy,
        sources.predictions,
        sources.decisions,
        sources.cases,
        sources.outcomes,
    )
    return tuple(path for path in input_files if path is not None)


def _source(path: Path) -> Source:
    return Source(path.name, sha256(path.read_bytes()).hexdigest())


def command_of(order: Order) -> str:
    """Return the command line that replays the same again, with files by their names alone."""
    arguments = ["rollout", "replay", order.policy.name]
    for flag in ("predictions", "decisions", "cases", "outcomes"):
        path = getattr(order.sources, flag)
        arguments += [] if path is None else [f"--{flag}", path.name]
    arguments += [] if order.columns is None else ["--columns", order.columns.name]
    for mapping in order.mapped:
        arguments += ["--map", mapping]
    for version_id, at in order.trained_until.items():
        arguments += ["--trained-until", f"{version_id}={at.isoformat()}"]
    delay = order.course.approve_after
    arguments += ["--approve-after", "never" if delay is None else duration_text(delay)]
    arguments += ["--salt", order.course.salt.hex()] if any(order.course.salt) else []
    return shlex.join(arguments)


def ledger_lines(replayed: Replayed, salt: bytes) -> str:
    """Return the ledger, one row a line; the salts of its texts follow from the replay's."""
    rows = chain(replayed.policy.rollout, replayed.events, derive_salts(salt))
    return "".join(f"{row.text()}\n" for row in rows)


def report_files(done: ReplayedFiles, facts: Facts) -> dict[str, bytes]:
    """Return every file that a replay writes, by name."""
    return {
        "report.html": html_report(facts).encode(),
        "report.json": json_report(facts).encode(),
        "ledger.jsonl": ledger_lines(done.replayed, done.order.course.salt).encode(),
        "divergences.csv": divergences_csv(inputs_of(done)),
    }


def terminal_text(facts: Facts, width: int) -> str:
    """Return what a terminal of so many columns shows after a replay."""
    return text_report(facts, width)
