"""Replay recorded files under a policy, `rollout.replay`, and write it, `rollout.write_report`.

The output files are report, ledger and divergences.
"""

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from importlib import metadata
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl

from rollout.engine.decide.commands import Command, RetireVersion
from rollout.engine.decide.policy_changes import merge_training_cutoffs
from rollout.engine.evidence.case_placement import (
    NO_EPISODE,
    UNKNOWN_SITE,
    NumberedUnits,
    PlacedHistory,
    encode_repeated_texts,
    find_prediction_spans,
    number_units,
    place_cases,
    place_planted_cases,
    resolve_planted_units,
)
from rollout.engine.evidence.frames import (
    MEDIA_COLUMN,
    SAMPLED_ARM,
    RecordFrames,
    RecordKind,
    RowCount,
    merge_renamed_predictions,
    unify_reviewers,
)
from rollout.engine.evidence.picks import vouch_for_files
from rollout.engine.evidence.stage_history import build_stage_shares, find_buckets
from rollout.engine.evidence.tallied_units import TalliedUnits, build_units
from rollout.engine.evidence.version_uses import VersionUses, drop_undrawn
from rollout.engine.files.mapped_rows import RecordError
from rollout.engine.ledger.ledger import build_ledger, derive_salts
from rollout.engine.records.records import UNREADABLE_REASONS, RemarkReason
from rollout.engine.slots.engine import (
    Replay,
    ReplayResult,
    find_continued_versions,
    list_first_uses,
    plan_retirements,
)
from rollout.engine.slots.options import ReplayOptions
from rollout.engine.slots.record_feed import HistoryFeeds
from rollout.features.replay.requests import (
    Progress,
    RecordedHistory,
    ReplayRequest,
    list_declared_contents,
    read_request_records,
)
from rollout.features.reports.figures.facts import ReportFacts, compute_report_facts
from rollout.features.reports.figures.review_plan import ReviewPlan, compute_review_plan
from rollout.features.reports.inputs.divergences import render_divergences_csv
from rollout.features.reports.inputs.evidence_inputs import build_state_periods
from rollout.features.reports.inputs.inputs import ReportInputs, SourceSummary
from rollout.features.reports.inputs.pictures import MAX_PICTURE_BYTES, embed_picture
from rollout.features.reports.pages.json_report import render_json_report
from rollout.kernel.atomic_files import write_files_atomically
from rollout.kernel.calendar.instants import (
    Cell,
    count_micros,
    format_duration,
    to_instant,
    to_micros,
)
from rollout.kernel.errors import RolloutError
from rollout.kernel.policy.gates import NO_UNPLACED, UnplacedDecisions
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy.stages import find_content_fault
from rollout.kernel.policy_files.reader import load_policy
from rollout.kernel.statistics.sampling import compute_sampling_values

MAX_OTHER_UNITS, MAX_OTHER_SHARE = 5, 0.01
"""Units of another arm that are tolerated, such as some that a stop sent to humans."""


class RecordedArmsError(RolloutError, ValueError):
    """The arms of a replay are not those of its records."""


def check_recorded_arms(
    records: RecordFrames, history: PlacedHistory, result: ReplayResult
) -> None:
    """Compare the arms of a replay with those in its records, where these have them.

    Raises:
        RecordedArmsError: more than a handful of units were in the other arm.
    """
    if not result.policy.outcomes or SAMPLED_ARM not in records.predictions.columns:
        return
    units = _list_sampled_units(records, history, result)
    other_units = units.filter(pl.col(SAMPLED_ARM) != pl.col("replayed_arm"))
    if other_units.height <= max(MAX_OTHER_UNITS, MAX_OTHER_SHARE * units.height):
        return
    example = other_units.row(0, named=True)
    raise RecordedArmsError(
        f"{other_units.height:,} of {units.height:,} units were in another arm when they were"
        f" recorded, such as {example['case_key']}: {example[SAMPLED_ARM]}, replayed as"
        f" {example['replayed_arm']}. Pass the --salt of the recorded rollout, and a policy with"
        " its stages and shares. The arms of another system's experiment can't be replayed"
    )


def _list_sampled_units(
    records: RecordFrames, history: PlacedHistory, result: ReplayResult
) -> pl.DataFrame:
    """Return the first case, recorded and replayed arm of each unit that has both."""
    shares = build_stage_shares(result.policy)
    cases = history.cases.select("case_key", "site", "window", "unit", "occurred_us")
    arms = records.predictions.select("case_key", "version", SAMPLED_ARM).drop_nulls(SAMPLED_ARM)
    firsts = arms.join(cases, on="case_key").sort("occurred_us", "case_key")
    firsts = firsts.unique(["unit", "version"], keep="first", maintain_order=True)
    parts = []
    for (site, window, version), part in firsts.partition_by(
        "site", "window", "version", as_dict=True
    ).items():
        occurred = part["occurred_us"].to_numpy() // count_micros(result.policy.tick)
        stages = result.stage_histories.get(Cell(str(site), str(window)))
        if stages is None:
            continue  # an unknown site, or a time outside all windows: no version acts there
        levels = stages.find_own_levels(str(version), occurred)
        values = compute_sampling_values(history.salt, "stage", part["unit"])
        is_model = find_buckets(shares, values) >= shares.blind_buckets[levels]
        replayed = part.with_columns(
            replayed_arm=pl.Series(np.where(is_model, "model", "human"), dtype=pl.String)
        )
        parts.append(replayed.filter(~np.isnan(shares.model_shares[levels])))
    return pl.concat(parts) if parts else firsts.with_columns(replayed_arm=pl.lit(""))


MAX_EXAMPLE_SITES = 5  # named in hints
REMARK_COLUMNS = ("file", "line", "column", "reason", "detail")


class NothingToReplayError(RolloutError, ValueError):
    """No record can be evidence; the text says where records were lost."""


@dataclass(frozen=True)
class ReplayedFiles:
    """A replay with all inputs of its report; `units` are the gates' of the cases that occur."""

    request: ReplayRequest
    policy: Policy
    records: RecordFrames
    history: PlacedHistory
    units: pl.DataFrame
    result: ReplayResult


def replay(
    policy: Policy,
    history: RecordedHistory,
    *,
    salt: bytes = bytes(32),
    audit_salt: bytes = b"",
    approval_delay: timedelta | None = timedelta(hours=4),
    trained_until: Mapping[str, datetime] | None = None,
) -> ReplayedFiles:
    """Replay recorded history: when and where a policy would have widened and narrowed.

    Args:
        policy: any with the levers of the policy that the history was read with.
        salt: of the sampling values; the same salt gives the same replay.
        audit_salt: of the draws of audits, as a service has its own; empty: the same salt.
        approval_delay: delay of simulated approvals; None: none are given.
        trained_until: end of the training data by version; earlier cases are no evidence.

    Raises:
        RolloutError: no record can be evidence, or the records' experiment had other arms.
        ValueError: no prediction is by a version of `trained_until`.
    """
    options = ReplayOptions(salt, audit_salt, approval_delay=approval_delay)
    request = replace(history.request, options=options, trained_until=trained_until or {})
    _check_named_versions(request, policy, history.records)
    return replay_records(request, policy, history.records)


def replay_files(request: ReplayRequest, progress: Progress | None = None) -> ReplayedFiles:
    """Read the files of `request` and replay them.

    Raises:
        PolicyFaults: the policy is not valid; the text has one line per fault.
        RecordError: a row can't be read, and `strict` is set.
        NothingToReplayError: no record has a site of the policy, a time and a unit.
    """
    assert request.policy is not None  # noqa: S101 - a command names it
    policy = load_policy(request.policy)
    records = read_request_records(request, policy, progress)
    _check_named_versions(request, policy, records)
    return replay_records(request, policy, records, progress)


def _check_named_versions(request: ReplayRequest, policy: Policy, records: RecordFrames) -> None:
    """Raise ValueError for an unknown version, or a content that is not the policy's."""
    # not by `predictions["version"]`: a frame keeps what it writes out of a column of one value
    known_versions = sorted(records.predictions.select(pl.col("version").unique()).to_series())
    options = {"--trained-until": request.trained_until, "--content": request.contents}
    for option, values in options.items():
        for version in values:
            if version not in known_versions:
                raise ValueError(
                    f"{option} {version}: no prediction is by {version}; there are"
                    f" {', '.join(known_versions)}"
                )
    for version, content in request.contents.items():
        by_policy = policy.contents_by_version.get(version, "")
        fault = find_content_fault(version, declared=content, content=content, by_policy=by_policy)
        if fault:
            raise ValueError(f"--content: {fault}")


def replay_records(
    request: ReplayRequest,
    policy: Policy,
    records: RecordFrames,
    progress: Progress | None = None,
    commands: Iterable[Command] = (),
) -> ReplayedFiles:
    """Replay records, and what operators did meanwhile.

    Raises:
        NothingToReplayError: no record can be evidence.
        VersionsAtOnceError: too many versions were in use at once.
        RecordedArmsError: the records' experiment had other arms.
    """
    contents = list_declared_contents(records, request.contents, policy)
    records, history, planted, first_seen, retirements = _place_records(
        request, policy, records, contents
    )
    numbered = number_units(history, policy)
    if policy.outcomes:  # of versions in use silent cases have outcomes, too
        history = replace(history, uses=history.uses.extend(numbered.frame))
    unit_arrays = _build_unit_arrays(numbered, planted, policy)
    unit_arrays = replace(unit_arrays, unplaced=_count_unplaced(records))
    if not numbered.frame.select(pl.col("excluded").null_count()).item():
        raise NothingToReplayError(_describe_empty_replay(history, numbered.frame, records))
    units = numbered.list_gate_units()
    del numbered  # as large as all records
    feeds = HistoryFeeds(records, history, policy)
    if policy.outcomes:  # their deadlines pass after the units close, as long as there are records
        unit_arrays = replace(unit_arrays, last_slot=max(unit_arrays.last_slot, feeds.last_slot))
    engine = Replay(
        unit_arrays,
        policy,
        feeds,
        first_seen,
        request.options,
        contents,
        (*retirements, *commands),
    )
    report_progress = (
        None if progress is None else lambda done, total: progress("deciding", done, total)
    )
    result = engine.run(report_progress)
    check_recorded_arms(records, history, result)
    return ReplayedFiles(request, policy, records, history, units, result)


def _count_unplaced(records: RecordFrames) -> UnplacedDecisions:
    """Return how many rows of decisions are of a case that no file has, among all that are used."""
    row_count = records.row_counts.get(RecordKind.DECISIONS)
    if row_count is None:
        return NO_UNPLACED
    unplaced = row_count.rejected.get(RemarkReason.NO_CASE_YET, 0)
    return UnplacedDecisions(unplaced, row_count.used + unplaced)


def _build_unit_arrays(
    numbered: NumberedUnits, planted: PlacedHistory | None, policy: Policy
) -> TalliedUnits:
    """Return the units of both populations as arrays.

    Planted cases extend the replayed span only if a gate asks for them.
    """
    span = build_units(numbered.frame, policy, numbered.keys)
    if planted is None:
        return span
    planted = replace(planted, uses=planted.uses.extend(numbered.frame))
    planted_units = encode_repeated_texts(resolve_planted_units(planted, policy))
    arrays = build_units(pl.concat([numbered.list_units(), planted_units]), policy)
    if any(c.population.is_planted for gate in policy.gates for c in gate.require):
        return arrays
    return replace(arrays, first_slot=span.first_slot, last_slot=span.last_slot)


def _place_records(
    request: ReplayRequest, policy: Policy, records: RecordFrames, contents: Mapping[str, str]
) -> tuple[
    RecordFrames,
    PlacedHistory,
    PlacedHistory | None,
    Mapping[str, datetime],
    Sequence[RetireVersion],
]:
    """Return records by first names of versions, placed, and first uses and retirements.

    The planted cases are placed apart; None without any.

    Raises:
        VersionsAtOnceError: too many versions were in use at once.
    """
    salt, trained_until = request.options.salt, request.trained_until
    records = drop_undrawn(vouch_for_files(records, policy.evidence.sources.vouched))
    history = place_cases(records, policy, salt, trained_until)
    planted = place_planted_cases(records, policy, salt, trained_until)
    spans = find_uses(records, history, planted)
    first_seen = {version: first for version, (first, _) in spans.items()}
    last_seen = {version: last for version, (_, last) in spans.items()}
    retirements = plan_retirements(first_seen, last_seen, contents)
    first_uses = list_first_uses(first_seen, contents)
    if first_names := find_continued_versions(policy, [*first_uses, *retirements]):
        planted_records = records.planted
        if planted_records is not None:
            planted_records = merge_renamed_predictions(planted_records, first_names)
            planted_records = drop_undrawn(planted_records, first_names)
        records = merge_renamed_predictions(records, first_names)
        records = drop_undrawn(replace(records, planted=planted_records), first_names)
        trained_until = merge_training_cutoffs(trained_until, first_names)
        history = place_cases(records, policy, salt, trained_until)
        planted = place_planted_cases(records, policy, salt, trained_until)
    uses = VersionUses(retired={r.version: to_micros(r.at) for r in retirements})
    if planted is not None:
        planted = replace(planted, uses=uses)
    return records, replace(history, uses=uses), planted, first_seen, retirements


def find_uses(
    records: RecordFrames, history: PlacedHistory, planted: PlacedHistory | None
) -> dict[str, tuple[datetime, datetime]]:
    """Return when each version first and last predicted a case, planted or not."""
    uses = find_prediction_spans(records, history.cases)
    if planted is not None and records.planted is not None:
        for version, span in find_prediction_spans(records.planted, planted.cases).items():
            first, last = uses.get(version, span)
            uses[version] = min(first, span[0]), max(last, span[1])
    return uses


def _describe_empty_replay(
    history: PlacedHistory, units: pl.DataFrame, records: RecordFrames
) -> str:
    """Describe where records were lost, by file and case, with examples."""
    excluded = units.drop_nulls("excluded").group_by("excluded").len().sort("excluded")
    lost_counts = {
        **{
            f"cases: {excluded_reason}": lost_count
            for excluded_reason, lost_count in history.excluded.items()
        },
        **dict(excluded.rows()),
    }
    lines = [
        "nothing to replay: no prediction can be evidence",
        *(_describe_row_count(count) for count in records.row_counts.values()),
        *(f"{count} {reason}" for reason, count in lost_counts.items() if count),
        *_iterate_examples(records),
        *_iterate_hints(history, records),
    ]
    return "\n  ".join(lines)


def _describe_row_count(count: RowCount) -> str:
    rejected_text = ", ".join(
        f"{rejected_count} {reason}" for reason, rejected_count in count.rejected.items()
    )
    return f"{count.file}: {count.rows} rows read, {count.used} used" + (
        rejected_text and f"; {rejected_text}"
    )


def _iterate_examples(records: RecordFrames) -> Iterator[str]:
    """Yield the first unreadable row for each reason."""
    remarks = pl.concat([records.rejected, records.notes])
    unreadable_rows = remarks.filter(
        pl.col("reason").is_in([reason.value for reason in UNREADABLE_REASONS])
    )
    for row in unreadable_rows.unique("reason", keep="first", maintain_order=True).iter_rows(
        named=True
    ):
        yield str(RecordError(*(row[name] for name in REMARK_COLUMNS)))


def _iterate_hints(history: PlacedHistory, records: RecordFrames) -> Iterator[str]:
    if history.excluded.get(UNKNOWN_SITE):
        sites = records.cases["site"].drop_nulls().unique().sort().head(MAX_EXAMPLE_SITES)
        yield f"sites in the files: {', '.join(sites)}; compare `sites:` of the policy"
    if history.excluded.get(NO_EPISODE):
        yield "no case names its episode: write `evidence.episode_span`, or `unit: case`"


def build_record_inputs(replayed_files: ReplayedFiles) -> ReportInputs:
    """Return the report inputs of a replay, whatever its records came from."""
    result, tick = replayed_files.result, replayed_files.policy.tick
    return ReportInputs(
        policy=replayed_files.policy,
        events=result.events,
        timelines=result.stage_histories,
        evidence_views=result.views,
        units=replayed_files.units,
        records=unify_reviewers(replayed_files.records),
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
        sources=tuple(
            SourceSummary(path.name, sha256(path.read_bytes()).hexdigest())
            for path in _list_input_files(request)
        ),
        command="" if request.policy is None else build_replay_command(request, request.policy),
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


def build_replay_command(request: ReplayRequest, policy: Path) -> str:
    """Return the command line of the same replay, with bare file names."""
    sources = request.sources
    files = {
        "predictions": sources.predictions,
        "decisions": sources.decisions,
        "cases": sources.cases,
        "outcomes": sources.outcomes,
        "planted": request.planted,
        "columns": request.columns,
    }
    mappings = (*request.column_mappings, *request.choices.mappings)
    delay = request.options.approval_delay
    salts = [salt.hex() for salt in (request.options.salt, request.options.audit_salt) if salt]
    options = [
        *(
            ("--trained-until", f"{name}={at.isoformat()}")
            for name, at in request.trained_until.items()
        ),
        *(("--content", f"{name}={content}") for name, content in request.contents.items()),
        *(("--sources", source) for source in request.chosen_sources),
        ("--approve-after", "never" if delay is None else format_duration(delay)),
        *([("--salt", ",".join(salts))] if any(request.options.salt) else []),
    ]
    arguments = [
        *chain.from_iterable((f"--{flag}", path.name) for flag, path in files.items() if path),
        *chain.from_iterable(("--map", mapping) for mapping in mappings),
        *request.choices.list_replay_arguments(),
        *chain.from_iterable(options),
    ]
    return shlex.join(["rollout", "replay", policy.name, *arguments])


def format_ledger(result: ReplayResult, salt: bytes) -> str:
    """Format the ledger, one entry per line, with salts derived from the replay's."""
    rows = build_ledger(result.policy.rollout, result.events, derive_salts(salt))
    return "".join(f"{row.format()}\n" for row in rows)


def write_report(replayed_files: ReplayedFiles, folder: str | Path) -> ReportFacts:
    """Write report.html, report.json, ledger.jsonl and divergences.csv; return the figures.

    All files are written or none; the folder is created.

    Raises:
        ValueError: the folder is not writable.
        OSError: the disk is full, or fails.
    """
    facts, files = build_report(replayed_files)
    write_files_atomically(Path(folder), files)
    return facts


def build_report(
    replayed_files: ReplayedFiles, progress: Progress | None = None
) -> tuple[ReportFacts, dict[str, bytes]]:
    """Return the figures of a replay, and all output files by name."""
    inputs = add_whole_cell_replay(build_replay_inputs(replayed_files), replayed_files, progress)
    facts = compute_report_facts(inputs)
    return facts, build_report_files(replayed_files, inputs, facts)


def build_report_files(
    replayed_files: ReplayedFiles,
    inputs: ReportInputs,
    facts: ReportFacts,
    example: str | None = None,
) -> dict[str, bytes]:
    """Return all output files by name; `example` is the shipped example that was replayed."""
    from rollout.features.reports.pages.html_report import (
        render_html_report,  # a what-if has no pages
    )

    return {
        "report.html": render_html_report(facts, example=example).encode(),
        "report.json": render_json_report(facts).encode(),
        "ledger.jsonl": format_ledger(
            replayed_files.result, replayed_files.request.options.salt
        ).encode(),
        "divergences.csv": render_divergences_csv(inputs),
    }


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
