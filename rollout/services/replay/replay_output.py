"""Output files of a replay: report, ledger, divergences."""

import shlex
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import polars as pl

from rollout.core.calendar.instants import format_duration
from rollout.core.ledger.ledger import build_ledger
from rollout.core.ledger.ledger_texts import derive_salts
from rollout.replay.engine import ReplayResult
from rollout.reports.figures.facts import ReportFacts
from rollout.reports.figures.review_plan import ReviewPlan, compute_review_plan
from rollout.reports.inputs.divergences import render_divergences_csv
from rollout.reports.inputs.gate_progress import build_state_periods
from rollout.reports.inputs.inputs import ReportInputs, SourceFile
from rollout.reports.inputs.pictures import MAX_PICTURE_BYTES, embed_picture
from rollout.reports.pages.json_report import render_json_report
from rollout.reports.pages.text_report import render_text_report
from rollout.services.replay.replay import ReplayedFiles, replay_files, replay_records
from rollout.services.replay.requests import Progress, ReplayRequest
from rollout.tally.frames import MEDIA_COLUMN
from rollout.tally.slots import to_instant


def build_record_inputs(replayed_files: ReplayedFiles) -> ReportInputs:
    """Return the report inputs of a replay, whatever its records came from."""
    result, tick = replayed_files.result, replayed_files.policy.tick
    return ReportInputs(
        policy=replayed_files.policy,
        events=result.events,
        timelines=result.stage_histories,
        evidence_views=result.views,
        units=replayed_files.units,
        records=replayed_files.records,
        cases=replayed_files.history.cases,
        unplaced=replayed_files.history.excluded,
        first=to_instant(result.first_slot, tick),
        last=to_instant(result.last_slot, tick),
        salt=replayed_files.request.options.salt,
        audit_salt=replayed_files.request.options.audit_salt,
        is_simulated=True,
    )


def build_replay_inputs(replayed_files: ReplayedFiles) -> ReportInputs:
    """Return the report inputs of a replay of files."""
    request = replayed_files.request
    return replace(
        build_record_inputs(replayed_files),
        sources=tuple(_build_source(path) for path in _list_input_files(request)),
        command=build_replay_command(request),
        product=f"rollout-controller {metadata.version('rollout-controller')}",
        media=partial(_find_media, replayed_files),
        chosen_sources=replayed_files.request.chosen_sources,
    )


def _find_media(
    replayed_files: ReplayedFiles, keys: Collection[str]
) -> Mapping[str, tuple[str, ...]]:
    """Return the pictures of cases; files are embedded, addresses kept."""
    cases = replayed_files.records.cases
    if MEDIA_COLUMN not in cases.columns:
        return {}
    cases_with_media = cases.filter(
        pl.col("case_key").is_in(list(keys)) & pl.col(MEDIA_COLUMN).is_not_null()
    )
    folder = (
        replayed_files.request.sources.cases or replayed_files.request.sources.predictions
    ).parent.resolve()
    rows = cases_with_media.select("case_key", MEDIA_COLUMN).iter_rows()
    return {key: (_read_picture(folder, reference) or reference,) for key, reference in rows}


def _read_picture(folder: Path, reference: str) -> str | None:
    """Return a small picture inside the records' folder, else None."""
    try:
        path = (folder / reference).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            return None
        with path.open("rb") as file:
            return embed_picture(file.read(MAX_PICTURE_BYTES + 1))
    except (OSError, ValueError):  # an address is not a valid file name
        return None


def _list_input_files(request: ReplayRequest) -> tuple[Path, ...]:
    sources = request.sources
    input_files = (
        request.policy,
        sources.predictions,
        sources.decisions,
        sources.cases,
        sources.outcomes,
        request.planted,
    )
    return tuple(path for path in input_files if path is not None)


def _build_source(path: Path) -> SourceFile:
    return SourceFile(path.name, sha256(path.read_bytes()).hexdigest())


def build_replay_command(request: ReplayRequest) -> str:
    """Return the command line of the same replay, with bare file names."""
    arguments = ["rollout", "replay", request.policy.name]
    for flag in ("predictions", "decisions", "cases", "outcomes"):
        path = getattr(request.sources, flag)
        arguments += [] if path is None else [f"--{flag}", path.name]
    arguments += [] if request.planted is None else ["--planted", request.planted.name]
    arguments += [] if request.columns is None else ["--columns", request.columns.name]
    for mapping in (*request.column_mappings, *request.choices.mappings):
        arguments += ["--map", mapping]
    arguments += request.choices.list_replay_arguments()
    for version_id, at in request.trained_until.items():
        arguments += ["--trained-until", f"{version_id}={at.isoformat()}"]
    for version_id, content in request.contents.items():
        arguments += ["--content", f"{version_id}={content}"]
    for source in request.chosen_sources:
        arguments += ["--sources", source]
    delay = request.options.approval_delay
    arguments += ["--approve-after", "never" if delay is None else format_duration(delay)]
    salts = [salt.hex() for salt in (request.options.salt, request.options.audit_salt) if salt]
    arguments += ["--salt", ",".join(salts)] if any(request.options.salt) else []
    return shlex.join(arguments)


def format_ledger(result: ReplayResult, salt: bytes) -> str:
    """Format the ledger, one entry per line, with salts derived from the replay's."""
    rows = build_ledger(result.policy.rollout, result.events, derive_salts(salt))
    return "".join(f"{row.format()}\n" for row in rows)


def build_report_files(
    replayed_files: ReplayedFiles,
    inputs: ReportInputs,
    facts: ReportFacts,
    example: str | None = None,
) -> dict[str, bytes]:
    """Return all output files by name; `example` is the shipped example that was replayed."""
    from rollout.reports.pages.html_report import render_html_report  # a what-if has no pages

    return {
        "report.html": render_html_report(facts, example=example).encode(),
        "report.json": render_json_report(facts).encode(),
        "ledger.jsonl": format_ledger(
            replayed_files.result, replayed_files.request.options.salt
        ).encode(),
        "divergences.csv": render_divergences_csv(inputs),
    }


def format_terminal_report(facts: ReportFacts, width: int) -> str:
    """Format the report for a terminal of `width` columns."""
    return render_text_report(facts, width)


def plan_recorded_reviews(request: ReplayRequest, decisions: int) -> ReviewPlan:
    """Replay recorded files and return where the next `decisions` help most.

    Raises:
        NothingToReplayError: no record can be evidence.
    """
    inputs = build_replay_inputs(replay_files(request))
    return compute_review_plan(inputs, build_state_periods(inputs), decisions)


def add_whole_cell_replay(
    inputs: ReportInputs, replayed_files: ReplayedFiles, progress: Progress | None = None
) -> ReportInputs:
    """Return the inputs with a replay in which each cell has one gate, of all its own cases.

    A policy without several confidence floors has these gates already: its inputs stay as they are.
    """
    policy = replayed_files.policy
    if not policy.evidence.higher_floors:
        return inputs
    evidence = replace(policy.evidence, confidence_floor=None, confidence_floors=())
    policy = replace(policy, evidence=evidence)
    whole_cells = replay_records(replayed_files.request, policy, replayed_files.records, progress)
    return replace(inputs, whole_cells=build_record_inputs(whole_cells))
