"""The demo: a replay of the mail room, described with its figures."""

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from json import loads
from textwrap import fill, wrap
from zoneinfo import ZoneInfo

from rollout.core.calendar.sites import SHADOW
from rollout.formats.records.files import RecordPaths
from rollout.reports.figures.audit_cost import Hindsight
from rollout.reports.figures.facts import ReportFacts
from rollout.reports.inputs.stages import CellStages
from rollout.reports.text.formatting import (
    describe_duration,
    format_count,
    format_local_time,
    format_percent,
    format_quantity,
    format_ratio,
    prevent_breaks,
)
from rollout.reports.text.guard_text import describe_counted_records
from rollout.services.replay.replay import Progress, ReplayedFiles, ReplayRequest, replay_files
from rollout.services.replay.replay_output import build_report_files, compute_replay_facts
from rollout.services.support.package_data import find_package_data

LINE_WIDTH = 79
ARROW = " → "
SIMULATED_CAUSES = {  # the changes that the records' makers made in some cells
    ("halifax", "night"): "the scanner gets dirty over the week; it is cleaned on Mondays",
    (
        "lisbon",
        "day",
    ): "from 20 October on, a new form shifts the digit",
}
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"


def build_demo_order() -> ReplayRequest:
    """Return the replay request for the shipped records and policy."""
    records = find_package_data("mail-room")
    metadata = loads((records / "about.json").read_text(encoding="utf-8"))
    return ReplayRequest(
        policy=find_package_data("config") / "policies" / "mail-room.yaml",
        sources=RecordPaths(
            predictions=records / "predictions.csv.gz",
            decisions=records / "decisions.csv.gz",
            cases=records / "cases.csv.gz",
            outcomes=records / "outcomes.csv.gz",
        ),
        trained_until={
            version_id: datetime.fromisoformat(version["trained_until"])
            for version_id, version in metadata["versions"].items()
        },
    )


def run_demo(progress: Progress | None = None) -> tuple[str, dict[str, bytes]]:
    """Replay the mail room; return its terminal text and report files."""
    replayed_files = replay_files(build_demo_order(), progress)
    facts = compute_replay_facts(replayed_files)
    return describe_replay(replayed_files, facts), build_report_files(replayed_files, facts)


def describe_replay(replayed_files: ReplayedFiles, facts: ReportFacts) -> str:
    """Describe the replay for a reader without other knowledge."""
    timezones = {site.id: site.timezone for site in replayed_files.policy.sites}
    sections = (
        _describe_beginning(replayed_files),
        _describe_widening(facts, timezones),
        _describe_shadow_cells(facts, timezones),
        _describe_narrowing(facts, timezones),
        _describe_new_version(facts),
        _describe_price(facts),
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _describe_beginning(replayed_files: ReplayedFiles) -> Iterator[str]:
    letter_count = format_count(replayed_files.records.cases.height)
    audit_share = format_percent(replayed_files.policy.stages[-1].audit, 0)
    yield (
        f"THE MAIL ROOM: {len(replayed_files.policy.sites)} offices, {letter_count} letters, two"
        " versions"
    )
    yield from _wrap_text(
        "A model reads the first digit of handwritten postcodes. The digit decides into which of "
        "four bins a letter goes. A cell is one office by day or by night. Every cell starts in "
        "shadow: clerks decide, and the model's answers are only compared with theirs. With enough "
        "evidence of agreement, and approvals, a cell becomes supervised: the model proposes and a "
        "clerk confirms. Later it becomes autonomous: the model decides, and a clerk checks "
        f"{audit_share} of its letters."
    )
    yield from _wrap_text(
        "Real: the digits, the classifier and its errors. Simulated: offices, hours, scanners, the "
        "new form, clerks, and every approval (4 hours after its proposal). Times are the local "
        "times of each office."
    )


def _wrap_text(text: str, indent: str = "") -> list[str]:
    """Wrap a text for a terminal; numbers keep their per cent sign."""
    lines = wrap(prevent_breaks(text), LINE_WIDTH, initial_indent=indent, subsequent_indent=indent)
    return [line.replace(NO_BREAK_SPACE, " ") for line in lines]


def _describe_widening(facts: ReportFacts, timezones: dict[str, str]) -> Iterator[str]:
    widened_cells = [cell for cell in facts.stages if cell.widened]
    yield (
        f"1 WIDENED: {len(widened_cells)} of {len(facts.stages)} cells, each on its own evidence"
    )
    for cell in widened_cells:
        path_text = fill(
            _describe_stage_path(cell, timezones[cell.site]),
            LINE_WIDTH,
            initial_indent=f"  {cell.site + ' ' + cell.window:14}",
            subsequent_indent=" " * 16,
        )
        yield path_text.replace(NO_BREAK_SPACE, " ")


def _describe_stage_path(cell: CellStages, timezone: str) -> str:
    """Describe the stages of a cell by start day, without the first shadow."""
    stage_intervals = [
        (key, list(intervals))
        for key, intervals in groupby(cell.intervals, lambda interval: interval.stage)
    ]
    stage_starts = [(stage, intervals[0].since) for stage, intervals in stage_intervals]
    shown_steps = stage_starts[1:] if stage_starts[0][0] == SHADOW else stage_starts
    steps_in_words = [f"{_format_day(since, timezone)} {stage}" for stage, since in shown_steps]
    return ARROW.join(step.replace(" ", NO_BREAK_SPACE) for step in steps_in_words)


def _format_day(at: datetime, timezone: str) -> str:
    local_time = at.astimezone(ZoneInfo(timezone))
    return f"{local_time.day} {local_time:%b}"


def _describe_shadow_cells(facts: ReportFacts, timezones: dict[str, str]) -> Iterator[str]:
    shadow_cells = [cell for cell in facts.stages if not cell.widened]
    cell_names = ", ".join(f"{cell.site} {cell.window}" for cell in shadow_cells) or "none"
    yield f"2 HELD in shadow: {cell_names}"
    for cell in shadow_cells:
        yield from _describe_cause(cell.site, cell.window)
        yield from _describe_shadow_cell(facts, cell, timezones[cell.site])


def _describe_cause(site: str, window: str) -> list[str]:
    """Describe the simulated change in the records, unknown to the engine."""
    if (site, window) not in SIMULATED_CAUSES:
        return []
    return _wrap_text(f"{site} {window}: {SIMULATED_CAUSES[site, window]}", "  ")


def _describe_shadow_cell(facts: ReportFacts, cell: CellStages, timezone: str) -> Iterator[str]:
    for cell_facts in facts.evidence:
        if (cell_facts.site, cell_facts.window) == (
            cell.site,
            cell.window,
        ) and cell_facts.gate is not None:
            for condition in cell_facts.gate.conditions:
                share_text = (
                    f"{format_count(condition.counts[0])} of {format_count(condition.n)} decisions"
                )
                rate_text = format_percent(condition.estimate)
                threshold = format_percent(condition.line, 0)
                yield (
                    f"  {cell_facts.version}: {share_text} agree ({rate_text}); the gate needs"
                    f" evidence for {threshold}"
                )
    naive_rules = [n for n in facts.naive if (n.site, n.window) == (cell.site, cell.window)]
    if naive_rules:
        yield "  Simple rules would have widened it, and would not have narrowed it again:"
    for rule in naive_rules:
        wrong_text = (
            f"{format_count(rule.wrong.count)} of {format_count(rule.wrong.n)} letters misrouted"
        )
        opened_on = _format_day(rule.opened_at, timezone)
        yield from _wrap_text(f"{rule.version} on {opened_on}: {rule.rule}", "    ")
        clerk_text = _describe_clerk_errors(
            rule.people_wrong.count, rule.people_wrong.n, rule.wrong.n
        )
        yield f"      {wrong_text}{clerk_text}"


def _describe_clerk_errors(wrong_count: int | None, labelled: int, letters: int) -> str:
    """Describe the human errors on those of the letters with a label; nothing if unknown."""
    if wrong_count is None:
        return ""
    labelled_text = f"the {format_count(labelled)} that they labelled"
    letters_text = "the same letters" if labelled == letters else labelled_text
    return f" (clerks on {letters_text}: {format_count(wrong_count)})"


def _describe_narrowing(facts: ReportFacts, timezones: dict[str, str]) -> Iterator[str]:
    yield f"3 NARROWED automatically: {format_quantity(len(facts.hindsights), 'time')}"
    for site_and_window in dict.fromkeys(
        (hindsight.site, hindsight.window) for hindsight in facts.hindsights
    ):
        yield from _describe_cause(*site_and_window)
    for hindsight in facts.hindsights:
        yield from _describe_narrowed_cell(hindsight, timezones[hindsight.site])


def _describe_narrowed_cell(hindsight: Hindsight, timezone: str) -> Iterator[str]:
    at = format_local_time(hindsight.narrowed_at, timezone)
    step_text = f"{hindsight.version} {hindsight.came_from}{ARROW}{hindsight.to}"
    yield f"  {hindsight.site} {hindsight.window}, {at}: {step_text}"
    counted_text = describe_counted_records(hindsight.guard)
    yield from _wrap_text(
        f"guard {hindsight.guard}: {format_ratio(hindsight.shown)} {counted_text}", "    "
    )
    cost = hindsight.price
    if not cost.cases:
        return
    delay = describe_duration(hindsight.narrowed_at - hindsight.began_at)
    clerk_text = _describe_clerk_errors(cost.people_wrong_action, cost.people_known, cost.cases)
    yield from _wrap_text(
        f"the errors began about {format_local_time(hindsight.began_at, timezone)}; the guard"
        f" tripped {delay} later; until then the model decided"
        f" {format_quantity(cost.cases, 'letter')} and misrouted"
        f" {cost.wrong_action.count}{clerk_text}",
        "    ",
    )
    if hindsight.seen_at is not None and hindsight.price_if_seen is not None:
        sooner_delay = describe_duration(hindsight.seen_at - hindsight.began_at)
        wrong_text = format_quantity(hindsight.price_if_seen.wrong_action.count, "misrouted letter")
        yield from _wrap_text(
            "with a clerk's decision on every letter, the guard would have tripped after"
            f" {sooner_delay} and {wrong_text}; the difference is the price of auditing a sample",
            "    ",
        )


def _describe_new_version(facts: ReportFacts) -> Iterator[str]:
    yield "4 THE NEW VERSION v2, trained on the new form too, also starts in shadow"
    kinds = {"VersionFirstUsed", "TakenOver", "Widened"}
    for event in facts.timeline:
        if event.version == "v2" and event.kind in kinds:
            location = f"{event.site} {event.window}: " if event.site else ""
            timezone_text = "" if event.site else f" ({facts.identity.timezone})"
            yield f"  {event.local:>16}  {location}{event.brief}{timezone_text}"


def _describe_price(facts: ReportFacts) -> Iterator[str]:
    model_cost = facts.price
    unaudited_count = format_count(model_cost.cases - model_cost.audited)
    letter_count = format_count(model_cost.cases)
    yield (
        f"5 THE PRICE: the model decided {letter_count} letters by itself, {unaudited_count} of"
        " them unaudited"
    )
    wrong_by_clerks = model_cost.people_wrong_action
    clerk_text = (
        ""
        if wrong_by_clerks is None
        else f" (clerks: {wrong_by_clerks} of {model_cost.people_known:,} that they labelled)"
    )
    yield f"  misrouted by the model: {format_ratio(model_cost.wrong_action)}{clerk_text}"
    outliers = [reviewer for reviewer in facts.people.reviewers if reviewer.stands_out]
    if outliers and outliers[0].with_outcome.rate is not None:
        wrong_share = format_percent(1 - outliers[0].with_outcome.rate)
        outlier_text = (
            f"{len(outliers)} of {format_quantity(len(facts.people.reviewers), 'clerk')} stand out"
        )
        yield from _wrap_text(
            f"{outlier_text}, {outliers[0].name} most: wrong in {wrong_share} of letters. A"
            " clerk's errors count as disagreements, so that office is widened later.",
            "  ",
        )
