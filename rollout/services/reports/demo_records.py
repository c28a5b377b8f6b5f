"""The demo: the mail room replayed, and its story told with the figures that came out."""

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from json import loads
from textwrap import fill, wrap
from zoneinfo import ZoneInfo

from rollout.core.calendar.sites import SHADOW
from rollout.formats.records.files import Sources
from rollout.reports.figures.audit_cost import Hindsight
from rollout.reports.figures.facts import Facts
from rollout.reports.inputs.stages import CellStages
from rollout.reports.text.formatting import (
    local,
    number,
    of,
    per_cent,
    several,
    span_text,
    unbroken,
)
from rollout.services.replay.replay import Order, Progress, ReplayedFiles, replay
from rollout.services.replay.replay_output import facts_of_replay, report_files
from rollout.services.support.package_data import shipped

WIDTH = 79
ARROW = " → "
WHY = {  # what the records' makers did in the cells that the story is about
    ("halifax", "night"): "its scanner wears through the week and is cleaned on Mondays",
    ("lisbon", "day"): "on 20 October the counters begin to use a form that shifts the digit",
}
UNBROKEN = "\N{NO-BREAK SPACE}"


def order() -> Order:
    """Return what the demo replays: the shipped records under the shipped policy."""
    records = shipped("mail-room")
    metadata = loads((records / "about.json").read_text(encoding="utf-8"))
    return Order(
        policy=shipped("config") / "policies" / "mail-room.yaml",
        sources=Sources(
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


def play(progress: Progress | None = None) -> tuple[str, dict[str, bytes]]:
    """Replay the mail room; return its story for the terminal, and the report's files."""
    replayed_files = replay(order(), progress)
    facts = facts_of_replay(replayed_files)
    return story(replayed_files, facts), report_files(replayed_files, facts)


def story(done: ReplayedFiles, facts: Facts) -> str:
    """Tell what happened, so that somebody who has read nothing else understands it."""
    timezones = {site.id: site.timezone for site in done.policy.sites}
    sections = (
        _beginning(done),
        _widened(facts, timezones),
        _held(facts, timezones),
        _narrowed(facts, timezones),
        _taken_over(facts),
        _price(facts),
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _beginning(done: ReplayedFiles) -> Iterator[str]:
    letter_count = number(done.records.cases.height)
    audit_share = per_cent(done.policy.stages[-1].audit, 0)
    yield f"THE MAIL ROOM: {len(done.policy.sites)} offices, {letter_count} letters, two versions"
    yield from _told(
        "A model reads the first digit of a handwritten postcode, and with it into which of four "
        "bins the letter goes. It starts in shadow: clerks decide, it reads along. Where it has "
        "shown that it agrees with them it may propose (supervised), later decide by itself, with "
        f"{audit_share} of its letters read again (autonomous)."
    )
    yield from _told(
        "Real: the digits, the classifier, its mistakes. Simulated: offices, hours, scanners, the "
        "new form, clerks, and every approval (given 4 hours after a proposal). Days and times "
        "are each office's own."
    )


def _told(text: str, indent: str = "") -> list[str]:
    """Return a text as lines that fit a terminal; a number and its per cent sign stay together."""
    lines = wrap(unbroken(text), WIDTH, initial_indent=indent, subsequent_indent=indent)
    return [line.replace(UNBROKEN, " ") for line in lines]


def _widened(facts: Facts, zones: dict[str, str]) -> Iterator[str]:
    widened_cells = [cell for cell in facts.stages if cell.widened]
    yield (
        f"1 WIDENED: {len(widened_cells)} of {len(facts.stages)} cells (an office by day or by"
        " night), each on its own evidence"
    )
    for cell in widened_cells:
        path_text = fill(
            _path(cell, zones[cell.site]),
            WIDTH,
            initial_indent=f"  {cell.site + ' ' + cell.window:14}",
            subsequent_indent=" " * 16,
        )
        yield path_text.replace(UNBROKEN, " ")


def _path(cell: CellStages, zone: str) -> str:
    """Return the stages of a cell with the day on which each began, shadow left out at first."""
    stage_intervals = [
        (key, list(intervals))
        for key, intervals in groupby(cell.intervals, lambda interval: interval.stage)
    ]
    stage_starts = [(stage, intervals[0].since) for stage, intervals in stage_intervals]
    shown_steps = stage_starts[1:] if stage_starts[0][0] == SHADOW else stage_starts
    steps_in_words = [f"{_day(since, zone)} {stage}" for stage, since in shown_steps]
    return ARROW.join(step.replace(" ", UNBROKEN) for step in steps_in_words)


def _day(at: datetime, zone: str) -> str:
    local_time = at.astimezone(ZoneInfo(zone))
    return f"{local_time.day} {local_time:%b}"


def _held(facts: Facts, zones: dict[str, str]) -> Iterator[str]:
    shadow_cells = [cell for cell in facts.stages if not cell.widened]
    cell_names = ", ".join(f"{cell.site} {cell.window}" for cell in shadow_cells) or "none"
    yield f"2 HELD in shadow to the end: {cell_names}"
    for cell in shadow_cells:
        yield from _why(cell.site, cell.window)
        yield from _held_cell(facts, cell, zones[cell.site])


def _why(site: str, window: str) -> list[str]:
    """Say what was done to the records there; the engine was not told."""
    if (site, window) not in WHY:
        return []
    return _told(f"{site} {window}: {WHY[site, window]}", "  ")


def _held_cell(facts: Facts, cell: CellStages, zone: str) -> Iterator[str]:
    for cell_facts in facts.evidence:
        if (cell_facts.site, cell_facts.window) == (
            cell.site,
            cell.window,
        ) and cell_facts.gate is not None:
            for condition in cell_facts.gate.conditions:
                share_text = f"{number(condition.counts[0])} of {number(condition.n)}"
                rate_text, threshold = per_cent(condition.estimate), per_cent(condition.line, 0)
                yield (
                    f"  {cell_facts.version}: {share_text} agree, {rate_text}; asked for is proof"
                    f" of {threshold}"
                )
    naive_rules = [n for n in facts.naive if (n.site, n.window) == (cell.site, cell.window)]
    if naive_rules:
        yield "  Rules that people commonly write would have opened it, and left it open:"
    for rule in naive_rules:
        wrong_text = f"{number(rule.wrong.count)} of {number(rule.wrong.n)} letters misrouted"
        yield f"    {rule.version}, {_day(rule.opened_at, zone)}, when {rule.rule}:"
        yield f"      {wrong_text}{_clerks(rule.people_wrong.count)}"


def _clerks(wrong: int | None) -> str:
    """Say what people would have got wrong on the same letters; nothing where nobody knows."""
    return "" if wrong is None else f" (clerks would have: {number(wrong)})"


def _narrowed(facts: Facts, zones: dict[str, str]) -> Iterator[str]:
    yield f"3 NARROWED by itself: {several(len(facts.hindsights), 'time')}"
    for site_and_window in dict.fromkeys(
        (hindsight.site, hindsight.window) for hindsight in facts.hindsights
    ):
        yield from _why(*site_and_window)
    for hindsight in facts.hindsights:
        yield from _narrowing(hindsight, zones[hindsight.site])


def _narrowing(found: Hindsight, zone: str) -> Iterator[str]:
    at = local(found.narrowed_at, zone)
    step_text = f"{found.version} {found.came_from}{ARROW}{found.to}"
    yield f"  {found.site} {found.window}, {at}: {step_text}"
    yield f"    guard: {found.guard}; of what it was shown, {of(found.shown)} against it"
    cost = found.price
    if not cost.cases:
        return
    delay = span_text(found.narrowed_at - found.began_at)
    yield f"    the fault began about {local(found.began_at, zone)}; {delay} until it was noticed:"
    yield (
        f"    {several(cost.cases, 'letter')} decided by the model, "
        f"{cost.wrong_action.count} misrouted{_clerks(cost.people_wrong_action)}"
    )
    if found.seen_at is not None and found.price_if_seen is not None:
        sooner_delay = span_text(found.seen_at - found.began_at)
        wrong_text = several(found.price_if_seen.wrong_action.count, "misrouted letter")
        yield f"    somebody who saw every verdict would have noticed after {sooner_delay} and"
        yield f"    {wrong_text}: the difference is the price of auditing a part"


def _taken_over(facts: Facts) -> Iterator[str]:
    yield "4 THE NEW VERSION, trained on the new form too, starts in shadow like the first"
    kinds = {"VersionFirstUsed", "TakenOver", "Widened"}
    for event in facts.timeline:
        if event.version == "v2" and event.kind in kinds:
            location = f"{event.site} {event.window}: " if event.site else ""
            timezone_text = "" if event.site else f" ({facts.identity.timezone})"
            yield f"  {event.local:>16}  {location}{event.brief}{timezone_text}"


def _price(facts: Facts) -> Iterator[str]:
    model_cost = facts.price
    unseen_count = number(model_cost.cases - model_cost.audited)
    letter_count = number(model_cost.cases)
    yield f"5 THE PRICE: {letter_count} letters decided by the model, {unseen_count} seen by nobody"
    wrong_by_clerks = model_cost.people_wrong_action
    clerk_text = (
        ""
        if wrong_by_clerks is None
        else f" (clerks would have: {wrong_by_clerks} of {model_cost.people_known:,})"
    )
    yield f"  {number(model_cost.wrong_action.count)} misrouted{clerk_text}"
    outliers = [reviewer for reviewer in facts.people.reviewers if reviewer.stands_out]
    if outliers and outliers[0].with_outcome.rate is not None:
        wrong_share = per_cent(1 - outliers[0].with_outcome.rate)
        outlier_text = (
            f"{len(outliers)} of {several(len(facts.people.reviewers), 'clerk')} stand out"
        )
        yield from _told(
            f"{outlier_text}, most of all {outliers[0].name}, wrong in {wrong_share} of letters."
            " That clerk's office waits longer: of two who differ, agreement can't tell who is"
            " wrong.",
            "  ",
        )
